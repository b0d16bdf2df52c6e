//! The questions of `vigie init`, over any reader and writer. An empty answer, and the end of the input, takes what stands in
//! brackets.
//!
//! What is typed in the wrong place is never repeated: it may be a secret.

use std::io::{self, BufRead, Write};

use url::Url;
use vigie_engine::rule::Severity;

use super::draft::{Chosen, Draft, Entry, is_variable};
use super::{kind, severity};
use crate::sink::KINDS;

/// Wrong answers to one question; then what stands in brackets holds.
const MAX_TRIES: usize = 3;
/// Longest answer: beyond it a line is no answer to any of the questions.
const MAX_ANSWER_BYTES: u64 = 4096;

pub(super) struct Conversation<R, W> {
    reader: R,
    writer: W,
}

impl<R: BufRead, W: Write> Conversation<R, W> {
    pub(super) fn new(reader: R, writer: W) -> Self {
        Self { reader, writer }
    }

    /// Asks for all that a draft holds; which sinks only if they are not chosen yet.
    pub(super) fn fill(&mut self, draft: &mut Draft, has_sinks: bool) -> io::Result<()> {
        self.say("Secrets are not asked for: name the variables of the environment that will hold them.")?;
        draft.key_variable = self.variable("variable with the account's API key", &draft.key_variable)?;
        draft.secret_variable = self.variable("variable with its API secret", &draft.secret_variable)?;
        if !has_sinks {
            draft.sinks = self.sinks()?;
        }
        for chosen in &mut draft.sinks {
            let kind = chosen.kind.kind;
            for entry in &mut chosen.entries {
                self.entry(kind, entry)?;
            }
        }
        if draft.has_pager() {
            draft.pager_severities = self.severities(&draft.pager_severities)?;
        }
        Ok(())
    }

    /// Yes or no; no when nothing is said.
    pub(super) fn agrees(&mut self, question: &str) -> io::Result<bool> {
        Ok(matches!(self.ask(question, "no")?.as_str(), "y" | "yes" | "Y" | "Yes"))
    }

    fn sinks(&mut self) -> io::Result<Vec<Chosen>> {
        self.say("Where alerts can go, and what each needs:")?;
        for kind in KINDS {
            let entries = Chosen::of(kind).entries;
            let names: Vec<&str> = entries.iter().map(|entry| entry.name).collect();
            self.say(&format!("  {:<14} {}", kind.kind, names.join(", ")))?;
        }
        self.until("sinks, with commas between them", "stdout", |answer| {
            let mut chosen: Vec<Chosen> = Vec::new();
            for name in answer.split([',', ' ']).filter(|name| !name.is_empty()) {
                let kind = kind(name)?;
                if chosen.iter().all(|other| other.kind.kind != kind.kind) {
                    chosen.push(Chosen::of(kind));
                }
            }
            if chosen.is_empty() { Err("at least one".to_owned()) } else { Ok(chosen) }
        })
    }

    fn entry(&mut self, kind: &str, entry: &mut Entry) -> io::Result<()> {
        if let Some(variable) = entry.variable() {
            let question = format!("{kind}: variable that holds {} ({})", entry.name, entry.help);
            let variable = self.variable(&question, variable)?;
            entry.value = format!("${{{variable}}}");
            return Ok(());
        }
        // What is a map stays that of the example.
        if entry.value.starts_with('{') {
            return Ok(());
        }
        let question = format!("{kind}: {} ({})", entry.name, entry.help);
        let before = entry.value.clone();
        let bare = before.trim_matches(['[', ']', '"']);
        let answer = self.until(&question, bare, |answer| match Url::parse(answer) {
            Ok(url) if url.password().is_some_and(|password| !is_by_variable(password)) => {
                Err("write the password as a variable, such as ${SMTP_PASSWORD}".to_owned())
            }
            _ => Ok(answer.to_owned()),
        })?;
        if answer != bare {
            entry.set(&answer);
        }
        Ok(())
    }

    fn severities(&mut self, before: &[Severity]) -> io::Result<Vec<Severity>> {
        let before: Vec<&str> = before.iter().map(|severity| severity.as_str()).collect();
        self.until("severities that wake the pager", &before.join(", "), |answer| {
            answer.split([',', ' ']).filter(|name| !name.is_empty()).map(severity).collect()
        })
    }

