//! Rules of MutatingWebhookConfigurations and ValidatingWebhookConfigurations.
//!
//! `matchConditions` are refused, because nothing here evaluates CEL: a webhook that is called for what its author excluded
//! would be worse than none.

pub(super) mod clients;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::selectors::label_selector;
use super::{names, one_of};
use crate::invalid::FieldErrors;
use crate::json::{given, int_at, items, str_at};

/// A configuration of either kind.
pub(super) fn configuration(object: &Value, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (index, webhook) in items(object, "/webhooks").iter().enumerate() {
        let path = format!("webhooks[{index}]");
        check(webhook, &path, errors);
        let name = str_at(webhook, "/name");
        if !name.is_empty() && !seen.insert(name) {
            errors.duplicate(format!("{path}.name"), &json!(name));
        }
    }
}

fn check(webhook: &Value, path: &str, errors: &mut FieldErrors) {
    name(&format!("{path}.name"), str_at(webhook, "/name"), errors);
    for (index, rule) in items(webhook, "/rules").iter().enumerate() {
        check_rule(rule, &format!("{path}.rules[{index}]"), errors);
    }
    one_of(webhook, "failurePolicy", path, &["Fail", "Ignore"], errors);
    one_of(webhook, "matchPolicy", path, &["Equivalent", "Exact"], errors);
    if given(webhook, "sideEffects").is_none() {
        errors.required(format!("{path}.sideEffects"), "must specify one of None, NoneOnDryRun");
    }
    one_of(webhook, "sideEffects", path, &["None", "NoneOnDryRun"], errors);
    if let Some(seconds) = int_at(webhook, "/timeoutSeconds").filter(|seconds| !(1..=30).contains(seconds)) {
        let problem = "the timeout value must be between 1 and 30 seconds";
        errors.invalid(format!("{path}.timeoutSeconds"), &json!(seconds), problem);
    }
    for key in ["namespaceSelector", "objectSelector"] {
        label_selector(&format!("{path}.{key}"), &webhook[key], errors);
    }
    one_of(webhook, "reinvocationPolicy", path, &["IfNeeded", "Never"], errors);
    clients::client(&format!("{path}.clientConfig"), &webhook["clientConfig"], errors);
    if !items(webhook, "/matchConditions").is_empty() {
        errors.forbidden(format!("{path}.matchConditions"), "this cluster does not evaluate match conditions");
    }
    let (field, versions) = (format!("{path}.admissionReviewVersions"), items(webhook, "/admissionReviewVersions"));
    // Only v1 is spoken here.
    clients::review_versions(&field, versions, "must specify one of v1, v1beta1", &["v1"], errors);
}

/// The name of a webhook, which is that of a host that its author has.
fn name(field: &str, name: &str, errors: &mut FieldErrors) {
    let problems = names::dns_subdomain(name);
    if name.is_empty() {
        errors.required(field, "");
    } else if !problems.is_empty() {
        errors.invalid(field, &json!(name), &problems.join(","));
    } else if name.split('.').count() < 3 {
        let problem = "should be a domain with at least three segments separated by dots";
        errors.invalid(field, &json!(name), problem);
    }
}

fn check_rule(rule: &Value, path: &str, errors: &mut FieldErrors) {
    const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    let lists = [("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")];
    for (key, others) in lists {
        let (field, list) = (format!("{path}.{key}"), items(rule, &format!("/{key}")));
        if list.is_empty() {
            errors.required(field, "");
        } else if list.len() > 1 && list.iter().any(|entry| entry == "*") {
            errors.invalid(field, &json!(list), &format!("if '*' is present, must not specify other {others}"));
        }
    }
    for (index, operation) in items(rule, "/operations").iter().enumerate() {
        if !OPERATIONS.iter().any(|known| operation == known) {
            errors.unsupported(format!("{path}.operations[{index}]"), operation, &OPERATIONS);
        }
    }
    for (index, version) in items(rule, "/apiVersions").iter().enumerate() {
        if version == "" {
            errors.required(format!("{path}.apiVersions[{index}]"), "");
        }
    }
    let texts: Vec<&str> = items(rule, "/resources").iter().map(|text| text.as_str().unwrap_or_default()).collect();
    resources(&format!("{path}.resources"), &texts, errors);
    one_of(rule, "scope", path, &["*", "Cluster", "Namespaced"], errors);
}

