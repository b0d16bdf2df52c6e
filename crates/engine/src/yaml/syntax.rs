//! Syntax errors in the words of who wrote the file: what is wrong, where, and what usually mends it.
//!
//! The parser's own sentences name grammar productions; the kinds that people really meet get a sentence of their own here.

use std::sync::Arc;

use serde_yaml::granit_parser::{ErrorKind, Marker, ScanError};

use crate::diagnostic::{SourceFile, Span};

const INDENT: &str = "keys of one map begin in the same column, and deeper levels are indented with spaces";
const TABS: &str = "YAML indents with spaces only: replace the tab by spaces";
const QUOTE: &str = "put the text in quotes";
const COLON: &str = "text that contains `: ` needs quotes; a nested map begins on a line of its own";
const CLOSE: &str = "close it with the matching bracket; text that contains brackets needs quotes";

/// Place, sentence and hint of a syntax error.
pub(super) fn explain(error: &ScanError, file: &SourceFile) -> (Span, String, Option<String>) {
    let span = within(span(&file.path, error.marker(), 1), &file.text);
    if let Some(span) = tab_near(&span, error.kind(), &file.text) {
        return (span, "a tab stands where YAML wants spaces".into(), Some(TABS.into()));
    }
    let (message, hint): (String, &str) = match error.kind() {
        ErrorKind::MappingValueNotAllowed => ("a second `: ` on this line, or wrong indentation".into(), COLON),
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation | ErrorKind::MappingKeyNotAllowed => {
            ("this line does not fit the indentation before it".into(), INDENT)
        }
        ErrorKind::ExpectedBlockSequenceEntry => ("a list goes on here without `-`".into(), INDENT),
        ErrorKind::BlockSequenceEntryNotAllowed => ("a list item `- ` cannot begin here".into(), INDENT),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            ("a `:` with a space after it is missing".into(), "a map entry is written `key: value`")
        }
        ErrorKind::UnexpectedCharacter { character } => {
            (format!("text cannot begin with `{}`", character.escape_default()), QUOTE)
        }
        ErrorKind::UnclosedQuotedScalar | ErrorKind::DocumentIndicatorInQuotedScalar => {
            ("a quote is not closed".into(), "close it; inside '...' a quote is written ''")
        }
        ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
            ("something follows the closing quote".into(), "quote the whole text; inside '...' a quote is written ''")
        }
        ErrorKind::UnknownQuotedScalarEscape => (
            "an unknown escape in double quotes".into(),
            "in '...' a backslash is a plain character: good for patterns",
        ),
        ErrorKind::UnclosedFlowCollection { open } => (format!("the bracket `{open}` is not closed"), CLOSE),
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            (format!("the bracket `{open}` is closed by `{close}`"), CLOSE)
        }
        ErrorKind::UnexpectedEofFlowSequence | ErrorKind::ExpectedFlowSequenceSeparator => {
            ("a list `[...]` wants `,` or `]` here".into(), CLOSE)
        }
        ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::ExpectedFlowMappingSeparator => ("a map `{...}` wants `,` or `}` here".into(), CLOSE),
        ErrorKind::MisplacedFlowCollectionEnd => ("a closing bracket without an opening one".into(), QUOTE),
        ErrorKind::InvalidColonPlacement => {
            ("a `:` cannot stand here: is a bracket before it left open?".into(), CLOSE)
        }
        ErrorKind::RecursionLimitExceeded => ("lists and maps are nested too deeply".into(), "flatten the value"),
        ErrorKind::MissingAnchorOrAliasName => ("`*` and `&` have a meaning in YAML".into(), QUOTE),
        kind => (kind.to_string(), "text with a special meaning in YAML needs quotes"),
    };
    (span, message, Some(hint.into()))
}

/// A place of the parser (lines from 1, columns from 0) as one of ours.
pub(super) fn span(path: &Arc<str>, start: &Marker, len_chars: usize) -> Span {
    Span {
        path: Arc::clone(path),
        line: u32::try_from(start.line()).unwrap_or(u32::MAX).max(1),
        column: u32::try_from(start.col()).unwrap_or(u32::MAX).saturating_add(1),
        len_chars: u32::try_from(len_chars).unwrap_or(u32::MAX),
    }
}

/// Moves a place behind the last line to the end of that line, where there is something to see, and one behind the end of
/// its line to that: the parser counts on where it has looked ahead over the end.
fn within(mut span: Span, text: &str) -> Span {
    let text = text.replace("\r\n", "\n");
    let mut lines: Vec<&str> = text.split(['\n', '\r']).collect();
    if lines.len() > 1 && lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    let end = |line: &str| u32::try_from(line.chars().count()).unwrap_or(u32::MAX).saturating_add(1);
    match lines.get((span.line as usize).saturating_sub(1)) {
        Some(own) => span.column = span.column.min(end(own)),
        None => {
            span.line = u32::try_from(lines.len()).unwrap_or(u32::MAX).max(1);
            span.column = end(lines.last().copied().unwrap_or_default());
        }
    }
    span
}

fn is_tab(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabInPlainScalar
            | ErrorKind::TabAtBlockScalarStart
    )
}

/// The tab that indents the line of an error or the next one (a value that goes on there began on the line before).
fn tab_near(span: &Span, kind: &ErrorKind, text: &str) -> Option<Span> {
    let indents = text.lines().enumerate().skip((span.line as usize).saturating_sub(1)).take(2);
    let mut tabs = indents.filter_map(|(index, line)| {
        let column = line.chars().take_while(|character| character.is_whitespace()).position(|c| c == '\t')?;
        let (line, column) = (u32::try_from(index).ok()?, u32::try_from(column).ok()?);
        Some(Span { path: Arc::clone(&span.path), line: line + 1, column: column + 1, len_chars: 1 })
    });
    match tabs.next() {
        Some(tab) if tab.line == span.line || is_tab(kind) => Some(tab),
        _ => is_tab(kind).then(|| span.clone()),
    }
}
