//! The hash of the plan's tables: short texts, looked up some times an event.
//!
//! Only rule authors put keys into these tables, so an event's author gains nothing from collisions, and the cost of the
//! standard library's keyed hash buys nothing.

use std::hash::{BuildHasherDefault, Hasher};

/// A map with this hash.
pub(super) type TextMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<TextHasher>>;

/// Multiply and rotate, eight bytes at a time.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct TextHasher {
    state: u64,
}

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl TextHasher {
    fn mix(&mut self, word: u64) {
        self.state = (self.state.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    }
}

impl Hasher for TextHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (chunks, tail) = bytes.as_chunks::<8>();
        for chunk in chunks {
            self.mix(u64::from_le_bytes(*chunk));
        }
        if !tail.is_empty() {
            self.mix(tail.iter().fold(tail.len() as u64, |word, byte| (word << 8) | u64::from(*byte)));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.mix(byte.into());
    }

    fn finish(&self) -> u64 {
        self.state ^ (self.state >> 32)
    }
}
