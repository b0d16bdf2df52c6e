//! A finding as text: place, code and sentence; the line with a caret under the place; the hint.
//!
//! Everything shown comes from files and goes to terminals, so it is made inert first. The caret stands under what it means
//! also behind tabs, escapes and wide characters, because the text before it is measured as shown.

use std::iter::repeat_n;

use super::{Diagnostic, Level};
use crate::text::single_line;

/// How much of the line is shown at most.
const MAX_SHOWN_CHARS: usize = 160;
/// How much of a long line is shown before the place.
const CONTEXT_CHARS: usize = 60;
/// Longest escape of one character: `\u{10ffff}`.
const MAX_ESCAPE_CHARS: usize = 10;
/// Longest sentence or hint: they may quote a key of any length.
const MAX_SENTENCE_CHARS: usize = 600;

impl Diagnostic {
    /// `path:line:column: error[CODE]: text`, the line with a caret, and the hint; ends with a line end.
    ///
    /// A finding about a file as a whole (an empty source line) shows no line.
    #[must_use]
    pub fn render(&self) -> String {
        let level = match self.level {
            Level::Error => "error",
            Level::Warning => "warning",
        };
        let path = single_line(&self.span.path, MAX_SENTENCE_CHARS);
        let message = single_line(&self.message, MAX_SENTENCE_CHARS);
        let mut shown = format!("{path}:{}:{}: {level}[{}]: {message}\n", self.span.line, self.span.column, self.code);
        if !self.source_line.trim().is_empty() {
            let (line, indent, width) = self.line_and_caret();
            let number = self.span.line.to_string();
            let gutter = " ".repeat(number.len());
            let (indent, carets) = (" ".repeat(indent), "^".repeat(width));
            shown.push_str(&format!(" {gutter} |\n {number} | {line}\n {gutter} | {indent}{carets}\n"));
        }
        if let Some(hint) = &self.hint {
            shown.push_str(&format!("hint: {}\n", single_line(hint, MAX_SENTENCE_CHARS)));
        }
        shown
    }

    /// The line as shown, how many columns stand before the caret, and how many the caret takes.
    fn line_and_caret(&self) -> (String, usize, usize) {
        let column_index = (self.span.column as usize).saturating_sub(1);
        let skipped = if column_index + CONTEXT_CHARS / 2 > MAX_SHOWN_CHARS { column_index - CONTEXT_CHARS } else { 0 };
        let window: Vec<char> = self.source_line.chars().skip(skipped).take(MAX_SHOWN_CHARS).collect();
        let start = (column_index - skipped).min(window.len());
        let end = (start + self.span.len_chars as usize).min(window.len());
        let safe = |part: &[char]| single_line(&part.iter().collect::<String>(), MAX_SHOWN_CHARS * MAX_ESCAPE_CHARS);
        let (before, marked, after) = (
            safe(window.get(..start).unwrap_or_default()),
            safe(window.get(start..end).unwrap_or_default()),
            safe(window.get(end..).unwrap_or_default()),
        );
        let cut_left = if skipped > 0 { "…" } else { "" };
        let is_cut_right = self.source_line.chars().count() > skipped + window.len();
        let cut_right = if is_cut_right { "…" } else { "" };
        let indent = columns(cut_left) + columns(&before);
        (format!("{cut_left}{before}{marked}{after}{cut_right}").trim_end().to_owned(), indent, columns(&marked).max(1))
    }
}

/// How many terminal columns a text takes: wide East Asian characters and emoji two, combining marks none (Unicode TR 11,
/// the blocks that matter; a terminal's own opinion differs anyway for the rest).
fn columns(text: &str) -> usize {
    text.chars().flat_map(|character| repeat_n((), width(character))).count()
}

fn width(character: char) -> usize {
    match character {
        '\u{300}'..='\u{36f}'
        | '\u{483}'..='\u{489}'
        | '\u{591}'..='\u{5bd}'
        | '\u{610}'..='\u{61a}'
        | '\u{64b}'..='\u{65f}'
        | '\u{1ab0}'..='\u{1aff}'
        | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{303e}'
        | '\u{3041}'..='\u{a4cf}'
        | '\u{a960}'..='\u{a97f}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff01}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1f64f}'
        | '\u{1f680}'..='\u{1f6ff}'
        | '\u{1f900}'..='\u{1f9ff}'
        | '\u{1fa70}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Diagnostics, SourceFile, Span};

    /// Renders one error at a place of a text.
    fn render(text: &str, line: u32, column: u32, len_chars: u32) -> String {
        let mut diagnostics = Diagnostics::default();
        diagnostics.add_file(SourceFile { path: "r.yaml".into(), text: text.into() });
        let span = Span { path: "r.yaml".into(), line, column, len_chars };
        diagnostics.error("E0299", &span, "bad", Some("mend it".into()));
        diagnostics.sorted()[0].render()
    }

    #[test]
    fn the_caret_stands_under_the_place() {
        assert_eq!(
            render("a: 1\nbc: twelve\n", 2, 5, 6),
            "r.yaml:2:5: error[E0299]: bad\n   |\n 2 | bc: twelve\n   |     ^^^^^^\nhint: mend it\n"
        );
    }

    #[test]
    fn tabs_wide_characters_and_escapes_are_measured_as_shown() {
        let underline = |text: &str, column: u32, len_chars: u32| -> (String, String) {
            let shown = render(text, 1, column, len_chars);
            let lines: Vec<&str> = shown.lines().collect();
            (lines[2].to_owned(), lines[3].to_owned())
        };
        let (line, caret) = underline("\ta: x", 5, 1);
        assert_eq!((line.as_str(), caret.as_str()), (" 1 |  a: x", "   |     ^"));
        let (line, caret) = underline("日本: xy", 5, 2);
        assert_eq!((line.as_str(), caret.as_str()), (" 1 | 日本: xy", "   |       ^^"));
        let (line, caret) = underline("e\u{301}: \u{1b}[2Jx", 5, 1);
        assert_eq!((line.as_str(), caret.as_str()), (" 1 | e\u{301}: \\u{1b}[2Jx", "   |    ^^^^^^"));
        let (_, caret) = underline("ab", 3, 9);
        assert_eq!(caret, "   |   ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}HERE{}", "x".repeat(1_000), "y".repeat(1_000));
        let shown = render(&text, 1, 1_001, 4);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[2].starts_with(" 1 | …xxx") && lines[2].ends_with("yyy…"), "{shown}");
        let place = lines[2].chars().position(|c| c == 'H').expect("the place is shown");
        assert_eq!(lines[3].chars().position(|c| c == '^'), Some(place));
        assert!(lines[2].chars().count() < 180);
    }

    #[test]
    fn a_place_outside_the_file_shows_no_line() {
        assert_eq!(render("a\n", 9, 9, 1), "r.yaml:9:9: error[E0299]: bad\nhint: mend it\n");
    }
}
