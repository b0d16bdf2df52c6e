//! Matchers: a test's values, compiled, against what the event holds.
//!
//! Every answer is total. A missing field fits nothing but `null` and `exists: false`; a value that cannot be used (an
//! address that does not parse, an object where text is asked for) fits nothing and is counted.

use std::borrow::Cow;
use std::net::IpAddr;

use regex::Regex;

use super::ip::{NetworkSet, Scope, other_spelling, parse_address};
use super::number::{Comparison, Number, StampPart, parse_stamp};
use super::text::{Anchor, TextSet, fold, stands};
use super::url::{HostRule, has_host, is_outside};
use crate::event::{Event, FieldPath, Value, View};

/// What a test asks of a field, without its negation.
#[derive(Debug, Clone)]
pub(super) enum Matcher {
    Equal(Equal),
    Regexes(Vec<Regex>),
    Networks(NetworkSet),
    Ranges { numbers: Vec<(Number, Number)>, addresses: Option<NetworkSet> },
    Compare(Comparison, Vec<Number>),
    Scopes(Vec<Scope>),
    Exists(bool),
    SameAs { fields: Vec<FieldPath>, anchor: Anchor, cased: bool },
    HostIn(Vec<HostRule>),
    HostOutside(Vec<HostRule>),
}

/// Equality, `contains`, `startswith`, `endswith` in all their forms.
#[derive(Debug, Clone, Default)]
pub(super) struct Equal {
    pub(super) texts: TextSet,
    pub(super) numbers: Vec<Number>,
    pub(super) null: bool,
}

/// Where a test looks: a field, perhaps only a part of the stamp in it, and of how many of its values it must be true.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) field: FieldPath,
    pub(super) stamp: Option<StampPart>,
    /// All of them, and not only one.
    pub(super) every: bool,
}

/// The field that holds the event's own time.
const EVENT_TIME_FIELD: &str = "created_at";

