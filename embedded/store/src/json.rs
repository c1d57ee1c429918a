//! Small accessors over `serde_json::Value`, so that the rules read like the paths they are about.

use meshgate_machinery::at;
use serde_json::{Map, Value};

/// The string at a JSON pointer, `""` when there is none.
pub(crate) fn str_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The value under `key`, unless it is null.
pub(crate) fn given<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.get(key).filter(|value| !value.is_null())
}

/// The integer at a JSON pointer.
pub(crate) fn int_at(value: &Value, pointer: &str) -> Option<i64> {
    at(value, pointer).and_then(Value::as_i64)
}

/// The elements of the array at a JSON pointer, none when there is no array.
pub(crate) fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    at(value, pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The elements of the array under `key`, to be changed.
pub(crate) fn items_mut<'a>(value: &'a mut Value, key: &str) -> &'a mut [Value] {
    value.get_mut(key).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

/// The object under `key`, made when it is absent or null; `None` when a value of another type is there.
pub(crate) fn child<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    let map = value.as_object_mut()?;
    let entry = map.entry(key).or_insert(Value::Null);
    if entry.is_null() {
        *entry = Value::Object(Map::new());
    }
    entry.as_object_mut()
}

/// The value under `key` as an object to be changed further, made when absent or null.
pub(crate) fn child_value<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    child(value, key)?;
    value.get_mut(key)
}

/// Whether the field is absent, null or an empty string: what Go calls unset.
pub(crate) fn unset(value: &Value, key: &str) -> bool {
    match value.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    }
}

/// Gives an unset field of an object a value.
pub(crate) fn default_to(value: &mut Value, key: &str, default: impl Into<Value>) {
    if value.is_object() && unset(value, key) {
        value[key] = default.into();
    }
}

/// Sets `metadata.<key>`; does nothing when the object has no metadata map.
pub(crate) fn set_meta(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(meta) = child(object, "metadata") {
        meta.insert(key.to_owned(), value.into());
    }
}

/// Removes `metadata.<key>`.
pub(crate) fn drop_meta(object: &mut Value, key: &str) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove(key);
    }
}
