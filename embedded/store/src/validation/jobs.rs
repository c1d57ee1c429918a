//! Rules of Jobs and CronJobs.

use serde_json::{Value, json};

use super::selectors::{self, label_selector};
use super::{not_negative, one_of, pods};
use crate::invalid::FieldErrors;
use crate::json::{given, int_at, str_at};

/// Longest name of a CronJob: those of its Jobs are eleven characters longer.
const MAX_CRON_NAME: usize = 52;

/// The label by which a Job knows its pods.
const UID: &str = "batch.kubernetes.io/controller-uid";

/// A Job, and what may change of it.
pub(super) fn job(old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    job_spec("spec", spec, errors);
    if let Some(wanted) = given(spec, "selector") {
        selector(spec, wanted, errors);
    }
    match old {
        Some(old) => changes(&old["spec"], spec, errors),
        None => own_selector(object, errors),
    }
}

fn selector(spec: &Value, selector: &Value, errors: &mut FieldErrors) {
    label_selector("spec.selector", selector, errors);
    let labels = spec.pointer("/template/metadata/labels").unwrap_or(&Value::Null);
    let parsed = meshgate_machinery::selector::LabelSelector::from_object(selector);
    if parsed.is_ok_and(|parsed| !parsed.matches_labels(labels)) {
        let problem = "`selector` does not match template `labels`";
        errors.invalid("spec.template.metadata.labels", labels, problem);
    }
}

/// Whoever wants to say which pods are those of a Job must say so.
fn own_selector(object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    let own = json!({"matchLabels": {UID: object["metadata"]["uid"]}});
    if let Some(selector) = given(spec, "selector")
        && *selector != own
        && !selectors::is_empty(selector)
        && spec["manualSelector"] != true
    {
        errors.invalid("spec.selector", selector, "`selector` not auto-generated");
    }
}

fn changes(old: &Value, spec: &Value, errors: &mut FieldErrors) {
    // A Job whose pods have numbers may get more or fewer of them, all at once.
    let is_elastic = str_at(spec, "/completionMode") == "Indexed"
        && given(old, "completions").is_some()
        && given(spec, "completions").is_some_and(|count| given(spec, "parallelism") == Some(count));
    if !is_elastic {
        errors.immutable("spec.completions", old.get("completions"), spec.get("completions"));
    }
    for key in ["selector", "template", "completionMode"] {
        errors.immutable(&format!("spec.{key}"), old.get(key), spec.get(key));
    }
}

/// A CronJob.
pub(super) fn cron_job(old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    if str_at(spec, "/schedule").is_empty() {
        errors.required("spec.schedule", "");
    }
    one_of(spec, "concurrencyPolicy", "spec", &["Allow", "Forbid", "Replace"], errors);
    let numbers = ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"];
    not_negative("spec", spec, &numbers, errors);
    let (path, job) = ("spec.jobTemplate.spec", &spec["jobTemplate"]["spec"]);
    job_spec(path, job, errors);
    if let Some(selector) = given(job, "selector") {
        errors.invalid(format!("{path}.selector"), selector, "`selector` will be auto-generated");
    }
    if job["manualSelector"] == true {
        errors.unsupported(format!("{path}.manualSelector"), &json!(true), &["nil", "false"]);
    }
    let name = str_at(object, "/metadata/name");
    if old.is_none() && name.len() > MAX_CRON_NAME {
        let problem = format!("must be no more than {MAX_CRON_NAME} characters");
        errors.invalid("metadata.name", &json!(name), &problem);
    }
}

