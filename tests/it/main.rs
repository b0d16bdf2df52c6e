//! Tests from outside: the real binary, real sockets on loopback, real processes that are killed; and whole parts in
//! simulations on paused time.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::string_slice,
    reason = "helpers of tests fail by panicking and print what a person reads beside the verdict"
)]

mod api;
mod backfill;
mod backtest;
mod bad_input;
mod canary;
mod cli;
mod crash;
mod delivery;
mod explain;
mod flood;
mod full_disk;
mod geo;
mod hostile;
mod init;
mod mutes;
mod operator;
mod pack;
mod poller_sim;
mod probes;
mod program;
mod readme;
mod receiver;
mod relay;
mod rotation;
mod shipped;
mod ssrf;
mod tidy;
