//! What will be written: the account's variables, the chosen sinks with their options, and who is woken by what.
//!
//! The options are those of a kind's example, so that whatever is chosen loads. No value of a secret ever stands here.

use vigie_engine::rule::Severity;

use crate::options::OptionKind;
use crate::sink::SinkKind;

/// Kinds that wake a person.
const PAGERS: &[&str] = &["pagerduty"];
/// Longest name of a variable; shells take more, people do not.
const MAX_VARIABLE_CHARS: usize = 64;

pub(super) struct Draft {
    pub(super) key_variable: String,
    pub(super) secret_variable: String,
    pub(super) sinks: Vec<Chosen>,
    pub(super) pager_severities: Vec<Severity>,
}

/// A sink that was chosen.
pub(super) struct Chosen {
    pub(super) kind: &'static SinkKind,
    pub(super) entries: Vec<Entry>,
}

/// One of its options.
pub(super) struct Entry {
    pub(super) name: &'static str,
    /// As YAML; variables by name.
    pub(super) value: String,
    pub(super) kind: Option<OptionKind>,
    pub(super) help: &'static str,
    /// Still that of the example.
    pub(super) is_example: bool,
}

/// A variable that the configuration reads.
pub(super) struct Variable {
    pub(super) name: String,
    /// Of the option that it stands in, where it is the whole of it.
    pub(super) kind: Option<OptionKind>,
    /// Where it is read.
    pub(super) place: String,
}

impl Chosen {
    /// With the options of the kind's example.
    pub(super) fn of(kind: &'static SinkKind) -> Self {
        let specs = kind.specs();
        let lines = kind.example.lines().skip(2).filter_map(|line| line.trim().split_once(": "));
        let entry = |(name, value): (&'static str, &'static str)| {
            let spec = specs.iter().find(|spec| spec.name == name);
            let (kind, help) = (spec.map(|spec| spec.kind), spec.map_or("", |spec| spec.help));
            Entry { name, value: value.to_owned(), kind, help, is_example: true }
        };
        Self { kind, entries: lines.map(entry).collect() }
    }

    fn is_pager(&self) -> bool {
        PAGERS.contains(&self.kind.kind)
    }

    fn yaml(&self) -> String {
        let kind = self.kind.kind;
        let options = self.entries.iter().map(|entry| format!("      {}: {}\n", entry.name, entry.value));
        match self.entries.is_empty() {
            true => format!("  {kind}: {{{kind}: {{}}}}\n"),
            false => format!("  {kind}:\n    {kind}:\n{}", options.collect::<String>()),
        }
    }
}

impl Entry {
    /// The one variable that is all of the value.
    pub(super) fn variable(&self) -> Option<&str> {
        let name = self.value.trim_matches('"').strip_prefix("${")?.strip_suffix('}')?;
        is_variable(name).then_some(name)
    }

    /// Takes another value, as one text or as the items of a list.
    pub(super) fn set(&mut self, answer: &str) {
        let quoted = |text: &str| serde_json::Value::from(text.trim()).to_string();
        self.value = match self.value.starts_with('[') {
            true => format!("[{}]", answer.split(',').map(quoted).collect::<Vec<_>>().join(", ")),
            false => quoted(answer),
        };
        self.is_example = false;
    }
}

impl Draft {
    pub(super) fn new(sinks: Vec<Chosen>) -> Self {
        let pager_severities = vec![Severity::High, Severity::Critical];
        let [key_variable, secret_variable] = ["VONAGE_API_KEY", "VONAGE_API_SECRET"].map(str::to_owned);
        Self { key_variable, secret_variable, sinks, pager_severities }
    }

    pub(super) fn has_pager(&self) -> bool {
        self.sinks.iter().any(Chosen::is_pager)
    }

    /// The text of the configuration.
    pub(super) fn configuration(&self) -> String {
        let sinks: String = self.sinks.iter().map(Chosen::yaml).collect();
        format!(
            "# Made by `vigie init`. Secrets are variables of the environment, or files: ${{file:/run/secrets/NAME}}.\n\
             sources:\n  main:\n    vonage_audit:\n      api_key: ${{{}}}\n      api_secret: ${{{}}}\n\
             rules: [rules/]\nsinks:\n{sinks}{}state: {{dir: ./state}}\n",
            self.key_variable,
            self.secret_variable,
            self.routes(),
        )
    }

    /// Nothing where everything goes everywhere, which is what no routes mean.
    fn routes(&self) -> String {
        let names = |pagers: bool| -> Vec<&str> {
            let chosen = self.sinks.iter().filter(|chosen| chosen.is_pager() == pagers);
            chosen.map(|chosen| chosen.kind.kind).collect()
        };
        let (pagers, others) = (names(true), names(false));
        if pagers.is_empty() {
            return String::new();
        }
        let severities: Vec<&str> = self.pager_severities.iter().map(|severity| severity.as_str()).collect();
        let (severities, pagers) = (severities.join(", "), pagers.join(", "));
        let rest = match others.as_slice() {
            [] => String::new(),
            others => format!("    continue: true\n  - to: [{}]\n", others.join(", ")),
        };
        format!("routes:\n  - match: {{severity: [{severities}]}}\n    to: [{pagers}]\n{rest}")
    }

    /// The variables, a line each, to be copied and filled in.
    pub(super) fn hints(&self) -> String {
        let head = "# What vigie.yaml reads from the environment. Copy it to where your secrets are kept, and fill it in there.\n";
        let lines = self.variables().into_iter().map(|variable| format!("# {}\n{}=\n", variable.place, variable.name));
        std::iter::once(head.to_owned()).chain(lines).collect()
    }

