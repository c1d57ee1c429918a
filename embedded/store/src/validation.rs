//! Validation of objects: metadata of all kinds, and the built-in kinds' own rules.
//!
//! Types and unknown fields are the schema's business (`fields`); here is what a schema cannot say. Messages are worded
//! as Kubernetes words them, because people and tests search for them.

mod crds;
mod names;
mod networking;
mod pods;
mod webhooks;
mod workloads;

use serde_json::Value;

use crate::invalid::FieldErrors;
use crate::json::{items, str_at};
use crate::{ResourceType, Status, fields};

/// Largest sum of annotation keys and values, in bytes.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Refuses an object, written in a version, that breaks a rule with a 422 naming every broken one.
pub(crate) fn check(kind: &ResourceType, version: &str, old: Option<&Value>, object: &Value) -> Result<(), Status> {
    let mut errors = FieldErrors::default();
    metadata(kind, object, &mut errors);
    if let Some(old) = old {
        no_new_finalizers(old, object, &mut errors);
    }
    if kind.builtin {
        built_in(kind, old, object, &mut errors);
    } else {
        fields::validate(kind, version, object, &mut errors);
    }
    errors.into_result(kind, str_at(object, "/metadata/name"))
}

/// What is being deleted can lose finalizers only.
fn no_new_finalizers(old: &Value, object: &Value, errors: &mut FieldErrors) {
    if str_at(old, "/metadata/deletionTimestamp").is_empty() {
        return;
    }
    let before = items(old, "/metadata/finalizers");
    let new: Vec<String> = items(object, "/metadata/finalizers")
        .iter()
        .filter(|finalizer| !before.contains(finalizer))
        .map(|finalizer| finalizer.to_string())
        .collect();
    if !new.is_empty() {
        let found = new.join(", ");
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{found}}}"
        );
        errors.forbidden("metadata.finalizers", &why);
    }
}

fn built_in(kind: &ResourceType, old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    match kind.kind.as_str() {
        "Pod" => pods::pod(old, object, errors),
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" | "ReplicationController" => {
            workloads::workload(kind, old, object, errors);
        }
        "Job" => workloads::job(old, object, errors),
        "CronJob" => workloads::cron_job(object, errors),
        "Service" => networking::service(old, object, errors),
        "Ingress" => networking::ingress(object, errors),
        "IngressClass" => networking::ingress_class(old, object, errors),
        "EndpointSlice" => networking::endpoint_slice(old, object, errors),
        "ConfigMap" | "Secret" => data(old, object, errors),
        "RoleBinding" | "ClusterRoleBinding" => role_binding(old, object, errors),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => webhooks::configuration(object, errors),
        "CustomResourceDefinition" => crds::definition(old, object, errors),
        _ => {}
    }
}

fn metadata(kind: &ResourceType, object: &Value, errors: &mut FieldErrors) {
    let name = str_at(object, "/metadata/name");
    if name.is_empty() {
        errors.required("metadata.name", "name or generateName is required");
    } else if let Some(problem) = names::object_name(kind, name) {
        errors.invalid("metadata.name", &Value::from(name), &problem);
    }
    if let Some(labels) = object.pointer("/metadata/labels").and_then(Value::as_object) {
        names::labels("metadata.labels", labels, errors);
    }
    if let Some(annotations) = object.pointer("/metadata/annotations").and_then(Value::as_object) {
        let mut size = 0;
        for (key, value) in annotations {
            size += key.len() + value.as_str().map_or(0, str::len);
            if let Some(problem) = names::qualified_name(&key.to_lowercase()) {
                errors.invalid("metadata.annotations", &Value::from(key.as_str()), &problem);
            }
        }
        if size > MAX_ANNOTATIONS {
            errors.other("FieldValueTooLong", "metadata.annotations", "Too long: may not be more than 262144 bytes");
        }
    }
    for finalizer in items(object, "/metadata/finalizers") {
        if let Some(problem) = names::qualified_name(finalizer.as_str().unwrap_or_default()) {
            errors.invalid("metadata.finalizers", finalizer, &problem);
        }
    }
    for (index, owner) in items(object, "/metadata/ownerReferences").iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if str_at(owner, &format!("/{field}")).is_empty() {
                errors.invalid(
                    format!("metadata.ownerReferences[{index}].{field}"),
                    &Value::from(""),
                    "must not be empty",
                );
            }
        }
    }
    one_controller(items(object, "/metadata/ownerReferences"), errors);
}

fn one_controller(owners: &[Value], errors: &mut FieldErrors) {
    let mut controllers = owners.iter().filter(|owner| owner["controller"] == true);
    if let (Some(one), Some(other)) = (controllers.next(), controllers.next()) {
        let name = |owner: &Value| format!("{}/{}", str_at(owner, "/kind"), str_at(owner, "/name"));
        let why = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
            name(one),
            name(other)
        );
        errors.invalid("metadata.ownerReferences", &Value::from(owners), &why);
    }
}

fn data(old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    let keys = ["data", "binaryData"].iter().filter_map(|field| Some((*field, object.get(*field)?.as_object()?)));
    for (field, map) in keys {
        for key in map.keys() {
            let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if key.is_empty() || key.len() > 253 || key == "." || key == ".." || !key.chars().all(good) {
                let problem = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' \
                               (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
                errors.invalid(format!("{field}[{key}]"), &Value::from(key.as_str()), problem);
            }
        }
    }
    let Some(old) = old else { return };
    if old["immutable"] == true {
        if object["immutable"] != true {
            errors.forbidden("immutable", "field is immutable when `immutable` is set");
        }
        for field in ["data", "binaryData"] {
            if old.get(field) != object.get(field) {
                errors.forbidden(field, "field is immutable when `immutable` is set");
            }
        }
    }
    if object["kind"] == "Secret" {
        errors.immutable("type", old.get("type"), object.get("type"));
    }
}

fn role_binding(old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    for field in ["kind", "name"] {
        if str_at(object, &format!("/roleRef/{field}")).is_empty() {
            errors.required(format!("roleRef.{field}"), "");
        }
    }
    if let Some(old) = old
        && old.get("roleRef") != object.get("roleRef")
    {
        errors.invalid("roleRef", &object["roleRef"], "cannot change roleRef");
    }
}

#[cfg(test)]
mod tests;
