//! The log on stderr. Event text reaches it in debug form only, so escapes in it are inert.

use tracing_subscriber::EnvFilter;

use super::{Global, LogFormat};

/// Starts the log of this process; `default_level` is what a verb shows without `-v`.
pub(super) fn start(global: &Global, default_level: &str) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => default_level,
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    // HTTP libraries print headers and URLs at trace level; those may hold secrets.
    let filter = EnvFilter::new(format!("warn,vigie={level}"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let started = match global.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
    };
    // A log that was started before (a verb that calls another) goes on as it is.
    if started.is_err() {
        tracing::debug!("the log is already there");
    }
}
