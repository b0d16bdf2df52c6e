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
    UNKNOWN_KEY = "E0201", "a key that means nothing here";
    MISSING_KEY = "E0202", "a required key is missing or empty";
    WRONG_KIND = "E0203", "a value of the wrong kind: a map where text is wanted, and the like";
    BAD_RULE_ID = "E0204", "a rule id that is not kebab-case or too long";
    DUPLICATE_RULE_ID = "E0205", "two rules have one id";
    BAD_SEVERITY = "E0206", "a severity that does not exist";
    BAD_DURATION = "E0207", "a duration that cannot be read; a number needs a unit";
    BAD_UNTIL = "E0208", "an end that is neither a date nor a time stamp";
    BAD_TEMPLATE = "E0209", "a template that does not compile";
    BAD_DEDUP = "E0210", "a dedup field that is not a plain field path";
    BAD_DETECTION = "E0211", "a stateful detection with an option that cannot be used";
    BAD_EXPECTATION = "E0212", "a test expectation other than `alert`, `nothing` or `{alerts: N}`";
    TEST_FAILED = "E0213", "a rule does not do what its own test says";
    SECOND_DETECTION = "E0214", "a rule with two stateful detections";
    UNKNOWN_LIST = "E0220", "a `$name` that no list has";
    EMPTY_LIST = "E0221", "a list in use that holds nothing";
    UNREADABLE_LIST = "E0222", "the file of a list cannot be read or is too long";
    DUPLICATE_LIST = "E0223", "two lists have one name";
    BAD_LIST = "E0224", "a list name or list value that cannot be used";
    NESTED_LIST = "E0225", "a list that refers to a list";
    ROUTE_SINK = "E0240", "a route to no sink, or to one that does not exist";
    ROUTE_KEY = "E0241", "a route asks for something that an alert does not have";
    BAD_MATCHER = "E0242", "a matcher that cannot be read, or whose pattern cannot be used";
    EMPTY_CONDITION = "E0350", "a condition or block without parts: it would match everything or nothing";
    BAD_BLOCK = "E0351", "a block that is not written as it should be";
    NO_VALUE = "E0352", "a field without a value";
    CONTRADICTION = "E0353", "a condition that can never hold";
    BAD_VALUE = "E0354", "a value that is a map or a list";
    UNKNOWN_EVENT_TYPE = "W0201", "an event type that the source is not known to have";
    AMBIGUOUS_WORD = "W0202", "a bare word that other YAML readers take for a boolean; here it is text";
    NO_TESTS = "W0203", "a rule without tests";
    ENDLESS_EXCEPTION = "W0204", "an exception without an end";
    UNUSED_LIST = "W0205", "a list that nothing uses";
    NO_RULES = "W0206", "a rule file without rules and lists";
    NEEDS_A_LIST = "W0207", "two equalities on one field, which only a list of values can fulfil";
    UNKNOWN_COUNTRY = "W0208", "two letters that are no country code, or a country's name in place of its code";
    UNREACHABLE_ROUTE = "W0240", "a route behind one that takes every alert";
    NO_CATCH_ALL = "W0241", "alerts that no route takes";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_is_used_twice() {
        for window in ALL.windows(2) {
            assert!(window[0].0 < window[1].0, "{} before {}", window[0].0, window[1].0);
        }
    }
}
