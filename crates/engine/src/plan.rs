//! The compiled rule set: all conditions of all rules, arranged so that one event touches only what can match it.
