//! What keeps an alert from being told: silences and inhibitions. Pure decisions; who holds what is the pipeline's.
//!
//! A muted alert is never forgotten: whoever asks these functions stores it with what muted it. Doubt is decided for telling:
//! a condition that cannot be evaluated mutes nothing.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::diagnostic::{Diagnostics, code};
use crate::event::FieldPath;
use crate::route::load::{alert_condition, alert_fields, from_matchers};
use crate::route::matcher::{self, Matcher};
use crate::route::{AlertCondition, AlertView};
use crate::rule::Lists;
use crate::yaml::Node;
use crate::yaml::fields::{Fields, KnownKey, names_of, wrong_kind};

/// Most inhibitions: each alert is held against all of them.
pub const MAX_INHIBITIONS: usize = 200;

/// What an inhibition may say.
pub const KEYS: [KnownKey; 3] = [
    KnownKey {
        name: "source",
        takes: "conditions or matchers",
        default: "required",
        help: "the alert that holds others back, for as long as it is open",
    },
    KnownKey {
        name: "target",
        takes: "conditions or matchers",
        default: "required",
        help: "the alerts that are held back; not those that fit `source` too",
    },
    KnownKey {
        name: "equal",
        takes: "fields",
        default: "required",
        help: "of which both must have the same values; an alert without one of them is told",
    },
];

/// Alerts that fit it are not told from one time to another.
#[derive(Debug, Clone)]
pub struct Silence {
    matchers: Vec<Matcher>,
    condition: AlertCondition,
    starts_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
}

/// While an alert that fits `source` is open, those that fit `target` and have the same values are not told.
#[derive(Debug, Clone)]
pub struct Inhibition {
    /// `vigie.yaml:31`, for people.
    pub place: String,
    /// Hash of what it asks, so that what is kept of it outlives a change of the others.
    pub identity: String,
    source: AlertCondition,
    target: AlertCondition,
    equal: Vec<FieldPath>,
}

impl Silence {
    /// Of matchers as a person writes them.
    ///
    /// # Errors
    /// What is wrong with them, in a sentence.
    pub fn new(text: &str, starts_at: DateTime<Utc>, ends_at: DateTime<Utc>) -> Result<Self, String> {
        let matchers = matcher::parse(text)?;
        // As Alertmanager has it: such a silence hides everything, this program's own alarms included.
        if matchers.iter().all(Matcher::fits_nothing) {
            return Err("the matchers fit an alert without any of these fields: add one that says which alerts".into());
        }
        let condition = AlertCondition::new(matcher::condition(&matchers)?);
        Ok(Self { matchers, condition, starts_at, ends_at })
    }

    /// Whether it is in force.
    #[must_use]
    pub fn is_active(&self, now: DateTime<Utc>) -> bool {
        self.starts_at <= now && now < self.ends_at
    }

    /// Whether it is about this alert, whatever the time.
    #[must_use]
    pub fn fits(&self, view: &AlertView) -> bool {
        self.condition.holds(view) == Some(true)
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&matcher::written(&self.matchers))
    }
}

impl Inhibition {
    /// What an open alert holds down others by: the values that they must share. `None` when it holds down nothing.
    #[must_use]
    pub fn held_by(&self, view: &AlertView) -> Option<String> {
        self.source.holds(view).filter(|holds| *holds)?;
        view.key(&self.equal)
    }

    /// By which values this alert would be held down. An alert that fits both sides is never held down by its like: each of
    /// two would hide the other.
    #[must_use]
    pub fn held_down(&self, view: &AlertView) -> Option<String> {
        let is_target = self.target.holds(view) == Some(true) && self.source.holds(view) == Some(false);
        is_target.then(|| view.key(&self.equal)).flatten()
    }
}

/// Reads the `inhibit:` list of the configuration. Entries with mistakes are reported and left out.
pub fn load(node: &Node, lists: &Lists, diagnostics: &mut Diagnostics) -> Vec<Inhibition> {
    let Some(items) = node.items() else {
        wrong_kind(node, "`inhibit`", "a list", "begin each inhibition with `- `", diagnostics);
        return Vec::new();
    };
    if items.len() > MAX_INHIBITIONS {
        let message = format!("there are {} inhibitions; at most {MAX_INHIBITIONS} are allowed", items.len());
        diagnostics.error(code::WRONG_KIND, &node.span, message, Some("join them with `any:`".into()));
        return Vec::new();
    }
    items.iter().filter_map(|item| inhibition(item, lists, diagnostics)).collect()
}

fn inhibition(node: &Node, lists: &Lists, diagnostics: &mut Diagnostics) -> Option<Inhibition> {
    let fields = Fields::of(node, "an inhibition", &names_of(&KEYS), diagnostics)?;
    let source = side("source", &fields, lists, diagnostics);
    let target = side("target", &fields, lists, diagnostics);
    let equal = alert_fields("equal", &fields, diagnostics);
    let place = format!("{}:{}", node.span.path, node.span.line);
    let (source, target, equal) = (source?, target?, equal?);
    let mut hasher = blake3::Hasher::new();
    source.meaning(&mut hasher);
    target.meaning(&mut hasher);
    for field in &equal {
        hasher.update(&(field.as_str().len() as u64).to_le_bytes());
        hasher.update(field.as_str().as_bytes());
    }
    let identity = hasher.finalize().to_hex().chars().take(16).collect();
    Some(Inhibition { place, identity, source, target, equal })
}

