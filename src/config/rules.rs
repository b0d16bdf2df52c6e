//! The rules that a configuration names, and the built-in ones. Rules whose own tests fail do not go live.

use std::path::{Path, PathBuf};

use vigie_engine::diagnostic::{Diagnostics, SourceFile};
use vigie_engine::rule::{self, Lists, Rule};

use super::{Directory, Sections, directory_of, files};
use crate::pipeline::notice::BUILTIN_RULES;

/// Largest list file in bytes: some hundred thousand addresses.
const MAX_LIST_BYTES: u64 = 16 * 1024 * 1024;
/// Shown as the path of the built-in rules.
/// Where the program's own rules say that they are from.
pub const BUILTIN_PATH: &str = "builtin/vigie.yaml";

pub(super) struct LoadedRules {
    pub(super) rules: Vec<Rule>,
    pub(super) lists: Lists,
    /// Files that were read.
    pub(super) read: Vec<PathBuf>,
    /// Directories that were named.
    pub(super) directories: Vec<Directory>,
}

pub(super) fn load(sections: &Sections, diagnostics: &mut Diagnostics) -> LoadedRules {
    let (mut sources, mut directories) = (Vec::new(), Vec::new());
    for node in sections.all("rules") {
        let items = node.items().unwrap_or(std::slice::from_ref(node));
        for item in items {
            let Some(path) = item.text() else {
                let text = format!("`rules` takes paths, not {}", item.describe());
                diagnostics.error("E0431", &item.span, text, Some("write `rules: [rules/]`".into()));
                continue;
            };
            let resolved = directory_of(&item.span.path).join(path);
            if !resolved.exists() {
                let text = format!("{} does not exist", resolved.display());
                let hint = "the path counts from the folder of the file that names it";
                diagnostics.error("E0431", &item.span, text, Some(hint.into()));
                continue;
            }
            if resolved.is_dir() {
                directories.push(Directory::of_rules(&resolved));
            }
            let (before, findings) = (sources.len(), diagnostics.count());
            sources.extend(files::read_rule_files(&resolved, diagnostics));
            if sources.len() == before && diagnostics.count() == findings {
                let text = format!("{} holds no rule file", resolved.display());
                diagnostics.error("E0432", &item.span, text, Some("rule files end in .yaml or .yml".into()));
            }
        }
    }
    let named = sections.all("rules").iter().any(|node| node.items().is_none_or(|items| !items.is_empty()));
    if !named && sections.whole {
        let place = sections.get("rules").map_or(&sections.anchor, |node| &node.span);
        diagnostics.error("E0432", place, "no rules are configured", Some("add `rules: [rules/]`".into()));
    }
    let mut loaded = load_files(&sources, diagnostics);
    // A rule whose own tests fail does not go live.
    for rule in &loaded.rules {
        rule::check::failures_as_diagnostics(&rule::check::run_tests(rule), diagnostics);
    }
    if loaded.rules.is_empty() && !sources.is_empty() && !diagnostics.has_errors() {
        let hint = Some("a rule file holds `rules:` with at least one rule".into());
        diagnostics.error("E0432", &sections.anchor, "the rule files hold no rule", hint);
    }
    loaded.rules.extend(builtin(diagnostics, &loaded.rules));
    LoadedRules { directories, ..loaded }
}

/// Loads rule files from paths, lists included; their tests are not run.
pub(super) fn load_paths(paths: &[PathBuf], diagnostics: &mut Diagnostics) -> Vec<Rule> {
    let sources: Vec<SourceFile> = paths.iter().flat_map(|path| files::read_rule_files(path, diagnostics)).collect();
    load_files(&sources, diagnostics).rules
}

fn load_files(sources: &[SourceFile], diagnostics: &mut Diagnostics) -> LoadedRules {
    let mut read: Vec<PathBuf> = sources.iter().map(|file| PathBuf::from(&*file.path)).collect();
    let mut read_list = |path: &str, from: &str| {
        let resolved = directory_of(from).join(path);
        let text = read_list_file(&resolved);
        read.push(resolved);
        text
    };
    let set = rule::load(sources, &mut read_list, diagnostics);
    LoadedRules { rules: set.rules, lists: set.lists, read, directories: Vec::new() }
}

fn read_list_file(path: &Path) -> Result<String, String> {
    let read = files::read_bounded(path, MAX_LIST_BYTES).map_err(|error| error.to_string())?;
    let bytes = read.ok_or_else(|| format!("larger than {MAX_LIST_BYTES} bytes"))?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".into())
}

/// The program's own rules; a user's rule of the same id takes the place of one.
fn builtin(diagnostics: &mut Diagnostics, own: &[Rule]) -> Vec<Rule> {
    let file = SourceFile { path: BUILTIN_PATH.into(), text: BUILTIN_RULES.into() };
    let none = &mut |_: &str, _: &str| Err("built-in rules have no list files".to_owned());
    let set = rule::load(std::slice::from_ref(&file), none, diagnostics);
    set.rules.into_iter().filter(|rule| own.iter().all(|other| other.id != rule.id)).collect()
}