/// Resources and subresources, none of which is said twice by way of an asterisk.
fn resources(field: &str, resources: &[&str], errors: &mut FieldErrors) {
    if resources.is_empty() {
        errors.required(field, "");
    }
    let (mut all_of, mut all_with) = (BTreeSet::new(), BTreeSet::new());
    for (index, text) in resources.iter().enumerate() {
        let at = format!("{field}[{index}]");
        if text.is_empty() {
            errors.required(at, "");
            continue;
        }
        let Some((resource, sub)) = text.split_once('/') else { continue };
        if all_of.contains(resource) {
            let problem = format!("if '{resource}/*' is present, must not specify {text}");
            errors.invalid(at.as_str(), &json!(text), &problem);
        }
        if all_with.contains(sub) {
            errors.invalid(at, &json!(text), &format!("if '*/{sub}' is present, must not specify {text}"));
        }
        if sub == "*" {
            all_of.insert(resource);
        }
        if resource == "*" {
            all_with.insert(sub);
        }
    }
    if resources.len() > 1 && resources.contains(&"*/*") {
        errors.invalid(field, &json!(resources), "if '*/*' is present, must not specify other resources");
    }
    // Kubernetes looks at the last one without a subresource alone.
    let last = resources.iter().rfind(|text| !text.is_empty() && !text.contains('/'));
    if resources.contains(&"*") && last.is_some_and(|last| *last != "*") {
        let problem = "if '*' is present, must not specify other resources without subresources";
        errors.invalid(field, &json!(resources), problem);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Good;
    use super::*;

    #[test]
    fn configurations() {
        let rule =
            json!({"operations": ["CREATE"], "apiGroups": ["", "apps"], "apiVersions": ["v1"], "resources": ["pods"]});
        let hook = json!({
            "name": "check.e.io", "clientConfig": {"url": "https://e.io/check"}, "rules": [rule],
            "sideEffects": "None", "admissionReviewVersions": ["v1", "v1beta1"],
        });
        let good = Good::new(
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations",
            json!({"metadata": {"name": "check"}, "webhooks": [hook]}),
        );
        let mut other = hook.clone();
        other["name"] = json!("other.e.io");
        let first = |key: &str| format!("/webhooks/0/{key}");
        let of_rule = |key: &str| format!("/webhooks/0/rules/0/{key}");
        good.takes(&[
            ("/webhooks", Value::Null),
            ("/webhooks/1", other),
            (&first("rules"), Value::Null),
            (&first("namespaceSelector"), json!({"matchLabels": {"a": "b"}})),
            (&of_rule("resources"), json!(["*", "*/status"])),
            (&of_rule("resources"), json!(["pods", "pods/*"])),
            (&of_rule("apiGroups"), json!(["*"])),
        ]);
        let at = |key: &str| format!("webhooks[0].{key}");
        let in_rule = |key: &str| format!("webhooks[0].rules[0].{key}");
        let requirement = json!({"matchExpressions": [{"key": "a", "operator": "http://x"}]});
        good.refuses(&[
            ("/webhooks/0", json!({}), &at("name"), "Required value"),
            (&first("name"), json!("e.io"), &at("name"), "at least three segments"),
            (&first("name"), json!("A.e.io"), &at("name"), "a lowercase RFC 1123 subdomain"),
            ("/webhooks/1", hook, "webhooks[1].name", "Duplicate value"),
            (&first("sideEffects"), Value::Null, &at("sideEffects"), "must specify one of None, NoneOnDryRun"),
            (&first("sideEffects"), json!("Some"), &at("sideEffects"), "\"None\", \"NoneOnDryRun\""),
            (&first("timeoutSeconds"), json!(31), &at("timeoutSeconds"), "between 1 and 30 seconds"),
            (&first("failurePolicy"), json!("Retry"), &at("failurePolicy"), "\"Fail\", \"Ignore\""),
            (&first("reinvocationPolicy"), json!("Once"), &at("reinvocationPolicy"), "\"IfNeeded\", \"Never\""),
            (
                &first("namespaceSelector"),
                requirement,
                &at("namespaceSelector.matchExpressions[0].operator"),
                "not a valid selector operator",
            ),
            (
                &first("objectSelector"),
                json!({"matchLabels": {"a": "/"}}),
                &at("objectSelector.matchLabels"),
                "a valid label must be",
            ),
            (
                &first("admissionReviewVersions"),
                Value::Null,
                &at("admissionReviewVersions"),
                "specify one of v1, v1beta1",
            ),
            (&first("admissionReviewVersions"), json!(["v2"]), &at("admissionReviewVersions"), "at least one of v1"),
            (
                &first("admissionReviewVersions"),
                json!(["v1", "v1"]),
                &at("admissionReviewVersions[1]"),
                "duplicate version",
            ),
            (&first("admissionReviewVersions"), json!(["v1", "1"]), &at("admissionReviewVersions[1]"), "DNS-1035"),
            (&of_rule("operations"), json!([]), &in_rule("operations"), "Required value"),
            (&of_rule("operations"), json!(["*", "CREATE"]), &in_rule("operations"), "other operations"),
            (&of_rule("operations/0"), json!("READ"), &in_rule("operations[0]"), "\"CONNECT\", \"CREATE\""),
            (&of_rule("apiGroups"), json!(["*", ""]), &in_rule("apiGroups"), "other API groups"),
            (&of_rule("apiVersions/0"), json!(""), &in_rule("apiVersions[0]"), "Required value"),
            (&of_rule("resources"), Value::Null, &in_rule("resources"), "Required value"),
            (&of_rule("resources"), json!(["*/*", "pods"]), &in_rule("resources"), "other resources"),
            (&of_rule("resources"), json!(["*", "pods"]), &in_rule("resources"), "without subresources"),
            (&of_rule("resources"), json!(["pods/*", "pods/log"]), &in_rule("resources[1]"), "if 'pods/*' is present"),
            (&of_rule("scope"), json!("Pod"), &in_rule("scope"), "\"*\", \"Cluster\", \"Namespaced\""),
        ]);
    }
}
