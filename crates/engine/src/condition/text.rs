//! Text against text: case folding, Sigma wildcards, and sets of patterns.
//!
//! Folding is Unicode's simple one (one character to one), as in the regex crate: `ſ` is `s`, but `ß` is not `ss`, so that
//! `?` stays one character. A wildcard pattern never recurses; its cost is bounded by text length times pattern length.

use std::borrow::Cow;
use std::collections::HashSet;

/// Where in the text a value must stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// The whole text.
    Whole,
    /// Anywhere.
    Within,
    /// At the start.
    Start,
    /// At the end.
    End,
}

/// One piece of a value as Sigma writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// This character.
    Char(char),
    /// `?`.
    One,
    /// `*`.
    Many,
    /// Any of the signs that Windows tools take for the start of an option.
    Dash,
}

/// A compiled value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    Anything,
    Within(Box<str>),
    Start(Box<str>),
    End(Box<str>),
    Glob(Box<[Token]>),
}

/// Many values; a text fits when it fits any of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct TextSet {
    cased: bool,
    exact: HashSet<Box<str>>,
    patterns: Vec<Pattern>,
}

/// What `windash` lets stand for each other.
const DASHES: [char; 5] = ['-', '/', '–', '—', '―'];

/// Text in the form in which it is compared without regard to case.
pub(crate) fn fold(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        Cow::Borrowed(text)
    } else if text.is_ascii() {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Owned(text.chars().map(fold_char).collect())
    }
}

/// Like [`fold`], into a buffer that is used again and again.
pub(crate) fn fold_into<'b>(text: &str, buffer: &'b mut String) -> &'b str {
    buffer.clear();
    if text.is_ascii() {
        buffer.push_str(text);
        buffer.make_ascii_lowercase();
    } else {
        buffer.extend(text.chars().map(fold_char));
    }
    buffer
}

fn fold_char(character: char) -> char {
    fn single(mut characters: impl Iterator<Item = char>, otherwise: char) -> char {
        match (characters.next(), characters.next()) {
            (Some(only), None) => only,
            _ => otherwise,
        }
    }
    // Upper case would make a dotless i an ordinary one, which no folding but the Turkish does.
    if character == 'ı' || character.is_ascii() {
        return character.to_ascii_lowercase();
    }
    let lower = single(character.to_lowercase(), character);
    let upper = single(lower.to_uppercase(), lower);
    single(upper.to_lowercase(), upper)
}

/// Reads a value as Sigma writes it: `*` and `?` are wildcards unless a backslash stands before them; before anything
/// else but a backslash, a backslash is itself.
pub(crate) fn tokens(value: &str) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(value.len());
    let mut characters = value.chars().peekable();
    while let Some(character) = characters.next() {
        tokens.push(match character {
            '*' => Token::Many,
            '?' => Token::One,
            '\\' => Token::Char(characters.next_if(|next| matches!(next, '*' | '?' | '\\')).unwrap_or('\\')),
            other => Token::Char(other),
        });
    }
    tokens
}

/// A value without any wildcard, escapes resolved.
pub(crate) fn literal(tokens: &[Token]) -> Option<String> {
    tokens.iter().map(|token| if let Token::Char(character) = token { Some(*character) } else { None }).collect()
}

/// Puts [`Token::Dash`] where a `-` or `/` begins an option: not after a word's character and before one.
pub(crate) fn with_dashes(mut tokens: Vec<Token>) -> Vec<Token> {
    let is_word = |token: Option<&Token>| matches!(token, Some(Token::Char(character)) if character.is_alphanumeric() || *character == '_');
    for index in 0..tokens.len() {
        let starts = index == 0 || !is_word(tokens.get(index - 1));
        if starts && is_word(tokens.get(index + 1)) && matches!(tokens.get(index), Some(Token::Char('-' | '/'))) {
            tokens[index] = Token::Dash;
        }
    }
    tokens
}

