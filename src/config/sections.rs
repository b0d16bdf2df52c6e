//! The top-level keys of all files of a configuration, put together before anything is read of them.

use std::collections::BTreeMap;

use vigie_engine::diagnostic::{Diagnostics, SourceFile, Span};
use vigie_engine::yaml::{Key, Node};

use super::{TOP_LEVEL, mask};
use crate::options::suggestion;

/// The top-level keys of all files, put together.
pub(crate) struct Sections {
    parts: BTreeMap<&'static str, Vec<Node>>,
    /// The start of the first file, to point at what is missing.
    pub(crate) anchor: Span,
    /// Every file could be read: only then is a section that was not seen a section that is missing.
    pub(crate) whole: bool,
}

impl Sections {
    pub(super) fn collect(files: &[SourceFile], diagnostics: &mut Diagnostics) -> Option<Self> {
        let first = files.first()?;
        let anchor = Span { path: first.path.clone(), line: 1, column: 1, len_chars: 1 };
        let mut sections = Self { parts: BTreeMap::new(), anchor, whole: !diagnostics.has_errors() };
        for file in files {
            let before = diagnostics.count();
            let Some(node) = vigie_engine::yaml::parse_as(file, mask::masked(file), diagnostics) else {
                sections.whole &= diagnostics.count() == before;
                continue;
            };
            let Some(entries) = node.entries() else {
                sections.whole = false;
                let hint = Some(format!("it holds {}", TOP_LEVEL.join(", ")));
                diagnostics.error(
                    "E0410",
                    &node.span,
                    format!("a configuration is a map, not {}", node.describe()),
                    hint,
                );
                continue;
            };
            for (key, value) in entries {
                match TOP_LEVEL.iter().find(|name| **name == key.text) {
                    Some(name) => sections.parts.entry(name).or_default().push(value.clone()),
                    None => diagnostics.error(
                        "E0411",
                        &key.span,
                        format!("unknown section `{}`", key.text),
                        Some(suggestion(&key.text, TOP_LEVEL.iter().copied())),
                    ),
                }
            }
        }
        sections.check_shapes(diagnostics);
        Some(sections)
    }

    fn check_shapes(&self, diagnostics: &mut Diagnostics) {
        if self.get("sources").is_none() && self.whole {
            let hint = "add `sources: {main: {vonage_audit: {api_key: ..., api_secret: ...}}}`";
            diagnostics.error("E0412", &self.anchor, "no source is configured", Some(hint.into()));
        }
        for name in ["sources", "sinks"] {
            let mut seen: BTreeMap<&str, &Key> = BTreeMap::new();
            for node in self.parts.get(name).into_iter().flatten() {
                let Some(entries) = node.entries().filter(|entries| !entries.is_empty()) else {
                    let text = format!("`{name}` is a map from names to drivers, not {}", node.describe());
                    diagnostics.error(
                        "E0413",
                        &node.span,
                        text,
                        Some(format!("write `{name}: {{NAME: {{KIND: {{...}}}}}}`")),
                    );
                    continue;
                };
                for (key, _) in entries {
                    if let Some(first) = seen.insert(&key.text, key) {
                        let text = format!("`{}` is there twice in `{name}`", key.text);
                        let hint = format!("the first is at {}:{}", first.span.path, first.span.line);
                        diagnostics.error("E0414", &key.span, text, Some(hint));
                    }
                }
            }
        }
    }

    /// The first node of a section.
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.parts.get(name).and_then(|nodes| nodes.first())
    }

    /// All nodes of a section, over all files.
    pub(crate) fn all(&self, name: &str) -> &[Node] {
        self.parts.get(name).map_or(&[], Vec::as_slice)
    }

    /// Some sections have one meaning as a whole and cannot be put together from two files.
    pub(super) fn refuse_second(&self, name: &str, diagnostics: &mut Diagnostics) {
        if let [first, second, ..] = self.all(name) {
            let hint = format!("keep one; the first is at {}:{}", first.span.path, first.span.line);
            diagnostics.error("E0414", &second.span, format!("`{name}` is there twice"), Some(hint));
        }
    }

    pub(super) fn named(&self, name: &str) -> Vec<(&Key, &Node)> {
        let entries = self.all(name).iter().filter_map(Node::entries).flatten();
        entries.map(|(key, node)| (key, node)).collect()
    }
}
