//! CEF and LEEF: one line of keys and values, under the names that the two formats know.
//!
//! A value holds no control character but the line feeds between its own lines, which each format writes in its way. A value
//! that is too long for its key is cut, except JSON and the exception: cut, they would be nothing or mean something else.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::value::RawValue;
use vigie_engine::alert::Alert;
use vigie_engine::rule::Severity;
use vigie_engine::text::single_line;

use super::super::format::{event_json, whole_pairs};
use super::super::text::{Extent, MAX_RULE_LINE_CHARS, reasons, title};
use super::super::update::Update;

/// Longest title: that of CEF's name.
const MAX_NAME_CHARS: usize = 512;
/// Longest text of the keys that CEF knows (`msg`, `reason`, `suser`).
const MAX_TEXT_CHARS: usize = 1023;
/// Longest `act` of CEF.
const MAX_ACTION_CHARS: usize = 63;
/// Longest custom string of CEF.
const MAX_CUSTOM_CHARS: usize = 4000;
/// Longest value where there is little room.
const MAX_LEAST_CHARS: usize = 32;
/// Between the pairs of LEEF: a tab, which is its own default, would come out of many syslog receivers as `#011`.
const DELIMITER: char = '^';

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pairs {
    Cef,
    Leef,
}

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// All that `Extent` says, with the event or without.
    Much(Extent, bool),
    /// What identifies it.
    Least,
}

/// A value, and what it is called; without a name it is left out.
struct Pair {
    cef: &'static str,
    /// Of CEF's custom keys.
    label: Option<&'static str>,
    leef: &'static str,
    value: String,
}

impl Pair {
    fn new(cef: &'static str, leef: &'static str, value: impl Into<String>) -> Self {
        Self { cef, label: None, leef, value: value.into() }
    }

    fn custom(cef: &'static str, label: &'static str, value: impl Into<String>) -> Self {
        Self { cef, label: Some(label), leef: label, value: value.into() }
    }
}

impl Pairs {
    /// The alert.
    pub(super) fn alert(self, alert: &Alert, delivery_id: &str, room: Room) -> String {
        let mut pairs = about(alert, delivery_id, "alert");
        if let Room::Much(extent, with_event) = room {
            pairs.extend(details(alert));
            let mut found = extent.found(alert).into_iter();
            pairs.extend(found.next().map(|summary| Pair::new("msg", "msg", summary)));
            let evidence: Vec<String> = found.collect();
            pairs.push(Pair::custom("flexString1", "evidence", multi_line(&evidence, MAX_TEXT_CHARS)));
            pairs.push(Pair::custom("cs5", "exception", extent.exception(alert).unwrap_or_default()));
            let event = if with_event { event_json(alert).unwrap_or_default() } else { String::new() };
            if event.chars().count() <= MAX_CUSTOM_CHARS {
                pairs.push(Pair::custom("cs6", "event", event));
            }
        }
        let name_chars = if room == Room::Least { MAX_LEAST_CHARS } else { MAX_NAME_CHARS };
        self.encode(alert, &single_line(&title(alert), name_chars), pairs)
    }

    /// An update.
    pub(super) fn update(self, update: &Update<'_>, delivery_id: &str) -> String {
        let mut pairs = about(update.alert, delivery_id, "update");
        let lines: Vec<String> = update.lines().into_iter().map(|(label, value)| format!("{label} {value}")).collect();
        pairs.push(Pair::new("msg", "msg", multi_line(&lines, MAX_TEXT_CHARS)));
        self.encode(update.alert, &update.headline(), pairs)
    }

    fn encode(self, alert: &Alert, name: &str, pairs: Vec<Pair>) -> String {
        let (rule, version) = (single_line(&alert.rule.id, MAX_RULE_LINE_CHARS), env!("CARGO_PKG_VERSION"));
        let severity = severity(alert.rule.severity);
        let pairs = pairs.into_iter().filter(|pair| !pair.value.is_empty());
        match self {
            Self::Cef => {
                let (rule, name) = (cef_header(&rule), cef_header(name));
                let pairs: Vec<String> = pairs.filter(|pair| !pair.cef.is_empty()).map(|pair| pair.cef()).collect();
                format!("CEF:0|Vigie|Vigie|{version}|{rule}|{name}|{severity}|{}", pairs.join(" "))
            }
            Self::Leef => {
                let head = format!("LEEF:2.0|Vigie|Vigie|{version}|{}|{DELIMITER}|", rule.replace('|', " "));
                let own = [Pair::new("", "sev", severity.to_string()), Pair::new("", "title", name)];
                let pairs = own.into_iter().chain(pairs.filter(|pair| !pair.leef.is_empty()));
                let pairs: Vec<String> = pairs.map(|pair| pair.leef()).collect();
                head + &pairs.join(&DELIMITER.to_string())
            }
        }
    }
}

impl Pair {
    fn cef(&self) -> String {
        let value = self.value.replace('\\', "\\\\").replace('=', "\\=").replace('\n', "\\n");
        let label = self.label.map(|label| format!("{}Label={label} ", self.cef)).unwrap_or_default();
        format!("{label}{}={value}", self.cef)
    }

