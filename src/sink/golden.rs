//! What every kind writes, byte for byte, beside what it was made from: `tests/golden/<kind>/<format>.txt`.
//!
//! It sends nothing. `VIGIE_GOLDEN=write` writes the files anew; what changed in them is then for a person to read. Bytes are
//! shown as the characters that they are, and what nobody could see as ⟨1b⟩: two bodies never look alike. Of a long body the
//! file has length, digest, beginning and end.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::value::RawValue;
use vigie_engine::alert::Alert;
use vigie_engine::text::{Untrusted, is_unsafe};

use super::bound::Unit;
use super::contract::{HOSTILE, StoppedClock, alert_titled, context, make_hostile, stateful_alert, update_of};
use super::every::{Every, all};
use super::update::Told;
use super::{Form, RenderContext, Sink};
use crate::clock::Clock as _;

/// Astral characters, text from right to left with and without marks, a character of several.
const FOREIGN: &str = "𝔘𝔫𝔦 😀👩🏽‍💻 שָׁלוֹם مرحبا بالعالم 𠜎 é";
/// A body beyond this is shown by its digest; one that is at a limit already beyond the second, for it is padding.
const MAX_SHOWN_BYTES: usize = 4 * 1024;
const MAX_SHOWN_PADDED_BYTES: usize = 1024;
/// How much is shown of such a body, at either end.
const END_CHARS: usize = 200;
/// All files together.
const MAX_GOLDEN_BYTES: u64 = 600 << 10;

/// Where a text grows.
#[derive(Clone, Copy)]
enum Pad {
    Title,
    /// A field of the event.
    Event,
    /// Key fields of 150 characters, as many as it takes.
    Key,
    /// Lines of 150 characters of the rule's response.
    Response,
}

/// What it grows by: a byte, a character beyond the basic plane, one from right to left. They differ in bytes, UTF-16 units and
/// characters, so a limit in one of these is none in another.
const PADDING: [char; 3] = ['a', '🦀', 'ש'];

type Measure = fn(&[u8]) -> usize;

/// A limit that a kind documents.
struct Limit {
    what: &'static str,
    unit: Unit,
    most: usize,
    /// Where a text grows up to it, in this form.
    pad: Pad,
    form: Form,
    /// How much of it is always kept for something else.
    kept: usize,
    measure: Measure,
}

const fn of(what: &'static str, unit: Unit, most: usize, pad: Pad, kept: usize, measure: Measure) -> Limit {
    Limit { what, unit, most, pad, form: Form::Full, kept, measure }
}

