//! Keyed fields: all text tests of all rules on one field, answered together.
//!
//! Whole texts are one look-up; literals inside, at the start or at the end are one Aho-Corasick pass when there are many
//! and single searches when there are few; the rest (wildcards in the middle) is tried one by one.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};

use super::hash::TextMap;
use crate::condition::number::Number;
use crate::condition::text::{Pattern, fold_into};
use crate::condition::{WantedTexts, other_spelling};
use crate::event::{Event, FieldPath, Value, View};

/// From this many literals on, one automaton is faster than comparing starts and ends one by one.
const MIN_COMBINED: usize = 16;
/// A literal that may stand anywhere costs a search of its own, so for those the automaton pays early.
const MIN_COMBINED_WITHIN: usize = 3;
/// Up to this many bytes of literals the automaton is a full table: some megabytes at most, and twice as fast.
const MAX_TABLE_BYTES: usize = 16 * 1024;

/// Everything that the rules want of one field's text.
#[derive(Debug)]
pub(super) struct KeyedField {
    field: FieldPath,
    exact: TextMap<Box<str>, Vec<u32>>,
    numbers: TextMap<(bool, u128), Vec<u32>>,
    /// Distinct patterns, each with the predicates that it makes true.
    patterns: Vec<(Pattern, Vec<u32>)>,
    /// The literals among the patterns, combined; they come first in `patterns`.
    combined: Option<AhoCorasick>,
    combined_count: usize,
}

impl KeyedField {
    pub(super) fn new(field: &FieldPath) -> Self {
        Self {
            field: field.clone(),
            exact: TextMap::default(),
            numbers: TextMap::default(),
            patterns: Vec::new(),
            combined: None,
            combined_count: 0,
        }
    }

    /// Whether it takes in many strings.
    pub(super) fn is_wide(&self) -> bool {
        self.field.as_str().ends_with('*')
    }

    pub(super) fn insert(&mut self, predicate: u32, wanted: &WantedTexts<'_>) {
        for text in wanted.texts.exact() {
            self.exact.entry(text.into()).or_default().push(predicate);
        }
        for number in wanted.numbers {
            self.numbers.entry(number.key()).or_default().push(predicate);
        }
        for pattern in wanted.texts.patterns() {
            match self.patterns.iter_mut().find(|(known, _)| known == pattern) {
                Some((_, predicates)) => predicates.push(predicate),
                None => self.patterns.push((pattern.clone(), vec![predicate])),
            }
        }
    }

    /// Called once when everything is inserted.
    pub(super) fn seal(&mut self) {
        self.patterns.sort_by_key(|(pattern, _)| (pattern.literal().is_none(), !pattern.is_within()));
        let mut literals: Vec<&str> = self.patterns.iter().map_while(|(pattern, _)| pattern.literal()).collect();
        if literals.len() < MIN_COMBINED {
            literals.truncate(self.patterns.iter().filter(|(pattern, _)| pattern.is_within()).count());
        }
        if literals.len() >= MIN_COMBINED_WITHIN {
            // A set too large to combine is still answered, one by one.
            let small = literals.iter().map(|literal| literal.len()).sum::<usize>() <= MAX_TABLE_BYTES;
            let kind = if small { AhoCorasickKind::DFA } else { AhoCorasickKind::ContiguousNFA };
            let mut builder = AhoCorasickBuilder::new();
            self.combined = builder.match_kind(MatchKind::Standard).kind(Some(kind)).build(&literals).ok();
            self.combined_count = if self.combined.is_some() { literals.len() } else { 0 };
        }
    }

    /// Calls `hit` with each predicate that is true of the event, perhaps more than once.
    pub(super) fn answer(&self, event: &Event, unusable: &mut u64, buffer: &mut String, hit: &mut impl FnMut(u32)) {
        self.field.leaves(event, &mut |view: View<'_>| {
            match view.value() {
                Value::Text(text) => self.answer_text(&text, buffer, hit),
                Value::Bool(truth) => self.answer_text(if truth { "true" } else { "false" }, buffer, hit),
                Value::Number(text) => {
                    self.answer_text(text, buffer, hit);
                    if !self.numbers.is_empty()
                        && let Some(number) = Number::parse(text)
                    {
                        self.numbers.get(&number.key()).into_iter().flatten().for_each(|id| hit(*id));
                    }
                }
                Value::Object(_) | Value::Array(_) => *unusable += 1,
                Value::Null => {}
            }
            false
        });
    }

    fn answer_text(&self, text: &str, buffer: &mut String, hit: &mut impl FnMut(u32)) {
        self.answer_folded(fold_into(text, buffer), hit);
        if let Some(other) = other_spelling(text) {
            self.answer_folded(fold_into(&other, buffer), hit);
        }
    }

    fn answer_folded(&self, text: &str, hit: &mut impl FnMut(u32)) {
        if !self.exact.is_empty() {
            self.exact.get(text).into_iter().flatten().for_each(|id| hit(*id));
        }
        if let Some(combined) = &self.combined {
            for found in combined.find_overlapping_iter(text) {
                if let Some((pattern, predicates)) = self.patterns.get(found.pattern().as_usize())
                    && pattern.accepts_at(found.start() == 0, found.end() == text.len())
                {
                    predicates.iter().for_each(|id| hit(*id));
                }
            }
        }
        for (pattern, predicates) in self.patterns.get(self.combined_count..).unwrap_or_default() {
            if pattern.matches(text) {
                predicates.iter().for_each(|id| hit(*id));
            }
        }
    }
}
