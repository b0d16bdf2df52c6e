//! Matchers in the notation that people know from Alertmanager: `severity="high"`, `rule=~"change-.*"`, `account!=abcd`.
//!
//! They mean what they mean there: a pattern is anchored at both ends, case counts, a field that is missing is as good as an
//! empty one. A field that holds a list (`tags`) matches when one of its values does. It never takes a text half: what is not
//! understood is an error that says where.

use std::fmt;

use crate::condition::{Condition, Literal, Test};
use crate::diagnostic::nearest;

use super::view::VOCABULARY;

/// Longest text of matchers; a person writes it.
pub const MAX_MATCHERS_CHARS: usize = 4_000;

/// One matcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    field: String,
    operator: Operator,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Fits,
    FitsNot,
}

/// The longest first, so that `=~` is not read as `=`.
const OPERATORS: &[(&str, Operator)] =
    &[("=~", Operator::Fits), ("!~", Operator::FitsNot), ("!=", Operator::NotEqual), ("=", Operator::Equal)];

/// Reads matchers: `severity="high"`, `{severity="high", rule!~"vigie-.*"}`. A word alone is the id of a rule.
///
/// # Errors
/// A sentence that says what is wrong and where.
pub fn parse(text: &str) -> Result<Vec<Matcher>, String> {
    if text.chars().nth(MAX_MATCHERS_CHARS).is_some() {
        return Err(format!("the matchers are longer than {MAX_MATCHERS_CHARS} characters"));
    }
    let trimmed = text.trim();
    let inner = match (trimmed.strip_prefix('{'), trimmed.strip_suffix('}')) {
        (Some(_), Some(rest)) => rest.strip_prefix('{').unwrap_or(rest),
        (None, None) => trimmed,
        _ => return Err(format!("`{trimmed}` has a brace without its other one")),
    };
    let mut rest = inner.trim();
    let mut matchers = Vec::new();
    while !rest.is_empty() {
        let (matcher, after) = one(rest)?;
        matchers.push(matcher);
        rest = match after.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if after.is_empty() => after,
            None => return Err(format!("a comma is missing before `{after}`")),
        };
    }
    if matchers.is_empty() { Err("there is no matcher".into()) } else { Ok(matchers) }
}

/// One matcher and what stands behind it.
fn one(text: &str) -> Result<(Matcher, &str), String> {
    let end = text.find(|character: char| "=!~,\" ".contains(character)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let rest = rest.trim_start();
    let Some((sign, operator)) = OPERATORS.iter().find(|(sign, _)| rest.starts_with(sign)) else {
        let is_id = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let is_rule = is_id && (rest.is_empty() || rest.starts_with(','));
        let rule = Matcher { field: "rule".into(), operator: Operator::Equal, value: name.to_owned() };
        return if is_rule {
            Ok((rule, rest))
        } else {
            Err(format!("`{text}` is no matcher: write `field=\"value\"`"))
        };
    };
    let field = known_field(name)?;
    let (value, rest) = value(rest.strip_prefix(sign).unwrap_or(rest).trim_start())?;
    Ok((Matcher { field, operator: *operator, value }, rest.trim_start()))
}

fn known_field(name: &str) -> Result<String, String> {
    match name {
        // What the rule is called there.
        "alertname" => Ok("rule".into()),
        _ if VOCABULARY.contains(&name) && !name.ends_with('.') => Ok(name.to_owned()),
        _ if name.strip_prefix("event.").is_some_and(|below| !below.is_empty()) => Ok(name.to_owned()),
        _ => {
            let hint = nearest(name, VOCABULARY.iter().copied()).map_or_else(
                || format!("known are {}", VOCABULARY.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            Err(format!("an alert has no field `{name}`: {hint}"))
        }
    }
}

/// A value, quoted or bare, and what stands behind it.
fn value(text: &str) -> Result<(String, &str), String> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', '"']).unwrap_or(text.len());
        let (bare, rest) = text.split_at(end);
        return match rest.starts_with('"') {
            true => Err(format!("a quote stands within `{text}`: put the whole value in quotes")),
            false => Ok((bare.trim_end().to_owned(), rest)),
        };
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, quoted.get(at + 1..).unwrap_or_default())),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                // Patterns are full of them: `\.` stays what it is.
                Some((_, other)) => value.extend(['\\', other]),
                None => break,
            },
            other => value.push(other),
        }
    }
    Err(format!("the quote before `{quoted}` is not closed"))
}

