//! Conditions as written: maps, blocks and lists of values become a `Condition`, each mistake a finding at its place.
//!
//! A part with a mistake makes the whole condition unusable, but the rest is still read, so that all mistakes show at once.

use crate::condition::{BuildError, Condition, During, Literal, Part, Test};
use crate::diagnostic::{Diagnostics, Span, code, nearest};
use crate::rule::fact::{self, Fact};
use crate::rule::list::{Lists, Lookup, reference};
use crate::rule::{country, event_type, value};
use crate::state::PartReader;
use crate::yaml::fields::{Fields, wrong_kind};
use crate::yaml::{Key, Kind, Node};

/// Keys of a condition that are no fields.
const BLOCKS: &[&str] = &["all", "any", "not", "during"];

/// Reads conditions with the lists that they may use.
pub(crate) struct WhenReader<'a> {
    lists: &'a Lists,
    /// The only fields there are; `None` for events, which may have any field.
    vocabulary: Option<&'a [&'a str]>,
    /// Event types that were named outside of a negation, upper case.
    pub(crate) event_types: Vec<String>,
    /// What holds for every event that the parts of a detection see.
    given: Vec<Fact>,
    is_negated: bool,
}

/// Values of a test and the place of each.
type Values = (Vec<Literal>, Vec<Span>);

impl<'a> WhenReader<'a> {
    /// A reader for conditions on events.
    pub(crate) fn new(lists: &'a Lists) -> Self {
        Self { lists, vocabulary: None, event_types: Vec::new(), given: Vec::new(), is_negated: false }
    }

