//! A ready-made exception: one item for a rule's `unless:` that leaves out what raised an alert, and nothing beside it.
//!
//! Its values were chosen by whoever did the deed. Each is a quoted YAML text in which nothing can end the text, act as a
//! wildcard or name a list, and which holds neither a link nor a character that steers a reader; so it may be shown
//! wherever text may, as it is. It is one line in flow style, because chat and mail do not keep indentation. An exception
//! that would leave out too much, or cannot be written, is not made.

use std::borrow::Cow;

use chrono::{Datelike, SecondsFormat, TimeDelta};

use super::Alert;
use crate::event::Event;
use crate::rule::{OWN_PREFIX, reference};
use crate::text::is_unsafe;

/// Longest exception in characters: it stays whole within a section of a chat message, and in sight of a person.
pub const MAX_EXCEPTION_CHARS: usize = 1_500;
/// How long it lasts, from the first match on: long enough for a journey, short enough to be looked at again.
pub const EXCEPTION_DAYS: i64 = 30;
/// Longest name and value of a field: the longest mail address.
const MAX_FIELD_CHARS: usize = 254;
/// Most fields: a longer key is told apart by nobody.
const MAX_FIELDS: usize = 8;
/// Of an alert id, enough to find it.
const SHORT_ID_CHARS: usize = 12;
/// Last year that a stamp of four digits can name.
const MAX_YEAR: i32 = 9_999;

/// Fields that name a person.
const PERSON: [&str; 2] = ["user_email", "user_id"];
/// Fields that say from where.
const PLACE: [&str; 2] = ["source_country", "source_ip"];
/// Fields that say too little: an exception on these alone would switch the rule off.
const TOO_WIDE: [&str; 3] = ["account_id", "event_type", "source"];
/// Keys of a condition that are no fields.
const BLOCKS: [&str; 4] = ["all", "any", "not", "during"];

impl Alert {
    /// One item for the `unless:` of the alert's rule, as YAML on one line: the alert's key, who did it, and from where.
    ///
    /// `None` when there is nothing to tell this event from others by, when a value is too long, or when the alert is the
    /// program's own, whose rules nobody edits.
    #[must_use]
    pub fn exception(&self) -> Option<String> {
        let event = Event::new("", self.first_at, self.event.get().into()).ok()?;
        if event.text("event_type").is_some_and(|event_type| event_type.starts_with(OWN_PREFIX)) {
            return None;
        }
        let fields = self.subject(&event)?;
        if fields.is_empty() || fields.len() > MAX_FIELDS {
            return None;
        }
        if fields.iter().all(|(field, _)| TOO_WIDE.contains(&field.as_str())) {
            return None;
        }
        let when = fields.iter().map(|(field, value)| Some(format!("{}: {}", name(field)?, literal(value)?)));
        let when = when.collect::<Option<Vec<String>>>()?.join(", ");
        let until = self.first_at.checked_add_signed(TimeDelta::days(EXCEPTION_DAYS))?;
        let until = Some(until).filter(|until| until.year() <= MAX_YEAR)?.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let id: String = self.alert_id.chars().take(SHORT_ID_CHARS).collect();
        let reason = quoted(&format!("why it is harmless (alert {id})"));
        let exception =
            format!("- {{when: {{{when}}}, until: \"{until}\", owner: \"who answers for it\", reason: {reason}}}");
        (exception.chars().count() <= MAX_EXCEPTION_CHARS).then_some(exception)
    }