/// All of them must hold.
///
/// # Errors
/// A pattern that cannot be used, in a sentence.
pub fn condition(matchers: &[Matcher]) -> Result<Condition, String> {
    matchers.iter().map(Matcher::condition).collect::<Result<_, _>>().map(Condition::All)
}

impl Matcher {
    /// Whether it fits an alert that does not have the field.
    pub(crate) fn fits_nothing(&self) -> bool {
        match self.operator {
            Operator::Equal => self.value.is_empty(),
            Operator::NotEqual => !self.value.is_empty(),
            Operator::Fits => fits_empty(&anchored(&self.value)),
            Operator::FitsNot => !fits_empty(&anchored(&self.value)),
        }
    }

    fn condition(&self) -> Result<Condition, String> {
        let (pattern, is_negated) = match self.operator {
            Operator::Equal => (regex::escape(&self.value), false),
            Operator::NotEqual => (regex::escape(&self.value), true),
            Operator::Fits => (self.value.clone(), false),
            Operator::FitsNot => (self.value.clone(), true),
        };
        let anchored = anchored(&pattern);
        let test =
            |key: String, value| Test::build(&key, vec![value]).map_err(|error| format!("`{self}`: {}", error.message));
        let fits = Condition::Test(test(format!("{}|re", self.field), Literal::Text(anchored.clone()))?);
        let fits = if fits_empty(&anchored) {
            Condition::Any(vec![fits, Condition::Test(test(self.field.clone(), Literal::Null)?)])
        } else {
            fits
        };
        Ok(if is_negated { Condition::Not(Box::new(fits)) } else { fits })
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = OPERATORS.iter().find(|(_, operator)| *operator == self.operator).map_or("=", |(sign, _)| sign);
        let value = self.value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        write!(formatter, "{}{sign}\"{value}\"", self.field)
    }
}

fn anchored(pattern: &str) -> String {
    format!("^(?:{pattern})$")
}

fn fits_empty(anchored: &str) -> bool {
    regex::Regex::new(anchored).is_ok_and(|pattern| pattern.is_match(""))
}

/// The notation of all of them, for people and for the store.
#[must_use]
pub fn written(matchers: &[Matcher]) -> String {
    format!("{{{}}}", matchers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        parse(text).map_or_else(|error| error, |matchers| written(&matchers))
    }

    #[test]
    fn the_notation_is_that_of_alertmanager() {
        for (text, expected) in [
            (r#"severity="high""#, r#"{severity="high"}"#),
            (r#"{severity=~"high|critical", rule!~"vigie-.*"}"#, r#"{severity=~"high|critical", rule!~"vigie-.*"}"#),
            ("account!=abcd , source = main", r#"{account!="abcd", source="main"}"#),
            ("change-from-unexpected-country", r#"{rule="change-from-unexpected-country"}"#),
            ("alertname=a", r#"{rule="a"}"#),
            (r#"event.context.name="a,b\"c\\""#, r#"{event.context.name="a,b\"c\\"}"#),
            (r#"title=~"a\.b""#, r#"{title=~"a\\.b"}"#),
            (r#"title="a" severity="b""#, r#"a comma is missing before `severity="b"`"#),
            (r#"title="a"#, "the quote before `a` is not closed"),
            ("{title=a", "`{title=a` has a brace without its other one"),
            ("sevrity=a", "an alert has no field `sevrity`: did you mean `severity`?"),
            ("", "there is no matcher"),
            ("=a", "an alert has no field ``: known are severity, rule, tags, account, source, title, event."),
            ("title>3", "`title>3` is no matcher: write `field=\"value\"`"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
        let again = parse(&shown(r#"event.context.name="a,b\"c\\""#)).expect("what is written is read");
        assert_eq!(again, parse(r#"event.context.name="a,b\"c\\""#).expect("reads"));
    }

    #[test]
    fn a_pattern_that_cannot_be_used_is_an_error() {
        let error = condition(&parse("title=~\"a(\"").expect("reads")).expect_err("no pattern");
        assert!(error.starts_with("`title=~\"a(\"`: "), "{error}");
    }
}
