//! What a mail says, once as text and once as HTML, from the same parts.
//!
//! Mail programs make links out of anything that looks like one, so event text is defanged (`hxxps` style) besides being
//! escaped: nothing in a mail of ours can be clicked. The HTML loads nothing and holds no link, script or image.

use vigie_engine::alert::{Alert, Reason};
use vigie_engine::text::{Untrusted, single_line};

use crate::sink::text::{
    MAX_REASONS, MAX_RULE_LINE_CHARS, MAX_TITLE_CHARS, MAX_VALUE_CHARS, facts, finding, note, place, response_lines,
    severity_word, title, when,
};

use crate::sink::update::{Update, update_text};

/// The mail's content.
pub(super) struct Content {
    title: String,
    parts: Vec<Part>,
}

struct Part {
    heading: &'static str,
    lines: Vec<String>,
}

impl Content {
    /// Everything that a person needs, most urgent first.
    pub(super) fn new(alert: &Alert, delivery_id: &str) -> Self {
        let mut happened = vec![format!("when: {}", when(alert)), format!("where: {}", defang(&place(alert)))];
        happened.extend(note(alert).map(|note| format!("note: {}", defang(&note))));
        happened.extend(alert.key.iter().map(|(field, value)| fact(field, value)));
        let event = facts(&alert.event).iter().map(|(field, value)| fact(&defang(field), value)).collect();
        let exception = alert.exception().iter().map(|exception| defang_yaml(exception)).collect();
        let parts = vec![
            Part { heading: "What happened", lines: happened },
            Part { heading: "Why it matched", lines: reasons(&alert.reason) },
            Part { heading: "What was found", lines: finding(alert).iter().map(|line| defang(line)).collect() },
            Part { heading: "What to do now", lines: response_lines(&alert.rule.response) },
            Part { heading: "The event", lines: event },
            Part { heading: "To leave this out, under `unless:` of the rule", lines: exception },
            Part { heading: "To look it up", lines: references(alert, delivery_id) },
        ];
        Self { title: defang(&headline(alert)), parts }
    }

    /// For every mail program.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n", self.title);
        for part in self.parts.iter().filter(|part| !part.lines.is_empty()) {
            text.push_str(&format!("\n{}\n", part.heading));
            for line in &part.lines {
                text.push_str(&format!("  {line}\n"));
            }
        }
        text
    }

    /// The same with headings.
    pub(super) fn html(&self) -> String {
        let title = escape(&self.title);
        let mut html = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
             <body style=\"font-family:sans-serif;font-size:15px;line-height:1.45\">\n<h2>{title}</h2>\n"
        );
        for part in self.parts.iter().filter(|part| !part.lines.is_empty()) {
            html.push_str(&format!("<h3>{}</h3>\n<ul>\n", part.heading));
            for line in &part.lines {
                html.push_str(&format!("<li>{}</li>\n", escape(line)));
            }
            html.push_str("</ul>\n");
        }
        html.push_str("</body></html>\n");
        html
    }
}

/// What a mail about an update says.
pub(super) fn update(update: &Update<'_>, delivery_id: &str) -> String {
    defang(&update_text(update, delivery_id))
}

/// `[HIGH] title`: the subject. Lists of mails make links of URLs, but leave addresses and names as they are.
pub(super) fn headline(alert: &Alert) -> String {
    let shown = format!("[{}] {}", severity_word(alert.rule.severity), title(alert)).replace("://", "[:]//");
    single_line(&shown, MAX_TITLE_CHARS + 16)
}

/// Takes the link out of whatever a mail program would make one of: `https[:]//evil[.]example`. Addresses in digits stay
/// as they are, people compare them.
fn defang(text: &str) -> String {
    let mut shown = String::with_capacity(text.len() + 8);
    let mut characters = text.replace("://", "[:]//").chars().collect::<Vec<_>>().into_iter().peekable();
    let mut before = ' ';
    while let Some(character) = characters.next() {
        let name_follows = characters.peek().is_some_and(|next| next.is_alphabetic());
        if character == '.' && before.is_alphanumeric() && name_follows {
            shown.push_str("[.]");
        } else {
            shown.push(character);
        }
        before = character;
    }
    shown
}

