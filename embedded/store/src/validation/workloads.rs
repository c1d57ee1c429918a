//! Rules of the kinds that make pods.

use meshgate_machinery::selector::LabelSelector;
use serde_json::Value;

use super::names;
use super::pods::{one_of, pod_spec};
use crate::ResourceType;
use crate::invalid::FieldErrors;
use crate::json::{int_at, str_at};

/// Deployment, ReplicaSet, DaemonSet, StatefulSet, ReplicationController.
pub(super) fn workload(kind: &ResourceType, old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    negative("spec.replicas", spec, "/replicas", errors);
    if kind.kind == "ReplicationController" {
        template(spec, errors);
        return;
    }
    selector(spec, errors);
    template(spec, errors);
    let restart = str_at(spec, "/template/spec/restartPolicy");
    if !restart.is_empty() && restart != "Always" {
        errors.unsupported("spec.template.spec.restartPolicy", &Value::from(restart), &["Always"]);
    }
    match kind.kind.as_str() {
        "Deployment" => deployment(spec, errors),
        "StatefulSet" => one_of(spec, "podManagementPolicy", "spec", &["OrderedReady", "Parallel"], errors),
        _ => {}
    }
    if let Some(old) = old {
        errors.immutable("spec.selector", old.pointer("/spec/selector"), object.pointer("/spec/selector"));
    }
}

fn deployment(spec: &Value, errors: &mut FieldErrors) {
    let strategy = &spec["strategy"];
    one_of(strategy, "type", "spec.strategy", &["Recreate", "RollingUpdate"], errors);
    let rolling = &strategy["rollingUpdate"];
    if str_at(strategy, "/type") == "Recreate" && !rolling.is_null() {
        errors.forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'");
    }
    let zero = |key: &str| matches!(rolling.get(key), Some(value) if value == 0 || value == "0%");
    if zero("maxSurge") && zero("maxUnavailable") {
        errors.invalid(
            "spec.strategy.rollingUpdate.maxUnavailable",
            &rolling["maxUnavailable"],
            "may not be 0 when `maxSurge` is 0",
        );
    }
}

fn selector(spec: &Value, errors: &mut FieldErrors) {
    let selector = &spec["selector"];
    if selector.is_null() {
        errors.required("spec.selector", "");
        return;
    }
    if selector.as_object().is_none_or(serde_json::Map::is_empty) {
        errors.invalid("spec.selector", selector, "empty selector is invalid for deployment");
        return;
    }
    let labels =
        spec.pointer("/template/metadata/labels").cloned().unwrap_or_else(|| Value::Object(Default::default()));
    match LabelSelector::from_object(selector) {
        Ok(parsed) if parsed.matches_labels(&labels) => {}
        Ok(_) => {
            errors.invalid("spec.template.metadata.labels", &labels, "`selector` does not match template `labels`")
        }
        Err(error) => errors.invalid("spec.selector", selector, &error.to_string()),
    }
}

fn template(spec: &Value, errors: &mut FieldErrors) {
    let template = &spec["template"];
    if template.is_null() {
        errors.required("spec.template", "");
        return;
    }
    if let Some(labels) = template.pointer("/metadata/labels").and_then(Value::as_object) {
        names::labels("spec.template.labels", labels, errors);
    }
    pod_spec("spec.template.spec", &template["spec"], errors);
}

fn negative(field: &str, value: &Value, pointer: &str, errors: &mut FieldErrors) {
    if int_at(value, pointer).is_some_and(|number| number < 0) {
        errors.invalid(
            field,
            &value.pointer(pointer).cloned().unwrap_or_default(),
            "must be greater than or equal to 0",
        );
    }
}

/// A Job.
pub(super) fn job(old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    job_spec("spec", spec, errors);
    let Some(old) = old else { return };
    errors.immutable("spec.completions", old.pointer("/spec/completions"), spec.get("completions"));
    errors.immutable("spec.selector", old.pointer("/spec/selector"), spec.get("selector"));
    errors.immutable("spec.template", old.pointer("/spec/template"), spec.get("template"));
}

/// A CronJob.
pub(super) fn cron_job(object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    if str_at(spec, "/schedule").is_empty() {
        errors.required("spec.schedule", "");
    }
    one_of(spec, "concurrencyPolicy", "spec", &["Allow", "Forbid", "Replace"], errors);
    job_spec("spec.jobTemplate.spec", &spec["jobTemplate"]["spec"], errors);
}

fn job_spec(path: &str, spec: &Value, errors: &mut FieldErrors) {
    for key in ["parallelism", "completions", "backoffLimit"] {
        negative(&format!("{path}.{key}"), spec, &format!("/{key}"), errors);
    }
    if spec["template"].is_null() {
        errors.required(format!("{path}.template"), "");
        return;
    }
    let pod = &spec["template"]["spec"];
    pod_spec(&format!("{path}.template.spec"), pod, errors);
    if str_at(pod, "/restartPolicy") == "Always" {
        errors.unsupported(
            format!("{path}.template.spec.restartPolicy"),
            &Value::from("Always"),
            &["OnFailure", "Never"],
        );
    }
}
