//! Detections as written: one key of a rule becomes a `Detection`, every mistake a finding at its place.

use std::time::Duration;

use ipnet::IpNet;

use super::absence::Absence;
use super::sequence::{Sequence, Step};
use super::{
    DEFAULT_LEARN, DEFAULT_MAX_KEYS, DEFAULT_MEMORY, Detection, Distinct, FirstSeen, MAX_OBSERVATIONS, Question, Spike,
    Threshold, Travel, micros,
};
use crate::condition::{Condition, Literal, parse_address};
use crate::diagnostic::{Diagnostics, Span, code};
use crate::event::FieldPath;
use crate::yaml::fields::Fields;
use crate::yaml::{Key, Kind, Node};

/// The keys of a rule that hold a detection.
pub(crate) const KINDS: &[&str] = &["threshold", "distinct", "first_seen", "travel", "sequence", "absence", "spike"];

/// Longest window: what is noted for it must stay in memory.
pub const MAX_WINDOW: Duration = Duration::from_secs(90 * 86_400);
/// Longest `memory`, `learn` and `baseline`.
const MAX_PAST: Duration = Duration::from_secs(400 * 86_400);
/// Most steps of a sequence: each is a bit of a noted event, and nobody reads longer ones.
pub const MAX_STEPS: usize = 16;
/// Highest `max_keys`: about 200 bytes of memory each.
pub const MAX_KEYS_LIMIT: usize = 5_000_000;
/// Most windows of a baseline; a row holds four counts for each.
const MAX_BASELINE_WINDOWS: u32 = 1_000;
/// Shortest `learn` that is not 0: events may come late by the first look-back.
const MIN_LEARN: Duration = Duration::from_secs(3_600);

/// Reads the parts of a detection that stand for something else: conditions and lists.
pub(crate) trait PartReader {
    /// A condition.
    fn condition(&mut self, node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Option<Condition>;
    /// Values, lists put in, and the place of each.
    fn list(&mut self, key: &Key, node: &Node, diagnostics: &mut Diagnostics) -> Option<(Vec<Literal>, Vec<Span>)>;
}

/// What the keys of a rule say about its detection.
#[derive(Debug)]
pub(crate) enum Reading {
    /// A plain rule.
    None,
    /// Something was reported.
    Bad,
    /// A detection, and the condition that selects its events where its steps say that.
    Good(Box<(Detection, Option<Condition>)>),
}

/// Reads the detection of a rule.
pub(crate) fn read(rule: &Fields<'_>, parts: &mut dyn PartReader, diagnostics: &mut Diagnostics) -> Reading {
    let mut found = rule.entries().iter().filter(|(key, _)| KINDS.contains(&key.text.as_str()));
    let Some((key, node)) = found.next() else { return Reading::None };
    let mut is_good = true;
    for (second, _) in found {
        let message = format!("a rule has one detection, this one has `{}` and `{}`", key.text, second.text);
        let hint = "make two rules of it; a `sequence` may follow several kinds of events";
        diagnostics.error(code::SECOND_DETECTION, &second.span, message, Some(hint.into()));
        is_good = false;
    }
    let what = format!("`{}`", key.text);
    let read = match key.text.as_str() {
        "threshold" => threshold(node, &what, diagnostics),
        "distinct" => distinct(node, &what, diagnostics),
        "first_seen" => first_seen(node, &what, diagnostics),
        "travel" => travel(node, &what, parts, diagnostics),
        "sequence" => sequence(node, &what, parts, diagnostics),
        "absence" => absence(node, &what, parts, diagnostics),
        _ => spike(node, &what, diagnostics),
    };
    match read {
        Some(read) if is_good => Reading::Good(Box::new((read.detection, read.when))),
        _ => Reading::Bad,
    }
}

/// A detection and the events that its steps name.
struct Read {
    detection: Detection,
    when: Option<Condition>,
}

/// What all detections have.
struct Common {
    by: Option<Vec<FieldPath>>,
    max_keys: Option<usize>,
}

impl Common {
    fn read(fields: &Fields<'_>, diagnostics: &mut Diagnostics) -> Self {
        let by = plain_paths(fields, "by", diagnostics);
        let max_keys = match fields.get("max_keys") {
            Some(_) => count(fields, "max_keys", 1..=MAX_KEYS_LIMIT, diagnostics),
            None => Some(DEFAULT_MAX_KEYS),
        };
        Self { by, max_keys }
    }

