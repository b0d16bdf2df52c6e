//! The seeded source of chance: SplitMix64.
//! It never reads entropy from the machine. Written out here, not taken from a crate, so that a seed which once failed
//! gives the same world after every upgrade of a dependency.

use std::time::Duration;

/// A small deterministic generator. Equal seeds give equal sequences on every platform.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// Starts from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        finish(self.state)
    }

    /// A number below `limit`; 0 when `limit` is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(limit);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A number in `low..=high` (`low` when the range is empty).
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// A fraction in `0.0..1.0`.
    pub fn fraction(&mut self) -> f64 {
        fraction_of(self.bits())
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    /// One of the values; `None` of an empty slice.
    pub fn pick<'a, T>(&mut self, values: &'a [T]) -> Option<&'a T> {
        let index = self.below(values.len() as u64);
        values.get(usize::try_from(index).unwrap_or(0))
    }

    /// A duration below `limit`, in whole milliseconds.
    pub fn duration_below(&mut self, limit: Duration) -> Duration {
        Duration::from_millis(self.below(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)))
    }

    /// A random (version 4) UUID in its usual spelling.
    pub fn uuid(&mut self) -> String {
        let high = (self.bits() & !0xf000) | 0x4000;
        let low = (self.bits() >> 2) | (1 << 63);
        let mut text = String::with_capacity(36);
        for (place, digit) in (0..16).map(|n| (n, high)).chain((0..16).map(|n| (n + 16, low))) {
            if matches!(place, 8 | 12 | 16 | 20) {
                text.push('-');
            }
            let nibble = (digit >> (60 - 4 * (place % 16))) & 0xf;
            text.push(char::from_digit(u32::try_from(nibble).unwrap_or(0), 16).unwrap_or('0'));
        }
        text
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes two numbers into one that looks random: chance that depends on (seed, position) and not on the order of the
/// draws.
#[must_use]
pub fn mix(left: u64, right: u64) -> u64 {
    finish(left.wrapping_add(GOLDEN) ^ finish(right.wrapping_add(GOLDEN)))
}

/// A number of a text (FNV-1a, finished), the same in every run.
#[must_use]
pub fn hash_text(text: &str) -> u64 {
    let folded = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    finish(folded)
}

/// 53 of the bits as a fraction in `0.0..1.0`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
pub fn fraction_of(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

fn finish(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_splitmix64() {
        // The published first outputs for seed 1234567.
        let mut rng = Rng::new(1_234_567);
        assert_eq!(
            [rng.bits(), rng.bits(), rng.bits()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn uuids_are_version_4() {
        let mut rng = Rng::new(7);
        for _ in 0..200 {
            let id = rng.uuid();
            let bytes = id.as_bytes();
            assert_eq!(id.len(), 36, "{id}");
            assert!([8, 13, 18, 23].iter().all(|&at| bytes[at] == b'-'), "{id}");
            assert_eq!(bytes[14], b'4', "{id}");
            assert!(b"89ab".contains(&bytes[19]), "{id}");
        }
    }

    #[test]
    fn stays_inside_its_ranges() {
        let mut rng = Rng::new(1);
        let draws: Vec<u64> = (0..2_000).map(|_| rng.between(3, 6)).collect();
        assert_eq!((draws.iter().min(), draws.iter().max()), (Some(&3), Some(&6)));
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.pick::<u8>(&[]), None);
    }
}
