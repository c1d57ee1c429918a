//! Rules of roles and their bindings.

use serde_json::{Value, json};

use super::selectors::label_selector;
use super::{names, reference};
use crate::ResourceType;
use crate::invalid::FieldErrors;
use crate::json::{given, items, str_at};

const GROUP: &str = "rbac.authorization.k8s.io";

/// A Role or a ClusterRole.
pub(super) fn role(kind: &ResourceType, object: &Value, errors: &mut FieldErrors) {
    for (index, rule) in items(object, "/rules").iter().enumerate() {
        self::rule(&format!("rules[{index}]"), rule, kind.namespaced, errors);
    }
    let Some(aggregation) = given(object, "aggregationRule") else { return };
    let path = "aggregationRule.clusterRoleSelectors";
    let selectors = items(aggregation, "/clusterRoleSelectors");
    if selectors.is_empty() {
        errors.required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (index, selector) in selectors.iter().enumerate() {
        label_selector(&format!("{path}[{index}]"), selector, errors);
    }
}

fn rule(path: &str, rule: &Value, is_namespaced: bool, errors: &mut FieldErrors) {
    let has = |key: &str| !items(rule, &format!("/{key}")).is_empty();
    if !has("verbs") {
        errors.required(format!("{path}.verbs"), "verbs must contain at least one value");
    }
    if has("nonResourceURLs") {
        let (field, urls) = (format!("{path}.nonResourceURLs"), &rule["nonResourceURLs"]);
        if is_namespaced {
            errors.invalid(field.as_str(), urls, "namespaced rules cannot apply to non-resource URLs");
        }
        if has("apiGroups") || has("resources") || has("resourceNames") {
            errors.invalid(field, urls, "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    for (key, what) in [("apiGroups", "api group"), ("resources", "resource")] {
        if !has(key) {
            errors.required(format!("{path}.{key}"), &format!("resource rules must supply at least one {what}"));
        }
    }
}

/// A RoleBinding or a ClusterRoleBinding.
pub(super) fn binding(kind: &ResourceType, old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    let role = &object["roleRef"];
    let group = str_at(role, "/apiGroup");
    // The default is filled in only where there is a role.
    if group != GROUP && !role.is_null() {
        errors.unsupported("roleRef.apiGroup", &json!(group), &[GROUP]);
    }
    let kinds: &[&str] = if kind.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    let found = str_at(role, "/kind");
    if !kinds.contains(&found) {
        errors.unsupported("roleRef.kind", &json!(found), kinds);
    }
    reference("roleRef", role, "name", names::path_segment, errors);
    for (index, subject) in items(object, "/subjects").iter().enumerate() {
        self::subject(&format!("subjects[{index}]"), subject, kind.namespaced, errors);
    }
    if let Some(old) = old
        && old.get("roleRef") != object.get("roleRef")
    {
        errors.invalid("roleRef", role, "cannot change roleRef");
    }
}

fn subject(path: &str, subject: &Value, is_namespaced: bool, errors: &mut FieldErrors) {
    const KINDS: [&str; 3] = ["ServiceAccount", "User", "Group"];
    let (name, group) = (str_at(subject, "/name"), str_at(subject, "/apiGroup"));
    if name.is_empty() {
        errors.required(format!("{path}.name"), "");
    }
    match str_at(subject, "/kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.each(format!("{path}.name"), &json!(name), names::dns_subdomain(name));
            }
            if !group.is_empty() {
                errors.unsupported(format!("{path}.apiGroup"), &json!(group), &[""]);
            }
            if !is_namespaced && str_at(subject, "/namespace").is_empty() {
                errors.required(format!("{path}.namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.unsupported(format!("{path}.apiGroup"), &json!(group), &[GROUP]);
            }
        }
        other => errors.unsupported(format!("{path}.kind"), &json!(other), &KINDS),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Good;
    use super::*;

    #[test]
    fn roles() {
        let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
        let paths = json!({"nonResourceURLs": ["/healthz"], "verbs": ["get"]});
        let role = Good::new(GROUP, "roles", json!({"metadata": {"name": "a:b"}, "rules": [rule]}));
        role.takes(&[("/rules", Value::Null), ("/rules/0/resourceNames", json!(["x"]))]);
        role.refuses(&[
            ("/rules/0/verbs", Value::Null, "rules[0].verbs", "verbs must contain at least one value"),
            ("/rules/0/apiGroups", json!([]), "rules[0].apiGroups", "must supply at least one api group"),
            ("/rules/0/resources", Value::Null, "rules[0].resources", "must supply at least one resource"),
            ("/rules/0", paths.clone(), "rules[0].nonResourceURLs", "namespaced rules cannot apply"),
        ]);
        let role = Good::new(GROUP, "clusterroles", json!({"metadata": {"name": "a"}, "rules": [rule, paths]}));
        let selector = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
        let wrong = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "/"}}]});
        let path = "aggregationRule.clusterRoleSelectors";
        let labels = format!("{path}[0].matchLabels");
        role.takes(&[("/aggregationRule", selector)]);
        role.refuses(&[
            ("/rules/1/resources", json!(["pods"]), "rules[1].nonResourceURLs", "both regular resources and"),
            ("/aggregationRule", json!({}), path, "at least one clusterRoleSelector required"),
            ("/aggregationRule", wrong, labels.as_str(), "a valid label must be"),
        ]);
    }

    #[test]
    fn bindings() {
        let account = json!({"kind": "ServiceAccount", "name": "a", "namespace": "b"});
        let binding = json!({
            "metadata": {"name": "a"}, "roleRef": {"kind": "ClusterRole", "name": "a:b"},
            "subjects": [account, {"kind": "User", "name": "::1"}],
        });
        let good = Good::new(GROUP, "clusterrolebindings", binding.clone());
        good.takes(&[("/subjects", Value::Null), ("/subjects/1/kind", json!("Group"))]);
        good.refuses(&[
            ("/roleRef", Value::Null, "roleRef.kind", "Unsupported value: \"\": supported values: \"ClusterRole\""),
            ("/roleRef/kind", json!("Role"), "roleRef.kind", "supported values: \"ClusterRole\""),
            ("/roleRef/apiGroup", json!("1"), "roleRef.apiGroup", "supported values: \"rbac.authorization.k8s.io\""),
            ("/roleRef/name", json!("a/b"), "roleRef.name", "may not contain '/'"),
            ("/roleRef/name", json!(""), "roleRef.name", "Required value"),
            ("/subjects/0/namespace", Value::Null, "subjects[0].namespace", "Required value"),
            ("/subjects/0/name", json!("::1"), "subjects[0].name", "a lowercase RFC 1123 subdomain"),
            ("/subjects/0/apiGroup", json!(GROUP), "subjects[0].apiGroup", "supported values: \"\""),
            ("/subjects/1/apiGroup", json!("x"), "subjects[1].apiGroup", "supported values: \"rbac."),
            ("/subjects/1/name", Value::Null, "subjects[1].name", "Required value"),
            ("/subjects/1", json!({}), "subjects[1].kind", "\"ServiceAccount\", \"User\", \"Group\""),
        ]);
        let good = Good::new(GROUP, "rolebindings", binding);
        good.takes(&[("/roleRef/kind", json!("Role")), ("/subjects/0/namespace", Value::Null)]);
        let kinds = "supported values: \"Role\", \"ClusterRole\"";
        good.refuses(&[("/roleRef/kind", json!("role"), "roleRef.kind", kinds)]);
    }
}
