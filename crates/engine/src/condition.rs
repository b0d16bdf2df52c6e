//! Conditions: what a rule asks of one event.
//!
//! A condition is a tree of blocks over tests; a test is one field, a chain of modifiers and a list of values. This module
//! gives the meaning (`holds`), slowly and plainly; `plan` makes many conditions fast and must agree with it. `neq` negates
//! the whole list, so it holds for a missing or empty field too: for an audit, silence about an unknown country is worse
//! than an alert about it.

mod build;
pub mod code;
mod during;
mod encode;
mod explain;
mod ip;
mod matcher;
mod modifier;
pub(crate) mod number;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod url;
mod zone;

pub use build::MAX_REGEX_BYTES;
pub use during::During;
pub use explain::{Explanation, MAX_ACTUAL_CHARS};

pub(crate) use ip::other_spelling;
pub use ip::parse_address;

use std::net::IpAddr;

use crate::event::{Event, FieldPath, View};
use matcher::{Equal, Matcher, Target};
use number::Number;
use text::TextSet;

/// A tree of tests. An empty `All` holds, an empty `Any` does not.
#[derive(Debug, Clone)]
pub enum Condition {
    /// Every part holds.
    All(Vec<Condition>),
    /// At least one part holds.
    Any(Vec<Condition>),
    /// The part does not hold.
    Not(Box<Condition>),
    /// One field against one list of values.
    Test(Test),
    /// The event's time lies within given days and hours.
    During(During),
}

/// One field, a chain of modifiers, and values of which any (or, with `all`, each) must fit one value of the event (or,
/// with `every`, each).
#[derive(Debug, Clone)]
pub struct Test {
    /// As the user wrote it: `source_country|neq`.
    pub key: String,
    target: Target,
    /// Each must hold: one over all values or, with `all`, one a value.
    matchers: Vec<Matcher>,
    negated: bool,
    operator: String,
    expected: String,
    fingerprint: [u8; 32],
    /// What it asks as it was written: with the names of lists in place of their values.
    meaning: [u8; 32],
}

/// What a test wants of a field's text, when that is all it wants; for tables over many tests.
#[derive(Debug)]
pub(crate) struct WantedTexts<'t> {
    pub(crate) field: &'t FieldPath,
    pub(crate) texts: &'t TextSet,
    pub(crate) numbers: &'t [Number],
}

/// A value as the rule file gives it, lists already expanded.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// Text, as written.
    Text(String),
    /// A number; the text is kept so that `1.10` against a version string stays `1.10`.
    Number(f64, String),
    /// `true` or `false`.
    Bool(bool),
    /// `null`: the field is missing or null.
    Null,
}

/// Which part of what was built is wrong, so that the loader can point at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The key: the field or a modifier.
    Key,
    /// The value with this index.
    Value(usize),
}

/// Why a test or a time window could not be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildError {
    /// Stable diagnostic code.
    pub code: &'static str,
    /// What to point at.
    pub part: Part,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
}

impl Condition {
    /// Whether the event fulfils it. Total: a missing field or a wrong type is an answer, not an error.
    #[must_use]
    pub fn holds(&self, event: &Event) -> bool {
        self.holds_counting(event, &mut 0)
    }

    /// Feeds a hash with what it asks, so that conditions which ask the same give the same. Lists count by their names:
    /// who adds a network to one must not lose what was noted before.
    pub(crate) fn meaning(&self, hasher: &mut blake3::Hasher) {
        let mut block = |name: &str, parts: &[Self]| {
            hasher.update(name.as_bytes());
            hasher.update(&(parts.len() as u64).to_le_bytes());
            parts.iter().for_each(|part| part.meaning(hasher));
        };
        match self {
            Self::All(parts) => block("all", parts),
            Self::Any(parts) => block("any", parts),
            Self::Not(part) => block("not", std::slice::from_ref(part)),
            Self::Test(test) => {
                hasher.update(&[u8::from(test.negated)]);
                hasher.update(&test.meaning);
            }
            Self::During(during) => {
                hasher.update(during.written().as_bytes());
            }
        }
    }

