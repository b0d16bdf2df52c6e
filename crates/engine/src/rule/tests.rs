//! A whole rule file from text to alerts, and the loader against text that nobody would write.

use proptest::prelude::*;

use super::*;
use crate::diagnostic::{Diagnostics, SourceFile};
use check::{TestResult, failures_as_diagnostics, junit, run_tests};

const GOOD: &str = r#"
lists:
  allowed_countries: [GB, "NO", FR]
  staff: {file: staff.txt}
rules:
  - id: change-from-unexpected-country
    title: Account changed from a country where we do not work
    severity: High
    description: |
      Who did it, why it matters.
    tags: [attack.t1078.004, vonage]
    false_positives: travel
    response: Call the user by another channel.
    when:
      event_type: [APP_*, NUMBER_RELEASE]
      source_country|neq: [$allowed_countries, null]
      not: {event_type|startswith: APP_DIS}
      any:
        - user_email|cased: $staff
        - user_email: null
        - context.price: \$staff
    unless:
      - when: {user_email: alice@example.org, source_country: BR}
        until: 2026-12-01
        owner: secops
        reason: travels
      - {when: {user_email: bob@example.org}, until: "2026-01-05T12:00:01Z", owner: secops, reason: moved}
    alert:
      title: "{{ event.event_type }} from {{ event.source_country }}"
      dedup: [account_id, source_country]
      quiet: 90m
    tests:
      - name: from a foreign country
        events: [{event_type: APP_CREATE, source_country: KP}]
        expect: alert
      - name: from home
        events: [{event_type: APP_CREATE, source_country: gb}, {event_type: APP_DISABLE, source_country: KP}]
        expect: nothing
      - name: two accounts are two alerts and one of them folds
        events:
          - {event_type: APP_CREATE, source_country: KP, account_id: a}
          - {event_type: APP_DELETE, source_country: KP, account_id: b}
          - {event_type: APP_UPDATE, source_country: KP, account_id: a, user_email: Carol@example.org}
        expect: {alerts: 2}
      - events: [{event_type: APP_CREATE, source_country: BR, user_email: alice@example.org}]
        expect: nothing
      - name: an exception ends in event time
        events:
          - {event_type: APP_CREATE, source_country: FI, user_email: bob@example.org, created_at: "2026-01-05T12:00:00Z"}
          - {event_type: APP_CREATE, source_country: FI, user_email: bob@example.org, created_at: "2026-01-05T12:00:01Z"}
        expect: {alerts: 1}
      - name: a dollar
        events: [{event_type: NUMBER_RELEASE, source_country: FI, user_email: x@y.z, context: {price: $staff, n: [1, 2.5, -3]}}]
        expect: alert
"#;

/// Loads one file beside a list file `staff.txt`.
fn load_text(text: &str) -> (RuleSet, Diagnostics) {
    let mut diagnostics = Diagnostics::default();
    let file = SourceFile { path: "rules/r.yaml".into(), text: text.into() };
    let mut read_list = |path: &str, naming: &str| match (path, naming) {
        ("staff.txt", "rules/r.yaml") => {
            Ok("# staff\nalice@example.org\nbob@example.org # left\nCarol@example.org\n".into())
        }
        ("wide.txt", _) => Ok("GB\n* # everywhere\n".into()),
        _ => Err("no such file".into()),
    };
    let rules = load(&[file], &mut read_list, &mut diagnostics);
    rules.lists.report_unused(&mut diagnostics);
    (rules, diagnostics)
}

fn only_rule(text: &str) -> Rule {
    let (set, diagnostics) = load_text(text);
    assert!(diagnostics.sorted().is_empty(), "{}", diagnostics.render());
    assert_eq!(set.rules.len(), 1);
    set.rules.into_iter().next().expect("one rule")
}

