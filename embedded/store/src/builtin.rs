//! The table of built-in resource types, as discovery lists them on a real cluster.

use serde_json::{Value, json};

use crate::{GroupResource, ResourceType, ResourceVersion};

/// One row: a resource type in a few words.
struct Row {
    plural: &'static str,
    kind: &'static str,
    short: &'static [&'static str],
    flags: &'static str,
}

const fn row(plural: &'static str, kind: &'static str, short: &'static [&'static str], flags: &'static str) -> Row {
    Row { plural, kind, short, flags }
}

/// Groups with their versions (preferred first) and rows. Flags: `n` namespaced, `s` has a status
/// subresource, `c` has a scale subresource, `a` is in category `all`, `x` is in `api-extensions`.
const GROUPS: &[(&str, &[&str], &[Row])] = &[
    (
        "",
        &["v1"],
        &[
            row("namespaces", "Namespace", &["ns"], "s"),
            row("pods", "Pod", &["po"], "nsa"),
            row("services", "Service", &["svc"], "nsa"),
            row("endpoints", "Endpoints", &["ep"], "n"),
            row("configmaps", "ConfigMap", &["cm"], "n"),
            row("secrets", "Secret", &[], "n"),
            row("serviceaccounts", "ServiceAccount", &["sa"], "n"),
            row("nodes", "Node", &["no"], "s"),
            row("events", "Event", &["ev"], "n"),
            row("persistentvolumes", "PersistentVolume", &["pv"], "s"),
            row("persistentvolumeclaims", "PersistentVolumeClaim", &["pvc"], "ns"),
            row("replicationcontrollers", "ReplicationController", &["rc"], "nsca"),
            row("limitranges", "LimitRange", &["limits"], "n"),
            row("resourcequotas", "ResourceQuota", &["quota"], "ns"),
            row("podtemplates", "PodTemplate", &[], "n"),
        ],
    ),
    (
        "apps",
        &["v1"],
        &[
            row("deployments", "Deployment", &["deploy"], "nsca"),
            row("replicasets", "ReplicaSet", &["rs"], "nsca"),
            row("daemonsets", "DaemonSet", &["ds"], "nsa"),
            row("statefulsets", "StatefulSet", &["sts"], "nsca"),
            row("controllerrevisions", "ControllerRevision", &[], "n"),
        ],
    ),
    ("batch", &["v1"], &[row("jobs", "Job", &[], "nsa"), row("cronjobs", "CronJob", &["cj"], "nsa")]),
    ("discovery.k8s.io", &["v1"], &[row("endpointslices", "EndpointSlice", &[], "n")]),
    (
        "networking.k8s.io",
        &["v1"],
        &[
            row("ingresses", "Ingress", &["ing"], "ns"),
            row("ingressclasses", "IngressClass", &[], ""),
            row("networkpolicies", "NetworkPolicy", &["netpol"], "n"),
        ],
    ),
    (
        "rbac.authorization.k8s.io",
        &["v1"],
        &[
            row("roles", "Role", &[], "n"),
            row("rolebindings", "RoleBinding", &[], "n"),
            row("clusterroles", "ClusterRole", &[], ""),
            row("clusterrolebindings", "ClusterRoleBinding", &[], ""),
        ],
    ),
    ("coordination.k8s.io", &["v1"], &[row("leases", "Lease", &[], "n")]),
    ("events.k8s.io", &["v1"], &[row("events", "Event", &["ev"], "n")]),
    ("autoscaling", &["v2", "v1"], &[row("horizontalpodautoscalers", "HorizontalPodAutoscaler", &["hpa"], "nsa")]),
    ("policy", &["v1"], &[row("poddisruptionbudgets", "PodDisruptionBudget", &["pdb"], "ns")]),
    (
        "apiextensions.k8s.io",
        &["v1"],
        &[row("customresourcedefinitions", "CustomResourceDefinition", &["crd", "crds"], "sx")],
    ),
    (
        "admissionregistration.k8s.io",
        &["v1"],
        &[
            row("mutatingwebhookconfigurations", "MutatingWebhookConfiguration", &[], "x"),
            row("validatingwebhookconfigurations", "ValidatingWebhookConfiguration", &[], "x"),
        ],
    ),
    ("storage.k8s.io", &["v1"], &[row("storageclasses", "StorageClass", &["sc"], "")]),
    ("scheduling.k8s.io", &["v1"], &[row("priorityclasses", "PriorityClass", &["pc"], "")]),
    ("apiregistration.k8s.io", &["v1"], &[row("apiservices", "APIService", &[], "sx")]),
];

/// Kinds whose `metadata.generation` Kubernetes leaves unset: their strategies never touch it.
const WITHOUT_GENERATION: &[&str] = &[
    "Namespace",
    "Service",
    "Endpoints",
    "ConfigMap",
    "Secret",
    "ServiceAccount",
    "Node",
    "Event",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "LimitRange",
    "ResourceQuota",
    "PodTemplate",
    "ControllerRevision",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "Lease",
    "StorageClass",
    "HorizontalPodAutoscaler",
    "APIService",
];

/// Whether objects of this type carry `metadata.generation`.
pub(crate) fn has_generation(resource: &ResourceType) -> bool {
    !resource.builtin || !WITHOUT_GENERATION.contains(&resource.kind.as_str())
}

/// The built-in types in the order of the table.
pub(crate) fn types() -> impl Iterator<Item = ResourceType> {
    GROUPS.iter().flat_map(|(group, versions, rows)| rows.iter().map(move |row| resource_type(group, versions, row)))
}

fn resource_type(group: &str, versions: &[&str], row: &Row) -> ResourceType {
    let has = |flag: char| row.flags.contains(flag);
    let scale: Option<Value> = has('c').then(|| {
        json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".spec.selector"})
    });
    let categories = [('a', "all"), ('x', "api-extensions")];
    ResourceType {
        resource: GroupResource::new(group, row.plural),
        kind: row.kind.to_owned(),
        singular: row.kind.to_lowercase(),
        short_names: row.short.iter().map(|&name| name.to_owned()).collect(),
        categories: categories.iter().filter(|(flag, _)| has(*flag)).map(|(_, name)| (*name).to_owned()).collect(),
        namespaced: has('n'),
        versions: versions
            .iter()
            .map(|&name| ResourceVersion {
                name: name.to_owned(),
                status: has('s'),
                scale: scale.clone(),
                schema: None,
                columns: Vec::new(),
                selectable: Vec::new(),
            })
            .collect(),
        builtin: true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_flags_are_known() {
        let mut seen = HashSet::new();
        for kind in types() {
            assert!(seen.insert(kind.resource.clone()), "{} twice", kind.resource);
            assert!(!kind.versions.is_empty());
        }
        assert!(
            GROUPS
                .iter()
                .flat_map(|(_, _, rows)| rows.iter())
                .all(|row| row.flags.chars().all(|c| "nscax".contains(c)))
        );
    }

    #[test]
    fn every_kind_has_a_schema_in_every_version() {
        for kind in types() {
            for version in &kind.versions {
                let (group, version) = (&kind.resource.group, &version.name);
                let found = meshgate_machinery::schema::Builtin::find(group, version, &kind.kind);
                assert!(found.is_some(), "no schema of {group}/{version} {}", kind.kind);
            }
        }
    }

    #[test]
    fn generation_exceptions_are_kinds_of_the_table() {
        let kinds: HashSet<String> = types().map(|kind| kind.kind).collect();
        assert!(WITHOUT_GENERATION.iter().all(|kind| kinds.contains(*kind)));
    }
}
