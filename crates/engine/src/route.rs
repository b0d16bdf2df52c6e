//! Routes: which alert goes to which sinks. Ordered; the first that matches takes the alert unless it says `continue`.
