//! Countries: their codes, their names, and how far apart the nearest borders of two of them are.
//!
//! Distances are read from a table in the binary, never computed: great-circle kilometres between the nearest points of
//! borders and coasts, cut to whole ones, 0 for neighbours. Borders and not centres, because a walk over a border is no
//! journey: the centres of the US and Canada lie 1,800 km apart. Overseas parts count for their own code and for that of
//! the state (so Brazil and France are neighbours): where codes are ambiguous it errs on the side of no alarm.
//! Source: Natural Earth 4.1 (public domain), by way of the npm package `world-atlas` (ISC). `country/README.md` says
//! what was decided about parts and disputed places; `country/borders.py countries-10m.json` makes the table again.

mod names;

use names::NAMES;

/// The lower triangle of the matrix, without its diagonal, row by row: little-endian kilometres of two bytes.
static BORDERS: &[u8] = include_bytes!("country/borders.bin");
/// Stands in the table for a distance that nobody knows.
const UNKNOWN_KM: u16 = u16::MAX;
/// Stands in [`PLACES`] for two letters that are no code.
const NO_PLACE: u8 = u8::MAX;
const LETTERS: usize = 26;
/// For each two letters the place of their territory in [`NAMES`].
static PLACES: [u8; LETTERS * LETTERS] = places();

/// Codes that people write for another, with the one that they mean.
const MEANT: &[(&str, &str)] = &[
    ("AN", "CW"),
    ("BU", "MM"),
    ("CS", "RS"),
    ("DD", "DE"),
    ("EL", "GR"),
    ("EN", "GB"),
    ("SU", "RU"),
    ("TP", "TL"),
    ("UK", "GB"),
    ("YU", "RS"),
    ("ZR", "CD"),
];

/// The English name of a territory by its ISO 3166-1 alpha-2 code, in any case. `XK` is Kosovo.
#[must_use]
pub fn name(code: &str) -> Option<&'static str> {
    NAMES.get(place(code)?).map(|(_, name)| *name)
}

/// Whether it is a code of a territory, in any case.
#[must_use]
pub fn is_known(code: &str) -> bool {
    place(code).is_some()
}

/// Kilometres between the nearest borders or coasts of two territories, in whichever order; 0 for neighbours and for one
/// and the same. `None` when one of the codes is not known.
#[must_use]
pub fn distance_km(a: &str, b: &str) -> Option<u32> {
    let (a, b) = (place(a)?, place(b)?);
    let (low, high) = (a.min(b), a.max(b));
    if low == high {
        return Some(0);
    }
    let at = (high * (high - 1) / 2 + low) * 2;
    let km = u16::from_le_bytes([*BORDERS.get(at)?, *BORDERS.get(at + 1)?]);
    (km != UNKNOWN_KM).then(|| km.into())
}

/// The code that was meant by a text that is none: `UK` is written for `GB`, and names for codes.
#[must_use]
pub fn meant(text: &str) -> Option<&'static str> {
    let slip = MEANT.iter().find(|(written, _)| written.eq_ignore_ascii_case(text)).map(|(_, code)| *code);
    slip.or_else(|| NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)).map(|(code, _)| *code))
}

fn place(code: &str) -> Option<usize> {
    let &[first, second] = code.as_bytes() else { return None };
    let letter = |byte: u8| byte.is_ascii_alphabetic().then(|| usize::from(byte.to_ascii_uppercase() - b'A'));
    let place = PLACES.get(letter(first)? * LETTERS + letter(second)?).copied().filter(|place| *place != NO_PLACE);
    place.map(usize::from)
}

