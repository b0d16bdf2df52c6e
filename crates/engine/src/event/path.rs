//! Field paths: where in an event a condition looks.
//!
//! A path is dotted; at each level the longest literal key wins, and one that leads nowhere hides nothing. Arrays are
//! transparent: each member counts. `actor` is an alias, `prefix.*` is every string below, `*` every string of the event.
//! `geo` and what is below it is what an address database says, and never a field of the event.

use super::geo::GEO;
use super::{Event, View};

/// Most segments of a path: far above real ones, and a bound on the readings that dotted keys allow.
pub const MAX_PATH_SEGMENTS: usize = 16;

/// What `actor` stands for, in order.
const ACTOR_FIELDS: [&str; 3] = ["user_id", "user_email", "source_ip"];

/// A path that was read once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldPath {
    text: Box<str>,
    kind: Kind,
    is_geo: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Plain,
    Actor,
    /// Every string below the path without its last two bytes (`.*`).
    Below,
    Everything,
}

/// What a walk came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    Missing,
    Seen,
    Stopped,
}

impl FieldPath {
    /// Reads a path.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let segments = text.split('.');
        let count = segments.clone().count();
        let star = segments.clone().position(|segment| segment == "*");
        let kind = match star {
            _ if text.trim().is_empty() => return Err("the field has no name".into()),
            _ if count > MAX_PATH_SEGMENTS => {
                return Err(format!("the field `{text}` has more than {MAX_PATH_SEGMENTS} parts"));
            }
            Some(0) if count == 1 => Kind::Everything,
            Some(at) if at + 1 == count => Kind::Below,
            Some(_) => return Err(format!("`*` may only be the last part of the field `{text}`")),
            None if text == "actor" => Kind::Actor,
            None => Kind::Plain,
        };
        let is_geo = text.split('.').next() == Some(GEO);
        Ok(Self { text: text.into(), kind, is_geo })
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The fields that it takes its value from: itself, or what it stands for.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        let (own, others): (Option<&str>, &[&str]) = match self.kind {
            Kind::Actor => (None, &ACTOR_FIELDS),
            Kind::Plain | Kind::Below | Kind::Everything => (Some(&self.text), &[]),
        };
        own.into_iter().chain(others.iter().copied())
    }

    /// Whether it asks an address database.
    #[must_use]
    pub fn is_geo(&self) -> bool {
        self.is_geo
    }

    /// Calls `visit` with each value at the path, arrays as they are, until it returns true. Says whether it did.
    pub fn values<'e>(&self, event: &'e Event, visit: &mut impl FnMut(View<'e>) -> bool) -> bool {
        let root = match (self.is_geo, &event.geo) {
            (false, _) => event.root(),
            (true, Some(geo)) => geo.root(),
            (true, None) => return false,
        };
        match self.kind {
            Kind::Plain => walk(root, &self.text, visit) == Walk::Stopped,
            Kind::Everything => root.strings(visit),
            Kind::Below => {
                let prefix = self.text.strip_suffix(".*").unwrap_or(&self.text);
                walk(root, prefix, &mut |view| view.strings(visit)) == Walk::Stopped
            }
            Kind::Actor => actor(event).is_some_and(visit),
        }
    }

    /// Like [`FieldPath::values`] with arrays replaced by their members, at any depth.
    pub fn leaves<'e>(&self, event: &'e Event, visit: &mut impl FnMut(View<'e>) -> bool) -> bool {
        self.values(event, &mut |view| view.leaves(visit))
    }

    /// Whether something is there, be it null.
    #[must_use]
    pub fn is_present(&self, event: &Event) -> bool {
        self.values(event, &mut |_| true)
    }
}

fn walk<'e>(view: View<'e>, path: &str, visit: &mut impl FnMut(View<'e>) -> bool) -> Walk {
    if view.is_array() {
        let mut outcome = Walk::Missing;
        for item in view.items() {
            match walk(item, path, visit) {
                Walk::Stopped => return Walk::Stopped,
                Walk::Seen => outcome = Walk::Seen,
                Walk::Missing => {}
            }
        }
        return outcome;
    }
    if let Some(found) = view.member(path) {
        return if visit(found) { Walk::Stopped } else { Walk::Seen };
    }
    let mut head = path;
    while let Some((shorter, _)) = head.rsplit_once('.') {
        head = shorter;
        let tail = path.get(head.len() + 1..).unwrap_or_default();
        let Some(child) = view.member(head) else { continue };
        match walk(child, tail, visit) {
            Walk::Missing => {}
            found => return found,
        }
    }
    Walk::Missing
}

fn actor(event: &Event) -> Option<View<'_>> {
    ACTOR_FIELDS.iter().find_map(|field| {
        let mut found = None;
        walk(event.root(), field, &mut |view| {
            view.leaves(&mut |leaf| {
                found = leaf.scalar_text().filter(|text| !text.is_empty()).map(|_| leaf);
                found.is_some()
            })
        });
        found
    })
}
