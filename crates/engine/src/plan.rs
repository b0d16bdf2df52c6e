//! The compiled rule set: all conditions of all rules, arranged so that one event touches only what can match it.
//!
//! Three ideas. A test that several rules share is one predicate, evaluated at most once an event. Text tests on one field
//! are answered together by one look into a table of everything that any rule wants there. And a rule is looked at only
//! when a predicate that it cannot do without (its anchor) came true; rules without one are looked at always.
//! It never decides differently from `Condition::holds`: a test with random rules and events keeps it so.

mod address;
mod hash;
mod keyed;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::HashMap;
use std::net::IpAddr;

use crate::condition::{Condition, During, Test};
use crate::event::Event;
use address::AddressField;
use keyed::KeyedField;
use tree::Tree;

/// An anchor on every string below a field makes each event pay for the whole walk: as dear as so many rules more.
const WIDE_FIELD_USES: usize = 12;

/// All conditions of all enabled rules.
#[derive(Debug, Default)]
pub struct Plan {
    predicates: Vec<Predicate>,
    fields: Vec<KeyedField>,
    addresses: Vec<AddressField>,
    /// Distinct conditions, each with the indices of the rules that have it.
    rules: Vec<(Tree, Vec<usize>)>,
    /// For each predicate the conditions that it is an anchor of.
    anchored: Vec<Vec<u32>>,
    /// Fields that decide anchors.
    anchor_fields: Vec<u32>,
    /// Conditions without an anchor.
    always: Vec<u32>,
}

/// One distinct question about an event. Negation stands in the trees, so that `neq` shares the question.
#[derive(Debug)]
enum Predicate {
    /// Answered by a keyed field.
    Keyed(u32),
    /// Asked of the addresses in a field.
    Address(u32, Box<Test>),
    Test(Box<Test>),
    During(Box<During>),
}

/// Answers for the present event. An answer is valid when it carries the event's generation.
#[derive(Debug)]
pub struct Scratch {
    /// The present generation; `false` is written as it is, `true` one higher.
    generation: u64,
    predicates: Vec<u64>,
    fields: Vec<u64>,
    rules: Vec<u64>,
    /// Predicates of keyed fields that came true.
    hits: Vec<u32>,
    /// For each field of addresses the generation and what the event has there.
    addresses: Vec<(u64, Vec<IpAddr>)>,
    /// Folded text.
    buffer: String,
}

impl Plan {
    /// Compiles conditions; `None` keeps the place of a rule that is switched off.
    pub(crate) fn new<'r>(conditions: impl IntoIterator<Item = Option<&'r Condition>>) -> Self {
        let mut builder = Builder::default();
        let conditions: Vec<(usize, &Condition)> =
            conditions.into_iter().enumerate().filter_map(|(index, condition)| Some((index, condition?))).collect();
        let mut places: HashMap<Tree, usize> = HashMap::new();
        for (index, condition) in conditions {
            let tree = builder.tree(condition);
            let rules = &mut builder.plan.rules;
            let place = *places.entry(tree).or_insert_with_key(|tree| {
                rules.push((tree.clone(), Vec::new()));
                rules.len() - 1
            });
            if let Some((_, indices)) = rules.get_mut(place) {
                indices.push(index);
            }
        }
        builder.finish()
    }

    /// Room for the answers about one event.
    pub(crate) fn scratch(&self) -> Scratch {
        Scratch {
            generation: 0,
            predicates: vec![0; self.predicates.len()],
            fields: vec![0; self.fields.len()],
            rules: vec![0; self.rules.len()],
            hits: Vec::new(),
            addresses: vec![(0, Vec::new()); self.addresses.len()],
            buffer: String::new(),
        }
    }

    /// Adds the indices of the rules whose condition the event fulfils, in load order.
    pub(crate) fn matches(&self, event: &Event, scratch: &mut Scratch, unusable: &mut u64, matched: &mut Vec<usize>) {
        scratch.generation += 2;
        scratch.hits.clear();
        let mut question = Question { plan: self, event, scratch, unusable };
        for field in &self.anchor_fields {
            question.answer_field(*field);
        }
        // Hits that come later belong to fields without anchors.
        for at in 0..question.scratch.hits.len() {
            let hit = question.scratch.hits.get(at).copied().unwrap_or_default();
            for rule in self.anchored.get(hit as usize).into_iter().flatten() {
                question.check_rule(*rule, matched);
            }
        }
        for rule in &self.always {
            question.check_rule(*rule, matched);
        }
        matched.sort_unstable();
    }
}

