//! Discovery: which groups, versions and resources there are. Made from the store at every request, so that a
//! CustomResourceDefinition shows at once.

use std::cmp::Ordering;

use http::HeaderMap;
use http::StatusCode;
use indexmap::IndexMap;
use meshgate_store::{ResourceType, ResourceVersion, Status, Store};
use serde_json::{Map, Value, json};

use crate::negotiate::{self, Form};
use crate::reply::{self, Reply};
use crate::virtual_kinds::{self, SUBRESOURCES, VirtualKind};

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const VERBS_OF_STATUS: &[&str] = &["get", "patch", "update"];

/// The groups in order of their first resource; each with its versions, preferred first.
pub(crate) type Groups = IndexMap<String, Vec<(String, Vec<Entry>)>>;

/// A resource of one version.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Entry {
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) namespaced: bool,
    pub(crate) kind: String,
    pub(crate) verbs: &'static [&'static str],
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) subresources: Vec<Sub>,
}

/// A subresource.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Sub {
    pub(crate) name: &'static str,
    /// Group, version, kind.
    pub(crate) kind: (String, String, String),
    pub(crate) verbs: &'static [&'static str],
}

/// All that is served.
pub(crate) fn groups(store: &Store) -> Groups {
    let mut groups = Groups::new();
    for kind in store.resources() {
        for version in &kind.versions {
            add(&mut groups, &kind.resource.group, &version.name, entry(&kind, version));
        }
    }
    for kind in virtual_kinds::KINDS {
        add(&mut groups, kind.group, kind.version, virtual_entry(kind));
    }
    for versions in groups.values_mut() {
        versions.sort_by(|(a, _), (b, _)| by_priority(a, b));
        for (_, entries) in versions {
            entries.sort_by(|a, b| a.plural.cmp(&b.plural));
        }
    }
    groups
}

fn add(groups: &mut Groups, group: &str, version: &str, entry: Entry) {
    let versions = groups.entry(group.to_owned()).or_default();
    match versions.iter_mut().find(|(name, _)| name == version) {
        Some((_, entries)) => entries.push(entry),
        None => versions.push((version.to_owned(), vec![entry])),
    }
}

fn entry(kind: &ResourceType, version: &ResourceVersion) -> Entry {
    let group = &kind.resource.group;
    let mut subresources = Vec::new();
    if version.status {
        let own = (group.clone(), version.name.clone(), kind.kind.clone());
        subresources.push(Sub { name: "status", kind: own, verbs: VERBS_OF_STATUS });
    }
    if version.scale.is_some() {
        let scale = ("autoscaling".to_owned(), "v1".to_owned(), "Scale".to_owned());
        subresources.push(Sub { name: "scale", kind: scale, verbs: VERBS_OF_STATUS });
    }
    for sub in SUBRESOURCES.iter().filter(|sub| group.is_empty() && sub.of == kind.resource.plural) {
        let (group, version, kind) = sub.kind;
        let kind = (group.to_owned(), version.to_owned(), kind.to_owned());
        subresources.push(Sub { name: sub.name, kind, verbs: sub.verbs });
    }
    subresources.sort_by_key(|sub| sub.name);
    Entry {
        plural: kind.resource.plural.clone(),
        singular: kind.singular.clone(),
        namespaced: kind.namespaced,
        kind: kind.kind.clone(),
        verbs: VERBS,
        short_names: kind.short_names.clone(),
        categories: kind.categories.clone(),
        subresources,
    }
}

fn virtual_entry(kind: &VirtualKind) -> Entry {
    Entry {
        plural: kind.plural.to_owned(),
        singular: kind.singular.to_owned(),
        namespaced: kind.namespaced,
        kind: kind.kind.to_owned(),
        verbs: &["create"],
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
    }
}

/// Kubernetes' order of versions: stable before beta before alpha, higher numbers first, anything else last.
fn by_priority(a: &str, b: &str) -> Ordering {
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability, major and minor of `v1`, `v2beta3`; `None` for other names.
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    for (stability, word) in [(1, "beta"), (0, "alpha")] {
        if let Some((major, minor)) = rest.split_once(word) {
            return Some((stability, major.parse().ok()?, minor.parse().ok()?));
        }
    }
    Some((2, rest.parse().ok()?, 0))
}

/// `/`: the paths there are.
pub(crate) fn root(store: &Store) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in groups(store).iter().filter(|(group, _)| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|(version, _)| format!("/apis/{group}/{version}")));
    }
    let others = ["/healthz", "/livez", "/metrics", "/openapi/v3", "/readyz", "/version"];
    paths.extend(others.map(str::to_owned));
    json!({"paths": paths})
}