    fn with(self, question: Question) -> Option<Read> {
        Some(Read { detection: Detection::new(question, self.by?, self.max_keys?), when: None })
    }
}

fn threshold(node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Option<Read> {
    let fields = Fields::of(node, what, &["count", "within", "by", "max_keys"], diagnostics)?;
    let common = Common::read(&fields, diagnostics);
    let count = required_count(&fields, "count", diagnostics);
    let within = required_window(&fields, "within", diagnostics);
    common.with(Question::Threshold(Threshold { count: count?, within_us: within? }))
}

fn distinct(node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Option<Read> {
    let fields = Fields::of(node, what, &["field", "count", "within", "by", "max_keys"], diagnostics)?;
    let common = Common::read(&fields, diagnostics);
    fields.required("field", diagnostics);
    let field = plain_paths(&fields, "field", diagnostics).and_then(|mut paths| paths.pop());
    let count = required_count(&fields, "count", diagnostics);
    let within = required_window(&fields, "within", diagnostics);
    common.with(Question::Distinct(Distinct { field: field?, count: count?, within_us: within? }))
}

fn first_seen(node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Option<Read> {
    let fields = Fields::of(node, what, &["of", "by", "memory", "learn", "max_keys"], diagnostics)?;
    let common = Common::read(&fields, diagnostics);
    fields.required("of", diagnostics);
    let of = plain_paths(&fields, "of", diagnostics).filter(|of| !of.is_empty());
    let memory = span_or(&fields, "memory", DEFAULT_MEMORY, MIN_LEARN..=MAX_PAST, diagnostics);
    let learn = match fields.get("learn") {
        // Not learning at all is the one choice below the bound.
        Some(node) if node.text().is_some_and(|text| crate::time::parse_duration(text) == Ok(Duration::ZERO)) => {
            Some(0)
        }
        _ => span_or(&fields, "learn", DEFAULT_LEARN, MIN_LEARN..=MAX_PAST, diagnostics),
    };
    common.with(Question::FirstSeen(FirstSeen { of: of?, memory_us: memory?, learn_us: learn? }))
}

fn travel(node: &Node, what: &str, parts: &mut dyn PartReader, diagnostics: &mut Diagnostics) -> Option<Read> {
    const KEYS: &[&str] = &["by", "faster_than_kmh", "further_than_km", "ignore", "max_keys"];
    let fields = Fields::of(node, what, KEYS, diagnostics)?;
    fields.required("by", diagnostics);
    let common = Common::read(&fields, diagnostics);
    let number = |name: &str, default: u32, diagnostics: &mut Diagnostics| match fields.get(name) {
        None => Some(default),
        Some(_) => count(&fields, name, 1..=100_000, diagnostics).and_then(|number| u32::try_from(number).ok()),
    };
    let faster_than_kmh = number("faster_than_kmh", 900, diagnostics);
    let further_than_km = number("further_than_km", 500, diagnostics);
    let (ignore, ignore_asn) = ignored(&fields, parts, diagnostics)?;
    common.with(Question::Travel(Travel {
        faster_than_kmh: faster_than_kmh?,
        further_than_km: further_than_km?,
        ignore,
        ignore_asn,
    }))
}

/// Networks (`192.0.2.0/24`, single addresses too) and autonomous systems (`AS64500`).
fn ignored(
    fields: &Fields<'_>,
    parts: &mut dyn PartReader,
    diagnostics: &mut Diagnostics,
) -> Option<(Vec<IpNet>, Vec<u32>)> {
    let (mut networks, mut systems, mut is_good) = (Vec::new(), Vec::new(), true);
    let entry = fields.entries().iter().find(|(key, node)| key.text == "ignore" && !node.is_null());
    let Some((key, node)) = entry else { return Some((networks, systems)) };
    let (values, spans) = parts.list(key, node, diagnostics)?;
    for (value, span) in values.iter().zip(&spans) {
        let text = value.written();
        let network = text.parse::<IpNet>().ok().or_else(|| parse_address(text).map(IpNet::from));
        let system =
            text.get(..2).filter(|start| start.eq_ignore_ascii_case("as")).and_then(|_| text.get(2..)?.parse().ok());
        match (network, system) {
            (Some(network), _) => networks.push(network),
            (None, Some(system)) => systems.push(system),
            (None, None) => {
                let hint = "write networks like `192.0.2.0/24` and autonomous systems like `AS64500`";
                let message = format!("`{text}` is no network and no autonomous system");
                diagnostics.error(code::BAD_DETECTION, span, message, Some(hint.into()));
                is_good = false;
            }
        }
    }
    is_good.then_some((networks, systems))
}

fn sequence(node: &Node, what: &str, parts: &mut dyn PartReader, diagnostics: &mut Diagnostics) -> Option<Read> {
    let fields = Fields::of(node, what, &["by", "within", "steps", "max_keys"], diagnostics)?;
    let common = Common::read(&fields, diagnostics);
    let within = required_window(&fields, "within", diagnostics);
    fields.required("steps", diagnostics);
    let items = fields.list("steps", diagnostics);
    let steps: Vec<Option<Step>> =
        items.iter().enumerate().map(|(index, item)| step(item, index, parts, diagnostics)).collect();
    if fields.get("steps").is_some_and(|node| node.items().is_some()) {
        let present = items.iter().filter(|item| !is_absent(item)).count();
        let problem = match items.len() {
            0 | 1 => Some("a sequence has two steps or more".to_owned()),
            many if many > MAX_STEPS => Some(format!("a sequence has at most {MAX_STEPS} steps")),
            _ if present == 0 => Some("at least one step must not be absent".to_owned()),
            _ => None,
        };
        if let Some(problem) = problem {
            let hint =
                "write `- {when: {event_type: A}}` for each step, with `absent: true` for one that must not come";
            diagnostics.error(code::BAD_DETECTION, fields.place("steps"), problem, Some(hint.into()));
            return None;
        }
    }
    let steps: Vec<Step> = steps.into_iter().collect::<Option<_>>()?;
    let when = Condition::Any(steps.iter().map(|step| step.when.clone()).collect());
    let read = common.with(Question::Sequence(Sequence { steps, within_us: within? }))?;
    Some(Read { when: Some(when), ..read })
}

fn is_absent(node: &Node) -> bool {
    let absent = node.entries().and_then(|entries| entries.iter().find(|(key, _)| key.text == "absent"));
    matches!(absent, Some((_, Node { kind: Kind::Scalar(scalar), .. })) if scalar.boolean() == Some(true))
}

fn step(node: &Node, index: usize, parts: &mut dyn PartReader, diagnostics: &mut Diagnostics) -> Option<Step> {
    let fields = Fields::of(node, "a step", &["name", "when", "absent"], diagnostics)?;
    let name = fields.text("name", diagnostics).map_or_else(|| format!("step {}", index + 1), str::to_owned);
    let absent = fields.boolean("absent", diagnostics).unwrap_or(false);
    let when = parts.condition(fields.required("when", diagnostics)?, "the step's `when`", diagnostics)?;
    Some(Step { name, when, absent })
}

fn absence(node: &Node, what: &str, parts: &mut dyn PartReader, diagnostics: &mut Diagnostics) -> Option<Read> {
    let fields = Fields::of(node, what, &["after", "expect", "within", "by", "max_keys"], diagnostics)?;
    let common = Common::read(&fields, diagnostics);
    let within = required_window(&fields, "within", diagnostics);
    let mut part = |name: &str, diagnostics: &mut Diagnostics| {
        fields.get(name).map(|node| parts.condition(node, &format!("`{name}`"), diagnostics))
    };
    let (after, expect) = (part("after", diagnostics), part("expect", diagnostics));
    match (after, expect) {
        (None, None) => common.with(Question::Absence(Absence::silence(within?))),
        (Some(after), Some(expect)) => {
            let (after, expect) = (after?, expect?);
            let when = Condition::Any(vec![after.clone(), expect.clone()]);
            let read = common.with(Question::Absence(Absence::expecting(after, expect, within?)))?;
            Some(Read { when: Some(when), ..read })
        }
        (after, _) => {
            let (has, lacks) = if after.is_some() { ("after", "expect") } else { ("expect", "after") };
            let hint = "write both, or neither: then any event that `when` selects is expected again and again";
            let message = format!("{what} has `{has}` but no `{lacks}`");
            diagnostics.error(code::MISSING_KEY, fields.span, message, Some(hint.into()));
            None
        }
    }
}

fn spike(node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Option<Read> {
    let fields = Fields::of(node, what, &["ratio", "at_least", "window", "baseline", "by", "max_keys"], diagnostics)?;
    let common = Common::read(&fields, diagnostics);
    let ratio = fields.required("ratio", diagnostics).and_then(|node| match &node.kind {
        Kind::Scalar(scalar) => {
            scalar.number().filter(|ratio| ratio.is_finite() && (1.0..=1_000_000.0).contains(ratio))
        }
        _ => None,
    });
    if let (None, Some(node)) = (ratio, fields.get("ratio")) {
        let hint = "write how many times the average is too many, such as `ratio: 5`";
        diagnostics.error(code::BAD_DETECTION, &node.span, "`ratio` must be a number from 1 on", Some(hint.into()));
    }
    let at_least = required_count(&fields, "at_least", diagnostics);
    let window = required_window(&fields, "window", diagnostics);
    fields.required("baseline", diagnostics);
    let baseline = fields.duration("baseline", diagnostics).map(micros);
    if let (Some(window), Some(baseline), Some(node)) = (window, baseline, fields.get("baseline"))
        && !(window.saturating_mul(4)..=window.saturating_mul(i64::from(MAX_BASELINE_WINDOWS))).contains(&baseline)
    {
        let message = format!("`baseline` must be 4 to {MAX_BASELINE_WINDOWS} windows long");
        let hint = "with a window of 1h, `baseline: 7d` is usual";
        diagnostics.error(code::BAD_DETECTION, &node.span, message, Some(hint.into()));
        return None;
    }
    common.with(Question::Spike(Spike {
        ratio: ratio?,
        at_least: u32::try_from(at_least?).ok()?,
        window_us: window?,
        baseline_us: baseline?,
    }))
}

/// Plain field paths, one or a list; empty when the key is absent, `None` when something was reported.
pub(crate) fn plain_paths(fields: &Fields<'_>, name: &str, diagnostics: &mut Diagnostics) -> Option<Vec<FieldPath>> {
    let before = diagnostics.count();
    let texts = fields.texts(name, diagnostics);
    let mut paths = Vec::new();
    for (text, node) in texts {
        match FieldPath::parse(text) {
            Ok(path) if !text.contains(['|', '*', '{']) => paths.push(path),
            parsed => {
                let message = parsed.err().unwrap_or_else(|| format!("`{text}` is no field path"));
                let hint = "write paths as in `account_id` or `context.app.id`, without modifiers and wildcards";
                diagnostics.error(code::BAD_DEDUP, &node.span, message, Some(hint.into()));
            }
        }
    }
    (diagnostics.count() == before).then_some(paths)
}

fn required_count(fields: &Fields<'_>, name: &str, diagnostics: &mut Diagnostics) -> Option<usize> {
    fields.required(name, diagnostics)?;
    count(fields, name, 2..=MAX_OBSERVATIONS, diagnostics)
}

fn count(
    fields: &Fields<'_>,
    name: &str,
    bounds: std::ops::RangeInclusive<usize>,
    diagnostics: &mut Diagnostics,
) -> Option<usize> {
    let node = fields.get(name)?;
    let number = node.text().and_then(|text| text.parse::<usize>().ok()).filter(|number| bounds.contains(number));
    if number.is_none() {
        let message = format!("`{name}` must be a whole number from {} to {}", bounds.start(), bounds.end());
        let hint = match name {
            "count" => "one event alone needs no detection: leave it out; for many more, use `spike`",
            _ => "write digits only",
        };
        diagnostics.error(code::BAD_DETECTION, &node.span, message, Some(hint.into()));
    }
    number
}

fn required_window(fields: &Fields<'_>, name: &str, diagnostics: &mut Diagnostics) -> Option<i64> {
    fields.required(name, diagnostics)?;
    bounded_span(fields, name, Duration::from_secs(1)..=MAX_WINDOW, diagnostics)
}

fn span_or(
    fields: &Fields<'_>,
    name: &str,
    default: Duration,
    bounds: std::ops::RangeInclusive<Duration>,
    diagnostics: &mut Diagnostics,
) -> Option<i64> {
    if fields.get(name).is_none() { Some(micros(default)) } else { bounded_span(fields, name, bounds, diagnostics) }
}

fn bounded_span(
    fields: &Fields<'_>,
    name: &str,
    bounds: std::ops::RangeInclusive<Duration>,
    diagnostics: &mut Diagnostics,
) -> Option<i64> {
    let span = fields.duration(name, diagnostics)?;
    if bounds.contains(&span) {
        return Some(micros(span));
    }
    let shown = crate::time::format_duration;
    let message = format!("`{name}` must lie between {} and {}", shown(*bounds.start()), shown(*bounds.end()));
    let hint = "a window without an end would never forget; choose how far back it matters";
    diagnostics.error(code::BAD_DETECTION, &fields.get(name)?.span, message, Some(hint.into()));
    None
}
