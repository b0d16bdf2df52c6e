//! Tests from outside: the real binary, real sockets on loopback, real processes that are killed; and whole parts in
//! simulations on paused time.

#![expect(
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::string_slice,
    reason = "tests print their figures and fail by panicking"
)]

mod api;
mod bad_input;
mod canary;
mod crash;
mod delivery;
mod full_disk;
mod hostile;
mod poller_sim;
mod program;
mod receiver;
mod relay;
mod ssrf;
