//! The plan against the plain meaning of conditions, on random rules and events over few fields and values.

use std::fmt::Write as _;
use std::sync::LazyLock;

use chrono::{DateTime, Duration, Utc};
use proptest::prelude::*;

use super::Plan;
use crate::condition::{Condition, During, Literal, Test};
use crate::event::Event;

/// Tests over every modifier, with values that the events below often have.
const TESTS: &[(&str, &[&str])] = &[
    ("event_type", &["APP_CREATE"]),
    ("event_type", &["app_*", "NUMBER_UPDATED"]),
    ("event_type", &["*_create", "a?p_delete"]),
    ("event_type|neq", &["APP_*"]),
    ("event_type|cased", &["APP_CREATE"]),
    ("event_type|contains", &["number", "create"]),
    ("event_type|startswith|neq", &["APP"]),
    ("event_type|endswith", &["_DELETE"]),
    ("source_country", &["GB"]),
    ("source_country|neq", &["GB", "no"]),
    ("source_country", &["null"]),
    ("source_country|neq", &["null"]),
    ("source_country", &["null", "kp", ""]),
    ("source_country|exists", &["true"]),
    ("source_country|exists", &["false"]),
    ("source_ip", &["10.0.0.1", "2001:DB8:0::1"]),
    ("source_ip", &["10.0.*"]),
    ("source_ip|cidr", &["10.0.0.0/8", "2001:db8::/32"]),
    ("source_ip|cidr|neq", &["10.0.0.0/8"]),
    ("source_ip|range", &["10.0.0.1-10.0.0.9"]),
    ("source_ip|scope", &["private", "documentation"]),
    ("source_ip|re", &["^10\\.", "::1$"]),
    ("user_id", &["7"]),
    ("user_id", &["#7", "#9007199254740993"]),
    ("user_id|gt", &["#5"]),
    ("user_id|lte|neq", &["#7"]),
    ("user_id|range", &["1-7"]),
    ("user_id|all", &["?7", "x*"]),
    ("actor", &["7", "a@example.org"]),
    ("actor|endswith", &["example.org"]),
    ("context.*|contains", &["evil", "müller"]),
    ("context.*", &["straße", "*evil*com*"]),
    ("context.name", &["Σας", "x"]),
    ("context.name|fieldref", &["event_type"]),
    ("context.name|contains|fieldref", &["user_id"]),
    ("context.tags", &["a", "#7"]),
    ("context.tags|contains|all", &["a", "b"]),
    ("context.tags|every", &["a", "b"]),
    ("context.tags|every|neq", &["null", "a", "b"]),
    ("context.tags|contains|all|every", &["a"]),
    ("context.tags|every|fieldref", &["context.tags"]),
    ("context.*|contains|every", &["e"]),
    ("context.a.b|every", &["#7"]),
    ("source_country|every", &["GB", "no"]),
    ("source_ip|cidr|every", &["10.0.0.0/8"]),
    ("source_ip|cidr|every|neq", &["10.0.0.0/8", "2001:db8::/32"]),
    ("source_ip|scope|every", &["private"]),
    ("context.url|urlhost", &["example.org"]),
    ("context|url_outside", &["example.org"]),
    ("context.a.b", &["#7", "true"]),
    ("*|contains", &["evil"]),
    ("*", &["gb"]),
    ("created_at|hour", &["#10", "#11"]),
    ("created_at|day|gte", &["#13"]),
    ("created_at|hour|range", &["8-10"]),
    ("context.name|base64", &["evil"]),
    ("context.name|wide|base64offset|contains", &["evil"]),
    ("context.name|windash", &["x -y"]),
    ("context.name|re|i", &["^EV.L$"]),
];

fn test(key: &str, values: &[&str]) -> Test {
    let literal = |value: &&str| match (*value, value.strip_prefix('#')) {
        ("null", _) => Literal::Null,
        ("true", _) => Literal::Bool(true),
        ("false", _) => Literal::Bool(false),
        (_, Some(number)) => Literal::Number(number.parse().unwrap(), number.to_owned()),
        (text, None) => Literal::Text(text.to_owned()),
    };
    Test::build(key, values.iter().map(literal).collect()).expect(key)
}

/// Each test as a condition of its own, and the plan over them; building them anew for each case would take most of the time.
static ALL_TESTS: LazyLock<(Vec<Condition>, Plan)> = LazyLock::new(|| {
    let conditions: Vec<Condition> = TESTS.iter().map(|(key, values)| Condition::Test(test(key, values))).collect();
    let plan = Plan::new(conditions.iter().map(Some));
    (conditions, plan)
});

