//! How an alert is written for programs: the Alert JSON (`vigie/alert/v1`), and the schemas of others made from it. One
//! place decides for all of them what is left out where there is no room.
//!
//! The raw event goes in as it came, so that numbers keep their digits; only white space between its tokens goes, because
//! a line is an alert. It never lets a character through that steers a terminal: such characters can stand in JSON only
//! within strings, where `\u` escapes mean the same. Half a surrogate pair becomes U+FFFD, because strict readers refuse
//! the whole document for it, and whoever caused the event could keep the alert from them that way.

mod cloudevents;
mod ecs;
pub mod facts;
mod ocsf;

use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use vigie_engine::alert::{Alert, AlertRule, Reason};
use vigie_engine::state::Finding;
use vigie_engine::text::{Untrusted, is_unsafe};

use super::text::Extent;
use super::update::{Update, update_json};
use super::{Delivery, Form, RenderContext, RenderError};
use crate::options::{OptionKind, OptionSpec, Options, Presence};

/// Version of the shape; a consumer matches on it.
pub const SCHEMA: &str = "vigie/alert/v1";
/// Longest text of an event (title, key, actual value) in a lean rendering: enough to judge, small enough for any limit.
pub const MAX_LEAN_TEXT_CHARS: usize = 256;
/// Event ids in a lean rendering.
pub const MAX_LEAN_EVENT_IDS: usize = 10;
/// Reasons in a lean rendering.
pub const MAX_LEAN_REASONS: usize = 20;
/// The option of a sink whose body is free and that has no headers.
pub const FORMAT: OptionSpec = format_of(&["native", "ecs", "ocsf", "cloudevents"]);
/// The option of a sink that also has headers.
pub const FORMAT_WITH_HEADERS: OptionSpec = format_of(&["native", "ecs", "ocsf", "cloudevents", "cloudevents-binary"]);

/// The option `format` with these words.
#[must_use]
pub const fn format_of(words: &'static [&'static str]) -> OptionSpec {
    OptionSpec {
        name: "format",
        kind: OptionKind::Choice(words),
        presence: Presence::Default("native"),
        help: "shape of the JSON: Vigie's own (native), Elastic Common Schema, OCSF Detection Finding, or CloudEvents",
    }
}

/// In which shape an alert goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The Alert JSON.
    Native,
    /// Elastic Common Schema 8.
    Ecs,
    /// A Detection Finding of OCSF.
    Ocsf,
    /// The Alert JSON inside a CloudEvent.
    CloudEvents,
    /// The Alert JSON, and a CloudEvent's attributes as headers.
    CloudEventsBinary,
}

/// What a sink writes that serves people as well as programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Plain text.
    Text,
    /// JSON on one line.
    Json(Format),
}

impl Shape {
    /// What the option `format` says; its word for the Alert JSON is `json` here.
    #[must_use]
    pub fn of(options: &Options) -> Self {
        if options.text(FORMAT.name) == Some("text") { Self::Text } else { Self::Json(Format::of(options)) }
    }
}

impl Format {
    /// What the option [`FORMAT`] says; native where a sink has none.
    #[must_use]
    pub fn of(options: &Options) -> Self {
        match options.text(FORMAT.name) {
            Some("ecs") => Self::Ecs,
            Some("ocsf") => Self::Ocsf,
            Some("cloudevents") => Self::CloudEvents,
            Some("cloudevents-binary") => Self::CloudEventsBinary,
            _ => Self::Native,
        }
    }

    /// The alert on one line, without a line feed at its end, in at most `max_bytes` if that can be had by leaving out the
    /// ready-made exception, the events behind the finding, the raw event, or by shortening texts; the lean form at once
    /// when the context asks for plain. That the event was left out is marked by `event_omitted`; an alert is never refused
    /// for its size.
    ///
    /// # Errors
    /// When the raw event cannot be encoded.
    pub fn alert(self, alert: &Alert, context: &RenderContext<'_>, max_bytes: usize) -> Result<Vec<u8>, RenderError> {
        let encode = |json: &AlertJson<'_>| self.encode(json, alert, context);
        match context.form {
            Form::Full => within(alert, context.delivery_id, max_bytes, encode),
            Form::Plain => lean(alert, context.delivery_id, Omitted::of(alert, 0), encode),
        }
    }

