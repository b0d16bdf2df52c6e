//! The tape: one JSON text as a flat list of spans into it, and views of the values on it.
//!
//! Nothing is copied; strings with escapes are decoded when somebody asks for them. `reader` makes the tape.

use std::borrow::Cow;

pub(super) const KEY_ESCAPED: u8 = 1;
pub(super) const TEXT_ESCAPED: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    False,
    True,
    Number,
    Text,
    Array,
    Object,
}

/// One value: its key if it has one, its text (without quotes), and where its next sibling stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) key_start: u32,
    pub(super) key_end: u32,
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) next: u32,
    pub(super) kind: Kind,
    pub(super) flags: u8,
}

/// A value of an event, seen where it stands.
#[derive(Debug, Clone, Copy)]
pub struct View<'e> {
    raw: &'e str,
    tape: &'e [Node],
    index: usize,
}

/// A value of an event.
#[derive(Debug, Clone)]
pub enum Value<'e> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as written; it may be too large for any number type.
    Number(&'e str),
    /// Text, escapes resolved.
    Text(Cow<'e, str>),
    /// An array; see [`View::items`].
    Array(View<'e>),
    /// An object; see [`View::members`].
    Object(View<'e>),
}

impl Node {
    pub(super) fn is_object(&self) -> bool {
        self.kind == Kind::Object
    }
}

impl<'e> View<'e> {
    pub(super) fn root(raw: &'e str, tape: &'e [Node]) -> Self {
        Self { raw, tape, index: 0 }
    }

    fn node(self) -> Option<&'e Node> {
        self.tape.get(self.index)
    }

    fn span(self, start: u32, end: u32) -> &'e str {
        self.raw.get(start as usize..end as usize).unwrap_or_default()
    }

    /// The value.
    #[must_use]
    pub fn value(self) -> Value<'e> {
        let Some(node) = self.node() else { return Value::Null };
        match node.kind {
            Kind::Null => Value::Null,
            Kind::False => Value::Bool(false),
            Kind::True => Value::Bool(true),
            Kind::Number => Value::Number(self.span(node.start, node.end)),
            Kind::Text => Value::Text(self.decoded(node)),
            Kind::Array => Value::Array(self),
            Kind::Object => Value::Object(self),
        }
    }

    /// Text, number or boolean as text; nothing for null, arrays and objects.
    #[must_use]
    pub fn scalar_text(self) -> Option<Cow<'e, str>> {
        let node = self.node()?;
        match node.kind {
            Kind::Text => Some(self.decoded(node)),
            Kind::Number | Kind::True | Kind::False => Some(Cow::Borrowed(self.span(node.start, node.end))),
            Kind::Null | Kind::Array | Kind::Object => None,
        }
    }

    /// The value as it stands in the event's JSON.
    #[must_use]
    pub fn json(self) -> &'e str {
        let Some(node) = self.node() else { return "null" };
        let quotes = u32::from(node.kind == Kind::Text);
        self.span(node.start - quotes, node.end + quotes)
    }

    /// Whether it is an array.
    #[must_use]
    pub fn is_array(self) -> bool {
        self.node().is_some_and(|node| node.kind == Kind::Array)
    }

    /// The members of an array; nothing for other values.
    pub fn items(self) -> impl Iterator<Item = View<'e>> {
        self.children(Kind::Array)
    }

    /// The members of an object, keys decoded, duplicates included; nothing for other values.
    pub fn members(self) -> impl Iterator<Item = (Cow<'e, str>, View<'e>)> {
        self.children(Kind::Object).map(|child| (child.key(), child))
    }

    /// The member of an object under a key; the last one if the key stands there more than once.
    #[must_use]
    pub fn member(self, key: &str) -> Option<View<'e>> {
        let mut found = None;
        for child in self.children(Kind::Object) {
            if let Some(node) = child.node()
                && (if node.flags & KEY_ESCAPED == 0 {
                    (node.key_end - node.key_start) as usize == key.len()
                        && self.raw.as_bytes().get(node.key_start as usize..node.key_end as usize)
                            == Some(key.as_bytes())
                } else {
                    child.key() == key
                })
            {
                found = Some(child);
            }
        }
        found
    }

    /// Calls `visit` with this value or, for an array, with its members at any depth, until it returns true.
    pub(crate) fn leaves(self, visit: &mut impl FnMut(View<'e>) -> bool) -> bool {
        let Some(node) = self.node() else { return false };
        if node.kind != Kind::Array {
            return visit(self);
        }
        let mut index = self.index + 1;
        while index < node.next as usize {
            let Some(inner) = self.tape.get(index) else { return false };
            if inner.kind == Kind::Array {
                index += 1;
                continue;
            }
            if visit(Self { index, ..self }) {
                return true;
            }
            index = inner.next as usize;
        }
        false
    }

    /// Calls `visit` with every string in or below this value, until it returns true.
    pub(crate) fn strings(self, visit: &mut impl FnMut(View<'e>) -> bool) -> bool {
        let Some(node) = self.node() else { return false };
        (self.index..node.next as usize).any(|index| {
            self.tape.get(index).is_some_and(|node| node.kind == Kind::Text) && visit(Self { index, ..self })
        })
    }

    /// The value as a JSON value; see `Event::to_json`.
    #[must_use]
    pub fn to_json(self) -> serde_json::Value {
        match self.value() {
            Value::Null => serde_json::Value::Null,
            Value::Bool(truth) => truth.into(),
            Value::Number(text) => number_to_json(text),
            Value::Text(text) => text.into_owned().into(),
            Value::Array(view) => view.items().map(View::to_json).collect(),
            Value::Object(view) => view.members().map(|(key, member)| (key.into_owned(), member.to_json())).collect(),
        }
    }

    fn key(self) -> Cow<'e, str> {
        match self.node() {
            None => Cow::Borrowed(""),
            Some(node) => {
                let text = self.span(node.key_start, node.key_end);
                if node.flags & KEY_ESCAPED == 0 { Cow::Borrowed(text) } else { Cow::Owned(unescape(text)) }
            }
        }
    }

    fn decoded(self, node: &Node) -> Cow<'e, str> {
        let text = self.span(node.start, node.end);
        if node.flags & TEXT_ESCAPED == 0 { Cow::Borrowed(text) } else { Cow::Owned(unescape(text)) }
    }

    fn children(self, of: Kind) -> impl Iterator<Item = View<'e>> {
        let node = self.node().filter(|node| node.kind == of);
        let end = node.map_or(0, |node| node.next as usize);
        let mut index = self.index + 1;
        std::iter::from_fn(move || {
            let here = index;
            if here >= end {
                return None;
            }
            index = self.tape.get(here).map_or(end, |child| child.next as usize);
            Some(Self { index: here, ..self })
        })
    }
}

