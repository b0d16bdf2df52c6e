//! The header of RFC 5424 and its structured data.
//!
//! The id of the structured data ends in 32473 unless the operator says otherwise: Vigie has no enterprise number of its own,
//! an id without one would claim a name that only IANA gives out, and 32473 is the number that belongs to nobody (RFC 5612),
//! so nobody's parser takes our parameters for theirs.

use vigie_engine::alert::Alert;
use vigie_engine::rule::Severity;
use vigie_engine::text::single_line;

/// Longest parameter of the structured data; ids and names of ours are shorter.
const MAX_PARAM_CHARS: usize = 128;
/// Nothing to say.
const NIL: &str = "-";

/// Facilities by name (RFC 5424, table 1); their place is their number.
pub(super) const FACILITIES: &[&str] = &[
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// What the operator chose.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) facility: usize,
    pub(super) hostname: String,
    pub(super) app_name: String,
    pub(super) sd_id: String,
}

impl Header {
    /// Everything before the message, the space included. The process id is left out: bytes stay the same between attempts,
    /// whoever makes them.
    pub(super) fn of(&self, alert: &Alert, delivery_id: &str, message_id: &str) -> String {
        let Self { facility, hostname, app_name, sd_id } = self;
        let priority = facility * 8 + severity(alert.rule.severity);
        let stamp = alert.first_at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        // A year of more than four digits is no stamp of this header.
        let stamp = if stamp.len() == "2026-03-04T05:00:00.000Z".len() { &stamp } else { NIL };
        let params = [
            ("alert_id", alert.alert_id.as_str()),
            ("delivery_id", delivery_id),
            ("rule", &alert.rule.id),
            ("severity", alert.rule.severity.as_str()),
            ("source", &alert.source),
        ];
        let params: String = params.iter().map(|(name, value)| format!(" {name}=\"{}\"", param(value))).collect();
        format!("<{priority}>1 {stamp} {hostname} {app_name} {NIL} {message_id} [{sd_id}{params}] ")
    }
}

/// Of the eight, without the highest two: they are for a machine that fails, and may be written to every terminal.
fn severity(severity: Severity) -> usize {
    match severity {
        Severity::Info => 6,
        Severity::Low => 5,
        Severity::Medium => 4,
        Severity::High => 3,
        Severity::Critical => 2,
    }
}

fn param(value: &str) -> String {
    single_line(value, MAX_PARAM_CHARS).replace('\\', "\\\\").replace('"', "\\\"").replace(']', "\\]")
}

/// Whether a text can stand in the header: printable ASCII without spaces, not longer than its place.
pub(super) fn is_word(text: &str, max_chars: usize) -> bool {
    !text.is_empty() && text.len() <= max_chars && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether a text can name structured data.
pub(super) fn is_sd_id(text: &str) -> bool {
    const MAX_CHARS: usize = 32;
    is_word(text, MAX_CHARS) && !text.contains(['=', ']', '"'])
}

/// The machine's name as far as it can stand in the header.
pub(super) fn machine() -> String {
    let system = rustix::system::uname();
    let name: String = system.nodename().to_string_lossy().chars().filter(char::is_ascii_graphic).collect();
    if is_word(&name, super::MAX_HOSTNAME_CHARS) { name } else { NIL.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::contract::{HOSTILE, alert_titled};

    fn header() -> Header {
        Header { facility: 16, hostname: "h1".into(), app_name: "vigie".into(), sd_id: "vigie@32473".into() }
    }

    #[test]
    fn the_header_is_that_of_the_rfc() {
        let expected = concat!(
            "<131>1 2026-03-04T05:00:00.000Z h1 vigie - alert ",
            r#"[vigie@32473 alert_id="0123456789abcdef0123456789abcdef" delivery_id="d1" "#,
            r#"rule="change-from-unexpected-country" severity="high" source="main"] "#,
        );
        assert_eq!(header().of(&alert_titled("t"), "d1", "alert"), expected);
        assert_eq!((FACILITIES[10], FACILITIES[16], FACILITIES.len()), ("authpriv", "local0", 24));
        assert_eq!(Severity::ALL.map(severity), [6, 5, 4, 3, 2]);
    }

    #[test]
    fn a_parameter_cannot_end_itself() {
        let mut alert = alert_titled("t");
        alert.source = format!("a\"b]c\\d{HOSTILE}");
        let shown = header().of(&alert, "d1", "alert");
        assert!(shown.contains(r#" source="a\"b\]c\\dx  Bcc: a@evil.example\\u{1b}[2J"#), "{shown}");
        assert!(shown.chars().all(|character| !vigie_engine::text::is_unsafe(character)), "{shown}");
    }

    #[test]
    fn a_year_that_has_no_stamp_is_left_out() {
        let mut alert = alert_titled("t");
        alert.first_at = chrono::DateTime::from_timestamp(300_000_000_000, 0).expect("valid");
        assert!(header().of(&alert, "d1", "alert").starts_with("<131>1 - h1 "));
    }

    #[test]
    fn words_of_the_header_are_printable_and_fit() {
        assert!(is_word("a", 1) && !is_word("ab", 1) && !is_word("", 1) && !is_word("a b", 9) && !is_word("é", 9));
        assert!(is_sd_id("vigie@32473") && !is_sd_id("a]") && !is_sd_id("a=b") && !is_sd_id(&"a".repeat(33)));
        assert!(is_word(&machine(), 255));
    }
}
