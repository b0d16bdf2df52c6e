//! Edge cases of the rule language, one by one.
