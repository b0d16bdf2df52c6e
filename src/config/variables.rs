//! `${VAR}` and `${file:/run/secrets/x}` in option values. They are put in after the YAML was parsed, so that a value can
//! never change the structure of the file. Which files were named is remembered: what they hold belongs to the configuration.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use vigie_engine::diagnostic::Diagnostics;
use vigie_engine::yaml::Node;

use super::files::read_bounded;
use crate::options::{self, OptionSpec, Options, Unexpanded};

/// Largest secret file in bytes: a token or a key, never a document.
const MAX_SECRET_FILE_BYTES: u64 = 64 * 1024;

/// Where variables come from, and the files that were named so far.
pub struct Variables<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    files: RefCell<Vec<PathBuf>>,
}

impl<'a> Variables<'a> {
    /// Of an environment.
    #[must_use]
    pub fn new(variable: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { variable, files: RefCell::default() }
    }

    /// Puts variables in. `$${` stands for a literal `${`.
    ///
    /// # Errors
    /// Names the variable or file that is missing, and says how to mend it.
    pub fn expand(&self, text: &str) -> Result<String, Unexpanded> {
        let value = |name: &str| match name.strip_prefix("file:") {
            Some(path) => {
                self.files.borrow_mut().push(PathBuf::from(path));
                content(path)
            }
            None => of_environment(name, self.variable),
        };
        expand(text, &value)
    }

    /// Reads a driver's options, and remembers the files that they name.
    pub fn read(
        &self,
        node: &Node,
        what: &str,
        specs: &[OptionSpec],
        diagnostics: &mut Diagnostics,
    ) -> Option<Options> {
        let options = options::read(node, what, specs, &|text| self.expand(text), diagnostics)?;
        self.files.borrow_mut().extend(options.files().map(PathBuf::from));
        Some(options)
    }

    /// All files that were named.
    #[must_use]
    pub fn into_files(self) -> Vec<PathBuf> {
        self.files.into_inner()
    }
}

type Value<'a> = &'a dyn Fn(&str) -> Result<String, Unexpanded>;

fn expand(text: &str, value: Value<'_>) -> Result<String, Unexpanded> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        expanded.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            let hint = "close it with `}`; a literal `${` is written `$${`";
            return Err(Unexpanded { message: "has `${` without `}`".into(), hint });
        };
        expanded.push_str(&value(name.trim())?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn of_environment(name: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, Unexpanded> {
    let state = match variable(name) {
        Some(value) if !value.is_empty() => return Ok(value),
        Some(_) => "empty",
        None => "not set",
    };
    let message = format!("refers to the environment variable {name}, which is {state}");
    Err(Unexpanded { message, hint: "set it in the environment of the process" })
}

fn content(path: &str) -> Result<String, Unexpanded> {
    let refuse = |why: String| Unexpanded {
        message: format!("refers to the file {path}, which {why}"),
        hint: "put the value into a file that this user can read; the path counts from the working directory",
    };
    let unreadable = |error: std::io::Error| refuse(format!("cannot be read ({error})"));
    let Some(bytes) = read_bounded(Path::new(path), MAX_SECRET_FILE_BYTES).map_err(unreadable)? else {
        return Err(refuse(format!("is larger than {MAX_SECRET_FILE_BYTES} bytes")));
    };
    let content = String::from_utf8(bytes).map_err(|_| refuse("is not UTF-8".into()))?;
    let value = content.trim_end_matches(['\r', '\n']);
    if value.is_empty() {
        return Err(refuse("is empty".into()));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<&str, &str>) {
        let variable = |name: &str| match name {
            "KEY" => Some("k:{}'\"".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let got = Variables::new(&variable).expand(text);
        match expect {
            Ok(value) => assert_eq!(got, Ok(value.to_owned())),
            Err(part) => assert!(got.as_ref().is_err_and(|error| error.message.contains(part)), "{text}: {got:?}"),
        }
    }

    #[test]
    fn variables_are_put_in_or_named() {
        check("plain $5", Ok("plain $5"));
        check("a${KEY}b${ KEY }", Ok("ak:{}'\"bk:{}'\""));
        check("$${KEY}", Ok("${KEY}"));
        check("${MISSING}", Err("MISSING, which is not set"));
        check("${EMPTY}", Err("EMPTY, which is empty"));
        check("${KEY", Err("without `}`"));
        check("${file:/nonexistent/x}", Err("/nonexistent/x"));
    }

    #[test]
    fn a_file_gives_its_text_without_the_last_line_end() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), "s3cret\n").expect("written");
        let text = format!("${{file:{}}}", file.path().display());
        let variables = Variables::new(&|_| None);
        assert_eq!(variables.expand(&text), Ok("s3cret".to_owned()));
        std::fs::write(file.path(), "\n").expect("written");
        assert!(variables.expand(&text).is_err_and(|error| error.message.ends_with("is empty")));
        assert_eq!(variables.into_files(), [file.path(), file.path()]);
    }
}
