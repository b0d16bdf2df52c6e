//! Diagnostic codes of tests and time windows, all in one place; a code is never reused for something else.

/// A field modifier that does not exist.
pub const UNKNOWN_MODIFIER: &str = "E0301";
/// Modifiers that have no meaning together.
pub const CONFLICTING_MODIFIERS: &str = "E0302";
/// A field path that cannot be read.
pub const BAD_FIELD: &str = "E0303";
/// A test without values.
pub const NO_VALUES: &str = "E0304";
/// A value that the modifier cannot use.
pub const WRONG_VALUE: &str = "E0305";
/// A regular expression that does not compile or is too large.
pub const BAD_REGEX: &str = "E0306";
/// A network that is no CIDR block.
pub const BAD_NETWORK: &str = "E0307";
/// A range that cannot be read or is empty.
pub const BAD_RANGE: &str = "E0308";
/// Something that should be a number.
pub const BAD_NUMBER: &str = "E0309";
/// A scope of addresses that does not exist.
pub const UNKNOWN_SCOPE: &str = "E0310";
/// A domain that cannot be one.
pub const BAD_DOMAIN: &str = "E0311";
/// An encoding that is incomplete or used on a wildcard.
pub const BAD_ENCODING: &str = "E0312";
/// A `%placeholder%` that nobody expanded.
pub const UNEXPANDED: &str = "E0313";
/// Days that cannot be read.
pub const BAD_DAYS: &str = "E0320";
/// Hours that cannot be read.
pub const BAD_HOURS: &str = "E0321";
/// A time zone that does not exist.
pub const UNKNOWN_ZONE: &str = "E0322";
/// A time window that says nothing.
pub const EMPTY_WINDOW: &str = "E0323";
