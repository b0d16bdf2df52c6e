//! Building tests: from a key and literal values to a compiled matcher, or to an error that says how to mend it.

use regex::RegexBuilder;

use super::encode::{Charset, base64, base64_offsets};
use super::ip::{NetworkSet, Scope, other_spelling, parse_network};
use super::matcher::{Equal, Matcher, Target};
use super::modifier::{Base64, Chain, Operator};
use super::number::{Number, Range};
use super::text::{Anchor, TextSet, literal, tokens, with_dashes};
use super::url::HostRule;
use super::{BuildError, Literal, Part, Test, code};
use crate::diagnostic::nearest;
use crate::event::FieldPath;
use crate::text::single_line;

/// Largest compiled program of one regular expression, in bytes: the crate's own default costs 125 ms and 42 MB.
pub const MAX_REGEX_BYTES: usize = 256 * 1024;
/// Most regular expressions in one test: each may take [`MAX_REGEX_BYTES`], and a list could hold 100,000 of them.
const MAX_REGEXES: usize = 200;
/// Largest lazily built automaton of one regular expression, in bytes.
const MAX_REGEX_CACHE_BYTES: usize = 1024 * 1024;
/// Longest value with wildcards: matching costs text length times pattern length, and an event has 256 KiB of text.
const MAX_WILDCARD_CHARS: usize = 512;
/// How much of a test's values an alert or an explanation shows.
const MAX_EXPECTED_CHARS: usize = 160;

pub(super) fn test(key: &str, values: &[Literal]) -> Result<Test, BuildError> {
    let chain = Chain::parse(key)?;
    if values.is_empty() {
        let hint = Some("an empty list fits nothing; name at least one value".to_owned());
        return Err(BuildError {
            code: code::NO_VALUES,
            part: Part::Key,
            message: format!("`{key}` has no values"),
            hint,
        });
    }
    for (index, value) in values.iter().enumerate() {
        check_value(&chain, index, value)?;
    }
    let matchers = if chain.all() {
        values.iter().enumerate().map(|(index, value)| matcher(&chain, index, std::slice::from_ref(value))).collect()
    } else {
        matcher(&chain, 0, values).map(|matcher| vec![matcher])
    }?;
    let written: Vec<&str> =
        values.iter().map(Literal::written).map(|text| if text.is_empty() { "\"\"" } else { text }).collect();
    let fingerprint = fingerprint(&chain, values);
    Ok(Test {
        key: key.to_owned(),
        matchers,
        negated: chain.negated(),
        operator: chain.shown.clone(),
        expected: single_line(&written.join(", "), MAX_EXPECTED_CHARS),
        fingerprint,
        meaning: fingerprint,
        target: Target { every: chain.every(), field: chain.field, stamp: chain.stamp },
    })
}

/// Over everything but `neq`: a test and its negation ask the same question.
fn fingerprint(chain: &Chain, values: &[Literal]) -> [u8; 32] {
    let mut modifiers: Vec<&str> = chain.shown.split('|').filter(|name| *name != "neq").collect();
    if modifiers.is_empty() {
        modifiers.push("equals");
    }
    *blake3::hash(format!("{:?}{modifiers:?}{values:?}", chain.field.as_str()).as_bytes()).as_bytes()
}

