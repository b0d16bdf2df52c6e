//! `heartbeat:`: a URL that is asked while polling and delivery succeed.

use std::sync::Arc;

use vigie_engine::diagnostic::Diagnostics;

use super::Sections;
use super::variables::Variables;
use crate::options::{OptionKind, OptionSpec, Presence};
use crate::pipeline::heartbeat::Beat;
use crate::sink::BuildContext;
use crate::sink::http::{TRANSPORT, endpoint};

/// Options of `heartbeat:`, beside those of the transport.
pub const HEARTBEAT_OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "url",
        kind: OptionKind::Url(&["https", "http"]),
        presence: Presence::Required,
        help: "asked by GET while all is well, such as the ping URL of a dead man's switch; it is a secret",
    },
    OptionSpec {
        name: "every",
        kind: OptionKind::Every(10_000, 86_400_000),
        presence: Presence::Default("1m"),
        help: "how often",
    },
    OptionSpec {
        name: "late_after",
        kind: OptionKind::Duration(60_000, 86_400_000),
        presence: Presence::Default("10m"),
        help: "it falls silent when a delivery waits for longer than this, a source fails, or nothing can be stored",
    },
];

/// Reads the section, if it is there.
pub(super) fn read(
    sections: &Sections,
    variables: &Variables<'_>,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Beat> {
    sections.refuse_second("heartbeat", diagnostics);
    let node = sections.get("heartbeat")?;
    let specs = [HEARTBEAT_OPTIONS, TRANSPORT].concat();
    let options = variables.read(node, "`heartbeat`", &specs, diagnostics)?;
    let endpoint = endpoint(&options, "url", Vec::new(), context, diagnostics)?;
    let (every, late_after) = (options.duration("every")?, options.duration("late_after")?);
    options.is_whole().then(|| Beat { ping: Arc::new(endpoint), every, late_after })
}
