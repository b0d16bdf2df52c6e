//! A configuration as it may be shown beside a finding: whatever could be a secret is covered, at its width, so that the
//! caret still points at the right place.
//!
//! A file that can be read is covered by meaning: secrets, headers, the hidden parts of URLs, and the values of everything
//! that is not known, because it may be a misspelt secret. Of one that cannot be read only keys are shown. No comment is
//! ever shown: what was a secret until yesterday is often kept in one.

use std::sync::Arc;

use vigie_engine::diagnostic::{Diagnostics, SourceFile, Span};
use vigie_engine::yaml::{Kind, Node};

use crate::options::{OptionKind, OptionSpec};
use crate::{sink, source};

/// Stands for one character.
const COVER: char = '•';
/// Sections that hold no secret.
const OPEN_SECTIONS: &[&str] = &["rules", "routes", "inhibit", "geo", "state", "server"];

/// The same file, line by line and character by character, without what could be a secret.
pub(super) fn masked(file: &SourceFile) -> SourceFile {
    let tree = vigie_engine::yaml::parse(file, &mut Diagnostics::default());
    let text = match (tree, vigie_engine::yaml::comments(file)) {
        (Some(tree), Some(comments)) => {
            let mut page = Page::new(&file.text);
            page.cover_sections(&tree);
            page.cover_comments(&comments);
            page.text()
        }
        _ => keys_only(&file.text),
    };
    SourceFile { path: file.path.clone(), text: Arc::from(text) }
}

/// The file as lines of characters, so that spans can be found in it.
struct Page {
    lines: Vec<Vec<char>>,
}

impl Page {
    /// Line ends stay where they are: YAML counts a lone carriage return as one.
    fn new(text: &str) -> Self {
        let mut lines = vec![Vec::new()];
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            lines.last_mut().into_iter().for_each(|line| line.push(character));
            let ends = character == '\n' || (character == '\r' && characters.peek() != Some(&'\n'));
            if ends {
                lines.push(Vec::new());
            }
        }
        Self { lines }
    }

    fn text(&self) -> String {
        self.lines.iter().flatten().collect()
    }

    fn cover_sections(&mut self, tree: &Node) {
        for (section, named) in tree.entries().unwrap_or_default() {
            let kinds: Vec<(&str, Vec<OptionSpec>)> = match section.text.as_str() {
                "sinks" => sink::KINDS.iter().map(|kind| (kind.kind, kind.specs())).collect(),
                "sources" => source::KINDS.iter().map(|kind| (kind.kind, kind.options.to_vec())).collect(),
                known if OPEN_SECTIONS.contains(&known) => continue,
                _ => Vec::new(),
            };
            match named.entries() {
                Some(entries) => entries.iter().for_each(|(_, node)| self.cover_driver(node, &kinds)),
                None => self.cover(named),
            }
        }
    }

    fn cover_driver(&mut self, node: &Node, kinds: &[(&str, Vec<OptionSpec>)]) {
        let Some([(kind, options)]) = node.entries() else { return self.cover(node) };
        let known = kinds.iter().find(|(name, _)| *name == kind.text);
        let (Some((_, specs)), Some(entries)) = (known, options.entries()) else { return self.cover(options) };
        for (key, value) in entries {
            match specs.iter().find(|spec| spec.name == key.text).map(|spec| &spec.kind) {
                None | Some(OptionKind::Secret | OptionKind::Secrets | OptionKind::Map) => self.cover(value),
                Some(OptionKind::Url(_) | OptionKind::Via(_)) => self.cover_url(value),
                Some(OptionKind::Urls(_)) => match value.items() {
                    Some(items) => items.iter().for_each(|item| self.cover_url(item)),
                    None => self.cover_url(value),
                },
                Some(_) => {}
            }
        }
    }

    fn cover_comments(&mut self, comments: &[Span]) {
        for span in comments {
            let line = self.lines.get_mut(span.line.saturating_sub(1) as usize);
            // Behind the sign and to the end of the line, however long it is said to be.
            let text = line.into_iter().flatten().skip(span.column as usize);
            text.filter(|character| !character.is_whitespace()).for_each(|character| *character = COVER);
        }
    }

    /// Every scalar below it.
    fn cover(&mut self, node: &Node) {
        if node.is_null() {
            return;
        }
        match &node.kind {
            Kind::Map(entries) => entries.iter().for_each(|(_, node)| self.cover(node)),
            Kind::List(items) => items.iter().for_each(|node| self.cover(node)),
            // A variable's name is no secret.
            Kind::Scalar(scalar) if scalar.text.starts_with("${") && scalar.text.ends_with('}') => {}
            Kind::Scalar(_) => self.scalar(node).iter_mut().for_each(|character| **character = COVER),
        }
    }

    /// Scheme, host and port may be seen.
    fn cover_url(&mut self, node: &Node) {
        let Some(text) = node.text().filter(|text| text.contains("://")) else { return self.cover(node) };
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        let seen_from = scheme.chars().count() + "://".len();
        let hidden = seen_from..seen_from + user.chars().count();
        let seen_to = seen_from + authority.chars().count();
        let hides = |index: usize| hidden.contains(&index) || index >= seen_to;
        let places = self.scalar(node).into_iter().enumerate().filter(|(index, _)| hides(*index));
        places.for_each(|(_, character)| *character = COVER);
    }

    /// The characters of a scalar without its quotes; of one over several lines, the first.
    fn scalar(&mut self, node: &Node) -> Vec<&mut char> {
        let (line, column) = (node.span.line.saturating_sub(1) as usize, node.span.column.saturating_sub(1) as usize);
        let length = node.span.len_chars as usize;
        let Some(line) = self.lines.get_mut(line) else { return Vec::new() };
        let places = line.iter_mut().skip(column).take(length);
        places.filter(|character| !matches!(character, '"' | '\'' | '\n' | '\r')).collect()
    }
}

