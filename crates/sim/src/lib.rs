//! A stand-in for the Vonage Audit API.