/// As [`defang`] for YAML that will be copied: within quotes `\x2E` is the dot, and no mail program takes it for one.
fn defang_yaml(yaml: &str) -> String {
    let mut shown = String::with_capacity(yaml.len() + 8);
    let (mut is_quoted, mut is_escaped, mut before) = (false, false, ' ');
    let mut characters = yaml.chars().peekable();
    while let Some(character) = characters.next() {
        let name_follows = characters.peek().is_some_and(|next| next.is_alphabetic());
        if is_quoted && character == '.' && before.is_alphanumeric() && name_follows {
            shown.push_str("\\x2E");
        } else {
            shown.push(character);
        }
        is_quoted ^= character == '"' && !is_escaped;
        is_escaped = character == '\\' && !is_escaped;
        before = character;
    }
    shown
}

/// Text for between tags and in attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn fact(field: &str, value: &Untrusted) -> String {
    format!("{} = {}", single_line(field, MAX_VALUE_CHARS), defang(&value.single_line(MAX_VALUE_CHARS)))
}

fn reasons(reasons: &[Reason]) -> Vec<String> {
    let mut lines: Vec<String> = reasons.iter().take(MAX_REASONS).map(reason).collect();
    let more = reasons.len().saturating_sub(MAX_REASONS);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

fn reason(reason: &Reason) -> String {
    let asked = single_line(&format!("{} {} {}", reason.field, reason.operator, reason.expected), MAX_RULE_LINE_CHARS);
    match &reason.actual {
        Some(actual) => format!("{asked}: was {}", defang(&actual.single_line(MAX_VALUE_CHARS))),
        None => format!("{asked}: was missing"),
    }
}

fn references(alert: &Alert, delivery_id: &str) -> Vec<String> {
    let line = |text: String| single_line(&text, MAX_RULE_LINE_CHARS);
    let mut lines = vec![
        line(format!("vigie alerts show {}", alert.alert_id)),
        line(format!("rule {}", alert.rule.id)),
        line(format!("delivery {delivery_id}")),
    ];
    if let Some(first) = alert.events.first() {
        let more = alert.events.len() - 1;
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        lines.insert(1, format!("event {}{more}", defang(&single_line(first, MAX_VALUE_CHARS))));
    }
    lines
}

/// Mails of one dedup key belong together; an alert without one stands for itself.
pub(super) fn thread_id(alert: &Alert) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |part: &str| {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    };
    add(&alert.rule.id);
    add(&alert.source);
    if alert.key.is_empty() {
        add(&alert.alert_id);
    }
    for (field, value) in &alert.key {
        add(field);
        add(value.as_raw());
    }
    let thread: String = hasher.finalize().to_hex().chars().take(32).collect();
    format!("thread-{thread}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_mail_program_would_link() {
        for (text, shown) in [
            ("https://evil.example/a?b", "https[:]//evil[.]example/a?b"),
            ("www.evil.example", "www[.]evil[.]example"),
            ("eve@evil.example", "eve@evil[.]example"),
            ("203.0.113.7", "203.0.113.7"),
            ("javascript://%0aalert(1)", "javascript[:]//%0aalert(1)"),
            ("end. Next", "end. Next"),
            ("1.5", "1.5"),
        ] {
            assert_eq!(defang(text), shown);
        }
    }

    #[test]
    fn yaml_without_links_means_the_same() {
        for (yaml, shown) in [
            (r#"{a.b: "eve@evil.example"}"#, r#"{a.b: "eve@evil\x2Eexample"}"#),
            (r#"{a: "x\".evil.example", b.c: 1}"#, r#"{a: "x\".evil\x2Eexample", b.c: 1}"#),
            (r#"{a: "x\\", b.c: "d\\.e 1.5"}"#, r#"{a: "x\\", b.c: "d\\.e 1.5"}"#),
        ] {
            assert_eq!(defang_yaml(yaml), shown);
        }
    }
}
