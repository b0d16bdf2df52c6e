//! Where alerts go, and what is said about routes that lose some.

use chrono::DateTime;
use serde_json::value::RawValue;

use super::*;
use crate::alert::AlertRule;
use crate::diagnostic::{Diagnostics, SourceFile};
use crate::event::MAX_EVENT_BYTES;
use crate::rule::{self, Severity};
use crate::text::Untrusted;
use crate::yaml;

const SINKS: &[&str] = &["soc", "chat", "mail", "console"];

fn load_text(text: &str) -> (Vec<Route>, Vec<String>) {
    let mut diagnostics = Diagnostics::default();
    let lists_file = SourceFile { path: "lists.yaml".into(), text: "lists: {prod: [acc1, acc2]}\n".into() };
    let lists = rule::load(&[lists_file], &mut |_, _| Err("no files".into()), &mut diagnostics).lists;
    let file = SourceFile { path: "v.yaml".into(), text: text.into() };
    let node = yaml::parse(&file, &mut diagnostics).expect("a tree");
    let routes = load(&node, &lists, SINKS, &mut diagnostics);
    let shown = |finding: &&crate::diagnostic::Diagnostic| {
        let hint = finding.hint.as_deref().unwrap_or_default();
        format!("{}:{} {} {} ({hint})", finding.span.line, finding.span.column, finding.code, finding.message)
    };
    (routes, diagnostics.sorted().iter().map(shown).collect())
}

fn destinations<'r>(routes: &'r [Route], alert: &Alert) -> Vec<&'r str> {
    super::destinations(routes, alert).into_iter().map(|found| found.sink).collect()
}

fn destinations_beside<'r>(routes: &'r [Route], alert: &Alert, about: &str) -> Vec<&'r str> {
    super::destinations_beside(routes, alert, about).into_iter().map(|found| found.sink).collect()
}

pub(crate) fn alert(severity: Severity, account: &str, event: &str) -> Alert {
    Alert {
        alert_id: "a".into(),
        rule: AlertRule {
            id: "secret-created".into(),
            title: "t".into(),
            severity,
            tags: vec!["attack.t1098".into(), "vonage".into()],
            response: String::new(),
        },
        source: "main".into(),
        account_id: Some(Untrusted::new(account)),
        title: Untrusted::new("Secret created"),
        first_at: DateTime::UNIX_EPOCH,
        last_at: DateTime::UNIX_EPOCH,
        count: 1,
        late: None,
        key: Vec::new(),
        reason: Vec::new(),
        finding: None,
        note: None,
        event: RawValue::from_string(event.into()).expect("JSON"),
        events: Vec::new(),
    }
}

#[test]
fn an_alert_about_a_sink_goes_on_until_another_one_is_told() {
    let text = "\
- match: {severity: high}
  to: chat
- match: {severity: low}
  to: soc
- match: {severity: [high, low]}
  to: [chat, mail]
- to: console
";
    let (routes, findings) = load_text(text);
    assert_eq!(findings, [""; 0]);
    let beside = |severity, about| destinations_beside(&routes, &alert(severity, "acc1", "{}"), about);
    assert_eq!(destinations(&routes, &alert(Severity::High, "acc1", "{}")), ["chat"]);
    assert_eq!(beside(Severity::High, "chat"), ["chat", "mail"], "the next route that matches, and no further");
    assert_eq!(beside(Severity::High, "mail"), ["chat"]);
    assert_eq!(beside(Severity::Low, "soc"), ["soc", "chat", "mail"]);
    assert_eq!(beside(Severity::Info, "console"), ["console"], "there is no other");
}

