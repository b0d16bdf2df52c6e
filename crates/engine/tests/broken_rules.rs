//! Each file of `tests/cases/broken-rules` is wrong in a way of its own. The comments at its end say what must be found,
//! all of it and nothing else: `# expect LINE:COLUMN CODE text`.
#![expect(clippy::disallowed_methods, reason = "the cases are files; the engine itself reads none")]

use std::fs;
use std::path::{Path, PathBuf};

use vigie_engine::diagnostic::{Diagnostics, SourceFile};
use vigie_engine::rule;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases/broken-rules")
}

/// Loads a text and gives all findings.
fn load(name: &str, text: &str) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    let file = SourceFile { path: name.into(), text: text.into() };
    let mut read_list =
        |path: &str, _: &str| fs::read_to_string(folder().join(path)).map_err(|error| format!("{:?}", error.kind()));
    let rules = rule::load(&[file], &mut read_list, &mut diagnostics);
    rules.lists.report_unused(&mut diagnostics);
    diagnostics
}

#[test]
fn every_broken_file_gets_exactly_the_findings_that_it_names() {
    let mut files: Vec<PathBuf> = fs::read_dir(folder())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 40, "{}", files.len());
    let mut wrong = String::new();
    for path in files {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("a readable case");
        let diagnostics = load(&name, &text);
        let found: Vec<String> = diagnostics
            .sorted()
            .iter()
            .map(|one| {
                let other_file = if *one.span.path == *name { String::new() } else { format!("{}:", one.span.path) };
                format!("# expect {other_file}{}:{} {} {}", one.span.line, one.span.column, one.code, one.message)
            })
            .collect();
        let expected: Vec<&str> = text.lines().filter(|line| line.starts_with("# expect ")).collect();
        if found != expected {
            wrong.push_str(&format!("{name} gives\n{}\n\n{}\n", found.join("\n"), diagnostics.render()));
        }
        assert!(!found.is_empty(), "{name} is not broken");
        for finding in diagnostics.sorted() {
            assert!(
                finding.hint.is_some() || finding.code == "W0206" || finding.code.starts_with("E03"),
                "{finding:?}"
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
