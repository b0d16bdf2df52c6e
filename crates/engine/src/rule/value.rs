//! Scalars of rule files as the values that conditions and test events use.

use serde_json::Value as Json;

use crate::condition::Literal;
use crate::diagnostic::{Diagnostics, code};
use crate::yaml::fields::wrong_kind;
use crate::yaml::{Kind, Node, Scalar};

/// Plain words that YAML 1.1 readers take for booleans.
const YAML_1_1_BOOLEANS: &[&str] = &["y", "yes", "n", "no", "on", "off"];

/// A scalar as a literal. Lists and maps are reported, and so is a word that other YAML readers would misread.
pub(crate) fn literal(node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Option<Literal> {
    let Kind::Scalar(scalar) = &node.kind else {
        let hint = "several values are one flat list: `[a, b]`; blocks of conditions go under `all`, `any` or `not`";
        let message = format!("{what} must be one value, not {}", node.describe());
        diagnostics.error(code::BAD_VALUE, &node.span, message, Some(hint.into()));
        return None;
    };
    if scalar.text.is_empty() && !scalar.quoted {
        let hint = "write the value; `null` means that the field is missing, `\"\"` is empty text";
        diagnostics.error(code::NO_VALUE, &node.span, format!("{what} is missing"), Some(hint.into()));
        return None;
    }
    warn_of_word(scalar, node, diagnostics);
    Some(of_scalar(scalar))
}

/// A value of a list file: a number or text, never a boolean or null.
pub(crate) fn plain(text: &str) -> Literal {
    let scalar = Scalar { text: text.to_owned(), quoted: false };
    match scalar.number() {
        Some(number) => Literal::Number(number, scalar.text),
        None => Literal::Text(scalar.text),
    }
}

/// A value of a test event. Returns `None` after it reported something.
pub(crate) fn json(node: &Node, diagnostics: &mut Diagnostics) -> Option<Json> {
    match &node.kind {
        Kind::Map(entries) => {
            let fields = entries.iter().map(|(key, value)| Some((key.text.clone(), json(value, diagnostics)?)));
            let fields: Vec<Option<(String, Json)>> = fields.collect();
            fields.into_iter().collect::<Option<serde_json::Map<String, Json>>>().map(Json::Object)
        }
        Kind::List(items) => {
            let values: Vec<Option<Json>> = items.iter().map(|item| json(item, diagnostics)).collect();
            values.into_iter().collect::<Option<Vec<Json>>>().map(Json::Array)
        }
        Kind::Scalar(scalar) => {
            warn_of_word(scalar, node, diagnostics);
            Some(json_scalar(scalar))
        }
    }
}

/// Takes a node as a JSON object.
pub(crate) fn json_object(node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Option<Json> {
    if node.entries().is_none() {
        wrong_kind(node, what, "a map", "write its fields: `{event_type: APP_CREATE}`", diagnostics);
        return None;
    }
    json(node, diagnostics)
}

fn of_scalar(scalar: &Scalar) -> Literal {
    if scalar.is_null() {
        Literal::Null
    } else if let Some(boolean) = scalar.boolean() {
        Literal::Bool(boolean)
    } else if let Some(number) = scalar.number() {
        Literal::Number(number, scalar.text.clone())
    } else {
        Literal::Text(scalar.text.clone())
    }
}

fn json_scalar(scalar: &Scalar) -> Json {
    match of_scalar(scalar) {
        Literal::Null => Json::Null,
        Literal::Bool(boolean) => Json::Bool(boolean),
        Literal::Text(text) => Json::String(text),
        // Whole numbers keep all their digits.
        Literal::Number(number, text) => match text.parse::<i64>() {
            Ok(integer) => Json::from(integer),
            Err(_) => text.parse::<u64>().map_or_else(|_| Json::from(number), Json::from),
        },
    }
}

fn warn_of_word(scalar: &Scalar, node: &Node, diagnostics: &mut Diagnostics) {
    let lower = scalar.text.to_ascii_lowercase();
    if scalar.quoted || !YAML_1_1_BOOLEANS.contains(&lower.as_str()) {
        return;
    }
    let text = &scalar.text;
    let meaning = if text == "NO" { " (Norway, for a country)" } else { "" };
    let message = format!("the bare word `{text}` is text here{meaning}, but a boolean to many other YAML readers");
    let hint = format!("quote it: `\"{text}\"`; a boolean is written `true` or `false`");
    diagnostics.warning(code::AMBIGUOUS_WORD, &node.span, message, Some(hint));
}