fn condition() -> impl Strategy<Value = Condition> {
    let during = Condition::During(During::build(Some("mon-fri"), Some("08:00-18:00"), None).unwrap());
    let leaf = prop_oneof![
        20 => prop::sample::select(TESTS).prop_map(|(key, values)| Condition::Test(test(key, values))),
        1 => Just(during),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 0..4).prop_map(Condition::All),
            3 => prop::collection::vec(inner.clone(), 0..4).prop_map(Condition::Any),
            1 => inner.prop_map(|part| Condition::Not(Box::new(part))),
        ]
    })
}

fn member(name: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::option::weighted(0.8, prop::sample::select(values))
        .prop_map(move |value| value.map(|value| format!("\"{name}\":{value}")).unwrap_or_default())
}

fn object(members: Vec<String>) -> String {
    let members: Vec<String> = members.into_iter().filter(|member| !member.is_empty()).collect();
    format!("{{{}}}", members.join(","))
}

const ADDRESSES: &[&str] = &[
    "\"10.0.0.1\"",
    "\"10.9.0.1\"",
    "\"::ffff:10.0.0.9\"",
    "\"2001:db8::1\"",
    "\"2001:0DB8::1\"",
    "\"\"",
    "\"x\"",
    "7",
    "{}",
    "[\"10.0.0.1\",\"10.9.0.1\"]",
    "[\"10.0.0.1\",\"2001:db8::1\"]",
    "[\"10.0.0.1\",\"x\"]",
    "[[\"10.0.0.1\"],null]",
    "[]",
];

