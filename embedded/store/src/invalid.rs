//! Field errors, collected and turned into one `422 Invalid`, worded as `k8s.io/apimachinery/pkg/util/validation/field` does.

use serde_json::{Value, json};

use crate::{ResourceType, Status};

/// The errors found in one object.
#[derive(Debug, Default)]
pub(crate) struct FieldErrors(Vec<FieldError>);

#[derive(Debug)]
struct FieldError {
    reason: &'static str,
    field: String,
    body: String,
}

impl FieldErrors {
    fn push(&mut self, reason: &'static str, field: impl Into<String>, body: String) {
        self.0.push(FieldError { reason, field: field.into(), body });
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what another look has found.
    pub(crate) fn append(&mut self, mut more: Self) {
        self.0.append(&mut more.0);
    }

    /// A field that must be there is not.
    pub(crate) fn required(&mut self, field: impl Into<String>, detail: &str) {
        let body = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        self.push("FieldValueRequired", field, body);
    }

    /// A value breaks a rule. `Value` prints as JSON, so strings come quoted.
    pub(crate) fn invalid(&mut self, field: impl Into<String>, value: &Value, detail: &str) {
        let colon = if detail.is_empty() { "" } else { ": " };
        self.push("FieldValueInvalid", field, format!("Invalid value: {value}{colon}{detail}"));
    }

    /// A value breaks several rules, each of which is told by itself.
    pub(crate) fn each(&mut self, field: impl Into<String>, value: &Value, problems: Vec<String>) {
        let field = field.into();
        for problem in problems {
            self.invalid(field.as_str(), value, &problem);
        }
    }

    /// A text is longer than it may be, in bytes.
    pub(crate) fn too_long(&mut self, field: impl Into<String>, most: usize) {
        self.push("FieldValueTooLong", field, format!("Too long: may not be more than {most} bytes"));
    }

    /// A list has more entries than it may have.
    pub(crate) fn too_many(&mut self, field: impl Into<String>, count: usize, most: usize) {
        self.push("FieldValueTooMany", field, format!("Too many: {count}: must have at most {most} items"));
    }

    /// A value is not one of a closed set.
    pub(crate) fn unsupported(&mut self, field: impl Into<String>, value: &Value, supported: &[&str]) {
        let supported = supported.iter().map(|value| format!("\"{value}\"")).collect::<Vec<_>>().join(", ");
        self.push(
            "FieldValueNotSupported",
            field,
            format!("Unsupported value: {value}: supported values: {supported}"),
        );
    }

    /// A value occurs twice where it must be unique.
    pub(crate) fn duplicate(&mut self, field: impl Into<String>, value: &Value) {
        self.push("FieldValueDuplicate", field, format!("Duplicate value: {value}"));
    }

    /// A field may not be set, or not be changed.
    pub(crate) fn forbidden(&mut self, field: impl Into<String>, detail: &str) {
        self.push("FieldValueForbidden", field, format!("Forbidden: {detail}"));
    }

    /// A reference inside the object leads nowhere.
    pub(crate) fn not_found(&mut self, field: impl Into<String>, value: &Value) {
        self.push("FieldValueNotFound", field, format!("Not found: {value}"));
    }

    /// An error worded elsewhere, with its reason.
    pub(crate) fn other(&mut self, reason: &'static str, field: impl Into<String>, body: impl Into<String>) {
        self.push(reason, field, body.into());
    }

    /// Refuses a change of a field that may not change.
    pub(crate) fn immutable(&mut self, field: &str, old: Option<&Value>, new: Option<&Value>) {
        let (old, new) = (old.unwrap_or(&Value::Null), new.unwrap_or(&Value::Null));
        if old != new {
            self.invalid(field, new, "field is immutable");
        }
    }

    /// Ok without errors, else the 422: `Deployment.apps "x" is invalid: spec.selector: Required value`.
    pub(crate) fn into_result(self, resource: &ResourceType, name: &str) -> Result<(), Status> {
        if self.0.is_empty() {
            return Ok(());
        }
        let group = &resource.resource.group;
        let kind = if group.is_empty() { resource.kind.clone() } else { format!("{}.{group}", resource.kind) };
        let sentences: Vec<String> = self.0.iter().map(|error| format!("{}: {}", error.field, error.body)).collect();
        let list = match sentences.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let causes: Vec<Value> = self
            .0
            .iter()
            .map(|error| json!({"reason": error.reason, "message": error.body, "field": error.field}))
            .collect();
        let mut status = Status::new(422, "Invalid", format!("{kind} \"{name}\" is invalid: {list}"));
        status.details = json!({"name": name, "group": group, "kind": resource.kind, "causes": causes});
        Err(status)
    }
}