    /// An update or a closing note on one line, without a line feed at its end; short by itself.
    ///
    /// # Errors
    /// Never for an alert made by the engine; the type is that of rendering.
    pub fn update(self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let native = update_json(update, context.delivery_id)?;
        let own = || serde_json::from_slice::<Value>(&native).map_err(|error| RenderError(error.to_string()));
        let text = match self {
            Self::Native | Self::CloudEventsBinary => return Ok(native),
            Self::Ecs => pruned(ecs::update(update, context, own()?)).to_string(),
            Self::Ocsf => pruned(ocsf::update(update, context, own()?)).to_string(),
            Self::CloudEvents => cloudevents::structured(&native)?,
        };
        Ok(escape_unsafe(text).into_bytes())
    }

    /// Type of the body, as a header names it.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::CloudEvents => "application/cloudevents+json; charset=utf-8",
            Self::Native | Self::Ecs | Self::Ocsf | Self::CloudEventsBinary => "application/json",
        }
    }

    /// Headers of the request beside its body: of a CloudEvent in binary mode its attributes. None for a body that was
    /// rendered in another format, before the configuration changed.
    #[must_use]
    pub fn headers(self, delivery: &Delivery) -> Vec<(&'static str, String)> {
        if self == Self::CloudEventsBinary { cloudevents::headers(&delivery.body) } else { Vec::new() }
    }

    fn encode(self, json: &AlertJson<'_>, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let text = match self {
            Self::Native | Self::CloudEventsBinary => return native(json),
            Self::Ecs => pruned(ecs::alert(json, alert, context)).to_string(),
            Self::Ocsf => pruned(ocsf::alert(json, alert, context)).to_string(),
            Self::CloudEvents => cloudevents::structured(&native(json)?)?,
        };
        Ok(escape_unsafe(text).into_bytes())
    }
}

/// The Alert JSON on one line, without a line feed at its end.
///
/// # Errors
/// When the raw event cannot be encoded.
pub fn alert_json(alert: &Alert, delivery_id: &str) -> Result<Vec<u8>, RenderError> {
    within(alert, delivery_id, usize::MAX, native)
}

/// The Alert JSON within a budget, as [`Format::alert`] does it.
///
/// # Errors
/// When the raw event cannot be encoded.
pub fn alert_json_within(alert: &Alert, delivery_id: &str, max_bytes: usize) -> Result<Vec<u8>, RenderError> {
    within(alert, delivery_id, max_bytes, native)
}

/// The least that still says what happened: no raw event, short texts.
///
/// # Errors
/// Never for an alert made by the engine; the type is that of rendering.
pub fn lean_alert_json(alert: &Alert, delivery_id: &str) -> Result<Vec<u8>, RenderError> {
    lean(alert, delivery_id, Omitted::of(alert, 0), native)
}

/// The raw event on one inert line.
///
/// # Errors
/// When it cannot be encoded.
pub(super) fn event_json(alert: &Alert) -> Result<String, RenderError> {
    compact(alert.event.get()).map(|event| escape_unsafe(event.get().to_owned()))
}

/// A stored JSON object with one more member, as its first: what must not be stored, or may be mended meanwhile.
#[must_use]
pub fn with_member(object: &[u8], name: &str, value: &str) -> Vec<u8> {
    let member = format!("{{{}:{},", Value::from(name), Value::from(value));
    let rest = object.strip_prefix(b"{").unwrap_or(object);
    [member.as_bytes(), rest].concat()
}

/// A stamp as the Alert JSON writes it.
#[must_use]
pub fn stamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

#[derive(Clone, Serialize)]
struct AlertJson<'a> {
    schema: &'static str,
    alert_id: &'a str,
    delivery_id: &'a str,
    rule: &'a AlertRule,
    source: &'a str,
    account_id: Option<&'a Untrusted>,
    title: &'a Untrusted,
    first_at: String,
    last_at: String,
    count: u64,
    late: Option<i64>,
    key: Key<'a>,
    reason: &'a [Reason],
    #[serde(skip_serializing_if = "Option::is_none")]
    finding: Option<&'a Finding>,
    event: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_omitted: Option<Omitted>,
    events: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    exception: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

