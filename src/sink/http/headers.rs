//! Headers that an operator adds to the requests of a sink.
//!
//! Their values are secrets: they are marked as such, and no finding shows one.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use vigie_engine::diagnostic::Diagnostics;

use crate::options::{OptionKind, OptionSpec, Options, Presence};

/// Option of a sink that takes headers.
pub const HEADERS: OptionSpec = OptionSpec {
    name: "headers",
    kind: OptionKind::Map,
    presence: Presence::Optional,
    help: "additional headers, such as Authorization",
};
/// Headers that every request owns.
const OWN_HEADERS: &[&str] = &["host", "content-length", "content-type", "transfer-encoding", "connection"];

/// The headers of the option [`HEADERS`], or what is wrong with them; `own` are those that the sink sets, in lower case.
pub fn read(options: &Options, name: &str, own: &[&str], diagnostics: &mut Diagnostics) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut complete = true;
    for (header, value) in options.map(HEADERS.name) {
        let mut refuse = |why: &str, hint: &str| {
            let message = format!("sink `{name}`: header `{header}` {why}");
            diagnostics.error("E0426", options.span_of(HEADERS.name), message, Some(hint.into()));
            complete = false;
        };
        let Ok(parsed) = HeaderName::from_bytes(header.as_bytes()) else {
            refuse("is no header name", "letters, digits and `-`, such as X-Team");
            continue;
        };
        if OWN_HEADERS.contains(&parsed.as_str()) || own.contains(&parsed.as_str()) {
            refuse("is set by the sink itself", "remove it, or give it another name");
            continue;
        }
        match HeaderValue::from_str(value.expose()) {
            Ok(mut value) => {
                value.set_sensitive(true);
                headers.insert(parsed, value);
            }
            Err(_) => refuse("has a value that no header can carry", "visible ASCII on one line"),
        }
    }
    complete.then_some(headers)
}