impl Matcher {
    /// Whether the event fits, and the value that made it so.
    pub(super) fn find<'e>(&self, target: &Target, event: &'e Event, unusable: &mut u64) -> (bool, Option<View<'e>>) {
        if target.every {
            return self.find_misfit(target, event, unusable);
        }
        let field = &target.field;
        let mut found = None;
        let mut keep = |view: View<'e>, fits: bool| {
            if fits {
                found = Some(view);
            }
            fits
        };
        let holds = match self {
            Self::Exists(expected) => field.values(event, &mut |view| keep(view, true)) == *expected,
            Self::HostIn(rules) => field.values(event, &mut |view| {
                view.strings(&mut |view| keep(view, view.scalar_text().is_some_and(|text| has_host(&text, rules))))
            }),
            Self::HostOutside(rules) => field.values(event, &mut |view| {
                view.strings(&mut |view| keep(view, view.scalar_text().is_some_and(|text| is_outside(&text, rules))))
            }),
            _ => {
                let fits = field.leaves(event, &mut |view| {
                    let fits = self.fits_value(target, event, view, unusable);
                    keep(view, fits)
                });
                fits || self.fits_absence(target, event)
            }
        };
        (holds, found)
    }

    /// Whether the field has values and each of them fits; besides, the value that did not, else the last one.
    fn find_misfit<'e>(&self, target: &Target, event: &'e Event, unusable: &mut u64) -> (bool, Option<View<'e>>) {
        let mut seen = None;
        let misfits = target.field.leaves(event, &mut |view| {
            seen = Some(view);
            !self.fits_value(target, event, view, unusable)
        });
        (if seen.is_some() { !misfits } else { self.fits_absence(target, event) }, seen)
    }

    /// `null` means missing, too.
    fn fits_absence(&self, target: &Target, event: &Event) -> bool {
        self.takes_null() && !target.field.is_present(event)
    }

    fn fits_value(&self, target: &Target, event: &Event, view: View<'_>, unusable: &mut u64) -> bool {
        match (self, target.stamp) {
            (Self::SameAs { fields, anchor, cased }, _) => {
                fields.iter().any(|other| is_same(view, other, event, *anchor, *cased))
            }
            (_, None) => self.fits(view, unusable),
            (_, Some(part)) => self.fits_stamp(part, target, event, view, unusable),
        }
    }

    /// See `Test::cost`.
    pub(super) fn cost(&self) -> u32 {
        match self {
            Self::Exists(_) => 2,
            Self::Equal(_) => 4,
            Self::Networks(_) | Self::Scopes(_) | Self::Ranges { .. } | Self::Compare(..) => 6,
            Self::SameAs { .. } => 10,
            Self::HostIn(_) | Self::HostOutside(_) => 100,
            Self::Regexes(regexes) => 40_u32.saturating_mul(u32::try_from(regexes.len()).unwrap_or(u32::MAX)),
        }
    }

    fn takes_null(&self) -> bool {
        matches!(self, Self::Equal(equal) if equal.null)
    }

    fn fits(&self, view: View<'_>, unusable: &mut u64) -> bool {
        let (text, is_number) = match view.value() {
            Value::Null => return self.takes_null(),
            Value::Array(_) | Value::Object(_) => {
                *unusable += 1;
                return false;
            }
            Value::Text(text) => (text, false),
            Value::Number(text) => (Cow::Borrowed(text), true),
            Value::Bool(truth) => (Cow::Borrowed(if truth { "true" } else { "false" }), false),
        };
        let text = text.as_ref();
        match self {
            Self::Equal(equal) => equal.fits(text, is_number),
            Self::Regexes(regexes) => {
                let other = other_spelling(text);
                regexes
                    .iter()
                    .any(|regex| regex.is_match(text) || other.as_deref().is_some_and(|other| regex.is_match(other)))
            }
            Self::Networks(_) | Self::Scopes(_) => {
                usable(parse_address(text), unusable).is_some_and(|address| self.fits_address(address))
            }
            Self::Ranges { numbers, addresses } => {
                let address = addresses.as_ref().and_then(|set| Some((set, parse_address(text)?)));
                let number = if numbers.is_empty() { None } else { Number::parse(text) };
                if address.is_none() && number.is_none() {
                    *unusable += 1;
                }
                address.is_some_and(|(set, address)| set.contains(address))
                    || number.is_some_and(|number| in_ranges(number, numbers))
            }
            Self::Compare(comparison, bounds) => usable(Number::parse(text), unusable)
                .is_some_and(|number| bounds.iter().any(|bound| comparison.holds(number.compare(*bound)))),
            Self::Exists(_) | Self::SameAs { .. } | Self::HostIn(_) | Self::HostOutside(_) => false,
        }
    }

    /// For matchers that ask of an address and of nothing else.
    pub(super) fn fits_address(&self, address: IpAddr) -> bool {
        match self {
            Self::Networks(networks) => networks.contains(address),
            Self::Scopes(scopes) => scopes.contains(&Scope::of(address)),
            _ => false,
        }
    }

    pub(super) fn asks_of_addresses(&self) -> bool {
        matches!(self, Self::Networks(_) | Self::Scopes(_))
    }

    fn fits_stamp(&self, part: StampPart, target: &Target, event: &Event, view: View<'_>, unusable: &mut u64) -> bool {
        let stamp = if target.field.as_str() == EVENT_TIME_FIELD {
            Some(event.created_at())
        } else {
            view.scalar_text().and_then(|text| parse_stamp(&text))
        };
        let Some(stamp) = stamp else {
            *unusable += 1;
            return false;
        };
        let number = part.of(stamp);
        match self {
            Self::Equal(equal) => equal.numbers.iter().any(|expected| number.compare(*expected).is_eq()),
            Self::Compare(comparison, bounds) => bounds.iter().any(|bound| comparison.holds(number.compare(*bound))),
            Self::Ranges { numbers, .. } => in_ranges(number, numbers),
            _ => false,
        }
    }
}

impl Equal {
    fn fits(&self, text: &str, is_number: bool) -> bool {
        if self.texts.matches(text) || other_spelling(text).is_some_and(|other| self.texts.matches(&other)) {
            return true;
        }
        is_number
            && !self.numbers.is_empty()
            && Number::parse(text)
                .is_some_and(|number| self.numbers.iter().any(|expected| number.compare(*expected).is_eq()))
    }
}

fn in_ranges(number: Number, ranges: &[(Number, Number)]) -> bool {
    ranges.iter().any(|(low, high)| number.compare(*low).is_ge() && number.compare(*high).is_le())
}

fn usable<T>(value: Option<T>, unusable: &mut u64) -> Option<T> {
    *unusable += u64::from(value.is_none());
    value
}

fn is_same(view: View<'_>, other: &FieldPath, event: &Event, anchor: Anchor, cased: bool) -> bool {
    let Some(text) = view.scalar_text() else { return false };
    other.leaves(event, &mut |view| {
        view.scalar_text().is_some_and(|wanted| {
            // An empty text is part of every other; that two fields have something in common needs something.
            let says_something = anchor == Anchor::Whole || !wanted.is_empty();
            says_something
                && if cased { stands(&wanted, &text, anchor) } else { stands(&fold(&wanted), &fold(&text), anchor) }
        })
    })
}
