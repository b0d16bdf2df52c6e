//! The `routes:` list of the configuration to routes, with the mistakes that lose alerts in mind: a sink that does not
//! exist, a route that nothing reaches, alerts that no route takes.

use std::time::Duration;

use super::matcher;
use super::view::{AlertCondition, VOCABULARY};
use super::{Fallback, Repeat, Route};
use crate::condition::{Condition, During};
use crate::diagnostic::{Diagnostics, Span, code, nearest};
use crate::event::FieldPath;
use crate::rule::when::{WhenReader, during};
use crate::rule::{Lists, Severity, severity_of};
use crate::yaml::Node;
use crate::yaml::fields::{Fields, KnownKey, names_of, wrong_kind};

/// Most routes in all: each alert passes them in order.
pub const MAX_ROUTES: usize = 1_000;
/// How long a sink has before its fallback is told too, unless `after` says otherwise.
pub const DEFAULT_AFTER: Duration = Duration::from_secs(120);
/// Below this every hiccup of a network would be told twice; beyond it nobody waits.
pub(super) const AFTER: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(24 * 3600));
/// How long `dedup` of a route holds, unless `quiet` says otherwise.
pub const DEFAULT_QUIET: Duration = Duration::from_secs(3600);
/// A person who is not told again for longer has been told nothing.
pub(super) const QUIET: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(7 * 86_400));
/// Most fields of a route's `dedup`.
const MAX_DEDUP_FIELDS: usize = 8;
/// Most time windows of one route.
const MAX_MUTE_WINDOWS: usize = 16;
/// What a route may say.
pub const KEYS: [KnownKey; 10] = [
    KnownKey {
        name: "match",
        takes: "conditions",
        default: "",
        help: "which alerts, as `when` of a rule asks it, of the fields below; every alert without it",
    },
    KnownKey {
        name: "matchers",
        takes: "matchers",
        default: "",
        help: "the same as Alertmanager writes it, such as `severity=~\"high|critical\"`; with `match`, both must hold",
    },
    KnownKey {
        name: "to",
        takes: "names of sinks",
        default: "",
        help: "where they go; its parent's sinks where it names none",
    },
    KnownKey {
        name: "continue",
        takes: "true or false",
        default: "false",
        help: "whether the routes behind it see the alert too",
    },
    KnownKey {
        name: "fallback",
        takes: "names of sinks",
        default: "",
        help: "where an alert goes too that a sink did not confirm in time, with a note why; its parent's where it says \
               nothing, none with `[]`",
    },
    KnownKey {
        name: "after",
        takes: "duration, 10s to 1d",
        default: "2m",
        help: "how long a sink has before `fallback`",
    },
    KnownKey {
        name: "dedup",
        takes: "fields",
        default: "",
        help: "alerts with the same values are told once in `quiet`; its parent's where it says nothing, none with `[]`",
    },
    KnownKey { name: "quiet", takes: "duration, 1m to 7d", default: "1h", help: "how long `dedup` holds" },
    KnownKey {
        name: "mute",
        takes: "time windows",
        default: "",
        help: "`days`, `hours`, `tz`: what is raised then waits, and is told in a digest at the end of the window",
    },
    KnownKey {
        name: "routes",
        takes: "routes",
        default: "",
        help: "the first of them that takes the alert has it; with none it goes to this one's sinks",
    },
];

/// What a route takes over from the one that it stands in.
#[derive(Clone, Default)]
struct Inherited {
    to: Vec<String>,
    fallback: Option<Fallback>,
    repeat: Option<Repeat>,
}

struct Loader<'a> {
    lists: &'a Lists,
    sink_names: &'a [&'a str],
}

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
    let loader = Loader { lists, sink_names };
    let read: Vec<Option<Route>> =
        items.iter().map(|item| loader.route(item, &Inherited::default(), diagnostics)).collect();
    let is_whole = read.iter().all(Option::is_some);
    let routes: Vec<Route> = read.into_iter().flatten().collect();
    let count = counted(&routes);
    if count > MAX_ROUTES {
        let message = format!("there are {count} routes; at most {MAX_ROUTES} are allowed");
        diagnostics.error(code::WRONG_KIND, &node.span, message, Some("name several values in one route".into()));
        return Vec::new();
    }
    report_unreachable(&routes, diagnostics);
    if is_whole {
        report_untaken(items, &routes, &node.span, diagnostics);
    }
    routes
}

fn counted(routes: &[Route]) -> usize {
    routes.iter().map(|route| 1 + counted(&route.routes)).sum()
}

