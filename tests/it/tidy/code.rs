//! Rust text as the checks see it: comments and the insides of literals blanked, test items cut out.
//!
//! It knows just enough of the language for that (no macro is expanded, nothing is resolved); line numbers stay true.

/// A source file.
#[derive(Debug)]
pub(super) struct File {
    /// From the root of the workspace, with `/`.
    pub(super) path: String,
    /// As it is.
    pub(super) text: String,
    /// Comments and insides of literals blanked, same lines.
    pub(super) code: String,
    /// `code` without items under `#[cfg(test)]`; empty for a file that only tests use.
    pub(super) production: String,
    /// Modules that are declared under `#[cfg(test)]`.
    pub(super) test_modules: Vec<String>,
}

impl File {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let code = blank(text);
        let (production, test_modules) = without_tests(&code);
        Self { path: path.to_owned(), text: text.to_owned(), code, production, test_modules }
    }

    /// For a module that is declared under `#[cfg(test)]`, or a file below `tests/`.
    pub(super) fn test_only(&mut self) {
        self.production = String::new();
    }
}

/// Blanks comments, and fills literals with `_`, so that braces and words in the rest mean what they say.
fn blank(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&character) = characters.get(at) {
        let rest = characters.get(at..).unwrap_or_default();
        let (length, fill) = match character {
            '/' if rest.starts_with(&['/', '/']) => (rest.iter().take_while(|c| **c != '\n').count(), ' '),
            '/' if rest.starts_with(&['/', '*']) => (block_comment(rest), ' '),
            '"' => (quoted(rest), '_'),
            'r' | 'b' if !out.ends_with(is_word) && raw_string(rest).is_some() => (raw_string(rest).unwrap_or(1), '_'),
            '\'' if rest.get(1) == Some(&'\\') => {
                (2 + rest.iter().skip(2).skip(1).take_while(|c| **c != '\'').count() + 2, '_')
            }
            '\'' if rest.get(2) == Some(&'\'') => (3, '_'),
            _ => (1, character),
        };
        out.extend(rest.iter().take(length).map(|c| if *c == '\n' { '\n' } else { fill }));
        at += length;
    }
    out
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let pair = rest.get(at..at + 2).unwrap_or_default();
        match pair {
            ['/', '*'] => (depth, at) = (depth + 1, at + 2),
            ['*', '/'] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[char]) -> usize {
    let mut at = 1;
    while let Some(character) = rest.get(at) {
        match character {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// Length of `r"..."`, `r#"..."#`, `br"..."`; `None` when it is none of these.
fn raw_string(rest: &[char]) -> Option<usize> {
    let prefix = rest.iter().take_while(|c| matches!(c, 'b' | 'r')).count();
    if prefix > 2 || rest.get(prefix - 1) != Some(&'r') {
        return None;
    }
    let hashes = rest.iter().skip(prefix).take_while(|c| **c == '#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let inside = rest.get(open + 1..)?.windows(end.len()).position(|window| window == end)?;
    Some(open + 1 + inside + end.len())
}

/// Cuts every item under `#[cfg(test)]`; gives what is left and the names of modules that stand in files of their own.
fn without_tests(code: &str) -> (String, Vec<String>) {
    const MARK: &str = "#[cfg(test)]";
    let mut left = String::new();
    let mut modules = Vec::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once(MARK) {
        left.push_str(before);
        let length = item_length(after);
        let (item, following) = after.split_at(length);
        if let Some((_, name)) = item.trim().trim_end_matches(';').split_once("mod ")
            && item.trim().ends_with(';')
        {
            modules.push(name.trim().to_owned());
        }
        rest = following;
    }
    left.push_str(rest);
    (left, modules)
}

/// Bytes up to the end of the first item: its closing brace or its semicolon.
fn item_length(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, character) in code.char_indices() {
        match character {
            '{' | '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// A function: its name, the line where it begins, lines of code between its braces, and the attributes before it.
#[derive(Debug)]
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    pub(super) line: usize,
    pub(super) body_lines: usize,
    pub(super) attributes: &'a str,
}

/// Functions with bodies; nested ones too.
pub(super) fn functions(code: &str) -> Vec<Function<'_>> {
    let starts = code.match_indices("fn ").filter(|(at, _)| !code[..*at].ends_with(is_word));
    let found = starts.filter_map(|(at, mark)| {
        let rest = &code[at + mark.len()..];
        let name = &rest[..rest.find(|c| !is_word(c))?];
        let body = &rest[..item_length(rest)];
        let body = body.strip_suffix('}')?.split_once('{')?.1;
        let before = &code[..at];
        let attributes = &before[before.rfind([';', '{', '}']).map_or(0, |end| end + 1)..];
        let body_lines = body.lines().filter(|line| !line.trim().is_empty()).count();
        Some(Function { name, line: before.lines().count().max(1), body_lines, attributes })
    });
    found.filter(|function| !function.name.is_empty()).collect()
}

/// Paths that begin with `crate` or `super`, in `use` trees and elsewhere, resolved against the module they stand in.
pub(super) fn paths(code: &str, module: &[&str]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            if code[..at].ends_with(|c: char| is_word(c) || c == ':') {
                continue;
            }
            let mut tail = &code[at..];
            let mut base: Vec<String> = Vec::new();
            if root != "crate::" {
                base = module.iter().map(|name| (*name).to_owned()).collect();
            }
            while let Some(rest) = tail.strip_prefix("super::") {
                base.pop();
                tail = rest;
            }
            let tail = tail.strip_prefix("crate::").or_else(|| tail.strip_prefix("self::")).unwrap_or(tail);
            branches(tail, &base, &mut found);
        }
    }
    found
}

/// Follows one `use` tree (or a plain path) and gives its leaves; returns how many bytes it took.
fn branches(text: &str, base: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = base.to_vec();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        if let Some(group) = rest.strip_prefix('{') {
            at += 1 + group_length(group, &path, found);
            return at;
        }
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if length == 0 {
            found.push(path);
            return at;
        }
        path.push(rest[..length].to_owned());
        at += length;
        if !text[at..].starts_with("::") {
            found.push(path);
            return at;
        }
        at += 2;
    }
}

fn group_length(group: &str, path: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut at = 0;
    while let Some(character) = group[at..].chars().next() {
        match character {
            '}' => return at + 1,
            c if is_word(c) => {
                at += branches(&group[at..], path, found);
                // ` as name` belongs to the branch that was just read.
                at += group[at..].find([',', '}']).unwrap_or(0);
            }
            _ => at += character.len_utf8(),
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        let text =
            "let a = \"}}\\\"{\"; // {\nlet b = r#\"\"{\"#; /* { /* { */ */ let c = '{'; let d = '\\''; fn e<'a>() {}";
        let code = blank(text);
        assert_eq!(code.matches('{').count(), 1, "{code}");
        assert_eq!((code.lines().count(), code.chars().count()), (text.lines().count(), text.chars().count()));
        assert!(code.ends_with("fn e<'a>() {}"), "{code}");
    }

    #[test]
    fn test_items_are_cut_wherever_they_stand() {
        let text = "#[cfg(test)]\nmod contract;\nfn a() {}\n#[cfg(test)]\nfn b() { if x {} }\nfn c() {}\n#[cfg(test)]\nmod tests {\n fn d() {}\n}\n";
        let file = File::new("x.rs", text);
        assert_eq!(file.test_modules, ["contract"]);
        let names: Vec<&str> = functions(&file.production).iter().map(|function| function.name).collect();
        assert_eq!(names, ["a", "c"]);
    }

    #[test]
    fn use_trees_and_plain_paths_are_resolved() {
        let code = "use crate::{sink::{self, email as mail}, store};\nuse super::http;\nfn f() -> super::super::Page { crate::clock::now() }";
        let mut found: Vec<String> = paths(code, &["sink", "slack"]).iter().map(|path| path.join("::")).collect();
        found.sort();
        assert_eq!(found, ["Page", "clock::now", "sink::email", "sink::http", "sink::self", "store"]);
    }
}
