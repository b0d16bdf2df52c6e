//! Country codes that rules name, against ISO 3166-1.
//!
//! A code that is none matches nothing, or as an exception everything, and nobody sees it: `UK` is the usual one. It is
//! only a warning, because another source may have codes of its own.

use crate::condition::Literal;
use crate::country::{is_known, meant};
use crate::diagnostic::{Diagnostics, Span, code};

/// Fields that hold a country code.
const COUNTRY_FIELDS: [&str; 2] = ["source_country", "geo.country"];
/// What address databases give for places that are no country: Europe, Asia and the Pacific, unknown.
const NO_COUNTRY: [&str; 4] = ["EU", "AP", "XX", "ZZ"];

/// Warns of values that are compared as a whole with a country, and can be no country's code.
pub(crate) fn check(
    field: &str,
    modifiers: &[&str],
    values: &[Literal],
    spans: &[Span],
    diagnostics: &mut Diagnostics,
) {
    let is_whole = modifiers.iter().all(|modifier| ["cased", "neq", "all"].contains(modifier));
    if !is_whole || !COUNTRY_FIELDS.contains(&field) {
        return;
    }
    for (value, span) in values.iter().zip(spans) {
        let Literal::Text(text) = value else { continue };
        let two_letters = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
        let excused = is_known(text) || NO_COUNTRY.iter().any(|known| known.eq_ignore_ascii_case(text));
        let hint = match meant(text) {
            Some(code) => format!("did you mean `{code}`?"),
            None if two_letters => "codes are those of ISO 3166-1 alpha-2, such as GB, US or BR".into(),
            None => continue,
        };
        if !excused {
            diagnostics.warning(code::UNKNOWN_COUNTRY, span, format!("`{text}` is no country code"), Some(hint));
        }
    }
}