/// What an alert says beyond itself, as far as there is room.
struct Parts {
    finding: Option<Finding>,
    exception: Option<String>,
}

#[derive(Clone, Copy, Serialize)]
struct Omitted {
    bytes: usize,
    limit_bytes: usize,
}

impl Omitted {
    fn of(alert: &Alert, limit_bytes: usize) -> Self {
        Self { bytes: alert.event.get().len(), limit_bytes }
    }
}

#[derive(Clone, Copy)]
struct Key<'a>(&'a [(String, Untrusted)]);

impl Serialize for Key<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (field, value) in self.0 {
            map.serialize_entry(field, value)?;
        }
        map.end()
    }
}

impl Parts {
    fn new(alert: &Alert, extent: Extent) -> Self {
        let mut finding = alert.finding.clone();
        if let Some(finding) = finding.as_mut().filter(|_| extent == Extent::Summary) {
            finding.evidence.clear();
        }
        Self { finding, exception: extent.exception(alert) }
    }

    fn json<'a>(&'a self, alert: &'a Alert, delivery_id: &'a str, event: Option<&'a RawValue>) -> AlertJson<'a> {
        AlertJson {
            schema: SCHEMA,
            alert_id: &alert.alert_id,
            delivery_id,
            rule: &alert.rule,
            source: &alert.source,
            account_id: alert.account_id.as_ref(),
            title: &alert.title,
            first_at: stamp(alert.first_at),
            last_at: stamp(alert.last_at),
            count: alert.count,
            late: alert.late,
            key: Key(&alert.key),
            reason: &alert.reason,
            finding: self.finding.as_ref(),
            event,
            event_omitted: None,
            events: &alert.events,
            exception: self.exception.as_deref(),
            note: alert.note.as_deref(),
        }
    }
}

/// The most of an alert that fits, by whatever way it is encoded.
fn within(
    alert: &Alert,
    delivery_id: &str,
    max_bytes: usize,
    encode: impl Fn(&AlertJson<'_>) -> Result<Vec<u8>, RenderError>,
) -> Result<Vec<u8>, RenderError> {
    let event = compact(alert.event.get())?;
    let omitted = Omitted::of(alert, max_bytes);
    for event in [Some(&*event), None] {
        for extent in Extent::ALL {
            let parts = Parts::new(alert, extent);
            let mut json = parts.json(alert, delivery_id, event);
            json.event_omitted = event.is_none().then_some(omitted);
            let encoded = encode(&json)?;
            if encoded.len() <= max_bytes {
                return Ok(encoded);
            }
        }
    }
    lean(alert, delivery_id, omitted, encode)
}

fn lean(
    alert: &Alert,
    delivery_id: &str,
    omitted: Omitted,
    encode: impl Fn(&AlertJson<'_>) -> Result<Vec<u8>, RenderError>,
) -> Result<Vec<u8>, RenderError> {
    let short = |text: &Untrusted| Untrusted::new(shorten(text.as_raw(), MAX_LEAN_TEXT_CHARS));
    let account_id = alert.account_id.as_ref().map(short);
    let title = short(&alert.title);
    let key: Vec<_> = alert.key.iter().map(|(field, value)| (field.clone(), short(value))).collect();
    let reason: Vec<_> = alert
        .reason
        .iter()
        .take(MAX_LEAN_REASONS)
        .map(|reason| Reason {
            expected: shorten(&reason.expected, MAX_LEAN_TEXT_CHARS),
            actual: reason.actual.as_ref().map(short),
            ..reason.clone()
        })
        .collect();
    let mut parts = Parts::new(alert, Extent::Summary);
    if let Some(finding) = &mut parts.finding {
        finding.summary = short(&finding.summary);
    }
    let mut json = parts.json(alert, delivery_id, None);
    json.account_id = account_id.as_ref();
    json.title = &title;
    json.key = Key(&key);
    json.reason = &reason;
    json.event_omitted = Some(omitted);
    json.events = alert.events.get(..MAX_LEAN_EVENT_IDS).unwrap_or(&alert.events);
    encode(&json)
}

/// Cut to `max_chars`, the cut marked; for encoders that escape by themselves.
fn shorten(text: &str, max_chars: usize) -> String {
    if text.chars().nth(max_chars).is_none() {
        return text.to_owned();
    }
    text.chars().take(max_chars.saturating_sub(1)).chain(['…']).collect()
}

fn native(json: &AlertJson<'_>) -> Result<Vec<u8>, RenderError> {
    let text = serde_json::to_string(json).map_err(|error| RenderError(error.to_string()))?;
    Ok(escape_unsafe(text).into_bytes())
}

/// The alert for a place below the schema of another: without the raw event, which that schema has a place for as text, and
/// the key as a list. The names of fields in both are the event's, and as members they would be fields of an index, whose
/// kinds contradict each other from one event to the next.
fn own(json: &AlertJson<'_>) -> Value {
    let mut own = serde_json::to_value(AlertJson { event: None, ..json.clone() }).unwrap_or_default();
    own["key"] = json.key.0.iter().map(|(field, value)| json!({"field": field, "value": value})).collect();
    own
}

/// Without the members that say nothing.
fn pruned(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| (name, pruned(value)));
            Value::Object(members.filter(|(_, value)| !says_nothing(value)).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(pruned).collect()),
        other => other,
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// JSON for any reader and any terminal: pairs of surrogates are whole, and nothing in it steers.
#[must_use]
pub fn inert_json(json: &str) -> String {
    escape_unsafe(whole_pairs(json))
}

/// What `is_unsafe` names beyond ASCII, and DEL, become `\u` escapes, which mean the same; every encoder of JSON did that to
/// the other control characters.
fn escape_unsafe(json: String) -> String {
    let steers = |character: char| is_unsafe(character) && !is_json_space(character);
    if !json.chars().any(steers) {
        return json;
    }
    let mut inert = String::with_capacity(json.len() + 64);
    for character in json.chars() {
        if steers(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                write!(inert, "\\u{unit:04x}").unwrap_or_default();
            }
        } else {
            inert.push(character);
        }
    }
    inert
}

/// JSON without the white space between its tokens.
fn compact(json: &str) -> Result<Box<RawValue>, RenderError> {
    let mut compacted = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for character in json.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if is_json_space(character) {
            continue;
        } else {
            in_string = character == '"';
        }
        compacted.push(character);
    }
    RawValue::from_string(whole_pairs(&compacted)).map_err(|error| RenderError(error.to_string()))
}

