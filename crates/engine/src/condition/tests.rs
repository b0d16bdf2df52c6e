//! Edge cases of the rule language, one by one.

use chrono::DateTime;

use super::*;
use crate::event::Event;

fn event(raw: &str) -> Event {
    let stamp = "2018-08-13T10:15:31Z".parse().expect("a stamp");
    Event::new("e", stamp, raw.into()).expect("an event")
}

/// Values as a rule file gives them: numbers, `true`, `null` unquoted, `'...'` quoted.
fn literals(values: &[&str]) -> Vec<Literal> {
    let literal = |value: &&str| match *value {
        "null" => Literal::Null,
        "true" | "false" => Literal::Bool(*value == "true"),
        text => match (text.strip_prefix('\''), text.parse()) {
            (Some(quoted), _) => Literal::Text(quoted.trim_end_matches('\'').to_owned()),
            (None, Ok(number)) => Literal::Number(number, text.to_owned()),
            (None, Err(_)) => Literal::Text(text.to_owned()),
        },
    };
    values.iter().map(literal).collect()
}

fn holds(key: &str, values: &[&str], raw: &str) -> bool {
    Condition::Test(Test::build(key, literals(values)).expect(key)).holds(&event(raw))
}

/// Checks one test against events that it must take and events that it must not.
fn check(key: &str, values: &[&str], takes: &[&str], refuses: &[&str]) {
    for raw in takes {
        assert!(holds(key, values, raw), "{key} {values:?} must hold for {raw}");
    }
    for raw in refuses {
        assert!(!holds(key, values, raw), "{key} {values:?} must not hold for {raw}");
    }
    let negated = if key.contains("exists") { return } else { format!("{key}|neq") };
    for raw in takes {
        assert!(!holds(&negated, values, raw), "{negated} {values:?} must not hold for {raw}");
    }
    for raw in refuses {
        assert!(holds(&negated, values, raw), "{negated} {values:?} must hold for {raw}");
    }
}

fn fails(key: &str, values: &[&str]) -> BuildError {
    Test::build(key, literals(values)).map(|test| test.key).expect_err(key)
}