    /// Each once, in the order of the file.
    pub(super) fn variables(&self) -> Vec<Variable> {
        let account = [("api_key", &self.key_variable), ("api_secret", &self.secret_variable)];
        let mut variables: Vec<Variable> = Vec::new();
        let mut add = |name: &str, kind, place: String| {
            if variables.iter().all(|variable| variable.name != name) {
                variables.push(Variable { name: name.to_owned(), kind, place });
            }
        };
        for (option, name) in account {
            add(name, None, format!("sources.main.vonage_audit.{option}"));
        }
        for chosen in &self.sinks {
            for entry in &chosen.entries {
                let kind = entry.kind.filter(|_| entry.variable().is_some());
                let place = || format!("sinks.{0}.{0}.{1}: {2}", chosen.kind.kind, entry.name, entry.help);
                names(&entry.value).for_each(|name| add(name, kind, place()));
            }
        }
        variables
    }

    /// What still has the value of an example, unless each was asked for.
    pub(super) fn to_fill_in(&self, was_asked: bool) -> Vec<String> {
        let still = |chosen: &&Chosen| chosen.kind.kind != "stdout" && !was_asked;
        let lines = self.sinks.iter().filter(still).filter_map(|chosen| {
            let entries = chosen.entries.iter().filter(|entry| entry.is_example && entry.variable().is_none());
            let names: Vec<&str> = entries.map(|entry| entry.name).collect();
            (!names.is_empty()).then(|| format!("fill in {} of `{}`", names.join(", "), chosen.kind.kind))
        });
        lines.collect()
    }
}

/// The names within `${...}`.
fn names(value: &str) -> impl Iterator<Item = &str> {
    value
        .split("${")
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| name)
        .filter(|name| is_variable(name))
}

/// Whether the environment can hold it; a secret that is pasted in its place seldom looks like one.
pub(super) fn is_variable(name: &str) -> bool {
    let is_taken = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    name.len() <= MAX_VARIABLE_CHARS && name.bytes().all(is_taken) && name.starts_with(|c: char| c.is_ascii_uppercase())
}

/// What a variable that is not set may hold, so that the rest can be checked.
pub(super) fn stand_in(kind: Option<OptionKind>) -> String {
    match kind {
        Some(OptionKind::Url(schemes) | OptionKind::Via(schemes) | OptionKind::Urls(schemes)) => {
            format!("{}://to-be-set.example.org/a1b2c3d4", schemes.first().unwrap_or(&"https"))
        }
        // A signing key of 32 bytes.
        Some(OptionKind::Secrets) => "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".into(),
        _ => "0123456789abcdef0123456789abcdef".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::KINDS;

    #[test]
    fn every_kind_brings_the_options_of_its_example_and_no_secret() {
        for kind in KINDS {
            let chosen = Chosen::of(kind);
            let specs = kind.specs();
            for entry in &chosen.entries {
                let spec = specs.iter().find(|spec| spec.name == entry.name).expect("an option");
                let is_secret = matches!(spec.kind, OptionKind::Secret | OptionKind::Secrets);
                assert!(!is_secret || entry.variable().is_some(), "{}: {}", kind.kind, entry.name);
            }
            assert!(chosen.yaml().starts_with(&format!("  {0}:\n    {0}:\n      ", kind.kind)), "{}", chosen.yaml());
        }
    }

    #[test]
    fn a_pager_is_woken_by_its_severities_and_all_else_goes_to_the_others() {
        let chosen = |name: &str| Chosen::of(KINDS.iter().find(|kind| kind.kind == name).expect("a kind"));
        let mut draft = Draft::new(vec![chosen("pagerduty"), chosen("slack")]);
        draft.pager_severities = vec![Severity::Critical];
        let routes =
            "routes:\n  - match: {severity: [critical]}\n    to: [pagerduty]\n    continue: true\n  - to: [slack]\n";
        assert_eq!(draft.routes(), routes);
        assert_eq!(Draft::new(vec![chosen("slack")]).routes(), "");
        assert!(!Draft::new(vec![chosen("pagerduty")]).routes().contains("continue"));
    }

    #[test]
    fn a_variable_is_found_wherever_it_stands_and_named_once() {
        let chosen = |name: &str| Chosen::of(KINDS.iter().find(|kind| kind.kind == name).expect("a kind"));
        let draft = Draft::new(vec![chosen("email"), chosen("sqs"), chosen("sns")]);
        let names: Vec<String> = draft.variables().into_iter().map(|variable| variable.name).collect();
        let sinks = ["SMTP_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
        assert_eq!(names, [&["VONAGE_API_KEY", "VONAGE_API_SECRET"][..], &sinks].concat());
        assert!(names.iter().all(|name| draft.hints().contains(&format!("\n{name}=\n"))), "{}", draft.hints());
        for (name, expected) in [("A_1", true), ("1A", false), ("a", false), ("", false), ("A-B", false)] {
            assert_eq!(is_variable(name), expected, "{name}");
        }
        assert!(is_variable(&"A".repeat(64)) && !is_variable(&"A".repeat(65)));
    }

    #[test]
    fn an_answer_cannot_change_the_structure_of_the_file() {
        let list = || Entry { name: "to", value: "[a]".into(), kind: None, help: "", is_example: true };
        let mut entry = list();
        entry.set("a@example.org, b]\n#: {x");
        assert_eq!(entry.value, r##"["a@example.org", "b]\n#: {x"]"##);
        let mut entry = Entry { value: "x".into(), ..list() };
        entry.set("\u{1b}[2J\": y");
        assert_eq!(entry.value, r#""\u001b[2J\": y""#);
    }
}
