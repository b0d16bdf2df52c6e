//! A configuration of any content, without an environment: a meaning, or findings with places; never both missing.
#![no_main]

use std::sync::{Arc, Mutex};

use libfuzzer_sys::fuzz_target;
use vigie::clock::TokioClock;
use vigie::config::{Surroundings, load_files};
use vigie::{sink, source};
use vigie_engine::diagnostic::Diagnostics;
use vigie_fuzz::{assert_places, file, noon};

/// Relative to a directory that does not exist, so that `rules:` reads nothing of the machine.
const PATH: &str = "nonexistent/vigie.yaml";

fuzz_target!(|data: &[u8]| {
    let Some(file) = file(PATH, data) else { return };
    // Only absolute paths and `..` could leave that directory.
    if leaves_the_directory(&file.text) {
        return;
    }
    let clock = Arc::new(TokioClock::starting_at(noon()));
    let surroundings = Surroundings {
        variable: &|_| None,
        sinks: sink::BuildContext::new(clock.clone(), Arc::new(Mutex::new(std::io::sink())), false),
        sources: source::BuildContext { clock },
    };
    let mut diagnostics = Diagnostics::default();
    let config = load_files(std::slice::from_ref(&file), &surroundings, &mut diagnostics);
    assert!(config.is_some() || diagnostics.has_errors(), "refused without a reason");
    assert_places(&diagnostics, &file);
});

fn leaves_the_directory(text: &str) -> bool {
    let starts_a_path = |before: Option<char>| !before.is_some_and(|c| c.is_ascii_alphanumeric() || "/:.".contains(c));
    let mut before = None;
    for character in text.chars() {
        if (character == '/' && starts_a_path(before)) || (character == '.' && before == Some('.')) {
            return true;
        }
        before = Some(character);
    }
    // An escape in double quotes, or a path behind `file:`, may spell a slash.
    text.contains("file:") || text.contains('\\')
}