    fn variable(&mut self, question: &str, before: &str) -> io::Result<String> {
        self.until(question, before, |answer| match is_variable(answer) {
            true => Ok(answer.to_owned()),
            false => Err("the name of a variable, by capital letters, digits and `_`; not its value".to_owned()),
        })
    }

    /// Asks until the answer can be read; `before` always can.
    fn until<T>(&mut self, question: &str, before: &str, read: impl Fn(&str) -> Result<T, String>) -> io::Result<T> {
        for _ in 0..MAX_TRIES {
            match read(&self.ask(question, before)?) {
                Ok(answer) => return Ok(answer),
                Err(why) => self.say(&format!("  {why}"))?,
            }
        }
        self.say(&format!("  taking {before}"))?;
        read(before).map_err(io::Error::other)
    }

    fn ask(&mut self, question: &str, before: &str) -> io::Result<String> {
        write!(self.writer, "{question} [{before}]: ")?;
        self.writer.flush()?;
        let mut line = String::new();
        io::Read::take(&mut self.reader, MAX_ANSWER_BYTES).read_line(&mut line)?;
        Ok(Some(line.trim()).filter(|line| !line.is_empty()).unwrap_or(before).to_owned())
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.writer, "{text}")
    }
}

/// A password as a URL shows it: braces may be escaped.
fn is_by_variable(password: &str) -> bool {
    password.starts_with("${") || password.starts_with("$%7B")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(answers: &str) -> (Draft, String) {
        let mut draft = Draft::new(Vec::new());
        let mut said = Vec::new();
        let mut conversation = Conversation::new(answers.as_bytes(), &mut said);
        conversation.fill(&mut draft, false).expect("a buffer");
        (draft, String::from_utf8(said).expect("UTF-8"))
    }

    #[test]
    fn what_is_answered_is_written_and_the_rest_is_as_it_stands_in_brackets() {
        let answers = "MY_KEY\n\nslack, email pagerduty\nMY_HOOK\nsmtps://soc:${MY_MAIL}@mail.test\nv@x.test\na@x.test,b@x.test\n\
                       MY_PAGER\ncritical\n";
        let (draft, said) = filled(answers);
        let text = draft.configuration();
        for line in [
            "      api_key: ${MY_KEY}\n      api_secret: ${VONAGE_API_SECRET}\n",
            "      webhook_url: ${MY_HOOK}\n",
            "      smtp: \"smtps://soc:${MY_MAIL}@mail.test\"\n      from: \"v@x.test\"\n",
            "      to: [\"a@x.test\", \"b@x.test\"]\n",
            "      routing_key: ${MY_PAGER}\n",
            "  - match: {severity: [critical]}\n    to: [pagerduty]\n    continue: true\n  - to: [slack, email]\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(KINDS.iter().all(|kind| said.contains(&format!("\n  {} ", kind.kind))), "{said}");
    }

    #[test]
    fn the_end_of_the_input_takes_all_that_stands_in_brackets() {
        let (draft, said) = filled("");
        assert_eq!(draft.configuration(), {
            let stdout = KINDS.iter().find(|kind| kind.kind == "stdout").expect("it");
            Draft::new(vec![Chosen::of(stdout)]).configuration()
        });
        assert!(said.ends_with("[json]: "), "{said}");
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_neither_taken_nor_repeated() {
        let secret = "p4ss-word-of-mine";
        let url = format!("smtps://soc:{secret}@mail.test");
        let answers = format!("{secret}\n{secret}\n{secret}\nS\nemail\n{url}\n{url}\n{url}\n");
        let (draft, said) = filled(&answers);
        let text = draft.configuration() + &draft.hints();
        assert!(!text.contains(secret) && !said.contains(secret), "{text}{said}");
        assert!(text.contains("api_key: ${VONAGE_API_KEY}") && text.contains("api_secret: ${S}"), "{text}");
        assert!(said.contains("taking VONAGE_API_KEY") && text.contains("vigie:${SMTP_PASSWORD}@"), "{said}");
    }

    #[test]
    fn a_wrong_name_is_told_with_the_nearest_and_asked_again() {
        let (draft, said) = filled("\n\nslak\nslack\n");
        assert!(said.contains("did you mean `slack`?"), "{said}");
        assert_eq!(draft.sinks.len(), 1);
    }
}
