//! Who may import whom. An arrow points down only, in the program and in the engine.
//!
//! The order stands here once more on purpose: a change of layers has to be made in two places, and be meant.

use super::code::{self, File};

/// From the top. A module may name modules of later rows, and itself.
const PROGRAM: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["daemon"],
    &["console"],
    &["config"],
    &["pipeline"],
    &["source", "store", "sink"],
    &["options", "geo"],
    &["clock", "secret", "metrics", "backoff", "pace"],
];

/// From the bottom; each may name only those before it.
const ENGINE: &[&str] = &[
    "time",
    "country",
    "text",
    "diagnostic",
    "yaml",
    "event",
    "condition",
    "template",
    "state",
    "rule",
    "plan",
    "alert",
    "route",
    "mute",
    "engine",
];

/// Runs the tests inside rules through the engine itself, so it stands above the engine although it is named for rules.
const ABOVE_THE_ENGINE: &str = "rule::check";

/// Modules inside a layer of drivers that belong to one driver each. The others of that layer are shared by its drivers.
const DRIVERS: &[(&str, &[&str])] = &[
    ("source", &["vonage", "ndjson"]),
    ("store", &["sqlite", "memory"]),
    ("sink", &["stdout", "file", "webhook", "email", "slack"]),
];

/// Imports of the program that point up or sideways.
pub(super) fn program(file: &File) -> Vec<String> {
    let Some(module) = module(&file.path, "src/") else { return Vec::new() };
    let from = module.first().copied().unwrap_or_default();
    let mut found = Vec::new();
    for path in code::paths(&file.production, &module) {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        if !allowed(from, &module, &path) {
            found.push(format!("{}: `{}` names `{}`", file.path, module.join("::"), path.join("::")));
        }
    }
    if !matches!(module.as_slice(), ["cli", "demo" | "sim", ..]) && file.production.contains("vigie_sim") {
        found.push(format!("{}: only the demo and `sim serve` may name the simulator", file.path));
    }
    found
}

fn allowed(from: &str, module: &[&str], path: &[&str]) -> bool {
    let to = path.first().copied().unwrap_or_default();
    let rank = |name: &str| PROGRAM.iter().position(|row| row.contains(&name));
    let (Some(from_rank), Some(to_rank)) = (rank(from), rank(to)) else {
        // `crate::Name`: nothing of that kind is declared at the root, except by `main`.
        return to.is_empty();
    };
    let is_contract =
        path.get(1).is_some_and(|name| name.starts_with(char::is_uppercase)) || path.get(1) == Some(&"self");
    match from == to {
        true => own_driver(module, path),
        // The one alias that the traits of all drivers share.
        false if to == "pipeline" && DRIVERS.iter().any(|(layer, _)| *layer == from) => {
            path == ["pipeline", "BoxFuture"]
        }
        false if from_rank == to_rank => from_rank < rank("options").unwrap_or(0) && is_contract,
        false => from_rank < to_rank,
    }
}

/// Within a layer of drivers: one driver, or what drivers share, names no other driver. The table of kinds names all.
fn own_driver(module: &[&str], path: &[&str]) -> bool {
    let Some((_, drivers)) = DRIVERS.iter().find(|(layer, _)| Some(layer) == module.first()) else { return true };
    match (module.get(1), path.get(1)) {
        (Some(from), Some(to)) => from == to || !drivers.contains(to),
        _ => true,
    }
}

/// Imports of the engine that point up.
pub(super) fn engine(file: &File) -> Vec<String> {
    let Some(module) = module(&file.path, "crates/engine/src/") else { return Vec::new() };
    let rank = |path: &[&str]| match path.join("::").starts_with(ABOVE_THE_ENGINE) {
        true => Some(ENGINE.len()),
        false => ENGINE.iter().position(|name| Some(name) == path.first()),
    };
    let Some(from) = rank(&module) else { return vec![format!("{}: no layer is known for it", file.path)] };
    let paths = code::paths(&file.production, &module);
    let up = paths.iter().filter(|path| {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        path.first() != module.first() && rank(&path).is_none_or(|to| to >= from)
    });
    up.map(|path| format!("{}: names `{}`", file.path, path.join("::"))).collect()
}

