//! Vigie, as a library for its own binary and tests. Layers, from the top: `cli`, `console`, `pipeline`, `config`,
//! drivers (`source`, `store`, `sink`), leaves (`clock`, `secret`, `metrics`, `backoff`).

pub mod backoff;
pub mod clock;
pub mod options;
pub mod pipeline;
pub mod secret;
pub mod sink;
pub mod source;
pub mod store;
