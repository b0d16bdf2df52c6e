//! What the schemas of others have a place of their own for: who, from where, which techniques, how bad.
//!
//! Each text is bounded, whatever the event holds. An address counts as one only where it is one: an index refuses the whole
//! document for a field that says `ip` and holds none.

use std::net::IpAddr;

use vigie_engine::alert::Alert;
use vigie_engine::event::Event;
use vigie_engine::rule::Severity;

use super::{MAX_LEAN_TEXT_CHARS, shorten};

/// Longest mail address (RFC 5321, 4.5.3.1.3, without its brackets).
const MAX_EMAIL_CHARS: usize = 254;

/// Who did it and from where, as the event says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its type.
    pub event_type: Option<String>,
    /// From where, whatever that is.
    pub address: Option<String>,
    /// ISO 3166-1, two capital letters.
    pub country: Option<String>,
    /// Who, whatever that is.
    pub email: Option<String>,
}

impl Facts {
    /// Of the alert's event.
    #[must_use]
    pub fn of(alert: &Alert) -> Self {
        let Ok(event) = Event::new("", alert.first_at, alert.event.get().into()) else { return Self::default() };
        let text = |field: &str| {
            let text = event.text(field).filter(|text| !text.trim().is_empty());
            text.map(|text| shorten(&text, MAX_LEAN_TEXT_CHARS))
        };
        Self {
            event_type: text("event_type"),
            address: text("source_ip"),
            country: text("source_country").filter(|country| is_country(country)),
            email: text("user_email"),
        }
    }

    /// The address, where it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.as_deref().and_then(ip)
    }

    /// The mail address, where it looks like one.
    #[must_use]
    pub fn mail(&self) -> Option<&str> {
        let email = self.email.as_deref().filter(|email| email.len() <= MAX_EMAIL_CHARS)?;
        let (local, domain) = email.split_once('@')?;
        let is_local = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
        let is_domain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
        let is_whole =
            !local.is_empty() && domain.split('.').count() > 1 && domain.split('.').all(|part| !part.is_empty());
        (is_whole && local.chars().all(is_local) && domain.chars().all(is_domain)).then_some(email)
    }
}

/// An address, where the text is one.
#[must_use]
pub fn ip(text: &str) -> Option<IpAddr> {
    text.trim().parse().ok()
}

/// Two capital letters.
#[must_use]
pub fn is_country(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// From 1 (info) to 5 (critical).
#[must_use]
pub fn severity_number(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 1,
        Severity::Low => 2,
        Severity::Medium => 3,
        Severity::High => 4,
        Severity::Critical => 5,
    }
}

/// Techniques of ATT&CK among the tags (`attack.t1078.004`), as ATT&CK writes them (`T1078.004`).
pub fn techniques(tags: &[String]) -> impl Iterator<Item = String> {
    let named = tags.iter().filter_map(|tag| tag.strip_prefix("attack.")).map(str::to_ascii_uppercase);
    named.filter(|name| {
        let (technique, sub) = name.split_once('.').unwrap_or((name, "000"));
        let is_number = |text: &str, digits: usize| text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
        technique.strip_prefix('T').is_some_and(|number| is_number(number, 4)) && is_number(sub, 3)
    })
}

/// Tactics among the tags (`attack.initial-access`), as ATT&CK writes them (`Initial Access`).
pub fn tactics(tags: &[String]) -> impl Iterator<Item = String> {
    let named = tags.iter().filter_map(|tag| tag.strip_prefix("attack."));
    let named = named.filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
    named.map(|name| name.split('-').map(capitalised).collect::<Vec<_>>().join(" "))
}

fn capitalised(word: &str) -> String {
    match word.split_at_checked(1) {
        Some((first, rest)) if word != "and" => first.to_ascii_uppercase() + rest,
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::sink::contract::{HOSTILE, alert_titled, make_hostile};

    fn facts(event: &str) -> Facts {
        let mut alert = alert_titled("t");
        alert.event = RawValue::from_string(event.into()).expect("valid");
        Facts::of(&alert)
    }

    #[test]
    fn only_an_address_is_one() {
        for (given, ip) in [("203.0.113.7", true), ("2001:db8::1", true), ("203.0.113.7:80", false), (HOSTILE, false)] {
            let facts = facts(&serde_json::json!({"source_ip": given}).to_string());
            assert_eq!((facts.ip().is_some(), facts.address.as_deref()), (ip, Some(given)), "{given}");
        }
        let long = "l".repeat(MAX_EMAIL_CHARS - "@example.org".len());
        for (given, is_mail) in [
            ("bob@example.org".to_owned(), true),
            (format!("{long}@example.org"), true),
            (format!("l{long}@example.org"), false),
            ("bob".into(), false),
            ("bob@example".into(), false),
            ("bob@example..org".into(), false),
            ("bob@a@example.org".into(), false),
            (HOSTILE.into(), false),
        ] {
            let facts = facts(&serde_json::json!({"user_email": given}).to_string());
            assert_eq!(facts.mail().is_some(), is_mail, "{given}");
        }
    }

    #[test]
    fn what_an_event_holds_is_bounded_and_what_it_lacks_is_absent() {
        assert_eq!(
            facts("{\"source_ip\": \"\", \"user_email\": null, \"source_country\": \"Korea\"}"),
            Facts::default()
        );
        let mut alert = alert_titled("t");
        make_hostile(&mut alert, &"🦀".repeat(5_000));
        let facts = Facts::of(&alert);
        assert_eq!(facts.email.map(|email| email.chars().count()), Some(MAX_LEAN_TEXT_CHARS));
        assert_eq!(facts.country, None);
    }

    #[test]
    fn tags_of_attack_become_its_names_and_others_do_not() {
        let tags = [
            "attack.t1078.004",
            "attack.t1098",
            "attack.command-and-control",
            "attack.t10",
            "x.t1098",
            "attack.t1098.1",
        ];
        let tags = tags.map(str::to_owned);
        assert_eq!(techniques(&tags).collect::<Vec<_>>(), ["T1078.004", "T1098"]);
        assert_eq!(tactics(&tags).collect::<Vec<_>>(), ["Command and Control"]);
    }
}