    /// A reader for conditions that know only these fields; one that ends in `.` stands for everything below it.
    pub(crate) fn with_vocabulary(lists: &'a Lists, vocabulary: &'a [&'a str]) -> Self {
        Self { vocabulary: Some(vocabulary), ..Self::new(lists) }
    }

    /// Reads a rule's own `when`, which the parts of its detection must agree with.
    pub(crate) fn read_whole(&mut self, node: &Node, diagnostics: &mut Diagnostics) -> Option<Condition> {
        let mut facts = Vec::new();
        let condition = self.map(node, "`when`", &mut facts, diagnostics);
        fact::report(&facts, diagnostics);
        self.given = facts;
        condition
    }

    /// Reads a map of conditions. `None` when something was reported.
    pub(crate) fn read(&mut self, node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Option<Condition> {
        let mut facts = Vec::new();
        let condition = self.map(node, what, &mut facts, diagnostics);
        fact::report(&facts, diagnostics);
        condition
    }

    /// A map: every line must hold. What it says about fields is added to the facts of the AND that it stands in.
    fn map(
        &mut self,
        node: &Node,
        what: &str,
        facts: &mut Vec<Fact>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Condition> {
        if node.items().is_some() {
            let hint = "alternatives go under `any:`, conditions that must all hold under `all:`";
            wrong_kind(node, what, "a map", hint, diagnostics);
            return None;
        }
        let fields = Fields::open(node, what, diagnostics)?;
        if fields.entries().is_empty() {
            let hint = "to match every event, write `event_type: \"*\"`";
            diagnostics.error(code::EMPTY_CONDITION, &node.span, format!("{what} is empty"), Some(hint.into()));
            return None;
        }
        let parts: Vec<Option<Condition>> =
            fields.entries().iter().map(|(key, value)| self.part(key, value, facts, diagnostics)).collect();
        let parts: Vec<Condition> = parts.into_iter().collect::<Option<_>>()?;
        Some(only_or(parts, Condition::All))
    }

    fn part(
        &mut self,
        key: &Key,
        node: &Node,
        facts: &mut Vec<Fact>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Condition> {
        match key.text.as_str() {
            "all" => {
                let items = block_items(key, node, diagnostics)?;
                let parts: Vec<Option<Condition>> =
                    items.iter().map(|item| self.map(item, "a part of `all`", facts, diagnostics)).collect();
                parts.into_iter().collect::<Option<Vec<Condition>>>().map(|parts| only_or(parts, Condition::All))
            }
            "any" => {
                let items = block_items(key, node, diagnostics)?;
                let parts: Vec<Option<Condition>> =
                    items.iter().map(|item| self.read(item, "a part of `any`", diagnostics)).collect();
                parts.into_iter().collect::<Option<Vec<Condition>>>().map(|parts| only_or(parts, Condition::Any))
            }
            "not" => self.negation(node, facts, diagnostics),
            "during" => during(node, diagnostics).map(Condition::During),
            _ => self.test(key, node, facts, diagnostics).map(Condition::Test),
        }
    }

    fn negation(&mut self, node: &Node, facts: &mut Vec<Fact>, diagnostics: &mut Diagnostics) -> Option<Condition> {
        let mut inner_facts = Vec::new();
        self.is_negated = !self.is_negated;
        let inner = self.map(node, "`not`", &mut inner_facts, diagnostics);
        self.is_negated = !self.is_negated;
        fact::report(&inner_facts, diagnostics);
        // Only a single line can be turned around: the negation of an AND says nothing certain about its parts.
        if node.entries().is_some_and(|entries| entries.len() == 1) && inner_facts.len() == 1 {
            facts.extend(inner_facts.pop().and_then(Fact::negated));
        }
        inner.map(|inner| Condition::Not(Box::new(inner)))
    }

    fn test(&mut self, key: &Key, node: &Node, facts: &mut Vec<Fact>, diagnostics: &mut Diagnostics) -> Option<Test> {
        let is_known = self.check_field(key, diagnostics);
        let Some((values, spans)) = self.values(key, node, diagnostics) else {
            // Without values only the key can be judged; any value does for that.
            if let Err(error) = Test::build(&key.text, vec![Literal::Bool(true)])
                && error.part == Part::Key
            {
                report_build_error(&error, &key.span, |_| None, diagnostics);
            }
            return None;
        };
        self.note_names(key, &values, &spans, diagnostics);
        let fact = Fact::of(&key.text, &key.span, &values);
        match Test::build(&key.text, values) {
            Ok(test) => {
                facts.extend(fact);
                let test = match names_of_lists(node) {
                    Some(names) => test.written_as(&names),
                    None => test,
                };
                is_known.then_some(test)
            }
            Err(error) => {
                report_build_error(&error, &key.span, |index| spans.get(index), diagnostics);
                None
            }
        }
    }

    fn check_field(&self, key: &Key, diagnostics: &mut Diagnostics) -> bool {
        let Some(vocabulary) = self.vocabulary else {
            return true;
        };
        let field = key.text.split('|').next().unwrap_or_default();
        let fits = |known: &&str| field == *known || (known.ends_with('.') && field.starts_with(*known));
        if vocabulary.iter().any(fits) {
            return true;
        }
        let hint = match nearest(field, vocabulary.iter().chain(BLOCKS).copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known are: {}; a field of the event is `event.{field}`", vocabulary.join(", ")),
        };
        diagnostics.error(code::ROUTE_KEY, &key.span, format!("an alert has no `{field}`"), Some(hint));
        false
    }

    /// The values of a test, lists put in. `None` when something was reported.
    fn values(&self, key: &Key, node: &Node, diagnostics: &mut Diagnostics) -> Option<Values> {
        let items = node.items().unwrap_or(std::slice::from_ref(node));
        let what = format!("the value of `{}`", key.text);
        let (mut values, mut spans) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
        let mut is_whole = true;
        for item in items {
            match self.lists_of(item, diagnostics) {
                Some(Lookup::Values(found)) => {
                    values.extend(found.iter().map(|(value, _)| value.clone()));
                    spans.extend(found.iter().map(|(_, span)| span.clone()));
                }
                Some(Lookup::Unusable) => is_whole = false,
                None => match value::literal(item, &what, diagnostics) {
                    Some(literal) => {
                        values.push(unescaped(literal));
                        spans.push(item.span.clone());
                    }
                    None => is_whole = false,
                },
            }
        }
        is_whole.then_some((values, spans))
    }

    fn lists_of(&self, item: &Node, diagnostics: &mut Diagnostics) -> Option<Lookup<'a>> {
        let Kind::Scalar(scalar) = &item.kind else {
            return None;
        };
        let name = reference(&scalar.text)?;
        Some(self.lists.look_up(name, &item.span, diagnostics))
    }

    /// Looks at values whose names are known from elsewhere: event types and countries.
    fn note_names(&mut self, key: &Key, values: &[Literal], spans: &[Span], diagnostics: &mut Diagnostics) {
        let mut parts = key.text.split('|');
        let field = parts.next().unwrap_or_default();
        let modifiers: Vec<&str> = parts.collect();
        if self.vocabulary.is_some() {
            return;
        }
        country::check(field, &modifiers, values, spans, diagnostics);
        if field != "event_type" {
            return;
        }
        let is_positive = self.is_negated == modifiers.contains(&"neq");
        for (index, pattern) in event_type::patterns(&modifiers, values) {
            if let Some(span) = spans.get(index) {
                event_type::check(&pattern, span, diagnostics);
            }
            if is_positive && !self.event_types.contains(&pattern) {
                self.event_types.push(pattern);
            }
        }
    }
}

impl PartReader for WhenReader<'_> {
    fn condition(&mut self, node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Option<Condition> {
        let mut facts = Vec::new();
        let condition = self.map(node, what, &mut facts, diagnostics);
        fact::report(&facts, diagnostics);
        fact::report_between(&self.given, &facts, diagnostics);
        condition
    }

    fn list(&mut self, key: &Key, node: &Node, diagnostics: &mut Diagnostics) -> Option<Values> {
        self.values(key, node, diagnostics)
    }
}

fn only_or(mut parts: Vec<Condition>, block: fn(Vec<Condition>) -> Condition) -> Condition {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            block(parts)
        }
        None => block(parts),
    }
}

/// The values as they are written, if a list is among them.
fn names_of_lists(node: &Node) -> Option<String> {
    let items = node.items().unwrap_or(std::slice::from_ref(node)).iter();
    let texts: Vec<&str> = items
        .filter_map(|item| match &item.kind {
            Kind::Scalar(scalar) => Some(scalar.text.as_str()),
            _ => None,
        })
        .collect();
    texts.iter().any(|text| reference(text).is_some()).then(|| texts.join("\n"))
}

/// `\$name` is the text `$name`.
fn unescaped(literal: Literal) -> Literal {
    match literal {
        Literal::Text(text) => match text.strip_prefix('\\') {
            Some(rest) if reference(rest).is_some() => Literal::Text(rest.to_owned()),
            _ => Literal::Text(text),
        },
        other => other,
    }
}

fn block_items<'n>(key: &Key, node: &'n Node, diagnostics: &mut Diagnostics) -> Option<&'n [Node]> {
    let name = &key.text;
    let Some(items) = node.items() else {
        let message = format!("`{name}` must be a list of conditions, not {}", node.describe());
        let hint =
            format!("begin each condition with `- `; a field of that name is written `{name}|contains` or the like");
        diagnostics.error(code::BAD_BLOCK, &node.span, message, Some(hint));
        return None;
    };
    if items.is_empty() {
        let outcome = if name == "any" { "never matches" } else { "matches everything" };
        let message = format!("`{name}` is empty: it {outcome}");
        diagnostics.error(code::EMPTY_CONDITION, &node.span, message, Some("add a condition, or remove it".into()));
        return None;
    }
    Some(items)
}

/// A time window. `None` when something was reported.
pub(crate) fn during(node: &Node, diagnostics: &mut Diagnostics) -> Option<During> {
    const KEYS: [&str; 3] = ["days", "hours", "tz"];
    let fields = Fields::of(node, "`during`", &KEYS, diagnostics)?;
    let [days, hours, tz] = KEYS.map(|name| fields.text(name, diagnostics));
    if fields.entries().iter().any(|(key, _)| !KEYS.contains(&key.text.as_str())) {
        return None;
    }
    match During::build(days, hours, tz) {
        Ok(during) => Some(during),
        Err(error) => {
            let place = |index: usize| KEYS.get(index).and_then(|name| fields.get(name)).map(|node| &node.span);
            report_build_error(&error, fields.span, place, diagnostics);
            None
        }
    }
}

fn report_build_error<'s>(
    error: &BuildError,
    key: &'s Span,
    value: impl Fn(usize) -> Option<&'s Span>,
    diagnostics: &mut Diagnostics,
) {
    let span = match error.part {
        Part::Key => key,
        Part::Value(index) => value(index).unwrap_or(key),
    };
    diagnostics.error(error.code, span, error.message.clone(), error.hint.clone());
}
