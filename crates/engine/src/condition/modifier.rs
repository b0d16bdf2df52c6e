//! Keys of tests: `field|modifier|modifier` read and checked for combinations without meaning.
//!
//! The order of modifiers carries no meaning that their names do not: one operator, perhaps an encoding, perhaps `all`,
//! `every`, `cased`, `neq`. So any order is taken and only contradictions are refused.

use super::encode::Charset;
use super::number::{Comparison, StampPart};
use super::text::Anchor;
use super::{BuildError, Part, code};
use crate::diagnostic::nearest;
use crate::event::FieldPath;

/// What is done with the field's value. Exactly one; equality when none is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Text(Anchor),
    Regex,
    Network,
    Compare(Comparison),
    Exists,
    Range,
    Scope,
    UrlHost,
    UrlOutside,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base64 {
    Whole,
    Offset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Modifier {
    Operator(Operator),
    Base64(Base64),
    Charset(Charset),
    Stamp(StampPart),
    Flag(Flag),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flag {
    All,
    Every,
    Cased,
    Neq,
    FieldRef,
    Windash,
    Expand,
    IgnoreCase,
    MultiLine,
    DotAll,
}

/// Every modifier there is.
const MODIFIERS: [(&str, Modifier); 36] = [
    ("contains", Modifier::Operator(Operator::Text(Anchor::Within))),
    ("startswith", Modifier::Operator(Operator::Text(Anchor::Start))),
    ("endswith", Modifier::Operator(Operator::Text(Anchor::End))),
    ("re", Modifier::Operator(Operator::Regex)),
    ("cidr", Modifier::Operator(Operator::Network)),
    ("lt", Modifier::Operator(Operator::Compare(Comparison::Less))),
    ("lte", Modifier::Operator(Operator::Compare(Comparison::LessOrEqual))),
    ("gt", Modifier::Operator(Operator::Compare(Comparison::Greater))),
    ("gte", Modifier::Operator(Operator::Compare(Comparison::GreaterOrEqual))),
    ("exists", Modifier::Operator(Operator::Exists)),
    ("range", Modifier::Operator(Operator::Range)),
    ("scope", Modifier::Operator(Operator::Scope)),
    ("urlhost", Modifier::Operator(Operator::UrlHost)),
    ("url_outside", Modifier::Operator(Operator::UrlOutside)),
    ("base64", Modifier::Base64(Base64::Whole)),
    ("base64offset", Modifier::Base64(Base64::Offset)),
    ("wide", Modifier::Charset(Charset::Utf16Le)),
    ("utf16le", Modifier::Charset(Charset::Utf16Le)),
    ("utf16be", Modifier::Charset(Charset::Utf16Be)),
    ("utf16", Modifier::Charset(Charset::Utf16)),
    ("minute", Modifier::Stamp(StampPart::Minute)),
    ("hour", Modifier::Stamp(StampPart::Hour)),
    ("day", Modifier::Stamp(StampPart::Day)),
    ("week", Modifier::Stamp(StampPart::Week)),
    ("month", Modifier::Stamp(StampPart::Month)),
    ("year", Modifier::Stamp(StampPart::Year)),
    ("all", Modifier::Flag(Flag::All)),
    ("every", Modifier::Flag(Flag::Every)),
    ("cased", Modifier::Flag(Flag::Cased)),
    ("neq", Modifier::Flag(Flag::Neq)),
    ("fieldref", Modifier::Flag(Flag::FieldRef)),
    ("windash", Modifier::Flag(Flag::Windash)),
    ("expand", Modifier::Flag(Flag::Expand)),
    ("i", Modifier::Flag(Flag::IgnoreCase)),
    ("m", Modifier::Flag(Flag::MultiLine)),
    ("s", Modifier::Flag(Flag::DotAll)),
];

/// A key that was read.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    pub(super) field: FieldPath,
    pub(super) operator: Operator,
    pub(super) base64: Option<Base64>,
    pub(super) charset: Charset,
    pub(super) stamp: Option<StampPart>,
    flags: Vec<Flag>,
    /// Modifiers as written, or `equals`.
    pub(super) shown: String,
}

impl Chain {
    pub(super) fn parse(key: &str) -> Result<Self, BuildError> {
        let mut parts = key.split('|').map(str::trim);
        let field = parts.next().unwrap_or_default();
        let field = FieldPath::parse(field).map_err(|problem| {
            let hint = if field.is_empty() { "to search every text of the event, write `*|contains`" } else { "" };
            error(code::BAD_FIELD, problem, Some(hint.to_owned()).filter(|hint| !hint.is_empty()))
        })?;
        let names: Vec<&str> = parts.collect();
        let modifiers = names.iter().map(|name| find(name)).collect::<Result<Vec<_>, _>>()?;
        for (index, (name, modifier)) in names.iter().zip(&modifiers).enumerate() {
            let same_kind = |other: &&Modifier| match (modifier, other) {
                (Modifier::Flag(flag), Modifier::Flag(other)) => flag == other,
                _ => std::mem::discriminant(*other) == std::mem::discriminant(modifier),
            };
            let earlier = modifiers.iter().take(index).position(|other| same_kind(&other));
            if let Some(other) = earlier.and_then(|at| names.get(at)) {
                let hint = "keep one of them; a second test of the field is a line of its own";
                return Err(conflict(format!("`{other}` and `{name}` cannot stand together"), Some(hint)));
            }
        }
        let mut chain = Self {
            field,
            operator: Operator::Text(Anchor::Whole),
            base64: None,
            charset: Charset::Utf8,
            stamp: None,
            flags: Vec::new(),
            shown: if names.is_empty() { "equals".to_owned() } else { names.join("|") },
        };
        for modifier in modifiers {
            match modifier {
                Modifier::Operator(operator) => chain.operator = operator,
                Modifier::Base64(base64) => chain.base64 = Some(base64),
                Modifier::Charset(charset) => chain.charset = charset,
                Modifier::Stamp(part) => chain.stamp = Some(part),
                Modifier::Flag(flag) => chain.flags.push(flag),
            }
        }
        chain.check()?;
        Ok(chain)
    }

    pub(super) fn all(&self) -> bool {
        self.flags.contains(&Flag::All)
    }

    pub(super) fn every(&self) -> bool {
        self.flags.contains(&Flag::Every)
    }

    pub(super) fn negated(&self) -> bool {
        self.flags.contains(&Flag::Neq)
    }

    /// Base64 tells `a` from `A`, so a value behind it is always compared exactly.
    pub(super) fn cased(&self) -> bool {
        self.flags.contains(&Flag::Cased) || self.base64.is_some()
    }

    pub(super) fn field_ref(&self) -> bool {
        self.flags.contains(&Flag::FieldRef)
    }

    pub(super) fn windash(&self) -> bool {
        self.flags.contains(&Flag::Windash)
    }

    pub(super) fn regex_flags(&self) -> [bool; 3] {
        [Flag::IgnoreCase, Flag::MultiLine, Flag::DotAll].map(|flag| self.flags.contains(&flag))
    }

    fn check(&self) -> Result<(), BuildError> {
        let has = |flag: Flag| self.flags.contains(&flag);
        let textual = matches!(self.operator, Operator::Text(_));
        let shown = &self.shown;
        let regex_flag = has(Flag::IgnoreCase) || has(Flag::MultiLine) || has(Flag::DotAll);
        if regex_flag && self.operator != Operator::Regex {
            return Err(conflict(format!("`{shown}`: `i`, `m` and `s` belong to `re`"), Some("write `re|i`")));
        }
        if has(Flag::Cased) && !textual {
            let hint = "`re` tells upper from lower case unless it says `re|i`; other operators have no case";
            return Err(conflict(format!("`{shown}`: `cased` belongs to text"), Some(hint)));
        }
        if (has(Flag::Windash) || has(Flag::FieldRef)) && !textual {
            let hint = "these go with equality, `contains`, `startswith` and `endswith`";
            return Err(conflict(format!("`{shown}`: `windash` and `fieldref` belong to text"), Some(hint)));
        }
        if has(Flag::FieldRef) && (has(Flag::Windash) || self.base64.is_some() || has(Flag::Expand)) {
            let hint = "write `fieldref` alone, or with `contains`, `startswith` or `endswith`";
            let message = format!("`{shown}`: the value of another field cannot be encoded or expanded");
            return Err(conflict(message, Some(hint)));
        }
        if self.base64.is_some() && (!textual || has(Flag::Windash)) {
            let hint = "write `base64offset|contains`, or `base64` with equality, `contains` or `startswith`";
            return Err(conflict(format!("`{shown}`: Base64 is compared as text, without variants"), Some(hint)));
        }
        if self.base64 == Some(Base64::Offset) && self.operator != Operator::Text(Anchor::Within) {
            let message = "`base64offset` gives pieces out of the middle and fits nothing as a whole".to_owned();
            return Err(error(code::BAD_ENCODING, message, Some("write `base64offset|contains`".into())));
        }
        if self.charset != Charset::Utf8 && self.base64.is_none() {
            let message = format!("`{shown}`: an encoding needs `base64` or `base64offset` behind it");
            return Err(error(code::BAD_ENCODING, message, Some("write `wide|base64offset|contains`".into())));
        }
        if has(Flag::All) && matches!(self.operator, Operator::Exists | Operator::UrlOutside | Operator::Scope) {
            return Err(conflict(format!("`{shown}`: `all` has no meaning here"), Some("remove `|all`")));
        }
        if has(Flag::Every) && matches!(self.operator, Operator::Exists | Operator::UrlHost | Operator::UrlOutside) {
            let hint = "remove `|every`; `url_outside` holds as soon as one URL lies outside";
            return Err(conflict(format!("`{shown}`: `every` has no meaning here"), Some(hint)));
        }
        if self.operator == Operator::Exists && (has(Flag::Neq) || has(Flag::Expand) || self.stamp.is_some()) {
            let hint = "write `exists: false` for a field that must be missing";
            return Err(conflict(format!("`{shown}`: `exists` stands alone"), Some(hint)));
        }
        self.check_stamp(textual)
    }

    fn check_stamp(&self, textual: bool) -> Result<(), BuildError> {
        let whole = self.operator == Operator::Text(Anchor::Whole);
        let numeric = whole || matches!(self.operator, Operator::Compare(_) | Operator::Range);
        let text_flag = [Flag::Cased, Flag::FieldRef, Flag::Windash].iter().any(|flag| self.flags.contains(flag));
        if self.stamp.is_some() && (!numeric || self.base64.is_some() || (textual && text_flag)) {
            let hint = "parts of a time stamp go with equality, `lt`, `lte`, `gt`, `gte` and `range`";
            return Err(conflict(format!("`{}`: a part of a time stamp is a number", self.shown), Some(hint)));
        }
        Ok(())
    }
}

fn find(name: &str) -> Result<Modifier, BuildError> {
    MODIFIERS.iter().find(|(known, _)| *known == name).map(|(_, modifier)| *modifier).ok_or_else(|| {
        let names = MODIFIERS.iter().map(|(known, _)| *known).filter(|known| known.len() > 1);
        let hint = nearest(name, names).map(|near| format!("did you mean `{near}`?"));
        error(code::UNKNOWN_MODIFIER, format!("unknown field modifier `{name}`"), hint)
    })
}

fn conflict(message: String, hint: Option<&str>) -> BuildError {
    error(code::CONFLICTING_MODIFIERS, message, hint.map(str::to_owned))
}

fn error(code: &'static str, message: String, hint: Option<String>) -> BuildError {
    BuildError { code, part: Part::Key, message, hint }
}
