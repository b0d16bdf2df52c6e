//! How many events a second one core takes from raw JSON through 10 and 1,000 rules, and through one rule of each detection.
//!
//! The events have the fields and sizes of the public description of the Vonage Audit API; few of them match.
//! Run with `cargo bench -p vigie-engine`; the throughput that it prints is events a second. Time is what the thread
//! spent on a core, not what passed: other programs must not change a figure that is about one core.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use vigie_engine::condition::{Condition, Literal, Test};
use vigie_engine::diagnostic::{Diagnostics, SourceFile, Span};
use vigie_engine::engine::Engine;
use vigie_engine::event::{Event, FieldPath};
use vigie_engine::rule::{self, AlertSpec, Rule, Severity};

const TYPES: [&str; 27] = [
    "USER_STATUS",
    "USER_UPDATE",
    "USER_BILLING_UPDATE",
    "USER_CREATE",
    "USER_LOGIN",
    "USER_LOGOUT",
    "USER_PRODUCT_SEARCH",
    "USER_API_KEYS_UPDATE",
    "ACCOUNT_SECRET_CREATE",
    "ACCOUNT_SECRET_DELETE",
    "ACCOUNT_UPDATE_SPAMMER",
    "ACCOUNT_UPDATE_SETTINGS",
    "NUMBER_ASSIGN",
    "NUMBER_UPDATED",
    "NUMBER_RELEASE",
    "NUMBER_LINKED",
    "NUMBER_UNLINKED",
    "APP_CREATE",
    "APP_UPDATE",
    "APP_DELETE",
    "APP_DISABLE",
    "APP_ENABLE",
    "IP_WHITELIST_CREATE",
    "IP_WHITELIST_DELETE",
    "AUTORELOAD_ENABLE",
    "AUTORELOAD_UPDATE",
    "AUTORELOAD_DISABLE",
];
const COUNTRIES: [&str; 8] = ["GB", "DE", "FR", "US", "ES", "IT", "NL", "NO"];
const EVENTS: usize = 1000;
/// Events of one commit, as in one page of the source.
const BATCH: usize = 100;

fn raw_event(index: usize) -> Arc<str> {
    let event_type = TYPES[index * 7 % TYPES.len()];
    let country = COUNTRIES[index * 3 % COUNTRIES.len()];
    let context = match index % 3 {
        0 => format!(
            r#"{{"appId":"78d335fa-323d-0114-9c3d-{index:012}","created":{{"accountId":"abcd1234","appId":"78d335fa","name":"app {index}","answer_url":{{"method":"GET","url":"https://app.example.org/answer"}},"event_url":{{"method":"POST","url":"https://app.example.org/event"}},"type":"voice"}}}}"#
        ),
        1 => format!(
            r#"{{"country":"{country}","msisdn":"4477009{index:05}","voice-type":"sip","voice-value":"sip:user@example12.com","accountId":"abcd1234"}}"#
        ),
        _ => r#"{"accountId":"abcd1234"}"#.to_owned(),
    };
    format!(
        r#"{{"id":"aaaaaaaa-bbbb-cccc-dddd-{index:012}","event_type":"{event_type}","event_type_description":"Something was updated","created_at":"2018-08-13T10:{:02}:31","user_email":"user{}@example.org","user_id":{},"account_id":"abcd1234","source":"DEVAPI","source_ip":"154.59.142.{}","source_description":"Developer API","source_country":"{country}","context":{context},"_links":{{"self":{{"href":"https://api.nexmo.com/beta/audit/events/aaaaaaaa-bbbb-cccc-dddd-{index:012}"}}}}}}"#,
        index % 60,
        index % 200,
        index % 200,
        index % 256,
    )
    .into()
}

fn test(key: &str, values: &[&str]) -> Condition {
    let values = values.iter().map(|value| Literal::Text((*value).to_owned())).collect();
    Condition::Test(Test::build(key, values).expect("a test"))
}