/// What the engine may not name, whatever brings it in.
pub(super) fn impure(file: &File) -> Vec<String> {
    const WORLD: &[&str] = &[
        "std::fs",
        "std::env",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "ToSocketAddrs",
        "std::thread",
        "std::process",
        "std::io::std",
        "Utc::now",
        "Local::now",
        "SystemTime",
        "Instant",
        "println!",
        "print!",
        "eprintln!",
        "eprint!",
        "tokio::",
    ];
    let named = WORLD.iter().filter(|name| file.production.contains(*name));
    named.map(|name| format!("{}: the engine is pure and names `{name}`", file.path)).collect()
}

/// Dependencies (not for tests) that would let a pure crate out.
pub(super) fn impure_dependencies(manifest: &str) -> Vec<String> {
    const WORLD: &[&str] = &[
        "tokio",
        "reqwest",
        "hyper",
        "axum",
        "rusqlite",
        "lettre",
        "notify",
        "tracing",
        "metrics",
        "rand",
        "vigie",
        "vigie-sim",
    ];
    let section = manifest.split("[dependencies]").nth(1).unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    let names = section.lines().filter_map(|line| line.split(['=', '.', ' ']).next());
    names.filter(|name| WORLD.contains(name)).map(str::to_owned).collect()
}

/// `src/sink/http.rs` is `["sink", "http"]`; roots of crates have none.
fn module<'a>(path: &'a str, root: &str) -> Option<Vec<&'a str>> {
    let path = path.strip_prefix(root)?.strip_suffix(".rs")?;
    (path != "lib").then(|| path.split('/').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(check: fn(&File) -> Vec<String>, path: &str, text: &str) -> bool {
        !check(&File::new(path, text)).is_empty()
    }

    #[test]
    fn an_import_that_points_up_or_sideways_is_found() {
        for (path, text) in [
            ("src/config/schema.rs", "use crate::cli::Exit;"),
            ("src/pipeline/deliver.rs", "use crate::config::{schema, Config};"),
            ("src/clock.rs", "fn f() { crate::secret::x() }"),
            ("src/sink/slack.rs", "use super::email;"),
            ("src/sink/http.rs", "use crate::sink::slack::SECTION;"),
            ("src/store/memory.rs", "use super::{archive, sqlite::SqliteStore};"),
            ("src/source/vonage.rs", "use crate::store::sqlite::SqliteStore;"),
            ("src/sink/slack.rs", "use crate::pipeline::{BoxFuture, notice};"),
            ("src/source/vonage/client.rs", "use vigie_sim::Event;"),
        ] {
            assert!(bad(program, path, text), "{path}: {text}");
        }
    }

    #[test]
    fn imports_that_point_down_are_not_found() {
        for (path, text) in [
            ("src/cli/demo/pack.rs", "use crate::config::Config; use vigie_sim::World; use super::super::exit;"),
            ("src/sink/slack.rs", "use super::http::answer; use super::{Sink, text}; use crate::pipeline::BoxFuture;"),
            ("src/store.rs", "use crate::source::{Cursor, Seen}; use crate::sink::Delivery;"),
            ("src/sink.rs", "use slack::OPTIONS; use self::slack::KIND;"),
            ("src/sink/slack.rs", "#[cfg(test)]\nmod tests { use crate::cli::Exit; }"),
        ] {
            let found = program(&File::new(path, text));
            assert!(found.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn the_engine_is_held_to_its_order_and_its_purity() {
        assert!(bad(engine, "crates/engine/src/event/path.rs", "use crate::{text, rule::Rule};"));
        assert!(bad(engine, "crates/engine/src/rule/load.rs", "use crate::engine::Engine;"));
        assert!(!bad(engine, "crates/engine/src/rule/load.rs", "use crate::rule::Rule; use crate::yaml::Node;"));
        assert!(bad(engine, "crates/engine/src/newcomer.rs", ""));
        assert!(bad(impure, "crates/engine/src/event.rs", "let text = std::fs::read_to_string(path);"));
        assert!(!bad(impure, "crates/engine/src/event.rs", "/// Never `std::fs`.\nfn f() {}"));
        let manifest = "[dependencies]\nregex = \"1\"\ntokio = { version = \"1\" }\n[dev-dependencies]\nrand = \"1\"\n";
        assert_eq!(impure_dependencies(manifest), ["tokio"]);
    }
}
