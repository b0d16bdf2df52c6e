//! The plan against the plain meaning of conditions.