/// Or why there is none.
fn limits(kind: &str) -> Result<Vec<Limit>, &'static str> {
    let one = match kind {
        "stdout" => of("title", Unit::Chars, 200, Pad::Title, 0, |body| text(body).lines().next().map_or(0, chars) - 9),
        "file" => return Err("a line of a file may have any length"),
        "exec" => return Err("a pipe takes whatever the program reads"),
        "webhook" | "tines" => of("body", Unit::Bytes, 20_000, Pad::Event, 0, <[u8]>::len),
        "email" => of("title in the subject", Unit::Chars, 200, Pad::Title, 0, subject_chars),
        "slack" | "slack_bot" => return Ok(slack()),
        "teams" => of("message", Unit::Bytes, 28 * 1024, Pad::Key, 0, <[u8]>::len),
        "discord" => of("content", Unit::Utf16, 2_000, Pad::Key, 48, |body| units(body, "/content")),
        "mattermost" => of("text", Unit::Utf16, 4_000, Pad::Key, 48, |body| units(body, "/text")),
        "google_chat" => of("text", Unit::Bytes, 32_000, Pad::Key, 48, |body| string(body, "/text").len()),
        "telegram" => of("text", Unit::Utf16, 4_096, Pad::Key, 48, |body| units(body, "/text")),
        // A title of 200 characters and its severity: PagerDuty's 1,024 are never reached.
        "pagerduty" => of("summary", Unit::Chars, 206, Pad::Title, 0, |body| chars(&string(body, "/payload/summary"))),
        "splunk_hec" => of("event", Unit::Bytes, 10_000, Pad::Event, 0, |body| {
            let (head, _) = text(body).split_once("\"event\":").expect("an envelope");
            body.len() - head.len() - "\"event\":}".len()
        }),
        "elasticsearch" => of("document", Unit::Bytes, 1 << 20, Pad::Event, 1, <[u8]>::len),
        "jira" => of("description", Unit::Utf16, 32_767, Pad::Key, 64, |body| units(body, "/description")),
        "servicenow" => {
            of("short description", Unit::Chars, 160, Pad::Title, 0, |body| chars(&string(body, "/short_description")))
        }
        // As with PagerDuty: TheHive takes 512 of a title and a mebibyte of a description.
        "thehive" => of("title", Unit::Chars, 206, Pad::Title, 0, |body| chars(&string(body, "/title"))),
        "syslog" => of("message", Unit::Bytes, 8 << 10, Pad::Event, 0, <[u8]>::len),
        "nats" => of("payload", Unit::Bytes, (1 << 20) - (1 << 10), Pad::Event, 0, <[u8]>::len),
        "alertmanager" => {
            of("description", Unit::Bytes, 16 << 10, Pad::Key, 1, |body| string(body, "/annotations/description").len())
        }
        "sqs" => of("message with its attributes", Unit::Bytes, 256 << 10, Pad::Event, 0, |body| {
            let body: Value = serde_json::from_slice(body).expect("JSON");
            let attributes = body["MessageAttributes"].as_object().expect("attributes");
            let sizes = attributes
                .iter()
                .map(|(name, value)| name.len() + "String".len() + value["StringValue"].as_str().map_or(0, str::len));
            body["MessageBody"].as_str().map_or(0, str::len) + sizes.sum::<usize>()
        }),
        "sns" => {
            of("message with its attributes and 99 of the subject", Unit::Bytes, 256 << 10, Pad::Event, 0, |body| {
                let body: Value = serde_json::from_slice(body).expect("JSON");
                let attributes = body["attributes"].as_array().expect("attributes");
                let sizes = attributes.iter().map(|pair| {
                    pair[0].as_str().map_or(0, str::len) + "String".len() + pair[1].as_str().map_or(0, str::len)
                });
                body["message"].as_str().map_or(0, str::len) + 99 + sizes.sum::<usize>()
            })
        }
        other => panic!("nobody has said what the limit of `{other}` is"),
    };
    Ok(vec![one])
}

fn slack() -> Vec<Limit> {
    vec![
        of("header", Unit::Utf16, 150, Pad::Title, 0, |body| units(body, "/blocks/0/text/text")),
        of("section", Unit::Utf16, 3_000, Pad::Response, 0, |body| {
            let body: Value = serde_json::from_slice(body).expect("JSON");
            let blocks = body["blocks"].as_array().into_iter().flatten();
            let mut sections = blocks.filter_map(|block| block["text"]["text"].as_str());
            sections.find(|text| text.starts_with("What to do")).map_or(0, |text| Unit::Utf16.of(text))
        }),
        Limit { form: Form::Plain, ..of("text", Unit::Utf16, 3_000, Pad::Key, 48, |body| units(body, "/text")) },
    ]
}

fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).expect("UTF-8")
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

