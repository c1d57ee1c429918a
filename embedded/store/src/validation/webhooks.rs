//! Rules of MutatingWebhookConfigurations and ValidatingWebhookConfigurations.
//!
//! `matchConditions` are refused, because nothing here evaluates CEL: a webhook that is called for what its author excluded
//! would be worse than none.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::names;
use super::pods::one_of;
use crate::invalid::FieldErrors;
use crate::json::{int_at, items, str_at};

/// A configuration of either kind.
pub(super) fn configuration(object: &Value, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (index, webhook) in items(object, "/webhooks").iter().enumerate() {
        let path = format!("webhooks[{index}]");
        let name = str_at(webhook, "/name");
        if !seen.insert(name) {
            errors.duplicate(format!("{path}.name"), &json!(name));
        }
        check(webhook, &path, errors);
    }
}

fn check(webhook: &Value, path: &str, errors: &mut FieldErrors) {
    let name = str_at(webhook, "/name");
    if let Some(problem) = names::dns_subdomain(name) {
        errors.invalid(format!("{path}.name"), &json!(name), &problem);
    } else if name.split('.').count() < 3 {
        let problem = "should be a domain with at least three segments separated by dots";
        errors.invalid(format!("{path}.name"), &json!(name), problem);
    }
    for (index, rule) in items(webhook, "/rules").iter().enumerate() {
        check_rule(rule, &format!("{path}.rules[{index}]"), errors);
    }
    one_of(webhook, "failurePolicy", path, &["Fail", "Ignore"], errors);
    one_of(webhook, "matchPolicy", path, &["Equivalent", "Exact"], errors);
    match str_at(webhook, "/sideEffects") {
        "" => errors.required(format!("{path}.sideEffects"), "must specify one of None, NoneOnDryRun"),
        _ => one_of(webhook, "sideEffects", path, &["None", "NoneOnDryRun"], errors),
    }
    if let Some(seconds) = int_at(webhook, "/timeoutSeconds").filter(|seconds| !(1..=30).contains(seconds)) {
        let problem = "the timeout value must be between 1 and 30 seconds";
        errors.invalid(format!("{path}.timeoutSeconds"), &json!(seconds), problem);
    }
    if !items(webhook, "/admissionReviewVersions").iter().any(|version| version == "v1") {
        let field = format!("{path}.admissionReviewVersions");
        let versions = webhook.get("admissionReviewVersions").cloned().unwrap_or_else(|| json!([]));
        errors.invalid(field, &versions, "must include at least one of v1");
    }
    if !items(webhook, "/matchConditions").is_empty() {
        errors.forbidden(format!("{path}.matchConditions"), "this cluster does not evaluate match conditions");
    }
    check_client(&webhook["clientConfig"], &format!("{path}.clientConfig"), errors);
}

fn check_rule(rule: &Value, path: &str, errors: &mut FieldErrors) {
    for field in ["operations", "apiGroups", "apiVersions", "resources"] {
        if items(rule, &format!("/{field}")).is_empty() {
            errors.required(format!("{path}.{field}"), "");
        }
    }
    const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    for (index, operation) in items(rule, "/operations").iter().enumerate() {
        if !OPERATIONS.iter().any(|known| operation == known) {
            errors.unsupported(format!("{path}.operations[{index}]"), operation, &OPERATIONS);
        }
    }
    one_of(rule, "scope", path, &["*", "Cluster", "Namespaced"], errors);
}

fn check_client(config: &Value, path: &str, errors: &mut FieldErrors) {
    let (url, service) = (str_at(config, "/url"), config.get("service").filter(|service| service.is_object()));
    match (url, service) {
        ("", None) | (_, Some(_)) if url.is_empty() == service.is_none() => {
            errors.required(path, "exactly one of url or service is required");
        }
        (url, None) => {
            if !url.starts_with("https://") {
                errors.invalid(format!("{path}.url"), &json!(url), "'https' is the only allowed URL scheme");
            }
        }
        (_, Some(service)) => {
            for field in ["name", "namespace"] {
                if str_at(service, &format!("/{field}")).is_empty() {
                    errors.required(format!("{path}.service.{field}"), "");
                }
            }
        }
    }
}
