//! Parser events to a tree of nodes, within budgets.
//!
//! It never recurses and never stops at a mistake that leaves the structure clear: a duplicate key, a strange tag or an
//! unknown alias is reported and the rest is read. Aliases are expanded by copying, so what they copy is counted too.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde_yaml::granit_parser::{
    ErrorKind, Event, Parser, ScalarStyle, Span as ParserSpan, StructureStyle, Tag, options,
};

use super::{Key, Kind, MAX_YAML_BYTES, MAX_YAML_DEPTH, MAX_YAML_NODES, Node, Scalar, syntax};
use crate::diagnostic::{Diagnostics, SourceFile, Span, code, nearest};

/// Reads the events of one file. `None` when there is no tree: an empty file, a syntax error, a budget exceeded.
pub(super) fn tree(file: &SourceFile, diagnostics: &mut Diagnostics) -> Option<Node> {
    let mut builder = Builder::new(file, diagnostics);
    if file.text.len() > MAX_YAML_BYTES {
        let message = format!("the file has {} bytes; at most {MAX_YAML_BYTES} are read", file.text.len());
        let span = Span { path: Arc::clone(&file.path), line: 1, column: 1, len_chars: 1 };
        builder.diagnostics.error(code::YAML_TOO_LARGE, &span, message, Some("split it into several files".into()));
        return None;
    }
    let options = options! {
        emit_comments: false,
        emit_anchor_events: true,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_YAML_DEPTH,
        block_nesting_limit: MAX_YAML_DEPTH,
    };
    for step in Parser::new_from_str_with_options(builder.text, options) {
        match step {
            Ok((event, span)) => builder.take(event, &span).ok()?,
            Err(error) => {
                let (place, message, hint) = syntax::explain(&error, file);
                let too_deep = *error.kind() == ErrorKind::RecursionLimitExceeded;
                let code = if too_deep { code::YAML_TOO_DEEP } else { code::YAML_SYNTAX };
                builder.diagnostics.error(code, &place, message, hint);
                return None;
            }
        }
    }
    builder.root.filter(|node| !node.is_null())
}

