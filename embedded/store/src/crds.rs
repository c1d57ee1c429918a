//! CustomResourceDefinitions: their defaults and status, and the resource types they register.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::json::{child_value, default_to, items, items_mut, set_meta, str_at};
use crate::{GroupResource, PrinterColumn, ResourceType, ResourceVersion, meta};

/// Holds a deleted CRD until its objects are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

const TERMINATING: &str = "Terminating";

/// The resource of CRDs themselves.
pub(crate) fn resource() -> GroupResource {
    GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions")
}

/// Fills in names and the status. A CRD is established the moment it is stored.
pub(crate) fn apply_defaults(crd: &mut Value) {
    let Some(spec) = child_value(crd, "spec") else { return };
    default_to(spec, "conversion", json!({"strategy": "None"}));
    if let Some(names) = child_value(spec, "names") {
        let kind = str_at(names, "/kind").to_owned();
        if !kind.is_empty() {
            default_to(names, "singular", kind.to_lowercase());
            default_to(names, "listKind", format!("{kind}List"));
        }
    }
    for version in items_mut(spec, "versions") {
        for column in items_mut(version, "additionalPrinterColumns") {
            if column.get("priority") == Some(&json!(0)) {
                column.as_object_mut().map(|column| column.remove("priority"));
            }
        }
    }
    let names = spec.get("names").cloned().unwrap_or_default();
    let storage = items(spec, "/versions").iter().find(|version| version["storage"] == true);
    let storage = storage.map(|version| version["name"].clone()).unwrap_or_default();
    let since = |kind: &str| {
        let conditions = items(crd, "/status/conditions").iter();
        let known = conditions.clone().find(|condition| str_at(condition, "/type") == kind);
        known.map_or_else(meta::now, |condition| str_at(condition, "/lastTransitionTime").to_owned())
    };
    let mut conditions = vec![
        json!({"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found",
               "lastTransitionTime": since("NamesAccepted")}),
        json!({"type": "Established", "status": "True", "reason": "InitialNamesAccepted",
               "message": "the initial names have been accepted", "lastTransitionTime": since("Established")}),
    ];
    conditions.extend(termination(crd).cloned());
    let mut stored = items(crd, "/status/storedVersions").to_vec();
    if !stored.contains(&storage) {
        stored.push(storage);
    }
    crd["status"] = json!({"acceptedNames": names, "conditions": conditions, "storedVersions": stored});
}

/// The condition that tells of the deletion of the objects.
fn termination(crd: &Value) -> Option<&Value> {
    items(crd, "/status/conditions").iter().find(|condition| str_at(condition, "/type") == TERMINATING)
}

/// Whether a CRD waits for its objects to go.
pub(crate) fn is_terminating(crd: &Value) -> bool {
    !str_at(crd, "/metadata/deletionTimestamp").is_empty()
        && items(crd, "/metadata/finalizers").iter().any(|finalizer| finalizer == CLEANUP)
}

/// Makes a CRD that is being deleted wait for its objects.
pub(crate) fn terminate(crd: &mut Value) {
    let mut finalizers = items(crd, "/metadata/finalizers").to_vec();
    finalizers.push(json!(CLEANUP));
    set_meta(crd, "finalizers", finalizers);
    tell_termination(crd, "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress");
}

/// The objects of a CRD that waited for them are gone.
pub(crate) fn terminated(crd: &mut Value) {
    let mut finalizers = items(crd, "/metadata/finalizers").to_vec();
    finalizers.retain(|finalizer| finalizer != CLEANUP);
    set_meta(crd, "finalizers", finalizers);
    tell_termination(crd, "False", "InstanceDeletionCompleted", "removed all instances");
}

fn tell_termination(crd: &mut Value, status: &str, reason: &str, message: &str) {
    let mut conditions = items(crd, "/status/conditions").to_vec();
    conditions.retain(|condition| str_at(condition, "/type") != TERMINATING);
    conditions.push(json!({
        "type": TERMINATING, "status": status, "reason": reason, "message": message, "lastTransitionTime": meta::now(),
    }));
    crd["status"]["conditions"] = Value::Array(conditions);
}

/// The resource type a CRD describes.
pub(crate) fn resource_type(crd: &Value) -> ResourceType {
    let names = |key: &str| items(crd, key).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let served = items(crd, "/spec/versions").iter().filter(|version| version["served"] == true);
    let mut versions: Vec<ResourceVersion> = served.map(version).collect();
    versions.sort_by_key(|version| std::cmp::Reverse(priority(&version.name)));
    ResourceType {
        resource: GroupResource::new(str_at(crd, "/spec/group"), str_at(crd, "/spec/names/plural")),
        kind: str_at(crd, "/spec/names/kind").to_owned(),
        singular: str_at(crd, "/spec/names/singular").to_owned(),
        short_names: names("/spec/names/shortNames"),
        categories: names("/spec/names/categories"),
        namespaced: str_at(crd, "/spec/scope") == "Namespaced",
        versions,
        builtin: false,
    }
}

fn version(version: &Value) -> ResourceVersion {
    ResourceVersion {
        name: str_at(version, "/name").to_owned(),
        status: version.pointer("/subresources/status").is_some(),
        scale: version.pointer("/subresources/scale").cloned(),
        schema: version.pointer("/schema/openAPIV3Schema").cloned().map(Arc::new),
        columns: items(version, "/additionalPrinterColumns").iter().map(column).collect(),
        selectable: items(version, "/selectableFields").iter().map(selectable).collect(),
    }
}

fn selectable(field: &Value) -> String {
    let path = str_at(field, "/jsonPath");
    path.strip_prefix('.').unwrap_or(path).to_owned()
}

fn column(column: &Value) -> PrinterColumn {
    PrinterColumn {
        name: str_at(column, "/name").to_owned(),
        kind: str_at(column, "/type").to_owned(),
        json_path: str_at(column, "/jsonPath").to_owned(),
        priority: column["priority"].as_i64().unwrap_or(0),
    }
}

/// Kubernetes' order of versions: stable before beta before alpha, then the higher number.
fn priority(version: &str) -> (u8, u64, u64) {
    let number = |text: &str| text.parse::<u64>().ok();
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    for (stage, rank) in [("beta", 2), ("alpha", 1)] {
        if let Some((major, minor)) = rest.split_once(stage)
            && let (Some(major), Some(minor)) = (number(major), number(minor))
        {
            return (rank, major, minor);
        }
    }
    number(rest).map_or((0, 0, 0), |major| (3, major, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_come_first() {
        let mut names = vec!["v1alpha1", "v1beta2", "v2", "foo", "v10", "v1beta1"];
        names.sort_by_key(|name| std::cmp::Reverse(priority(name)));
        assert_eq!(names, ["v10", "v2", "v1beta2", "v1beta1", "v1alpha1", "foo"]);
    }
}
