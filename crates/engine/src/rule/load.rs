//! Rule files to rules: all files, all lists, all mistakes in one go.
//!
//! Lists of every file are read before any rule, so that files may come in any order. Reading a list's file is the caller's
//! affair: this crate touches no file.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostics, SourceFile, Span, code};
use crate::rule::list::{Lists, ReadList};
use crate::rule::{Rule, read};
use crate::yaml::fields::Fields;
use crate::yaml::{self, Node};

/// What rule files hold.
#[derive(Debug, Default)]
pub struct RuleSet {
    /// All rules that could be read, in the order of the files.
    pub rules: Vec<Rule>,
    /// All lists; see [`Lists::report_unused`].
    pub lists: Lists,
}

/// Reads rule files. A rule with a mistake is reported and left out; whether that stops anything is the caller's decision
/// (`Diagnostics::has_errors`). Lists that nothing uses are reported only by [`Lists::report_unused`], because routes may
/// use them too.
pub fn load(files: &[SourceFile], read_list: &mut ReadList<'_>, diagnostics: &mut Diagnostics) -> RuleSet {
    let trees: Vec<Node> = files.iter().filter_map(|file| tree(file, diagnostics)).collect();
    let maps: Vec<Fields<'_>> = trees.iter().filter_map(|tree| top(tree, diagnostics)).collect();
    let mut lists = Lists::default();
    for map in &maps {
        if let Some(node) = map.get("lists") {
            lists.add(node, read_list, diagnostics);
        }
    }
    let mut rules = Vec::new();
    let mut ids: BTreeMap<String, Span> = BTreeMap::new();
    for map in &maps {
        for node in map.list("rules", diagnostics) {
            claim_id(node, &mut ids, diagnostics);
            rules.extend(read::rule(node, &lists, diagnostics));
        }
    }
    RuleSet { rules, lists }
}

fn hint() -> Option<String> {
    Some("begin it with `rules:` or `lists:`, or remove it".into())
}

fn tree(file: &SourceFile, diagnostics: &mut Diagnostics) -> Option<Node> {
    let before = diagnostics.count();
    let tree = yaml::parse(file, diagnostics);
    if tree.is_none() && diagnostics.count() == before {
        let span = Span { path: file.path.clone(), line: 1, column: 1, len_chars: 1 };
        diagnostics.warning(code::NO_RULES, &span, "the file holds no rules and no lists", hint());
    }
    tree
}

fn top<'a>(tree: &'a Node, diagnostics: &mut Diagnostics) -> Option<Fields<'a>> {
    let has = |name: &str| tree.entries().is_some_and(|entries| entries.iter().any(|(key, _)| key.text == name));
    if tree.items().is_some() || (has("id") && has("when") && !has("rules")) {
        let hint = "begin the file with `rules:` and put `- ` before the first line of each rule";
        let message = "rules must stand in a list under `rules:`";
        diagnostics.error(code::WRONG_KIND, &tree.span, message, Some(hint.into()));
        return None;
    }
    let fields = Fields::of(tree, "a rule file", &["rules", "lists"], diagnostics)?;
    if fields.entries().iter().all(|(_, node)| node.is_null()) {
        diagnostics.warning(code::NO_RULES, &tree.span, "the file holds no rules and no lists", hint());
    }
    Some(fields)
}

/// Reports an id that another rule has, also when one of the two has other mistakes.
fn claim_id(node: &Node, ids: &mut BTreeMap<String, Span>, diagnostics: &mut Diagnostics) {
    let id = node.entries().and_then(|entries| entries.iter().find(|(key, _)| key.text == "id"));
    let Some((text, span)) = id.and_then(|(_, node)| Some((node.text()?, &node.span))) else {
        return;
    };
    if let Some(first) = ids.get(text) {
        let message =
            format!("the rule id `{text}` is already taken at {}:{}:{}", first.path, first.line, first.column);
        let hint = "the id is the rule's identity: give this rule one of its own";
        diagnostics.error(code::DUPLICATE_RULE_ID, span, message, Some(hint.into()));
        return;
    }
    ids.insert(text.to_owned(), span.clone());
}
