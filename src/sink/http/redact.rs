//! What may be kept of a destination's answer: one short line without our secrets, its URL, or anything like a token.
//!
//! It cannot know every secret of others, so it also takes out long words that look random; losing a request id is cheaper
//! than keeping a key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::Url;
use vigie_engine::text::single_line;

use crate::secret::{Secret, unescaped};
use crate::sink::MAX_EXCERPT_CHARS;

/// What stands where something was taken out.
const MARK: &str = "[redacted]";
/// Shorter parts of a URL's path (`api`, `v2`) are no secret.
const MIN_URL_PART_CHARS: usize = 8;
/// From this length on a word with letters and digits is held to be a token.
const MIN_TOKEN_CHARS: usize = 24;
/// Bytes of an answer that are looked at: an excerpt shows far fewer.
const MAX_LOOKED_AT_BYTES: usize = 8 * 1024;

/// Takes secrets out of text.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that a secret is not left as the rest of a shorter one.
    needles: Vec<Secret>,
}

impl Redactor {
    /// Knows the secrets and whatever of the URL may be one: user and password in every spelling, path, long parts of it,
    /// query values.
    #[must_use]
    pub fn new(url: &Url, secrets: &[Secret]) -> Self {
        let mut needles: Vec<String> = vec![url.as_str().to_owned()];
        needles.extend(url.query().map(str::to_owned));
        needles.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
        if url.path().chars().count() >= MIN_URL_PART_CHARS {
            needles.push(url.path().to_owned());
        }
        let parts = url.path().split('/').filter(|part| part.chars().count() >= MIN_URL_PART_CHARS);
        needles.extend(parts.map(str::to_owned));
        Self::of(needles, &[secrets, &login(url)].concat())
    }

    /// Knows the arguments of a program: any that is not short may be a secret.
    #[must_use]
    pub fn of_arguments(arguments: &[String]) -> Self {
        let long = arguments.iter().filter(|argument| argument.chars().count() >= MIN_URL_PART_CHARS);
        Self::of(long.cloned().collect(), &[])
    }

    fn of(mut needles: Vec<String>, secrets: &[Secret]) -> Self {
        for secret in secrets {
            needles.push(secret.expose().to_owned());
            needles.extend(secret.expose().strip_prefix("whsec_").map(str::to_owned));
            // `Authorization: Bearer x`: an answer may repeat just the `x`.
            needles.extend(secret.expose().split_whitespace().skip(1).map(str::to_owned));
        }
        needles.retain(|needle| !needle.trim().is_empty());
        needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
        needles.dedup();
        Self { needles: needles.into_iter().map(Secret::new).collect() }
    }

    /// The same with more secrets.
    #[must_use]
    pub fn with(&self, secrets: impl IntoIterator<Item = Secret>) -> Self {
        let is_one = |secret: &Secret| !secret.expose().trim().is_empty();
        let mut needles: Vec<Secret> = secrets.into_iter().filter(is_one).collect();
        needles.extend(self.needles.iter().cloned());
        needles.sort_by_key(|needle| std::cmp::Reverse(needle.expose().len()));
        Self { needles }
    }

    /// At most [`MAX_EXCERPT_CHARS`] on one line, secrets taken out.
    #[must_use]
    pub fn excerpt(&self, body: &[u8]) -> String {
        let looked_at = body.get(..MAX_LOOKED_AT_BYTES).unwrap_or(body);
        single_line(self.redact(&String::from_utf8_lossy(looked_at)).trim(), MAX_EXCERPT_CHARS)
    }

    /// The text without secrets, URLs and tokens.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        let mut redacted = text.to_owned();
        for needle in &self.needles {
            redacted = redacted.replace(needle.expose(), MARK);
        }
        without_tokens(&redacted)
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Redactor({} secrets)", self.needles.len())
    }
}

/// Every spelling of a URL's user and password that could come back.
pub(super) fn login(url: &Url) -> Vec<Secret> {
    let (user, password) = (url.username(), url.password().unwrap_or_default());
    let plain = [user, password].map(unescaped);
    let basic = STANDARD.encode(plain.join(":"));
    let spellings = [user.to_owned(), password.to_owned(), basic].into_iter().chain(plain);
    spellings.filter(|_| !user.is_empty() || !password.is_empty()).map(Secret::new).collect()
}

fn without_tokens(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for word in text.split_inclusive(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | ',' | ';')) {
        let end = word.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | ',' | ';'));
        let tail = word.strip_prefix(end).unwrap_or_default();
        kept.push_str(if end.contains("://") {
            "[url]"
        } else if has_token(end) {
            MARK
        } else {
            end
        });
        kept.push_str(tail);
    }
    kept
}

fn has_token(word: &str) -> bool {
    word.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '/'))).any(|part| {
        part.len() >= MIN_TOKEN_CHARS
            && part.bytes().any(|byte| byte.is_ascii_digit())
            && part.bytes().any(|byte| byte.is_ascii_alphabetic())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor() -> Redactor {
        let url = Url::parse("https://us%65r:pass9%40word@hooks.example.org/services/T0/B0/xyzzyplugh?sig=qqq")
            .expect("valid");
        Redactor::new(&url, &[Secret::new("whsec_c2VjcmV0"), Secret::new("Bearer abc.def")])
    }

    #[test]
    fn own_secrets_are_taken_out_whole_and_in_part() {
        let parts = [
            "us%65r",
            "user",
            "pass9%40word",
            "pass9@word",
            "dXNlcjpwYXNzOUB3b3Jk",
            "xyzzyplugh",
            "/services/T0/B0/xyzzyplugh",
            "qqq",
            "whsec_c2VjcmV0",
            "c2VjcmV0",
            "abc.def",
        ];
        for part in parts {
            let shown = redactor().redact(&format!("bad ({part}), sorry"));
            assert_eq!(shown, format!("bad ({MARK}), sorry"), "{part}");
        }
    }

    #[test]
    fn urls_and_tokens_of_others_are_taken_out() {
        let shown =
            redactor().redact(r#"{"next":"https://a.example/x?y=1","id":"9f8e7d6c5b4a39281706f5e4d3c2b1a0", "n": 12}"#);
        assert_eq!(shown, r#"{"next":"[url]","id":"[redacted]", "n": 12}"#);
        assert_eq!(
            redactor().redact("invalid_payload: no_text at 2026-03-04"),
            "invalid_payload: no_text at 2026-03-04"
        );
    }

    #[test]
    fn an_excerpt_is_one_short_inert_line() {
        let shown = redactor().excerpt(format!("\r\n a\u{1b}[2J\r\nb {}", "word ".repeat(10_000)).as_bytes());
        assert!(shown.starts_with("a\\u{1b}[2J  b word") && shown.chars().count() == MAX_EXCERPT_CHARS, "{shown}");
        assert_eq!(redactor().excerpt(&[0xff, 0xfe]), "\u{fffd}\u{fffd}");
    }
}
