//! Rules of a container's environment, and of what else takes values from the pod.

use serde_json::{Value, json};

use super::super::{names, quantities};
use crate::invalid::FieldErrors;
use crate::json::{given, items, str_at};

/// What `fieldRef` of a variable may name, sorted.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// What `fieldRef` of a file may name, sorted.
pub(super) const FILE_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Further fields that have a name, though none may be taken.
const OTHER_FIELDS: [&str; 4] = ["spec.host", "spec.restartPolicy", "spec.schedulerName", "status.phase"];

/// What `resourceFieldRef` may name, sorted, and what it may begin with instead.
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const HUGE_PAGES: [&str; 2] = ["limits.hugepages-", "requests.hugepages-"];

/// In what processors are counted, and in what bytes are.
const PROCESSORS: [&str; 2] = ["1m", "1"];
const BYTES: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// The variables.
pub(super) fn env(path: &str, container: &Value, errors: &mut FieldErrors) {
    for (index, variable) in items(container, "/env").iter().enumerate() {
        let path = format!("{path}.env[{index}]");
        let name = str_at(variable, "/name");
        if name.is_empty() {
            errors.required(format!("{path}.name"), "");
        } else {
            errors.each(format!("{path}.name"), &json!(name), names::env_name(name));
        }
        if let Some(source) = given(variable, "valueFrom") {
            value_from(&format!("{path}.valueFrom"), source, str_at(variable, "/value"), errors);
        }
    }
}

fn value_from(path: &str, source: &Value, value: &str, errors: &mut FieldErrors) {
    if let Some(reference) = given(source, "fieldRef") {
        field(&format!("{path}.fieldRef"), reference, &ENV_FIELDS, errors);
    }
    if let Some(reference) = given(source, "resourceFieldRef") {
        resource(&format!("{path}.resourceFieldRef"), reference, errors);
    }
    for key in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = given(source, key) {
            key_of(&format!("{path}.{key}"), reference, errors);
        }
    }
    const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let count = SOURCES.iter().filter(|key| given(source, key).is_some()).count();
    let problem = match count {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        _ if !value.is_empty() => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.invalid(path, &json!(""), problem);
}

/// A key of a ConfigMap or a Secret.
fn key_of(path: &str, reference: &Value, errors: &mut FieldErrors) {
    let (name, key) = (str_at(reference, "/name"), str_at(reference, "/key"));
    errors.each(format!("{path}.name"), &json!(name), names::dns_subdomain(name));
    if key.is_empty() {
        errors.required(format!("{path}.key"), "");
    } else {
        errors.each(format!("{path}.key"), &json!(key), names::config_key(key));
    }
}

/// A field of the pod, one of some; labels and annotations may be taken one by one.
pub(super) fn field(path: &str, reference: &Value, fields: &[&str], errors: &mut FieldErrors) {
    let label = str_at(reference, "/fieldPath");
    let at = format!("{path}.fieldPath");
    if label.is_empty() {
        errors.required(at, "");
        return;
    }
    let cannot = |why: &str| format!("error converting fieldPath: {why}");
    let version = str_at(reference, "/apiVersion");
    if !matches!(version, "" | "v1") {
        errors.invalid(at, &json!(label), &cannot(&format!("unsupported pod version: {version}")));
        return;
    }
    let part = label.strip_suffix("']").and_then(|rest| rest.split_once("['")).filter(|(of, _)| !of.is_empty());
    match part {
        Some(("metadata.annotations", key)) => {
            errors.each(path, &json!(key), names::qualified_name(&key.to_lowercase()));
        }
        Some(("metadata.labels", key)) => errors.each(path, &json!(key), names::qualified_name(key)),
        Some(_) => {
            let why = format!("field label does not support subscript: {label}");
            errors.invalid(at, &json!(label), &cannot(&why));
        }
        None if fields.contains(&label) => {}
        None if [&ENV_FIELDS[..], &FILE_FIELDS[..], &OTHER_FIELDS[..]].concat().contains(&label) => {
            errors.unsupported(at, &json!(label), fields);
        }
        None => errors.invalid(at, &json!(label), &cannot(&format!("field label not supported: {label}"))),
    }
}

/// A resource of a container.
pub(super) fn resource(path: &str, reference: &Value, errors: &mut FieldErrors) {
    let name = str_at(reference, "/resource");
    let is_huge = HUGE_PAGES.iter().any(|prefix| name.starts_with(prefix));
    if name.is_empty() {
        errors.required(format!("{path}.resource"), "");
    } else if !RESOURCES.contains(&name) && !is_huge {
        errors.unsupported(format!("{path}.resource"), &json!(name), &RESOURCES);
    }
    let divisor = given(reference, "divisor").and_then(quantities::nanos).unwrap_or(0);
    let (units, what): (&[&str], &str) = match name {
        "limits.cpu" | "requests.cpu" => (&PROCESSORS[..], "cpu"),
        "limits.memory" | "requests.memory" => (&BYTES[..], "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => (&BYTES[..], "local ephemeral storage"),
        _ if is_huge => (&BYTES[..], "hugepages"),
        _ => return,
    };
    if divisor != 0 && units.iter().all(|unit| quantities::nanos(&json!(unit)) != Some(divisor)) {
        let units = if what == "cpu" { "1m and 1".to_owned() } else { units.join(", ") };
        let problem = format!("only divisor's values {units} are supported with the {what} resource");
        errors.invalid(format!("{path}.divisor"), &json!(name), &problem);
    }
}

/// The ConfigMaps and Secrets whose keys are all variables.
pub(super) fn from(path: &str, container: &Value, errors: &mut FieldErrors) {
    for (index, source) in items(container, "/envFrom").iter().enumerate() {
        let path = format!("{path}.envFrom");
        let prefix = str_at(source, "/prefix");
        errors.each(format!("{path}[{index}].prefix"), &json!(prefix), names::env_name(prefix));
        let mut count = 0;
        for key in ["configMapRef", "secretRef"] {
            let Some(reference) = given(source, key) else { continue };
            count += 1;
            let (field, name) = (format!("{path}[{index}].{key}.name"), str_at(reference, "/name"));
            if name.is_empty() {
                errors.required(field, "");
            } else {
                // Kubernetes takes the beginning of a name here, which may end in a hyphen.
                let whole = name.strip_suffix('-').map_or_else(|| name.to_owned(), |name| format!("{name}a"));
                errors.each(field, &json!(name), names::dns_subdomain(&whole));
            }
        }
        match count {
            0 => errors.invalid(path, &json!(""), "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(path, &json!(""), "may not have more than one field specified at a time"),
        }
    }
}