/// One side: a map as `match`, or a text in the notation of Alertmanager.
fn side(key: &str, fields: &Fields<'_>, lists: &Lists, diagnostics: &mut Diagnostics) -> Option<AlertCondition> {
    let node = fields.required(key, diagnostics)?;
    let condition = match node.text() {
        Some(text) => from_matchers(text, node, diagnostics),
        None => alert_condition(node, &format!("`{key}`"), lists, diagnostics),
    };
    condition.map(AlertCondition::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::SourceFile;
    use crate::route::tests::alert;
    use crate::rule::Severity;
    use crate::yaml;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a stamp")
    }

    fn inhibitions(text: &str) -> (Vec<Inhibition>, String) {
        let mut diagnostics = Diagnostics::default();
        let node =
            yaml::parse(&SourceFile { path: "v.yaml".into(), text: text.into() }, &mut diagnostics).expect("a tree");
        let loaded = load(&node, &Lists::default(), &mut diagnostics);
        (loaded, format!("{:?}", diagnostics.sorted()))
    }

    #[test]
    fn a_silence_fits_what_its_matchers_say_and_holds_for_its_time() {
        let silence =
            |text: &str| Silence::new(text, at("2026-11-26T10:00:00Z"), at("2026-11-26T12:00:00Z")).expect("reads");
        let view = AlertView::of(&alert(Severity::High, "acc1", r#"{"user_email": "bob@example.org"}"#));
        for (text, fits) in [
            ("severity=high", true),
            ("severity=HIGH", false),
            ("severity=~\"high|critical\"", true),
            ("severity=~\"hi\"", false),
            ("rule=~\"secret-.*\", account=acc1", true),
            ("rule=~\"secret-.*\", account=acc2", false),
            ("tags=vonage", true),
            ("event.user_email=\"bob@example.org\"", true),
            ("event.user_email=\"b*\"", false),
            ("rule=secret-created, severity!=high", false),
            ("rule=secret-created, tags!~\"attack.*\"", false),
            ("rule=secret-created, event.nothing=\"\"", true),
            ("event.nothing!=\"\"", false),
            ("rule=secret-created, event.nothing!=\"x\"", true),
            ("rule=secret-created, event.user_email=~\".*\"", true),
        ] {
            assert_eq!(silence(text).fits(&view), fits, "{text}");
        }
        let silence = silence("severity=high");
        let active = ["09:59:59", "10:00:00", "11:59:59", "12:00:00"];
        let active = active.map(|time| silence.is_active(at(&format!("2026-11-26T{time}Z"))));
        assert_eq!(active, [false, true, true, false]);
        assert_eq!(silence.to_string(), "{severity=\"high\"}");
    }

    #[test]
    fn an_event_that_leaves_no_room_is_not_silenced_by_what_it_may_hold() {
        let event = format!(r#"{{"a": "{}"}}"#, "x".repeat(crate::event::MAX_EVENT_BYTES - 10));
        let view = AlertView::of(&alert(Severity::High, "acc1", &event));
        let fits = |text| Silence::new(text, DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH).expect("reads").fits(&view);
        assert!(fits("severity=high") && !fits("event.a=~\"x+\"") && !fits("severity=high, event.b=\"\""));
        for everything in ["title=~\".*\"", "event.x=\"\"", "severity!=high", "rule!~a, title=~\"b?\""] {
            let refused = Silence::new(everything, DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH);
            assert!(refused.is_err_and(|error| error.contains("without any of these fields")), "{everything}");
        }
    }

    #[test]
    fn an_inhibition_holds_down_others_with_the_same_values_and_never_its_like() {
        let (loaded, told) =
            inhibitions("- {source: 'severity=\"critical\"', target: {severity|neq: info}, equal: [account]}");
        let [inhibition] = loaded.as_slice() else { panic!("{told}") };
        let view = |severity, account| AlertView::of(&alert(severity, account, "{}"));
        let held = inhibition.held_by(&view(Severity::Critical, "acc1")).expect("holds");
        assert_eq!(inhibition.held_down(&view(Severity::High, "acc1")), Some(held.clone()));
        assert_ne!(inhibition.held_down(&view(Severity::High, "acc2")), Some(held));
        assert_eq!(inhibition.held_down(&view(Severity::Critical, "acc1")), None, "its like");
        assert_eq!(inhibition.held_down(&view(Severity::Info, "acc1")), None);
        assert_eq!(inhibition.held_by(&view(Severity::High, "acc1")), None);
        let (again, _) = inhibitions(
            "- {source: 'rule=a', target: {rule: b}, equal: [account]}\n- {source: 'severity=\"critical\"', target: {severity|neq: info}, equal: [account]}",
        );
        assert_eq!(again.iter().position(|other| other.identity == inhibition.identity), Some(1), "wherever it stands");
    }

    #[test]
    fn each_mistake_is_told() {
        let (loaded, told) =
            inhibitions("- {source: 'sev=a', target: {nothing: b}, equal: [c]}\n- {target: {rule: a}}\n");
        assert!(loaded.is_empty());
        for code in ["E0242", "E0241", "E0202"] {
            assert!(told.contains(code), "{code}: {told}");
        }
    }
}
