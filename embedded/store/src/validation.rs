//! Validation of objects: metadata of all kinds, and the built-in kinds' own rules.
//!
//! Types and unknown fields are the schema's business (`fields`); here is what a schema cannot say. Messages are worded
//! as Kubernetes words them, because people and tests search for them. Where its versions differ, the later one is
//! followed, and a rule that one of them has given up is not here.

mod addresses;
mod autoscalers;
mod crds;
mod data;
mod endpoints;
mod ingresses;
mod jobs;
mod names;
mod network_policies;
mod pods;
mod quantities;
mod rbac;
mod selectors;
mod services;
mod webhooks;
mod workloads;

use serde_json::{Map, Value, json};

use crate::invalid::FieldErrors;
use crate::json::{given, int_at, items, str_at};
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
    // What some types of Secrets must have is an annotation.
    if kind.kind != "Secret" && old.is_some_and(|old| has_same_content(old, object)) {
        return;
    }
    match kind.kind.as_str() {
        "Pod" => pods::pod(old, object, errors),
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" | "ReplicationController" => {
            workloads::workload(kind, old, object, errors);
        }
        "Job" => jobs::job(old, object, errors),
        "CronJob" => jobs::cron_job(old, object, errors),
        "PodDisruptionBudget" => workloads::disruption_budget(object, errors),
        "HorizontalPodAutoscaler" => autoscalers::autoscaler(object, errors),
        "Service" => services::service(old, object, errors),
        "Endpoints" => endpoints::endpoints(object, errors),
        "EndpointSlice" => endpoints::slice(old, object, errors),
        "Ingress" => ingresses::ingress(old, object, errors),
        "IngressClass" => ingresses::class(old, object, errors),
        "NetworkPolicy" => network_policies::network_policy(object, errors),
        "ConfigMap" => data::config_map(old, object, errors),
        "Secret" => data::secret(old, object, errors),
        "Role" | "ClusterRole" => rbac::role(kind, object, errors),
        "RoleBinding" | "ClusterRoleBinding" => rbac::binding(kind, old, object, errors),
        "Lease" => lease(object, errors),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => webhooks::configuration(object, errors),
        "CustomResourceDefinition" => crds::definition(old, object, errors),
        _ => {}
    }
}

/// Whether two states of an object differ in nothing but metadata and status. Most writes are those of a status, and
/// what is stored was looked at before.
fn has_same_content(old: &Value, object: &Value) -> bool {
    let apart = |key: &str| key == "metadata" || key == "status";
    let (Some(old), Some(new)) = (old.as_object(), object.as_object()) else { return false };
    let count = |map: &Map<String, Value>| map.keys().filter(|key| !apart(key)).count();
    count(old) == count(new)
        && new.iter().filter(|(key, _)| !apart(key)).all(|(key, value)| old.get(key) == Some(value))
}

fn metadata(kind: &ResourceType, object: &Value, errors: &mut FieldErrors) {
    let name = str_at(object, "/metadata/name");
    if name.is_empty() {
        errors.required("metadata.name", "name or generateName is required");
    } else {
        errors.each("metadata.name", &json!(name), names::object_name(kind, name));
    }
    if let Some(labels) = object.pointer("/metadata/labels").and_then(Value::as_object) {
        names::labels("metadata.labels", labels, errors);
    }
    annotations("metadata.annotations", &object["metadata"], errors);
    for finalizer in items(object, "/metadata/finalizers") {
        let problems = names::qualified_name(finalizer.as_str().unwrap_or_default());
        errors.each("metadata.finalizers", finalizer, problems);
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

/// The annotations of an object or a template, given its metadata.
fn annotations(field: &str, metadata: &Value, errors: &mut FieldErrors) {
    let Some(annotations) = metadata.get("annotations").and_then(Value::as_object) else { return };
    let mut size = 0;
    for (key, value) in annotations {
        size += key.len() + value.as_str().map_or(0, str::len);
        errors.each(field, &json!(key), names::qualified_name(&key.to_lowercase()));
    }
    if size > MAX_ANNOTATIONS {
        errors.too_long(field, MAX_ANNOTATIONS);
    }
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

/// A Lease. There is none of no time.
fn lease(object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    if let Some(seconds) = int_at(spec, "/leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
        errors.invalid("spec.leaseDurationSeconds", &json!(seconds), "must be greater than 0");
    }
    not_negative("spec", spec, &["leaseTransitions"], errors);
}

/// Refuses a set field that is none of the allowed values.
fn one_of(value: &Value, key: &str, path: &str, allowed: &[&str], errors: &mut FieldErrors) {
    if let Some(found) = given(value, key)
        && !allowed.contains(&found.as_str().unwrap_or_default())
    {
        let field = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        errors.unsupported(field, found, allowed);
    }
}

/// Refuses numbers below zero.
fn not_negative(path: &str, value: &Value, keys: &[&str], errors: &mut FieldErrors) {
    for key in keys {
        if let Some(number) = value.get(*key).and_then(Value::as_i64).filter(|number| *number < 0) {
            errors.invalid(format!("{path}.{key}"), &json!(number), "must be greater than or equal to 0");
        }
    }
}

/// Refuses a number outside 1-65535. One that is left out is 0.
fn port_number(field: &str, port: Option<i64>, errors: &mut FieldErrors) {
    let port = port.unwrap_or(0);
    if !(1..=65535).contains(&port) {
        errors.invalid(field, &json!(port), "must be between 1 and 65535, inclusive");
    }
}

/// Refuses what is neither the number nor the name of a port.
fn port(field: &str, port: &Value, errors: &mut FieldErrors) {
    match port.as_str() {
        Some(name) => errors.each(field, port, names::port_name(name)),
        None => port_number(field, port.as_i64(), errors),
    }
}

/// Refuses what refers to no object, given a rule of its name.
fn reference(path: &str, object: &Value, key: &str, rule: fn(&str) -> Vec<String>, errors: &mut FieldErrors) {
    let name = str_at(object, &format!("/{key}"));
    if name.is_empty() {
        errors.required(format!("{path}.{key}"), "");
    } else {
        errors.each(format!("{path}.{key}"), &json!(name), rule(name));
    }
}

#[cfg(test)]
mod tests;
