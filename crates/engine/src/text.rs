//! Text that came out of an event, and the ways in which it may be shown.
//!
//! Whoever did the deed chose this text. `Untrusted` has no `Display`, so that it cannot slip into a terminal, a header or
//! markup by accident: every writer names the form it needs.

use serde::{Deserialize, Serialize};

/// Text under somebody else's control. JSON encoding is safe for it; for anything else use a method that escapes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Untrusted(String);

impl Untrusted {
    /// Wraps text of unknown intent.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text exactly as it came: only for comparing, hashing and encoders that escape by themselves (JSON).
    #[must_use]
    pub fn as_raw(&self) -> &str {
        &self.0
    }

    /// One printable line of at most `max_chars` characters: control, bidirectional and invisible format characters
    /// become `\u{..}` escapes or spaces, a cut is marked with `…`. Safe for a terminal, a log, a mail header.
    #[must_use]
    pub fn single_line(&self, max_chars: usize) -> String {
        single_line(&self.0, max_chars)
    }
}

/// See [`Untrusted::single_line`].
#[must_use]
pub fn single_line(text: &str, max_chars: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(max_chars * 4));
    let mut used_chars = 0;
    for character in text.chars() {
        let escaped: String = match character {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => " ".into(),
            c if is_unsafe(c) => c.escape_unicode().collect(),
            c => c.into(),
        };
        let width_chars = escaped.chars().count();
        if used_chars + width_chars > max_chars {
            while used_chars >= max_chars && shown.pop().is_some() {
                used_chars -= 1;
            }
            if max_chars > 0 {
                shown.push('…');
            }
            break;
        }
        used_chars += width_chars;
        shown.push_str(&escaped);
    }
    shown
}

/// Characters that steer a terminal, reorder what a person reads, or cannot be seen.
#[must_use]
pub fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_one_inert_line() {
        let hostile = "a\r\nBcc: x\u{1b}[2J\u{202e}gpj";
        assert_eq!(single_line(hostile, 80), "a  Bcc: x\\u{1b}[2J\\u{202e}gpj");
    }

    #[test]
    fn a_cut_is_marked_and_fits() {
        assert_eq!(single_line("abcdef", 4), "abc…");
        assert_eq!(single_line("abcd", 4), "abcd");
        assert_eq!(single_line("abc\u{1b}", 4), "abc…");
        assert_eq!(single_line("abc", 0), "");
    }
}
