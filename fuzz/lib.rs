//! What the targets share: a fixed time, and the promise that every finding stands inside its file.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use vigie_engine::diagnostic::{Diagnostics, SourceFile};

/// 2026-01-05T12:00:00Z, whatever the machine thinks.
#[must_use]
pub fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_614_400, 0).expect("a time within range")
}

/// A file with this text; `None` when it is no text, which never reaches a parser.
#[must_use]
pub fn file(path: &str, bytes: &[u8]) -> Option<SourceFile> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some(SourceFile { path: path.into(), text: Arc::from(text) })
}

/// Every finding has a text and a place in the file, and can be shown without a control character.
pub fn assert_places(diagnostics: &Diagnostics, file: &SourceFile) {
    let lines: Vec<&str> = file.text.split(['\n', '\r']).collect();
    for finding in diagnostics.sorted() {
        assert!(!finding.message.is_empty(), "{finding:?}");
        let span = &finding.span;
        if span.path == file.path {
            let line = usize::try_from(span.line).expect("a line number");
            assert!((1..=lines.len()).contains(&line), "{finding:?}: {} lines", lines.len());
            assert!(span.column >= 1 && span.len_chars >= 1, "{finding:?}");
            // A carriage return before a line feed counts once in YAML and twice here, so columns are compared with
            // the longest line.
            let longest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
            let column = usize::try_from(span.column).expect("a column number");
            assert!(column <= longest + 1, "{finding:?}: at most {longest} columns");
        }
        let shown = finding.render();
        assert!(shown.chars().all(|character| character == '\n' || !character.is_control()), "{shown:?}");
    }
}
