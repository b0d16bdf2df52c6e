//! One rule: a map of known keys to a `Rule`, every mistake reported.
//!
//! Reading goes through all keys before it gives up, so one look shows everything that is wrong with a rule.

use crate::condition::Condition;
use crate::diagnostic::{Diagnostics, code, nearest};
use crate::rule::list::Lists;
use crate::rule::when::WhenReader;
use crate::rule::{AlertSpec, DEFAULT_QUIET, Exception, Expect, MAX_QUIET, Rule, RuleTest, Severity, own, value};
use crate::state::{self, Detection, Reading, plain_paths};
use crate::template::Template;
use crate::time;
use crate::yaml::fields::{Fields, text_of};
use crate::yaml::{Kind, Node};

/// Longest rule id: it stands in metrics, file names and subjects.
pub const MAX_RULE_ID_CHARS: usize = 80;
/// Most events of one test: a test shows a case, it is no benchmark.
pub const MAX_TEST_EVENTS: usize = 1_000;

const KEYS: &[&str] = &[
    "id",
    "title",
    "severity",
    "description",
    "tags",
    "response",
    "false_positives",
    "when",
    "unless",
    "alert",
    "tests",
    "enabled",
    "threshold",
    "distinct",
    "first_seen",
    "travel",
    "sequence",
    "absence",
    "spike",
];
/// Reads one rule. `None` when something was reported that makes it unusable.
pub(crate) fn rule(node: &Node, lists: &Lists, diagnostics: &mut Diagnostics) -> Option<Rule> {
    let fields = Fields::of(node, "a rule", KEYS, diagnostics)?;
    let id = id(&fields, diagnostics);
    let title = fields.required_text("title", diagnostics);
    let severity = severity(&fields, diagnostics);
    let mut reader = WhenReader::new(lists);
    let (when, detection) = question(&fields, &mut reader, diagnostics);
    let event_types = std::mem::take(&mut reader.event_types);
    let unless: Vec<Option<Exception>> =
        fields.list("unless", diagnostics).iter().map(|item| exception(item, lists, diagnostics)).collect();
    let unless: Option<Vec<Exception>> = unless.into_iter().collect();
    let alert = alert(&fields, diagnostics);
    let tests = tests(&fields, diagnostics);
    let texts = |name: &str, diagnostics: &mut Diagnostics| -> Vec<String> {
        fields.texts(name, diagnostics).into_iter().map(|(text, _)| text.trim_end().to_owned()).collect()
    };
    let text = |name: &str, diagnostics: &mut Diagnostics| -> String {
        fields.text(name, diagnostics).unwrap_or_default().trim_end().to_owned()
    };
    Some(Rule {
        description: text("description", diagnostics),
        tags: texts("tags", diagnostics),
        false_positives: texts("false_positives", diagnostics),
        response: text("response", diagnostics),
        enabled: fields.boolean("enabled", diagnostics).unwrap_or(true),
        span: node.span.clone(),
        sees_own: when.as_ref().is_some_and(|when| own::names_own(when, &event_types)),
        event_types,
        id: id?.to_owned(),
        title: title?.to_owned(),
        severity: severity?,
        when: when?,
        unless: unless?,
        detection: detection?,
        alert: alert?,
        tests: tests?,
    })
}

/// Which events a rule sees, and what it asks of them together. Steps of a detection name events too: then `when` may be
/// left out. The outer options are `None` after something was reported.
fn question(
    fields: &Fields<'_>,
    reader: &mut WhenReader<'_>,
    diagnostics: &mut Diagnostics,
) -> (Option<Condition>, Option<Option<Detection>>) {
    let when = fields.get("when").map(|when| reader.read_whole(when, diagnostics));
    let (detection, steps) = match state::read(fields, reader, diagnostics) {
        Reading::None => (Some(None), None),
        Reading::Bad => return (when.unwrap_or(Some(Condition::All(Vec::new()))), None),
        Reading::Good(good) => {
            let (detection, steps) = *good;
            (Some(Some(detection)), steps)
        }
    };
    let when = match (when, steps) {
        (Some(when), Some(steps)) => when.map(|when| Condition::All(vec![when, steps])),
        (Some(when), None) => when,
        (None, Some(steps)) => Some(steps),
        (None, None) => {
            fields.required("when", diagnostics);
            None
        }
    };
    (when, detection)
}

