//! The encodings of Sigma: UTF-16 and Base64, for values that hide in encoded text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How the characters become bytes before Base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charset {
    Utf8,
    /// `wide`, `utf16le`.
    Utf16Le,
    Utf16Be,
    /// `utf16`: little endian behind a byte order mark.
    Utf16,
}

impl Charset {
    pub(crate) fn bytes(self, text: &str) -> Vec<u8> {
        let little = || text.encode_utf16().flat_map(u16::to_le_bytes);
        match self {
            Self::Utf8 => text.as_bytes().to_vec(),
            Self::Utf16Le => little().collect(),
            Self::Utf16Be => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            Self::Utf16 => [0xff, 0xfe].into_iter().chain(little()).collect(),
        }
    }
}

/// The bytes as Base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The parts of Base64 that do not depend on what stands before and after the bytes, for each of the three offsets.
pub(crate) fn base64_offsets(bytes: &[u8]) -> [String; 3] {
    [0, 1, 2].map(|offset: usize| {
        let padded: Vec<u8> = std::iter::repeat_n(b' ', offset).chain(bytes.iter().copied()).collect();
        let encoded = STANDARD.encode(&padded);
        let skipped = [0, 2, 3].get(offset).copied().unwrap_or(0);
        let cut = [0, 3, 2].get(padded.len() % 3).copied().unwrap_or(0);
        encoded.chars().take(encoded.len().saturating_sub(cut)).skip(skipped).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_of_the_sigma_specification() {
        assert_eq!(base64_offsets(b"/bin/bash"), ["L2Jpbi9iYXNo", "9iaW4vYmFza", "vYmluL2Jhc2"]);
        assert_eq!(base64(&Charset::Utf16Le.bytes("ping")), "cABpAG4AZwA=");
        assert_eq!(Charset::Utf16.bytes("a"), [0xff, 0xfe, b'a', 0]);
        assert_eq!(Charset::Utf16Be.bytes("a"), [0, b'a']);
    }

    proptest! {
        #[test]
        fn some_offset_is_in_every_surrounding(before in "[a-z]{0,8}", value in "[a-z]{3,9}", after in "[a-z]{0,8}") {
            let encoded = base64(format!("{before}{value}{after}").as_bytes());
            prop_assert!(base64_offsets(value.as_bytes()).iter().any(|part| encoded.contains(part)));
        }
    }
}
