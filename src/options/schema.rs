//! JSON Schema of a driver's options, made from its table; it says nothing that the table does not.

use serde_json::json;

use super::{OptionKind, OptionSpec, Presence};

/// JSON Schema of a driver's options.
#[must_use]
pub fn json_schema(specs: &[OptionSpec]) -> serde_json::Value {
    let one_or_more =
        || json!({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]});
    let properties: serde_json::Map<String, serde_json::Value> = specs
        .iter()
        .map(|spec| {
            let mut schema = match spec.kind {
                OptionKind::Text | OptionKind::File | OptionKind::Secret => json!({"type": "string", "minLength": 1}),
                OptionKind::Url(_) | OptionKind::Via(_) => json!({"type": "string", "minLength": 1}),
                OptionKind::Integer(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
                OptionKind::Flag => json!({"type": "boolean"}),
                OptionKind::Duration(..) => json!({"type": "string", "pattern": "^([0-9]+ *(ms|s|m|h|d|w) *)+$"}),
                OptionKind::Every(..) => {
                    json!({"type": "string", "pattern": "^(every )? *([0-9]+ *(ms|s|m|h|d|w) *)+$"})
                }
                OptionKind::Size(..) => json!({"type": "string", "pattern": "^[0-9]+ *([kKMG]i?)?B$"}),
                OptionKind::Rate => json!({"type": "string", "pattern": "^ *[0-9]+ */ *[smhd] *$"}),
                OptionKind::Choice(words) => json!({"enum": words}),
                OptionKind::Texts | OptionKind::Secrets | OptionKind::Urls(_) => one_or_more(),
                OptionKind::Map => json!({"type": "object", "additionalProperties": {"type": "string"}}),
            };
            if let Some(members) = schema.as_object_mut() {
                members.insert("description".into(), spec.help.into());
                if let Presence::Default(text) = spec.presence {
                    let typed = match spec.kind {
                        OptionKind::Integer(..) | OptionKind::Flag => serde_json::from_str(text).ok(),
                        _ => None,
                    };
                    members.insert("default".into(), typed.unwrap_or_else(|| text.into()));
                }
            }
            (spec.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<_> =
        specs.iter().filter(|spec| spec.presence == Presence::Required).map(|spec| spec.name).collect();
    let mut schema = json!({"type": "object", "additionalProperties": false, "properties": properties});
    if let (Some(members), false) = (schema.as_object_mut(), required.is_empty()) {
        members.insert("required".into(), required.into());
    }
    schema
}