/// The places of all comments; `None` when the parser does not come to the end of the file.
pub(super) fn comments(file: &SourceFile) -> Option<Vec<Span>> {
    let mut silent = Diagnostics::default();
    let builder = Builder::new(file, &mut silent);
    let options = options! {
        emit_comments: true,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_YAML_DEPTH,
        block_nesting_limit: MAX_YAML_DEPTH,
    };
    let mut places = Vec::new();
    for step in Parser::new_from_str_with_options(builder.text, options) {
        match step {
            Ok((Event::Comment(..), at)) => places.push(builder.span(&at)),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
    Some(places)
}

/// Already reported; reading cannot go on.
struct Stopped;

/// What an alias stands for, and what a copy of it costs.
struct Anchored {
    node: Node,
    cost: Cost,
}

/// The price of a subtree.
#[derive(Clone, Copy, Default)]
struct Cost {
    nodes: usize,
    bytes: usize,
    height: usize,
}

/// A list or map whose end has not come yet.
struct Open {
    node: Node,
    /// A key that waits for its value; `Some(None)` when the value is to be dropped.
    pending_key: Option<Option<Key>>,
    seen: HashMap<String, Span>,
    anchor_id: usize,
    cost: Cost,
}

struct Builder<'a> {
    path: Arc<str>,
    text: &'a str,
    diagnostics: &'a mut Diagnostics,
    stack: Vec<Open>,
    root: Option<Node>,
    anchored: HashMap<usize, Anchored>,
    anchor_names: Vec<String>,
    spent: Cost,
    documents: usize,
}

impl<'a> Builder<'a> {
    fn new(file: &'a SourceFile, diagnostics: &'a mut Diagnostics) -> Self {
        Self {
            path: Arc::clone(&file.path),
            text: &file.text,
            diagnostics,
            stack: Vec::new(),
            root: None,
            anchored: HashMap::new(),
            anchor_names: Vec::new(),
            spent: Cost::default(),
            documents: 0,
        }
    }

    fn take(&mut self, event: Event<'_>, at: &ParserSpan) -> Result<(), Stopped> {
        let span = self.span(at);
        match event {
            Event::DocumentStart(..) => self.document(&span),
            Event::Scalar(text, style, anchor_id, tag) => {
                let forced_text = self.is_tagged_text(tag.as_deref(), &span);
                let quoted = style != ScalarStyle::Plain || forced_text;
                // The parser says `~` for a value that is not there; who reads the tree may want to know the difference.
                let text = if !quoted && at.is_empty() { Cow::Borrowed("") } else { text };
                let cost = Cost { nodes: 1, bytes: text.len(), height: 0 };
                let node = Node { span, kind: Kind::Scalar(Scalar { text: text.into_owned(), quoted }) };
                self.finished(node, anchor_id, cost)
            }
            Event::SequenceStart(_, anchor_id, tag) => {
                self.is_tagged_text(tag.as_deref(), &span);
                self.open(Node { span: one_char(span), kind: Kind::List(Vec::new()) }, anchor_id)
            }
            Event::MappingStart(style, anchor_id, tag) => {
                self.is_tagged_text(tag.as_deref(), &span);
                // A block map begins where its first key does; the key's width is set when it comes.
                let len_chars = if style == StructureStyle::Flow { 1 } else { 0 };
                self.open(Node { span: Span { len_chars, ..span }, kind: Kind::Map(Vec::new()) }, anchor_id)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Anchor(_, name) => {
                self.anchor_names.push(name.into_owned());
                Ok(())
            }
            Event::Alias(anchor_id) => self.alias(anchor_id, span),
            Event::UnresolvedAlias(name) => self.unknown_alias(&name, span),
            _ => Ok(()),
        }
    }

    fn document(&mut self, span: &Span) -> Result<(), Stopped> {
        self.documents += 1;
        if self.documents <= 1 {
            return Ok(());
        }
        let hint = "put each document into a file of its own, or remove the `---`".into();
        let message = "a second YAML document begins here; one file holds one document";
        self.diagnostics.error(code::YAML_SECOND_DOCUMENT, &Span { len_chars: 3, ..span.clone() }, message, Some(hint));
        Err(Stopped)
    }

    fn open(&mut self, node: Node, anchor_id: usize) -> Result<(), Stopped> {
        if self.stack.len() >= MAX_YAML_DEPTH {
            return Err(self.too_deep(&node.span));
        }
        let cost = Cost { nodes: 1, bytes: 0, height: 1 };
        self.stack.push(Open { node, pending_key: None, seen: HashMap::new(), anchor_id, cost });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Stopped> {
        let Some(mut open) = self.stack.pop() else {
            return Ok(());
        };
        open.node.span.len_chars = open.node.span.len_chars.max(1);
        self.finished(open.node, open.anchor_id, open.cost)
    }

    /// Puts a whole node where it belongs: a list item, a map key, a map value or the root.
    fn finished(&mut self, node: Node, anchor_id: usize, cost: Cost) -> Result<(), Stopped> {
        if self.spent.nodes + self.pending_nodes() + cost.nodes > MAX_YAML_NODES {
            return Err(self.too_large(&node.span));
        }
        if anchor_id != 0 {
            self.spend(cost, &node.span)?;
            self.anchored.insert(anchor_id, Anchored { node: node.clone(), cost });
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.cost.nodes += cost.nodes;
        open.cost.bytes += cost.bytes;
        open.cost.height = open.cost.height.max(cost.height + 1);
        match (&mut open.node.kind, open.pending_key.take()) {
            (Kind::List(items), _) => items.push(node),
            (Kind::Map(entries), Some(Some(key))) => entries.push((key, node)),
            (Kind::Map(_), None) => open.pending_key = Some(open.key(node, self.diagnostics)),
            (Kind::Map(_), Some(None)) | (Kind::Scalar(_), _) => {}
        }
        Ok(())
    }

    /// Nodes of the lists and maps that are still open.
    fn pending_nodes(&self) -> usize {
        self.stack.iter().map(|open| open.cost.nodes).sum()
    }

    fn alias(&mut self, anchor_id: usize, span: Span) -> Result<(), Stopped> {
        let Some(anchored) = self.anchored.get(&anchor_id) else {
            let hint = "write the value out at one of the two places".into();
            self.diagnostics.error(
                code::YAML_ALIAS,
                &span,
                "the alias stands inside the value that it names",
                Some(hint),
            );
            return self.finished(stand_in("*", span), 0, Cost { nodes: 1, ..Cost::default() });
        };
        let (node, cost) = (anchored.node.clone(), anchored.cost);
        if self.stack.len() + cost.height > MAX_YAML_DEPTH {
            return Err(self.too_deep(&span));
        }
        self.spend(Cost { nodes: 0, ..cost }, &span)?;
        self.finished(node, 0, cost)
    }

    fn unknown_alias(&mut self, name: &str, span: Span) -> Result<(), Stopped> {
        let hint = match nearest(name, self.anchor_names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `*{near}`?"),
            None => format!("text that begins with `*` needs quotes: `\"*{name}\"`"),
        };
        let message = format!("`*{name}` is a YAML alias, and no `&{name}` stands before it");
        self.diagnostics.error(code::YAML_ALIAS, &span, message, Some(hint));
        self.finished(stand_in(&format!("*{name}"), span), 0, Cost { nodes: 1, ..Cost::default() })
    }

    /// Counts what copies cost, so that a small file cannot become a large tree.
    fn spend(&mut self, cost: Cost, span: &Span) -> Result<(), Stopped> {
        self.spent.nodes += cost.nodes;
        self.spent.bytes += cost.bytes;
        if self.spent.nodes > MAX_YAML_NODES || self.spent.bytes > MAX_YAML_BYTES {
            return Err(self.too_large(span));
        }
        Ok(())
    }

    fn too_large(&mut self, span: &Span) -> Stopped {
        let message = format!("the file has more than {MAX_YAML_NODES} values, or its aliases repeat too much text");
        let hint = "split it into several files; long lists go into a text file: `{file: path}`".into();
        self.diagnostics.error(code::YAML_TOO_LARGE, span, message, Some(hint));
        Stopped
    }

    fn too_deep(&mut self, span: &Span) -> Stopped {
        let message = format!("lists and maps are nested more than {MAX_YAML_DEPTH} deep");
        self.diagnostics.error(code::YAML_TOO_DEEP, span, message, Some("flatten the value".into()));
        Stopped
    }

    /// Whether a tag says that the value is text. Other tags have no meaning here and are reported.
    fn is_tagged_text(&mut self, tag: Option<&Tag>, span: &Span) -> bool {
        let Some(tag) = tag else {
            return false;
        };
        if tag.is_yaml_core_schema_tag("str") || tag.original() == "!" {
            return true;
        }
        let written = tag.original();
        let hint = format!("remove the tag, or quote the text: `\"{written} ...\"`");
        self.diagnostics.error(
            code::YAML_TAG,
            span,
            format!("the YAML tag `{written}` has no meaning here"),
            Some(hint),
        );
        false
    }

    fn span(&self, at: &ParserSpan) -> Span {
        let len_chars = if at.start.line() == at.end.line() {
            at.end.index().saturating_sub(at.start.index())
        } else {
            let rest = at.start.byte_offset().and_then(|offset| self.text.get(offset..)).unwrap_or_default();
            let line = rest.split(['\n', '\r']).next().unwrap_or_default();
            line.trim_end().chars().count()
        };
        syntax::span(&self.path, &at.start, len_chars.max(1))
    }
}

impl Open {
    /// Makes a key of a node; `None` when it is none or stands there already, and its value is to be dropped.
    fn key(&mut self, node: Node, diagnostics: &mut Diagnostics) -> Option<Key> {
        let span = node.span;
        if self.node.span.len_chars == 0 {
            self.node.span.clone_from(&span);
        }
        let scalar = match node.kind {
            Kind::Scalar(scalar) if !scalar.is_null() => scalar,
            other => {
                key_not_text(&span, &other, diagnostics);
                return None;
            }
        };
        if scalar.text == "<<" && !scalar.quoted {
            let hint = "write the keys out; an alias may stand for a whole value".into();
            diagnostics.error(code::YAML_MERGE_KEY, &span, "YAML 1.2 has no merge key `<<`", Some(hint));
            return None;
        }
        if let Some(first) = self.seen.get(&scalar.text) {
            let (line, column) = (first.line, first.column);
            let message =
                format!("the key `{}` stands twice in this map, first at line {line}, column {column}", scalar.text);
            let hint = "keep one of them; several values of one key are a list: `key: [a, b]`".into();
            diagnostics.error(code::YAML_DUPLICATE_KEY, &span, message, Some(hint));
            return None;
        }
        self.seen.insert(scalar.text.clone(), span.clone());
        Some(Key { text: scalar.text, span })
    }
}

fn key_not_text(span: &Span, kind: &Kind, diagnostics: &mut Diagnostics) {
    let (what, hint) = match kind {
        Kind::Map(_) => ("a map", "text that begins with `{`, such as a template `\"{{ ... }}\"`, needs quotes"),
        Kind::List(_) => ("a list", "write the key as text; quote it if it begins with `[`"),
        Kind::Scalar(_) => ("nothing", "write a key before the colon; quote it if it is meant as text"),
    };
    diagnostics.error(code::YAML_KEY_NOT_TEXT, span, format!("a key must be text, not {what}"), Some(hint.into()));
}

/// Stands where an alias led nowhere: as text, which it most likely was meant to be, so that no second finding follows.
fn stand_in(text: &str, span: Span) -> Node {
    Node { span, kind: Kind::Scalar(Scalar { text: text.to_owned(), quoted: true }) }
}

fn one_char(span: Span) -> Span {
    Span { len_chars: 1, ..span }
}