/// Between tokens only: within strings JSON allows none of these but the space.
fn is_json_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r')
}

/// The escapes of surrogates that are not in pairs replaced.
pub(super) fn whole_pairs(json: &str) -> String {
    const PAIR_BYTES: usize = r"ud83d\ude00".len();
    let mut whole = String::with_capacity(json.len());
    let mut rest = json;
    while let Some((before, escape)) = rest.split_once('\\') {
        let low = escape.get(5..).and_then(|after| code_unit(after.strip_prefix('\\')?));
        let (length, replaced) = match (code_unit(escape), low) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (PAIR_BYTES, false),
            (Some(0xd800..=0xdfff), _) => ("ud83d".len(), true),
            _ => (1, false),
        };
        let (kept, after) = escape.split_at_checked(length).unwrap_or((escape, ""));
        whole.push_str(before);
        whole.push('\\');
        whole.push_str(if replaced { "ufffd" } else { kept });
        rest = after;
    }
    whole.push_str(rest);
    whole
}

/// Of an escape without its backslash.
fn code_unit(escape: &str) -> Option<u16> {
    u16::from_str_radix(escape.strip_prefix('u')?.get(..4)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::super::update::Told;
    use super::*;
    use crate::clock::Clock as _;
    use crate::sink::contract::{
        HOSTILE, StoppedClock, alert_titled, make_hostile, make_long, stateful_alert, update_of,
    };

    const ALL: [Format; 5] =
        [Format::Native, Format::Ecs, Format::Ocsf, Format::CloudEvents, Format::CloudEventsBinary];

    pub(super) fn context() -> RenderContext<'static> {
        RenderContext { delivery_id: "d1", now: StoppedClock.now(), form: Form::Full }
    }

    pub(super) fn read(json: Vec<u8>) -> Value {
        serde_json::from_slice(&json).expect("JSON")
    }

    pub(super) fn update(format: Format) -> Vec<u8> {
        update_told(format, Told::More)
    }

    pub(super) fn update_told(format: Format, told: Told) -> Vec<u8> {
        let context = RenderContext { delivery_id: "d2", ..context() };
        format.update(&update_of(&alert_titled("t"), told), &context).expect("renders")
    }

    #[test]
    fn hostile_text_survives_every_format_and_steers_nothing() {
        let mut hostile = stateful_alert();
        make_hostile(&mut hostile, HOSTILE);
        (hostile.title, hostile.account_id) = (Untrusted::new(HOSTILE), Some(Untrusted::new(HOSTILE)));
        hostile.events = vec![HOSTILE.into()];
        for format in ALL {
            for form in [Form::Full, Form::Plain] {
                let context = RenderContext { form, ..context() };
                let shown = text(format.alert(&hostile, &context, usize::MAX).expect("renders"));
                assert!(!shown.chars().any(is_unsafe), "{format:?} {shown}");
                let titled = serde_json::from_str::<Value>(&shown).expect("JSON").to_string();
                assert!(titled.contains(&json!(HOSTILE).to_string()), "{format:?}: {titled}");
            }
            let context = RenderContext { delivery_id: "d2", ..context() };
            let shown = text(format.update(&update_of(&hostile, Told::More), &context).expect("renders"));
            assert!(!shown.chars().any(is_unsafe), "{format:?} {shown}");
        }
    }

    #[test]
    fn every_format_keeps_to_its_budget_in_the_same_order() {
        let alert = stateful_alert();
        for format in ALL {
            let sized = |max_bytes| format.alert(&alert, &context(), max_bytes).expect("renders");
            let has = |json: &[u8]| {
                let json = String::from_utf8_lossy(json).into_owned();
                ["- {when", "192.0.2.9", "source_country"].map(|part| json.contains(part))
            };
            let mut json = sized(usize::MAX);
            assert_eq!(has(&json), [true; 3], "{format:?}");
            assert_eq!(sized(json.len()), json, "{format:?}: at the limit nothing goes");
            let mut seen = Vec::new();
            for _ in 0..3 {
                let limit = json.len() - 1;
                json = sized(limit);
                assert!(json.len() <= limit, "{format:?}");
                let [exception, ..] = has(&json);
                assert!(!exception, "{format:?}: the exception goes first");
                seen.push(String::from_utf8_lossy(&json).contains("event_omitted"));
            }
            assert_eq!(seen, [false, false, true], "{format:?}: the raw event goes last");
            let mut long = stateful_alert();
            make_long(&mut long, "\u{202e}");
            long.title = Untrusted::new("\u{202e}".repeat(5_000));
            let lean = format.alert(&long, &context(), 4_096).expect("renders");
            assert!(lean.len() < 20_000, "{format:?}: {} bytes, bounded whatever comes", lean.len());
        }
    }

    fn text(json: Vec<u8>) -> String {
        String::from_utf8(json).expect("UTF-8")
    }

    #[test]
    fn the_shape_is_that_of_the_contract() {
        let shown = text(alert_json(&alert_titled("t"), "d1").expect("encodes"));
        let expected = concat!(
            r#"{"schema":"vigie/alert/v1","alert_id":"0123456789abcdef0123456789abcdef","delivery_id":"d1","#,
            r#""rule":{"id":"change-from-unexpected-country","title":"Change from an unexpected country","#,
            r#""severity":"high","tags":["attack.t1078.004"],"#,
            r#""response":"Call the user.\nIf it was not them, revoke the key."},"#,
            r#""source":"main","account_id":"abcd1234","title":"t","first_at":"2026-03-04T05:00:00Z","#,
            r#""last_at":"2026-03-04T05:01:01Z","count":3,"late":7260,"key":{"actor":"bob@example.org"},"#,
            r#""reason":[{"field":"source_country","operator":"not in","expected":"GB, IE","actual":"KP"},"#,
            r#"{"field":"user_email","operator":"exists","expected":"false","actual":null}],"#,
            r#""event":{"id":"e-1","n":12345678901234567890123,"f":1.10,"s":"a  b\" c"},"events":["e-1","e-2"]}"#,
        );
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_finding_and_an_exception_are_fields_of_their_own() {
        let shown = text(alert_json(&stateful_alert(), "d1").expect("encodes"));
        let finding = concat!(
            r#""finding":{"detection":"distinct","summary":"2 countries of bob@example.org within 1h","evidence":["#,
            r#"{"at":"2026-03-04T04:59:00Z","event_id":"e-0","event_type":"USER_LOGIN","source_ip":"192.0.2.9","#,
            r#""source_country":"GB","note":"GB"},"#,
            r#"{"at":"2026-03-04T05:00:00Z","event_id":"e-1","source_country":"KP"}]},"event":{"id":"e-1","#,
        );
        assert!(shown.contains(finding), "{shown}");
        let read: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(read["exception"].as_str(), stateful_alert().exception().as_deref());
        let mut hostile = stateful_alert();
        make_hostile(&mut hostile, HOSTILE);
        let shown = text(alert_json(&hostile, "d1").expect("encodes"));
        assert!(!shown.chars().any(is_unsafe), "{shown}");
        let read: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(read["finding"]["evidence"][0]["note"], HOSTILE);
    }

    #[test]
    fn what_does_not_fit_is_left_out_exception_first_and_not_in_vain() {
        let alert = stateful_alert();
        let parts = |max_bytes: usize| {
            let json = alert_json_within(&alert, "d1", max_bytes).expect("encodes");
            let read: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
            let evidence = read["finding"]["evidence"].as_array().is_some_and(|evidence| !evidence.is_empty());
            let has = (read["exception"].is_string(), evidence, read["event"].is_object());
            (json.len(), has)
        };
        let (mut bytes, mut has) = parts(usize::MAX);
        assert_eq!(has, (true, true, true));
        for expected in [(false, true, true), (false, false, true), (false, false, false)] {
            (bytes, has) = parts(bytes - 1);
            assert_eq!(has, expected);
        }
        let mut alert = stateful_alert();
        let event =
            serde_json::json!({"user_email": "bob@example.org", "source_country": "KP", "x": "y".repeat(9_000)});
        alert.event = RawValue::from_string(event.to_string()).expect("valid");
        let json = text(alert_json_within(&alert, "d1", 4_096).expect("encodes"));
        assert!(
            json.contains("\"exception\":\"- {when") && json.contains("USER_LOGIN"),
            "only the event was in the way"
        );
        make_long(&mut alert, "\u{202e}");
        let lean = alert_json_within(&alert, "d1", 4_096).expect("encodes");
        assert!(lean.len() < 16_384 && text(lean).contains(r#""evidence":[]"#), "bounded whatever comes");
    }

    #[test]
    fn hostile_text_survives_as_json_and_is_inert_as_bytes() {
        let mut alert = alert_titled(HOSTILE);
        let raw = format!("{{\"u\":\"\u{7f}\u{9b}2J\u{202e}\u{e0041}\", \"v\": {}}}", serde_json::json!(HOSTILE));
        alert.event = RawValue::from_string(raw).expect("valid");
        let shown = text(alert_json(&alert, "d1").expect("encodes"));
        assert!(!shown.chars().any(is_unsafe), "{shown}");
        let read: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(read["title"], HOSTILE);
        assert_eq!(read["event"]["v"], HOSTILE);
        assert_eq!(read["event"]["u"], "\u{7f}\u{9b}2J\u{202e}\u{e0041}");
    }

    #[test]
    fn half_a_pair_keeps_no_reader_from_the_rest() {
        for (json, expected) in [
            (r#"{"a":"\ud83d"}"#, r#"{"a":"\ufffd"}"#),
            (r#"{"a":"\uDE00x\ud83d\ud83d\ude00"}"#, r#"{"a":"\ufffdx\ufffd\ud83d\ude00"}"#),
            (r#"{"a":"\ud83d\n\\ud83d\u00e9é"}"#, r#"{"a":"\ufffd\n\\ud83d\u00e9é"}"#),
        ] {
            let whole = compact(json).expect("valid");
            assert_eq!(whole.get(), expected);
            serde_json::from_str::<serde_json::Value>(whole.get()).expect("for strict readers");
        }
    }

    #[test]
    fn white_space_goes_only_between_tokens() {
        let spaced = "\r\n{ \"a b\" :\t[ 1 , \"\\\\\", \"\\\" \" ] }\n";
        assert_eq!(compact(spaced).expect("valid").get(), r#"{"a b":[1,"\\","\" "]}"#);
    }
}