impl Loader<'_> {
    fn route(&self, node: &Node, above: &Inherited, diagnostics: &mut Diagnostics) -> Option<Route> {
        let before = diagnostics.count();
        let fields = Fields::of(node, "a route", &names_of(&KEYS), diagnostics)?;
        let when = self.condition(&fields, diagnostics);
        let to = self.to(&fields, above, diagnostics);
        let continue_ = fields.boolean("continue", diagnostics).unwrap_or(false);
        let fallback = self.fallback(&fields, to.as_deref().unwrap_or_default(), above, diagnostics);
        let repeat = repeat(&fields, above, diagnostics);
        let mute = mute(&fields, diagnostics);
        let inherited = Inherited { to: to.clone().unwrap_or_default(), fallback, repeat };
        let below = fields.list("routes", diagnostics);
        let routes: Vec<Option<Route>> = below.iter().map(|item| self.route(item, &inherited, diagnostics)).collect();
        let Inherited { to, fallback, repeat } = inherited;
        // What leads to the route's own sinks is none for it, and still one for the routes below that have others.
        let fallback = fallback.filter(|fallback| !leads_nowhere(&fallback.to, &to));
        let route = Route {
            when,
            to,
            continue_,
            fallback,
            repeat,
            mute,
            routes: routes.into_iter().flatten().collect(),
            span: node.span.clone(),
        };
        let is_good = diagnostics.count() == before;
        report_unreachable(&route.routes, diagnostics);
        is_good.then_some(route)
    }

    /// `match` and `matchers`: both must hold. `None` for every alert, and after a mistake.
    fn condition(&self, fields: &Fields<'_>, diagnostics: &mut Diagnostics) -> Option<AlertCondition> {
        let mut parts = Vec::new();
        if let Some(node) = fields.get("match") {
            parts.push(alert_condition(node, "`match`", self.lists, diagnostics)?);
        }
        for (text, node) in fields.texts("matchers", diagnostics) {
            parts.push(from_matchers(text, node, diagnostics)?);
        }
        if parts.is_empty() { None } else { Some(AlertCondition::new(Condition::All(parts))) }
    }

    fn to(&self, fields: &Fields<'_>, above: &Inherited, diagnostics: &mut Diagnostics) -> Option<Vec<String>> {
        if fields.get("to").is_some() {
            return self.sinks("to", fields, diagnostics);
        }
        if above.to.is_empty() && fields.get("routes").is_none() {
            fields.required("to", diagnostics)?;
        }
        Some(above.to.clone())
    }

    /// Its own or the one above; none with an empty list.
    fn fallback(
        &self,
        fields: &Fields<'_>,
        own: &[String],
        above: &Inherited,
        diagnostics: &mut Diagnostics,
    ) -> Option<Fallback> {
        let after = bounded("after", AFTER, fields, diagnostics);
        if fields.get("fallback").is_none() {
            misplaced("after", "fallback", fields, diagnostics);
            return above.fallback.clone();
        }
        if above.fallback.is_some() && is_empty("fallback", fields) {
            misplaced("after", "fallback", fields, diagnostics);
            return None;
        }
        let to = self.sinks("fallback", fields, diagnostics)?;
        if leads_nowhere(&to, own) {
            let message = "`fallback` names the sinks that the alert goes to anyway";
            let hint = "name another sink";
            diagnostics.error(code::ROUTE_SINK, fields.place("fallback"), message, Some(hint.into()));
            return None;
        }
        Some(Fallback { to, after: after.unwrap_or(DEFAULT_AFTER) })
    }

    fn sinks(&self, key: &str, fields: &Fields<'_>, diagnostics: &mut Diagnostics) -> Option<Vec<String>> {
        let node = fields.required(key, diagnostics)?;
        let named = fields.texts(key, diagnostics);
        if node.items().is_some_and(<[Node]>::is_empty) {
            let hint = "name a sink; a route that only drops alerts is not possible";
            diagnostics.error(code::ROUTE_SINK, &node.span, "the route goes to no sink", Some(hint.into()));
            return None;
        }
        let mut is_good = named.len() == node.items().map_or(1, <[Node]>::len);
        for (name, place) in &named {
            if !self.sink_names.contains(name) {
                is_good = false;
                let hint = match nearest(name, self.sink_names.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if self.sink_names.is_empty() => "no sinks are configured".into(),
                    None => format!("configured are: {}", self.sink_names.join(", ")),
                };
                diagnostics.error(code::ROUTE_SINK, &place.span, format!("there is no sink `{name}`"), Some(hint));
            }
        }
        is_good.then(|| named.into_iter().map(|(name, _)| name.to_owned()).collect())
    }
}

/// A map of conditions on an alert. `None` when something was reported.
pub(crate) fn alert_condition(
    node: &Node,
    what: &str,
    lists: &Lists,
    diagnostics: &mut Diagnostics,
) -> Option<Condition> {
    let before = diagnostics.count();
    check_severities(node, diagnostics);
    let condition = WhenReader::with_vocabulary(lists, VOCABULARY).read(node, what, diagnostics);
    condition.filter(|_| diagnostics.count() == before)
}

