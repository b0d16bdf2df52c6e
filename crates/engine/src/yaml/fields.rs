//! A map with known keys, read key by key: unknown keys, missing keys and wrong kinds become findings on the way.
//!
//! Readers return `None` for what is absent and for what was reported, so a caller goes on with the rest in both cases.

use std::time::Duration;

use super::{Key, Kind, Node};
use crate::diagnostic::{Diagnostics, Span, code, nearest};
use crate::time;

/// A key that a map may have, as the reference shows it.
#[derive(Debug, Clone, Copy)]
pub struct KnownKey {
    /// Its name.
    pub name: &'static str,
    /// What it takes, in words.
    pub takes: &'static str,
    /// What holds without it: a value as it would be written, `required`, or nothing.
    pub default: &'static str,
    /// What it is for.
    pub help: &'static str,
}

/// For [`Fields::of`].
#[must_use]
pub const fn names_of<const N: usize>(keys: &[KnownKey; N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut index = 0;
    while index < N {
        names[index] = keys[index].name;
        index += 1;
    }
    names
}

/// The entries of one map.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    /// What the map is, for messages: `a rule`, `an exception`.
    pub what: &'a str,
    /// Where the map begins.
    pub span: &'a Span,
    entries: &'a [(Key, Node)],
}

impl<'a> Fields<'a> {
    /// Takes a node as a map with these keys. Reports a node that is no map, and every unknown key with a near name.
    pub fn of(node: &'a Node, what: &'a str, known: &[&str], diagnostics: &mut Diagnostics) -> Option<Self> {
        let fields = Self::open(node, what, diagnostics)?;
        for (key, _) in fields.entries {
            if !known.contains(&key.text.as_str()) {
                let hint = match nearest(&key.text, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known keys: {}", known.join(", ")),
                };
                let message = format!("unknown key `{}` in {what}", key.text);
                diagnostics.error(code::UNKNOWN_KEY, &key.span, message, Some(hint));
            }
        }
        Some(fields)
    }

    /// Takes a node as a map with any keys.
    pub fn open(node: &'a Node, what: &'a str, diagnostics: &mut Diagnostics) -> Option<Self> {
        match node.entries() {
            Some(entries) => Some(Self { what, span: &node.span, entries }),
            None => {
                wrong_kind(node, what, "a map", "write it as `key: value` lines", diagnostics);
                None
            }
        }
    }

    /// All entries in order.
    #[must_use]
    pub fn entries(&self) -> &'a [(Key, Node)] {
        self.entries
    }

    /// The value of a key. A key with nothing behind it counts as absent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node).filter(|node| !node.is_null())
    }

    /// Where a key stands, or the map when it does not.
    #[must_use]
    pub fn place(&self, name: &str) -> &'a Span {
        self.entries.iter().find(|(key, _)| key.text == name).map_or(self.span, |(key, _)| &key.span)
    }

    /// The value of a key that must be there.
    pub fn required(&self, name: &str, diagnostics: &mut Diagnostics) -> Option<&'a Node> {
        let found = self.get(name);
        if found.is_none() {
            let message = format!("{} has no `{name}`", self.what);
            diagnostics.error(code::MISSING_KEY, self.place(name), message, Some(format!("add `{name}: ...`")));
        }
        found
    }

    /// Text that must be there and must not be blank.
    pub fn required_text(&self, name: &str, diagnostics: &mut Diagnostics) -> Option<&'a str> {
        let node = self.required(name, diagnostics)?;
        let text = text_of(node, name, diagnostics)?;
        if text.trim().is_empty() {
            let message = format!("`{name}` is blank");
            diagnostics.error(code::MISSING_KEY, &node.span, message, Some(format!("say the {name} in words")));
            return None;
        }
        Some(text)
    }

    /// Text, if it is there.
    pub fn text(&self, name: &str, diagnostics: &mut Diagnostics) -> Option<&'a str> {
        text_of(self.get(name)?, name, diagnostics)
    }

    /// A text or a list of texts, each with its node; empty when absent.
    pub fn texts(&self, name: &str, diagnostics: &mut Diagnostics) -> Vec<(&'a str, &'a Node)> {
        let Some(node) = self.get(name) else {
            return Vec::new();
        };
        let nodes = node.items().unwrap_or(std::slice::from_ref(node));
        nodes.iter().filter_map(|item| Some((text_of(item, name, diagnostics)?, item))).collect()
    }

    /// The items of a list; empty when absent.
    pub fn list(&self, name: &str, diagnostics: &mut Diagnostics) -> &'a [Node] {
        let Some(node) = self.get(name) else {
            return &[];
        };
        if node.items().is_none() {
            wrong_kind(
                node,
                &format!("`{name}`"),
                "a list",
                "write each item on a line that begins with `- `",
                diagnostics,
            );
        }
        node.items().unwrap_or_default()
    }

    /// `true` or `false`, if it is there.
    pub fn boolean(&self, name: &str, diagnostics: &mut Diagnostics) -> Option<bool> {
        let node = self.get(name)?;
        let value = match &node.kind {
            Kind::Scalar(scalar) => scalar.boolean(),
            _ => None,
        };
        if value.is_none() {
            wrong_kind(node, &format!("`{name}`"), "`true` or `false`", "write `true` or `false`", diagnostics);
        }
        value
    }

    /// A duration with units, if it is there.
    pub fn duration(&self, name: &str, diagnostics: &mut Diagnostics) -> Option<Duration> {
        let node = self.get(name)?;
        let text = text_of(node, name, diagnostics)?;
        match time::parse_duration(text) {
            Ok(duration) => Some(duration),
            Err(problem) => {
                let digits = text.trim();
                let bare = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                let hint = if bare {
                    format!("say which unit: `{digits}s`, `{digits}m`, `{digits}h` or `{digits}d`")
                } else {
                    "write it like `90s`, `15m`, `1h30m` or `7d`".into()
                };
                diagnostics.error(code::BAD_DURATION, &node.span, format!("`{name}`: {problem}"), Some(hint));
                None
            }
        }
    }
}

/// The text of a scalar. Numbers and booleans are text too; lists, maps and nothing are reported.
pub fn text_of<'a>(node: &'a Node, name: &str, diagnostics: &mut Diagnostics) -> Option<&'a str> {
    let text = node.text();
    if text.is_none() {
        wrong_kind(
            node,
            &format!("`{name}`"),
            "text",
            "write one value; quote it if it begins with `{` or `[`",
            diagnostics,
        );
    }
    text
}

/// Reports a node that is not what it should be.
pub fn wrong_kind(node: &Node, what: &str, wanted: &str, hint: &str, diagnostics: &mut Diagnostics) {
    let message = format!("{what} must be {wanted}, not {}", node.describe());
    diagnostics.error(code::WRONG_KIND, &node.span, message, Some(hint.into()));
}
