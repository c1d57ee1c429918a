//! Rules of the kinds that keep pods running.

mod updates;

use meshgate_machinery::selector::LabelSelector;
use serde_json::{Value, json};

use super::selectors::{self, label_selector};
use super::{not_negative, one_of, pods};
use crate::ResourceType;
use crate::invalid::FieldErrors;
use crate::json::{given, int_at, items, str_at};

/// Deployment, ReplicaSet, DaemonSet, StatefulSet, ReplicationController.
pub(super) fn workload(kind: &ResourceType, old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    not_negative("spec", spec, &["replicas", "minReadySeconds", "revisionHistoryLimit"], errors);
    if selector(kind.kind.as_str(), spec, errors) {
        pods::template("spec.template", &spec["template"], items(spec, "/volumeClaimTemplates"), errors);
    }
    runs_on(kind.kind.as_str(), &spec["template"], errors);
    match kind.kind.as_str() {
        "Deployment" => {
            updates::deployment(&spec["strategy"], errors);
            progress(spec, errors);
        }
        "DaemonSet" => updates::daemon_set(&spec["updateStrategy"], errors),
        "StatefulSet" => stateful_set(spec, errors),
        _ => {}
    }
    match (kind.kind.as_str(), old) {
        ("ReplicationController", _) | (_, None) => {}
        ("StatefulSet", Some(old)) => updates::of_stateful_set(&old["spec"], spec, errors),
        (_, Some(old)) => {
            errors.immutable("spec.selector", old.pointer("/spec/selector"), spec.get("selector"));
        }
    }
}

/// Whether the selector is one, so that there is something to say of the template.
fn selector(kind: &str, spec: &Value, errors: &mut FieldErrors) -> bool {
    let field = "spec.selector";
    let labels = spec.pointer("/template/metadata/labels").unwrap_or(&Value::Null);
    let mismatch = |errors: &mut FieldErrors| {
        let problem = "`selector` does not match template `labels`";
        errors.invalid("spec.template.metadata.labels", labels, problem);
    };
    if kind == "ReplicationController" {
        return plain_selector(spec, mismatch, errors);
    }
    let Some(selector) = given(spec, "selector") else {
        if kind != "DaemonSet" {
            errors.required(field, "");
        }
        mismatch(errors);
        return true;
    };
    label_selector(field, selector, errors);
    let is_empty = selectors::is_empty(selector);
    if is_empty {
        // Kubernetes speaks of deployments where it means ReplicaSets, too.
        let said = if kind == "ReplicaSet" { "deployment".to_owned() } else { kind.to_lowercase() };
        errors.invalid(field, selector, &format!("empty selector is invalid for {said}"));
    }
    match LabelSelector::from_object(selector) {
        Ok(parsed) => {
            if !is_empty && !parsed.matches_labels(labels) {
                mismatch(errors);
            }
            true
        }
        Err(_) if kind == "DaemonSet" => true,
        Err(_) => {
            errors.invalid(field, selector, if kind == "StatefulSet" { "" } else { "invalid label selector" });
            false
        }
    }
}

/// The selector of a ReplicationController, which is only labels; whether there is a template.
fn plain_selector(spec: &Value, mismatch: impl Fn(&mut FieldErrors), errors: &mut FieldErrors) -> bool {
    let wanted = spec.get("selector").and_then(Value::as_object).filter(|labels| !labels.is_empty());
    let template = given(spec, "template");
    if wanted.is_none() {
        errors.required("spec.selector", "");
    }
    let Some(template) = template else {
        errors.required("spec.template", "");
        return false;
    };
    let labels = template.pointer("/metadata/labels").and_then(Value::as_object);
    if wanted.into_iter().flatten().any(|(key, value)| labels.and_then(|labels| labels.get(key)) != Some(value)) {
        mismatch(errors);
    }
    true
}

/// What these kinds make of pods: something that goes on.
fn runs_on(kind: &str, template: &Value, errors: &mut FieldErrors) {
    let restart = str_at(template, "/spec/restartPolicy");
    if !restart.is_empty() && restart != "Always" {
        errors.unsupported("spec.template.spec.restartPolicy", &json!(restart), &["Always"]);
    }
    if int_at(template, "/spec/activeDeadlineSeconds").is_some() {
        let said = if kind == "Deployment" { "ReplicaSet" } else { kind };
        let why = format!("activeDeadlineSeconds in {said} is not Supported");
        errors.forbidden("spec.template.spec.activeDeadlineSeconds", &why);
    }
}

fn progress(spec: &Value, errors: &mut FieldErrors) {
    not_negative("spec", spec, &["progressDeadlineSeconds"], errors);
    let least = int_at(spec, "/minReadySeconds").unwrap_or(0);
    if let Some(seconds) = int_at(spec, "/progressDeadlineSeconds").filter(|seconds| *seconds <= least) {
        errors.invalid("spec.progressDeadlineSeconds", &json!(seconds), "must be greater than minReadySeconds");
    }
}

fn stateful_set(spec: &Value, errors: &mut FieldErrors) {
    let policy = str_at(spec, "/podManagementPolicy");
    if !matches!(policy, "" | "OrderedReady" | "Parallel") {
        errors.invalid("spec.podManagementPolicy", &json!(policy), "must be 'OrderedReady' or 'Parallel'");
    }
    updates::stateful_set(&spec["updateStrategy"], errors);
    if let Some(policy) = given(spec, "persistentVolumeClaimRetentionPolicy") {
        for key in ["whenDeleted", "whenScaled"] {
            let path = "spec.persistentVolumeClaimRetentionPolicy";
            one_of(policy, key, path, &["Retain", "Delete"], errors);
        }
    }
    not_negative("spec.ordinals", &spec["ordinals"], &["start"], errors);
}

/// A PodDisruptionBudget.
pub(super) fn disruption_budget(object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    let limits = ["minAvailable", "maxUnavailable"].map(|key| (key, given(spec, key)));
    if limits.iter().all(|(_, limit)| limit.is_some()) {
        errors.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set");
    }
    for (key, limit) in limits {
        if let Some(limit) = limit {
            updates::count_or_percent(&format!("spec.{key}"), limit, errors);
            updates::at_most_all(&format!("spec.{key}"), limit, errors);
        }
    }
    label_selector("spec.selector", &spec["selector"], errors);
    one_of(spec, "unhealthyPodEvictionPolicy", "spec", &["AlwaysAllow", "IfHealthyBudget"], errors);
}

#[cfg(test)]
mod tests;
