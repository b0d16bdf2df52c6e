//! The reference page of options and metrics, made from the tables that the program reads by.
//!
//! The page in docs/ equals this text; a test compares them, so neither can say what the other does not.

use super::{GEO_FIELDS_HELP, GEO_OPTIONS, HEARTBEAT_OPTIONS, SERVER_OPTIONS, STATE_OPTIONS};
use crate::options::{OptionKind, OptionSpec, Presence};
use crate::sink::bound::{Bound, Most};
use crate::sink::http;
use crate::{metrics, sink, source};
use vigie_engine::time::format_duration;
use vigie_engine::yaml::fields::KnownKey;
use vigie_engine::{mute, route};

const OPENING: &str = "# Reference\n\n\
    Made by `vigie schema reference` from the program's own tables; do not edit. `${VAR}` and `${file:/path}` stand for \
    text in every option. A secret is never shown in any output.\n";

const GEO_FIELDS_OPENING: &str = "\nWhat they say of an event's `source_ip` is read like a field of the event, which stays as it came; an event's own \
     `geo` is not looked at. In a test of a rule the event's `geo` stands for the database's answer.\n\n\
     | field | what |\n|---|---|\n";

const TRANSPORT_TITLE: &str = "Transport of sinks";
const TRANSPORT_CLOSING: &str = "\nAll files but `bearer_token_file` are read at the start, and again at the reload that a change of them brings about. \
     `Authorization` has one origin: the URL, `headers`, `bearer_token_file` or `oauth2_token_url`. A token is kept until a \
     minute before it expires; after a 401 of the destination the next attempt fetches another. The token server is reached \
     as the destination is: the same authorities, certificate, proxy and guard.\n\n\
     Through a proxy, names are resolved by the proxy. What is vetted here then is the URL as it is written (an address in \
     any spelling, a name of a metadata service, `localhost` with `allow_private: false`) and the proxy's own address, which \
     may be private in any case but never link-local or of a metadata service. Where a name leads to is then for the \
     proxy's own rules, `allow_private: false` included. A login that the proxy refuses (407) pauses the sink and is told; any \
     other refusal of a tunnel is tried again.\n";

const ROUTES_CLOSING: &str = "\n```yaml\nroutes:\n  - matchers: ['severity=~\"high|critical\"']\n    to: chat\n    \
     fallback: mail\n    routes:\n      - {match: {account: acc1}, to: pager, fallback: []}\n  - to: console\n    dedup: \
     [rule, account]\n    mute: {days: sat-sun, tz: Europe/Paris}\n```\n";

/// The page.
#[must_use]
pub fn markdown() -> String {
    let mut page = OPENING.to_owned();
    for kind in source::KINDS {
        section(&mut page, &format!("Source `{}`", kind.kind), &format!("sources.NAME.{}", kind.kind), kind.options);
    }
    for kind in sink::KINDS {
        let own = kind.options.first().copied().unwrap_or_default();
        section(&mut page, &format!("Sink `{}`", kind.kind), &format!("sinks.NAME.{}", kind.kind), own);
        page.push_str(shared(kind));
        page.push_str(&bounds(kind));
        page.push_str(&example(kind));
    }
    section(
        &mut page,
        TRANSPORT_TITLE,
        "sinks.NAME.KIND` for the kinds that say so, such as `sinks.NAME.webhook",
        http::TRANSPORT,
    );
    page.push_str(TRANSPORT_CLOSING);
    keys(&mut page, "Routes", "- ` under `routes", &route::KEYS);
    page.push_str(&format!("\nAn alert has the fields {}.\n", fields_of_an_alert()));
    page.push_str(ROUTES_CLOSING);
    keys(&mut page, "Inhibitions", "- ` under `inhibit", &mute::KEYS);
    section(&mut page, "Address databases", "geo", GEO_OPTIONS);
    page.push_str(GEO_FIELDS_OPENING);
    for (field, what) in GEO_FIELDS_HELP {
        line(&mut page, &[&code(field), what]);
    }
    section(&mut page, "Heartbeat", "heartbeat", HEARTBEAT_OPTIONS);
    section(&mut page, "State", "state", STATE_OPTIONS);
    section(&mut page, "Server", "server", SERVER_OPTIONS);
    page.push_str("\n## Metrics\nServed at `/metrics` in the text format of Prometheus.\n\n");
    page.push_str("| metric | kind | labels | what |\n|---|---|---|---|\n");
    for metric in metrics::METRICS {
        line(&mut page, &[&code(metric.name), metric.kind.name(), metric.labels, metric.help]);
    }
    page
}

fn fields_of_an_alert() -> String {
    let named =
        route::VOCABULARY.iter().map(|name| if name.ends_with('.') { format!("{name}FIELD") } else { (*name).into() });
    named.map(|name| code(&name)).collect::<Vec<_>>().join(", ")
}

