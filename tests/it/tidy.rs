//! The tree against its own rules: layers, lengths, names, bans, pages.
//!
//! Each check is a function over text with tests of its own that show it what it must find.

mod code;
mod layers;
mod limits;
mod pages;

use std::collections::BTreeSet;
use std::path::Path;

use code::File;

/// Rust that people write here. `target` and generated text are not.
const ROOTS: &[&str] = &["src", "crates", "tests", "benches", "examples", "fuzz/fuzz_targets"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn files() -> Vec<File> {
    let mut paths = Vec::new();
    for directory in ROOTS {
        collect(&root().join(directory), &mut paths);
    }
    let mut files: Vec<File> = paths.iter().map(|path| File::new(path, &read(path))).collect();
    let tests: BTreeSet<String> = files.iter().flat_map(test_files).collect();
    for file in &mut files {
        let below = |test: &String| file.path == format!("{test}.rs") || file.path.starts_with(&format!("{test}/"));
        let outside = !file.path.starts_with("src/") && !file.path.contains("/src/");
        if outside || tests.iter().any(below) {
            file.test_only();
        }
    }
    files
}

/// Modules that only tests use, as paths without `.rs`.
fn test_files(file: &File) -> Vec<String> {
    let stem = file.path.trim_end_matches(".rs");
    let stem = stem.trim_end_matches("/lib").to_owned();
    file.test_modules.iter().map(|module| format!("{stem}/{module}")).collect()
}

fn collect(directory: &Path, paths: &mut Vec<String>) {
    // A root that is not there yet has no files; `something_is_read` sees that the others are.
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let mut entries: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let path = path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
            paths.push(path);
        }
    }
}

fn hold(check: impl Fn(&File) -> Vec<String>) {
    let found: Vec<String> = files().iter().flat_map(check).collect();
    assert!(found.is_empty(), "{} found:\n{}", found.len(), found.join("\n"));
}

/// Modules that a crate root declares.
fn declared(path: &str) -> Vec<String> {
    let text = read(path);
    let names = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    names.map(str::to_owned).collect()
}

#[test]
fn something_is_read() {
    let files = files();
    let count = |begin: &str| files.iter().filter(|file| file.path.starts_with(begin)).count();
    assert!(count("src/") > 80 && count("crates/engine/src/") > 40 && count("tests/it/") > 8);
    let production = |path: &str| files.iter().find(|file| file.path == path).map(|file| !file.production.is_empty());
    assert_eq!(production("src/sink.rs"), Some(true));
    assert_eq!(production("src/sink/contract.rs"), Some(false), "declared under cfg(test)");
    assert_eq!(production("tests/it/crash/mutant.rs"), Some(false));
}

#[test]
fn imports_of_the_program_point_down() {
    hold(layers::program);
}

#[test]
fn imports_of_the_engine_point_down() {
    hold(layers::engine);
}

#[test]
fn the_engine_is_pure() {
    hold(|file| match file.path.starts_with("crates/engine/src/") {
        true => layers::impure(file),
        false => Vec::new(),
    });
    let found = layers::impure_dependencies(&read("crates/engine/Cargo.toml"));
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn the_simulator_shares_no_type_with_the_client() {
    let manifest = read("crates/sim/Cargo.toml");
    assert!(!manifest.contains("vigie-engine") && !manifest.contains("vigie ="), "{manifest}");
}

#[test]
fn files_are_short() {
    hold(limits::long_file);
}

#[test]
fn functions_are_short() {
    hold(limits::long_functions);
}

#[test]
fn nothing_stops_the_process() {
    hold(limits::stops);
}

#[test]
fn banned_words_stand_nowhere() {
    hold(limits::bans);
}

#[test]
fn files_say_what_they_are_for() {
    hold(limits::opening);
}

#[test]
fn files_are_named_for_what_is_in_them() {
    hold(|file| limits::name(&file.path));
}

#[test]
fn the_architecture_page_names_every_module() {
    let modules = [declared("src/lib.rs"), declared("crates/engine/src/lib.rs")].concat();
    assert!(modules.len() > 20, "{modules:?}");
    let found = pages::architecture(&read("ARCHITECTURE.md"), &modules);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn every_kind_of_driver_is_documented() {
    let sinks = vigie::sink::KINDS.iter().map(|kind| kind.kind.to_owned());
    let sources = vigie::source::KINDS.iter().map(|kind| kind.kind.to_owned());
    let kinds: Vec<String> = sinks.chain(sources).collect();
    let found = pages::unnamed(&(read("README.md") + &read("docs/reference.md")), &kinds);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn the_changelog_has_a_place_for_what_comes_next() {
    let found = pages::changelog(&read("CHANGELOG.md"));
    assert!(found.is_empty(), "{found:?}");
}
