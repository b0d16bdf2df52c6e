//! A NATS credentials file (`.creds`): a token that says who we are, and the seed of the key that proves it.
//!
//! The seed never leaves this module; what goes out is the signature of the server's challenge.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::Ed25519KeyPair;

use crate::secret::Secret;

/// Two bytes that say what it is, the seed, two bytes of checksum.
const DECODED_BYTES: usize = 36;
/// In the highest five bits of the first byte: a seed.
const SEED: u8 = 18 << 3;
/// In the next eight bits: of a user.
const USER: u8 = 20 << 3;

/// Who we are, and the key.
pub(super) struct Credentials {
    /// The token, as the server is told.
    pub(super) jwt: Secret,
    seed: Secret,
    key: Ed25519KeyPair,
}

impl Credentials {
    /// Reads the text of the file.
    ///
    /// # Errors
    /// What is missing or damaged, without any of it.
    pub(super) fn read(text: &str) -> Result<Self, &'static str> {
        let jwt = block(text, "NATS USER JWT").ok_or("it holds no NATS USER JWT")?;
        let seed = block(text, "USER NKEY SEED").ok_or("it holds no USER NKEY SEED")?;
        Ok(Self { jwt: Secret::new(jwt), seed: Secret::new(seed), key: key(seed)? })
    }

    /// The signature of the server's challenge, as the server wants it written.
    pub(super) fn signature(&self, nonce: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.key.sign(nonce.as_bytes()))
    }

    /// What must never show.
    pub(super) fn secrets(&self) -> [Secret; 2] {
        [self.jwt.clone(), self.seed.clone()]
    }
}

/// The line between the two marks.
fn block<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim).skip_while(|line| !line.contains(&format!("BEGIN {name}"))).skip(1);
    lines.find(|line| !line.is_empty()).filter(|line| !line.starts_with('-'))
}

fn key(seed: &str) -> Result<Ed25519KeyPair, &'static str> {
    const DAMAGED: &str = "its seed is damaged";
    let decoded = base32(seed).filter(|decoded| decoded.len() == DECODED_BYTES).ok_or(DAMAGED)?;
    let (content, checksum) = decoded.split_at(DECODED_BYTES - 2);
    if crc16(content).to_le_bytes() != checksum {
        return Err(DAMAGED);
    }
    match content {
        [first, second, seed @ ..] if first & 0xf8 == SEED && (first << 5 | second >> 3) == USER => {
            Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| DAMAGED)
        }
        _ => Err("its seed is not that of a user"),
    }
}

/// RFC 4648 without padding.
fn base32(text: &str) -> Option<Vec<u8>> {
    let (mut decoded, mut bits, mut count) = (Vec::with_capacity(DECODED_BYTES), 0_u32, 0_u32);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return None,
        };
        (bits, count) = ((bits << 5 | u32::from(value)) & 0xfff, count + 5);
        if count >= 8 {
            count -= 8;
            decoded.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(decoded)
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Of a key made for this test.
    pub(in crate::sink::nats) const SEED_TEXT: &str = "SUAJAWRYF4INH5IWOSSVWU4JTGM6ATD37UATATKJRUOAEGCNKCNI7DYDI4";
    const PUBLIC_BASE64: &str = "V5aGxzfsb1NcR51au9tYYhMo1MPGOAk7gDRe7/3+bCo=";

    pub(in crate::sink::nats) fn file(jwt: &str, seed: &str) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }

    #[test]
    fn the_challenge_is_signed_with_the_key_of_the_seed() {
        let credentials = Credentials::read(&file("a.b.c", SEED_TEXT)).expect("whole");
        assert_eq!(credentials.jwt.expose(), "a.b.c");
        let signature = URL_SAFE_NO_PAD.decode(credentials.signature("nonce")).expect("base64");
        let public = base64::engine::general_purpose::STANDARD.decode(PUBLIC_BASE64).expect("base64");
        let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public);
        public.verify(b"nonce", &signature).expect("signed");
        assert!(public.verify(b"other", &signature).is_err());
    }

    #[test]
    fn a_damaged_file_is_told_without_what_it_holds() {
        let mut other = SEED_TEXT.to_owned();
        other.replace_range(10..11, if other.contains('Q') { "A" } else { "Q" });
        // A seed of an account, with a checksum of its own.
        let account = "SAAGZ7HSQKYV4Q677NT2CEJHYWU5NQVAGKHFZDFAW2X5H4LK7QLP2P6V5I";
        for (text, expected) in [
            (String::new(), "it holds no NATS USER JWT"),
            (file("", ""), "it holds no NATS USER JWT"),
            (file("a.b.c", ""), "it holds no USER NKEY SEED"),
            (file("a.b.c", &other), "its seed is damaged"),
            (file("a.b.c", "SU"), "its seed is damaged"),
            (file("a.b.c", &SEED_TEXT.to_lowercase()), "its seed is damaged"),
            (file("a.b.c", account), "its seed is not that of a user"),
        ] {
            assert_eq!(Credentials::read(&text).err(), Some(expected), "{text}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_xmodem() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(base32("MZXW6YTBOI"), Some(b"foobar".to_vec()));
        assert_eq!(base32("MZXW6YTBO!"), None);
    }
}
