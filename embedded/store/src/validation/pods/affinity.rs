//! Rules of the nodes that a pod wants, and of the pods that it wants near or far.

use serde_json::{Value, json};

use super::super::names;
use super::super::selectors::{key, label_selector, operator, values};
use super::scheduling::label_keys;
use crate::invalid::FieldErrors;
use crate::json::{given, int_at, items, str_at};

/// What must be so when a pod gets its node, and what had better be.
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// The affinity of a pod at a path.
pub(super) fn affinity(path: &str, affinity: &Value, errors: &mut FieldErrors) {
    if let Some(nodes) = given(affinity, "nodeAffinity") {
        self::nodes(&format!("{path}.nodeAffinity"), nodes, errors);
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = given(affinity, key) else { continue };
        let path = format!("{path}.{key}");
        for (index, term) in items(pods, &format!("/{REQUIRED}")).iter().enumerate() {
            pod_term(&format!("{path}.{REQUIRED}[{index}]"), term, errors);
        }
        for (index, preferred) in items(pods, &format!("/{PREFERRED}")).iter().enumerate() {
            let path = format!("{path}.{PREFERRED}[{index}]");
            weight(&path, preferred, errors);
            pod_term(&format!("{path}.podAffinityTerm"), &preferred["podAffinityTerm"], errors);
        }
    }
}

fn weight(path: &str, preferred: &Value, errors: &mut FieldErrors) {
    let weight = int_at(preferred, "/weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(format!("{path}.weight"), &json!(weight), "must be in the range 1-100");
    }
}

fn nodes(path: &str, nodes: &Value, errors: &mut FieldErrors) {
    if let Some(required) = given(nodes, REQUIRED) {
        let path = format!("{path}.{REQUIRED}.nodeSelectorTerms");
        let terms = items(required, "/nodeSelectorTerms");
        if terms.is_empty() {
            errors.required(path.as_str(), "must have at least one node selector term");
        }
        for (index, term) in terms.iter().enumerate() {
            let path = format!("{path}[{index}]");
            node_term(&path, term, errors);
            for (index, requirement) in items(term, "/matchExpressions").iter().enumerate() {
                values(&format!("{path}.matchExpressions[{index}]"), requirement, errors);
            }
        }
    }
    for (index, preferred) in items(nodes, &format!("/{PREFERRED}")).iter().enumerate() {
        let path = format!("{path}.{PREFERRED}[{index}]");
        weight(&path, preferred, errors);
        node_term(&format!("{path}.preference"), &preferred["preference"], errors);
    }
}

fn node_term(path: &str, term: &Value, errors: &mut FieldErrors) {
    for (index, requirement) in items(term, "/matchExpressions").iter().enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        if !matches!(str_at(requirement, "/operator"), "Gt" | "Lt") {
            operator(&path, requirement, errors);
        } else if items(requirement, "/values").len() != 1 {
            let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.required(format!("{path}.values"), why);
        }
        key(&path, requirement, errors);
    }
    for (index, requirement) in items(term, "/matchFields").iter().enumerate() {
        node_field(&format!("{path}.matchFields[{index}]"), requirement, errors);
    }
}

/// A field of a node. Only its name can be asked for.
fn node_field(path: &str, requirement: &Value, errors: &mut FieldErrors) {
    let values = items(requirement, "/values");
    match str_at(requirement, "/operator") {
        "In" | "NotIn" if values.len() == 1 => {}
        "In" | "NotIn" => {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.required(format!("{path}.values"), why);
        }
        other => errors.invalid(format!("{path}.operator"), &json!(other), "not a valid selector operator"),
    }
    match str_at(requirement, "/key") {
        "metadata.name" => {
            for (index, value) in values.iter().enumerate() {
                let problems = names::dns_subdomain(value.as_str().unwrap_or_default());
                errors.each(format!("{path}.values[{index}]"), value, problems);
            }
        }
        other => errors.invalid(format!("{path}.key"), &json!(other), "not a valid field selector key"),
    }
}

fn pod_term(path: &str, term: &Value, errors: &mut FieldErrors) {
    for key in ["labelSelector", "namespaceSelector"] {
        label_selector(&format!("{path}.{key}"), &term[key], errors);
    }
    for namespace in items(term, "/namespaces") {
        let problems = names::dns_label(namespace.as_str().unwrap_or_default());
        errors.each(format!("{path}.namespace"), namespace, problems);
    }
    for key in ["matchLabelKeys", "mismatchLabelKeys"] {
        label_keys(path, term, key, errors);
    }
    let (field, topology) = (format!("{path}.topologyKey"), str_at(term, "/topologyKey"));
    if topology.is_empty() {
        errors.required(field.as_str(), "can not be empty");
    }
    errors.each(field, &json!(topology), names::qualified_name(topology));
}