    /// Field by field what the event has; `None` when a part of the key cannot be told.
    fn subject(&self, event: &Event) -> Option<Vec<(String, String)>> {
        let has = |field: &str| event.text(field).filter(|text| !text.is_empty()).map(Cow::into_owned);
        let any_of = |names: [&'static str; 2]| names.into_iter().find_map(|field| Some((field, has(field)?)));
        let mut subject = Subject::default();
        for (field, _) in &self.key {
            // People know a user by the address and not by the number that `actor` stands for.
            match has("user_email").filter(|_| field == "actor") {
                Some(email) => subject.add("user_email", email),
                None => subject.add(field, event.text(field)?.into_owned()),
            }
        }
        // What did not come has no sender: the key alone says whose silence is harmless.
        if self.finding.as_ref().is_some_and(|finding| finding.detection == "absence") {
            return Some(subject.0);
        }
        match any_of(PERSON) {
            Some((field, value)) => {
                if !subject.has(&PERSON) && !subject.has(&["actor"]) {
                    subject.add(field, value);
                }
                if let Some((field, value)) = any_of(self.place_order()).filter(|_| !subject.has(&PLACE)) {
                    subject.add(field, value);
                }
            }
            // Without a person the address is the actor; a country alone would be far too much.
            None if subject.has(&["actor"]) => {}
            None => {
                if let Some((field, value)) = any_of(["source_ip", "source_country"]) {
                    subject.add(field, value);
                }
            }
        }
        Some(subject.0)
    }

    /// A person's addresses change with each network, so the country it is, unless the rule asks of addresses only.
    fn place_order(&self) -> [&'static str; 2] {
        let asks_of = |field: &str| self.reason.iter().any(|reason| reason.field == field);
        let [country, address] = PLACE;
        if asks_of(address) && !asks_of(country) { [address, country] } else { [country, address] }
    }
}

/// Fields and what they must be.
#[derive(Default)]
struct Subject(Vec<(String, String)>);

impl Subject {
    fn has(&self, names: &[&str]) -> bool {
        self.0.iter().any(|(field, _)| names.contains(&field.as_str()))
    }

    fn add(&mut self, field: &str, value: String) {
        if !self.has(&[field]) {
            self.0.push((field.to_owned(), value));
        }
    }
}

/// A field as a key of a condition; `None` when a key cannot name it.
fn name(field: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let has_other_meaning = field.is_empty()
        || field.trim() != field
        || field.contains(['|', '*'])
        || BLOCKS.contains(&field)
        || field.chars().count() > MAX_FIELD_CHARS;
    if has_other_meaning {
        return None;
    }
    // A word alone may be `null` or `yes` to a reader of YAML.
    let is_path = field.starts_with(|c: char| c.is_ascii_alphabetic()) && field.contains(['_', '.']);
    let is_safe = is_path || field == "actor";
    Some(if is_safe && field.chars().all(is_plain) { field.to_owned() } else { quoted(field) })
}

/// A value that fits itself only: no wildcard, no name of a list.
fn literal(value: &str) -> Option<String> {
    if value.chars().count() > MAX_FIELD_CHARS {
        return None;
    }
    let mut text = String::with_capacity(value.len() + 8);
    for character in value.chars() {
        if matches!(character, '\\' | '*' | '?') {
            text.push('\\');
        }
        text.push(character);
    }
    if reference(&text).is_some() {
        text.insert(0, '\\');
    }
    Some(quoted(&text))
}

/// YAML in double quotes. What steers, what makes a link and what a page would swallow is escaped.
fn quoted(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut shown = String::with_capacity(text.len() + 8);
    shown.push('"');
    for (index, &character) in characters.iter().enumerate() {
        let (before, after) =
            (characters.get(..index).unwrap_or_default(), characters.get(index + 1..).unwrap_or_default());
        match character {
            '"' | '\\' => shown.extend(['\\', character]),
            c if is_unsafe(c) || is_no_character(c) || is_link(before, c, after) || is_swallowed(before, c, after) => {
                shown.push_str(&escape(c));
            }
            c => shown.push(c),
        }
    }
    shown.push('"');
    shown
}

fn escape(character: char) -> String {
    match u32::from(character) {
        code @ ..=0xff => format!("\\x{code:02X}"),
        code @ ..=0xffff => format!("\\u{code:04X}"),
        code => format!("\\U{code:08X}"),
    }
}

/// Code points that Unicode keeps free and YAML does not take.
fn is_no_character(character: char) -> bool {
    u32::from(character) & 0xfffe == 0xfffe
}

/// The sign without which `x://`, `www.` and `mailto:` are no links.
fn is_link(before: &[char], character: char, after: &[char]) -> bool {
    let ends = |word: &str| {
        let tail = before.len().checked_sub(word.len()).and_then(|from| before.get(from..));
        tail.is_some_and(|tail| tail.iter().zip(word.chars()).all(|(one, other)| one.eq_ignore_ascii_case(&other)))
    };
    match character {
        ':' => after.starts_with(&['/', '/']) || ends("mailto"),
        '.' => ends("www"),
        _ => false,
    }
}

/// Pages show several spaces as one, and none at an edge.
fn is_swallowed(before: &[char], character: char, after: &[char]) -> bool {
    character == ' ' && (before.last().is_none_or(|last| *last == ' ') || after.is_empty())
}

#[cfg(test)]
mod tests;
