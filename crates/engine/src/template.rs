//! Alert titles from event fields: `{{ event.event_type }} from {{ event.source_country }}`.
//!
//! A template sees the event and nothing else: no include, no functions, no debug output, bounded work and bounded output.
//! A field that the event does not have shows as `(none)`: a title must never be the reason why an alert is lost, and
//! nobody should take an empty place for a value. A name other than `event` is refused when the template is loaded.

use std::sync::{Arc, LazyLock};

use minijinja::value::{Serde, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context};

use crate::event::Event;

/// Longest template.
pub const MAX_TEMPLATE_BYTES: usize = 8 * 1024;
/// Work of one rendering: about this many steps, or 64 bytes each of copied text (at most 3 MB). A title takes 10 to 100.
pub const TEMPLATE_FUEL: u64 = 50_000;
/// Longest output; what is longer is cut and marked with `…`.
pub const MAX_OUTPUT_BYTES: usize = 64 * 1024;
/// What a missing or null field shows as.
pub const MISSING: &str = "(none)";

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);

/// A compiled template.
#[derive(Debug, Clone)]
pub struct Template {
    // The text was compiled once to check it. It is compiled again when it is rendered (some microseconds, per alert and
    // not per event), because the compiled form borrows its text.
    text: Arc<str>,
}

impl Template {
    /// Checks a template.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEMPLATE_BYTES {
            return Err(format!("the template has {} bytes; at most {MAX_TEMPLATE_BYTES} are allowed", text.len()));
        }
        let template = ENVIRONMENT.template_from_str(text).map_err(|error| sentence(&error))?;
        let mut names: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        names.sort_unstable();
        if let Some(name) = names.into_iter().find(|name| name != "event") {
            return Err(format!(
                "the template uses `{name}`, but it only knows `event`, as in `{{{{ event.{name} }}}}`"
            ));
        }
        // Unknown filters come out only when they are met, so the template is tried on an empty event.
        match template.render(context! { event => Value::from_iter::<[(String, Value); 0]>([]) }) {
            Err(error) if is_mistake(&error) => Err(sentence(&error)),
            _ => Ok(Self { text: text.into() }),
        }
    }

    /// Fills in an event's fields. The output is as little to be trusted as the event.
    ///
    /// # Errors
    /// A sentence: an operation that does not fit the event's values, or too much work.
    pub fn render(&self, event: &Event) -> Result<String, String> {
        let fields = Value::from(Serde(&event.fields_to_json()));
        let template = ENVIRONMENT.template_from_str(&self.text).map_err(|error| sentence(&error))?;
        let rendered = template.render(context! { event => fields }).map_err(|error| sentence(&error))?;
        Ok(cut(rendered))
    }

    /// The template as written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(TEMPLATE_FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.set_formatter(|output, state, value| match value.kind() {
        ValueKind::Undefined | ValueKind::None => Ok(output.write_str(MISSING)?),
        _ => minijinja::escape_formatter(output, state, value),
    });
    let globals: Vec<String> = environment.globals().map(|(name, _)| name.to_owned()).collect();
    for name in globals {
        environment.remove_global(&name);
    }
    environment
}

/// Whether the template is wrong whatever the event holds.
fn is_mistake(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnknownFilter
            | ErrorKind::UnknownTest
            | ErrorKind::UnknownFunction
            | ErrorKind::UnknownMethod
            | ErrorKind::OutOfFuel
    )
}

fn sentence(error: &Error) -> String {
    let line = error.line().filter(|line| *line > 1).map(|line| format!(" (line {line} of the template)"));
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{}{detail}{}", error.kind(), line.unwrap_or_default())
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_OUTPUT_BYTES {
        let mark = '…';
        text.truncate(text.floor_char_boundary(MAX_OUTPUT_BYTES - mark.len_utf8()));
        text.push(mark);
    }
    text
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn render(text: &str, event: &str) -> Result<String, String> {
        let event = Event::new("e", DateTime::UNIX_EPOCH, event.into()).expect("an event");
        Template::compile(text)?.render(&event)
    }

    #[test]
    fn fields_are_filled_in() {
        let event =
            r#"{"event_type":"APP_CREATE","n":3,"user_email":null,"context":{"app":{"name":"é<b>"}},"a.b":"dot"}"#;
        let cases = [
            ("{{ event.event_type }} from {{ event.source_country }}", "APP_CREATE from (none)"),
            ("{{ event.user_email }}", "(none)"),
            (r#"{{ event.source_country | default("nowhere") }}"#, "nowhere"),
            ("{{ event.context.app.name }}", "é<b>"),
            ("{{ event.context.no.such.thing }}", "(none)"),
            ("{{ event['a.b'] }} {{ event.n + 1 }}", "dot 4"),
            ("{% if event.source_country %}in{% else %}out{% endif %}", "out"),
            ("{{ event.event_type | lower }} \u{1b}", "app_create \u{1b}"),
            ("plain", "plain"),
        ];
        for (text, expected) in cases {
            assert_eq!(render(text, event).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn mistakes_come_out_when_loading() {
        let cases = [
            ("{{ event.x", "syntax error: unexpected end of input, expected end of variable block"),
            (
                "{{ user_email }}",
                "the template uses `user_email`, but it only knows `event`, as in `{{ event.user_email }}`",
            ),
            ("{{ event.x | uper }}", "unknown filter: filter uper is unknown"),
            ("{{ debug() }}", "the template uses `debug`, but it only knows `event`, as in `{{ event.debug }}`"),
            ("{% include 'x' %}", "syntax error: unknown statement include"),
            ("a\n{% for %}", "syntax error: unexpected end of block, expected in (line 2 of the template)"),
        ];
        for (text, expected) in cases {
            assert_eq!(Template::compile(text).err().as_deref(), Some(expected), "{text}");
        }
        assert!(Template::compile(&"x".repeat(MAX_TEMPLATE_BYTES + 1)).is_err());
    }

    #[test]
    fn bombs_do_not_go_off() {
        let doubling = "{% set x = event.t %}".to_owned() + &"{% set x = x ~ x %}".repeat(60) + "{{ x }}";
        let loops =
            "{% for a in event.l %}{% for b in event.l %}{% for c in event.l %}x{% endfor %}{% endfor %}{% endfor %}";
        let event = format!(r#"{{"t":"{}","l":[{}1]}}"#, "t".repeat(1_000), "1,".repeat(200));
        for text in [doubling.as_str(), loops, "{{ event.t | replace('t', event.t) | replace('t', event.t) }}"] {
            let outcome = render(text, &event);
            assert!(outcome.as_ref().is_err_and(|error| error.contains("out of fuel")), "{text}: {outcome:?}");
        }
    }

    #[test]
    fn long_output_is_cut_at_a_character() {
        let event = format!(r#"{{"t":"x{}"}}"#, "é".repeat(100_000));
        let shown = render("{{ event.t }}", &event).expect("rendered");
        assert!(shown.len() <= MAX_OUTPUT_BYTES && shown.len() > MAX_OUTPUT_BYTES - 8, "{}", shown.len());
        assert!(shown.ends_with("é…"));
    }
}