impl Severity {
    /// All severities by name, lowest first.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("info", Self::Info),
        ("low", Self::Low),
        ("medium", Self::Medium),
        ("high", Self::High),
        ("critical", Self::Critical),
    ];

    /// The severity of this name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, severity)| *severity)
    }

    /// Its name, lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Reports a name that is no severity.
pub(crate) fn severity_of(node: &Node, text: &str, diagnostics: &mut Diagnostics) -> Option<Severity> {
    let severity = Severity::from_name(text);
    if severity.is_none() {
        let names = Severity::NAMES.map(|(name, _)| name);
        let hint = match nearest(text, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of: {}", names.join(", ")),
        };
        diagnostics.error(code::BAD_SEVERITY, &node.span, format!("`{text}` is no severity"), Some(hint));
    }
    severity
}

fn id<'a>(fields: &Fields<'a>, diagnostics: &mut Diagnostics) -> Option<&'a str> {
    let id = fields.required_text("id", diagnostics)?;
    let words_are_kebab = id
        .split('-')
        .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
    if words_are_kebab && id.len() <= MAX_RULE_ID_CHARS {
        return Some(id);
    }
    let span = &fields.get("id")?.span;
    let suggestion: String =
        id.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let words: Vec<&str> = suggestion.split('-').filter(|word| !word.is_empty()).collect();
    let hint = if id.len() > MAX_RULE_ID_CHARS || words.is_empty() {
        format!(
            "lower-case words joined by `-`, at most {MAX_RULE_ID_CHARS} characters, such as `secret-created-at-night`"
        )
    } else {
        format!("lower-case words joined by `-`: `{}`", words.join("-"))
    };
    diagnostics.error(code::BAD_RULE_ID, span, format!("`{id}` is no kebab-case rule id"), Some(hint));
    None
}

fn severity(fields: &Fields<'_>, diagnostics: &mut Diagnostics) -> Option<Severity> {
    let text = fields.required_text("severity", diagnostics)?;
    severity_of(fields.get("severity")?, text, diagnostics)
}

fn exception(node: &Node, lists: &Lists, diagnostics: &mut Diagnostics) -> Option<Exception> {
    let fields = Fields::of(node, "an exception", &["when", "until", "owner", "reason"], diagnostics)?;
    let when = match fields.required("when", diagnostics) {
        Some(when) => WhenReader::new(lists).read(when, "the exception's `when`", diagnostics),
        None => None,
    };
    let owner = fields.required_text("owner", diagnostics);
    let reason = fields.required_text("reason", diagnostics);
    let mut is_until_good = true;
    let mut until = None;
    if let Some(text) = fields.text("until", diagnostics) {
        match (time::parse_stamp(text), fields.get("until")) {
            (Ok(stamp), _) => until = Some(stamp),
            (Err(problem), node) => {
                is_until_good = false;
                let span = node.map_or(fields.span, |node| &node.span);
                let hint =
                    "write a day, `2026-12-01`, or a time, `2026-12-01T18:00:00Z`; the exception ends when it begins";
                diagnostics.error(code::BAD_UNTIL, span, format!("`until`: {problem}"), Some(hint.into()));
            }
        }
    } else if fields.get("until").is_none() {
        let hint = "add `until: 2026-12-01`, so that somebody looks at it again";
        diagnostics.warning(code::ENDLESS_EXCEPTION, fields.span, "the exception has no end", Some(hint.into()));
    }
    let exception = Exception { when: when?, until, owner: owner?.to_owned(), reason: reason?.to_owned() };
    is_until_good.then_some(exception)
}

