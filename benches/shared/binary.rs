//! Which binary is measured.

use std::path::PathBuf;

/// That of `VIGIE_BINARY`, else the one that `cargo bench` builds, which has the features of what tests need beside its own.
#[expect(clippy::disallowed_methods, reason = "the benchmark's own setting")]
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("VIGIE_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_vigie").into(), PathBuf::from)
}
