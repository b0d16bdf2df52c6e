//! Explanations: why a condition holds or does not, operand by operand.
//!
//! Values of the event stay `Untrusted` and are cut, so that an alert or a page can carry them.

use serde::Serialize;

use super::{Condition, During, Test};
use crate::event::Event;
use crate::text::Untrusted;

/// How much of a value a reason or an explanation carries.
pub const MAX_ACTUAL_CHARS: usize = 500;

/// A truth tree: a block with its parts, or an operand with what it asked for and what it saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// `all`, `any`, `not`, `test`, `during`; around them `rule` and `unless`.
    pub block: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// Field path of an operand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Modifiers as written, or `equals`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// What the rule asks for, shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What the event has, shortened; absent when the field is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<Untrusted>,
    /// Parts of a block.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Explanation>,
}

impl Explanation {
    /// A block over parts.
    #[must_use]
    pub fn block(block: &'static str, holds: bool, children: Vec<Explanation>) -> Self {
        Self { block, holds, field: None, operator: None, expected: None, actual: None, children }
    }

    fn operand(block: &'static str, holds: bool, operand: Operand) -> Self {
        Self {
            block,
            holds,
            field: Some(operand.field),
            operator: Some(operand.operator),
            expected: Some(operand.expected),
            actual: operand.actual,
            children: Vec::new(),
        }
    }
}

struct Operand {
    field: String,
    operator: String,
    expected: String,
    actual: Option<Untrusted>,
}

impl Condition {
    /// The whole truth tree for one event. Its root's `holds` is what [`Condition::holds`] says.
    #[must_use]
    pub fn explain(&self, event: &Event) -> Explanation {
        match self {
            Self::All(parts) => {
                let children: Vec<_> = parts.iter().map(|part| part.explain(event)).collect();
                Explanation::block("all", children.iter().all(|child| child.holds), children)
            }
            Self::Any(parts) => {
                let children: Vec<_> = parts.iter().map(|part| part.explain(event)).collect();
                Explanation::block("any", children.iter().any(|child| child.holds), children)
            }
            Self::Not(part) => {
                let child = part.explain(event);
                Explanation::block("not", !child.holds, vec![child])
            }
            Self::Test(test) => {
                let (holds, operand) = test.operand(event);
                Explanation::operand("test", holds, operand)
            }
            Self::During(during) => {
                Explanation::operand("during", during.holds_at(event.created_at()), during.operand(event))
            }
        }
    }
}

impl Test {
    fn operand(&self, event: &Event) -> (bool, Operand) {
        let (holds, seen) = self.find(event, &mut 0);
        let mut actual = seen;
        if actual.is_none() {
            self.target.field.values(event, &mut |view| {
                actual = Some(view);
                true
            });
        }
        let shown = actual.map(|view| {
            let text = view.scalar_text().unwrap_or(std::borrow::Cow::Borrowed(view.json()));
            Untrusted::new(text.chars().take(MAX_ACTUAL_CHARS).collect::<String>())
        });
        let field = self.target.field.as_str().to_owned();
        (holds, Operand { field, operator: self.operator.clone(), expected: self.expected.clone(), actual: shown })
    }
}

impl During {
    fn operand(&self, event: &Event) -> Operand {
        Operand {
            field: "created_at".to_owned(),
            operator: "during".to_owned(),
            expected: self.written().to_owned(),
            actual: Some(Untrusted::new(self.local(event.created_at()))),
        }
    }
}