/// One event under evaluation.
struct Question<'q> {
    plan: &'q Plan,
    event: &'q Event,
    scratch: &'q mut Scratch,
    unusable: &'q mut u64,
}

impl Question<'_> {
    fn check_rule(&mut self, place: u32, matched: &mut Vec<usize>) {
        let generation = self.scratch.generation;
        let Some(seen) = self.scratch.rules.get_mut(place as usize) else { return };
        if std::mem::replace(seen, generation) == generation {
            return;
        }
        if let Some((tree, indices)) = self.plan.rules.get(place as usize)
            && tree.holds(self)
        {
            matched.extend(indices);
        }
    }

    /// The answer to one predicate, from memory or by asking.
    fn answer(&mut self, id: u32) -> bool {
        let known = self.scratch.predicates.get(id as usize).copied().unwrap_or_default();
        if known >= self.scratch.generation {
            return known > self.scratch.generation;
        }
        let answer = match self.plan.predicates.get(id as usize) {
            Some(Predicate::Keyed(field)) => {
                let field = *field;
                return self.answer_keyed(field, id);
            }
            Some(Predicate::Address(field, test)) => self.answer_address(*field, test),
            Some(Predicate::Test(test)) => test.fits(self.event, self.unusable),
            Some(Predicate::During(during)) => during.holds_at(self.event.created_at()),
            None => false,
        };
        if let Some(slot) = self.scratch.predicates.get_mut(id as usize) {
            *slot = self.scratch.generation + u64::from(answer);
        }
        answer
    }

    fn answer_keyed(&mut self, field: u32, id: u32) -> bool {
        self.answer_field(field);
        self.scratch.predicates.get(id as usize).is_some_and(|mark| *mark > self.scratch.generation)
    }

    fn answer_address(&mut self, field: u32, test: &Test) -> bool {
        let generation = self.scratch.generation;
        let Some((seen, addresses)) = self.scratch.addresses.get_mut(field as usize) else { return false };
        if std::mem::replace(seen, generation) != generation
            && let Some(field) = self.plan.addresses.get(field as usize)
        {
            field.read(self.event, self.unusable, addresses);
        }
        addresses.iter().any(|address| test.fits_address(*address))
    }

    /// Marks every predicate of a keyed field that is true; the others are then false.
    fn answer_field(&mut self, field: u32) {
        let generation = self.scratch.generation;
        let Some(seen) = self.scratch.fields.get_mut(field as usize) else { return };
        if std::mem::replace(seen, generation) == generation {
            return;
        }
        let Some(keyed) = self.plan.fields.get(field as usize) else { return };
        let Scratch { predicates, hits, buffer, .. } = &mut *self.scratch;
        keyed.answer(self.event, self.unusable, buffer, &mut |id| {
            if let Some(mark) = predicates.get_mut(id as usize)
                && *mark <= generation
            {
                *mark = generation + 1;
                hits.push(id);
            }
        });
    }
}

/// A plan under construction.
#[derive(Debug, Default)]
struct Builder {
    plan: Plan,
    tests: HashMap<[u8; 32], u32>,
    durings: HashMap<String, u32>,
    fields: HashMap<String, u32>,
    addresses: HashMap<String, u32>,
    /// How often conditions use a predicate: a rare one makes the better anchor.
    uses: Vec<usize>,
}

