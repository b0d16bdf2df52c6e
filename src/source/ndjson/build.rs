//! The options of the source kind `ndjson`.

use std::path::PathBuf;

use vigie_engine::diagnostic::Diagnostics;

use super::{DEFAULT_LATENESS, Fields, NdjsonOptions, NdjsonSource};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::source::{BuildContext, Built};

/// Options of the source kind `ndjson`.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "path",
        kind: OptionKind::Text,
        presence: Presence::Required,
        help: "file with one JSON object a line, relative to the working directory; `-` is stdin",
    },
    OptionSpec {
        name: "follow",
        kind: OptionKind::Flag,
        presence: Presence::Default("false"),
        help: "wait for more at the end of the file, over rotation and truncation",
    },
    OptionSpec {
        name: "lateness",
        kind: OptionKind::Duration(0, 7 * 86_400_000),
        presence: Presence::Default("1m"),
        help: "how late a line may be written to a followed file before an absence counts it as missing",
    },
    OptionSpec {
        name: "id_field",
        kind: OptionKind::Texts,
        presence: Presence::Optional,
        help: "where an event's id stands, as dotted paths [default: id]; without one, or when another line has it too, it is computed from the line",
    },
    OptionSpec {
        name: "time_field",
        kind: OptionKind::Texts,
        presence: Presence::Optional,
        help: "where its time stands [default: created_at, timestamp, time, @timestamp, eventTime]",
    },
    OptionSpec {
        name: "type_field",
        kind: OptionKind::Texts,
        presence: Presence::Optional,
        help: "where its type stands; copied to event_type in lines that have none",
    },
];

/// Builds the source from its options. Opens nothing.
pub fn build(options: &Options, name: &str, context: &BuildContext, diagnostics: &mut Diagnostics) -> Option<Built> {
    let path = options.text("path")?;
    let follow = options.flag("follow");
    if follow && path == "-" {
        let hint = "leave `follow` out: stdin is read to its end anyway";
        diagnostics.error("E0431", options.span_of("follow"), "stdin cannot be followed", Some(hint.into()));
        return None;
    }
    let defaults = Fields::default();
    let fields = |option: &str, default: Vec<String>| match options.texts(option) {
        [] => default,
        paths => paths.to_vec(),
    };
    let ndjson = NdjsonOptions {
        name: name.to_owned(),
        path: (path != "-").then(|| PathBuf::from(path)),
        fields: Fields {
            id: fields("id_field", defaults.id),
            time: fields("time_field", defaults.time),
            event_type: fields("type_field", defaults.event_type),
        },
        follow,
        lateness: options.duration("lateness").unwrap_or(DEFAULT_LATENESS),
    };
    let source = NdjsonSource::new(ndjson, context.clock.clone());
    Some(Built { source: Box::new(source), account: None, reads_stdin: path == "-" })
}
