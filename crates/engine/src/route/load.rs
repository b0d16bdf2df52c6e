//! The `routes:` list of the configuration to routes, with the mistakes that lose alerts in mind: a sink that does not
//! exist, a route that nothing reaches, alerts that no route takes.

use super::Route;
use crate::condition::Condition;
use crate::diagnostic::{Diagnostics, Span, code, nearest};
use crate::rule::when::WhenReader;
use crate::rule::{Lists, Severity, severity_of};
use crate::yaml::Node;
use crate::yaml::fields::{Fields, wrong_kind};

/// Most routes: each alert passes them in order.
pub const MAX_ROUTES: usize = 1_000;

/// What `match` may ask for; `event.` stands for every field of the event.
const VOCABULARY: &[&str] = &["severity", "rule", "tags", "account", "source", "title", "event."];

/// Reads the `routes:` list. Routes with mistakes are reported and left out.
pub fn load(node: &Node, lists: &Lists, sink_names: &[&str], diagnostics: &mut Diagnostics) -> Vec<Route> {
    let Some(items) = node.items() else {
        wrong_kind(node, "`routes`", "a list", "begin each route with `- `", diagnostics);
        return Vec::new();
    };
    if items.len() > MAX_ROUTES {
        let message = format!("there are {} routes; at most {MAX_ROUTES} are allowed", items.len());
        diagnostics.error(code::WRONG_KIND, &node.span, message, Some("name several values in one route".into()));
        return Vec::new();
    }
    let read: Vec<Option<Route>> = items.iter().map(|item| route(item, lists, sink_names, diagnostics)).collect();
    let is_whole = read.iter().all(Option::is_some);
    let routes: Vec<Route> = read.into_iter().flatten().collect();
    report_unreachable(&routes, diagnostics);
    if is_whole {
        report_untaken(items, &routes, &node.span, diagnostics);
    }
    routes
}

fn route(node: &Node, lists: &Lists, sink_names: &[&str], diagnostics: &mut Diagnostics) -> Option<Route> {
    let fields = Fields::of(node, "a route", &["match", "to", "continue"], diagnostics)?;
    let mut is_good = true;
    let mut when = None;
    let mut reads_event = false;
    if let Some(node) = fields.get("match") {
        let before = diagnostics.count();
        check_severities(node, diagnostics);
        let condition = WhenReader::with_vocabulary(lists, VOCABULARY).read(node, "`match`", diagnostics);
        is_good = condition.is_some() && diagnostics.count() == before;
        reads_event = condition.as_ref().is_some_and(asks_for_event);
        when = condition;
    }
    let to = sinks(&fields, sink_names, diagnostics);
    let continue_ = fields.boolean("continue", diagnostics);
    is_good &= continue_.is_some() || fields.get("continue").is_none();
    let route = Route { when, to: to?, continue_: continue_.unwrap_or(false), span: node.span.clone(), reads_event };
    is_good.then_some(route)
}

/// Reports names that are no severity: they would never match.
fn check_severities(node: &Node, diagnostics: &mut Diagnostics) {
    for (key, value) in node.entries().unwrap_or_default() {
        let mut parts = key.text.split('|');
        let is_severity = parts.next() == Some("severity") && parts.all(|modifier| modifier == "neq");
        if is_severity {
            for item in value.items().unwrap_or(std::slice::from_ref(value)) {
                let text = item.text().filter(|text| !text.contains(['$', '*', '?']));
                if let Some(text) = text {
                    severity_of(item, text, diagnostics);
                }
            }
        } else if matches!(key.text.as_str(), "all" | "any" | "not") {
            for item in value.items().unwrap_or(std::slice::from_ref(value)) {
                check_severities(item, diagnostics);
            }
        }
    }
}

fn asks_for_event(condition: &Condition) -> bool {
    match condition {
        Condition::All(parts) | Condition::Any(parts) => parts.iter().any(asks_for_event),
        Condition::Not(part) => asks_for_event(part),
        Condition::Test(test) => test.field().starts_with("event") || test.key.contains("|fieldref"),
        Condition::During(_) => false,
    }
}

fn sinks(fields: &Fields<'_>, sink_names: &[&str], diagnostics: &mut Diagnostics) -> Option<Vec<String>> {
    let node = fields.required("to", diagnostics)?;
    let named = fields.texts("to", diagnostics);
    if node.items().is_some_and(<[Node]>::is_empty) {
        let hint = "name a sink; a route that only drops alerts is not possible";
        diagnostics.error(code::ROUTE_SINK, &node.span, "the route goes to no sink", Some(hint.into()));
        return None;
    }
    let mut is_good = named.len() == node.items().map_or(1, <[Node]>::len);
    for (name, place) in &named {
        if !sink_names.contains(name) {
            is_good = false;
            let hint = match nearest(name, sink_names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if sink_names.is_empty() => "no sinks are configured".into(),
                None => format!("configured are: {}", sink_names.join(", ")),
            };
            diagnostics.error(code::ROUTE_SINK, &place.span, format!("there is no sink `{name}`"), Some(hint));
        }
    }
    is_good.then(|| named.into_iter().map(|(name, _)| name.to_owned()).collect())
}

fn report_unreachable(routes: &[Route], diagnostics: &mut Diagnostics) {
    let Some(end) = routes.iter().position(|route| route.when.is_none() && !route.continue_) else {
        return;
    };
    let catch_all = routes.get(end).map(|route| route.span.line).unwrap_or_default();
    for route in routes.iter().skip(end + 1) {
        let message = format!("no alert reaches this route: the one at line {catch_all} takes them all");
        let hint = "move it up, or give the other `continue: true`";
        diagnostics.warning(code::UNREACHABLE_ROUTE, &route.span, message, Some(hint.into()));
    }
}

/// Says which alerts go nowhere, as far as severities tell.
fn report_untaken(items: &[Node], routes: &[Route], place: &Span, diagnostics: &mut Diagnostics) {
    if routes.iter().any(|route| route.when.is_none()) {
        return;
    }
    let taken: Vec<Severity> = items.iter().flat_map(taken_severities).collect();
    let open: Vec<&str> =
        Severity::NAMES.iter().filter(|(_, severity)| !taken.contains(severity)).map(|(name, _)| *name).collect();
    if open.is_empty() {
        return;
    }
    let last = routes.last().map_or(place, |route| &route.span);
    let message = if routes.is_empty() {
        "there are no routes: alerts go nowhere".to_owned()
    } else if taken.is_empty() {
        "an alert that none of these routes matches goes nowhere".to_owned()
    } else {
        format!("alerts of severity {} go nowhere unless another of these routes matches", open.join(", "))
    };
    let hint = "end the list with a route without `match`: `- to: [name]`";
    diagnostics.warning(code::NO_CATCH_ALL, last, message, Some(hint.into()));
}

/// Severities that a route takes whatever else the alert says.
fn taken_severities(route: &Node) -> Vec<Severity> {
    let entries = route.entries().unwrap_or_default();
    let condition = entries.iter().find(|(key, _)| key.text == "match").and_then(|(_, node)| node.entries());
    match condition {
        Some([(key, value)]) if key.text == "severity" => {
            let items = value.items().unwrap_or(std::slice::from_ref(value));
            items.iter().filter_map(|item| Severity::from_name(item.text()?)).collect()
        }
        _ => Vec::new(),
    }
}