    /// Whether it asks for something that only an address database knows (`geo.*`).
    #[must_use]
    pub fn asks_geo(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::asks_geo),
            Self::Not(part) => part.asks_geo(),
            Self::Test(test) => test.target.field.is_geo() || test.matchers.iter().any(Matcher::asks_geo),
            Self::During(_) => false,
        }
    }

    /// Like [`Condition::holds`]; adds up values that could not be used.
    pub(crate) fn holds_counting(&self, event: &Event, unusable: &mut u64) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds_counting(event, unusable)),
            Self::Any(parts) => parts.iter().any(|part| part.holds_counting(event, unusable)),
            Self::Not(part) => !part.holds_counting(event, unusable),
            Self::Test(test) => test.holds_counting(event, unusable),
            Self::During(during) => during.holds_at(event.created_at()),
        }
    }
}

impl Test {
    /// Builds a test from its key (`field|modifier|modifier`) and its values.
    ///
    /// # Errors
    /// An unknown modifier, a value that the modifier cannot use, a combination without meaning.
    pub fn build(key: &str, values: Vec<Literal>) -> Result<Self, BuildError> {
        build::test(key, &values)
    }

    /// The field path.
    #[must_use]
    pub fn field(&self) -> &str {
        self.target.field.as_str()
    }

    pub(crate) fn is_negated(&self) -> bool {
        self.negated
    }

    /// The same test, whose values came from lists, among them: these names stood in their place.
    #[must_use]
    pub(crate) fn written_as(mut self, names: &str) -> Self {
        self.meaning = *blake3::hash(format!("{:?}{names:?}", self.key).as_bytes()).as_bytes();
        self
    }

    /// Tests that ask the same, apart from negation, have the same fingerprint.
    pub(crate) fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// The texts that make it true before negation, if nothing else can: no `all`, `every`, case, null or stamp.
    pub(crate) fn wanted_texts(&self) -> Option<WantedTexts<'_>> {
        match self.matchers.as_slice() {
            [Matcher::Equal(Equal { texts, numbers, null: false })]
                if self.target.stamp.is_none() && !self.target.every && !texts.is_cased() =>
            {
                Some(WantedTexts { field: &self.target.field, texts, numbers })
            }
            _ => None,
        }
    }

    /// The field, if one address in it is all that the test looks for.
    pub(crate) fn wanted_addresses(&self) -> Option<&FieldPath> {
        let [matcher] = self.matchers.as_slice() else { return None };
        (matcher.asks_of_addresses() && !self.target.every).then_some(&self.target.field)
    }

    /// Whether an address makes a test of addresses true, before negation.
    pub(crate) fn fits_address(&self, address: IpAddr) -> bool {
        self.matchers.iter().all(|matcher| matcher.fits_address(address))
    }

    /// How dear the test is, in arbitrary units: what is cheap is asked first.
    pub(crate) fn cost(&self) -> u32 {
        let wide = if self.target.field.as_str().ends_with('*') { 8 } else { 1 };
        let each = self.matchers.iter().map(Matcher::cost);
        each.fold(1_u32, u32::saturating_add).saturating_mul(wide)
    }

    /// Whether the event fits before negation.
    pub(crate) fn fits(&self, event: &Event, unusable: &mut u64) -> bool {
        self.matchers.iter().all(|matcher| matcher.find(&self.target, event, unusable).0)
    }

    /// Whether the event fits, the negation included; adds up values that could not be used.
    pub(crate) fn holds_counting(&self, event: &Event, unusable: &mut u64) -> bool {
        self.fits(event, unusable) != self.negated
    }

    /// Whether it holds, and the last value that a matcher took.
    fn find<'e>(&self, event: &'e Event, unusable: &mut u64) -> (bool, Option<View<'e>>) {
        let mut seen = None;
        let positive = self.matchers.iter().all(|matcher| {
            let (fits, view) = matcher.find(&self.target, event, unusable);
            seen = view.or(seen);
            fits
        });
        (positive != self.negated, seen)
    }
}

impl Literal {
    /// The value as text, as the user wrote it.
    #[must_use]
    pub fn written(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(_, text) => text,
            Self::Bool(true) => "true",
            Self::Bool(false) => "false",
            Self::Null => "null",
        }
    }
}
