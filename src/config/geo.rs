//! `geo:`, the operator's address databases, and the rules that ask for what nobody can tell them.

use std::path::PathBuf;
use std::sync::Arc;

use vigie_engine::diagnostic::{Diagnostics, Span};
use vigie_engine::rule::Rule;

use super::{Sections, directory_of, files, read_section};
use crate::geo::{Database, Lookup, MAX_DATABASE_BYTES};
use crate::options::{Expand, OptionKind, OptionSpec, Options, Presence};

/// Options of `geo:`.
pub const GEO_OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "database",
        kind: OptionKind::Text,
        presence: Presence::Optional,
        help: "mmdb file of countries or cities, relative to the file that names it; read at start and at each reload",
    },
    OptionSpec {
        name: "asn",
        kind: OptionKind::Text,
        presence: Presence::Optional,
        help: "mmdb file of autonomous systems, if the database does not hold them",
    },
];

/// What rules see under `geo.`, for the reference.
pub const GEO_FIELDS_HELP: &[(&str, &str)] = &[
    ("geo.country", "ISO 3166-1 alpha-2 code"),
    ("geo.city", "name, in English if the database has several"),
    ("geo.asn", "number of the autonomous system"),
    ("geo.as_org", "who runs it"),
    ("geo.lat", "degrees north"),
    ("geo.lon", "degrees east"),
    ("geo.mismatch", "whether `geo.country` and `source_country` differ; missing unless both are known"),
];

/// Reads the databases that the configuration names; `None` without any, or when something was reported.
pub(super) fn load(
    sections: &Sections,
    rules: &[Rule],
    expand: Expand<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Arc<Lookup>> {
    let Some(section) = sections.get("geo") else {
        warn_unanswered(rules, &sections.anchor, diagnostics);
        return None;
    };
    let options = read_section(sections, "geo", GEO_OPTIONS, expand, diagnostics)?;
    if GEO_OPTIONS.iter().all(|spec| options.text(spec.name).is_none()) {
        let hint = "add `database: PATH`, `asn: PATH` or both";
        diagnostics.error("E0433", &section.span, "`geo` names no database", Some(hint.into()));
        return None;
    }
    // Both are read, so that one look shows what is wrong with either.
    let [place, network] = ["database", "asn"].map(|name| database(&options, name, diagnostics));
    Some(Arc::new(Lookup::new(place.ok()?, network.ok()?)))
}

/// The database of an option; `Err` after something was reported.
fn database(options: &Options, name: &str, diagnostics: &mut Diagnostics) -> Result<Option<Database>, ()> {
    let Some(path) = options.text(name) else { return Ok(None) };
    let span = options.span_of(name);
    let path = directory_of(&span.path).join(path);
    read(&path).map(Some).map_err(|(problem, hint)| {
        diagnostics.error("E0433", span, format!("{} {problem}", path.display()), Some(hint.to_owned()));
    })
}

fn read(path: &PathBuf) -> Result<Database, (String, &'static str)> {
    let unreadable = |error: std::io::Error| {
        let hint = "look at its permissions, and at the path: it counts from the folder of the file that names it";
        (format!("cannot be read ({error})"), hint)
    };
    // A pipe or a device would be read for ever.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(("is not a file".into(), "name the mmdb file itself"));
    }
    let bytes = files::read_bounded(path, MAX_DATABASE_BYTES).map_err(unreadable)?;
    let bytes = bytes.ok_or_else(|| {
        let hint = "it is held in memory; take a smaller edition, such as one of countries";
        (format!("is larger than {MAX_DATABASE_BYTES} bytes"), hint)
    })?;
    Database::new(bytes).map_err(|problem| {
        (
            format!("is no address database ({problem})"),
            "take the file that ends in .mmdb, unpacked; fetch it again if it is that",
        )
    })
}

/// Warns about rules that ask for `geo.*` while nobody can answer: they may be dead without a sign.
fn warn_unanswered(rules: &[Rule], anchor: &Span, diagnostics: &mut Diagnostics) {
    let asking: Vec<&Rule> = rules.iter().filter(|rule| rule.enabled && rule.asks_geo()).collect();
    let Some(first) = asking.first() else { return };
    let ids: Vec<&str> = asking.iter().map(|rule| rule.id.as_str()).collect();
    let text = match ids.as_slice() {
        [only] => format!("rule `{only}` asks for `geo.*`, but no address database is configured"),
        ids => format!("{} rules ask for `geo.*`, but no address database is configured", ids.len()),
    };
    let hint = format!(
        "those fields are missing then; add `geo: {{database: PATH}}` to {}; asking: {}",
        anchor.path,
        ids.join(", ")
    );
    diagnostics.warning("W0402", &first.span, text, Some(hint));
}