fn alert(rule: &Fields<'_>, diagnostics: &mut Diagnostics) -> Option<AlertSpec> {
    let mut spec = AlertSpec { title: None, dedup: Vec::new(), quiet: DEFAULT_QUIET };
    let Some(node) = rule.get("alert") else {
        return Some(spec);
    };
    let fields = Fields::of(node, "`alert`", &["title", "dedup", "quiet"], diagnostics)?;
    let mut is_good = true;
    if let (Some(text), Some(node)) = (fields.text("title", diagnostics), fields.get("title")) {
        match Template::compile(text) {
            Ok(template) => spec.title = Some(template),
            Err(problem) => {
                is_good = false;
                let hint = "a field is written `{{ event.source_country }}`";
                diagnostics.error(code::BAD_TEMPLATE, &node.span, problem, Some(hint.into()));
            }
        }
    }
    match plain_paths(&fields, "dedup", diagnostics) {
        Some(paths) => spec.dedup = paths,
        None => is_good = false,
    }
    match (fields.get("quiet"), fields.duration("quiet", diagnostics)) {
        (Some(node), Some(quiet)) if quiet > MAX_QUIET => {
            let hint = "30d at the most: a longer one would let one alert hide the next intruder";
            diagnostics.error(code::BAD_DEDUP, &node.span, "`quiet` is too long", Some(hint.into()));
            is_good = false;
        }
        (_, Some(quiet)) => spec.quiet = quiet,
        (Some(_), None) => is_good = false,
        (None, None) => {}
    }
    is_good.then_some(spec)
}

fn tests(rule: &Fields<'_>, diagnostics: &mut Diagnostics) -> Option<Vec<RuleTest>> {
    if rule.get("tests").is_none() {
        let hint = "add one event that must alert and one that must not";
        diagnostics.warning(code::NO_TESTS, rule.span, "the rule has no tests", Some(hint.into()));
    }
    let items = rule.list("tests", diagnostics);
    let tests: Vec<Option<RuleTest>> =
        items.iter().enumerate().map(|(index, item)| test(item, index, diagnostics)).collect();
    tests.into_iter().collect()
}

fn test(node: &Node, index: usize, diagnostics: &mut Diagnostics) -> Option<RuleTest> {
    let fields = Fields::of(node, "a test", &["name", "events", "expect"], diagnostics)?;
    let name = fields.text("name", diagnostics).map_or_else(|| format!("test {}", index + 1), str::to_owned);
    let has_events = fields.required("events", diagnostics).is_some();
    let items = fields.list("events", diagnostics);
    if items.len() > MAX_TEST_EVENTS || (has_events && items.is_empty()) {
        let message = format!("a test has 1 to {MAX_TEST_EVENTS} events, not {}", items.len());
        diagnostics.error(
            code::WRONG_KIND,
            fields.place("events"),
            message,
            Some("`events: [{event_type: ...}]`".into()),
        );
        return None;
    }
    let events: Vec<Option<serde_json::Value>> =
        items.iter().map(|item| value::json_object(item, "a test event", diagnostics)).collect();
    let expect = fields.required("expect", diagnostics).and_then(|node| expectation(node, diagnostics));
    let events: Option<Vec<serde_json::Value>> = events.into_iter().collect();
    has_events.then_some(())?;
    Some(RuleTest { name, events: events?, expect: expect?, span: node.span.clone() })
}

fn expectation(node: &Node, diagnostics: &mut Diagnostics) -> Option<Expect> {
    if node.entries().is_some() {
        let fields = Fields::of(node, "`expect`", &["alerts"], diagnostics)?;
        let count = fields.required("alerts", diagnostics)?;
        let text = text_of(count, "alerts", diagnostics)?;
        if let Ok(number) = text.parse::<usize>() {
            return Some(if number == 0 { Expect::Nothing } else { Expect::Alerts(number) });
        }
        let message = format!("`{text}` is no number of alerts");
        diagnostics.error(code::BAD_EXPECTATION, &count.span, message, Some("write `{alerts: 2}`".into()));
        return None;
    }
    let text = match &node.kind {
        Kind::Scalar(scalar) => scalar.text.as_str(),
        _ => "",
    };
    match text {
        "alert" => Some(Expect::Alert),
        "nothing" => Some(Expect::Nothing),
        _ => {
            let hint = match nearest(text, ["alert", "nothing"]) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "write `alert`, `nothing` or `{alerts: 2}`".into(),
            };
            let message = "`expect` must be `alert`, `nothing` or `{alerts: N}`";
            diagnostics.error(code::BAD_EXPECTATION, &node.span, message, Some(hint));
            None
        }
    }
}