fn check_value(chain: &Chain, index: usize, value: &Literal) -> Result<(), BuildError> {
    let plain = chain.operator == Operator::Text(Anchor::Whole)
        && chain.base64.is_none()
        && chain.stamp.is_none()
        && !chain.field_ref()
        && !chain.windash()
        && !chain.all();
    if *value == Literal::Null && !plain {
        let hint = Some("`null` goes with plain equality and `neq` only".to_owned());
        return Err(wrong(code::WRONG_VALUE, index, format!("`null` has no meaning with `{}`", chain.shown), hint));
    }
    let partial =
        matches!(chain.operator, Operator::Text(Anchor::Within | Anchor::Start | Anchor::End) | Operator::Regex);
    if partial && value.written().is_empty() {
        let hint = Some("for a field that must be there write `exists: true`".to_owned());
        return Err(wrong(
            code::WRONG_VALUE,
            index,
            format!("empty text fits everything with `{}`", chain.shown),
            hint,
        ));
    }
    let placeholder =
        value.written().split('%').nth(1).is_some_and(is_name) && value.written().matches('%').count() > 1;
    if placeholder && chain.shown.split('|').any(|name| name == "expand") {
        let hint = Some("make it a list under `lists:` and write `$name` without `expand`".to_owned());
        let message = format!("the placeholder in `{}` was not expanded", value.written());
        return Err(wrong(code::UNEXPANDED, index, message, hint));
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// One matcher for values of which any may fit; `first` is the index of the first of them.
fn matcher(chain: &Chain, first: usize, values: &[Literal]) -> Result<Matcher, BuildError> {
    let each = || values.iter().enumerate().map(|(index, value)| (first + index, value));
    match chain.operator {
        Operator::Text(anchor) if chain.field_ref() => {
            let fields = each().map(|(index, value)| other_field(index, value)).collect::<Result<_, _>>()?;
            Ok(Matcher::SameAs { fields, anchor, cased: chain.cased() })
        }
        Operator::Text(anchor) => {
            let mut equal = Equal { texts: TextSet::new(chain.cased()), ..Equal::default() };
            for (index, value) in each() {
                add_value(&mut equal, chain, anchor, index, value)?;
            }
            Ok(Matcher::Equal(equal))
        }
        Operator::Regex => {
            each().map(|(index, value)| regex(chain, index, value)).collect::<Result<_, _>>().map(Matcher::Regexes)
        }
        Operator::Network => {
            let network = |(index, value): (usize, &Literal)| {
                parse_network(value.written()).map_err(|(message, hint)| wrong(code::BAD_NETWORK, index, message, hint))
            };
            Ok(Matcher::Networks(NetworkSet::new(each().map(network).collect::<Result<Vec<_>, _>>()?)))
        }
        Operator::Compare(comparison) => {
            let bounds = each().map(|(index, value)| number(index, value)).collect::<Result<_, _>>()?;
            Ok(Matcher::Compare(comparison, bounds))
        }
        Operator::Exists => match values {
            [Literal::Bool(expected)] => Ok(Matcher::Exists(*expected)),
            _ => {
                let hint = Some("write `exists: true` or `exists: false`".to_owned());
                Err(wrong(code::WRONG_VALUE, first, "`exists` takes true or false".into(), hint))
            }
        },
        Operator::Range => ranges(chain, each()),
        Operator::Scope => {
            each().map(|(index, value)| scope(index, value)).collect::<Result<_, _>>().map(Matcher::Scopes)
        }
        Operator::UrlHost => hosts(each(), true).map(Matcher::HostIn),
        Operator::UrlOutside => hosts(each(), false).map(Matcher::HostOutside),
    }
}

fn add_value(
    equal: &mut Equal,
    chain: &Chain,
    anchor: Anchor,
    index: usize,
    value: &Literal,
) -> Result<(), BuildError> {
    if chain.stamp.is_some() {
        equal.numbers.push(number(index, value)?);
        return Ok(());
    }
    let text = value.written();
    let mut tokens = match value {
        Literal::Null => {
            equal.null = true;
            return Ok(());
        }
        Literal::Number(..) => {
            if anchor == Anchor::Whole && chain.base64.is_none() {
                equal.numbers.extend(Number::parse(text));
            }
            tokens(text)
        }
        Literal::Text(_) | Literal::Bool(_) => tokens(text),
    };
    if let Some(kind) = chain.base64 {
        let Some(plain) = literal(&tokens) else {
            let hint = Some("write `\\*` and `\\?` for the characters themselves".to_owned());
            return Err(wrong(code::BAD_ENCODING, index, format!("`{text}`: a wildcard cannot be encoded"), hint));
        };
        for encoded in encode(chain.charset, kind, &plain) {
            equal.texts.insert(&super::text::tokens(&encoded), anchor);
        }
        return Ok(());
    }
    if tokens.len() > MAX_WILDCARD_CHARS && literal(&tokens).is_none() {
        let message = format!("a value with wildcards has at most {MAX_WILDCARD_CHARS} characters");
        let hint = Some("shorten it, or write several values".to_owned());
        return Err(wrong(code::WRONG_VALUE, index, message, hint));
    }
    if chain.windash() {
        tokens = with_dashes(tokens);
    }
    equal.texts.insert(&tokens, anchor);
    if anchor == Anchor::Whole
        && let Some(usual) = literal(&tokens).as_deref().and_then(other_spelling)
    {
        equal.texts.insert(&super::text::tokens(&usual), anchor);
    }
    Ok(())
}

fn encode(charset: Charset, kind: Base64, text: &str) -> Vec<String> {
    let bytes = charset.bytes(text);
    match kind {
        Base64::Whole => vec![base64(&bytes)],
        // A value of one byte leaves nothing that is the same in every surrounding.
        Base64::Offset => base64_offsets(&bytes).into_iter().filter(|piece| !piece.is_empty()).collect(),
    }
}

fn other_field(index: usize, value: &Literal) -> Result<FieldPath, BuildError> {
    let Literal::Text(name) = value else {
        let hint = Some("write the name of a field: `user_email|fieldref: context.email`".to_owned());
        return Err(wrong(code::WRONG_VALUE, index, "`fieldref` takes the name of a field".into(), hint));
    };
    let hint = || Some("write the name of a field: `user_email|fieldref: context.email`".to_owned());
    FieldPath::parse(name).map_err(|problem| wrong(code::BAD_FIELD, index, problem, hint()))
}

fn regex(chain: &Chain, index: usize, value: &Literal) -> Result<regex::Regex, BuildError> {
    if index >= MAX_REGEXES {
        let hint = "join them with `|`, or use plain values with wildcards, which cost next to nothing";
        let message = format!("one test takes at most {MAX_REGEXES} regular expressions");
        return Err(wrong(code::BAD_REGEX, index, message, Some(hint.to_owned())));
    }
    let [ignore_case, multi_line, dot_all] = chain.regex_flags();
    let built = RegexBuilder::new(value.written())
        .case_insensitive(ignore_case)
        .multi_line(multi_line)
        .dot_matches_new_line(dot_all)
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(MAX_REGEX_CACHE_BYTES)
        .build();
    built.map_err(|problem| match problem {
        regex::Error::CompiledTooBig(_) => {
            let hint = Some("shorten its repetitions, or split it into several values".to_owned());
            let message = format!("the regular expression needs more than {MAX_REGEX_BYTES} bytes");
            wrong(code::BAD_REGEX, index, message, hint)
        }
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let is_missing = text.contains("look-around") || text.contains("backreferences");
            let hint = match is_missing {
                true => "look-around and back-references do not exist here: matching takes linear time",
                false => "the syntax is that of Rust's regex; for plain text write `contains`, which has no syntax",
            };
            let message = format!("the regular expression does not compile: {last}");
            wrong(code::BAD_REGEX, index, message, Some(hint.to_owned()))
        }
    })
}

fn number(index: usize, value: &Literal) -> Result<Number, BuildError> {
    let parsed = if matches!(value, Literal::Bool(_)) { None } else { Number::parse(value.written().trim()) };
    let hint = || Some("write digits, such as `10` or `-2.5`, without a unit".to_owned());
    parsed.ok_or_else(|| wrong(code::BAD_NUMBER, index, format!("`{}` is not a number", value.written()), hint()))
}

fn ranges<'v>(chain: &Chain, values: impl Iterator<Item = (usize, &'v Literal)>) -> Result<Matcher, BuildError> {
    let mut numbers = Vec::new();
    let mut addresses = Vec::new();
    for (index, value) in values {
        let hint = "ranges are `10.0.0.5-10.0.0.9` or `1-5`, both ends included".to_owned();
        match Range::parse(value.written()) {
            Ok(Range::Numbers(low, high)) => numbers.push((low, high)),
            Ok(Range::Addresses(low, high)) if chain.stamp.is_none() => addresses.push(low..=high),
            Ok(Range::Addresses(..)) => {
                let message = format!("`{}`: a part of a time stamp is a number", value.written());
                return Err(wrong(code::BAD_RANGE, index, message, Some(hint)));
            }
            Err(message) => return Err(wrong(code::BAD_RANGE, index, message, Some(hint))),
        }
    }
    let addresses = if addresses.is_empty() { None } else { Some(NetworkSet::new(addresses)) };
    Ok(Matcher::Ranges { numbers, addresses })
}

fn scope(index: usize, value: &Literal) -> Result<Scope, BuildError> {
    let given = value.written().trim().to_lowercase().replace(['-', ' '], "_");
    Scope::NAMES.iter().find(|(name, _)| *name == given).map(|(_, scope)| *scope).ok_or_else(|| {
        let names = Scope::NAMES.map(|(name, _)| name);
        let hint = nearest(&given, names)
            .map_or_else(|| format!("scopes are {}", names.join(", ")), |name| format!("did you mean `{name}`?"));
        wrong(code::UNKNOWN_SCOPE, index, format!("unknown scope `{}`", value.written()), Some(hint))
    })
}

fn hosts<'v>(values: impl Iterator<Item = (usize, &'v Literal)>, addresses: bool) -> Result<Vec<HostRule>, BuildError> {
    let host = |(index, value): (usize, &'v Literal)| {
        HostRule::parse(value.written(), addresses)
            .map_err(|(message, hint)| wrong(code::BAD_DOMAIN, index, message, hint))
    };
    values.map(host).collect()
}

fn wrong(code: &'static str, index: usize, message: String, hint: Option<String>) -> BuildError {
    BuildError { code, part: Part::Value(index), message, hint }
}