impl Builder {
    fn tree(&mut self, condition: &Condition) -> Tree {
        match condition {
            Condition::All(parts) => {
                Tree::all(parts.iter().map(|part| self.tree(part)).collect(), &self.plan.predicates)
            }
            Condition::Any(parts) => {
                Tree::any(parts.iter().map(|part| self.tree(part)).collect(), &self.plan.predicates)
            }
            Condition::Not(part) => self.tree(part).negated(),
            Condition::Test(test) => Tree::Leaf { predicate: self.test(test), negated: test.is_negated() },
            Condition::During(during) => Tree::Leaf { predicate: self.during(during), negated: false },
        }
    }

    fn test(&mut self, test: &Test) -> u32 {
        if let Some(id) = self.tests.get(test.fingerprint()) {
            let id = *id;
            return self.count_use(id);
        }
        let id = match (test.wanted_texts(), test.wanted_addresses()) {
            (Some(wanted), _) => {
                let fields = &mut self.plan.fields;
                let place = *self.fields.entry(test.field().to_owned()).or_insert_with(|| {
                    fields.push(KeyedField::new(wanted.field));
                    fields.len() as u32 - 1
                });
                let id = self.add(Predicate::Keyed(place));
                if let Some(field) = self.plan.fields.get_mut(place as usize) {
                    field.insert(id, &wanted);
                }
                id
            }
            (None, Some(field)) => {
                let addresses = &mut self.plan.addresses;
                let place = *self.addresses.entry(test.field().to_owned()).or_insert_with(|| {
                    addresses.push(AddressField::new(field));
                    addresses.len() as u32 - 1
                });
                self.add(Predicate::Address(place, Box::new(test.clone())))
            }
            (None, None) => self.add(Predicate::Test(Box::new(test.clone()))),
        };
        self.tests.insert(*test.fingerprint(), id);
        self.count_use(id)
    }

    fn during(&mut self, during: &During) -> u32 {
        if let Some(id) = self.durings.get(during.written()) {
            let id = *id;
            return self.count_use(id);
        }
        let id = self.add(Predicate::During(Box::new(during.clone())));
        self.durings.insert(during.written().to_owned(), id);
        self.count_use(id)
    }

    fn add(&mut self, predicate: Predicate) -> u32 {
        self.plan.predicates.push(predicate);
        self.uses.push(0);
        self.plan.predicates.len() as u32 - 1
    }

    fn count_use(&mut self, id: u32) -> u32 {
        if let Some(uses) = self.uses.get_mut(id as usize) {
            *uses += 1;
        }
        id
    }

    fn finish(self) -> Plan {
        let Self { mut plan, mut uses, .. } = self;
        for (uses, predicate) in uses.iter_mut().zip(&plan.predicates) {
            let field = if let Predicate::Keyed(field) = predicate { plan.fields.get(*field as usize) } else { None };
            *uses += if field.is_some_and(KeyedField::is_wide) { WIDE_FIELD_USES } else { 0 };
        }
        plan.anchored = vec![Vec::new(); plan.predicates.len()];
        for (place, (tree, _)) in plan.rules.iter().enumerate() {
            match tree.anchors(&plan.predicates, &uses) {
                Some(anchors) => {
                    for anchor in anchors {
                        if let Some(rules) = plan.anchored.get_mut(anchor as usize) {
                            rules.push(place as u32);
                        }
                    }
                }
                None => plan.always.push(place as u32),
            }
        }
        let decides = plan.anchored.iter().zip(&plan.predicates).filter(|(rules, _)| !rules.is_empty());
        let fields = decides.filter_map(|(_, predicate)| match predicate {
            Predicate::Keyed(field) => Some(*field),
            _ => None,
        });
        plan.anchor_fields = fields.collect();
        plan.anchor_fields.sort_unstable();
        plan.anchor_fields.dedup();
        for field in &mut plan.fields {
            field.seal();
        }
        plan
    }
}