/// `/api...` and `/apis...`; `segments` are those of the path.
pub(crate) fn answer(store: &Store, headers: &HeaderMap, segments: &[&str]) -> Result<Reply, Status> {
    let groups = groups(store);
    match segments {
        [root @ ("api" | "apis")] if negotiate::form(headers)? == Form::Discovery => {
            let content_type = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            let core = *root == "api";
            let body = aggregated(&groups, core).to_string();
            Ok(reply::with_type(StatusCode::OK, content_type, body))
        }
        ["api"] => Ok(reply::ok(&json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
        }))),
        ["apis"] => {
            let list: Vec<Value> = groups
                .iter()
                .filter(|(group, _)| !group.is_empty())
                .map(|(group, versions)| api_group(group, versions))
                .collect();
            Ok(reply::ok(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})))
        }
        ["api", version] => resource_list(&groups, "", version),
        ["apis", group, version] => resource_list(&groups, group, version),
        ["apis", group] => {
            let versions = groups.get(*group).filter(|_| !group.is_empty()).ok_or_else(reply::no_such_resource)?;
            let mut value = json!({"kind": "APIGroup", "apiVersion": "v1"});
            if let (Some(map), Value::Object(group)) = (value.as_object_mut(), api_group(group, versions)) {
                map.extend(group);
            }
            Ok(reply::ok(&value))
        }
        _ => Err(reply::no_such_resource()),
    }
}

fn api_group(group: &str, versions: &[(String, Vec<Entry>)]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|(version, _)| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
}

fn resource_list(groups: &Groups, group: &str, version: &str) -> Result<Reply, Status> {
    let versions = groups.get(group).ok_or_else(reply::no_such_resource)?;
    let (_, entries) = versions.iter().find(|(name, _)| name == version).ok_or_else(reply::no_such_resource)?;
    let mut resources = Vec::new();
    for entry in entries {
        let mut resource = json!({
            "name": entry.plural, "singularName": entry.singular, "namespaced": entry.namespaced, "kind": entry.kind,
            "verbs": entry.verbs,
        });
        names_of(entry, &mut resource);
        resources.push(resource);
        for sub in &entry.subresources {
            let (sub_group, sub_version, kind) = &sub.kind;
            let mut resource = json!({
                "name": format!("{}/{}", entry.plural, sub.name), "singularName": "", "namespaced": entry.namespaced,
                "kind": kind, "verbs": sub.verbs,
            });
            if (sub_group.as_str(), sub_version.as_str()) != (group, version) {
                resource["group"] = json!(sub_group);
                resource["version"] = json!(sub_version);
            }
            resources.push(resource);
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(reply::ok(
        &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}),
    ))
}

fn names_of(entry: &Entry, resource: &mut Value) {
    if !entry.short_names.is_empty() {
        resource["shortNames"] = json!(entry.short_names);
    }
    if !entry.categories.is_empty() {
        resource["categories"] = json!(entry.categories);
    }
}

/// The `APIGroupDiscoveryList` of the core group, or of all others.
fn aggregated(groups: &Groups, core: bool) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|(version, entries)| {
                    let resources: Vec<Value> =
                        entries.iter().map(|entry| aggregated_entry(group, version, entry)).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            // The core group has no name, not even an empty one.
            let mut metadata = Map::new();
            if !core {
                metadata.insert("name".to_owned(), json!(group));
            }
            metadata.insert("creationTimestamp".to_owned(), Value::Null);
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_entry(group: &str, version: &str, entry: &Entry) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut resource = json!({
        "resource": entry.plural, "responseKind": kind(group, version, &entry.kind),
        "scope": if entry.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": entry.singular, "verbs": entry.verbs,
    });
    names_of(entry, &mut resource);
    if !entry.subresources.is_empty() {
        let subresources: Vec<Value> = entry
            .subresources
            .iter()
            .map(|sub| {
                let (group, version, name) = &sub.kind;
                json!({"subresource": sub.name, "responseKind": kind(group, version, name), "verbs": sub.verbs})
            })
            .collect();
        resource["subresources"] = json!(subresources);
    }
    resource
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_kubernetes_orders_them() {
        let mut versions = ["v1alpha1", "foo", "v2", "v1beta2", "v10", "v1beta10", "v1", "bar"];
        versions.sort_by(|a, b| by_priority(a, b));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "bar", "foo"]);
    }
}
