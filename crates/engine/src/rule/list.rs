//! Named lists of values: `lists: {offices: [10.0.0.0/8], staff: {file: staff.txt}}`, used as `$offices`.
//!
//! Lists belong to all files of a run together. A list that cannot be read is reported once, at its definition; its users
//! are then silent. An empty list is an error of whoever uses it: a rule must never be silently wide open or silent.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::condition::Literal;
use crate::diagnostic::{Diagnostics, SourceFile, Span, code, nearest};
use crate::rule::value;
use crate::yaml::Node;
use crate::yaml::fields::{Fields, text_of, wrong_kind};

/// Most values of one list: address lists of threat feeds have tens of thousands.
pub const MAX_LIST_VALUES: usize = 100_000;
/// Longest text of a list file in bytes.
pub const MAX_LIST_BYTES: usize = 8 * 1024 * 1024;
/// Longest name of a list.
const MAX_NAME_CHARS: usize = 64;

/// Reads the file of a list: its path as written, and the path of the file that names it.
pub type ReadList<'a> = dyn FnMut(&str, &str) -> Result<String, String> + 'a;

/// All lists of a run.
#[derive(Debug, Default)]
pub struct Lists {
    by_name: BTreeMap<String, List>,
}

/// One list.
#[derive(Debug)]
struct List {
    span: Span,
    /// `None` when it could not be read, which was reported.
    values: Option<Vec<(Literal, Span)>>,
    is_used: Cell<bool>,
}

/// What a `$name` stands for.
pub(crate) enum Lookup<'a> {
    /// Its values, each with its place.
    Values(&'a [(Literal, Span)]),
    /// Reported.
    Unusable,
}

impl Lists {
    /// Warns about each list that nothing has used so far. Call it when everything that may use lists is loaded.
    pub fn report_unused(&self, diagnostics: &mut Diagnostics) {
        for (name, list) in self.by_name.iter().filter(|(_, list)| !list.is_used.get()) {
            let hint = format!("use it as `${name}` in a condition, or remove it");
            diagnostics.warning(code::UNUSED_LIST, &list.span, format!("nothing uses the list `{name}`"), Some(hint));
        }
    }

    fn mark_used(&self, name: &str) {
        if let Some(list) = self.by_name.get(name) {
            list.is_used.set(true);
        }
    }

    /// Adds the lists of a `lists:` map.
    pub(crate) fn add(&mut self, node: &Node, read_list: &mut ReadList<'_>, diagnostics: &mut Diagnostics) {
        let Some(fields) = Fields::open(node, "`lists`", diagnostics) else {
            return;
        };
        for (key, node) in fields.entries() {
            if reference(&format!("${}", key.text)) != Some(&key.text) {
                let hint =
                    format!("use a letter, then letters, digits, `_` or `-`, at most {MAX_NAME_CHARS} characters");
                diagnostics.error(code::BAD_LIST, &key.span, format!("`{}` is no list name", key.text), Some(hint));
                continue;
            }
            if let Some(first) = self.by_name.get(&key.text) {
                let message = format!("the list `{}` is already defined at {}", key.text, place(&first.span));
                diagnostics.error(
                    code::DUPLICATE_LIST,
                    &key.span,
                    message,
                    Some("rename or remove one of them".into()),
                );
                continue;
            }
            let values = values(&key.text, node, read_list, diagnostics);
            let list = List { span: key.span.clone(), values, is_used: Cell::new(false) };
            self.by_name.insert(key.text.clone(), list);
        }
    }

    /// Finds the list that a condition names at `span`.
    pub(crate) fn look_up(&self, name: &str, span: &Span, diagnostics: &mut Diagnostics) -> Lookup<'_> {
        let Some(list) = self.by_name.get(name) else {
            let hint = match nearest(name, self.by_name.keys().map(String::as_str)) {
                Some(near) => {
                    self.mark_used(near);
                    format!("did you mean `${near}`?")
                }
                None => {
                    format!("define it: `lists: {{{name}: [...]}}`; text that begins with `$` is written `\\${name}`")
                }
            };
            diagnostics.error(code::UNKNOWN_LIST, span, format!("there is no list `{name}`"), Some(hint));
            return Lookup::Unusable;
        };
        self.mark_used(name);
        match list.values.as_deref() {
            None => Lookup::Unusable,
            Some([]) => {
                let message = format!("the list `{name}`, defined at {}, is empty", place(&list.span));
                let hint = "fill it, or remove this condition: an empty list would match everything or nothing";
                diagnostics.error(code::EMPTY_LIST, span, message, Some(hint.into()));
                Lookup::Unusable
            }
            Some(values) => Lookup::Values(values),
        }
    }
}

/// The list name in `$name`; `None` when the text is no reference (`$5.00`, `\$name`, `^a$`).
pub(crate) fn reference(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        && name.len() <= MAX_NAME_CHARS;
    is_name.then_some(name)
}

fn place(span: &Span) -> String {
    format!("{}:{}:{}", span.path, span.line, span.column)
}