#[test]
fn equality_is_blind_to_case_and_takes_wildcards() {
    check("a", &["App_*"], &[r#"{"a":"APP_CREATE"}"#, r#"{"a":"app_"}"#], &[r#"{"a":"APP"}"#, "{}", r#"{"a":null}"#]);
    check("a", &["müller"], &[r#"{"a":"MÜLLER"}"#, r#"{"a":"M\u00dcller"}"#], &[r#"{"a":"mueller"}"#]);
    check("a", &[r"50\*"], &[r#"{"a":"50*"}"#], &[r#"{"a":"500"}"#]);
    check("a|cased", &["App"], &[r#"{"a":"App"}"#], &[r#"{"a":"APP"}"#]);
    check("a", &["x", "y"], &[r#"{"a":"y"}"#], &[r#"{"a":"z"}"#]);
    check("a", &["''"], &[r#"{"a":""}"#], &["{}", r#"{"a":" "}"#, r#"{"a":null}"#]);
    check("a", &["'*'"], &[r#"{"a":""}"#, r#"{"a":"x"}"#, r#"{"a":7}"#], &["{}", r#"{"a":null}"#, r#"{"a":{}}"#]);
}

#[test]
fn scalars_of_any_type_compare() {
    check("a", &["7"], &[r#"{"a":7}"#, r#"{"a":"7"}"#, r#"{"a":7.0}"#], &[r#"{"a":"7.0"}"#, r#"{"a":70}"#]);
    check("a", &["'7'"], &[r#"{"a":7}"#, r#"{"a":"7"}"#], &[r#"{"a":7.0}"#]);
    check("a", &["1.10"], &[r#"{"a":"1.10"}"#, r#"{"a":1.1}"#], &[r#"{"a":"1.1"}"#]);
    check("a", &["true"], &[r#"{"a":true}"#, r#"{"a":"TRUE"}"#], &[r#"{"a":false}"#, r#"{"a":1}"#]);
    check("a", &["4477*"], &[r#"{"a":447700900000}"#], &[r#"{"a":447}"#]);
    check("a", &["9007199254740993"], &[r#"{"a":9007199254740993}"#], &[r#"{"a":9007199254740992}"#]);
}

#[test]
fn a_missing_country_is_not_in_the_list() {
    check(
        "source_country",
        &["GB", "NO"],
        &[r#"{"source_country":"gb"}"#],
        &["{}", r#"{"source_country":""}"#, r#"{"source_country":null}"#, r#"{"source_country":["KP"]}"#],
    );
}

#[test]
fn neq_negates_the_whole_list_on_arrays_too() {
    assert!(!holds("a|neq", &["x"], r#"{"a":["x","y"]}"#), "one member is in the list");
    assert!(holds("a|neq", &["x"], r#"{"a":["y","z"]}"#));
    assert!(holds("a|neq", &["x"], r#"{"a":[]}"#));
}

#[test]
fn null_is_missing_or_null_and_exists_is_presence() {
    check("a", &["null"], &["{}", r#"{"a":null}"#, r#"{"a":[null]}"#], &[r#"{"a":""}"#, r#"{"a":[]}"#, r#"{"a":{}}"#]);
    check("a.b", &["null"], &["{}", r#"{"a":{}}"#, r#"{"a":7}"#], &[r#"{"a":{"b":0}}"#]);
    check("a", &["null", "x"], &["{}", r#"{"a":"X"}"#], &[r#"{"a":"y"}"#]);
    check("a|exists", &["true"], &[r#"{"a":null}"#, r#"{"a":""}"#, r#"{"a":[]}"#], &["{}", r#"{"b":1}"#]);
    check("a|exists", &["false"], &["{}"], &[r#"{"a":null}"#]);
    check("context.*|exists", &["true"], &[r#"{"context":{"x":["y"]}}"#], &[r#"{"context":{"x":1}}"#, "{}"]);
}

#[test]
fn text_modifiers_and_all() {
    check("a|contains", &["b*d", "x"], &[r#"{"a":"aBcDe"}"#, r#"{"a":"X"}"#], &[r#"{"a":"abe"}"#, "{}"]);
    check("a|startswith", &["ab"], &[r#"{"a":"ABC"}"#], &[r#"{"a":"cab"}"#]);
    check("a|endswith", &["bc"], &[r#"{"a":"ABC"}"#], &[r#"{"a":"bca"}"#]);
    check("a|contains|all", &["a", "b"], &[r#"{"a":"xbax"}"#, r#"{"a":["a","b"]}"#], &[r#"{"a":"a"}"#, "{}"]);
    check("a|contains|cased", &["B"], &[r#"{"a":"aB"}"#], &[r#"{"a":"ab"}"#]);
    check("a|contains|windash", &[" -enc"], &[r#"{"a":"p /enc"}"#, r#"{"a":"p ―ENC"}"#], &[r#"{"a":"p enc"}"#]);
    check("a|contains|expand", &["50%"], &[r#"{"a":"by 50% now"}"#], &[r#"{"a":"50"}"#]);
}

#[test]
fn every_asks_of_each_value() {
    let missing = ["{}", r#"{"a":null}"#, r#"{"a":[]}"#, r#"{"a":[[]]}"#, r#"{"a":{}}"#];
    let and = |more: &[&'static str]| [&missing[..], more].concat();
    check(
        "a|every",
        &["x", "y"],
        &[r#"{"a":"X"}"#, r#"{"a":["x","y"]}"#, r#"{"a":[["x"],["y","x"]]}"#],
        &and(&[r#"{"a":["x","z"]}"#, r#"{"a":["z","x"]}"#, r#"{"a":["x",null]}"#, r#"{"a":["x",{"b":"x"}]}"#]),
    );
    check("a|every", &["''"], &[r#"{"a":""}"#, r#"{"a":["",""]}"#], &and(&[r#"{"a":["","x"]}"#]));
    // `null` is what it always is: missing, or null.
    check(
        "a|every",
        &["null", "x"],
        &["{}", r#"{"a":null}"#, r#"{"a":[null,"x"]}"#],
        &[r#"{"a":[null,"y"]}"#, r#"{"a":[]}"#, r#"{"a":{}}"#],
    );
    check(
        "a|cidr|every",
        &["10.0.0.0/8"],
        &[r#"{"a":"10.0.0.1"}"#, r#"{"a":["10.0.0.1","::ffff:10.0.0.2"]}"#],
        &and(&[r#"{"a":["10.0.0.1","0.0.0.0/0"]}"#, r#"{"a":["10.0.0.1","203.0.113.7"]}"#, r#"{"a":["10.0.0.1",7]}"#]),
    );
    check("a|contains|all|every", &["b", "c"], &[r#"{"a":["bc","cb"]}"#], &and(&[r#"{"a":["b","c"]}"#]));
    check("a|gt|every", &["5"], &[r#"{"a":[6,"7"]}"#], &and(&[r#"{"a":[6,5]}"#, r#"{"a":[6,"many"]}"#]));
    check("a|fieldref|every", &["b"], &[r#"{"a":["x","X"],"b":["x","y"]}"#], &and(&[r#"{"a":["x","z"],"b":"x"}"#]));
    check(
        "t|year|every",
        &["2025"],
        &[r#"{"t":["2025-10-15T00:00:00","2025-01-01T00:00:00"]}"#],
        &[r#"{"t":["2025-10-15T00:00:00",1]}"#],
    );
    check("l.k|every", &["x"], &[r#"{"l":[{"k":"x"},{"k":["x"]}]}"#], &[r#"{"l":[{"k":"x"},{"k":"y"}]}"#]);
    check(
        "context.*|every",
        &["x"],
        &[r#"{"context":{"k":"x","l":["x"],"n":7}}"#],
        &[r#"{"context":{"k":"x","l":"y"}}"#],
    );
}

#[test]
fn every_refuses_what_it_cannot_mean() {
    for (key, values, code, part, hint) in [
        ("a|every|exists", &["true"][..], code::CONFLICTING_MODIFIERS, Part::Key, "remove `|every`"),
        ("a|url_outside|every", &["example.org"], code::CONFLICTING_MODIFIERS, Part::Key, "one URL lies outside"),
        ("a|cidr|every", &["10.0.0.0/8", "null"], code::WRONG_VALUE, Part::Value(1), "plain equality"),
        ("a|evry", &["x"], code::UNKNOWN_MODIFIER, Part::Key, "did you mean `every`?"),
    ] {
        let error = fails(key, values);
        assert_eq!((error.code, error.part), (code, part), "{key} {values:?}: {error:?}");
        assert!(error.hint.is_some_and(|given| given.contains(hint)), "{key} {values:?}");
    }
}

#[test]
fn an_explanation_names_the_value_that_did_not_fit() {
    let test = Test::build("ip|cidr|every|neq", literals(&["10.0.0.0/8"])).expect("a test");
    let event = event(r#"{"ip":["10.0.0.1","0.0.0.0/0","10.0.0.2"]}"#);
    let reasons = Condition::Test(test).reasons(&event);
    assert_eq!(reasons.len(), 1);
    assert_eq!(reasons[0].operator, "cidr|every|neq");
    assert_eq!(reasons[0].actual.as_ref().map(|actual| actual.as_raw()), Some("0.0.0.0/0"));
}

#[test]
fn regular_expressions_search_and_mind_case() {
    check(
        "a|re",
        &["b.d"],
        &[r#"{"a":"abcde"}"#, r#"{"a":[1,"bcd"]}"#],
        &[r#"{"a":"aBcDe"}"#, r#"{"a":"b\nd"}"#, "{}"],
    );
    check("a|re|i", &["^B"], &[r#"{"a":"bc"}"#], &[r#"{"a":"a\nb"}"#]);
    check("a|re|m|i", &["^B"], &[r#"{"a":"a\nb"}"#], &[r#"{"a":"ab"}"#]);
    check("a|re|s", &["b.d"], &[r#"{"a":"b\nd"}"#], &[r#"{"a":"bd"}"#]);
    check("a|re|all", &["b", "c"], &[r#"{"a":"cb"}"#], &[r#"{"a":"b"}"#]);
    check("a|re", &["^7"], &[r#"{"a":71}"#], &[r#"{"a":17}"#]);
}

#[test]
fn numbers_and_ranges() {
    check("a|lt", &["5"], &[r#"{"a":4.9}"#, r#"{"a":"-3"}"#], &[r#"{"a":5}"#, r#"{"a":"x"}"#, "{}", r#"{"a":null}"#]);
    check("a|lte", &["5"], &[r#"{"a":5}"#], &[r#"{"a":5.1}"#]);
    check("a|gt", &["5"], &[r#"{"a":6}"#, r#"{"a":[1,6]}"#], &[r#"{"a":5}"#, r#"{"a":true}"#]);
    check("a|gte", &["'5'"], &[r#"{"a":5}"#], &[r#"{"a":4}"#]);
    check(
        "a|range",
        &["1-5", "-9--7"],
        &[r#"{"a":1}"#, r#"{"a":"5"}"#, r#"{"a":-8}"#],
        &[r#"{"a":6}"#, r#"{"a":"x"}"#],
    );
}

#[test]
fn addresses() {
    let mapped = r#"{"ip":"::FFFF:10.0.0.1"}"#;
    let (v4, v6) = (r#"{"ip":"10.0.0.1"}"#, r#"{"ip":"2001:db8::a"}"#);
    let unusable = [r#"{"ip":""}"#, r#"{"ip":"x"}"#, r#"{"ip":null}"#, "{}", r#"{"ip":"10.0.0.1:80"}"#, r#"{"ip":{}}"#];
    let and = |more: &[&'static str]| [&unusable[..], more].concat();
    check("ip", &["10.0.0.1"], &[v4, mapped], &and(&[v6]));
    check("ip", &["10.0.*"], &[v4, mapped], &[v6, r#"{"ip":""}"#]);
    check("ip", &["2001:DB8:0:0::A"], &[v6, r#"{"ip":"2001:0db8:0::000a"}"#], &and(&[v4]));
    check("ip", &["2001:db8:*"], &[v6, r#"{"ip":"2001:0DB8::1"}"#], &and(&[v4, mapped]));
    check("ip|cidr", &["10.0.0.0/8"], &[v4, mapped], &and(&[v6, r#"{"ip":"::10.0.0.1"}"#]));
    check("ip|cidr", &["0.0.0.0/0"], &[v4, mapped], &and(&[v6]));
    check("ip|cidr", &["::/0"], &[v6], &and(&[v4, mapped]));
    check("ip|cidr", &["2001:db8::/32", "192.0.2.7"], &[v6, r#"{"ip":"192.0.2.7"}"#], &and(&[v4]));
    check(
        "ip|range",
        &["10.0.0.1-10.0.0.9"],
        &[v4, mapped, r#"{"ip":"10.0.0.9"}"#],
        &and(&[v6, r#"{"ip":"10.0.0.10"}"#]),
    );
    check("ip|re", &[r"^10\."], &[v4, mapped], &[v6]);
    check("ip|scope", &["private"], &[v4, mapped, r#"{"ip":"fd00::1"}"#], &and(&[v6, r#"{"ip":"8.8.8.8"}"#]));
    check("ip|scope", &["Public", "link-local"], &[r#"{"ip":"8.8.8.8"}"#, r#"{"ip":"169.254.1.1"}"#], &and(&[v4]));
}

#[test]
fn fields_arrays_and_wildcards() {
    check("a.b", &["x"], &[r#"{"a":{"b":"x"}}"#, r#"{"a.b":"x"}"#, r#"{"a":[{"b":["y","x"]}]}"#], &[r#"{"a":"x"}"#]);
    assert!(!holds("a.b", &["x"], r#"{"a.b":"y","a":{"b":"x"}}"#), "the literal key wins");
    check("context.*", &["x"], &[r#"{"context":{"k":[{"l":"X"}]}}"#], &[r#"{"a":"x"}"#, r#"{"context":{"x":1}}"#]);
    check("*|contains", &["evil"], &[r#"{"a":[{"b":"an Evil one"}]}"#], &[r#"{"evil":1}"#]);
    check(
        "actor",
        &["7"],
        &[r#"{"user_id":7}"#, r#"{"user_email":"7"}"#],
        &[r#"{"user_id":8,"user_email":"7"}"#, "{}"],
    );
}

#[test]
fn one_field_against_another() {
    check(
        "a|fieldref",
        &["b.c"],
        &[r#"{"a":"X","b":{"c":"x"}}"#, r#"{"a":["y","z"],"b":{"c":["z"]}}"#],
        &[
            r#"{"a":"x"}"#,
            "{}",
            r#"{"a":"x*","b":{"c":"xyz"}}"#,
            r#"{"a":"xyz","b":{"c":"x*"}}"#,
            r#"{"a":null,"b":{"c":null}}"#,
        ],
    );
    check("a|fieldref|endswith", &["b"], &[r#"{"a":"xyz","b":"YZ"}"#], &[r#"{"a":"xyz","b":""}"#]);
    check("a|fieldref|cased", &["b"], &[r#"{"a":"x","b":"x"}"#], &[r#"{"a":"x","b":"X"}"#]);
    check("a|fieldref", &["b"], &[r#"{"a":7,"b":"7"}"#], &[]);
}

#[test]
fn encodings() {
    check(
        "a|base64",
        &["/bin/bash"],
        &[r#"{"a":"L2Jpbi9iYXNo"}"#],
        &[r#"{"a":"l2jpBi9iYXNo"}"#, r#"{"a":"/bin/bash"}"#],
    );
    check(
        "a|base64offset|contains",
        &["bash"],
        &[r#"{"a":"L2Jpbi9iYXNo"}"#, r#"{"a":"eHhiYXNoeHg="}"#],
        &[r#"{"a":"bash"}"#],
    );
    check("a|wide|base64offset|contains", &["ping"], &[r#"{"a":"eABwAGkAbgBnAHgA"}"#], &[r#"{"a":"ping"}"#]);
    check("a|utf16be|base64", &["a"], &[r#"{"a":"AGE="}"#], &[r#"{"a":"YQA="}"#]);
    check("a|utf16|base64", &["a"], &[r#"{"a":"//5hAA=="}"#], &[r#"{"a":"YQA="}"#]);
    check("a|utf16le|base64", &["a"], &[r#"{"a":"YQA="}"#], &[]);
}

#[test]
fn parts_of_a_stamp() {
    let own = r#"{"created_at":"1999-01-01T00:00:00"}"#;
    check("created_at|hour", &["10"], &[own], &["{}"]);
    check("created_at|year", &["2018"], &[own], &[]);
    check("t|minute", &["51"], &[r#"{"t":"2025-10-15T13:51:56.249Z"}"#], &[r#"{"t":"x"}"#, r#"{"t":51}"#, "{}"]);
    check("t|hour|gte", &["18"], &[r#"{"t":"2025-10-15T20:00:00+02:00"}"#], &[r#"{"t":"2025-10-15T19:00:00+02:00"}"#]);
    check("t|day|range", &["13-15"], &[r#"{"t":"2025-10-15T00:00:00"}"#], &[r#"{"t":"2025-10-16T00:00:00"}"#]);
    check("t|month", &["10", "11"], &[r#"{"t":"2025-10-15T00:00:00"}"#], &[r#"{"t":"2025-12-16T00:00:00"}"#]);
    check("t|week|lt", &["10"], &[r#"{"t":"2025-01-15T00:00:00"}"#], &[r#"{"t":"2025-12-16T00:00:00"}"#]);
}

#[test]
fn urls() {
    let url = |text: &str| format!(r#"{{"context":{{"answer_url":{{"method":"GET","url":"{text}"}}}}}}"#);
    let (inside, outside) = (url("https://a.example.org/x"), url("https://evil.com/example.org"));
    let (plain, address) = (url("http://example.org/"), url("https://192.0.2.1/"));
    check("context|urlhost", &["evil.com"], &[&outside], &[&inside, &plain, "{}"]);
    check("context.answer_url.url|urlhost", &["example.org"], &[&inside, &plain], &[&outside]);
    check(
        "context|url_outside",
        &["example.org"],
        &[&outside, &plain, &address],
        &[&inside, "{}", r#"{"context":{}}"#],
    );
    let both = r#"{"u":["https://example.org/","https://evil.com/"]}"#;
    check("u|url_outside", &["example.org"], &[both], &[r#"{"u":["https://example.org/","GET"]}"#]);
}

#[test]
fn values_without_use_are_counted_and_fit_nothing() {
    let count = |key: &str, value: &str, raw: &str| {
        let mut unusable = 0;
        let test = Test::build(key, literals(&[value])).expect(key);
        assert!(!test.holds_counting(&event(raw), &mut unusable), "{key} {raw}");
        unusable
    };
    assert_eq!(count("a|cidr", "10.0.0.0/8", r#"{"a":""}"#), 1);
    assert_eq!(count("a|scope", "private", r#"{"a":["x","10.0.0"]}"#), 2);
    assert_eq!(count("a|range", "10.0.0.1-10.0.0.2", r#"{"a":"7"}"#), 1);
    assert_eq!(count("a|gt", "5", r#"{"a":"many"}"#), 1);
    assert_eq!(count("a", "x", r#"{"a":{"b":1}}"#), 1);
    assert_eq!(count("a|hour", "5", r#"{"a":"noon"}"#), 1);
    assert_eq!(count("a|cidr", "10.0.0.0/8", "{}"), 0, "a missing field is no mistake");
    assert_eq!(count("a|cidr", "10.0.0.0/8", r#"{"a":null}"#), 0);
}

#[test]
fn mistakes_point_at_what_is_wrong_and_say_how_to_mend_it() {
    let long = "(?i)[a-zäöü]{500}\\w{500}".to_owned();
    for (key, values, code, part, hint) in [
        ("a|contain", &["x"][..], code::UNKNOWN_MODIFIER, Part::Key, "did you mean `contains`?"),
        ("a|", &["x"], code::UNKNOWN_MODIFIER, Part::Key, ""),
        ("a|contains|startswith", &["x"], code::CONFLICTING_MODIFIERS, Part::Key, ""),
        ("a|all|all", &["x"], code::CONFLICTING_MODIFIERS, Part::Key, ""),
        ("a|re|cased", &["x"], code::CONFLICTING_MODIFIERS, Part::Key, "re|i"),
        ("a|contains|i", &["x"], code::CONFLICTING_MODIFIERS, Part::Key, "re|i"),
        ("a|exists|neq", &["true"], code::CONFLICTING_MODIFIERS, Part::Key, "exists: false"),
        ("a|hour|contains", &["1"], code::CONFLICTING_MODIFIERS, Part::Key, ""),
        ("a|fieldref|re", &["b"], code::CONFLICTING_MODIFIERS, Part::Key, ""),
        ("|contains", &["x"], code::BAD_FIELD, Part::Key, "`*|contains`"),
        ("a.*.b", &["x"], code::BAD_FIELD, Part::Key, ""),
        ("a", &[], code::NO_VALUES, Part::Key, "at least one"),
        ("a|exists", &["yes"], code::WRONG_VALUE, Part::Value(0), "exists: true"),
        ("a|contains", &["x", "null"], code::WRONG_VALUE, Part::Value(1), "plain equality"),
        ("a|contains", &["x", "''"], code::WRONG_VALUE, Part::Value(1), "exists: true"),
        ("a|fieldref", &["7"], code::WRONG_VALUE, Part::Value(0), "name of a field"),
        ("a|re", &["ok", "(b"], code::BAD_REGEX, Part::Value(1), ""),
        ("a|re", &["(?=x)"], code::BAD_REGEX, Part::Value(0), "look-around"),
        ("a|re", &[&long], code::BAD_REGEX, Part::Value(0), "shorten"),
        ("a|cidr", &["10.0.0.0/8", "10.0.0.1/8"], code::BAD_NETWORK, Part::Value(1), "`10.0.0.0/8`"),
        ("a|cidr", &["10.0.*"], code::BAD_NETWORK, Part::Value(0), "prefix length"),
        ("a|range", &["5-1"], code::BAD_RANGE, Part::Value(0), "both ends"),
        ("a|lt", &["many"], code::BAD_NUMBER, Part::Value(0), ""),
        ("a|hour", &["null"], code::WRONG_VALUE, Part::Value(0), ""),
        ("a|scope", &["privat"], code::UNKNOWN_SCOPE, Part::Value(0), "did you mean `private`?"),
        ("a|url_outside", &["*.example.org"], code::BAD_DOMAIN, Part::Value(0), "covers the hosts below"),
        ("a|wide", &["x"], code::BAD_ENCODING, Part::Key, "base64offset"),
        ("a|base64offset", &["x"], code::BAD_ENCODING, Part::Key, "contains"),
        ("a|base64", &["x*"], code::BAD_ENCODING, Part::Value(0), "\\*"),
        ("a|expand", &["%admins%"], code::UNEXPANDED, Part::Value(0), "lists:"),
    ] {
        let error = fails(key, values);
        assert_eq!((error.code, error.part), (code, part), "{key} {values:?}: {error:?}");
        let given = error.hint.unwrap_or_default();
        assert!(given.contains(hint), "{key} {values:?}: {given}");
        assert!(!error.message.is_empty() && !error.message.ends_with('.'));
    }
}

#[test]
fn an_explanation_is_a_tree_of_what_was_asked_and_seen() {
    let condition = Condition::All(vec![
        Condition::Test(Test::build("event_type", literals(&["APP_*", "NUMBER_*"])).unwrap()),
        Condition::Any(vec![
            Condition::Not(Box::new(Condition::Test(Test::build("ip|cidr", literals(&["10.0.0.0/8"])).unwrap()))),
            Condition::Test(Test::build("source", literals(&["CD"])).unwrap()),
        ]),
        Condition::During(During::build(Some("mon"), None, None).unwrap()),
    ]);
    let event = event(r#"{"event_type":"APP_CREATE","ip":"8.8.8.8","source":"DEVAPI"}"#);
    let tree = serde_json::to_value(condition.explain(&event)).unwrap();
    assert_eq!(tree["block"], "all");
    assert_eq!(tree["children"][0]["expected"], "APP_*, NUMBER_*");
    assert_eq!(tree["children"][0]["actual"], "APP_CREATE");
    assert_eq!(tree["children"][1]["children"][0]["block"], "not");
    assert_eq!(tree["children"][1]["children"][1]["holds"], false);
    assert_eq!(tree["children"][2]["actual"], "Mon 2018-08-13 10:15:31 UTC");
    let reasons: Vec<(String, String)> =
        condition.reasons(&event).into_iter().map(|reason| (reason.field, reason.operator)).collect();
    let expected = [("event_type", "equals"), ("ip", "not cidr"), ("created_at", "during")];
    assert_eq!(reasons, expected.map(|(field, operator)| (field.to_owned(), operator.to_owned())));
}

#[test]
fn what_an_explanation_carries_is_bounded() {
    let long = "x".repeat(100_000);
    let test = Test::build("a|contains", vec![Literal::Text(long.clone()); 3]).unwrap();
    let parts = vec![Condition::Test(test); 50];
    let event = Event::new("e", DateTime::UNIX_EPOCH, format!(r#"{{"a":"{long}"}}"#).into()).unwrap();
    let reasons = Condition::All(parts).reasons(&event);
    assert_eq!(reasons.len(), crate::alert::MAX_REASONS);
    assert!(reasons.iter().all(|reason| reason.expected.chars().count() <= 160));
    assert!(reasons.iter().all(|reason| reason.actual.as_ref().unwrap().as_raw().len() <= MAX_ACTUAL_CHARS));
}

#[test]
fn empty_blocks() {
    assert!(Condition::All(Vec::new()).holds(&event("{}")));
    assert!(!Condition::Any(Vec::new()).holds(&event("{}")));
}

#[test]
fn a_long_value_may_not_have_wildcards() {
    let long = "a".repeat(600);
    assert!(fails("a", &["x", &format!("{long}*b")]).message.contains("at most 512"));
    assert!(holds("a", &[&long], &format!("{{\"a\": \"{long}\"}}")));
}

#[test]
fn an_empty_value_is_shown_as_such() {
    let test = Test::build("a", literals(&["null", "''", "b"])).expect("a test");
    assert_eq!(test.expected, "null, \"\", b");
}

#[test]
fn a_test_takes_a_bounded_number_of_regular_expressions() {
    let values = |count: usize| vec![Literal::Text("x".into()); count];
    assert!(Test::build("a|re", values(200)).is_ok());
    let refused = Test::build("a|re", values(201)).expect_err("one too many");
    assert_eq!((refused.code, refused.part), (code::BAD_REGEX, Part::Value(200)));
}
