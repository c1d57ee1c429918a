//! JSON patches (RFC 6902) as Kubernetes does them: indexes may count from the end of a list, and a test for null passes where
//! there is nothing.

use json_patch::PatchOperation;
use json_patch::jsonptr::PointerBuf;
use serde::Deserialize;
use serde_json::Value;

use super::PatchError;

/// Applies a JSON patch, all of it or nothing.
pub fn json_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations = json_patch::Patch::deserialize(patch).map_err(PatchError::NotAJsonPatch)?;
    // On a copy: undoing what was done, as `json_patch::patch` does, panics after some moves.
    let mut changed = target.clone();
    for (index, operation) in operations.0.into_iter().enumerate() {
        let operation = counted_from_start(operation, &changed);
        if finds_nothing(&operation, &changed) {
            continue;
        }
        json_patch::patch_unsafe(&mut changed, &[operation]).map_err(|mut error| {
            error.operation = index;
            PatchError::Operation(error)
        })?;
    }
    *target = changed;
    Ok(())
}

/// Whether an operation tests for null what an object does not have.
fn finds_nothing(operation: &PatchOperation, object: &Value) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    let path = test.path.as_str();
    test.value.is_null()
        && object.pointer(path).is_none()
        && parent(path).and_then(|parent| object.pointer(parent)).is_some_and(Value::is_object)
}

/// The operation with indexes that count from the start of lists in place of those that count from the end.
fn counted_from_start(mut operation: PatchOperation, object: &Value) -> PatchOperation {
    match &mut operation {
        // What is added last has one more place to go to.
        PatchOperation::Add(add) => add.path = counted(&add.path, object, 1),
        PatchOperation::Copy(copy) => {
            copy.from = counted(&copy.from, object, 0);
            copy.path = counted(&copy.path, object, 1);
        }
        PatchOperation::Move(step) => {
            // By the time that it gets its new place it has left its old one.
            let within = parent(step.from.as_str()) == parent(step.path.as_str());
            step.from = counted(&step.from, object, 0);
            step.path = counted(&step.path, object, usize::from(!within));
        }
        PatchOperation::Remove(remove) => remove.path = counted(&remove.path, object, 0),
        PatchOperation::Replace(replace) => replace.path = counted(&replace.path, object, 0),
        PatchOperation::Test(test) => test.path = counted(&test.path, object, 0),
    }
    operation
}

/// `room`: how many places there are beyond the last item of the list that the path ends in.
fn counted(path: &PointerBuf, object: &Value, room: usize) -> PointerBuf {
    let mut text = String::new();
    let mut place = Some(object);
    let mut tokens = path.as_str().split('/').skip(1).peekable();
    while let Some(token) = tokens.next() {
        let room = if tokens.peek().is_none() { room } else { 0 };
        let items = place.and_then(Value::as_array);
        let index = items.and_then(|items| from_end(token, items.len() + room)).map(|index| index.to_string());
        let step = format!("/{}", index.as_deref().unwrap_or(token));
        place = place.and_then(|place| place.pointer(&step));
        text.push_str(&step);
    }
    PointerBuf::parse(text).unwrap_or_else(|_| path.clone())
}

