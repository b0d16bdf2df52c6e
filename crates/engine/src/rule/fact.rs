//! What one AND says about its fields, to find those that can never hold.
//!
//! Only plain comparisons count; whatever is not certain is left alone. A list of values in an event holds if any member
//! does, so two different equalities are a certain mistake only on fields that never hold a list.

use crate::condition::Literal;
use crate::diagnostic::{Diagnostics, Span, code};
use crate::rule::event_type::wildcard;

/// Fields of an audit event that hold one value, never a list.
const SINGLE_VALUED: &[&str] = &[
    "id",
    "event_type",
    "event_type_description",
    "created_at",
    "user_email",
    "user_id",
    "account_id",
    "source",
    "source_ip",
    "source_description",
    "source_country",
    "geo.country",
    "geo.city",
    "geo.asn",
    "geo.as_org",
    "geo.lat",
    "geo.lon",
    "geo.mismatch",
    "actor",
    "severity",
    "rule",
    "account",
    "title",
];

/// One plain comparison.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    field: String,
    says: Says,
    values: Vec<Literal>,
    is_cased: bool,
    key: String,
    span: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Equals,
    Differs,
    Absent,
}

impl Fact {
    /// The fact behind `key: values`, if it is plain enough.
    pub(crate) fn of(key: &str, span: &Span, values: &[Literal]) -> Option<Self> {
        let mut parts = key.split('|');
        let field = parts.next()?.to_owned();
        let (mut says, mut is_cased) = (Says::Equals, false);
        for modifier in parts {
            match modifier {
                "neq" => says = Says::Differs,
                "cased" => is_cased = true,
                "exists" if values == [Literal::Bool(false)] => says = Says::Absent,
                _ => return None,
            }
        }
        Some(Self { field, says, values: values.to_vec(), is_cased, key: key.to_owned(), span: span.clone() })
    }

    /// The fact that holds when this one does not.
    pub(crate) fn negated(mut self) -> Option<Self> {
        self.says = match self.says {
            Says::Equals => Says::Differs,
            Says::Differs => Says::Equals,
            Says::Absent => return None,
        };
        Some(self)
    }

    fn is_exact(&self) -> bool {
        self.values.iter().all(|value| match value {
            Literal::Text(text) => !text.contains(['*', '?', '\\', '/']),
            _ => true,
        })
    }

    fn is_only_null(&self) -> bool {
        self.values.iter().all(|value| *value == Literal::Null)
    }
}

/// Reports each pair of facts of one AND that excludes itself.
pub(crate) fn report(facts: &[Fact], diagnostics: &mut Diagnostics) {
    for (index, later) in facts.iter().enumerate() {
        report_between(facts.get(..index).unwrap_or_default(), std::slice::from_ref(later), diagnostics);
    }
}

/// Reports each fact that excludes one that is given before.
pub(crate) fn report_between(given: &[Fact], facts: &[Fact], diagnostics: &mut Diagnostics) {
    for later in facts {
        for earlier in given.iter().filter(|earlier| earlier.field == later.field) {
            match (earlier.says, later.says) {
                (Says::Equals, Says::Equals) => report_equalities(earlier, later, diagnostics),
                (Says::Equals, Says::Differs) if excludes(earlier, later) => contradiction(earlier, later, diagnostics),
                (Says::Differs, Says::Equals) if excludes(later, earlier) => contradiction(earlier, later, diagnostics),
                (Says::Equals, Says::Absent) if !holds_null(earlier) => contradiction(earlier, later, diagnostics),
                (Says::Absent, Says::Equals) if !holds_null(later) => contradiction(earlier, later, diagnostics),
                _ => {}
            }
        }
    }
}

fn report_equalities(earlier: &Fact, later: &Fact, diagnostics: &mut Diagnostics) {
    let have_common = earlier.values.iter().any(|value| later.values.iter().any(|other| same(value, other)));
    if have_common || !earlier.is_exact() || !later.is_exact() {
        return;
    }
    let never_a_list = SINGLE_VALUED.contains(&later.field.as_str());
    if never_a_list || earlier.is_only_null() || later.is_only_null() {
        contradiction(earlier, later, diagnostics);
    } else if !later.field.ends_with('*') {
        let message = format!("only a list of values can fulfil both `{}` here and at {}", later.key, place(earlier));
        let hint = "if either value will do, write both into one list: `field: [a, b]`";
        diagnostics.warning(code::NEEDS_A_LIST, &later.span, message, Some(hint.into()));
    }
}

/// Whether `differs` rules out every value that `equals` allows.
fn excludes(equals: &Fact, differs: &Fact) -> bool {
    let covers = |allowed: &Literal, refused: &Literal| match (allowed, refused) {
        (Literal::Text(allowed), Literal::Text(refused)) if differs.is_cased => equals.is_cased && allowed == refused,
        (Literal::Text(allowed), Literal::Text(refused)) => {
            let (allowed, refused) = (allowed.to_lowercase(), refused.to_lowercase());
            let is_exact = !allowed.contains(['*', '?', '\\']);
            allowed == refused || (is_exact && wildcard(&refused, &allowed))
        }
        (allowed, refused) => same(allowed, refused),
    };
    equals.values.iter().all(|allowed| differs.values.iter().any(|refused| covers(allowed, refused)))
}

fn holds_null(fact: &Fact) -> bool {
    fact.values.contains(&Literal::Null)
}

fn same(one: &Literal, other: &Literal) -> bool {
    match (one, other) {
        (Literal::Text(one), Literal::Text(other)) => one.to_lowercase() == other.to_lowercase(),
        (Literal::Number(one, _), Literal::Number(other, _)) => (one - other).abs() < f64::EPSILON,
        (Literal::Number(_, text), Literal::Text(other)) | (Literal::Text(other), Literal::Number(_, text)) => {
            text == other
        }
        (one, other) => one == other,
    }
}

fn contradiction(earlier: &Fact, later: &Fact, diagnostics: &mut Diagnostics) {
    let message = format!("this can never match: `{}` excludes `{}` at {}", later.key, earlier.key, place(earlier));
    let hint = "all lines of a map must hold at once, and the rule's `when` for every step; alternatives go into one list \
                or under `any`";
    diagnostics.error(code::CONTRADICTION, &later.span, message, Some(hint.into()));
}

fn place(fact: &Fact) -> String {
    format!("line {}, column {}", fact.span.line, fact.span.column)
}
