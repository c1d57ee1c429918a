//! Rules of pods and pod templates.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::names;
use crate::invalid::FieldErrors;
use crate::json::{int_at, items, items_mut, str_at};

/// A pod, and what may change of it.
pub(super) fn pod(old: Option<&Value>, pod: &Value, errors: &mut FieldErrors) {
    // Most writes are those of a status, and what is stored was looked at before.
    if old.is_some_and(|old| old["spec"] == pod["spec"]) {
        return;
    }
    pod_spec("spec", &pod["spec"], errors);
    if let Some(old) = old
        && comparable(old, pod) != comparable(pod, old)
    {
        errors.forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
             `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        );
    }
}

/// The spec without what may change. The node's name may be set once: that is how a pod is bound.
fn comparable(pod: &Value, other: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    for key in ["containers", "initContainers"] {
        for container in items_mut(&mut spec, key) {
            container.as_object_mut().map(|container| container.remove("image"));
        }
    }
    if let Some(map) = spec.as_object_mut() {
        for key in [
            "activeDeadlineSeconds",
            "tolerations",
            "terminationGracePeriodSeconds",
            "ephemeralContainers",
            "schedulingGates",
        ] {
            map.remove(key);
        }
        if str_at(pod, "/spec/nodeName").is_empty() || str_at(other, "/spec/nodeName").is_empty() {
            map.remove("nodeName");
        }
    }
    spec
}

/// A pod spec at a path (`spec`, `spec.template.spec`).
pub(super) fn pod_spec(path: &str, spec: &Value, errors: &mut FieldErrors) {
    let volumes = volumes(path, spec, errors);
    let mut seen = BTreeSet::new();
    if items(spec, "/containers").is_empty() {
        errors.required(format!("{path}.containers"), "");
    }
    for key in ["initContainers", "containers"] {
        for (index, container) in items(spec, &format!("/{key}")).iter().enumerate() {
            let path = format!("{path}.{key}[{index}]");
            self::container(&path, container, &volumes, errors);
            let name = str_at(container, "/name");
            if !name.is_empty() && !seen.insert(name) {
                errors.duplicate(format!("{path}.name"), &json!(name));
            }
        }
    }
    one_of(spec, "restartPolicy", path, &["Always", "OnFailure", "Never"], errors);
    one_of(spec, "dnsPolicy", path, &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"], errors);
}

/// Refuses a set field that is none of the allowed values.
pub(super) fn one_of(value: &Value, key: &str, path: &str, allowed: &[&str], errors: &mut FieldErrors) {
    if let Some(found) = value.get(key).filter(|found| !found.is_null())
        && !allowed.contains(&found.as_str().unwrap_or_default())
    {
        errors.unsupported(format!("{path}.{key}"), found, allowed);
    }
}

fn volumes<'a>(path: &str, spec: &'a Value, errors: &mut FieldErrors) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for (index, volume) in items(spec, "/volumes").iter().enumerate() {
        let field = format!("{path}.volumes[{index}].name");
        let name = str_at(volume, "/name");
        if name.is_empty() {
            errors.required(field, "");
        } else if let Some(problem) = names::dns_label(name) {
            errors.invalid(field, &json!(name), &problem);
        } else if !seen.insert(name) {
            errors.duplicate(field, &json!(name));
        }
        let sources = volume.as_object().map_or(0, |map| map.keys().filter(|key| *key != "name").count());
        if sources > 1 {
            errors.forbidden(format!("{path}.volumes[{index}]"), "may not specify more than 1 volume type");
        }
    }
    seen
}

fn container(path: &str, container: &Value, volumes: &BTreeSet<&str>, errors: &mut FieldErrors) {
    let name = str_at(container, "/name");
    if name.is_empty() {
        errors.required(format!("{path}.name"), "");
    } else if let Some(problem) = names::dns_label(name) {
        errors.invalid(format!("{path}.name"), &json!(name), &problem);
    }
    if str_at(container, "/image").is_empty() {
        errors.required(format!("{path}.image"), "");
    }
    one_of(container, "imagePullPolicy", path, &["Always", "IfNotPresent", "Never"], errors);
    let mut port_names = BTreeSet::new();
    for (index, port) in items(container, "/ports").iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        port_number(&format!("{path}.containerPort"), int_at(port, "/containerPort"), errors);
        one_of(port, "protocol", &path, &["SCTP", "TCP", "UDP"], errors);
        let name = str_at(port, "/name");
        if !name.is_empty() && !port_names.insert(name) {
            errors.duplicate(format!("{path}.name"), &json!(name));
        }
    }
    for (index, variable) in items(container, "/env").iter().enumerate() {
        let path = format!("{path}.env[{index}]");
        if str_at(variable, "/name").is_empty() {
            errors.required(format!("{path}.name"), "");
        }
        if !str_at(variable, "/value").is_empty() && variable.get("valueFrom").is_some_and(|from| !from.is_null()) {
            errors.invalid(format!("{path}.valueFrom"), &json!(""), "may not be specified when `value` is not empty");
        }
    }
    let mut paths = BTreeSet::new();
    for (index, mount) in items(container, "/volumeMounts").iter().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        let name = str_at(mount, "/name");
        if name.is_empty() {
            errors.required(format!("{path}.name"), "");
        } else if !volumes.contains(name) {
            errors.not_found(format!("{path}.name"), &json!(name));
        }
        let target = str_at(mount, "/mountPath");
        if target.is_empty() {
            errors.required(format!("{path}.mountPath"), "");
        } else if !paths.insert(target) {
            errors.invalid(format!("{path}.mountPath"), &json!(target), "must be unique");
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get(key).filter(|probe| probe.is_object()) {
            self::probe(&format!("{path}.{key}"), probe, errors);
        }
    }
}

fn probe(path: &str, probe: &Value, errors: &mut FieldErrors) {
    const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
    match HANDLERS.iter().filter(|key| probe.get(**key).is_some_and(|handler| !handler.is_null())).count() {
        0 => errors.required(path, "must specify a handler type"),
        1 => {}
        _ => errors.forbidden(path, "may not specify more than 1 handler type"),
    }
    if !path.ends_with("readinessProbe") && int_at(probe, "/successThreshold").is_some_and(|count| count != 1) {
        errors.invalid(format!("{path}.successThreshold"), &probe["successThreshold"], "must be 1");
    }
}

/// Refuses a port outside 1-65535; a missing one is required.
pub(super) fn port_number(field: &str, port: Option<i64>, errors: &mut FieldErrors) {
    match port {
        None | Some(0) => errors.required(field, ""),
        Some(port) if !(1..=65535).contains(&port) => {
            errors.invalid(field, &json!(port), "must be between 1 and 65535, inclusive");
        }
        Some(_) => {}
    }
}
