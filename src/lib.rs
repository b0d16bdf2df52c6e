//! Vigie, as a library for its own binary and tests. Layers, from the top: `cli`, `daemon`, `console`, `config`,
//! `pipeline`, drivers (`source`, `store`, `sink`), leaves (`clock`, `secret`, `metrics`, `backoff`, `pace`).

pub mod backoff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod console;
pub mod daemon;
pub mod metrics;
pub mod options;
pub mod pace;
pub mod pipeline;
pub mod secret;
pub mod sink;
pub mod source;
pub mod store;