fn job_spec(path: &str, spec: &Value, errors: &mut FieldErrors) {
    let numbers = ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"];
    not_negative(path, spec, &numbers, errors);
    one_of(spec, "completionMode", path, &["NonIndexed", "Indexed"], errors);
    if str_at(spec, "/completionMode") == "Indexed" && int_at(spec, "/completions").is_none() {
        errors.required(format!("{path}.completions"), "when completion mode is Indexed");
    }
    pods::template(&format!("{path}.template"), &spec["template"], &[], errors);
    let field = format!("{path}.template.spec.restartPolicy");
    match str_at(spec, "/template/spec/restartPolicy") {
        "OnFailure" | "Never" => {}
        // The default of pods would never let a job end.
        "" | "Always" => errors.required(field, "valid values: \"OnFailure\", \"Never\""),
        other => errors.unsupported(field, &json!(other), &["OnFailure", "Never"]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Good;
    use super::*;

    fn template() -> Value {
        json!({"metadata": {"labels": {"app": "a"}}, "spec": {
            "restartPolicy": "Never", "containers": [{"name": "main", "image": "main:1"}],
        }})
    }

    #[test]
    fn jobs() {
        let good = Good::new(
            "batch",
            "jobs",
            json!({"metadata": {"name": "once"}, "spec": {"completions": 1, "template": template()}}),
        );
        let own = json!({"matchLabels": {"app": "a"}});
        good.takes(&[
            ("/spec/template/spec/restartPolicy", json!("OnFailure")),
            ("/spec/template/metadata", Value::Null),
            ("/spec/completions", json!(0)),
            ("/spec/completionMode", json!("Indexed")),
            ("/spec", json!({"manualSelector": true, "selector": own, "template": template()})),
        ]);
        let other = json!({"manualSelector": true, "selector": {"matchLabels": {"app": "b"}}, "template": template()});
        let restart = "spec.template.spec.restartPolicy";
        let long = "a".repeat(64);
        good.refuses(&[
            ("/metadata/name", json!(long), "spec.template.labels", "must be no more than 63 characters"),
            ("/spec/template", Value::Null, "spec.template.spec.containers", "Required value"),
            ("/spec/template", Value::Null, restart, "Required value: valid values: \"OnFailure\", \"Never\""),
            ("/spec/template/spec/restartPolicy", json!("Always"), restart, "Required value: valid values"),
            ("/spec/template/spec/restartPolicy", json!("Often"), restart, "values: \"OnFailure\", \"Never\""),
            ("/spec/template/metadata/labels/app", json!("*.a"), "spec.template.labels", "a valid label must be"),
            ("/spec/parallelism", json!(-1), "spec.parallelism", "must be greater than or equal to 0"),
            ("/spec/activeDeadlineSeconds", json!(-1), "spec.activeDeadlineSeconds", "greater than or equal to 0"),
            ("/spec/ttlSecondsAfterFinished", json!(-1), "spec.ttlSecondsAfterFinished", "greater than or equal"),
            ("/spec/completionMode", json!("All"), "spec.completionMode", "\"NonIndexed\", \"Indexed\""),
            (
                "/spec",
                json!({"completionMode": "Indexed", "parallelism": 1, "template": template()}),
                "spec.completions",
                "when completion mode is Indexed",
            ),
            ("/spec", other, "spec.template.metadata.labels", "`selector` does not match template `labels`"),
            ("/spec/selector", own, "spec.selector", "`selector` not auto-generated"),
        ]);
    }

    #[test]
    fn what_may_change_of_a_job() {
        let problem = |old: Value, new: Value| {
            let mut errors = FieldErrors::default();
            changes(&old, &new, &mut errors);
            !errors.is_empty()
        };
        let indexed =
            |count: u8, pods: u8| json!({"completionMode": "Indexed", "completions": count, "parallelism": pods});
        assert!(!problem(indexed(2, 2), indexed(3, 3)));
        assert!(problem(indexed(2, 2), indexed(3, 2)));
        assert!(problem(json!({"completions": 2}), json!({"completions": 3, "parallelism": 3})));
        assert!(problem(json!({"template": {}}), json!({"template": {"spec": {}}})));
        assert!(!problem(json!({"backoffLimit": 2}), json!({"backoffLimit": 3})));
    }

    #[test]
    fn cron_jobs() {
        let good = Good::new(
            "batch",
            "cronjobs",
            json!({"metadata": {"name": "often"}, "spec": {
                "schedule": "* * * * *", "jobTemplate": {"spec": {"template": template()}},
            }}),
        );
        good.takes(&[("/metadata/name", json!("a".repeat(52))), ("/spec/failedJobsHistoryLimit", json!(0))]);
        let job = "spec.jobTemplate.spec";
        let restart = format!("{job}.template.spec.restartPolicy");
        let (selector, manual) = (format!("{job}.selector"), format!("{job}.manualSelector"));
        good.refuses(&[
            ("/metadata/name", json!("a".repeat(53)), "metadata.name", "must be no more than 52 characters"),
            ("/spec/schedule", Value::Null, "spec.schedule", "Required value"),
            ("/spec/concurrencyPolicy", json!("Both"), "spec.concurrencyPolicy", "\"Allow\", \"Forbid\", \"Replace\""),
            ("/spec/startingDeadlineSeconds", json!(-1), "spec.startingDeadlineSeconds", "greater than or equal to 0"),
            ("/spec/failedJobsHistoryLimit", json!(-1), "spec.failedJobsHistoryLimit", "greater than or equal to 0"),
            ("/spec/jobTemplate", Value::Null, &restart, "Required value: valid values"),
            ("/spec/jobTemplate/spec/selector", json!({}), &selector, "`selector` will be auto-generated"),
            ("/spec/jobTemplate/spec/manualSelector", json!(true), &manual, "supported values: \"nil\", \"false\""),
        ]);
    }
}