/// Rules in the mixture of a large rule set: mostly equality on the type and one field more, some lists, some text.
fn condition(index: usize) -> Condition {
    let event_type = test("event_type", &[TYPES[index % TYPES.len()]]);
    let family = test("event_type", &[["APP_*", "NUMBER_*", "ACCOUNT_*", "USER_*"][index % 4]]);
    let other = index.to_string();
    let parts = match index % 10 {
        0 => vec![family, test("source_country|neq", &COUNTRIES)],
        1 => vec![event_type, test("source_ip|cidr", &[&format!("10.{}.0.0/16", index % 250), "192.168.0.0/16"])],
        2 => vec![event_type, test("user_email", &[&format!("intruder{other}@example.org")])],
        3 => vec![event_type, test("user_email|endswith|neq", &["@example.org", "@example.com"])],
        4 => vec![event_type, test("context.*|contains", &[&format!("evil{other}.com"), "webhook.site"])],
        5 => vec![family, test("source", &["CD"]), test("user_id", &[&format!("9{other}")])],
        6 => vec![event_type, Condition::Not(Box::new(test("source_country", &COUNTRIES)))],
        7 => vec![event_type, test("source_description", &[&format!("Tool {other}*")])],
        8 => vec![event_type, test("source_ip|scope", &["loopback", "private"])],
        _ => vec![event_type, test("account_id", &[&format!("account{other}"), "other"])],
    };
    Condition::All(parts)
}

fn engine(rules: usize) -> Engine {
    let rule = |index: usize| Rule {
        id: format!("rule-{index}"),
        title: "a rule".into(),
        severity: Severity::High,
        description: String::new(),
        tags: Vec::new(),
        false_positives: Vec::new(),
        response: String::new(),
        when: condition(index),
        unless: Vec::new(),
        detection: None,
        alert: AlertSpec {
            title: None,
            dedup: FieldPath::parse("account_id").into_iter().collect(),
            quiet: Duration::from_secs(3600),
        },
        tests: Vec::new(),
        event_types: Vec::new(),
        sees_own: false,
        enabled: true,
        span: Span { path: "bench".into(), line: 1, column: 1, len_chars: 1 },
    };
    Engine::new((0..rules).map(rule).collect())
}

fn raw_events() -> Vec<(String, Arc<str>)> {
    (0..EVENTS)
        .map(|index| {
            let mut id = String::new();
            write!(id, "aaaaaaaa-bbbb-cccc-dddd-{index:012}").expect("text");
            (id, raw_event(index))
        })
        .collect()
}

fn run(engine: &Engine, events: &[(String, Arc<str>)], stamp: DateTime<Utc>) -> usize {
    let mut alerts = 0;
    for page in events.chunks(BATCH) {
        let mut batch = engine.batch();
        for (id, raw) in page {
            // A copy of the text is part of the price: it comes out of the body of an answer.
            let event = Event::new(id, stamp, Arc::from(&**raw)).expect("an event");
            batch.step("main", &event, stamp);
        }
        alerts += black_box(batch.finish()).alerts.len();
    }
    alerts
}

/// Nanoseconds that this thread spent on a core. The kernel counts them at its ticks, so samples must be long.
struct CoreTime(WallTime);

/// So that a tick (at most 10 ms) is a few hundredths of a sample.
const SAMPLES: usize = 15;
const MEASURED: Duration = Duration::from_secs(6);

impl CoreTime {
    #[expect(clippy::disallowed_methods, reason = "where the kernel shows the thread's time")]
    fn read() -> u64 {
        let line = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts the time of threads");
        line.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).expect("nanoseconds")
    }
}

impl Measurement for CoreTime {
    type Intermediate = u64;
    type Value = u64;

    fn start(&self) -> u64 {
        Self::read()
    }

    fn end(&self, started: u64) -> u64 {
        Self::read() - started
    }

    fn add(&self, one: &u64, other: &u64) -> u64 {
        one + other
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self.0.formatter()
    }
}

fn throughput(criterion: &mut Criterion<CoreTime>) {
    let events = raw_events();
    let stamp = DateTime::UNIX_EPOCH;
    let mut group = criterion.benchmark_group("events");
    group.sampling_mode(SamplingMode::Flat).sample_size(SAMPLES).measurement_time(MEASURED);
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("parse only", |bencher| {
        bencher.iter(|| {
            for (id, raw) in &events {
                black_box(Event::new(id, stamp, Arc::from(&**raw)).expect("an event"));
            }
        });
    });
    for rules in [1, 10, 100, 1000] {
        let engine = engine(rules);
        assert!(run(&engine, &events, stamp) < EVENTS / 10, "matches are rare");
        group.bench_function(format!("{rules} rules"), |bencher| bencher.iter(|| run(&engine, &events, stamp)));
    }
    group.finish();
}

