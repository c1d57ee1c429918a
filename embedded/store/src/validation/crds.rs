//! Rules of CustomResourceDefinitions.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::names;
use super::pods::one_of;
use crate::builtin;
use crate::invalid::FieldErrors;
use crate::json::{items, str_at};

/// A CRD, and what may change of it.
pub(super) fn definition(old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    let (group, plural) = (str_at(spec, "/group"), str_at(spec, "/names/plural"));
    for (field, value) in [("group", group), ("names.plural", plural), ("names.kind", str_at(spec, "/names/kind"))] {
        if value.is_empty() {
            errors.required(format!("spec.{field}"), "");
        }
    }
    if let Some(problem) = names::dns_subdomain(group).filter(|_| !group.is_empty()) {
        errors.invalid("spec.group", &json!(group), &problem);
    }
    let name = str_at(object, "/metadata/name");
    if name != format!("{plural}.{group}") {
        errors.invalid("metadata.name", &json!(name), "must be spec.names.plural+\".\"+spec.group");
    }
    if builtin::types().any(|kind| kind.resource.group == group && kind.resource.plural == plural) {
        errors.invalid("spec.names.plural", &json!(plural), "is a built-in resource of this group");
    }
    if str_at(spec, "/scope").is_empty() {
        errors.required("spec.scope", "");
    }
    one_of(spec, "scope", "spec", &["Cluster", "Namespaced"], errors);
    versions(spec, errors);
    if let Some(old) = old {
        errors.immutable("spec.group", old.pointer("/spec/group"), spec.get("group"));
        errors.immutable("spec.scope", old.pointer("/spec/scope"), spec.get("scope"));
        errors.immutable("spec.names.kind", old.pointer("/spec/names/kind"), spec.pointer("/names/kind"));
        errors.immutable("spec.names.plural", old.pointer("/spec/names/plural"), spec.pointer("/names/plural"));
    }
}

fn versions(spec: &Value, errors: &mut FieldErrors) {
    let versions = items(spec, "/versions");
    if versions.is_empty() {
        errors.required("spec.versions", "must have at least one version");
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let name = str_at(version, "/name");
        if let Some(problem) = names::dns_label_1035(name) {
            errors.invalid(format!("{path}.name"), &json!(name), &problem);
        }
        if !seen.insert(name) {
            errors.duplicate(format!("{path}.name"), &json!(name));
        }
        let schema = version.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null);
        if schema.is_null() {
            errors.required(format!("{path}.schema.openAPIV3Schema"), "schemas are required");
        } else if str_at(schema, "/type") != "object" {
            errors.invalid(
                format!("{path}.schema.openAPIV3Schema.type"),
                &schema["type"],
                "must be object at the root",
            );
        }
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let value = json!(versions.iter().map(|version| &version["name"]).collect::<Vec<_>>());
        errors.invalid("spec.versions", &value, "must have exactly one version marked as storage version");
    }
}