    /// LEEF knows no escape. In JSON and in an exception the delimiter stands within quotes only, where it has one.
    fn leef(&self) -> String {
        let instead = match self.leef {
            "event" => "\\u005e",
            "exception" => "\\x5E",
            _ => " ",
        };
        format!("{}={}", self.leef, self.value.replace(DELIMITER, instead).replace('\n', "; "))
    }
}

fn cef_header(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|")
}

/// 0 to 10 in both formats; from 9 on is what CEF calls very high.
fn severity(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 1,
        Severity::Low => 3,
        Severity::Medium => 5,
        Severity::High => 8,
        Severity::Critical => 10,
    }
}

/// What names the alert and puts it in time.
fn about(alert: &Alert, delivery_id: &str, category: &'static str) -> Vec<Pair> {
    let short = |text: &str| single_line(text, MAX_LEAST_CHARS);
    let zoned = |time: chrono::DateTime<chrono::Utc>| time.format("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string();
    let ms = |time: chrono::DateTime<chrono::Utc>| time.timestamp_millis().to_string();
    vec![
        Pair::new("rt", "", ms(alert.first_at)),
        Pair::new("", "devTimeFormat", "yyyy-MM-dd'T'HH:mm:ss.SSSZ"),
        Pair::new("", "devTime", zoned(alert.first_at)),
        Pair::new("end", "", ms(alert.last_at)),
        Pair::new("", "lastTime", zoned(alert.last_at)),
        Pair::new("cnt", "count", alert.count.to_string()),
        Pair::new("cat", "cat", category),
        Pair::new("externalId", "externalId", short(delivery_id)),
        Pair::custom("cs1", "alertId", short(&alert.alert_id)),
        Pair::custom("cs2", "source", short(&alert.source)),
    ]
}

/// Who, from where, what and why.
fn details(alert: &Alert) -> Vec<Pair> {
    let event = fields(&alert.event);
    let field = |name: &str, max_chars| event.get(name).map(|value| single_line(value, max_chars)).unwrap_or_default();
    let address = field("source_ip", MAX_LEAST_CHARS * 2).parse::<IpAddr>();
    let mut pairs = match address {
        Ok(IpAddr::V4(address)) => vec![Pair::new("src", "src", address.to_string())],
        // `src` of CEF is an address of four parts.
        Ok(IpAddr::V6(address)) => {
            let address = address.to_string();
            vec![Pair { leef: "src", ..Pair::custom("c6a2", "Source IPv6 Address", address) }]
        }
        Err(_) => Vec::new(),
    };
    let key: Vec<String> = alert.key.iter().map(|(name, value)| format!("{name}={}", value.as_raw())).collect();
    let account = alert.account_id.as_ref().map(|account| account.single_line(MAX_TEXT_CHARS));
    pairs.extend([
        Pair::new("suser", "usrName", field("user_email", MAX_TEXT_CHARS)),
        Pair::new("act", "action", field("event_type", MAX_ACTION_CHARS)),
        Pair { leef: "accountName", ..Pair::custom("cs3", "account", account.unwrap_or_default()) },
        Pair::custom("cs4", "key", multi_line(&key, MAX_TEXT_CHARS)),
        Pair::new("reason", "reason", multi_line(&reasons(alert), MAX_TEXT_CHARS)),
    ]);
    pairs
}

/// The texts of the event's own fields.
fn fields(event: &RawValue) -> BTreeMap<String, String> {
    let whole = whole_pairs(event.get());
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(&whole).unwrap_or_default();
    let texts = fields.into_iter().filter_map(|(name, value)| Some((name, serde_json::from_str(value.get()).ok()?)));
    texts.collect()
}

/// Inert lines, as many as fit.
fn multi_line(lines: &[String], max_chars: usize) -> String {
    let mut text = String::new();
    let mut used_chars = 0;
    for line in lines {
        let line = single_line(line, max_chars);
        used_chars += line.chars().count() + 1;
        if used_chars > max_chars + 1 {
            break;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::contract::{HOSTILE, alert_titled, make_hostile, stateful_alert};
    use vigie_engine::text::{Untrusted, is_unsafe};

    const ALL: Room = Room::Much(Extent::Whole, true);

    fn with_event(event: serde_json::Value) -> Alert {
        let mut alert = alert_titled("Number forwarded | elsewhere");
        alert.event = RawValue::from_string(event.to_string()).expect("valid");
        alert
    }

    #[test]
    fn cef_names_what_it_has_a_name_for() {
        let event =
            serde_json::json!({"source_ip": "192.0.2.9", "user_email": "a=b@example.org", "event_type": "E\\F"});
        let shown = Pairs::Cef.alert(&with_event(event), "d1", ALL);
        let expected = concat!(
            "CEF:0|Vigie|Vigie|",
            env!("CARGO_PKG_VERSION"),
            "|change-from-unexpected-country|Number forwarded \\| elsewhere|8|",
            "rt=1772600400000 end=1772600461000 cnt=3 cat=alert externalId=d1 ",
            "cs1Label=alertId cs1=0123456789abcdef0123456789abcdef cs2Label=source cs2=main src=192.0.2.9 ",
            "suser=a\\=b@example.org act=E\\\\F cs3Label=account cs3=abcd1234 cs4Label=key cs4=actor\\=bob@example.org ",
            "reason=source_country not in GB, IE: was KP\\nuser_email exists false: was missing ",
            "cs5Label=exception cs5=- {when: {user_email: \"a\\=b@example.org\", source_ip: \"192.0.2.9\"}, ",
            "until: \"2026-04-03T05:00:00Z\", owner: \"who answers for it\", ",
            "reason: \"why it is harmless (alert 0123456789ab)\"} ",
            "cs6Label=event cs6={\"event_type\":\"E\\\\\\\\F\",\"source_ip\":\"192.0.2.9\",\"user_email\":\"a\\=b@example.org\"}",
        );
        assert_eq!(shown, expected);
    }

    #[test]
    fn leef_names_what_it_has_a_name_for() {
        let event = serde_json::json!({"source_ip": "2001:db8::9", "user_email": "a^b=c"});
        let shown = Pairs::Leef.alert(&with_event(event), "d1", ALL);
        let expected = concat!(
            "LEEF:2.0|Vigie|Vigie|",
            env!("CARGO_PKG_VERSION"),
            "|change-from-unexpected-country|^|sev=8^title=Number forwarded | elsewhere^",
            "devTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ^devTime=2026-03-04T05:00:00.000+0000^",
            "lastTime=2026-03-04T05:01:01.000+0000^count=3^cat=alert^externalId=d1^",
            "alertId=0123456789abcdef0123456789abcdef^source=main^src=2001:db8::9^usrName=a b=c^accountName=abcd1234^",
            "key=actor=bob@example.org^reason=source_country not in GB, IE: was KP; user_email exists false: was missing^",
            "exception=- {when: {user_email: \"a\\x5Eb=c\", source_ip: \"2001:db8::9\"}, ",
            "until: \"2026-04-03T05:00:00Z\", owner: \"who answers for it\", ",
            "reason: \"why it is harmless (alert 0123456789ab)\"}^",
            "event={\"source_ip\":\"2001:db8::9\",\"user_email\":\"a\\u005eb=c\"}",
        );
        assert_eq!(shown, expected);
        assert!(
            Pairs::Cef
                .alert(&with_event(serde_json::json!({"source_ip": "2001:db8::9"})), "d1", ALL)
                .contains(" c6a2Label=Source IPv6 Address c6a2=2001:db8::9 ")
        );
    }

    #[test]
    fn hostile_text_makes_no_pair_and_no_line() {
        let mut alert = stateful_alert();
        make_hostile(&mut alert, &format!("{HOSTILE}|x ^src=198.51.100.1 cs1=forged\\"));
        alert.title = Untrusted::new(format!("{HOSTILE}|10|src=1"));
        alert.rule.id = "a|b".into();
        alert.account_id = Some(Untrusted::new("a\n^externalId=x"));
        let cef = Pairs::Cef.alert(&alert, "d1", ALL);
        let leef = Pairs::Leef.alert(&alert, "d1", ALL);
        assert!(!cef.chars().chain(leef.chars()).any(is_unsafe), "{cef}\n{leef}");
        assert!(!cef.contains(" cs1=forged") && !cef.contains("^src=198"), "{cef}");
        let bare = cef.replace("\\\\", "").replace("\\|", "");
        assert_eq!(bare.matches('|').count(), 7 + bare.matches("]|x").count() + bare.matches("/q|x").count(), "{cef}");
        let keys: Vec<&str> = leef.split('^').skip(2).filter_map(|pair| Some(pair.split_once('=')?.0)).collect();
        let expected = [
            "devTimeFormat",
            "devTime",
            "lastTime",
            "count",
            "cat",
            "externalId",
            "alertId",
            "source",
            "usrName",
            "accountName",
            "key",
            "reason",
            "msg",
            "evidence",
            "exception",
            "event",
        ];
        assert_eq!(keys.first(), Some(&"title"));
        assert_eq!(keys[1..], expected);
    }

    #[test]
    fn what_there_is_no_room_for_is_left_out() {
        let alert = stateful_alert();
        let has = |room| {
            let shown = Pairs::Leef.alert(&alert, "d1", room);
            ["^exception=", "^evidence=", "^event=", "^msg=", "^alertId="].map(|key| shown.contains(key))
        };
        assert_eq!(has(ALL), [true; 5]);
        assert_eq!(has(Room::Much(Extent::Evidence, true)), [false, true, true, true, true]);
        assert_eq!(has(Room::Much(Extent::Summary, true)), [false, false, true, true, true]);
        assert_eq!(has(Room::Much(Extent::Summary, false)), [false, false, false, true, true]);
        assert_eq!(has(Room::Least), [false, false, false, false, true]);
    }

    #[test]
    fn severities_are_in_the_bands_of_the_formats() {
        assert_eq!(Severity::ALL.map(severity), [1, 3, 5, 8, 10]);
    }
}
