//! The stable codes of all findings about files, with one line of explanation each.
//!
//! A code is never reused for something else. `E01..` YAML, `E02..` rules and lists, `E03..` conditions, `E04..` the
//! configuration, `W....` warnings in the same hundreds. The list `ALL` is what a reference page is made from.

macro_rules! codes {
    ($($name:ident = $code:literal, $explanation:literal;)*) => {
        $(#[doc = $explanation] pub const $name: &str = $code;)*
        /// Every code of this table with its explanation, in order.
        pub const ALL: &[(&str, &str)] = &[$(($code, $explanation)),*];
    };
}

codes! {
    YAML_SYNTAX = "E0101", "the text is not YAML 1.2";
    YAML_DUPLICATE_KEY = "E0102", "a key stands twice in one map";
    YAML_KEY_NOT_TEXT = "E0103", "a map key is a list, a map or nothing";
    YAML_TOO_LARGE = "E0104", "the file has too many bytes or nodes, aliases expanded";
    YAML_TOO_DEEP = "E0105", "lists and maps are nested too deeply";
    YAML_ALIAS = "E0106", "an alias names no anchor, or one that contains it";
    YAML_SECOND_DOCUMENT = "E0107", "the file holds more than one document";
    YAML_TAG = "E0108", "a YAML tag that has no meaning here";
    YAML_MERGE_KEY = "E0109", "a merge key (`<<`), which YAML 1.2 does not have";
}
