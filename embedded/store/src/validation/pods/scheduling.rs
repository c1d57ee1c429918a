//! Rules of what keeps a pod from nodes: taints, gates, and the other pods of its kind.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::selectors::label_selector;
use super::super::{names, one_of};
use crate::invalid::FieldErrors;
use crate::json::{given, int_at, items, str_at};

/// How evenly a pod's like are spread.
pub(super) fn spread(path: &str, spec: &Value, errors: &mut FieldErrors) {
    const POSITIVE: &str = "must be greater than zero";
    let all = items(spec, "/topologySpreadConstraints");
    for (index, constraint) in all.iter().enumerate() {
        let path = format!("{path}.topologySpreadConstraints[{index}]");
        let skew = int_at(constraint, "/maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.invalid(format!("{path}.maxSkew"), &json!(skew), POSITIVE);
        }
        let (topology, otherwise) = kind_of(constraint);
        if topology.is_empty() {
            errors.required(format!("{path}.topologyKey"), "can not be empty");
        }
        if !matches!(otherwise, "DoNotSchedule" | "ScheduleAnyway") {
            let field = format!("{path}.whenUnsatisfiable");
            errors.unsupported(field, &json!(otherwise), &["DoNotSchedule", "ScheduleAnyway"]);
        }
        if all[index + 1..].iter().any(|other| kind_of(other) == (topology, otherwise)) {
            let field = format!("{path}.{{topologyKey, whenUnsatisfiable}}");
            errors.duplicate(field, &json!(format!("{{{topology}, {otherwise}}}")));
        }
        if let Some(domains) = int_at(constraint, "/minDomains") {
            let field = format!("{path}.minDomains");
            if domains <= 0 {
                errors.invalid(field.as_str(), &json!(domains), POSITIVE);
            }
            if otherwise != "DoNotSchedule" {
                let problem = "can only use minDomains if whenUnsatisfiable=DoNotSchedule";
                errors.invalid(field, &json!(domains), &format!("{problem}, not {otherwise}"));
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            one_of(constraint, key, &path, &["Honor", "Ignore"], errors);
        }
        label_keys(&path, constraint, "matchLabelKeys", errors);
        label_selector(&format!("{path}.labelSelector"), &constraint["labelSelector"], errors);
    }
}

/// What a pod has one constraint of: where its like are counted, and what is done where there are too many.
fn kind_of(constraint: &Value) -> (&str, &str) {
    (str_at(constraint, "/topologyKey"), str_at(constraint, "/whenUnsatisfiable"))
}

/// Labels whose values are those of the pod itself, which complete a selector.
pub(super) fn label_keys(path: &str, term: &Value, key: &str, errors: &mut FieldErrors) {
    let (field, keys) = (format!("{path}.{key}"), items(term, &format!("/{key}")));
    if !keys.is_empty() && given(term, "labelSelector").is_none() {
        errors.forbidden(field, "must not be specified when labelSelector is not set");
        return;
    }
    for (index, key) in keys.iter().enumerate() {
        errors.each(format!("{field}[{index}]"), key, names::qualified_name(key.as_str().unwrap_or_default()));
    }
}

/// What must be said before a pod gets a node, and before it gets traffic.
pub(super) fn gates(path: &str, spec: &Value, errors: &mut FieldErrors) {
    for (index, gate) in items(spec, "/readinessGates").iter().enumerate() {
        let kind = str_at(gate, "/conditionType");
        let field = format!("{path}.readinessGates[{index}].conditionType");
        errors.each(field, &json!(kind), names::qualified_name(kind));
    }
    let mut seen = BTreeSet::new();
    for (index, gate) in items(spec, "/schedulingGates").iter().enumerate() {
        let (field, name) = (format!("{path}.schedulingGates[{index}]"), str_at(gate, "/name"));
        errors.each(field.as_str(), &json!(name), names::qualified_name(name));
        if !seen.insert(name) {
            errors.duplicate(field, &json!(name));
        }
    }
}

/// The taints that a pod does not mind.
pub(super) fn tolerations(path: &str, spec: &Value, errors: &mut FieldErrors) {
    for (index, toleration) in items(spec, "/tolerations").iter().enumerate() {
        self::toleration(&format!("{path}.tolerations[{index}]"), toleration, errors);
    }
}

fn toleration(path: &str, toleration: &Value, errors: &mut FieldErrors) {
    let [key, operator, value, effect] =
        ["/key", "/operator", "/value", "/effect"].map(|pointer| str_at(toleration, pointer));
    let field = format!("{path}.operator");
    if !key.is_empty() {
        errors.each(format!("{path}.key"), &json!(key), names::qualified_name(key));
    } else if operator != "Exists" {
        let problem = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.invalid(field.as_str(), &json!(operator), problem);
    }
    if given(toleration, "tolerationSeconds").is_some() && effect != "NoExecute" {
        let problem = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.invalid(format!("{path}.effect"), &json!(effect), problem);
    }
    match operator {
        "Equal" | "" => {
            let problems = names::label_value(value);
            if !problems.is_empty() {
                errors.invalid(field, &json!(value), &problems.join(";"));
            }
        }
        "Exists" => {
            if !value.is_empty() {
                errors.invalid(field, toleration, "value must be empty when `operator` is 'Exists'");
            }
        }
        // Clusters with numbers in their taints compare them.
        "Gt" | "Lt" => {}
        other => errors.unsupported(field, &json!(other), &["Equal", "Exists"]),
    }
    if !effect.is_empty() {
        one_of(toleration, "effect", path, &["NoSchedule", "PreferNoSchedule", "NoExecute"], errors);
    }
}