fn number_to_json(text: &str) -> serde_json::Value {
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    if let Ok(number) = text.parse::<u64>() {
        return number.into();
    }
    let number = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
    number.map_or_else(|| text.into(), serde_json::Value::Number)
}

fn unescape(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        decoded.push_str(plain);
        let mut characters = escape.chars();
        match characters.next() {
            Some('n') => decoded.push('\n'),
            Some('t') => decoded.push('\t'),
            Some('r') => decoded.push('\r'),
            Some('b') => decoded.push('\u{8}'),
            Some('f') => decoded.push('\u{c}'),
            Some('u') => {
                let (character, used_bytes) = unescape_unicode(characters.as_str());
                decoded.push(character);
                rest = characters.as_str().get(used_bytes..).unwrap_or_default();
                continue;
            }
            Some(other) => decoded.push(other),
            None => {}
        }
        rest = characters.as_str();
    }
    decoded.push_str(rest);
    decoded
}

/// Reads what follows `\u`: four digits, or a pair of surrogates. Half a pair is U+FFFD and takes only itself.
fn unescape_unicode(text: &str) -> (char, usize) {
    let unit = |at: usize| text.get(at..at + 4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let Some(first) = unit(0) else { return (char::REPLACEMENT_CHARACTER, text.len().min(4)) };
    if let Some(character) = char::from_u32(first) {
        return (character, 4);
    }
    if (0xd800..0xdc00).contains(&first)
        && text.get(4..6) == Some("\\u")
        && let Some(second @ 0xdc00..0xe000) = unit(6)
        && let Some(character) = char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    {
        return (character, 10);
    }
    (char::REPLACEMENT_CHARACTER, 4)
}
