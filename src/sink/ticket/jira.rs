//! Jira: an issue, its text between two `{noformat}`.
//!
//! Version 2 of the interface takes wiki markup from both kinds of Jira. Only what an answer blames on a member that is
//! ours is the record's fault; any other member that is wrong or wanting is for the operator.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Desk, Form, Outcome, Record, apart};

/// Jira's limits: a summary, and the text of a field, both in UTF-16 units.
const MAX_SUMMARY_UNITS: usize = 255;
const MAX_DESCRIPTION_UNITS: usize = 32_767;
/// The members of an issue that come from the alert.
const OURS: [&str; 3] = ["summary", "description", "labels"];

pub(super) const DESK: Desk = Desk {
    kind: "jira",
    path: "/rest/api/2/issue",
    question: ("/rest/api/2/myself", None, "it knows who we are"),
    max_summary_units: MAX_SUMMARY_UNITS,
    max_description_units: MAX_DESCRIPTION_UNITS,
    units: char::len_utf16,
    line_units: 0,
    // The end of the block; and a mention, which is told to whom it names even from within one.
    inert: |text| apart(text, &["{noformat", "[~"]),
    block: |text| format!("{{noformat}}\n{text}\n{{noformat}}"),
    record,
    assent: "key",
    outcome,
};

fn record(record: &Record<'_>) -> Value {
    let mut fields = json!({"summary": record.summary, "description": record.description});
    // A screen without labels refuses them.
    if record.form == Form::Full {
        fields["labels"] = json!(["vigie", format!("vigie-{}", record.alert.alert_id)]);
    }
    fields
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    errors: Map<String, Value>,
}

fn outcome(answer: &Answer) -> Outcome {
    let refusal = serde_json::from_slice::<Refusal>(&answer.body).ok().filter(|_| answer.status.as_u16() == 400);
    match refusal.is_some_and(|refusal| refusal.errors.keys().any(|member| !OURS.contains(&member.as_str()))) {
        true => Outcome::Misconfigured,
        false => answer.outcome_unless(&[]),
    }
}
