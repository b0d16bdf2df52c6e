//! What a destination takes at most. One row serves three: rendering keeps to its figure, the reference prints it, and
//! `sink test` measures a rendered body by it.
//!
//! It never cuts anything: that is for the sink, which knows what may go. A row reads the body that is stored, without what
//! is put in when sending.

use serde_json::Value;

use crate::options::Options;

/// One limit of a kind of sink.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// What it is the limit of, such as `summary`.
    pub what: &'static str,
    /// The limit.
    pub most: Most,
    /// What it is counted in.
    pub unit: Unit,
    /// How much of it a rendered body uses; the largest where there are several.
    pub used: fn(&[u8]) -> usize,
}

/// How much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Most {
    /// As the destination documents it.
    Of(usize),
    /// As the option of this name says, a size.
    Option(&'static str),
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Of UTF-8.
    Bytes,
    /// Unicode scalar values.
    Chars,
    /// As JavaScript, Java and .NET count text.
    Utf16,
    /// Things.
    Count,
}

impl Bound {
    /// The figure under these options; `None` where an option that holds it was not read.
    #[must_use]
    pub fn figure(&self, options: &Options) -> Option<usize> {
        match self.most {
            Most::Of(most) => Some(most),
            Most::Option(name) => options.integer(name).map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
        }
    }
}

impl Unit {
    /// Behind a figure.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Chars => "characters",
            Self::Utf16 => "UTF-16 units",
            Self::Count => "in number",
        }
    }

    /// The length of a text.
    #[must_use]
    pub fn of(self, text: &str) -> usize {
        match self {
            Self::Bytes => text.len(),
            Self::Chars => text.chars().count(),
            Self::Utf16 => text.encode_utf16().count(),
            Self::Count => 1,
        }
    }

    /// The length of the text at a JSON pointer; of anything else, the length of it as JSON; 0 where there is nothing.
    #[must_use]
    pub fn at(self, body: &[u8], pointer: &str) -> usize {
        let body = serde_json::from_slice::<Value>(body).unwrap_or_default();
        match body.pointer(pointer) {
            Some(Value::String(text)) => self.of(text),
            Some(other) => self.of(&other.to_string()),
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vigie_engine::diagnostic::{Diagnostics, SourceFile};

    use super::*;
    use crate::config::{NamedSink, Surroundings, load_files};
    use crate::sink::contract::{self, StoppedClock, alert_titled, make_long, stateful_alert};
    use crate::sink::{Form, KINDS, RenderContext, SinkKind};
    use crate::source;

    /// What fits where a variable of an example stands.
    fn variable(name: &str) -> Option<String> {
        let value = match name {
            "SOC_SECRET" => "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
            name if name.ends_with("_URL") => "https://hooks.example.org/services/a1b2c3",
            _ => "0123456789abcdef0123456789abcdef",
        };
        Some(value.to_owned())
    }

    /// The kind's example, through the loader of a whole configuration.
    fn loaded(kind: &SinkKind) -> NamedSink {
        let rule = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/vonage/account-flagged.yaml");
        let example: String = kind.example.lines().map(|line| format!("  {line}\n")).collect();
        let text = format!("sources: {{log: {{ndjson: {{path: '-'}}}}}}\nrules: [\"{rule}\"]\nsinks:\n{example}");
        let surroundings = Surroundings {
            variable: &variable,
            sinks: contract::context().0,
            sources: source::BuildContext { clock: Arc::new(StoppedClock) },
        };
        let mut diagnostics = Diagnostics::default();
        let file = SourceFile { path: "vigie.yaml".into(), text: text.as_str().into() };
        let config = load_files(&[file], &surroundings, &mut diagnostics);
        let (told, shown) = (diagnostics.count(), format!("{text}\n{:?}", diagnostics.sorted()));
        let mut sinks = config.expect(&shown).sinks;
        assert_eq!((told, sinks.len()), (0, 1), "{shown}");
        sinks.remove(0)
    }

    #[test]
    fn a_unit_counts_as_it_is_named() {
        let body = r#"{"a": {"b": "é🦀"}, "c": [1, 2]}"#.as_bytes();
        assert_eq!(Unit::Bytes.at(body, "/a/b"), 6);
        assert_eq!(Unit::Chars.at(body, "/a/b"), 2);
        assert_eq!(Unit::Utf16.at(body, "/a/b"), 3);
        assert_eq!(Unit::Bytes.at(body, "/c"), 5);
        assert_eq!((Unit::Chars.at(body, "/none"), Unit::Chars.at(b"no JSON", "/a")), (0, 0));
    }

    #[test]
    fn every_example_loads_without_a_finding() {
        for kind in KINDS {
            assert_eq!(loaded(kind).sink.kind(), kind.kind);
        }
    }

    #[test]
    fn every_bound_measures_something_and_is_kept_to_whatever_an_event_holds() {
        for kind in KINDS {
            let named = loaded(kind);
            assert_eq!(named.bounds.len(), kind.bounds.len(), "{}", kind.kind);
            for character in ["a", "🦀"] {
                let mut long = stateful_alert();
                make_long(&mut long, character);
                for (alert, form) in [(&alert_titled("short"), Form::Full), (&long, Form::Full), (&long, Form::Plain)] {
                    let context = RenderContext { delivery_id: "d1", now: alert.first_at, form };
                    let body = named.sink.render(alert, &context).expect("renders");
                    for (bound, most) in &named.bounds {
                        let used = (bound.used)(&body);
                        assert!(used <= *most, "{} {form:?}: {} uses {used} of {most}", kind.kind, bound.what);
                        assert!(used > 0 || form == Form::Plain, "{}: {} is not measured", kind.kind, bound.what);
                    }
                }
            }
        }
    }
}