fn string(body: &[u8], pointer: &str) -> String {
    let body: Value = serde_json::from_slice(body).expect("JSON");
    body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn units(body: &[u8], pointer: &str) -> usize {
    string(body, pointer).encode_utf16().count()
}

/// Without the severity. A long subject goes over several lines, and what is beyond ASCII (the mark of a cut) is encoded.
fn subject_chars(body: &[u8]) -> usize {
    let unfolded = text(body).replace("\r\n ", " ");
    let subject = unfolded.lines().find_map(|line| line.strip_prefix("Subject: ")).expect("a subject");
    let encoded = |word: &str| {
        let word = word.strip_prefix("=?utf-8?b?")?.strip_suffix("?=")?;
        String::from_utf8(STANDARD.decode(word).expect("Base64")).ok()
    };
    let (mut shown, mut was_encoded) = (String::new(), false);
    for word in subject.split(' ') {
        let decoded = encoded(word);
        let is_encoded = decoded.is_some();
        shown.push_str(if shown.is_empty() || (was_encoded && is_encoded) { "" } else { " " });
        shown.push_str(&decoded.unwrap_or_else(|| word.to_owned()));
        was_encoded = is_encoded;
    }
    chars(&shown) - "[HIGH] ".len()
}

/// The alert whose text at that place is `count` of that character longer, with a title of `title` before.
fn padded(pad: Pad, with: char, title: usize, count: usize) -> Alert {
    let words = |with: char, count: usize| -> String {
        (1..=count).map(|at| if at % 8 == 0 && at < count { ' ' } else { with }).collect()
    };
    let run = |count: usize| -> String { std::iter::repeat_n(with, count).collect() };
    let parts = || std::iter::repeat_n(150, count / 150).chain(Some(count % 150).filter(|rest| *rest > 0)).map(run);
    let mut alert = alert_titled(&words('a', title));
    match pad {
        Pad::Title => alert.title = Untrusted::new(words('a', title) + &words(with, count)),
        Pad::Event => {
            let event = format!("{{\"id\":\"e-1\",\"s\":\"{}\"}}", run(count));
            alert.event = RawValue::from_string(event).expect("JSON");
        }
        Pad::Key => alert.key = parts().map(|part| ("k".to_owned(), Untrusted::new(part))).collect(),
        Pad::Response => alert.rule.response = parts().collect::<Vec<_>>().join("\n"),
    }
    alert
}

fn rendered(sink: &dyn Sink, alert: &Alert, form: Form) -> Vec<u8> {
    let context = RenderContext { delivery_id: DELIVERY_ID, now: StoppedClock.now(), form };
    sink.render(alert, &context).expect("renders")
}

/// As long as a real one.
const DELIVERY_ID: &str = "d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1";

/// The alert that is at the limit and the next longer one, by the most that is measured over some lengths of the title.
fn at_and_over(sink: &dyn Sink, limit: &Limit, with: char) -> (Alert, Alert) {
    let (most, padded) = (limit.most, |title, count| padded(limit.pad, with, title, count));
    let measured = |title, count| (limit.measure)(&rendered(sink, &padded(title, count), limit.form));
    let mut best = (0, 0, 0);
    let width = limit.unit.of(&with.to_string());
    let kept = limit.kept + width - 1;
    for title in (20..160).step_by(7) {
        let (mut count, mut now) = (0, measured(title, 0));
        // A character more costs at least its width. Where it begins a line, which may not fit any more, another title may do.
        let mut step = (most - now) / width;
        while step > 0 {
            let next = measured(title, count + step);
            assert!(next <= most, "{}: {next}, and {most} are the limit", sink.kind());
            if next >= now + step * width {
                (count, now) = (count + step, next);
                step = (most - now) / width;
            } else {
                step /= 2;
            }
        }
        best = best.max((now, title, count));
        if best.0 + kept >= most {
            break;
        }
    }
    let (reached, title, count) = best;
    let what = format!("{}, {} of {with}", sink.kind(), limit.what);
    assert!(reached <= most && reached + kept >= most, "{what}: {reached} of {most} are reached");
    (padded(title, count), padded(title, count + 1))
}

/// Every rendering of a sink that a file holds: what it is, and its bytes.
fn renderings(every: &Every, format: &str, sink: &dyn Sink) -> Vec<(String, Vec<u8>)> {
    let context = |form| RenderContext { delivery_id: DELIVERY_ID, now: StoppedClock.now(), form };
    let is_first = every.formats.first() == Some(&format);
    // A line of JSON on the terminal has the limits of a file; the text of SNS and the other formats of syslog cut each value
    // by itself.
    let is_limited = is_first || !matches!((every.kind, format), ("stdout" | "syslog", _) | ("sns", "text"));
    let ordinary = stateful_alert();
    let [mut hostile, mut foreign] = [stateful_alert(), stateful_alert()];
    for (alert, text) in [(&mut hostile, HOSTILE), (&mut foreign, FOREIGN)] {
        make_hostile(alert, text);
        (alert.title, alert.account_id) = (Untrusted::new(text), Some(Untrusted::new(text)));
        alert.note = Some(text.to_owned());
    }
    let mut made = Vec::new();
    for (name, alert) in [("ordinary", &ordinary), ("hostile", &hostile), ("foreign", &foreign)] {
        made.push((format!("{name}, full"), rendered(sink, alert, Form::Full)));
        // What another format shares with the first is in the first one's file.
        if is_first || name == "ordinary" {
            made.push((format!("{name}, plain"), rendered(sink, alert, Form::Plain)));
        }
        let closing = Told::Closing { quiet: Duration::from_secs(3_600) };
        for (told, what) in [(Told::More, "update"), (Told::Still, "still open"), (closing, "closing")] {
            if name == "ordinary" || (is_first && name == "hostile" && what == "update") {
                let body = sink.render_update(&update_of(alert, told), &context(Form::Full)).expect("renders");
                made.push((format!("{name}, {what}"), body));
            }
        }
    }
    let limits = match limits(every.kind) {
        Ok(limits) => limits,
        Err(reason) => {
            made.push((format!("no limit: {reason}"), Vec::new()));
            Vec::new()
        }
    };
    for limit in limits.iter().filter(|_| is_limited) {
        let (what, most, measure) = (limit.what, limit.most, limit.measure);
        let over_limit = made.iter().find(|(name, body)| name.ends_with(", full") && measure(body) > most);
        assert_eq!(over_limit.map(|(name, _)| name), None, "{} {format}", every.kind);
        for with in PADDING {
            let (at, over) = at_and_over(sink, limit, with);
            for (name, alert) in [("at", &at), ("one more than", &over)] {
                let body = rendered(sink, alert, limit.form);
                let used = format!("{} of {most} {}", measure(&body), limit.unit.name());
                made.push((format!("{name} the limit of the {what} by {with}: {used}"), body));
            }
        }
    }
    made
}

/// The bytes as a person reads them; no two bodies look alike.
fn legible(body: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in body.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' => shown.push('\n'),
                '⟨' | '⟩' => write!(shown, "⟨{:x}⟩", u32::from(character)).expect("memory"),
                hidden if is_unsafe(hidden) => write!(shown, "⟨{:x}⟩", u32::from(hidden)).expect("memory"),
                seen => shown.push(seen),
            }
        }
        chunk.invalid().iter().for_each(|byte| write!(shown, "⟨byte {byte:02x}⟩").expect("memory"));
    }
    shown
}

