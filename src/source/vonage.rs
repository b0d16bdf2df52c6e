//! The Vonage Audit API as a source.

pub mod calibration;
pub mod client;
pub mod event;
pub mod stamp;
pub mod state;
pub mod transport;
pub mod window;
