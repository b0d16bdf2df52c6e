//! Event types that rules name, against those that the Vonage Audit API is known to have.
//!
//! The type is an open string, so an unknown one is only a warning: another source may have it, the API may grow.

use crate::condition::Literal;
use crate::diagnostic::{Diagnostics, Span, code, nearest};

/// The union of every published list of Vonage audit event types.
pub const KNOWN_EVENT_TYPES: &[&str] = &[
    "USER_STATUS",
    "USER_UPDATE",
    "USER_BILLING_UPDATE",
    "USER_CREATE",
    "USER_LOGIN",
    "USER_LOGOUT",
    "USER_PRODUCT_SEARCH",
    "USER_API_KEYS_UPDATE",
    "ACCOUNT_SECRET_CREATE",
    "ACCOUNT_SECRET_DELETE",
    "ACCOUNT_UPDATE_SPAMMER",
    "ACCOUNT_UPDATE_SETTINGS",
    "ACCOUNT_UPDATE_SETTINGS_API",
    "NUMBER_ASSIGN",
    "NUMBER_UPDATED",
    "NUMBER_RELEASE",
    "NUMBER_USER_CANCELED",
    "NUMBER_LINKED",
    "NUMBER_UNLINKED",
    "APP_CREATE",
    "APP_UPDATE",
    "APP_DELETE",
    "APP_DISABLE",
    "APP_ENABLE",
    "IP_WHITELIST_CREATE",
    "IP_WHITELIST_DELETE",
    "AUTORELOAD_ENABLE",
    "AUTORELOAD_UPDATE",
    "AUTORELOAD_DISABLE",
];
/// Types that begin so are events about Vigie itself.
pub const OWN_PREFIX: &str = "VIGIE_";

/// The patterns that a test on `event_type` stands for, each with the index of its value; none when the modifiers do not
/// compare whole types (a regex, `exists`).
pub(crate) fn patterns(modifiers: &[&str], values: &[Literal]) -> Vec<(usize, String)> {
    let (mut before, mut after) = ("", "");
    for modifier in modifiers {
        match *modifier {
            "cased" | "neq" | "all" | "every" => {}
            "contains" => (before, after) = ("*", "*"),
            "startswith" => after = "*",
            "endswith" => before = "*",
            _ => return Vec::new(),
        }
    }
    let texts = values.iter().enumerate().filter_map(|(index, value)| match value {
        Literal::Text(text) => Some((index, format!("{before}{}{after}", text.to_uppercase()))),
        _ => None,
    });
    texts.collect()
}

/// Warns when no known type fits a pattern.
pub(crate) fn check(pattern: &str, span: &Span, diagnostics: &mut Diagnostics) {
    let is_known = pattern.starts_with(OWN_PREFIX) || KNOWN_EVENT_TYPES.iter().any(|known| wildcard(pattern, known));
    if is_known {
        return;
    }
    let bare = pattern.trim_matches('*');
    let families = || KNOWN_EVENT_TYPES.iter().filter_map(|known| known.split('_').next());
    let near_family = pattern.strip_suffix("_*").and_then(|family| nearest(family, families()));
    let hint = match (nearest(bare, KNOWN_EVENT_TYPES.iter().copied()), near_family) {
        (_, Some(near)) => format!("did you mean `{near}_*`?"),
        (Some(near), None) => format!("did you mean `{near}`?"),
        (None, None) => "it may be a type of another source, or one that the documentation does not list".into(),
    };
    let message = if pattern.contains(['*', '?']) {
        format!("no known event type fits `{pattern}`")
    } else {
        format!("`{pattern}` is no known event type")
    };
    diagnostics.warning(code::UNKNOWN_EVENT_TYPE, span, message, Some(hint));
}

/// Whether a pattern with `*` and `?` (`\` before them takes their meaning away) fits a whole text, as written.
pub(crate) fn wildcard(pattern: &str, text: &str) -> bool {
    let pattern: Vec<Piece> = pieces(pattern);
    let text: Vec<char> = text.chars().collect();
    // After a `*`, remember where to go on if what follows does not fit: linear space, no recursion.
    let (mut at_pattern, mut at_text) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(character) = text.get(at_text) {
        match pattern.get(at_pattern) {
            Some(Piece::Any) => {
                retry = Some((at_pattern + 1, at_text));
                at_pattern += 1;
                continue;
            }
            Some(Piece::One) => {}
            Some(Piece::Char(wanted)) if wanted == character => {}
            _ => match retry {
                Some((after_star, from)) => {
                    retry = Some((after_star, from + 1));
                    (at_pattern, at_text) = (after_star, from + 1);
                    continue;
                }
                None => return false,
            },
        }
        at_pattern += 1;
        at_text += 1;
    }
    pattern.iter().skip(at_pattern).all(|piece| matches!(piece, Piece::Any))
}

enum Piece {
    Any,
    One,
    Char(char),
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        pieces.push(match character {
            '*' => Piece::Any,
            '?' => Piece::One,
            '\\' => match characters.next_if(|next| matches!(next, '*' | '?' | '\\')) {
                Some(escaped) => Piece::Char(escaped),
                None => Piece::Char('\\'),
            },
            other => Piece::Char(other),
        });
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_fit_whole_texts() {
        for (pattern, text, fits) in [
            ("APP_*", "APP_CREATE", true),
            ("*_DELETE", "IP_WHITELIST_DELETE", true),
            ("*A*A*", "ABA", true),
            ("A?C", "ABC", true),
            ("A?C", "AC", false),
            ("APP", "APP_CREATE", false),
            ("", "", true),
            ("*", "", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("*b*c", "abxbc", true),
        ] {
            assert_eq!(wildcard(pattern, text), fits, "{pattern} {text}");
        }
    }
}