/// Covers every word but those that a colon makes a key, outside of what may be a comment.
fn keys_only(text: &str) -> String {
    let is_structure = |character: char| character.is_whitespace() || "{}[],\"'#".contains(character);
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_comment = false;
    while let Some(first) = rest.chars().next() {
        in_comment = first == '#' || (in_comment && !matches!(first, '\n' | '\r'));
        let (word, after) = rest.split_at(rest.find(is_structure).unwrap_or(rest.len()));
        if word.is_empty() {
            shown.push(first);
            rest = rest.strip_prefix(first).unwrap_or_default();
            continue;
        }
        let is_key = !in_comment && word.ends_with(':') && !word.contains("://");
        shown.extend(word.chars().map(|character| if is_key || character == '-' { character } else { COVER }));
        rest = after;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        masked(&SourceFile { path: "v.yaml".into(), text: text.into() }).text.to_string()
    }

    #[test]
    fn what_could_be_a_secret_is_covered_at_its_width() {
        for (text, expected) in [
            (
                "sinks:\n  a: {webhook: {url: \"https://u:p@h.example:1/x?y#z\", secret: abcdef, max_body: 1MB}}\n",
                "sinks:\n  a: {webhook: {url: \"https://•••@h.example:1••••••\", secret: ••••••, max_body: 1MB}}\n",
            ),
            (
                "sinks:\r\n  a:\r\n    webhook:\r\n      secrett: [\"ab\", 'cd']\r\n      headers: {X: é}\r\n",
                "sinks:\r\n  a:\r\n    webhook:\r\n      secrett: [\"••\", '••']\r\n      headers: {X: •}\r\n",
            ),
            (
                "sinks: {a: {alertmanager: {urls: [http://u:p@h:1/x, \"http://i/y\"], labels: {a: b}}}}",
                "sinks: {a: {alertmanager: {urls: [http://•••@h:1••, \"http://i••\"], labels: {a: •}}}}",
            ),
            ("sinks: {a: {webhok: {secret: abc}}}", "sinks: {a: {webhok: {secret: •••}}}"),
            ("sinkz: {a: {b: abc}}\nstate: {dir: abc}", "sinkz: {a: {b: •••}}\nstate: {dir: abc}"),
            ("sinks: {a: {slack: {webhook_url: \"${HOOK}\"}}}", "sinks: {a: {slack: {webhook_url: \"${HOOK}\"}}}"),
            ("sinks: {a: {slack: {webhook_url: \"htp:/x/y\"}}}", "sinks: {a: {slack: {webhook_url: \"••••••••\"}}}"),
            ("sinks: [secret: {\n - url: http://a/b", "sinks: [secret: {\n - url: ••••••••••"),
            ("sinks: [a: # b: c\r\n d: e#f: g\n", "sinks: [a: # •• •\r\n d: •#•• •\n"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn comments_are_covered_wherever_they_stand() {
        for (text, expected) in [
            ("# été: x\nstate: {dir: abc} # s3cret, o_O\n", "# •••• •\nstate: {dir: abc} # ••••••• •••\n"),
            ("rules:   #a\n  # b\n- r  #\tc\r\n#d", "rules:   #•\n  # •\n- r  #\t•\r\n#•"),
            ("state:\n  dir: >- # a\n    b # c\n  # d\n", "state:\n  dir: >- # •\n    b # c\n  # •\n"),
            (
                "state: {dir: \"a # b\", # c\n  retention: 'd' } # e",
                "state: {dir: \"a # b\", # •\n  retention: 'd' } # •",
            ),
            (
                "state: {dir: a#b, retention: \"\\\" # c\"} # d # e",
                "state: {dir: a#b, retention: \"\\\" # c\"} # • • •",
            ),
            (
                "sinks: # a\n  b: # c\n    - d # e\n---\n# f\nstate: g",
                "sinks: # •\n  b: # •\n    - • # •\n---\n# •\nstate: •",
            ),
        ] {
            assert_eq!(shown(text), expected);
        }
    }
}
