//! Defaults of the kinds that make pods.

use serde_json::{Value, json};

use super::pods::pod_spec;
use crate::json::{child, child_value, default_to, str_at};

/// The pod template under `key`.
pub(super) fn template(parent: &mut Value, key: &str) {
    if let Some(template) = parent.get_mut(key)
        && let Some(spec) = child_value(template, "spec")
    {
        pod_spec(spec);
    }
}

fn spec(object: &mut Value) -> Option<&mut Value> {
    let spec = object.get_mut("spec")?;
    template(spec, "template");
    Some(spec)
}

pub(super) fn deployment(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    default_to(spec, "replicas", 1);
    default_to(spec, "revisionHistoryLimit", 10);
    default_to(spec, "progressDeadlineSeconds", 600);
    let Some(strategy) = child_value(spec, "strategy") else { return };
    default_to(strategy, "type", "RollingUpdate");
    if str_at(strategy, "/type") == "RollingUpdate"
        && let Some(rolling) = child_value(strategy, "rollingUpdate")
    {
        default_to(rolling, "maxSurge", "25%");
        default_to(rolling, "maxUnavailable", "25%");
    }
}

pub(super) fn replica_set(object: &mut Value) {
    if let Some(spec) = spec(object) {
        default_to(spec, "replicas", 1);
    }
}

/// The one workload whose selector and labels come from the template.
pub(super) fn replication_controller(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    default_to(spec, "replicas", 1);
    if let Some(labels) = spec.pointer("/template/metadata/labels").cloned() {
        default_to(spec, "selector", labels);
    }
}

pub(super) fn daemon_set(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    default_to(spec, "revisionHistoryLimit", 10);
    let Some(strategy) = child_value(spec, "updateStrategy") else { return };
    default_to(strategy, "type", "RollingUpdate");
    if str_at(strategy, "/type") == "RollingUpdate"
        && let Some(rolling) = child_value(strategy, "rollingUpdate")
    {
        default_to(rolling, "maxSurge", 0);
        default_to(rolling, "maxUnavailable", 1);
    }
}

pub(super) fn stateful_set(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    default_to(spec, "replicas", 1);
    default_to(spec, "podManagementPolicy", "OrderedReady");
    default_to(spec, "revisionHistoryLimit", 10);
    default_to(spec, "persistentVolumeClaimRetentionPolicy", json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
    let Some(strategy) = child_value(spec, "updateStrategy") else { return };
    default_to(strategy, "type", "RollingUpdate");
    if str_at(strategy, "/type") == "RollingUpdate"
        && let Some(rolling) = child_value(strategy, "rollingUpdate")
    {
        default_to(rolling, "partition", 0);
    }
}

/// A Job. Unless `manualSelector`, its selector is its own uid, put on the template as a label.
pub(super) fn job(object: &mut Value) {
    let uid = str_at(object, "/metadata/uid").to_owned();
    let name = str_at(object, "/metadata/name").to_owned();
    let Some(spec) = spec(object) else { return };
    job_spec(spec);
    let manual = spec.get("manualSelector").and_then(Value::as_bool).unwrap_or(false);
    if manual || uid.is_empty() || spec.get("selector").is_some() {
        return;
    }
    spec["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    let labels = child_value(spec, "template")
        .and_then(|template| child_value(template, "metadata"))
        .and_then(|meta| child(meta, "labels"));
    if let Some(labels) = labels {
        labels.insert("batch.kubernetes.io/controller-uid".to_owned(), json!(uid));
        labels.insert("controller-uid".to_owned(), json!(uid));
        labels.insert("batch.kubernetes.io/job-name".to_owned(), json!(name));
        labels.insert("job-name".to_owned(), json!(name));
    }
}

fn job_spec(spec: &mut Value) {
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        default_to(spec, "completions", 1);
    }
    default_to(spec, "parallelism", 1);
    default_to(spec, "backoffLimit", 6);
    default_to(spec, "completionMode", "NonIndexed");
    default_to(spec, "suspend", false);
    default_to(spec, "manualSelector", false);
    default_to(spec, "podReplacementPolicy", "TerminatingOrFailed");
}

pub(super) fn cron_job(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else { return };
    default_to(spec, "concurrencyPolicy", "Allow");
    default_to(spec, "suspend", false);
    default_to(spec, "successfulJobsHistoryLimit", 3);
    default_to(spec, "failedJobsHistoryLimit", 1);
    if let Some(job) = spec.get_mut("jobTemplate").and_then(|template| template.get_mut("spec")) {
        template(job, "template");
    }
}