#[test]
fn the_first_match_takes_the_alert_unless_it_continues() {
    let text = "\
- match: {severity: [high, critical]}
  to: [soc, chat]
  continue: true
- match: {account: $prod, tags|startswith: attack.}
  to: mail
- match: {not: {event.source_country: GB}, rule: secret-*, source: main, title|contains: secret}
  to: [chat, soc]
- to: console
";
    let (routes, findings) = load_text(text);
    assert!(findings.is_empty(), "{findings:?}");
    let high = alert(Severity::High, "acc1", r#"{"source_country":"GB"}"#);
    assert_eq!(destinations(&routes, &high), ["soc", "chat", "mail"]);
    let low = alert(Severity::Low, "acc9", r#"{"source_country":"KP"}"#);
    assert_eq!(destinations(&routes, &low), ["chat", "soc"]);
    let high_abroad = alert(Severity::Critical, "acc9", r#"{"source_country":"KP"}"#);
    assert_eq!(destinations(&routes, &high_abroad), ["soc", "chat"], "each sink once");
    let home = alert(Severity::Info, "acc9", r#"{"source_country":"gb"}"#);
    assert_eq!(destinations(&routes, &home), ["console"]);
}

#[test]
fn an_event_too_large_to_look_into_goes_everywhere_it_may_belong() {
    let text = "- {match: {event.user_email: admin@example.org}, to: soc}\n- {match: {severity: low}, to: mail}\n- to: console\n";
    let (routes, _) = load_text(text);
    let padding = "x".repeat(MAX_EVENT_BYTES - 40);
    let huge = alert(Severity::Low, "a", &format!(r#"{{"user_email":"x@example.org","p":"{padding}"}}"#));
    assert_eq!(destinations(&routes, &huge), ["soc", "mail"]);
    let small = alert(Severity::Low, "a", r#"{"user_email":"x@example.org"}"#);
    assert_eq!(destinations(&routes, &small), ["mail"]);
}

#[test]
fn mistakes_are_named_where_they_are() {
    let no_catch_all = "1:3 W0241 an alert that none of these routes matches goes nowhere \
                        (end the list with a route without `match`: `- to: [name]`)";
    let cases: &[(&str, &[&str])] = &[
        ("- to: [sok]\n", &["1:8 E0240 there is no sink `sok` (did you mean `soc`?)"]),
        (
            "- to: []\n",
            &["1:7 E0240 the route goes to no sink (name a sink; a route that only drops alerts is not possible)"],
        ),
        ("- match: {severity: high}\n", &["1:3 E0202 a route has no `to` (add `to: ...`)"]),
        (
            "- {matches: {severity: high}, to: soc}\n",
            &["1:4 E0201 unknown key `matches` in a route (did you mean `matchers`?)"],
        ),
        ("- match: {severty: high}\n  to: soc\n", &["1:11 E0241 an alert has no `severty` (did you mean `severity`?)"]),
        (
            "- match: {user_email: a}\n  to: soc\n",
            &[
                "1:11 E0241 an alert has no `user_email` (known are: severity, rule, tags, account, source, title, event.; \
               a field of the event is `event.user_email`)",
            ],
        ),
        (
            "- match: {any: [{severity: hihg}]}\n  to: soc\n",
            &["1:28 E0206 `hihg` is no severity (did you mean `high`?)"],
        ),
        ("- match: {account: $prd}\n  to: soc\n", &["1:20 E0220 there is no list `prd` (did you mean `$prod`?)"]),
        (
            "- {to: soc, continue: maybe}\n",
            &["1:23 E0203 `continue` must be `true` or `false`, not text (write `true` or `false`)"],
        ),
        (
            "- to: soc\n- match: {severity: low}\n  to: mail\n",
            &[
                "2:3 W0240 no alert reaches this route: the one at line 1 takes them all (move it up, or give the other `continue: true`)",
            ],
        ),
        ("- match: {rule: a}\n  to: soc\n", &[no_catch_all]),
        (
            "- {match: {severity: [high, critical]}, to: soc}\n- {match: {severity: low, rule: x}, to: soc}\n",
            &["2:3 W0241 alerts of severity info, low, medium go nowhere unless another of these routes matches \
               (end the list with a route without `match`: `- to: [name]`)"],
        ),
        ("- {match: {severity: [info, low, medium, high, critical]}, to: soc}\n", &[]),
        ("- {to: soc, continue: true}\n- {match: {severity: low}, to: mail}\n", &[]),
        ("{to: soc}\n", &["1:1 E0203 `routes` must be a list, not a map (begin each route with `- `)"]),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .map(|(text, expected)| (text, expected, load_text(text).1))
        .filter(|(_, expected, findings)| findings != *expected)
        .map(|(text, _, findings)| format!("{text}{findings:#?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_tree_leaves_an_alert_to_the_first_below_that_takes_it() {
    let text = "\
- match: {account: acc1}
  to: mail
  routes:
    - {match: {severity: critical}, to: soc, continue: true}
    - {matchers: ['severity=~\"high|critical\"']}
    - match: {severity: low}
      routes: [{match: {rule: secret-created}, to: [chat, mail]}]
- routes: [{match: {severity: low}, to: chat}]
- to: console
";
    let (routes, told) = load_text(text);
    assert_eq!(told, Vec::<String>::new());
    let to = |severity, account| destinations(&routes, &alert(severity, account, "{}"));
    assert_eq!(to(Severity::Critical, "acc1"), ["soc", "mail"], "it says continue; the next one has its parent's sink");
    assert_eq!(to(Severity::High, "acc1"), ["mail"], "the parent's sink");
    assert_eq!(to(Severity::Info, "acc1"), ["mail"], "none below takes it");
    assert_eq!(to(Severity::Low, "acc1"), ["chat", "mail"], "two levels down");
    assert_eq!(to(Severity::Low, "acc2"), ["chat"]);
    assert_eq!(to(Severity::High, "acc2"), ["console"], "what none below takes and has no sink of its own goes on");
}

#[test]
fn a_route_below_that_is_in_doubt_or_about_its_own_sink_keeps_nobody_from_being_told() {
    let text = "- {to: soc, routes: [{match: {event.user_email: a}, to: chat}]}\n";
    let (routes, _) = load_text(text);
    let event = format!(r#"{{"a": "{}"}}"#, "x".repeat(MAX_EVENT_BYTES - 10));
    assert_eq!(destinations(&routes, &alert(Severity::High, "acc1", &event)), ["chat", "soc"]);
    let (routes, _) = load_text("- {to: mail, routes: [{match: {severity: high}, to: chat}]}\n");
    let high = alert(Severity::High, "acc1", "{}");
    assert_eq!(destinations(&routes, &high), ["chat"]);
    assert_eq!(destinations_beside(&routes, &high, "chat"), ["chat", "mail"]);
}

#[test]
fn each_sink_is_found_with_all_the_routes_that_lead_there() {
    let text = "\
- {match: {severity: high}, to: [chat, soc], continue: true, mute: {days: sat-sun}, fallback: mail, after: 30s}
- {to: chat, dedup: [rule, event.user_email], quiet: 2h, routes: [{match: {account: acc1}}]}
";
    let (routes, told) = load_text(text);
    assert_eq!(told, Vec::<String>::new());
    let high = alert(Severity::High, "acc1", "{}");
    let found = super::destinations(&routes, &high);
    let lines: Vec<_> =
        found.iter().map(|to| (to.sink, to.by.iter().map(|by| by.span.line).collect::<Vec<_>>())).collect();
    assert_eq!(lines, [("chat", vec![1, 2]), ("soc", vec![1])]);
    let first = &routes[0];
    assert_eq!(first.fallback, Some(Fallback { to: vec!["mail".into()], after: Duration::from_secs(30) }));
    let muted = |stamp: &str| first.muted_at(stamp.parse().expect("a stamp")).map(During::written);
    assert_eq!((muted("2026-11-28T10:00:00Z"), muted("2026-11-27T10:00:00Z")), (Some("sat-sun UTC"), None));
    let inherited = routes[1].routes[0].repeat.as_ref().expect("its parent's");
    assert_eq!(inherited.quiet, Duration::from_secs(7200));
    let key = |event| AlertView::of(&alert(Severity::High, "acc1", event)).key(&inherited.fields);
    assert_eq!(key(r#"{"user_email": "a"}"#), key(r#"{"user_email": "a", "x": 1}"#));
    assert_ne!(key(r#"{"user_email": "a"}"#), key(r#"{"user_email": "b"}"#));
}

#[test]
fn a_sink_falls_back_to_all_others_that_its_routes_name_at_the_first_of_their_times() {
    let text = "\
- {match: {severity: high}, to: [chat, mail], continue: true, fallback: [mail, soc], after: 30s}
- {to: [chat, soc], fallback: [mail, console], after: 10s}
";
    let (routes, told) = load_text(text);
    assert_eq!(told, Vec::<String>::new());
    let found = super::destinations(&routes, &alert(Severity::High, "acc1", "{}"));
    let due = |to: &Destination<'_>| to.fallback().map(|due| (due.to.join(" "), due.after.as_secs()));
    let due: Vec<_> = found.iter().map(|to| (to.sink, due(to))).collect();
    let expected = [
        ("chat", Some(("mail soc console".to_owned(), 10))),
        ("mail", Some(("soc".to_owned(), 30))),
        ("soc", Some(("mail console".to_owned(), 10))),
    ];
    assert_eq!(due, expected);
}

#[test]
fn the_page_says_the_defaults_and_the_bounds_that_hold() {
    let said = |name: &str| super::KEYS.iter().find(|key| key.name == name).expect("a key");
    for (name, default, (least, most)) in
        [("after", super::DEFAULT_AFTER, super::load::AFTER), ("quiet", super::DEFAULT_QUIET, super::load::QUIET)]
    {
        let shown = crate::time::format_duration;
        assert_eq!(said(name).default, shown(default));
        assert_eq!(said(name).takes, format!("duration, {} to {}", shown(least), shown(most)));
    }
}

#[test]
fn a_route_below_switches_off_what_it_would_take_over() {
    let text = "\
- to: chat
  fallback: mail
  dedup: [rule]
  routes:
    - {match: {severity: critical}, dedup: [], fallback: []}
    - {match: {severity: high}, dedup: []}
    - {match: {severity: low}}
    - {match: {severity: info}, to: mail, routes: [{match: {account: acc1}, to: soc}]}
    - {match: {severity: medium}, to: [mail, chat]}
";
    let (routes, told) = load_text(text);
    assert_eq!(told, Vec::<String>::new());
    let kept = routes[0].routes.iter().map(|route| (route.fallback.is_some(), route.repeat.is_some()));
    let below = &routes[0].routes[3].routes[0];
    assert_eq!((below.to.as_slice(), below.fallback.is_some()), (["soc".to_owned()].as_slice(), true), "handed on");
    let own_sink_is_no_fallback = (false, true);
    let expected = [(false, false), (true, false), (true, true), own_sink_is_no_fallback, own_sink_is_no_fallback];
    assert_eq!(kept.collect::<Vec<_>>(), expected);
}

#[test]
fn mistakes_in_the_options_of_a_route_are_all_told() {
    let text = "\
- {to: chat, fallback: pager, after: 1s}
- {to: chat, after: 1m}
- {to: chat, quiet: 1h}
- {to: chat, dedup: [rule, nothing], quiet: 30d}
- {to: chat, mute: {days: someday}}
- {to: chat, matchers: ['sevrity=high', 'title=~\"(\"']}
- {routes: [{to: [], continue: true}]}
- {continue: true}
- {to: chat, routes: [{fallback: chat}]}
- {to: chat, fallback: []}
- {to: chat, dedup: []}
- {to: chat, fallback: mail, dedup: [rule], routes: [{fallback: [], after: 5m, dedup: [], quiet: 2h}]}
";
    let (routes, told) = load_text(text);
    assert!(routes.is_empty(), "{routes:?}");
    for expected in [
        "1:24 E0240 there is no sink `pager`",
        "1:31 E0207 `after` is 1s, beyond what can be used (from 10s to 1d)",
        "2:14 E0202 `after` has no meaning without `fallback`",
        "3:14 E0202 `quiet` has no meaning without `dedup`",
        "4:28 E0241 an alert has no `nothing`",
        "4:38 E0207 `quiet` is 30d",
        "unknown day `someday`",
        "E0242 an alert has no field `sevrity`: did you mean `severity`?",
        "7:18 E0240 the route goes to no sink",
        "8:3 E0202 a route has no `to`",
        "9:24 E0240 `fallback` names the sinks that the alert goes to anyway",
        "10:24 E0240 the route goes to no sink",
        "11:21 E0241 `dedup` names 0 fields",
        "12:69 E0202 `after` has no meaning without `fallback`",
        "12:91 E0202 `quiet` has no meaning without `dedup`",
    ] {
        assert!(told.iter().any(|line| line.contains(expected)), "{expected}\n{}", told.join("\n"));
    }
}
