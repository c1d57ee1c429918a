//! The seam to the machinery: schemas, ownership of fields, server-side apply.

use serde_json::Value;

use crate::{ResourceType, Status, Subresource, WriteOptions};

/// Kinds in which null is a value of its own, because fields hold any JSON.
const NULL_MATTERS: [&str; 2] = ["CustomResourceDefinition", "ControllerRevision"];

/// Checks types and, when `strict`, unknown fields. Nulls in built-in kinds mean unset and are dropped.
pub(crate) fn decode(kind: &ResourceType, _version: &str, object: &mut Value, _strict: bool) -> Result<(), Status> {
    if kind.builtin && !NULL_MATTERS.contains(&kind.kind.as_str()) {
        drop_nulls(object);
    }
    Ok(())
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Prunes, defaults and validates a custom object against its schema.
pub(crate) fn complete(_kind: &ResourceType, _version: &str, _object: &mut Value) -> Result<(), Status> {
    Ok(())
}

/// Notes in `managedFields` what a manager changed.
pub(crate) fn track(
    _kind: &ResourceType,
    _old: Option<&Value>,
    _new: &mut Value,
    _sub: Subresource,
    _options: &WriteOptions,
) {
}

/// Server-side apply of a configuration to the live object.
pub(crate) fn merge(
    _kind: &ResourceType,
    live: Option<&Value>,
    applied: &Value,
    _subresource: Subresource,
    _options: &WriteOptions,
) -> Result<Value, Status> {
    fn merge_into(target: &mut Value, patch: &Value) {
        match (target, patch) {
            (Value::Object(target), Value::Object(patch)) => {
                for (key, value) in patch {
                    merge_into(target.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
            (target, patch) => *target = patch.clone(),
        }
    }
    let mut merged = live.cloned().unwrap_or_else(|| Value::Object(Default::default()));
    merge_into(&mut merged, applied);
    Ok(merged)
}
