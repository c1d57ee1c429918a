//! The patch formats: JSON patch (RFC 6902), merge patch (RFC 7386) and Kubernetes' strategic merge patch.

mod json;
mod strategic;

use serde_json::Value;

pub use json::json_patch;
pub use strategic::strategic_merge_patch;

/// Why a patch could not be applied. The target is unchanged unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The document is no JSON patch: not an array of operations, or an unknown operation.
    #[error("the patch is not a JSON patch: {0}")]
    NotAJsonPatch(#[source] serde_json::Error),
    /// An operation does not fit the object, or a `test` failed.
    #[error("the JSON patch does not fit the object: {0}")]
    Operation(#[source] json_patch::PatchError),
    /// A patch that must be an object is none.
    #[error("the patch must be an object, found {0}")]
    NotAnObject(&'static str),
    /// A directive of a strategic merge patch has a value it cannot have.
    #[error("invalid directive {directive:?} in the patch at {path:?}: {problem}")]
    Directive {
        /// E.g. `$patch`.
        directive: String,
        /// Where, e.g. `spec.template`.
        path: String,
        /// What was expected and found.
        problem: String,
    },
    /// An item of a list that is merged by a key lacks that key.
    #[error("an item of {path:?} in the patch does not contain its merge key {key:?}: {item}")]
    MergeKey {
        /// The list.
        path: String,
        /// The key.
        key: String,
        /// The item as JSON.
        item: String,
    },
}

/// Applies a merge patch: maps merge, null deletes, everything else replaces.
pub fn merge_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        return Err(PatchError::NotAnObject(type_name(patch)));
    }
    json_patch::merge(target, patch);
    Ok(())
}

/// What a JSON value is, for messages.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What these do first cannot be undone.
    #[test]
    fn a_json_patch_that_fails_after_a_move_over_an_ancestor_changes_nothing() {
        let object = json!({"data": {"a": "x", "b": "y"}, "list": ["a", "b"]});
        for (from, path) in [("/data/a", "/data"), ("/data/a", ""), ("/list/0", "/list")] {
            for failing in
                [json!({"op": "test", "path": "/data/zz", "value": 1}), json!({"op": "remove", "path": "/nope"})]
            {
                let patch = json!([{"op": "move", "from": from, "path": path}, failing]);
                let mut patched = object.clone();
                assert!(matches!(json_patch(&mut patched, &patch), Err(PatchError::Operation(_))), "{patch}");
                assert_eq!(patched, object, "{patch}");
            }
        }
    }

    #[test]
    fn a_merge_patch_is_an_object() {
        let mut object = json!({"a": {"b": 1, "c": [1, 2]}});
        merge_patch(&mut object, &json!({"a": {"b": null, "c": [3], "d": {"e": null}}})).unwrap();
        assert_eq!(object, json!({"a": {"c": [3], "d": {}}}));
        assert!(merge_patch(&mut object, &json!([])).is_err());
    }

    /// The merge patch that turns `old` into `new`; for maps without null values.
    fn difference(old: &Value, new: &Value) -> Value {
        let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return new.clone() };
        let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
        let changed = new.iter().filter(|(key, value)| old.get(*key) != Some(value));
        let changed = changed.map(|(key, value)| (key.clone(), difference(old.get(key).unwrap_or(&json!({})), value)));
        Value::Object(gone.chain(changed).collect())
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from)
        ];
        let value = leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        prop::collection::btree_map("[a-d]", value, 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn a_difference_applied_gives_the_new_document(old in document(), new in document()) {
            let mut patched = old.clone();
            merge_patch(&mut patched, &difference(&old, &new)).unwrap();
            prop_assert_eq!(patched, new);
        }
    }
}
