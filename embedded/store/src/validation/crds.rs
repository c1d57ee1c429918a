//! Rules of CustomResourceDefinitions.

mod schemas;
mod views;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::webhooks::clients;
use super::{names, one_of};
use crate::builtin;
use crate::invalid::FieldErrors;
use crate::json::{given, items, str_at};

/// A CRD, and what may change of it.
pub(super) fn definition(old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    let (group, plural) = (str_at(spec, "/group"), str_at(spec, "/names/plural"));
    let problems = names::dns_subdomain(group);
    if group.is_empty() {
        errors.required("spec.group", "");
    } else if !problems.is_empty() {
        errors.invalid("spec.group", &json!(group), &problems.join(","));
    } else if !group.contains('.') {
        errors.invalid("spec.group", &json!(group), "should be a domain with at least one dot");
    }
    for field in ["plural", "singular", "kind", "listKind"] {
        if str_at(spec, &format!("/names/{field}")).is_empty() {
            errors.required(format!("spec.names.{field}"), "");
        }
    }
    said_names(&spec["names"], errors);
    let name = str_at(object, "/metadata/name");
    if !name.is_empty() && name != format!("{plural}.{group}") {
        errors.invalid("metadata.name", &json!(name), "must be spec.names.plural+\".\"+spec.group");
    }
    if builtin::types().any(|kind| kind.resource.group == group && kind.resource.plural == plural) {
        errors.invalid("spec.names.plural", &json!(plural), "is a built-in resource of this group");
    }
    said_one(spec, "scope", "spec", &["Cluster", "Namespaced"], errors);
    if spec["preserveUnknownFields"] == true {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid("spec.preserveUnknownFields", &json!(true), why);
    }
    versions(spec, errors);
    if let Some(conversion) = given(spec, "conversion") {
        self::conversion(conversion, errors);
    }
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
        let problems = names::dns_label_1035(&if rule.is_empty() { name.to_owned() } else { name.to_lowercase() });
        if !name.is_empty() && !problems.is_empty() {
            errors.invalid(field, &json!(name), &format!("{rule}{}", problems.join(",")));
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

/// A field that must be there, and be one of some values.
fn said_one(value: &Value, key: &str, path: &str, allowed: &[&str], errors: &mut FieldErrors) {
    if str_at(value, &format!("/{key}")).is_empty() {
        errors.required(format!("{path}.{key}"), "");
    } else {
        one_of(value, key, path, allowed, errors);
    }
}

/// How an object of one version becomes one of another.
fn conversion(conversion: &Value, errors: &mut FieldErrors) {
    let path = "spec.conversion";
    said_one(conversion, "strategy", path, &["None", "Webhook"], errors);
    // Kubernetes speaks of these as its older API did.
    let (client, reviews) = (format!("{path}.webhookClientConfig"), format!("{path}.conversionReviewVersions"));
    let config = conversion.get("webhook").and_then(|webhook| given(webhook, "clientConfig"));
    let versions = items(conversion, "/webhook/conversionReviewVersions");
    if str_at(conversion, "/strategy") != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        if config.is_some() {
            errors.forbidden(client, why);
        }
        if !versions.is_empty() {
            errors.forbidden(reviews, why);
        }
        return;
    }
    match config {
        Some(config) => clients::client(&client, config, errors),
        None => errors.required(client, "required when strategy is set to Webhook"),
    }
    clients::review_versions(&reviews, versions, "", &["v1", "v1beta1"], errors);
}

fn versions(spec: &Value, errors: &mut FieldErrors) {
    let versions = items(spec, "/versions");
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        let name = str_at(version, "/name");
        let problems = names::dns_label_1035(name);
        if !problems.is_empty() {
            errors.invalid(format!("spec.versions[{index}].name"), &json!(name), &problems.join(","));
        }
        seen.insert(name);
    }
    schemas_of(versions, errors);
    views::views(versions, errors);
    let value = json!(versions.iter().map(|version| &version["name"]).collect::<Vec<_>>());
    if seen.len() < versions.len() {
        errors.invalid("spec.versions", &value, "must contain unique version names");
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        errors.invalid("spec.versions", &value, "must have exactly one version marked as storage version");
    }
}

fn schemas_of(versions: &[Value], errors: &mut FieldErrors) {
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
}

#[cfg(test)]
mod tests;
