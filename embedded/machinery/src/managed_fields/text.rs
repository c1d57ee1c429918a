//! `fieldsV1` as text: how a stored object keeps it, and how it becomes the tree that the API serves.
//!
//! A tree of one-key maps takes some twenty times the memory of its JSON text and is often larger than the object it
//! describes, and nobody but [`super::entries`] looks into it between a write and an answer. So a stored object carries
//! the text, and [`Wire`] writes it out as the tree.

use serde::ser::{Error, Serialize, SerializeMap, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// Where the text is in an object. Lists on the way are passed through.
const PATH: &[&str] = &["metadata", "managedFields", "fieldsV1"];

/// An object as JSON for its reader. For [`serde_json`]'s serializers only; other formats take [`expanded`].
pub struct Wire<'a>(pub &'a Value);

impl Serialize for Wire<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        At { value: self.0, path: PATH }.serialize(serializer)
    }
}

/// A value on the way to the text.
struct At<'a> {
    value: &'a Value,
    path: &'static [&'static str],
}

impl Serialize for At<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.value, self.path) {
            (Value::Object(map), [next, rest @ ..]) => {
                let mut out = serializer.serialize_map(Some(map.len()))?;
                for (key, value) in map {
                    if key == next {
                        out.serialize_entry(key, &At { value, path: rest })?;
                    } else {
                        out.serialize_entry(key, value)?;
                    }
                }
                out.end()
            }
            (Value::Array(items), path) => serializer.collect_seq(items.iter().map(|value| At { value, path })),
            (Value::String(text), []) => {
                serde_json::from_str::<&RawValue>(text).map_err(S::Error::custom)?.serialize(serializer)
            }
            (value, _) => value.serialize(serializer),
        }
    }
}

/// A copy of an object with the trees in it.
pub fn expanded(object: &Value) -> Value {
    let mut object = object.clone();
    let entries = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
    for fields in entries.into_iter().flatten().filter_map(|entry| entry.get_mut("fieldsV1")) {
        if let Some(tree) = fields.as_str().and_then(|text| serde_json::from_str(text).ok()) {
            *fields = tree;
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_text_leaves_as_the_tree_and_nothing_else_is_taken_for_it() {
        let object = |fields: Value| {
            json!({
                "data": {"fieldsV1": "{}", "managedFields": "{}"},
                "metadata": {"fieldsV1": "{}", "managedFields": [{"manager": "m", "fieldsV1": fields}, {}], "name": "a"},
            })
        };
        let tree = json!({"f:spec": {"k:{\"name\":\"a \\\"b\\\"\"}": {".": {}}}});
        let stored = object(json!(tree.to_string()));
        assert_eq!(serde_json::to_string(&Wire(&stored)).unwrap(), object(tree.clone()).to_string());
        assert_eq!(expanded(&stored), object(tree.clone()));
        // What came as a tree stays one.
        assert_eq!(serde_json::to_value(Wire(&object(tree.clone()))).unwrap(), object(tree.clone()));
        assert_eq!(expanded(&object(tree.clone())), object(tree));
    }
}
