//! Tests from outside: the real binary, real sockets on loopback, real processes that are killed; and whole parts in
//! simulations on paused time.

mod api;
mod bad_input;
mod canary;
mod cli;
mod crash;
mod delivery;
mod full_disk;
mod hostile;
mod poller_sim;
mod program;
mod receiver;
mod relay;
mod ssrf;
mod tidy;