/// What `-1` and the like mean in a list.
fn from_end(token: &str, length: usize) -> Option<usize> {
    let back = token.strip_prefix('-')?.parse::<usize>().ok().filter(|back| *back > 0)?;
    length.checked_sub(back)
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_json_patch_is_atomic() {
        let mut object = json!({"a": 1});
        let patch = json!([{"op": "add", "path": "/b", "value": 2}, {"op": "test", "path": "/a", "value": 3}]);
        let error = json_patch(&mut object, &patch).unwrap_err();
        assert!(error.to_string().contains("operation '/1' failed"), "{error}");
        assert_eq!(object, json!({"a": 1}));
        let patch =
            json!([{"op": "test", "path": "/a", "value": 1}, {"op": "replace", "path": "/a", "value": {"b": 2}}]);
        json_patch(&mut object, &patch).unwrap();
        assert_eq!(object, json!({"a": {"b": 2}}));
        assert!(matches!(json_patch(&mut object, &json!({"a": 1})), Err(PatchError::NotAJsonPatch(_))));
        assert!(matches!(json_patch(&mut object, &json!([{"op": "x"}])), Err(PatchError::NotAJsonPatch(_))));
    }

    #[test]
    fn a_move_that_cannot_be_undone_is_no_panic() {
        let mut object = json!({"data": {"a": "x", "b": "y"}});
        let patch =
            json!([{"op": "move", "from": "/data/a", "path": "/data"}, {"op": "test", "path": "/data/z", "value": 1}]);
        assert!(json_patch(&mut object, &patch).is_err());
        assert_eq!(object, json!({"data": {"a": "x", "b": "y"}}));
    }

    #[test]
    fn nothing_is_null_to_a_test() {
        let test = |object: Value, path: &str, value: Value| {
            let patch = json!([{"op": "test", "path": path, "value": value}]);
            json_patch(&mut object.clone(), &patch).is_ok()
        };
        assert!(test(json!({}), "/data", Value::Null));
        assert!(test(json!({"data": null}), "/data", Value::Null));
        assert!(!test(json!({"data": {}}), "/data", Value::Null));
        assert!(!test(json!({}), "/data", json!({})));
        assert!(!test(json!({}), "/data/a", Value::Null), "what is not there has no fields");
        assert!(!test(json!({"list": []}), "/list/0", Value::Null));
        // The idiom: create if absent.
        let mut object = json!({});
        let patch = json!([{"op": "test", "path": "/a", "value": null}, {"op": "add", "path": "/a", "value": 1}]);
        json_patch(&mut object, &patch).unwrap();
        assert_eq!(object, json!({"a": 1}));
        assert!(json_patch(&mut object, &patch).is_err(), "the second time it is there");
    }

    #[test]
    fn indexes_count_from_the_end() {
        let cases = [
            (json!({"op": "add", "path": "/l/-1", "value": "d"}), Some(json!(["a", "b", "c", "d"]))),
            (json!({"op": "add", "path": "/l/-4", "value": "d"}), Some(json!(["d", "a", "b", "c"]))),
            (json!({"op": "add", "path": "/l/-5", "value": "d"}), None),
            (json!({"op": "add", "path": "/l/-", "value": "d"}), Some(json!(["a", "b", "c", "d"]))),
            (json!({"op": "remove", "path": "/l/-1"}), Some(json!(["a", "b"]))),
            (json!({"op": "remove", "path": "/l/-4"}), None),
            (json!({"op": "replace", "path": "/l/-2", "value": "d"}), Some(json!(["a", "d", "c"]))),
            (json!({"op": "test", "path": "/l/-3", "value": "a"}), Some(json!(["a", "b", "c"]))),
            (json!({"op": "move", "from": "/l/-3", "path": "/l/-1"}), Some(json!(["b", "c", "a"]))),
            (json!({"op": "copy", "from": "/l/-3", "path": "/l/-1"}), Some(json!(["a", "b", "c", "a"]))),
        ];
        for (operation, expected) in cases {
            let mut object = json!({"l": ["a", "b", "c"]});
            let found = json_patch(&mut object, &json!([operation])).is_ok().then(|| object["l"].clone());
            assert_eq!(found, expected, "{operation}");
        }
        let mut object = json!({"l": [{"a": 1}], "-1": 2});
        let patch = json!([{"op": "add", "path": "/l/-1/a", "value": 3}, {"op": "remove", "path": "/-1"}]);
        json_patch(&mut object, &patch).unwrap();
        assert_eq!(object, json!({"l": [{"a": 3}]}), "inside of a path too, but not in objects");
    }
}
