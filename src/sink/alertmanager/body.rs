//! What is stored of an alert for Alertmanager: its labels, which are its identity, its annotations, and what the post says.
//!
//! Its end is not part of it: it follows from the time at which it is posted. No label holds what changes while the alert is
//! open.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use vigie_engine::alert::Alert;
use vigie_engine::text::single_line;

use crate::sink::text::{self, MAX_VALUE_CHARS, defang};
use crate::sink::{Form, RenderContext, RenderError};

/// Key fields that become labels: a key has one to four.
pub(super) const MAX_KEY_LABELS: usize = 10;
/// Longest name of a label.
pub(super) const MAX_LABEL_NAME_CHARS: usize = 64;
/// Alertmanager knows no limit; what it notifies cuts texts at a few kilobytes.
pub(super) const MAX_DESCRIPTION_BYTES: usize = 16 * 1024;
/// Room for the line that counts what was left out.
const COUNT_BYTES: usize = 64;
/// Labels that no key field may take.
const OWN_LABELS: &[&str] = &["alertname", "alert_id", "severity", "source", "account", "tags"];

/// What is stored: the alert without what is put in when it is sent.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) says: Says,
    /// When it was rendered.
    pub(super) at: DateTime<Utc>,
    pub(super) starts_at: DateTime<Utc>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Says {
    /// There is an alert, or more of it: a person must hear of it however late it is.
    Opens,
    /// It is open as before.
    Holds,
    Ends,
}

impl Stored {
    /// When the alert ends if it is posted now; `None` when there is nothing to hold open any more.
    pub(super) fn ends_at(&self, now: DateTime<Utc>, ends_after: TimeDelta) -> Option<DateTime<Utc>> {
        let ends_at = match self.says {
            Says::Opens => now + ends_after,
            // What follows it says more: the next such post, or the end.
            Says::Holds => Some(self.at.min(now) + ends_after).filter(|ends_at| *ends_at > now)?,
            Says::Ends => self.at.min(now),
        };
        // The other order is refused.
        Some(ends_at.max(self.starts_at))
    }
}

pub(super) fn stored(alert: &Alert, says: Says, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
    let labels = match context.form {
        Form::Full => labels(alert),
        Form::Plain => own_labels(alert, false),
    };
    // An event may be dated in the future, and an alert that ends before it starts is refused.
    let starts_at = alert.first_at.min(context.now);
    let annotations = annotations(alert, context);
    let stored = Stored { says, at: context.now, starts_at, labels, annotations };
    serde_json::to_vec(&stored).map_err(|error| RenderError(error.to_string()))
}

/// The labels are the alert's identity: they depend on nothing that changes while it is open.
pub(super) fn labels(alert: &Alert) -> BTreeMap<String, String> {
    let mut labels = own_labels(alert, true);
    for (field, value) in alert.key.iter().take(MAX_KEY_LABELS) {
        let name = label_name(field);
        let name = if OWN_LABELS.contains(&name.as_str()) { format!("key_{name}") } else { name };
        labels.entry(name).or_insert_with(|| shown(value.as_raw()));
    }
    labels
}

pub(super) fn own_labels(alert: &Alert, is_full: bool) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("alertname", shown(&alert.rule.id)),
        ("alert_id", shown(&alert.alert_id)),
        ("severity", alert.rule.severity.as_str().to_owned()),
    ]);
    if is_full {
        labels.insert("source", shown(&alert.source));
        labels.extend(alert.account_id.as_ref().map(|account| ("account", shown(account.as_raw()))));
        labels.insert("tags", shown(&alert.rule.tags.join(",")));
    }
    // To Alertmanager an empty label is none.
    labels.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn annotations(alert: &Alert, context: &RenderContext<'_>) -> BTreeMap<String, String> {
    let fits = |text: &str| inert(text).len() <= MAX_DESCRIPTION_BYTES;
    let description = text::alert_text_within(alert, context.delivery_id, fits);
    let description = inert(&description);
    let is_whole = description.len() <= MAX_DESCRIPTION_BYTES;
    let room_bytes = MAX_DESCRIPTION_BYTES - if is_whole { 0 } else { COUNT_BYTES };
    let description = text::lines_within(&description, room_bytes, |line| line.len() + 1).join("\n");
    let response: Vec<String> = text::response_lines(&alert.rule.response).iter().map(|line| inert(line)).collect();
    let headline = format!("{}: {}", text::severity_word(alert.rule.severity), text::title(alert));
    let annotations = [
        ("summary", inert(&headline)),
        ("description", description),
        ("response", response.join("\n")),
        ("delivery_id", context.delivery_id.to_owned()),
    ];
    annotations.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name.to_owned(), text)).collect()
}

/// Notifications show labels, and make links of what looks like one.
fn shown(value: &str) -> String {
    single_line(&inert(value), MAX_VALUE_CHARS).trim().to_owned()
}

/// Alertmanager's own templates put texts into chats as they are: `<!channel>` would wake everybody.
fn inert(text: &str) -> String {
    defang(text).replace('<', "‹").replace('>', "›")
}

/// A name as Prometheus takes it: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub(super) fn label_name(field: &str) -> String {
    let mapped = field.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '_' });
    let starts_with_digit = field.starts_with(|character: char| character.is_ascii_digit());
    let name: String = starts_with_digit.then_some('_').into_iter().chain(mapped).take(MAX_LABEL_NAME_CHARS).collect();
    if name.is_empty() { "_".to_owned() } else { name }
}
