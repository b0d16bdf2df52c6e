//! Lengths, names, openings, and words that do not stand in this code.
//!
//! The lints hold most bans while compiling; these checks hold them also where a lint was switched off.

use super::code::{self, File};

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;
/// An opening says what the file is for; more than this is documentation in the wrong place.
const MAX_OPENING_LINES: usize = 12;

/// Files that may be longer, with why. Flat tables only.
const LONG_FILES: &[(&str, &str)] = &[];

/// A file that is longer than a reader keeps in mind.
pub(super) fn long_file(file: &File) -> Vec<String> {
    let lines = file.production.trim_end().lines().count();
    let excused = LONG_FILES.iter().any(|(path, _)| *path == file.path);
    let found = (lines > MAX_FILE_LINES && !excused).then(|| format!("{}: {lines} lines of production", file.path));
    found.into_iter().collect()
}

/// Functions that are longer, and do not say why.
pub(super) fn long_functions(file: &File) -> Vec<String> {
    let long = code::functions(&file.code)
        .into_iter()
        .filter(|function| function.body_lines > MAX_FUNCTION_LINES && !excused(function.attributes));
    long.map(|function| {
        format!("{}:{}: `{}` has {} lines", file.path, function.line, function.name, function.body_lines)
    })
    .collect()
}

fn excused(attributes: &str) -> bool {
    attributes.contains("expect(clippy::too_many_lines") && attributes.contains("reason")
}

/// Ways to stop a process that promised to go on.
pub(super) fn stops(file: &File) -> Vec<String> {
    const WORDS: &[&str] = &[".unwrap()", ".unwrap_err()", "panic!(", "todo!(", "unimplemented!(", "dbg!("];
    named(&file.path, &file.production, WORDS)
}

/// What stands nowhere, tests included: silent lints, waiting by the clock, tests that do not run.
pub(super) fn bans(file: &File) -> Vec<String> {
    const WORDS: &[&str] = &["#[allow(", "#![allow(", "thread::sleep", "#[ignore", "unbounded_channel"];
    named(&file.path, &file.code, WORDS)
}

fn named(path: &str, code: &str, words: &[&str]) -> Vec<String> {
    let lines = code.lines().enumerate();
    let found = lines.flat_map(|(index, line)| {
        let words = words.iter().filter(move |word| line.contains(*word));
        words.map(move |word| format!("{path}:{}: `{word}`", index + 1))
    });
    found.collect()
}

/// Without saying what it is for.
pub(super) fn opening(file: &File) -> Vec<String> {
    let lines = file.text.lines().take_while(|line| line.starts_with("//!")).count();
    let found =
        (!(1..=MAX_OPENING_LINES).contains(&lines)).then(|| format!("{}: opens with {lines} lines `//!`", file.path));
    found.into_iter().collect()
}

/// A name that says nothing, or an old form.
pub(super) fn name(path: &str) -> Vec<String> {
    const NAMES: &[&str] = &["util", "utils", "helper", "helpers", "common", "manager", "misc", "mod"];
    let stem = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
    let words: Vec<&str> = stem.split('_').collect();
    let found = NAMES.iter().any(|name| words.contains(name)).then(|| format!("{path}: named for nothing in it"));
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(check: fn(&File) -> Vec<String>, text: &str) -> usize {
        check(&File::new("src/x.rs", text)).len()
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let line = "fn f() {}\n";
        assert_eq!(found(long_file, &line.repeat(MAX_FILE_LINES)), 0);
        assert_eq!(found(long_file, &line.repeat(MAX_FILE_LINES + 1)), 1);
        let tests = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", line.repeat(MAX_FILE_LINES + 1));
        assert_eq!(found(long_file, &tests), 0);
    }

    #[test]
    fn a_long_function_is_found_unless_it_says_why() {
        let long = format!("fn f() {{\n{}}}\n", "x();\n".repeat(MAX_FUNCTION_LINES + 1));
        assert_eq!(found(long_functions, &long), 1);
        let wordy = format!("fn f() {{\n{}}}\n", "// why\n\n".repeat(MAX_FUNCTION_LINES + 1));
        assert_eq!(found(long_functions, &wordy), 0);
        let says = format!("#[expect(clippy::too_many_lines, reason = \"a flat table\")]\n{long}");
        assert_eq!(found(long_functions, &says), 0);
        let silent = format!("#[expect(clippy::too_many_lines)]\n{long}");
        assert_eq!(found(long_functions, &silent), 1);
    }

    #[test]
    fn what_stops_the_process_is_found_outside_tests_only() {
        for text in ["fn f() { x.unwrap() }", "fn f() { panic!(\"no\") }", "fn f() { todo!() }"] {
            assert_eq!(found(stops, text), 1, "{text}");
            assert_eq!(found(stops, &format!("#[cfg(test)]\nmod tests {{ {text} }}")), 0, "{text}");
        }
        assert_eq!(found(stops, "/// Never `x.unwrap()`.\nfn f() { say(\"panic!()\"); x.unwrap_or(1) }"), 0);
    }

    #[test]
    fn bans_hold_in_tests_too() {
        for text in
            ["#[allow(dead_code)]\nfn f() {}", "fn f() { std::thread::sleep(x) }", "#[ignore]\n#[test]\nfn f() {}"]
        {
            assert_eq!(found(bans, text), 1, "{text}");
            assert_eq!(found(bans, &format!("#[cfg(test)]\nmod tests {{ {text} }}")), 1, "{text}");
        }
        assert_eq!(found(bans, "// #[ignore]\nfn f() { say(\"thread::sleep\") }"), 0);
    }

    #[test]
    fn a_file_says_what_it_is_for_and_is_named_for_it() {
        assert_eq!(found(opening, "use x;\n"), 1);
        assert_eq!(found(opening, "//! What it is for.\n\nuse x;\n"), 0);
        assert_eq!(found(opening, &"//! More.\n".repeat(MAX_OPENING_LINES + 1)), 1);
        for bad in ["src/sink/mod.rs", "src/util.rs", "src/http_helpers.rs", "tests/it/common.rs"] {
            assert_eq!(name(bad).len(), 1, "{bad}");
        }
        assert!(name("src/sink/model.rs").is_empty());
    }
}
