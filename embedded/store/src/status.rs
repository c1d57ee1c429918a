//! Kubernetes' `Status`: the one error type of the API.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A `Status` of kind `Failure`, as `k8s.io/apimachinery/pkg/apis/meta/v1` defines it.
///
/// `Display` prints the message that kubectl prints verbatim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason: `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, `Expired`, ...; empty for none.
    pub reason: String,
    /// The sentence for people.
    pub message: String,
    /// `details` of the status: name, group, kind, causes. `Null` when there is none.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

impl Status {
    /// A status with a code, a reason and a message.
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self { code, reason: reason.to_owned(), message: message.into(), details: Value::Null }
    }

    /// 400 `BadRequest`.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 422 `Invalid` for a patch that leaves what is no object of its kind.
    pub fn unfit_patch(left: &Value, problem: &str) -> Self {
        let problem = format!("Invalid value: {:?}: {problem}", left.to_string());
        let mut status = Self::new(422, "Invalid", format!(" \"\" is invalid: patch: {problem}"));
        let cause = json!({"reason": "FieldValueInvalid", "message": problem, "field": "patch"});
        status.details = json!({"causes": [cause]});
        status
    }

    /// 404 `NotFound` for `name` of a resource: `pods "x" not found`, `deployments.apps "x" not found`.
    pub fn not_found(resource: &crate::GroupResource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} \"{name}\" not found")).about(resource, name)
    }

    /// 409 `AlreadyExists`: `pods "x" already exists`.
    pub fn already_exists(resource: &crate::GroupResource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{resource} \"{name}\" already exists")).about(resource, name)
    }

    /// 409 `Conflict`: `Operation cannot be fulfilled on pods "x": <why>`.
    pub fn conflict(resource: &crate::GroupResource, name: &str, why: &str) -> Self {
        Self::new(409, "Conflict", format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}"))
            .about(resource, name)
    }

    /// 409 `Conflict` for a stale `resourceVersion`.
    pub fn stale(resource: &crate::GroupResource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// 403 `Forbidden`: `pods "x" is forbidden: <why>`.
    pub fn forbidden(resource: &crate::GroupResource, name: &str, why: &str) -> Self {
        Self::new(403, "Forbidden", format!("{resource} \"{name}\" is forbidden: {why}")).about(resource, name)
    }

    /// 410 `Expired`: a watch asked for a revision outside the kept window; list again.
    pub fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// Whether this is a 404.
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    fn about(mut self, resource: &crate::GroupResource, name: &str) -> Self {
        self.details = json!({"name": name, "group": resource.group, "kind": resource.plural});
        self
    }

    /// 500 `InternalError`.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", message)
    }

    /// The status as the API sends it (`kind: Status`, `apiVersion: v1`).
    pub fn to_value(&self) -> Value {
        let mut value = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            value["reason"] = json!(self.reason);
        }
        if !self.details.is_null() {
            value["details"] = self.details.clone();
        }
        value
    }
}