fn event() -> impl Strategy<Value = Event> {
    let context = (
        member(
            "name",
            &[
                "\"x\"",
                "\"ΣΑΣ\"",
                "\"evil\"",
                "\"ZXZpbA==\"",
                "\"ZQB2AGkAbAA=\"",
                "\"x /y\"",
                "\"app_create\"",
                "7",
                "{}",
            ],
        ),
        member("tags", &["[\"a\",\"b\"]", "[]", "[[\"A\"],7]", "\"a\"", "[null]", "[7.0,{}]"]),
        member(
            "url",
            &[
                "\"https://a.example.org/\"",
                "\"http://example.org\"",
                "\"https://evil.com\"",
                "{\"address\":\"https://192.0.2.1/\"}",
            ],
        ),
        member("a", &["{\"b\":7}", "[{\"b\":7.0},{\"b\":true}]", "7", "{\"b\":\"Straße\"}"]),
    );
    let context = context.prop_map(|(name, tags, url, a)| object(vec![name, tags, url, a]));
    let members = (
        member(
            "event_type",
            &["\"APP_CREATE\"", "\"app_delete\"", "\"NUMBER_UPDATED\"", "\"\"", "7", "[\"APP_CREATE\",\"X\"]"],
        ),
        member("source_country", &["\"GB\"", "\"no\"", "\"KP\"", "\"\"", "null", "\"\\u0047B\""]),
        member("source_ip", ADDRESSES),
        member("user_id", &["7", "\"7\"", "7.0", "9007199254740993", "9007199254740992.0", "null", "\"x7\"", "true"]),
        member("user_email", &["\"a@Example.org\"", "\"b@c.d\""]),
        context,
        0_i64..20,
    );
    members.prop_map(|(event_type, country, ip, id, email, context, hours)| {
        let raw = object(vec![
            event_type,
            country,
            ip,
            id,
            email,
            format!("\"context\":{context}"),
            "\"created_at\":\"x\"".into(),
        ]);
        let start: DateTime<Utc> = "2018-08-12T00:15:31Z".parse().unwrap();
        Event::new("e", start + Duration::hours(hours * 5), raw.into()).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_plan_decides_as_the_conditions_do(
        conditions in prop::collection::vec(prop::option::weighted(0.95, condition()), 1..12),
        events in prop::collection::vec(event(), 1..6),
    ) {
        let plan = Plan::new(conditions.iter().map(Option::as_ref));
        let mut scratch = plan.scratch();
        for event in &events {
            let mut matched = Vec::new();
            plan.matches(event, &mut scratch, &mut 0, &mut matched);
            let expected: Vec<usize> = conditions.iter().enumerate()
                .filter(|(_, condition)| condition.as_ref().is_some_and(|condition| condition.holds(event)))
                .map(|(index, _)| index)
                .collect();
            prop_assert_eq!(&matched, &expected, "{}", event.raw());
        }
    }

    #[test]
    fn any_json_is_an_answer(
        texts in prop::collection::vec(r#"([\[\]{}",:0-9a\\eE+.\- ]|\PC|context|user_id|source_ip|event_type|url){0,12}"#, 1..6),
        keys in prop::collection::vec("event_type|source_ip|user_id|context|a|b|name|url", 6),
        shape in 0_u8..4,
    ) {
        let member = |(key, text): (&String, &String)| {
            let quoted = serde_json::to_string(text).unwrap();
            match shape {
                0 => format!("\"{key}\":{quoted}"),
                1 => format!("\"{key}\":[{quoted},{{\"{key}\":{quoted}}}]"),
                2 => format!("\"{key}\":{{\"name\":{quoted},\"b\":[[]]}}"),
                _ => format!("\"{key}\":{text}"),
            }
        };
        let raw = object(keys.iter().zip(&texts).map(member).collect());
        let Ok(event) = Event::new("e", DateTime::UNIX_EPOCH, raw.into()) else { return Ok(()) };
        let (conditions, plan) = &*ALL_TESTS;
        let mut matched = Vec::new();
        plan.matches(&event, &mut plan.scratch(), &mut 0, &mut matched);
        let expected: Vec<usize> =
            conditions.iter().enumerate().filter(|(_, one)| one.holds(&event)).map(|(index, _)| index).collect();
        prop_assert_eq!(matched, expected, "{}", event.raw());
    }

    #[test]
    fn explanations_say_what_holds_says(condition in condition(), event in event()) {
        let explanation = condition.explain(&event);
        prop_assert_eq!(explanation.holds, condition.holds(&event));
        prop_assert!(condition.reasons(&event).is_empty() || explanation.holds);
        let inverse = Condition::Not(Box::new(condition.clone()));
        prop_assert_eq!(inverse.holds(&event), !explanation.holds);
    }
}

/// Many literals on one field take the combined path; it must decide as the single searches do.
#[test]
fn combined_literals_decide_as_single_ones() {
    let words: Vec<String> = (0..40).map(|index| format!("w{}x", index * 7 % 40)).collect();
    let mut conditions = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let key = ["context.*|contains", "context.*|startswith", "context.*|endswith", "context.*"][index % 4];
        conditions.push(Condition::Test(test(key, &[word])));
    }
    let plan = Plan::new(conditions.iter().map(Some));
    let mut scratch = plan.scratch();
    let (mut held, mut total) = (0, 0);
    for first in 0..40 {
        let mut raw = String::from("{\"context\":{");
        write!(raw, "\"a\":\"w{first}x\",\"b\":\"w{}xw{first}X W{}x\"}}}}", (first + 1) % 40, (first + 2) % 40)
            .unwrap();
        let event = Event::new("e", DateTime::UNIX_EPOCH, raw.into()).unwrap();
        let mut matched = Vec::new();
        plan.matches(&event, &mut scratch, &mut 0, &mut matched);
        let expected: Vec<usize> = (0..conditions.len()).filter(|index| conditions[*index].holds(&event)).collect();
        assert_eq!(matched, expected);
        held += expected.len();
        total += conditions.len();
    }
    assert!(held > 60 && held < total, "both outcomes are seen: {held} of {total}");
}

#[test]
fn every_test_of_the_oracle_is_seen_both_ways() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let events: Vec<Event> = (0..3000).map(|_| event().new_tree(&mut runner).unwrap().current()).collect();
    for (key, values) in TESTS {
        let condition = Condition::Test(test(key, values));
        let held = events.iter().filter(|event| condition.holds(event)).count();
        assert!(held > 5 && held < events.len() - 5, "{key} {values:?}: {held} of {}", events.len());
    }
}

#[test]
fn a_rule_is_looked_at_only_for_its_anchor() {
    let rule = |event_type: &str, email: &str| {
        let parts = [("event_type", event_type), ("user_email", email), ("source_country|neq", "GB")];
        Condition::All(parts.iter().map(|(key, value)| Condition::Test(test(key, &[value]))).collect())
    };
    let conditions: Vec<Condition> = (0..50).map(|index| rule("APP_*", &format!("u{index}@example.org"))).collect();
    let plan = Plan::new(conditions.iter().map(Some));
    assert!(plan.always.is_empty());
    assert_eq!(plan.anchor_fields.len(), 1, "the rarer test is the anchor");
    assert_eq!(plan.predicates.len(), 52, "shared tests are one predicate");
    assert!(plan.anchored.iter().all(|rules| rules.len() <= 1));
}
