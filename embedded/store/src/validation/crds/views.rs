//! Rules of what of an object is shown in a table, and of what scales it.

use serde_json::{Value, json};

use crate::invalid::FieldErrors;
use crate::json::{given, items, str_at};

/// Types and formats of columns, sorted.
const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// The columns and subresources of all versions.
pub(super) fn views(versions: &[Value], errors: &mut FieldErrors) {
    for_each(versions, "subresources", errors, |path, version, errors| {
        if let Some(scale) = version.get("subresources").and_then(|subresources| given(subresources, "scale")) {
            self::scale(&format!("{path}.scale"), scale, errors);
        }
    });
    for_each(versions, "additionalPrinterColumns", errors, |path, version, errors| {
        for (index, column) in items(version, "/additionalPrinterColumns").iter().enumerate() {
            self::column(&format!("{path}[{index}]"), column, errors);
        }
    });
}

/// Looks at a field of every version; once, where it is the same in all. Kubernetes then speaks of it as its older API
/// did.
fn for_each(versions: &[Value], key: &str, errors: &mut FieldErrors, check: impl Fn(&str, &Value, &mut FieldErrors)) {
    let Some(first) = versions.first() else { return };
    if versions.iter().all(|version| version.get(key) == first.get(key)) {
        check(&format!("spec.{key}"), first, errors);
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        check(&format!("spec.versions[{index}].{key}"), version, errors);
    }
}

fn column(path: &str, column: &Value, errors: &mut FieldErrors) {
    if str_at(column, "/name").is_empty() {
        errors.required(format!("{path}.name"), "");
    }
    let (kind, format) = (str_at(column, "/type"), str_at(column, "/format"));
    let problem = format!("must be one of {}", TYPES.join(","));
    if kind.is_empty() {
        errors.required(format!("{path}.type"), &problem);
    } else if !TYPES.contains(&kind) {
        errors.invalid(format!("{path}.type"), &json!(kind), &problem);
    }
    if !format.is_empty() && !FORMATS.contains(&format) {
        let problem = format!("must be one of {}", FORMATS.join(","));
        errors.invalid(format!("{path}.format"), &json!(format), &problem);
    }
    simple_path(&format!("{path}.JSONPath"), str_at(column, "/jsonPath"), errors);
}

/// A path through an object; whether it is one.
fn simple_path(field: &str, path: &str, errors: &mut FieldErrors) -> bool {
    if path.is_empty() {
        errors.required(field, "");
    } else if !path.starts_with('.') {
        errors.invalid(field, &json!(path), "must be a simple json path starting with .");
    }
    path.starts_with('.')
}

fn scale(path: &str, scale: &Value, errors: &mut FieldErrors) {
    let roots: [(&str, &[&str], &str); 3] = [
        ("specReplicasPath", &[".spec."], ".spec"),
        ("statusReplicasPath", &[".status."], ".status"),
        ("labelSelectorPath", &[".spec.", ".status."], "either .spec or .status"),
    ];
    for (key, prefixes, said) in roots {
        let (field, text) = (format!("{path}.{key}"), str_at(scale, &format!("/{key}")));
        if text.is_empty() && key == "labelSelectorPath" {
            continue;
        }
        if simple_path(&field, text, errors) && !prefixes.iter().any(|prefix| text.starts_with(*prefix)) {
            errors.invalid(field, &json!(text), &format!("should be a json path under {said}"));
        }
    }
}