/// The same in the notation of Alertmanager.
pub(crate) fn from_matchers(text: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<Condition> {
    match matcher::parse(text).and_then(|matchers| matcher::condition(&matchers)) {
        Ok(condition) => Some(condition),
        Err(message) => {
            let hint = "write `severity=\"high\"`, `rule=~\"change-.*\"`, `account!=\"abcd\"`, several with a comma";
            diagnostics.error(code::BAD_MATCHER, &node.span, message, Some(hint.into()));
            None
        }
    }
}

/// A fallback to where the alert goes anyway.
fn leads_nowhere(fallback: &[String], own: &[String]) -> bool {
    !own.is_empty() && fallback.iter().all(|sink| own.contains(sink))
}

/// What a route takes over is switched off by an empty list.
fn is_empty(key: &str, fields: &Fields<'_>) -> bool {
    fields.get(key).and_then(Node::items).is_some_and(<[Node]>::is_empty)
}

/// Its own or the one above; none with an empty list.
fn repeat(fields: &Fields<'_>, above: &Inherited, diagnostics: &mut Diagnostics) -> Option<Repeat> {
    let quiet = bounded("quiet", QUIET, fields, diagnostics);
    if fields.get("dedup").is_none() {
        misplaced("quiet", "dedup", fields, diagnostics);
        return above.repeat.clone();
    }
    if above.repeat.is_some() && is_empty("dedup", fields) {
        misplaced("quiet", "dedup", fields, diagnostics);
        return None;
    }
    let fields = alert_fields("dedup", fields, diagnostics)?;
    Some(Repeat { fields, quiet: quiet.unwrap_or(DEFAULT_QUIET) })
}

/// Names of fields that an alert has.
pub(crate) fn alert_fields(key: &str, fields: &Fields<'_>, diagnostics: &mut Diagnostics) -> Option<Vec<FieldPath>> {
    let node = fields.required(key, diagnostics)?;
    let named = fields.texts(key, diagnostics);
    let known = |name: &str| {
        let below = |field: &&str| field.ends_with('.') && name.len() > field.len() && name.starts_with(*field);
        VOCABULARY.iter().any(|field| *field == name || below(field)) && !name.contains('*')
    };
    let mut paths = Vec::with_capacity(named.len());
    for (name, place) in named {
        match FieldPath::parse(name).ok().filter(|_| known(name)) {
            Some(path) => paths.push(path),
            None => {
                let hint = format!("known are: {}FIELD", VOCABULARY.join(", "));
                diagnostics.error(code::ROUTE_KEY, &place.span, format!("an alert has no `{name}`"), Some(hint));
            }
        }
    }
    let wanted = node.items().map_or(1, <[Node]>::len);
    if wanted == 0 || wanted > MAX_DEDUP_FIELDS {
        let message = format!("`{key}` names {wanted} fields; one to {MAX_DEDUP_FIELDS} are allowed");
        diagnostics.error(code::ROUTE_KEY, &node.span, message, Some("`dedup: [rule, account]`".into()));
        return None;
    }
    (paths.len() == wanted).then_some(paths)
}

/// One time window or several.
fn mute(fields: &Fields<'_>, diagnostics: &mut Diagnostics) -> Vec<During> {
    let Some(node) = fields.get("mute") else { return Vec::new() };
    let windows = node.items().unwrap_or(std::slice::from_ref(node));
    if windows.len() > MAX_MUTE_WINDOWS {
        let message = format!("`mute` has {} time windows; at most {MAX_MUTE_WINDOWS} are allowed", windows.len());
        diagnostics.error(code::WRONG_KIND, &node.span, message, Some("name several days or hours in one".into()));
    }
    windows.iter().filter_map(|window| during(window, diagnostics)).collect()
}

/// A duration within bounds, if it is there.
fn bounded(
    key: &str,
    (least, most): (Duration, Duration),
    fields: &Fields<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Duration> {
    let given = fields.duration(key, diagnostics)?;
    if (least..=most).contains(&given) {
        return Some(given);
    }
    let shown = crate::time::format_duration;
    let message = format!("`{key}` is {}, beyond what can be used", shown(given));
    let hint = format!("from {} to {}", shown(least), shown(most));
    diagnostics.error(code::BAD_DURATION, fields.place(key), message, Some(hint));
    None
}

fn misplaced(key: &str, needs: &str, fields: &Fields<'_>, diagnostics: &mut Diagnostics) {
    if fields.get(key).is_some() {
        let message = format!("`{key}` has no meaning without `{needs}`");
        diagnostics.error(code::MISSING_KEY, fields.place(key), message, Some(format!("add `{needs}: [...]`")));
    }
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

fn report_unreachable(routes: &[Route], diagnostics: &mut Diagnostics) {
    let Some(end) = routes.iter().position(|route| takes_all(route) && !route.continue_) else {
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
    if routes.iter().any(takes_all) {
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

/// Whether every alert finds a sink here.
fn takes_all(route: &Route) -> bool {
    route.when.is_none() && (!route.to.is_empty() || route.routes.iter().any(takes_all))
}

/// Severities that a route takes whatever else the alert says.
fn taken_severities(route: &Node) -> Vec<Severity> {
    let entries = route.entries().unwrap_or_default();
    let condition = entries.iter().find(|(key, _)| key.text == "match").and_then(|(_, node)| node.entries());
    match condition {
        _ if entries.iter().any(|(key, _)| key.text == "matchers") => Vec::new(),
        Some([(key, value)]) if key.text == "severity" => {
            let items = value.items().unwrap_or(std::slice::from_ref(value));
            items.iter().filter_map(|item| Severity::from_name(item.text()?)).collect()
        }
        _ => Vec::new(),
    }
}