/// Keys of a map that is read by the engine.
fn keys(page: &mut String, title: &str, place: &str, keys: &[KnownKey]) {
    page.push_str(&format!("\n## {title}\nUnder `{place}`.\n\n| key | takes | default | what |\n|---|---|---|---|\n"));
    for key in keys {
        let default = match key.default {
            "" | "required" => key.default.to_owned(),
            value => code(value),
        };
        line(page, &[&code(key.name), key.takes, &default, key.help]);
    }
}

/// Where the options stand that a kind of sink shares with others.
fn shared(kind: &sink::SinkKind) -> &'static str {
    match kind.options.get(1) {
        None => "",
        Some(table) if table.len() == http::TRANSPORT.len() => {
            "\nAnd all of [Transport of sinks](#transport-of-sinks).\n"
        }
        Some(_) => {
            "\nAnd those of [Transport of sinks](#transport-of-sinks) that say nothing of `Authorization`, which this \
             sink sends itself.\n"
        }
    }
}

/// What the destination takes at most.
fn bounds(kind: &sink::SinkKind) -> String {
    let one = |bound: &Bound| match bound.most {
        Most::Of(most) => format!("{} {most} {}", bound.what, bound.unit.name()),
        Most::Option(name) => format!("{} as `{name}` says, in {}", bound.what, bound.unit.name()),
    };
    let bounds: Vec<String> = kind.bounds.iter().map(one).collect();
    match bounds.as_slice() {
        [] => "\nIts destination documents no limit of a message.\n".to_owned(),
        bounds => format!("\nAt most: {}.\n", bounds.join("; ")),
    }
}

fn example(kind: &sink::SinkKind) -> String {
    let lines: String = kind.example.lines().map(|line| format!("  {line}\n")).collect();
    format!("\n```yaml\nsinks:\n{lines}```\n")
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
        OptionKind::File => "path of a file".into(),
        OptionKind::Secret => "secret".into(),
        OptionKind::Url(schemes) | OptionKind::Via(schemes) => format!("URL ({})", schemes.join(", ")),
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
    fn the_example_of_routes_loads_and_every_key_is_a_row() {
        use vigie_engine::diagnostic::{Diagnostics, SourceFile};
        use vigie_engine::{rule::Lists, yaml};
        let page = markdown();
        let section = |title: &str| page.split(title).nth(1).and_then(|rest| rest.split("\n## ").next()).expect("it");
        let (routes, inhibitions) = (section("\n## Routes\n"), section("\n## Inhibitions\n"));
        assert!(route::KEYS.iter().all(|key| routes.contains(&format!("| `{}` |", key.name))), "{routes}");
        assert!(mute::KEYS.iter().all(|key| inhibitions.contains(&format!("| `{}` |", key.name))), "{inhibitions}");
        assert!(routes.contains("`event.FIELD`"), "{routes}");
        let text = routes.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
        let mut told = Diagnostics::default();
        let file = SourceFile { path: "vigie.yaml".into(), text: text.into() };
        let node = yaml::parse(&file, &mut told).expect("YAML");
        let list =
            yaml::fields::Fields::of(&node, "it", &["routes"], &mut told).and_then(|fields| fields.get("routes"));
        let sinks = ["chat", "mail", "pager", "console"];
        let loaded = route::load(list.expect("it"), &Lists::default(), &sinks, &mut told);
        assert_eq!((loaded.len(), told.count()), (2, 0), "{:?}", told.sorted());
    }

    #[test]
    fn every_sink_has_its_example_and_its_limits() {
        let page = markdown();
        for kind in sink::KINDS {
            let section =
                page.split(&format!("## Sink `{}`", kind.kind)).nth(1).and_then(|rest| rest.split("\n## ").next());
            let section = section.expect("it");
            let lines = kind.example.lines().map(|line| format!("  {line}"));
            assert!(lines.clone().all(|line| section.contains(&line)), "{section}");
            assert!((3..=6).contains(&lines.count()) && section.contains(&format!("  {}:\n", kind.kind)), "{section}");
            assert!(kind.bounds.iter().all(|bound| section.contains(bound.what)), "{section}");
        }
        assert!(
            page.contains("At most: text 2000 UTF-16 units.") && page.contains("body as `max_body` says, in bytes")
        );
    }

    #[test]
    fn every_option_is_a_row_of_its_section_with_its_bounds() {
        let page = markdown();
        let section = page.split("## Sink `webhook`").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("it");
        let webhook = sink::KINDS.iter().find(|kind| kind.kind == "webhook").expect("it");
        let transport = page.split("## Transport of sinks").nth(1).expect("it");
        for option in http::TRANSPORT {
            assert!(transport.contains(&format!("| `{}` |", option.name)), "{}", option.name);
        }
        assert!(section.contains("#transport-of-sinks"), "{section}");
        for option in webhook.options[0] {
            assert!(section.contains(&format!("| `{}` |", option.name)), "{}", option.name);
        }
        assert_eq!(takes(OptionKind::Size(512, 10 << 20)), "size, 512B to 10MiB");
        assert_eq!(takes(OptionKind::Duration(500, 86_400_000)), "duration, 500ms to 1d");
    }
}
