//! A diagnostic says what is wrong, where, and how to mend it.
//!
//! Loading never stops at the first mistake: every loader returns a value plus all diagnostics. This module never prints;
//! `render` gives the text that a terminal shows.

pub mod code;
mod render;

use std::sync::Arc;

use serde::Serialize;

/// How many findings a run keeps; one that makes more is broken as a whole, and the rest is only counted.
pub const MAX_FINDINGS: usize = 1_000;
/// How much of a line a finding keeps for the caret. A line may be as long as the file.
pub const MAX_SOURCE_LINE_CHARS: usize = 4_096;

/// How bad it is: an error stops the start, a warning does not (unless the user denies warnings).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth a look; the program starts.
    Warning,
    /// The input cannot be used.
    Error,
}

/// A file as it was read: the path as the user wrote it, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Path as shown to the user.
    pub path: Arc<str>,
    /// The whole text.
    pub text: Arc<str>,
}

/// A place in a file. Lines and columns count from 1, columns in characters; `len_chars` is what the caret underlines.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Span {
    /// Path as shown to the user.
    pub path: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// How many characters to underline, at least 1.
    pub len_chars: u32,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Stable code, such as `E0102`; never reused for something else.
    pub code: &'static str,
    /// Error or warning.
    pub level: Level,
    /// Where.
    pub span: Span,
    /// What is wrong, one sentence without a full stop, lower case.
    pub message: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The line of the file that `span` points into, for the caret.
    pub source_line: String,
}

/// All findings of a run, and the files they point into.
#[derive(Debug, Default)]
pub struct Diagnostics {
    files: Vec<SourceFile>,
    findings: Vec<Diagnostic>,
    omitted_errors: usize,
    omitted_warnings: usize,
}

impl Diagnostics {
    /// Makes a file's lines available to findings that point into it.
    pub fn add_file(&mut self, file: SourceFile) {
        if !self.files.contains(&file) {
            self.files.push(file);
        }
    }

    /// Adds an error.
    pub fn error(&mut self, code: &'static str, span: &Span, message: impl Into<String>, hint: Option<String>) {
        self.push(code, Level::Error, span, message.into(), hint);
    }

    /// Adds a warning.
    pub fn warning(&mut self, code: &'static str, span: &Span, message: impl Into<String>, hint: Option<String>) {
        self.push(code, Level::Warning, span, message.into(), hint);
    }

    /// The same finding twice (a bad value of a list that two rules use) is kept once.
    fn push(&mut self, code: &'static str, level: Level, span: &Span, message: String, hint: Option<String>) {
        if self.findings.iter().any(|known| known.code == code && known.span == *span && known.message == message) {
            return;
        }
        if self.findings.len() >= MAX_FINDINGS {
            match level {
                Level::Error => self.omitted_errors += 1,
                Level::Warning => self.omitted_warnings += 1,
            }
            return;
        }
        let file = self.files.iter().rev().find(|file| file.path == span.path);
        let line = file.map(|file| nth_line(&file.text, span.line)).unwrap_or_default();
        let source_line = line.chars().take(MAX_SOURCE_LINE_CHARS).collect();
        self.findings.push(Diagnostic { code, level, span: span.clone(), message, hint, source_line });
    }

    /// All findings, by file, line and column.
    #[must_use]
    pub fn sorted(&self) -> Vec<&Diagnostic> {
        let mut all: Vec<&Diagnostic> = self.findings.iter().collect();
        all.sort_by_key(|finding| (&finding.span.path, finding.span.line, finding.span.column));
        all
    }

    /// Whether anything found stops the start.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.omitted_errors > 0 || self.findings.iter().any(|finding| finding.level == Level::Error)
    }

    /// Whether there are warnings.
    #[must_use]
    pub fn has_warnings(&self) -> bool {
        self.omitted_warnings > 0 || self.findings.iter().any(|finding| finding.level == Level::Warning)
    }

    /// How many findings there are, kept or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.findings.len() + self.omitted()
    }

    /// How many findings came after the first [`MAX_FINDINGS`] and are not kept.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted_errors + self.omitted_warnings
    }

    /// All findings as a terminal shows them, each followed by an empty line.
    #[must_use]
    pub fn render(&self) -> String {
        let mut shown: String = self.sorted().into_iter().map(|finding| finding.render() + "\n").collect();
        if self.omitted() > 0 {
            shown.push_str(&format!("{} more findings are not shown\n", self.omitted()));
        }
        shown
    }
}

/// The line with this number, from 1, without its end. YAML counts a lone carriage return as a line end too.
fn nth_line(text: &str, number: u32) -> &str {
    let mut rest = text;
    for _ in 1..number {
        let Some(end) = rest.find(['\n', '\r']) else {
            return "";
        };
        let (_, after) = rest.split_at(end);
        rest = after.strip_prefix("\r\n").or_else(|| after.strip_prefix(['\n', '\r'])).unwrap_or_default();
    }
    rest.split(['\n', '\r']).next().unwrap_or_default()
}

/// The nearest of `known` to `given`, if it is near enough to be a slip of the finger.
#[must_use]
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given_lower = given.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&given_lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.chars().count().min(12) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_as_in_yaml() {
        let text = "a\r\nb\rc\n\nd";
        let lines: Vec<&str> = (1..=7).map(|number| nth_line(text, number)).collect();
        assert_eq!(lines, ["a", "b", "c", "", "d", "", ""]);
    }

    #[test]
    fn findings_are_bounded_and_none_is_forgotten() {
        let mut diagnostics = Diagnostics::default();
        let span = Span { path: "r.yaml".into(), line: 1, column: 1, len_chars: 1 };
        for number in 0..MAX_FINDINGS {
            diagnostics.warning("W0201", &span, format!("w{number}"), None);
            diagnostics.warning("W0201", &span, format!("w{number}"), None);
        }
        assert!(!diagnostics.has_errors());
        diagnostics.error("E0201", &span, "e", None);
        assert!(diagnostics.has_errors());
        assert_eq!((diagnostics.sorted().len(), diagnostics.omitted()), (MAX_FINDINGS, 1));
        assert!(diagnostics.render().ends_with("1 more findings are not shown\n"));
    }

    #[test]
    fn near_names_are_suggested() {
        assert_eq!(nearest("contain", ["contains", "endswith"]), Some("contains"));
        assert_eq!(nearest("Severty", ["severity", "title"]), Some("severity"));
        assert_eq!(nearest("xyz", ["severity", "title"]), None);
    }
}
