//! Conditions: what a rule asks of one event.
//!
//! A condition is a tree of blocks over tests; a test is one field, a chain of modifiers and a list of values. This module
//! gives the meaning (`holds`), slowly and plainly; `plan` makes many conditions fast and must agree with it.

use crate::event::Event;

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

/// One field, a chain of modifiers, and values of which any (or, with `all`, each) must fit.
#[derive(Debug, Clone)]
pub struct Test {
    /// As the user wrote it: `source_country|neq`.
    pub key: String,
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

impl Condition {
    /// Whether the event fulfils it. Total: a missing field or a wrong type is an answer, not an error.
    #[must_use]
    pub fn holds(&self, _event: &Event) -> bool {
        false
    }
}

impl Test {
    /// Builds a test from its key (`field|modifier|modifier`) and its values.
    ///
    /// # Errors
    /// An unknown modifier, a value that the modifier cannot use, a combination without meaning.
    pub fn build(key: &str, _values: Vec<Literal>) -> Result<Self, BuildError> {
        Ok(Self { key: key.to_owned() })
    }
}

impl During {
    /// Builds a time window; in errors the values count as `days` 0, `hours` 1, `tz` 2.
    ///
    /// # Errors
    /// Days, hours or a zone that cannot be read.
    pub fn build(_days: Option<&str>, _hours: Option<&str>, _tz: Option<&str>) -> Result<Self, BuildError> {
        Ok(Self {})
    }
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

/// Days and hours in a time zone.
#[derive(Debug, Clone)]
pub struct During {}
