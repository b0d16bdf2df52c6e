//! Tests from outside: the real binary, real sockets on loopback, real processes that are killed; and whole parts in
//! simulations on paused time.

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
mod tidy;
mod relay;
mod ssrf;