/// One file. What stands in another one already, but for the end of a line, is named and not repeated.
fn page(kind: &str, format: &str, renderings: &[(String, Vec<u8>)], known: &mut HashMap<Vec<u8>, String>) -> String {
    let mut page = String::new();
    for (name, body) in renderings {
        let shown = legible(body);
        let bytes = body.len();
        let same = body.strip_suffix(b"\n").unwrap_or(body).to_vec();
        if let Some(place) = known.get(&same).filter(|_| bytes > 0) {
            writeln!(page, "=== {name} ({bytes} bytes): as {place}").expect("memory");
            continue;
        }
        known.insert(same, format!("{kind} {format}: {name}"));
        let most = if name.contains(" the limit of ") { MAX_SHOWN_PADDED_BYTES } else { MAX_SHOWN_BYTES };
        if bytes <= most {
            write!(page, "=== {name} ({bytes} bytes)\n{shown}\n").expect("memory");
        } else {
            let begin: String = shown.chars().take(END_CHARS).collect();
            let end: String = shown.chars().skip(chars(&shown) - END_CHARS).collect();
            let digest = blake3::hash(body).to_hex();
            write!(page, "=== {name} ({bytes} bytes, BLAKE3 {digest})\n{begin}\n[...]\n{end}\n").expect("memory");
        }
    }
    page
}

