//! A diagnostic says what is wrong, where, and how to mend it.
//!
//! Loading never stops at the first mistake: every loader returns a value plus all diagnostics. This module never prints;
//! `render` gives the text that a terminal shows.

pub mod code;

use std::sync::Arc;

use serde::Serialize;

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

    fn push(&mut self, code: &'static str, level: Level, span: &Span, message: String, hint: Option<String>) {
        let file = self.files.iter().find(|file| file.path == span.path);
        let line_index = (span.line as usize).saturating_sub(1);
        let source_line = file.and_then(|file| file.text.lines().nth(line_index)).unwrap_or_default().to_owned();
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
        self.findings.iter().any(|finding| finding.level == Level::Error)
    }

    /// Whether there are warnings.
    #[must_use]
    pub fn has_warnings(&self) -> bool {
        self.findings.iter().any(|finding| finding.level == Level::Warning)
    }
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
