//! The reference page of options and metrics, made from the tables that the program reads by.
//!
//! The page in docs/ equals this text; a test compares them, so neither can say what the other does not.

use super::{GEO_FIELDS_HELP, GEO_OPTIONS, SERVER_OPTIONS, STATE_OPTIONS};
use crate::options::{OptionKind, OptionSpec, Presence};
use crate::{metrics, sink, source};
use vigie_engine::time::format_duration;

const OPENING: &str = "# Reference\n\n\
    Made by `vigie schema reference` from the program's own tables; do not edit. `${VAR}` and `${file:/path}` stand for \
    text in every option. A secret is never shown in any output.\n";

const GEO_FIELDS_OPENING: &str = "\nWhat they say of an event's `source_ip` is read like a field of the event, which stays as it came; an event's own \
     `geo` is not looked at. In a test of a rule the event's `geo` stands for the database's answer.\n\n\
     | field | what |\n|---|---|\n";

/// The page.
#[must_use]
pub fn markdown() -> String {
    let mut page = OPENING.to_owned();
    for kind in source::KINDS {
        section(&mut page, &format!("Source `{}`", kind.kind), &format!("sources.NAME.{}", kind.kind), kind.options);
    }
    for kind in sink::KINDS {
        section(&mut page, &format!("Sink `{}`", kind.kind), &format!("sinks.NAME.{}", kind.kind), kind.options);
    }
    section(&mut page, "Address databases", "geo", GEO_OPTIONS);
    page.push_str(GEO_FIELDS_OPENING);
    for (field, what) in GEO_FIELDS_HELP {
        line(&mut page, &[&code(field), what]);
    }
    section(&mut page, "State", "state", STATE_OPTIONS);
    section(&mut page, "Server", "server", SERVER_OPTIONS);
    page.push_str("\n## Metrics\nServed at `/metrics` in the text format of Prometheus.\n\n");
    page.push_str("| metric | kind | labels | what |\n|---|---|---|---|\n");
    for metric in metrics::METRICS {
        line(&mut page, &[&code(metric.name), metric.kind.name(), metric.labels, metric.help]);
    }
    page
}

fn section(page: &mut String, title: &str, place: &str, options: &[OptionSpec]) {
    page.push_str(&format!(
        "\n## {title}\nUnder `{place}`.\n\n| option | takes | default | what |\n|---|---|---|---|\n"
    ));
    for option in options {
        let default = match option.presence {
            Presence::Required => "required".to_owned(),
            Presence::Optional => String::new(),
            Presence::Default(text) => code(text),
        };
        line(page, &[&code(option.name), &takes(option.kind), &default, option.help]);
    }
}

fn line(page: &mut String, cells: &[&str]) {
    for cell in cells {
        page.push_str("| ");
        page.push_str(&cell.replace('|', "\\|"));
        page.push(' ');
    }
    page.push_str("|\n");
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn takes(kind: OptionKind) -> String {
    match kind {
        OptionKind::Text => "text".into(),
        OptionKind::Secret => "secret".into(),
        OptionKind::Url(schemes) => format!("URL ({})", schemes.join(", ")),
        OptionKind::Urls(schemes) => format!("URL or list of URLs ({})", schemes.join(", ")),
        OptionKind::Integer(least, most) => format!("{least} to {most}"),
        OptionKind::Flag => "true or false".into(),
        OptionKind::Duration(least_ms, most_ms) => {
            let [least, most] = [least_ms, most_ms].map(|ms| format_duration(std::time::Duration::from_millis(ms)));
            format!("duration, {least} to {most}")
        }
        OptionKind::Every(least_ms, most_ms) => {
            let [least, most] = [least_ms, most_ms].map(|ms| format_duration(std::time::Duration::from_millis(ms)));
            format!("`every` and a duration, {least} to {most}")
        }
        OptionKind::Size(least, most) => format!("size, {} to {}", size(least), size(most)),
        OptionKind::Rate => "sends in a unit: 1/s, 30/m, 100/h, 500/d".into(),
        OptionKind::Choice(words) => words.join(", "),
        OptionKind::Texts => "text or list of texts".into(),
        OptionKind::Secrets => "secret or list of secrets".into(),
        OptionKind::Map => "map of texts (values are secrets)".into(),
    }
}

fn size(bytes: u64) -> String {
    const UNITS: &[(u64, &str)] = &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = UNITS.iter().find(|(factor, _)| bytes >= *factor && bytes.is_multiple_of(*factor));
    unit.map_or_else(|| format!("{bytes}B"), |(factor, name)| format!("{}{name}", bytes / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_this_text() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference.md");
        let page = std::fs::read_to_string(path).expect("docs/reference.md");
        assert!(page == markdown(), "stale; regenerate: `cargo run -- schema reference > docs/reference.md`");
    }

    #[test]
    fn every_field_of_an_address_database_is_a_row() {
        use vigie_engine::event::{GEO, GEO_FIELDS};
        let named: Vec<&str> = GEO_FIELDS_HELP.iter().map(|(field, _)| *field).collect();
        let known: Vec<String> = GEO_FIELDS.iter().chain(&["mismatch"]).map(|field| format!("{GEO}.{field}")).collect();
        assert_eq!(named, known);
    }

    #[test]
    fn every_option_is_a_row_of_its_section_with_its_bounds() {
        let page = markdown();
        let section = page.split("## Sink `webhook`").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("it");
        for option in sink::KINDS.iter().find(|kind| kind.kind == "webhook").expect("it").options {
            assert!(section.contains(&format!("| `{}` |", option.name)), "{}", option.name);
        }
        assert_eq!(takes(OptionKind::Size(512, 10 << 20)), "size, 512B to 10MiB");
        assert_eq!(takes(OptionKind::Duration(500, 86_400_000)), "duration, 500ms to 1d");
    }
}
