//! Label selectors.

use serde_json::{Map, Value};

use super::names;
use crate::invalid::FieldErrors;
use crate::json::{items, str_at};

/// A `metav1.LabelSelector`, if there is one.
pub(super) fn label_selector(field: &str, selector: &Value, errors: &mut FieldErrors) {
    if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
        names::labels(&format!("{field}.matchLabels"), labels, errors);
    }
    for (index, requirement) in items(selector, "/matchExpressions").iter().enumerate() {
        let path = format!("{field}.matchExpressions[{index}]");
        operator(&path, requirement, errors);
        key(&path, requirement, errors);
        values(&path, requirement, errors);
    }
}

/// Whether a selector says nothing, and so selects everything.
pub(super) fn is_empty(selector: &Value) -> bool {
    let labels = selector.get("matchLabels").and_then(Value::as_object);
    labels.is_none_or(Map::is_empty) && items(selector, "/matchExpressions").is_empty()
}

/// Whether a requirement has values where its operator needs some.
pub(super) fn operator(path: &str, requirement: &Value, errors: &mut FieldErrors) {
    let is_empty = items(requirement, "/values").is_empty();
    match str_at(requirement, "/operator") {
        "In" | "NotIn" if is_empty => {
            errors.required(format!("{path}.values"), "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !is_empty => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.forbidden(format!("{path}.values"), why);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.invalid(format!("{path}.operator"), &Value::from(other), "not a valid selector operator"),
    }
}

/// The label that a requirement is about.
pub(super) fn key(path: &str, requirement: &Value, errors: &mut FieldErrors) {
    let key = str_at(requirement, "/key");
    errors.each(format!("{path}.key"), &Value::from(key), names::qualified_name(key));
}

/// What a requirement compares a label with.
pub(super) fn values(path: &str, requirement: &Value, errors: &mut FieldErrors) {
    for (index, value) in items(requirement, "/values").iter().enumerate() {
        let text = value.as_str().unwrap_or_default();
        errors.each(format!("{path}.values[{index}]"), value, names::label_value(text));
    }
}
