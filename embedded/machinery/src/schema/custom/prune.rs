//! Removing what the schema does not know.

use serde_json::Value;

use super::{field_schema, is_set, preserves_unknown};
use crate::schema::join;

/// Fields that the root, and every embedded object, always has.
const EMBEDDED: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Prunes an object and returns the paths of what went.
pub(super) fn prune(schema: &Value, object: &mut Value) -> Vec<String> {
    let mut gone = Vec::new();
    prune_value(schema, object, "", true, &mut gone);
    gone
}

fn prune_value(schema: &Value, value: &mut Value, path: &str, root: bool, gone: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let embedded = root || is_set(schema, "x-kubernetes-embedded-resource");
            let any = preserves_unknown(schema) || is_set(schema, "additionalProperties");
            map.retain(|name, value| {
                if embedded && EMBEDDED.contains(&name.as_str()) {
                    return true;
                }
                match field_schema(schema, name) {
                    Some(field) => prune_value(field, value, &join(path, name), false, gone),
                    None if any => {}
                    None => {
                        gone.push(join(path, name));
                        return false;
                    }
                }
                true
            });
        }
        Value::Array(items) => {
            let Some(schema) = schema.get("items") else { return };
            for (index, item) in items.iter_mut().enumerate() {
                prune_value(schema, item, &format!("{path}[{index}]"), false, gone);
            }
        }
        _ => {}
    }
}