#[test]
fn a_good_rule_is_read_whole() {
    let rule = only_rule(GOOD);
    assert_eq!(rule.id, "change-from-unexpected-country");
    assert_eq!(rule.severity, Severity::High);
    assert_eq!(rule.description, "Who did it, why it matters.");
    assert_eq!(rule.tags, ["attack.t1078.004", "vonage"]);
    assert_eq!(rule.false_positives, ["travel"]);
    assert_eq!(rule.event_types, ["APP_*", "NUMBER_RELEASE"]);
    assert_eq!(rule.unless[0].until.map(|until| until.to_rfc3339()).as_deref(), Some("2026-12-01T00:00:00+00:00"));
    let dedup: Vec<&str> = rule.alert.dedup.iter().map(|field| field.as_str()).collect();
    assert_eq!(dedup, ["account_id", "source_country"]);
    assert_eq!(rule.alert.quiet, Duration::from_secs(5400));
    assert!(rule.enabled);
    assert_eq!((rule.span.line, rule.span.column), (6, 5));
    let names: Vec<&str> = rule.tests.iter().map(|test| test.name.as_str()).collect();
    assert_eq!(names[3], "test 4");
    assert_eq!(rule.tests[2].expect, Expect::Alerts(2));
    assert_eq!(
        rule.tests[5].events[0].to_string(),
        r#"{"context":{"n":[1,2.5,-3],"price":"$staff"},"event_type":"NUMBER_RELEASE","source_country":"FI","user_email":"x@y.z"}"#
    );
}

