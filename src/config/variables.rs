//! `${VAR}` and `${file:/run/secrets/x}` in option values. They are put in after the YAML was parsed, so that a value can
//! never change the structure of the file.

/// Largest secret file in bytes: a token or a key, never a document.
const MAX_SECRET_FILE_BYTES: u64 = 64 * 1024;

/// Puts variables in. `$${` stands for a literal `${`.
///
/// # Errors
/// A sentence that names the variable or file that is missing.
pub fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
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
            return Err("has `${` without `}`".into());
        };
        expanded.push_str(&value(name.trim(), variable)?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn value(name: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let Some(path) = name.strip_prefix("file:") else {
        return match variable(name) {
            Some(value) if !value.is_empty() => Ok(value),
            Some(_) => Err(format!("refers to the environment variable {name}, which is empty")),
            None => Err(format!("refers to the environment variable {name}, which is not set")),
        };
    };
    let refuse = |error: std::io::Error| format!("refers to the file {path}, which cannot be read ({error})");
    let size_bytes = std::fs::metadata(path).map_err(refuse)?.len();
    if size_bytes > MAX_SECRET_FILE_BYTES {
        return Err(format!("refers to the file {path}, which is larger than {MAX_SECRET_FILE_BYTES} bytes"));
    }
    let content = std::fs::read_to_string(path).map_err(refuse)?;
    Ok(content.trim_end_matches(['\r', '\n']).to_owned())
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
        let got = expand(text, &variable);
        match expect {
            Ok(value) => assert_eq!(got.as_deref(), Ok(value)),
            Err(part) => assert!(got.as_ref().is_err_and(|error| error.contains(part)), "{text}: {got:?}"),
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
        assert_eq!(expand(&text, &|_| None).as_deref(), Ok("s3cret"));
    }
}
