//! YAML as a tree of nodes with places, so that every later mistake can point at its line and column.
//!
//! This is the only module that knows the YAML library. YAML is read as 1.2: `NO` is text. It never resolves scalars to
//! types by itself: who reads a node says what it expects.

mod build;
pub mod fields;
mod syntax;

use crate::diagnostic::{Diagnostics, SourceFile, Span};

/// Largest number of nodes in a file: a bound on alias bombs and on mistakes, far above any real rule file.
pub const MAX_YAML_NODES: usize = 20_000;
/// Largest file in bytes; also how much text aliases may repeat.
pub const MAX_YAML_BYTES: usize = 2 * 1024 * 1024;
/// Deepest nesting of lists and maps. Who walks the tree may recurse: this is what bounds it.
pub const MAX_YAML_DEPTH: usize = 64;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub span: Span,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Keys in order; duplicates were reported and dropped.
    Map(Vec<(Key, Node)>),
    /// Items in order.
    List(Vec<Node>),
    /// Everything else.
    Scalar(Scalar),
}

/// A map key; always text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// As written, quotes resolved.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// A scalar as written, quotes and escapes resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// The text.
    pub text: String,
    /// Quoted or a block scalar: then it is text and never a number, boolean or null.
    pub quoted: bool,
}

/// Reads one file. Reports what is wrong and returns the tree when there is one (an empty file has none).
///
/// The file is made known to `diagnostics`, so that every later finding can show its line. A tree is returned in spite of
/// duplicate keys and the like, so that the rest can be checked too; after a syntax error there is none.
pub fn parse(file: &SourceFile, diagnostics: &mut Diagnostics) -> Option<Node> {
    parse_as(file, file.clone(), diagnostics)
}

/// As [`parse`], but findings show the lines of `shown`: the same text with its secrets covered, place by place.
pub fn parse_as(file: &SourceFile, shown: SourceFile, diagnostics: &mut Diagnostics) -> Option<Node> {
    diagnostics.add_file(shown);
    build::tree(file, diagnostics)
}

/// Where the comments of a file stand, from their `#` to the end of the line. `None` when the file cannot be read to its
/// end.
#[must_use]
pub fn comments(file: &SourceFile) -> Option<Vec<Span>> {
    build::comments(file)
}

impl Node {
    /// The text of a scalar that is not null.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(scalar) if !scalar.is_null() => Some(&scalar.text),
            _ => None,
        }
    }

    /// The entries of a map.
    #[must_use]
    pub fn entries(&self) -> Option<&[(Key, Node)]> {
        match &self.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The items of a list.
    #[must_use]
    pub fn items(&self) -> Option<&[Node]> {
        match &self.kind {
            Kind::List(items) => Some(items),
            _ => None,
        }
    }

    /// Whether it is `null`, `~` or nothing.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(scalar) if scalar.is_null())
    }

    /// `a map`, `a list`, `a number`, ... for messages.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Map(_) => "a map",
            Kind::List(_) => "a list",
            Kind::Scalar(scalar) if scalar.is_null() => "nothing",
            Kind::Scalar(scalar) if scalar.boolean().is_some() => "a boolean",
            Kind::Scalar(scalar) if scalar.number().is_some() => "a number",
            Kind::Scalar(_) => "text",
        }
    }
}

impl Scalar {
    /// YAML 1.2 core: empty, `~`, `null`, `Null`, `NULL`, unquoted.
    #[must_use]
    pub fn is_null(&self) -> bool {
        !self.quoted && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// YAML 1.2 core booleans, unquoted.
    #[must_use]
    pub fn boolean(&self) -> Option<bool> {
        match self.text.as_str() {
            _ if self.quoted => None,
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => None,
        }
    }

    /// A finite decimal number, unquoted. A leading zero (`0123`) is text, as in a phone number.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        let digits = self.text.trim_start_matches(['-', '+']);
        let leading_zero = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
        let decimal =
            digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'-' | b'+'));
        if self.quoted || leading_zero || !decimal || !digits.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        self.text.parse().ok().filter(|number: &f64| number.is_finite())
    }
}

#[cfg(test)]
mod tests;