const fn places() -> [u8; LETTERS * LETTERS] {
    let mut places = [NO_PLACE; LETTERS * LETTERS];
    let mut at = 0;
    while at < NAMES.len() {
        let code = NAMES[at].0.as_bytes();
        places[(code[0] - b'A') as usize * LETTERS + (code[1] - b'A') as usize] = at as u8;
        at += 1;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn km(a: &str, b: &str) -> u32 {
        distance_km(a, b).unwrap_or_else(|| panic!("{a} to {b} is not known"))
    }

    #[test]
    fn every_code_has_a_name_and_a_place() {
        assert_eq!(NAMES.len(), 249 + 1, "ISO 3166-1 has 249, and XK");
        for window in NAMES.windows(2) {
            assert!(window[0].0 < window[1].0, "{} before {}", window[0].0, window[1].0);
        }
        for (code, text) in NAMES {
            assert_eq!((name(code), name(&code.to_lowercase())), (Some(text), Some(text)), "{code}");
            assert!(is_known(code) && !text.is_empty() && meant(code).is_none(), "{code}");
        }
        assert_eq!((name("gb"), name("Xk"), name("TR")), (Some("United Kingdom"), Some("Kosovo"), Some("Türkiye")));
    }

    #[test]
    fn what_is_no_code_is_not_known() {
        for text in ["", "G", "GBR", "UK", "ZZ", "XX", "EU", "A1", "É", "é", "G ", "\u{0}\u{0}", "[A", "Germany"] {
            assert!(!is_known(text) && name(text).is_none(), "{text:?}");
            assert_eq!((distance_km(text, "GB"), distance_km("GB", text)), (None, None), "{text:?}");
            assert_eq!(distance_km(text, text), None, "{text:?}");
        }
    }

    #[test]
    fn distances_are_those_between_the_nearest_borders() {
        let neighbours = [
            "US CA", "BR FR", "BR GF", "FR GF", "GB IE", "VA IT", "ES GI", "ES MA", "HK CN", "XK RS", "KP KR", "PS IL",
        ];
        for pair in neighbours {
            let (a, b) = pair.split_once(' ').expect("two codes");
            assert_eq!(km(a, b), 0, "{pair}");
        }
        let known = [
            ("GB", "FR", 30, 35),
            ("GB", "KP", 7_000, 8_500),
            ("AU", "NZ", 1_200, 1_600),
            ("DK", "SE", 2, 6),
            ("FI", "EE", 35, 55),
            ("SG", "MY", 0, 2),
            ("US", "RU", 2, 90),
            ("US", "GB", 3_800, 4_300),
            ("CY", "GB", 2_800, 3_200),
            ("NO", "ZA", 8_500, 9_500),
            ("TW", "JP", 90, 130),
            ("GG", "FR", 10, 50),
            ("NZ", "CL", 5_500, 9_000),
            ("PN", "QA", 15_000, 20_100),
        ];
        for (a, b, least, most) in known {
            assert!((least..=most).contains(&km(a, b)), "{a} {b}: {}", km(a, b));
        }
        assert_eq!(distance_km("gb", "Fr"), distance_km("FR", "GB"));
    }

    /// A border may lie between two others, so the triangle holds only when the width of the middle one is added.
    #[test]
    fn all_pairs_are_symmetric_bounded_and_fit_together() {
        const HALF_ROUND_KM: u32 = 20_038;
        let point_like = ["VA", "SM", "MC", "NR", "GI", "MO", "LI", "NF", "BM", "JE", "NU"];
        for (a, _) in NAMES {
            assert_eq!(distance_km(a, a), Some(0));
            for (b, _) in NAMES {
                assert_eq!(distance_km(a, b), distance_km(b, a));
                assert!(km(a, b) <= HALF_ROUND_KM, "{a} {b}: {}", km(a, b));
                for middle in point_like {
                    let detour = km(a, middle) + km(middle, b);
                    assert!(km(a, b) <= detour + 30, "{a} {middle} {b}: {} over {detour}", km(a, b));
                }
            }
        }
    }

    #[test]
    fn the_table_is_the_one_that_the_readme_names() {
        assert_eq!(BORDERS.len(), NAMES.len() * (NAMES.len() - 1) / 2 * 2);
        let readme = include_str!("country/README.md");
        let hash = blake3::hash(BORDERS).to_hex();
        assert!(readme.contains(&*hash), "not in README.md: {hash}");
        assert!(readme.contains("62,250 bytes"));
        assert!(
            BORDERS.chunks_exact(2).all(|km| km != UNKNOWN_KM.to_le_bytes()),
            "README.md says that none is unknown"
        );
    }

    #[test]
    fn a_slip_is_known_for_what_was_meant() {
        assert_eq!(
            (meant("uk"), meant("EL"), meant("germany"), meant("QQ")),
            (Some("GB"), Some("GR"), Some("DE"), None)
        );
        for (written, code) in MEANT {
            assert!(!is_known(written) && is_known(code), "{written} {code}");
        }
    }
}
