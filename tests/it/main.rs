//! One integration binary.

mod poller_sim;
