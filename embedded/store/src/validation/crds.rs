//! Rules of CustomResourceDefinitions.

mod schemas;

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
    } else if !group.is_empty() && !group.contains('.') {
        errors.invalid("spec.group", &json!(group), "should be a domain with at least one dot");
    }
    said_names(&spec["names"], errors);
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
    if spec["preserveUnknownFields"] == true {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid("spec.preserveUnknownFields", &json!(true), why);
    }
    versions(spec, errors);
    if let Some(old) = old {
        errors.immutable("spec.group", old.pointer("/spec/group"), spec.get("group"));
        errors.immutable("spec.scope", old.pointer("/spec/scope"), spec.get("scope"));
        errors.immutable("spec.names.kind", old.pointer("/spec/names/kind"), spec.pointer("/names/kind"));
        errors.immutable("spec.names.plural", old.pointer("/spec/names/plural"), spec.pointer("/names/plural"));
    }
}

/// All names are DNS labels, but that kinds may have capitals.
fn said_names(said: &Value, errors: &mut FieldErrors) {
    let mut label = |field: String, name: &str, rule: &str| {
        let problem = names::dns_label_1035(&if rule.is_empty() { name.to_owned() } else { name.to_lowercase() });
        if let Some(problem) = problem.filter(|_| !name.is_empty()) {
            errors.invalid(field, &json!(name), &format!("{rule}{problem}"));
        }
    };
    for field in ["plural", "singular"] {
        label(format!("spec.names.{field}"), str_at(said, &format!("/{field}")), "");
    }
    for field in ["kind", "listKind"] {
        let rule = "may have mixed case, but should otherwise match: ";
        label(format!("spec.names.{field}"), str_at(said, &format!("/{field}")), rule);
    }
    for field in ["shortNames", "categories"] {
        for (index, name) in items(said, &format!("/{field}")).iter().enumerate() {
            label(format!("spec.names.{field}[{index}]"), name.as_str().unwrap_or_default(), "");
        }
    }
    let (kind, list) = (str_at(said, "/kind"), str_at(said, "/listKind"));
    if !kind.is_empty() && kind == list {
        errors.invalid("spec.names.listKind", &json!(list), "kind and listKind may not be the same");
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
    }
    let schemas: Vec<&Value> = versions.iter().map(|version| &version["schema"]["openAPIV3Schema"]).collect();
    // Kubernetes speaks of a schema that all versions have as its older API did.
    let one = schemas.iter().all(|schema| *schema == schemas[0] && schema.is_object());
    for (index, schema) in schemas.iter().enumerate().take(if one { 1 } else { versions.len() }) {
        let own = format!("spec.versions[{index}].schema.openAPIV3Schema");
        if schema.is_object() {
            schemas::schema(schema, if one { "spec.validation.openAPIV3Schema" } else { own.as_str() }, errors);
        } else {
            errors.required(own, "schemas are required");
        }
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let value = json!(versions.iter().map(|version| &version["name"]).collect::<Vec<_>>());
        errors.invalid("spec.versions", &value, "must have exactly one version marked as storage version");
    }
}

#[cfg(test)]
mod tests;