/// Nothing steers a terminal or hides, in the bytes and, where people read it, in what JSON says by escapes.
fn assert_inert(kind: &str, name: &str, body: &[u8]) {
    let shown = std::str::from_utf8(body).unwrap_or_else(|error| panic!("{kind}, {name}: {error}"));
    let is_mark = |character| match character {
        '\n' => true,
        '\r' => kind == "email",
        // RFC 5424 wants it before UTF-8.
        '\u{feff}' => kind == "syslog",
        _ => false,
    };
    let found = shown.chars().find(|character| is_unsafe(*character) && !is_mark(*character));
    assert_eq!(found, None, "{kind}, {name}: {}", legible(body));
}

/// For people: a string of it is shown as it is.
const SHOWN: &[&str] = &[
    "slack",
    "slack_bot",
    "teams",
    "discord",
    "mattermost",
    "google_chat",
    "telegram",
    "pagerduty",
    "jira",
    "servicenow",
    "thehive",
    "alertmanager",
];

fn strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            found.push(name.clone());
            strings(value, found);
        }),
        _ => {}
    }
}

fn is_json(kind: &str, format: &str) -> bool {
    !matches!((kind, format), ("stdout", "text") | ("email", _)) && kind != "syslog"
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test that is asked by hand to write what it otherwise compares")]
fn every_kind_writes_what_is_kept_of_it() {
    let is_writing = std::env::var("VIGIE_GOLDEN").is_ok_and(|said| said == "write");
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    let (mut expected_files, mut known) = (Vec::new(), HashMap::new());
    for every in all() {
        let directory = root.join(every.kind);
        for format in every.formats {
            let sink = every.renderer(format, &context().0);
            let made = renderings(every, format, &*sink);
            for (name, body) in made.iter().filter(|(_, body)| !body.is_empty()) {
                assert_inert(every.kind, name, body);
                if is_json(every.kind, format) {
                    let read: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{name}: {error}"));
                    let mut found = Vec::new();
                    strings(&read, &mut found);
                    let shown = found.iter().filter(|_| SHOWN.contains(&every.kind));
                    shown.for_each(|text| assert_inert(every.kind, name, text.as_bytes()));
                }
            }
            let file = directory.join(format!("{}.txt", if format.is_empty() { "body" } else { format }));
            let page = page(every.kind, format, &made, &mut known);
            if is_writing {
                std::fs::create_dir_all(&directory).expect("a directory");
                std::fs::write(&file, &page).expect("written");
            }
            let kept = std::fs::read_to_string(&file).unwrap_or_default();
            let line = kept.lines().zip(page.lines()).find(|(kept, made)| kept != made);
            let hint = "`VIGIE_GOLDEN=write` makes it anew";
            assert!(kept == page, "{}: it writes something else ({hint}), first\n{line:#?}", file.display());
            expected_files.push(file);
        }
    }
    let (mut bytes, mut found) = (0, Vec::new());
    for directory in std::fs::read_dir(&root).expect("there") {
        for file in std::fs::read_dir(directory.expect("an entry").path()).expect("a directory") {
            let file = file.expect("an entry");
            bytes += file.metadata().expect("there").len();
            found.push(file.path());
        }
    }
    found.retain(|file| !expected_files.contains(file));
    assert!(found.is_empty() && bytes <= MAX_GOLDEN_BYTES, "{bytes} bytes, and of no kind: {found:?}");
}

#[test]
fn what_is_shown_of_two_bodies_differs() {
    let bodies: [&[u8]; 7] = [b"\x1b", "⟨1b⟩".as_bytes(), b"\xff", "\u{ff}".as_bytes(), b"byte ff", b"\r\n", b"\n"];
    for (index, one) in bodies.iter().enumerate() {
        assert!(bodies.iter().skip(index + 1).all(|other| legible(one) != legible(other)), "{}", legible(one));
    }
}
