//! The tests inside rules: each rule shows what it fires on and what it leaves alone.
//!
//! A test event is partial. What it lacks stays absent, except for `id` and `created_at`, which every event has: the time
//! is fixed (Monday, 5 January 2026, 12:00:00 UTC, a second more for each event), so a test gives the same every day.
//! A test has no address database: what the event writes under `geo` stands for the database's answer.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::alert::Alert;
use crate::diagnostic::{Diagnostics, Span, code};
use crate::engine::Engine;
use crate::event::{Event, GEO, Geo};
use crate::rule::{Expect, Rule, RuleTest};
use crate::text::single_line;
use crate::time::parse_stamp;

/// Time of the first event of a test, in seconds: 2026-01-05T12:00:00Z.
const FIRST_EVENT_AT_S: i64 = 1_767_614_400;
/// The source name that test events come from.
const SOURCE: &str = "test";

/// What came of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestResult {
    /// Which rule.
    pub rule_id: String,
    /// Which test.
    pub name: String,
    /// Where the test stands.
    pub span: Span,
    /// What is wrong and why; `None` when it passed.
    pub failure: Option<Failure>,
}

/// Why a test failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was expected and what came.
    pub message: String,
    /// Why, as far as the engine says it.
    pub detail: Option<String>,
}

/// Runs all tests of a rule, each on an engine of its own. A rule that is switched off is tested as if it were on.
#[must_use]
pub fn run_tests(rule: &Rule) -> Vec<TestResult> {
    let rule = Rule { enabled: true, ..rule.clone() };
    let run = |test: &RuleTest| TestResult {
        rule_id: rule.id.clone(),
        name: test.name.clone(),
        span: test.span.clone(),
        failure: run_test(&rule, test),
    };
    rule.tests.iter().map(run).collect()
}

/// Reports each failed test as an error at its place.
pub fn failures_as_diagnostics(results: &[TestResult], diagnostics: &mut Diagnostics) {
    for result in results {
        if let Some(failure) = &result.failure {
            let message = format!("rule `{}`, test `{}`: {}", result.rule_id, result.name, failure.message);
            let hint = || format!("mend the rule or the test; `vigie explain {} EVENT.json` shows why", result.rule_id);
            diagnostics.error(
                code::TEST_FAILED,
                &result.span,
                message,
                failure.detail.clone().or_else(|| Some(hint())),
            );
        }
    }
}

