//! Filling in the schema's defaults.

use serde_json::Value;

use super::{field_schema, is_set};

/// Fills in defaults. A null where null is not allowed counts as absent.
pub fn apply_defaults(schema: &Value, object: &mut Value) {
    match object {
        Value::Object(map) => {
            for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let Some(default) = field.get("default") else { continue };
                let present = map.get(name).is_some_and(|value| !value.is_null() || is_set(field, "nullable"));
                if !present {
                    map.insert(name.clone(), default.clone());
                }
            }
            // Where no default has taken its place, it goes.
            map.retain(|name, value| {
                !value.is_null() || field_schema(schema, name).is_none_or(|field| is_set(field, "nullable"))
            });
            for (name, value) in map {
                if let Some(field) = field_schema(schema, name) {
                    apply_defaults(field, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| apply_defaults(schema, item));
            }
        }
        _ => {}
    }
}
