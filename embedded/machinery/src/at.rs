//! Looking into an object by a JSON pointer, without a copy of every step.
//!
//! `serde_json`'s own `pointer` allocates for each step, to undo escapes that are hardly ever there; whoever looks into every object
//! of a list sees that in a profile.

use std::borrow::Cow;

use serde_json::Value;

/// The value at a JSON pointer (RFC 6901), such as `/metadata/labels/kubernetes.io~1service-name`.
pub fn at<'v>(value: &'v Value, pointer: &str) -> Option<&'v Value> {
    let Some(steps) = pointer.strip_prefix('/') else {
        return pointer.is_empty().then_some(value);
    };
    steps.split('/').try_fold(value, |value, step| match value {
        Value::Object(fields) => fields.get(unescaped(step).as_ref()),
        Value::Array(items) => items.get(index(step)?),
        _ => None,
    })
}

fn unescaped(step: &str) -> Cow<'_, str> {
    if step.contains('~') { step.replace("~1", "/").replace("~0", "~").into() } else { step.into() }
}

/// An index has neither a sign nor zeros before it.
fn index(step: &str) -> Option<usize> {
    let plain = !step.starts_with('+') && (step == "0" || !step.starts_with('0'));
    if plain { step.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        /// Whatever the pointer, serde_json finds the same.
        #[test]
        fn finds_what_serde_json_finds(steps in prop::collection::vec("(a|b|a~1b|~0|~01|0|1|01|[+]1|-|)", 0..4)) {
            let leaf = json!({"a": 1, "a/b": [2, {"~": 3, "b": 4}], "~": 5, "~1": 6, "": 7, "0": 8, "-": 9});
            let value = json!({"a": leaf, "b": [leaf, [leaf]], "a/b": leaf, "~": leaf, "": leaf, "0": leaf});
            let pointer: String = steps.iter().map(|step| format!("/{step}")).collect();
            prop_assert_eq!(at(&value, &pointer), value.pointer(&pointer));
        }
    }

    #[test]
    fn a_pointer_begins_with_a_slash() {
        assert_eq!(at(&json!({"a": 1}), "a"), None);
        assert_eq!(at(&json!(1), ""), Some(&json!(1)));
    }
}
