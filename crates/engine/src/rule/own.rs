//! Which rules look at the program's own events: those that name them.
//!
//! A rule over everything (`event_type: "*"`, `source_country|neq: GB`) means everything that happens to an account. Without
//! this line it would also alert on each notice that the program gives about itself, and on the notices about those alerts.

use std::sync::Arc;

use chrono::DateTime;

use super::event_type::OWN_PREFIX;
use crate::condition::{Condition, Test};
use crate::event::Event;

/// Name of the source of the program's own events.
pub const OWN_SOURCE: &str = "vigie";
/// The field by which a rule asks for it.
const SOURCE_FIELD: &str = "source";

/// Whether a condition asks for the program's own events: it tests `source` for `vigie`, or names a type `VIGIE_...`
/// (`event_types`: the patterns that stand outside of a negation, upper case).
pub(crate) fn names_own(when: &Condition, event_types: &[String]) -> bool {
    let by_type = |pattern: &String| {
        let own = OWN_PREFIX.trim_end_matches('_');
        pattern.strip_prefix(own).is_some_and(|rest| rest.starts_with(['_', '*']))
    };
    event_types.iter().any(by_type) || names_source(when, true)
}

fn names_source(condition: &Condition, is_positive: bool) -> bool {
    match condition {
        Condition::All(parts) | Condition::Any(parts) => parts.iter().any(|part| names_source(part, is_positive)),
        Condition::Not(part) => names_source(part, !is_positive),
        Condition::Test(test) => {
            // What any source would fit (`*`, `exists`) names none.
            let is_positive = is_positive != test.is_negated();
            is_positive && test.field() == SOURCE_FIELD && fits(test, OWN_SOURCE) && !fits(test, "\u{1}")
        }
        Condition::During(_) => false,
    }
}

fn fits(test: &Test, source: &str) -> bool {
    let raw = serde_json::json!({ SOURCE_FIELD: source }).to_string();
    Event::new("", DateTime::UNIX_EPOCH, Arc::from(raw)).is_ok_and(|event| test.fits(&event, &mut 0))
}

#[cfg(test)]
mod tests {
    use crate::diagnostic::{Diagnostics, SourceFile};
    use crate::rule::load;

    fn sees_own(when: &str) -> bool {
        let text = format!("rules:\n  - {{id: r, title: r, severity: low, when: {when}}}\n");
        let mut diagnostics = Diagnostics::default();
        let file = SourceFile { path: "r.yaml".into(), text: text.into() };
        let loaded = load(&[file], &mut |_, _| Err("no lists".into()), &mut diagnostics);
        let rule = loaded.rules.first().unwrap_or_else(|| panic!("{when}: {diagnostics:?}"));
        rule.sees_own
    }

    #[test]
    fn only_who_names_the_programs_own_events_sees_them() {
        for when in [
            "{source: vigie}",
            "{source: [CD, Vigie]}",
            "{source|startswith: vig, about: main}",
            "{source|re: '^vigie$'}",
            "{not: {source|neq: vigie}}",
            "{any: [{event_type: APP_CREATE}, {all: [{source: vigie}, {about: main}]}]}",
            "{event_type: VIGIE_POISON_EVENT}",
            "{event_type: [APP_*, vigie_*]}",
            "{event_type|startswith: VIGIE}",
        ] {
            assert!(sees_own(when), "{when}");
        }
        for when in [
            "{event_type: '*'}",
            "{source_country|neq: GB}",
            "{source: '*'}",
            "{source|exists: true}",
            "{source: CD}",
            "{source|neq: vigie}",
            "{not: {source: vigie}}",
            "{not: {event_type: VIGIE_POISON_EVENT}}",
            "{event_type|neq: VIGIE_POISON_EVENT}",
            "{event_type: VIGIERUNG}",
            "{about: main}",
        ] {
            assert!(!sees_own(when), "{when}");
        }
    }
}