/// Results in the JUnit form that build servers read: a suite per rule, in order.
#[must_use]
pub fn junit(results: &[TestResult]) -> String {
    let failed = |results: &[TestResult]| results.iter().filter(|result| result.failure.is_some()).count();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    xml.push_str(&format!(
        "<testsuites name=\"vigie\" tests=\"{}\" failures=\"{}\">\n",
        results.len(),
        failed(results)
    ));
    for suite in results.chunk_by(|one, other| one.rule_id == other.rule_id) {
        let Some(first) = suite.first() else {
            continue;
        };
        let rule_id = escaped(&first.rule_id);
        let (tests, failures) = (suite.len(), failed(suite));
        xml.push_str(&format!("  <testsuite name=\"{rule_id}\" tests=\"{tests}\" failures=\"{failures}\">\n"));
        for result in suite {
            let (name, file) = (escaped(&result.name), escaped(&result.span.path));
            let line = result.span.line;
            xml.push_str(&format!(
                "    <testcase classname=\"{rule_id}\" name=\"{name}\" file=\"{file}\" line=\"{line}\""
            ));
            match &result.failure {
                None => xml.push_str("/>\n"),
                Some(failure) => {
                    let message = escaped(&failure.message);
                    let detail = escaped(failure.detail.as_deref().unwrap_or_default());
                    xml.push_str(&format!(
                        ">\n      <failure message=\"{message}\">{detail}</failure>\n    </testcase>\n"
                    ));
                }
            }
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn run_test(rule: &Rule, test: &RuleTest) -> Option<Failure> {
    let engine = Engine::new(vec![rule.clone()]);
    let mut batch = engine.batch();
    let mut last_at = None;
    for (index, fields) in test.events.iter().enumerate() {
        match test_event(index, fields) {
            Ok(event) => {
                // A test is a finite input in order: time goes to each event's stamp and no further.
                batch.tick(SOURCE, event.created_at(), None);
                batch.step(SOURCE, &event, event.created_at());
                last_at = last_at.max(Some(event.created_at()));
            }
            Err(problem) => {
                return Some(Failure { message: format!("event {}: {problem}", index + 1), detail: None });
            }
        }
    }
    if let Some(last_at) = last_at {
        batch.tick(SOURCE, last_at, None);
    }
    let effects = batch.finish();
    if effects.title_failures > 0 {
        // In operation the rule's own title stands in, so this is the only place where its author sees the mistake.
        let alerts = count(effects.alerts.len());
        let message = format!("the title template failed in {} of {alerts}", effects.title_failures);
        return Some(Failure { message, detail: rule.alert.title.as_ref().map(|title| title.text().to_owned()) });
    }
    judge(test.expect, &effects.alerts)
}

fn judge(expect: Expect, alerts: &[Alert]) -> Option<Failure> {
    let wanted = match expect {
        Expect::Alert if !alerts.is_empty() => return None,
        Expect::Nothing if alerts.is_empty() => return None,
        Expect::Alerts(wanted) if alerts.len() == wanted => return None,
        Expect::Alert => "an alert".into(),
        Expect::Nothing => "nothing".into(),
        Expect::Alerts(wanted) => count(wanted),
    };
    let came = if alerts.is_empty() { "nothing".into() } else { count(alerts.len()) };
    let detail = alerts.first().map(why);
    Some(Failure { message: format!("expected {wanted}, got {came}"), detail })
}

fn count(alerts: usize) -> String {
    if alerts == 1 { "1 alert".into() } else { format!("{alerts} alerts") }
}

/// The reasons of an alert in one line.
fn why(alert: &Alert) -> String {
    let reasons: Vec<String> = alert
        .reason
        .iter()
        .map(|reason| {
            let actual = reason.actual.as_ref().map_or("nothing".into(), |actual| actual.single_line(80));
            format!("{} {} {} (it was {actual})", reason.field, reason.operator, reason.expected)
        })
        .collect();
    let found = alert.finding.as_ref().map(|finding| format!("{}; ", finding.summary.single_line(200)));
    let found = found.unwrap_or_default();
    if reasons.is_empty() {
        "it matched every event".into()
    } else {
        format!("{found}it matched: {}", reasons.join(", "))
    }
}

fn test_event(index: usize, fields: &Value) -> Result<Event, String> {
    let Value::Object(fields) = fields else {
        return Err("it is no map of fields".into());
    };
    let mut fields = fields.clone();
    let geo = fields.remove(GEO).map(|geo| Geo::from_json(&geo)).transpose()?;
    let id = match fields.get("id") {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        _ => format!("test-{}", index + 1),
    };
    let created_at = match fields.get("created_at") {
        Some(Value::String(text)) => parse_stamp(text).map_err(|problem| format!("`created_at`: {problem}"))?,
        Some(_) => return Err("`created_at` is no time stamp".into()),
        None => default_time(index).ok_or("it is too far in the list")?,
    };
    fields.insert("id".into(), Value::String(id.clone()));
    if !fields.contains_key("created_at") {
        let stamp = created_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        fields.insert("created_at".into(), Value::String(stamp));
    }
    let raw: Arc<str> = Value::Object(fields).to_string().into();
    let event = Event::new(&id, created_at, raw).map_err(|error| format!("it is no event: {error:?}"))?;
    Ok(match geo {
        Some(geo) => event.with_geo(&geo),
        None => event,
    })
}

fn default_time(index: usize) -> Option<DateTime<Utc>> {
    let offset = TimeDelta::try_seconds(i64::try_from(index).ok()?)?;
    DateTime::from_timestamp(FIRST_EVENT_AT_S, 0)?.checked_add_signed(offset)
}

/// Text for XML 1.0: control characters, which XML cannot hold, become visible escapes.
fn escaped(text: &str) -> String {
    const MAX_CHARS: usize = 2_000;
    single_line(text, MAX_CHARS).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
