//! Pages against the tree: what they must name, and how long they may be.

/// A page that is longer is not read.
const MAX_ARCHITECTURE_LINES: usize = 150;

/// Too long, or silent about a module.
pub(super) fn architecture(page: &str, modules: &[String]) -> Vec<String> {
    let lines = page.lines().count();
    let mut found = unnamed(page, modules);
    if lines > MAX_ARCHITECTURE_LINES {
        found.push(format!("{lines} lines, at most {MAX_ARCHITECTURE_LINES}"));
    }
    found
}

/// Words that stand nowhere on the page.
pub(super) fn unnamed(page: &str, words: &[String]) -> Vec<String> {
    let named: Vec<&str> = page.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
    words.iter().filter(|word| !named.contains(&word.as_str())).cloned().collect()
}

/// Without a place for what comes next, or with an empty one.
pub(super) fn changelog(page: &str) -> Vec<String> {
    let section = page.split("\n## Unreleased\n").nth(1).map(|rest| rest.split("\n## ").next().unwrap_or_default());
    match section {
        None => vec!["no section `## Unreleased`".to_owned()],
        Some(text) if text.trim().is_empty() => vec!["`## Unreleased` is empty".to_owned()],
        Some(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_forgot_a_module_or_grew_is_found() {
        let modules = ["sink".to_owned(), "clock".to_owned()];
        assert!(architecture("sink/* and `clock.rs`", &modules).is_empty());
        assert_eq!(architecture("sinks and clockwork", &modules).len(), 2);
        assert_eq!(architecture(&"sink clock\n".repeat(MAX_ARCHITECTURE_LINES + 1), &modules).len(), 1);
    }

    #[test]
    fn a_changelog_needs_an_unreleased_section_with_something_in_it() {
        assert_eq!(changelog("# Changelog\n\n## 0.1.0\n- x\n").len(), 1);
        assert_eq!(changelog("# Changelog\n\n## Unreleased\n\n## 0.1.0\n- x\n").len(), 1);
        assert!(changelog("# Changelog\n\n## Unreleased\n- x\n").is_empty());
    }
}
