//! Lists and maps of built-in kinds that do not behave as the rest: most lists are atomic, most maps merge.
//!
//! Rows are facts of the Go structs in `k8s.io/api` (tags `patchStrategy`, `patchMergeKey`; markers `listType`,
//! `listMapKey`, `mapType`, `structType`). A field name nearly always means the same list wherever it occurs, so the
//! table goes by name; the exceptions name the kind or the field above.

use super::{ListKey, ListType, PatchStrategy};

/// Containers of all sorts.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Lists of objects with one key that is never left out: field and key. The same for apply and strategic merge.
const KEYED: &[(&str, &str)] = &[
    ("conditions", "type"),
    ("containers", "name"),
    ("env", "name"),
    ("ephemeralContainers", "name"),
    ("hostAliases", "ip"),
    ("imagePullSecrets", "name"),
    ("initContainers", "name"),
    ("matchConditions", "name"),
    ("ownerReferences", "uid"),
    ("podIPs", "ip"),
    ("resourceClaims", "name"),
    ("schedulingGates", "name"),
    ("secrets", "name"),
    ("volumeDevices", "devicePath"),
    ("volumeMounts", "mountPath"),
    ("volumes", "name"),
    ("webhooks", "name"),
];

/// Lists that only a strategic merge patch merges.
const KEYED_FOR_PATCHES: &[(&str, &str, &str)] = &[
    ("Node", "addresses", "type"),
    ("Pod", "hostIPs", "ip"),
    ("Pod", "resourceClaimStatuses", "name"),
    ("Pod", "allocatedResourcesStatus", "name"),
];

/// Maps that are one value: label selectors, and references to other objects.
const ATOMIC_MAPS: &[&str] = &[
    "configMapKeyRef",
    "controllerExpandSecretRef",
    "controllerPublishSecretRef",
    "dataSource",
    "fieldRef",
    "fileKeyRef",
    "involvedObject",
    "labelSelector",
    "matchLabelSelector",
    "namespaceSelector",
    "nodeExpandSecretRef",
    "nodePublishSecretRef",
    "nodeSelector",
    "nodeStageSecretRef",
    "objectSelector",
    "podSelector",
    "regarding",
    "related",
    "resourceFieldRef",
    "roleRef",
    "scopeSelector",
    "secretKeyRef",
    "selector",
    "targetRef",
];

/// Kinds without an associative list anywhere but in `metadata`, whose field names must not be mistaken for those of others.
const PLAIN_KINDS: &[&str] = &["ConfigMap", "EndpointSlice", "Endpoints", "Event", "Role", "ClusterRole", "Secret"];

pub(super) fn list_type(kind: &str, parent: &str, field: &str) -> ListType {
    if (parent, field) == ("metadata", "finalizers") || field == "podCIDRs" {
        return ListType::Set;
    }
    let protocol = Some("TCP".into());
    match field {
        "ports" if CONTAINERS.contains(&parent) => keys([("containerPort", None), ("protocol", protocol)]),
        "ports" if (kind, parent) == ("Service", "spec") => keys([("port", None), ("protocol", protocol)]),
        "topologySpreadConstraints" => keys([("topologyKey", None), ("whenUnsatisfiable", None)]),
        "addresses" if kind == "Node" => keys([("type", None)]),
        "conditions" if kind == "Job" => ListType::Atomic,
        "claims" if parent == "resources" => keys([("name", None)]),
        "values" if parent == "exitCodes" => ListType::Set,
        "succeeded" | "failed" if parent == "uncountedTerminatedPods" => ListType::Set,
        "resourceClaimStatuses" if kind == "Pod" => keys([("name", None)]),
        "allocatedResourcesStatus" if kind == "Pod" => keys([("name", None)]),
        "containers" if parent == "nodeAllocatableResourceClaimStatuses" => ListType::Set,
        "imagePullSecrets" if kind == "ServiceAccount" => ListType::Atomic,
        _ => match keyed(kind, parent, field) {
            Some(key) => keys([(key, None)]),
            None => ListType::Atomic,
        },
    }
}

pub(super) fn patch_strategy(kind: &str, parent: &str, field: &str) -> PatchStrategy {
    if (parent, field) == ("metadata", "finalizers") || field == "podCIDRs" {
        return PatchStrategy::MergePrimitives;
    }
    match field {
        "ports" if CONTAINERS.contains(&parent) => PatchStrategy::MergeBy("containerPort"),
        "ports" if (kind, parent) == ("Service", "spec") => PatchStrategy::MergeBy("port"),
        "topologySpreadConstraints" => PatchStrategy::MergeBy("topologyKey"),
        "imagePullSecrets" if kind == "ServiceAccount" => PatchStrategy::Replace,
        "containers" if parent == "nodeAllocatableResourceClaimStatuses" => PatchStrategy::Replace,
        _ => {
            let special = KEYED_FOR_PATCHES.iter().find(|row| (row.0, row.1) == (kind, field)).map(|row| row.2);
            special.or_else(|| keyed(kind, parent, field)).map_or(PatchStrategy::Replace, PatchStrategy::MergeBy)
        }
    }
}

/// Whether a map is one value.
pub(super) fn is_atomic_map(kind: &str, parent: &str, field: &str) -> bool {
    match field {
        "required" => parent == "nodeAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution" => parent == "nodeAffinity",
        "port" => parent == "service" && kind == "Ingress",
        "resource" => kind == "Ingress",
        // References to Secrets with a namespace or without; those in `envFrom` and the like merge.
        "secretRef" => SECRET_HOLDERS.contains(&parent),
        _ => ATOMIC_MAPS.contains(&field),
    }
}

/// Volumes whose `secretRef` is one value.
const SECRET_HOLDERS: &[&str] = &["cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"];

/// Whether the objects in an associative list are one value each.
pub(super) fn items_are_atomic(kind: &str, field: &str) -> bool {
    field == "ownerReferences" || field == "imagePullSecrets" || (kind == "ServiceAccount" && field == "secrets")
}

fn keyed(kind: &str, parent: &str, field: &str) -> Option<&'static str> {
    if PLAIN_KINDS.contains(&kind) && parent != "metadata" {
        return None;
    }
    KEYED.iter().find(|(name, _)| *name == field).map(|(_, key)| *key)
}

fn keys<const N: usize>(keys: [(&str, Option<serde_json::Value>); N]) -> ListType {
    ListType::Map(keys.map(|(name, default)| ListKey { name: name.to_owned(), default }).to_vec())
}

#[cfg(test)]
mod tests;