/// One rule of each detection; every event is its business, and there are 200 users.
const DETECTIONS: [(&str, &str); 9] = [
    ("no detection", ""),
    ("threshold", "threshold: {count: 1000, within: 1h, by: user_id}"),
    ("distinct", "distinct: {field: source_ip, count: 1000, within: 1h, by: user_id}"),
    ("first_seen", "first_seen: {of: source_ip, by: user_id}"),
    ("travel", "travel: {by: user_id, faster_than_kmh: 900, further_than_km: 500}"),
    (
        "sequence",
        "sequence: {within: 1h, by: user_id, steps: [{when: {event_type: APP_*}}, {when: {event_type: NUMBER_*}}]}",
    ),
    ("absence of anything", "absence: {within: 3d, by: user_id}"),
    ("absence after", "absence: {after: {event_type: APP_*}, expect: {event_type: NUMBER_*}, within: 1h, by: user_id}"),
    ("spike", "spike: {ratio: 100, at_least: 1000, window: 1h, baseline: 7d, by: user_id}"),
];

fn detecting(detection: &str) -> Engine {
    let names_its_own = detection.starts_with("sequence") || detection.contains("after");
    let when = if names_its_own { "" } else { "when: {event_type: '*'}" };
    let text = format!(
        "
rules:
  - id: one
    title: One
    severity: low
    {when}
    {detection}
    alert: {{quiet: 30d}}
    tests:
      - {{name: one, events: [{{id: a, event_type: X, created_at: '2026-01-01T00:00:00Z'}}], expect: nothing}}
"
    );
    let file = SourceFile { path: "one.yaml".into(), text: text.into() };
    let mut diagnostics = Diagnostics::default();
    let none = &mut |_: &str, _: &str| Err("no lists".to_owned());
    let rules = rule::load(std::slice::from_ref(&file), none, &mut diagnostics).rules;
    assert_eq!(rules.len(), 1, "{detection}: {diagnostics:?}");
    Engine::new(rules)
}

/// As a source of the usual lateness says it.
const SETTLED_AFTER_S: i64 = 600;

/// Each round lies an hour after the one before, a second between two events, so that windows fill and empty.
fn run_noting(engine: &mut Engine, events: &[(String, Arc<str>)], round: i64) -> usize {
    let mut noted = 0;
    let mut second = round * 3_600;
    for page in events.chunks(BATCH) {
        let mut batch = engine.batch();
        for (id, raw) in page {
            let stamp = DateTime::from_timestamp(1_772_323_200 + second, 0).expect("a stamp");
            let event = Event::new(&format!("{round}-{id}"), stamp, Arc::from(&**raw)).expect("an event");
            batch.step("main", &event, stamp);
            second += 1;
        }
        let settled_s = 1_772_323_200 + second - SETTLED_AFTER_S;
        batch.tick("main", DateTime::from_timestamp(settled_s, 0).expect("a stamp"), None);
        let effects = batch.finish();
        noted += effects.state.len();
        engine.apply(effects.changes);
    }
    noted
}

fn detections(criterion: &mut Criterion<CoreTime>) {
    let events = raw_events();
    let mut group = criterion.benchmark_group("detections");
    group.sampling_mode(SamplingMode::Flat).sample_size(SAMPLES).measurement_time(MEASURED);
    group.throughput(Throughput::Elements(EVENTS as u64));
    for (name, detection) in DETECTIONS {
        let mut engine = detecting(detection);
        assert!(detection.is_empty() || run_noting(&mut engine, &events, 0) > EVENTS / 20, "{name} notes events");
        let mut round = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                round += 1;
                black_box(run_noting(&mut engine, &events, round))
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CoreTime(WallTime));
    targets = throughput, detections
}
criterion_main!(benches);
