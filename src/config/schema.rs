//! JSON Schema of configuration and rule files, made from the option tables.

use serde_json::{Map, Value, json};

use super::{GEO_OPTIONS, HEARTBEAT_OPTIONS, SERVER_OPTIONS, STATE_OPTIONS};
use crate::options::json_schema;
use crate::sink::http::TRANSPORT;
use crate::{sink, source};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Written by hand: a rule's `when` is a free map whose keys are fields with modifiers.
const RULES: &str = include_str!("rules.schema.json");

/// Schema of a configuration file.
#[must_use]
pub fn config() -> Value {
    let sources = source::KINDS.iter().map(|kind| (kind.kind, json_schema(kind.options)));
    let sinks = sink::KINDS.iter().map(|kind| (kind.kind, json_schema(&kind.specs())));
    json!({
        "$schema": DIALECT,
        "title": "Vigie configuration",
        "type": "object",
        "additionalProperties": false,
        "required": ["sources", "rules"],
        "properties": {
            "sources": named(sources),
            "rules": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
            "sinks": named(sinks),
            "routes": {"type": "array", "items": {"$ref": "#/$defs/route"}},
            "inhibit": {"type": "array", "items": inhibition()},
            "geo": json_schema(GEO_OPTIONS),
            "heartbeat": json_schema(&[HEARTBEAT_OPTIONS, TRANSPORT].concat()),
            "state": json_schema(STATE_OPTIONS),
            "server": json_schema(SERVER_OPTIONS),
        },
        "$defs": {"route": route()},
    })
}

/// Schema of a rule file.
#[must_use]
pub fn rules() -> Value {
    serde_json::from_str(RULES).unwrap_or(Value::Null)
}

fn named(kinds: impl Iterator<Item = (&'static str, Value)>) -> Value {
    let properties: Map<String, Value> = kinds.map(|(name, schema)| (name.to_owned(), schema)).collect();
    json!({
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": "^[A-Za-z0-9._-]{1,64}$"},
        "additionalProperties": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": false,
            "properties": properties,
        },
    })
}

fn route() -> Value {
    let texts = json!({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]});
    let during = json!({
        "type": "object",
        "additionalProperties": false,
        "minProperties": 1,
        "properties": {"days": {"type": "string"}, "hours": {"type": "string"}, "tz": {"type": "string"}},
    });
    // An empty list switches off what a route would take over from the one that it stands in.
    let texts_or_none = json!({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]});
    json!({
        "type": "object",
        "additionalProperties": false,
        "anyOf": [{"required": ["to"]}, {"required": ["routes"]}, {"required": ["match"]}, {"required": ["matchers"]}],
        "properties": {
            "match": {"type": "object"},
            "matchers": texts,
            "to": texts,
            "continue": {"type": "boolean"},
            "fallback": texts_or_none,
            "after": {"type": "string"},
            "dedup": texts_or_none,
            "quiet": {"type": "string"},
            "mute": {"oneOf": [during, {"type": "array", "items": during}]},
            "routes": {"type": "array", "items": {"$ref": "#/$defs/route"}},
        },
    })
}

fn inhibition() -> Value {
    let side = json!({"oneOf": [{"type": "string"}, {"type": "object"}]});
    let texts = json!({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]});
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["source", "target", "equal"],
        "properties": {"source": side, "target": side, "equal": texts},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_schemas_are_objects_with_their_sections() {
        assert!(rules()["properties"]["rules"].is_object(), "rules.schema.json does not parse");
        let config = config();
        for section in super::super::TOP_LEVEL {
            assert!(config["properties"][section].is_object(), "{section}");
        }
        let kinds = &config["properties"]["sinks"]["additionalProperties"]["properties"];
        assert!(kinds["webhook"]["required"].as_array().is_some_and(|names| names.contains(&"url".into())), "{kinds}");
    }
}
