//! A rule file of any content: rules, or findings with places; what loads without errors can be tested and run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vigie_engine::diagnostic::Diagnostics;
use vigie_engine::rule::{self, check};
use vigie_fuzz::{assert_places, file};

fuzz_target!(|data: &[u8]| {
    let Some(file) = file("rules.yaml", data) else { return };
    let mut diagnostics = Diagnostics::default();
    let mut no_lists = |_: &str, _: &str| Err("there are no list files".to_owned());
    let set = rule::load(std::slice::from_ref(&file), &mut no_lists, &mut diagnostics);
    if !diagnostics.has_errors() {
        for rule in &set.rules {
            assert!(!rule.id.is_empty() && rule.span.path == file.path);
            let results = check::run_tests(rule);
            assert_eq!(results.len(), rule.tests.len());
            check::failures_as_diagnostics(&results, &mut diagnostics);
        }
    }
    assert_places(&diagnostics, &file);
});
