//! What each shipped rule owes the person whom it wakes.

use std::path::{Path, PathBuf};

use vigie::config::load_rules;
use vigie_engine::rule::Expect;

/// The rules that were there when this was written: a moved directory must not pass as an empty one.
const LEAST_RULES: usize = 21;

#[test]
fn each_shipped_rule_says_what_it_is_what_else_it_can_be_and_what_to_do() {
    let directory: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/vonage");
    let (rules, diagnostics) = load_rules(&[directory]);
    assert!(!diagnostics.has_errors(), "{diagnostics:?}");
    assert!(rules.len() >= LEAST_RULES, "{}", rules.len());
    let mut owed = Vec::new();
    for rule in &rules {
        let mut owes = |what: &str, is_there: bool| {
            if !is_there {
                owed.push(format!("{}: {what}", rule.id));
            }
        };
        let file = Path::new(&*rule.span.path).file_stem().map(|name| name.to_string_lossy().into_owned());
        owes("a file of its own name", file.as_deref() == Some(rule.id.as_str()));
        owes("an ATT&CK technique among its tags", rule.tags.iter().any(|tag| is_technique(tag)));
        owes("a description", !rule.description.trim().is_empty());
        owes("false positives", rule.false_positives.iter().any(|text| !text.trim().is_empty()));
        owes("a response", !rule.response.trim().is_empty());
        let fires = |expect: Expect| matches!(expect, Expect::Alert | Expect::Alerts(1..));
        owes("a test that fires", rule.tests.iter().any(|test| fires(test.expect)));
        owes("a test that does not", rule.tests.iter().any(|test| !fires(test.expect) && !test.events.is_empty()));
    }
    assert!(owed.is_empty(), "{owed:#?}");
}

/// `attack.t1098` or `attack.t1098.001`.
fn is_technique(tag: &str) -> bool {
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    tag.strip_prefix("attack.t").is_some_and(|number| match number.split_once('.') {
        None => digits(number, 4),
        Some((technique, part)) => digits(technique, 4) && digits(part, 3),
    })
}

#[test]
fn a_technique_is_known_by_its_number() {
    for (tag, is) in [
        ("attack.t1098", true),
        ("attack.t1098.001", true),
        ("attack.persistence", false),
        ("attack.t109", false),
        ("attack.t1098.1", false),
    ] {
        assert_eq!(is_technique(tag), is, "{tag}");
    }
}
