//! Time windows in whole seconds, and the set of those that are owed: asked for and not yet proven complete.
//!
//! Windows are half open. The set never holds the same second twice, so that what a later root owes again costs nothing
//! while it is still owed; a window leaves it only through `settle` or by being split into parts that cover it.

use serde::{Deserialize, Serialize};

/// Most windows kept apart; beyond it, neighbours are joined (they are then asked for again as one).
pub const MAX_OWED: usize = 2_048;
/// Most parts that one window is split into.
const MAX_PARTS: i64 = 32;

/// `from_s <= created_at < to_s`, Unix seconds of the server's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    /// First second.
    #[serde(rename = "f")]
    pub from_s: i64,
    /// End, exclusive.
    #[serde(rename = "t")]
    pub to_s: i64,
    /// What lies before this was proven complete at this time; a new row there became visible late. 0: unknown.
    #[serde(rename = "p", default, skip_serializing_if = "is_zero")]
    pub proven_s: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Window {
    /// Width in seconds, at least 0.
    #[must_use]
    pub fn width_s(self) -> i64 {
        (self.to_s - self.from_s).max(0)
    }

    /// Splits it into at most `parts` of whole seconds; one second stays whole.
    #[must_use]
    pub fn split(self, parts: i64) -> Vec<Self> {
        let width_s = self.width_s();
        let parts = parts.clamp(2, MAX_PARTS).min(width_s).max(1);
        let cut = |index: i64| self.from_s + width_s * index / parts;
        (0..parts).map(|index| Self { from_s: cut(index), to_s: cut(index + 1), ..self }).collect()
    }
}

/// The owed windows, in order of time, disjoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Owed(Vec<Window>);

impl Owed {
    /// Whether nothing is owed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many windows are owed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The windows in order of time.
    #[must_use]
    pub fn windows(&self) -> &[Window] {
        &self.0
    }

    /// Whether this very window is owed.
    #[must_use]
    pub fn has(&self, window: Window) -> bool {
        let place = self.0.partition_point(|old| old.from_s < window.from_s);
        self.0.get(place) == Some(&window)
    }

    /// Owes those seconds of `window` that are not owed already.
    pub fn add(&mut self, window: Window) {
        let mut missing = Vec::new();
        let mut at_s = window.from_s;
        for old in self.0.iter().filter(|old| old.to_s > window.from_s && old.from_s < window.to_s) {
            if old.from_s > at_s {
                missing.push(Window { from_s: at_s, to_s: old.from_s, ..window });
            }
            at_s = at_s.max(old.to_s);
        }
        if at_s < window.to_s {
            missing.push(Window { from_s: at_s, ..window });
        }
        self.0.extend(missing);
        self.0.sort_unstable_by_key(|window| window.from_s);
        self.join_excess();
    }

    /// The window to ask for next, without those that `skip` names: of those that `rank` puts lowest the narrowest, of
    /// equals the oldest.
    #[must_use]
    pub fn narrowest<R: Ord>(&self, skip: impl Fn(Window) -> bool, rank: impl Fn(Window) -> R) -> Option<Window> {
        let open = self.0.iter().copied().filter(|window| !skip(*window));
        open.min_by_key(|window| (rank(*window), window.width_s(), window.from_s))
    }

    /// Takes a window out; it is proven complete or about to come back in parts.
    pub fn settle(&mut self, window: Window) {
        self.0.retain(|old| (old.from_s, old.to_s) != (window.from_s, window.to_s));
    }

    /// Forgets what was proven by a clock that was ahead.
    pub fn doubt_after(&mut self, now_s: i64) {
        self.0.iter_mut().filter(|window| window.proven_s > now_s).for_each(|window| window.proven_s = 0);
    }

    /// Moves every window by a change of the server's zone.
    pub fn shift(&mut self, by_s: i64) {
        for window in &mut self.0 {
            window.from_s += by_s;
            window.to_s += by_s;
        }
    }

    fn join_excess(&mut self) {
        while self.0.len() > MAX_OWED {
            let gaps = self.0.windows(2).enumerate();
            let nearest = gaps.min_by_key(|(_, pair)| match pair {
                [left, right] => right.to_s - left.from_s,
                _ => i64::MAX,
            });
            let Some((index, _)) = nearest else { return };
            let right = self.0.remove(index + 1);
            if let Some(left) = self.0.get_mut(index) {
                left.to_s = right.to_s;
                left.proven_s = left.proven_s.min(right.proven_s);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(from_s: i64, to_s: i64) -> Window {
        Window { from_s, to_s, proven_s: 0 }
    }

    fn seconds(owed: &Owed) -> Vec<i64> {
        owed.windows().iter().flat_map(|window| window.from_s..window.to_s).collect()
    }

    #[test]
    fn a_split_covers_the_window_exactly() {
        assert_eq!(window(10, 13).split(2), [window(10, 11), window(11, 13)]);
        assert_eq!(window(10, 11).split(2), [window(10, 11)]);
        assert_eq!(window(0, 100).split(1000).len(), 32);
        assert_eq!(window(0, 100).split(3), [window(0, 33), window(33, 66), window(66, 100)]);
    }

    #[test]
    fn the_narrowest_goes_first() {
        let mut owed = Owed::default();
        for part in [window(0, 50), window(60, 70), window(80, 90)] {
            owed.add(part);
        }
        assert_eq!(owed.narrowest(|_| false, |_| 0), Some(window(60, 70)));
        assert_eq!(owed.narrowest(|part| part == window(60, 70), |_| 0), Some(window(80, 90)));
        let again = |part| usize::from(part == window(60, 70));
        assert_eq!(owed.narrowest(|_| false, again), Some(window(80, 90)), "what was settled before comes last");
        owed.settle(window(60, 70));
        assert_eq!(owed.windows(), [window(0, 50), window(80, 90)]);
    }

    #[test]
    fn too_many_windows_are_joined_and_nothing_is_lost() {
        let mut owed = Owed::default();
        for index in 0..(i64::try_from(MAX_OWED).expect("small") + 10) {
            owed.add(window(index * 3, index * 3 + 1));
        }
        assert_eq!(owed.len(), MAX_OWED);
        let covered: std::collections::HashSet<i64> = seconds(&owed).into_iter().collect();
        assert!((0..2058).all(|index| covered.contains(&(index * 3))));
    }

    proptest! {
        #[test]
        fn what_was_added_is_owed_once(parts in proptest::collection::vec((0i64..60, 1i64..20), 1..12)) {
            let mut owed = Owed::default();
            let mut expected = std::collections::BTreeSet::new();
            for (from_s, width_s) in parts {
                owed.add(window(from_s, from_s + width_s));
                expected.extend(from_s..from_s + width_s);
            }
            let held = seconds(&owed);
            prop_assert_eq!(held, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
