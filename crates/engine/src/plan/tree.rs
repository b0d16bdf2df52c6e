//! A rule's condition over predicates: blocks flattened, cheap questions first.

use super::{Predicate, Question};

/// A condition whose tests are predicates of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Tree {
    Leaf { predicate: u32, negated: bool },
    All(Vec<Tree>),
    Any(Vec<Tree>),
}

impl Tree {
    pub(super) fn all(parts: Vec<Tree>, predicates: &[Predicate]) -> Self {
        let mut flat = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Self::All(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        flat.sort_by_key(|part| part.cost(predicates));
        Self::All(flat)
    }

    pub(super) fn any(parts: Vec<Tree>, predicates: &[Predicate]) -> Self {
        let mut flat = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Self::Any(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        flat.sort_by_key(|part| part.cost(predicates));
        Self::Any(flat)
    }

    /// Its opposite, with the negation moved down to the questions.
    pub(super) fn negated(self) -> Self {
        let each = |parts: Vec<Tree>| parts.into_iter().map(Tree::negated).collect();
        match self {
            Self::Leaf { predicate, negated } => Self::Leaf { predicate, negated: !negated },
            Self::All(parts) => Self::Any(each(parts)),
            Self::Any(parts) => Self::All(each(parts)),
        }
    }

    pub(super) fn holds(&self, question: &mut Question<'_>) -> bool {
        match self {
            Self::Leaf { predicate, negated } => question.answer(*predicate) != *negated,
            Self::All(parts) => parts.iter().all(|part| part.holds(question)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(question)),
        }
    }

    /// Predicates of which one must be true for the tree to hold: those that are shared least. `None` when there are none
    /// that a keyed field answers.
    pub(super) fn anchors(&self, predicates: &[Predicate], uses: &[usize]) -> Option<Vec<u32>> {
        match self {
            Self::Leaf { predicate, negated: false } => {
                matches!(predicates.get(*predicate as usize), Some(Predicate::Keyed(_))).then(|| vec![*predicate])
            }
            Self::Leaf { .. } => None,
            Self::All(parts) => {
                let uses_of = |id: &u32| uses.get(*id as usize).copied().unwrap_or_default();
                let sets = parts.iter().filter_map(|part| part.anchors(predicates, uses));
                sets.min_by_key(|set| set.iter().map(uses_of).sum::<usize>())
            }
            Self::Any(parts) => {
                let sets: Option<Vec<_>> = parts.iter().map(|part| part.anchors(predicates, uses)).collect();
                sets.map(|sets| sets.concat())
            }
        }
    }

    fn cost(&self, predicates: &[Predicate]) -> u32 {
        match self {
            Self::Leaf { predicate, .. } => match predicates.get(*predicate as usize) {
                Some(Predicate::Keyed(_)) | None => 1,
                Some(Predicate::During(_)) => 8,
                Some(Predicate::Test(test) | Predicate::Address(_, test)) => test.cost(),
            },
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().map(|part| part.cost(predicates)).fold(1, u32::saturating_add)
            }
        }
    }
}