/// Whether `text` stands in `within` at the anchor; both already folded, if case does not matter.
pub(crate) fn stands(text: &str, within: &str, anchor: Anchor) -> bool {
    match anchor {
        Anchor::Whole => within == text,
        Anchor::Within => within.contains(text),
        Anchor::Start => within.starts_with(text),
        Anchor::End => within.ends_with(text),
    }
}

impl TextSet {
    pub(crate) fn new(cased: bool) -> Self {
        Self { cased, ..Self::default() }
    }

    pub(crate) fn insert(&mut self, tokens: &[Token], anchor: Anchor) {
        let mut all = Vec::with_capacity(tokens.len() + 2);
        if matches!(anchor, Anchor::Within | Anchor::End) {
            all.push(Token::Many);
        }
        all.extend(tokens.iter().map(|token| match token {
            Token::Char(character) if !self.cased => Token::Char(fold_char(*character)),
            other => *other,
        }));
        if matches!(anchor, Anchor::Within | Anchor::Start) {
            all.push(Token::Many);
        }
        all.dedup_by(|second, first| *second == Token::Many && *first == Token::Many);
        let pattern = match all.as_slice() {
            [Token::Many] => Pattern::Anything,
            [Token::Many, inner @ .., Token::Many] if let Some(text) = literal(inner) => Pattern::Within(text.into()),
            [inner @ .., Token::Many] if let Some(text) = literal(inner) => Pattern::Start(text.into()),
            [Token::Many, inner @ ..] if let Some(text) = literal(inner) => Pattern::End(text.into()),
            whole => match literal(whole) {
                Some(text) => {
                    self.exact.insert(text.into());
                    return;
                }
                None => Pattern::Glob(whole.into()),
            },
        };
        if !self.patterns.contains(&pattern) {
            self.patterns.push(pattern);
        }
    }

    pub(crate) fn is_cased(&self) -> bool {
        self.cased
    }

    /// The whole texts, folded unless the set is cased.
    pub(crate) fn exact(&self) -> impl Iterator<Item = &str> {
        self.exact.iter().map(|text| &**text)
    }

    pub(crate) fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        if self.cased { self.matches_folded(text) } else { self.matches_folded(&fold(text)) }
    }

    /// Like `matches`, for a text that was folded before unless the set is cased.
    fn matches_folded(&self, text: &str) -> bool {
        self.exact.contains(text) || self.patterns.iter().any(|pattern| pattern.matches(text))
    }
}

impl Pattern {
    /// The literal that must stand somewhere in the text, if that and its place decide.
    pub(crate) fn literal(&self) -> Option<&str> {
        match self {
            Self::Within(text) | Self::Start(text) | Self::End(text) => Some(text),
            Self::Anything | Self::Glob(_) => None,
        }
    }

    pub(crate) fn is_within(&self) -> bool {
        matches!(self, Self::Within(_))
    }

    /// Whether a literal that was found at the text's start or end, or between, is where the pattern wants it.
    pub(crate) fn accepts_at(&self, at_start: bool, at_end: bool) -> bool {
        match self {
            Self::Within(_) => true,
            Self::Start(_) => at_start,
            Self::End(_) => at_end,
            Self::Anything | Self::Glob(_) => false,
        }
    }

    /// For a text that was folded before, unless the pattern belongs to a cased set.
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::Within(inner) => text.contains(&**inner),
            Self::Start(start) => text.starts_with(&**start),
            Self::End(end) => text.ends_with(&**end),
            Self::Glob(tokens) => glob(tokens, text),
        }
    }
}