#[test]
fn a_good_rule_passes_its_own_tests_also_when_switched_off() {
    for rule in [only_rule(GOOD), Rule { enabled: false, ..only_rule(GOOD) }] {
        let results = run_tests(&rule);
        let failed: Vec<&TestResult> = results.iter().filter(|result| result.failure.is_some()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        assert_eq!(results.len(), 6);
    }
}

const FAILING: &str = r#"rules:
- id: a-rule
  title: T
  severity: low
  when: {event_type: APP_CREATE}
  tests:
  - {name: <fires>, events: [{event_type: APP_DELETE}], expect: alert}
  - {name: quiet, events: [{event_type: app_create}], expect: nothing}
  - {name: twice, events: [{event_type: APP_CREATE}, {event_type: APP_CREATE}], expect: {alerts: 3}}
  - {name: time, events: [{event_type: APP_CREATE, created_at: soon}], expect: alert}
  - {name: right, events: [{event_type: APP_CREATE}], expect: alert}
"#;

#[test]
fn failed_tests_say_what_came_and_why() {
    let results = run_tests(&only_rule(FAILING));
    let mut diagnostics = Diagnostics::default();
    failures_as_diagnostics(&results, &mut diagnostics);
    let shown: Vec<String> = diagnostics
        .sorted()
        .iter()
        .map(|one| format!("{}:{} {} | {}", one.span.line, one.code, one.message, one.hint.as_deref().unwrap_or("-")))
        .collect();
    assert_eq!(
        shown,
        [
            "7:E0213 rule `a-rule`, test `<fires>`: expected an alert, got nothing | mend the rule or the test; `vigie explain a-rule EVENT.json` shows why",
            "8:E0213 rule `a-rule`, test `quiet`: expected nothing, got 1 alert | it matched: event_type equals APP_CREATE (it was app_create)",
            "9:E0213 rule `a-rule`, test `twice`: expected 3 alerts, got 2 alerts | it matched: event_type equals APP_CREATE (it was APP_CREATE)",
            "10:E0213 rule `a-rule`, test `time`: event 1: `created_at`: `soon` is no date and no time stamp | mend the rule or the test; `vigie explain a-rule EVENT.json` shows why",
        ]
    );
}

#[test]
fn a_title_that_fails_fails_the_test() {
    let text = "rules:\n  - id: a\n    title: t\n    severity: low\n    when: {event_type: APP_CREATE}\n    alert: {title: \"{% if event.x %}{{ event.x | nofilter }}{% endif %}\"}\n    tests:\n      - {events: [{event_type: APP_CREATE}], expect: alert}\n      - {events: [{event_type: APP_CREATE, x: 1}], expect: alert}\n";
    let results = run_tests(&only_rule(text));
    let failures: Vec<_> = results.iter().map(|result| result.failure.as_ref().map(|it| it.message.as_str())).collect();
    assert_eq!(failures, [None, Some("the title template failed in 1 of 1 alert")]);
}

#[test]
fn what_a_test_writes_under_geo_stands_for_the_address_database() {
    let rule = |geo: &str| {
        only_rule(&format!(
            "rules:\n- id: r\n  title: T\n  severity: low\n  when: {{geo.country|neq: [GB, null], geo.mismatch: true}}\n  \
             alert: {{title: '{{{{ event.geo.city }}}} AS{{{{ event.geo.asn }}}}', dedup: [geo.asn]}}\n  tests:\n  \
             - events: [{{source_country: GB, geo: {{{geo}}}}}, {{source_country: GB, geo: {{country: BR, asn: 2}}}}]\n    \
             expect: {{alerts: 2}}\n"
        ))
    };
    let located = rule("country: BR, city: Recife, asn: 1");
    assert!(located.asks_geo() && located.when.asks_geo());
    assert_eq!(run_tests(&located).first().and_then(|result| result.failure.clone()), None);
    // One key, a home country, an unknown place: one alert less each.
    for other in ["country: BR, asn: 2", "country: GB, asn: 1", ""] {
        let failure = run_tests(&rule(other)).remove(0).failure.expect("a failure");
        assert!(failure.message.contains("got 1 alert"), "{other}: {failure:?}");
    }
    let failure = run_tests(&rule("countri: BR")).remove(0).failure.expect("a failure");
    assert!(failure.message.starts_with("event 1: `geo` has country, city"), "{failure:?}");
}

#[test]
fn a_rule_that_asks_an_address_database_is_known() {
    let asks =
        |rest: &str| only_rule(&format!("rules: [{{id: r, title: T, severity: low, tests: [], {rest}}}]")).asks_geo();
    for rest in [
        "when: {geo.country: GB}",
        "when: {any: [{a: b}, {not: {all: [{geo.*|contains: x}]}}]}",
        "when: {source_country|fieldref: geo.country}",
        "when: {a: b}, unless: [{when: {geo.asn: 1}, owner: o, reason: r, until: 2026-12-01}]",
        "when: {a: b}, alert: {dedup: [geo.country]}",
        "when: {a: b}, alert: {title: 'from {{ event.geo.city }}'}",
    ] {
        assert!(asks(rest), "{rest}");
    }
    for rest in ["when: {geography: GB, a.geo.country: x}", "when: {source_country: GB}, alert: {dedup: [account_id]}"]
    {
        assert!(!asks(rest), "{rest}");
    }
}

#[test]
fn a_list_that_fits_everything_is_refused() {
    for list in ["[GB, \"*\"]", "{file: wide.txt}"] {
        let text = format!(
            "lists: {{countries: {list}}}\nrules:\n  - {{id: a, title: t, severity: low, when: {{source_country|neq: $countries}}}}\n"
        );
        let (_, diagnostics) = load_text(&text);
        let errors: Vec<_> = diagnostics.sorted().into_iter().filter(|finding| finding.code == "E0224").collect();
        assert_eq!(errors.len(), 1, "{list}: {}", diagnostics.render());
        assert!(errors[0].message.contains("fits everything"), "{}", errors[0].message);
    }
}

#[test]
fn junit_is_escaped_and_counts() {
    let results = run_tests(&only_rule(FAILING));
    let xml = junit(&results);
    let expected_start = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"vigie\" tests=\"5\" failures=\"4\">\n  \
                          <testsuite name=\"a-rule\" tests=\"5\" failures=\"4\">\n    \
                          <testcase classname=\"a-rule\" name=\"&lt;fires&gt;\" file=\"rules/r.yaml\" line=\"7\">\n      \
                          <failure message=\"expected an alert, got nothing\"></failure>\n    </testcase>\n";
    assert!(xml.starts_with(expected_start), "{xml}");
    let expected_end = "name=\"right\" file=\"rules/r.yaml\" line=\"11\"/>\n  </testsuite>\n</testsuites>\n";
    assert!(xml.ends_with(expected_end), "{xml}");
}

#[test]
fn lists_and_ids_belong_to_all_files() {
    let mut diagnostics = Diagnostics::default();
    let rule = |id: &str| {
        format!(
            "{{id: {id}, title: T, severity: low, when: {{source_country: $eu}}, tests: [{{events: [{{a: 1}}], expect: nothing}}]}}"
        )
    };
    let file = |path: &str, text: String| SourceFile { path: path.into(), text: text.into() };
    let files = [
        file("a.yaml", format!("rules: [{}]\n", rule("one"))),
        file("b.yaml", format!("rules: [{}, {}]\nlists: {{eu: [FR]}}\n", rule("one"), rule("two"))),
        file("c.yaml", "lists: {eu: [DE]}\n".into()),
    ];
    load(&files, &mut |_, _| Err("none".into()), &mut diagnostics);
    let shown: Vec<String> = diagnostics
        .sorted()
        .iter()
        .map(|one| format!("{}:{}:{} {}", one.span.path, one.span.line, one.span.column, one.message))
        .collect();
    assert_eq!(
        shown,
        [
            "b.yaml:1:14 the rule id `one` is already taken at a.yaml:1:14",
            "c.yaml:1:9 the list `eu` is already defined at b.yaml:2:9",
        ]
    );
}

/// Pieces that rule files are made of, for texts that come close to meaning something.
const PIECES: &[&str] = &[
    "rules:\n",
    "- ",
    "  ",
    "    ",
    "id: a\n",
    "when:",
    "when: {",
    "}",
    "[",
    "]",
    ", ",
    "any:\n",
    "not: ",
    "all: [",
    "event_type: APP_*\n",
    "source_ip|cidr: ",
    "10.0.0.0/8",
    "$x",
    "lists: {x: ",
    "{file: f}",
    "tests: [{",
    "expect: ",
    "{alerts: ",
    "-1",
    "\n",
    ": ",
    "\"",
    "'",
    "|",
    "neq",
    "null",
    "&a ",
    "*a",
    "alert: {quiet: ",
    "1h",
    "title: ",
    "{{ event.x }}",
    "during: {days: ",
    "mon-fri",
    "unless: ",
    "until: 9999999-1-1",
    "é",
    "\t",
    "severity: low\n",
    "~",
];

proptest! {
    #[test]
    fn no_rule_text_makes_it_panic(picks in prop::collection::vec(0..PIECES.len(), 0..40)) {
        let text: String = picks.iter().filter_map(|pick| PIECES.get(*pick).copied()).collect();
        let (set, diagnostics) = load_text(&text);
        prop_assert!(diagnostics.render().len() < 10_000_000);
        for rule in &set.rules {
            prop_assert_eq!(run_tests(rule).len(), rule.tests.len());
        }
    }

    #[test]
    fn no_change_of_a_good_file_makes_it_panic(at in 0..GOOD.len(), cut in 0..12_usize, pick in 0..PIECES.len()) {
        let start = GOOD.floor_char_boundary(at);
        let end = GOOD.floor_char_boundary((at + cut).min(GOOD.len())).max(start);
        let mut text = GOOD.to_owned();
        text.replace_range(start..end, PIECES.get(pick).copied().unwrap_or_default());
        let (set, diagnostics) = load_text(&text);
        prop_assert!(!set.rules.is_empty() || diagnostics.count() > 0);
        for finding in diagnostics.sorted() {
            prop_assert!(finding.span.line >= 1 && finding.span.column >= 1 && finding.span.len_chars >= 1);
            prop_assert!(finding.render().contains(finding.code));
        }
        for rule in &set.rules {
            prop_assert_eq!(run_tests(rule).len(), rule.tests.len());
        }
    }
}
