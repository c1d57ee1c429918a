//! Rules of pods and pod templates.

mod affinity;
mod containers;
mod env;
mod probes;
mod resources;
mod scheduling;
mod security;
mod volumes;

use serde_json::{Value, json};

use super::{addresses, annotations, names, one_of};
use crate::invalid::FieldErrors;
use crate::json::{given, int_at, items, items_mut, str_at};

/// Name servers, search domains, and bytes of all search domains that a resolver takes.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_BYTES: usize = 2048;

/// A pod, and what may change of it.
pub(super) fn pod(old: Option<&Value>, pod: &Value, errors: &mut FieldErrors) {
    let spec = &pod["spec"];
    pod_spec("spec", spec, &[], errors);
    for key in ["containers", "initContainers"] {
        for (index, container) in items(spec, &format!("/{key}")).iter().enumerate() {
            let image = str_at(container, "/image");
            if image.trim() != image {
                let problem = "must not have leading or trailing whitespace";
                errors.invalid(format!("spec.{key}[{index}].image"), &json!(image), problem);
            }
        }
    }
    let Some(old) = old else {
        new_pod(spec, errors);
        return;
    };
    if comparable(old, pod) != comparable(pod, old) {
        errors.forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
             `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        );
    }
}

/// What comes later only.
fn new_pod(spec: &Value, errors: &mut FieldErrors) {
    if !items(spec, "/ephemeralContainers").is_empty() {
        errors.forbidden("spec.ephemeralContainers", "cannot be set on create");
    }
    if !str_at(spec, "/nodeName").is_empty() && !items(spec, "/schedulingGates").is_empty() {
        errors.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared");
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

/// The template at a path (`spec.template`). `claims` are those that each of its pods gets beside it.
pub(super) fn template(path: &str, template: &Value, claims: &[Value], errors: &mut FieldErrors) {
    if let Some(labels) = template.pointer("/metadata/labels").and_then(Value::as_object) {
        names::labels(&format!("{path}.labels"), labels, errors);
    }
    if let Some(metadata) = template.get("metadata") {
        annotations(&format!("{path}.annotations"), metadata, errors);
    }
    let (path, spec) = (format!("{path}.spec"), &template["spec"]);
    pod_spec(&path, spec, claims, errors);
    if !items(spec, "/ephemeralContainers").is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        errors.forbidden(format!("{path}.ephemeralContainers"), why);
    }
}

/// A pod spec at a path (`spec`, `spec.template.spec`).
fn pod_spec(path: &str, spec: &Value, claims: &[Value], errors: &mut FieldErrors) {
    let volumes = volumes::volumes(path, spec, claims, errors);
    containers::all(path, spec, &volumes, errors);
    one_of(spec, "restartPolicy", path, &["Always", "OnFailure", "Never"], errors);
    one_of(spec, "dnsPolicy", path, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], errors);
    one_of(spec, "preemptionPolicy", path, &["PreemptLowerPriority", "Never"], errors);
    if let Some(labels) = spec.get("nodeSelector").and_then(Value::as_object) {
        names::labels(&format!("{path}.nodeSelector"), labels, errors);
    }
    security::pod(path, spec, errors);
    if let Some(affinity) = given(spec, "affinity") {
        affinity::affinity(&format!("{path}.affinity"), affinity, errors);
    }
    dns(path, spec, errors);
    scheduling::spread(path, spec, errors);
    scheduling::gates(path, spec, errors);
    for key in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        name(path, spec, key, names::dns_subdomain, errors);
    }
    for key in ["hostname", "subdomain"] {
        name(path, spec, key, names::dns_label, errors);
    }
    let most = i64::from(i32::MAX);
    if let Some(seconds) = int_at(spec, "/activeDeadlineSeconds").filter(|seconds| !(1..=most).contains(seconds)) {
        let problem = format!("must be between 1 and {most}, inclusive");
        errors.invalid(format!("{path}.activeDeadlineSeconds"), &json!(seconds), &problem);
    }
    scheduling::tolerations(path, spec, errors);
    for (index, alias) in items(spec, "/hostAliases").iter().enumerate() {
        let path = format!("{path}.hostAliases[{index}]");
        addresses::address(&format!("{path}.ip"), str_at(alias, "/ip"), errors);
        for (index, host) in items(alias, "/hostnames").iter().enumerate() {
            let problems = names::dns_subdomain(host.as_str().unwrap_or_default());
            errors.each(format!("{path}.hostnames[{index}]"), host, problems);
        }
    }
}

/// A name that may be left out.
fn name(path: &str, spec: &Value, key: &str, rule: fn(&str) -> Vec<String>, errors: &mut FieldErrors) {
    if let Some(name) = spec.get(key).and_then(Value::as_str).filter(|name| !name.is_empty()) {
        errors.each(format!("{path}.{key}"), &json!(name), rule(name));
    }
}

fn dns(path: &str, spec: &Value, errors: &mut FieldErrors) {
    let (path, config) = (format!("{path}.dnsConfig"), given(spec, "dnsConfig"));
    let is_own = str_at(spec, "/dnsPolicy") == "None";
    let Some(config) = config else {
        if is_own {
            errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        return;
    };
    let (servers, searches) = (items(config, "/nameservers"), items(config, "/searches"));
    if is_own && servers.is_empty() {
        let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.required(format!("{path}.nameservers"), why);
        return;
    }
    if servers.len() > MAX_SERVERS {
        let problem = format!("must not have more than {MAX_SERVERS} nameservers");
        errors.invalid(format!("{path}.nameservers"), &json!(servers), &problem);
    }
    for (index, server) in servers.iter().enumerate() {
        addresses::address(&format!("{path}.nameservers[{index}]"), server.as_str().unwrap_or_default(), errors);
    }
    let texts: Vec<&str> = searches.iter().filter_map(Value::as_str).collect();
    if searches.len() > MAX_SEARCHES {
        let problem = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.invalid(format!("{path}.searches"), &json!(searches), &problem);
    }
    if texts.join(" ").len() > MAX_SEARCH_BYTES {
        let problem =
            format!("must not have more than {MAX_SEARCH_BYTES} characters (including spaces) in the search list");
        errors.invalid(format!("{path}.searches"), &json!(searches), &problem);
    }
    for (index, search) in texts.into_iter().enumerate().filter(|(_, search)| *search != ".") {
        // Underscores are taken wherever a letter or digit is.
        let plain = search.strip_suffix('.').unwrap_or(search).replace('_', "a");
        errors.each(format!("{path}.searches[{index}]"), &json!(search), names::dns_subdomain(&plain));
    }
    for (index, option) in items(config, "/options").iter().enumerate() {
        if str_at(option, "/name").is_empty() {
            errors.required(format!("{path}.options[{index}]"), "must not be empty");
        }
    }
}

#[cfg(test)]
mod tests;