/// Greedy matching that returns only to the last `*`: earlier ones need no second try.
fn glob(tokens: &[Token], text: &str) -> bool {
    let mut rest = text.chars();
    let mut at = 0;
    let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        let mut next = rest.clone();
        let character = next.next();
        let fits = match (tokens.get(at), character) {
            (Some(Token::Many), _) => {
                at += 1;
                retry = Some((at, rest.clone()));
                continue;
            }
            (None, None) => return true,
            (Some(Token::Char(expected)), Some(found)) => *expected == found,
            (Some(Token::One), Some(_)) => true,
            (Some(Token::Dash), Some(found)) => DASHES.contains(&found),
            _ => false,
        };
        if fits {
            at += 1;
            rest = next;
            continue;
        }
        let Some((after_many, from)) = &mut retry else { return false };
        if from.next().is_none() {
            return false;
        }
        at = *after_many;
        rest = from.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fits(value: &str, text: &str) -> bool {
        let mut set = TextSet::new(false);
        set.insert(&tokens(value), Anchor::Whole);
        set.matches(text)
    }

    #[test]
    fn case_does_not_matter_in_any_script() {
        for (value, text) in [
            ("abc", "ABC"),
            ("ÄÖ", "äö"),
            ("ΣΑΣ", "σας"),
            ("straße", "STRAẞE"),
            ("Кто", "кТО"),
            ("k", "\u{212a}"),
            ("s", "ſ"),
        ] {
            assert!(fits(value, text), "{value} {text}");
        }
        assert!(!fits("i", "ı"), "a dotless i is another letter");
        assert!(!fits("ss", "ß"));
        let mut cased = TextSet::new(true);
        cased.insert(&tokens("Ab*"), Anchor::Whole);
        assert!(cased.matches("Abc") && !cased.matches("abc"));
    }

    #[test]
    fn folding_agrees_with_the_regex_crate() {
        // The standard library may know a later Unicode; letters that regex takes for unassigned are left out.
        let unknown = regex::Regex::new(r"\p{Cn}").unwrap();
        let changed = ('\u{80}'..=char::MAX).filter(|c| fold_char(*c) != *c && !unknown.is_match(&c.to_string()));
        let mut seen = 0;
        for character in changed {
            seen += 1;
            let folded = fold_char(character);
            let pattern = format!("(?i)^{}$", regex::escape(&character.to_string()));
            assert!(regex::Regex::new(&pattern).unwrap().is_match(&folded.to_string()), "{character} {folded}");
            assert_eq!(fold_char(folded), folded, "{character}: folding twice is folding once");
        }
        assert!(seen > 1000, "{seen}");
    }

    #[test]
    fn wildcards_and_escapes_are_those_of_sigma() {
        assert!(fits("a*c", "abbc") && fits("a*c", "ac") && !fits("a*c", "acd"));
        assert!(fits("a?c", "abc") && fits("a?c", "aßc") && !fits("a?c", "ac"));
        assert!(fits(r"a\*c", "a*c") && !fits(r"a\*c", "abc"));
        assert!(fits(r"a\?c", "a?c") && !fits(r"a\?c", "abc"));
        assert!(fits(r"a\\*", r"a\bc") && !fits(r"a\\*", "abc"));
        assert!(fits(r"a\b", r"a\b") && fits(r"a\\b", r"a\b") && fits(r"a\", r"a\"));
        assert!(fits("*", "") && fits("", "") && !fits("", "a") && !fits("?", "") && fits("**", "x"));
        assert!(fits("*b*d*", "abcde") && !fits("*d*b*", "abcde") && fits("*.*.*", "1.2.3"));
    }

    #[test]
    fn windash_takes_every_sign_of_an_option() {
        let mut set = TextSet::new(false);
        set.insert(&with_dashes(tokens("x-y -param /q")), Anchor::Within);
        assert!(set.matches("a X-Y /PARAM ―q b") && set.matches("x-y –param -q"));
        assert!(!set.matches("x/y -param /q"), "a sign inside a word is itself");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn globs_agree_with_a_regex(value in r"[ab*?]{0,7}", text in "[ab]{0,8}") {
            let pattern = format!("^(?s:{})$", value.replace('*', ".*").replace('?', "."));
            let expected = regex::Regex::new(&pattern).unwrap().is_match(&text);
            prop_assert_eq!(fits(&value, &text), expected);
            let globbed: Vec<Token> = tokens(&value);
            prop_assert_eq!(glob(&globbed, &text), expected);
        }
    }
}
