//! Tests from outside: the real binary, real sockets on loopback, real processes that are killed; and whole parts in
//! simulations on paused time.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::string_slice,
    clippy::disallowed_methods,
    reason = "all of this is test code, also what stands outside of test functions"
)]

mod api;
mod bad_input;
mod crash;
mod delivery;
mod full_disk;
mod hostile;
mod poller_sim;
mod program;
mod readme;
mod receiver;
mod relay;
mod ssrf;
mod tidy;