fn values(
    name: &str,
    node: &Node,
    read_list: &mut ReadList<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<(Literal, Span)>> {
    if let Some(items) = node.items() {
        return Some(items.iter().filter_map(|item| inline_value(name, item, diagnostics)).collect());
    }
    if node.is_null() {
        return Some(Vec::new());
    }
    if node.entries().is_none() {
        let hint = "write `[value, value]`, or `{file: path}` for a file with one value a line";
        wrong_kind(node, &format!("the list `{name}`"), "a list", hint, diagnostics);
        return None;
    }
    let fields = Fields::of(node, "a list from a file", &["file"], diagnostics)?;
    let file_node = fields.required("file", diagnostics)?;
    let path = text_of(file_node, "file", diagnostics)?;
    let text = match read_list(path, &node.span.path) {
        Ok(text) if text.len() > MAX_LIST_BYTES => {
            Err(format!("it has {} bytes; at most {MAX_LIST_BYTES} are read", text.len()))
        }
        other => other,
    };
    match text {
        Ok(text) => file_values(name, path, text, file_node, diagnostics),
        Err(problem) => {
            let message = format!("the file `{path}` of the list `{name}` cannot be read: {problem}");
            let hint = "the path counts from the folder of the file that names it";
            diagnostics.error(code::UNREADABLE_LIST, &file_node.span, message, Some(hint.into()));
            None
        }
    }
}

fn inline_value(name: &str, item: &Node, diagnostics: &mut Diagnostics) -> Option<(Literal, Span)> {
    let what = format!("a value of the list `{name}`");
    let literal = value::literal(item, &what, diagnostics)?;
    match &literal {
        Literal::Text(text) if reference(text).is_some() => {
            let hint = "name both lists where they are used: `field: [$a, $b]`";
            let message = format!("the list `{name}` refers to the list `{text}`; lists hold values only");
            diagnostics.error(code::NESTED_LIST, &item.span, message, Some(hint.into()));
            None
        }
        Literal::Null => {
            let hint = "write `null` into the condition itself: `field: [$list, null]`";
            let message = format!("the list `{name}` holds `null`");
            diagnostics.error(code::BAD_LIST, &item.span, message, Some(hint.into()));
            None
        }
        Literal::Text(text) if fits_everything(text) => {
            report_wide_open(name, text, &item.span, diagnostics);
            None
        }
        _ => Some((literal, item.span.clone())),
    }
}

/// A list with such a value says the same of every event, as an empty one does.
fn fits_everything(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte == b'*')
}

fn report_wide_open(name: &str, text: &str, span: &Span, diagnostics: &mut Diagnostics) {
    let message = format!("the list `{name}` holds `{text}`, which fits everything");
    let hint = "remove it: a condition on this list would hold for every event or for none".to_owned();
    diagnostics.error(code::BAD_LIST, span, message, Some(hint));
}

/// One value a line; what follows a `#` at the start of a line or after white space is a comment.
fn file_values(
    name: &str,
    path: &str,
    text: String,
    file_node: &Node,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<(Literal, Span)>> {
    let shown_path: Arc<str> = beside(path, &file_node.span.path).into();
    let file = SourceFile { path: Arc::clone(&shown_path), text: text.into() };
    diagnostics.add_file(file.clone());
    let mut values = Vec::new();
    for (index, line) in file.text.trim_start_matches('\u{feff}').lines().enumerate() {
        let value = without_comment(line).trim();
        if value.is_empty() {
            continue;
        }
        if values.len() == MAX_LIST_VALUES {
            let message = format!("the file `{path}` of the list `{name}` has more than {MAX_LIST_VALUES} values");
            let hint = "split it into several lists";
            diagnostics.error(code::UNREADABLE_LIST, &file_node.span, message, Some(hint.into()));
            return None;
        }
        let column = line.chars().take_while(|character| character.is_whitespace()).count() + 1;
        let span = Span {
            path: Arc::clone(&shown_path),
            line: u32::try_from(index + 1).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
            len_chars: u32::try_from(value.chars().count()).unwrap_or(u32::MAX),
        };
        if fits_everything(value) {
            report_wide_open(name, value, &span, diagnostics);
            continue;
        }
        values.push((value::plain(value), span));
    }
    Some(values)
}

/// The path of a list file as seen from where the path of the naming file is seen from.
fn beside(path: &str, naming_path: &str) -> String {
    match naming_path.rsplit_once('/') {
        Some((folder, _)) if !path.starts_with('/') => format!("{folder}/{path}"),
        _ => path.to_owned(),
    }
}

fn without_comment(line: &str) -> &str {
    let mut previous = ' ';
    for (index, character) in line.char_indices() {
        if character == '#' && previous.is_whitespace() {
            return line.get(..index).unwrap_or(line);
        }
        previous = character;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_references() {
        assert_eq!(reference("$allowed_countries"), Some("allowed_countries"));
        for text in ["allowed", "$", "$5.00", "\\$x", "$a b", "$$a"] {
            assert_eq!(reference(text), None, "{text}");
        }
    }

    #[test]
    fn comments_end_a_line() {
        assert_eq!(without_comment("# all"), "");
        assert_eq!(without_comment("10.0.0.0/8 # office"), "10.0.0.0/8 ");
        assert_eq!(without_comment("a#b"), "a#b");
    }
}
