use super::*;
use crate::shape::{Place, Shape};

/// The place of a field that is named as `kubectl explain` does. Items of lists have the place of the list.
fn at<'a>(kind: &'a str, path: &'a str) -> Place<'a> {
    path.split('.').fold(Shape::Builtin(kind).root(), Place::field)
}

fn by(key: &str) -> ListType {
    keys([(key, None)])
}

#[test]
fn lists_merge_as_their_types_say() {
    use PatchStrategy::{MergeBy, Replace};
    let rows = [
        ("Node", "spec.taints", ListType::Atomic, Replace),
        ("Node", "status.addresses", by("type"), MergeBy("type")),
        ("Pod", "status.resourceClaimStatuses", by("name"), MergeBy("name")),
        ("Pod", "status.containerStatuses.allocatedResourcesStatus", by("name"), MergeBy("name")),
        ("Pod", "status.initContainerStatuses.allocatedResourcesStatus", by("name"), MergeBy("name")),
        ("Pod", "status.nodeAllocatableResourceClaimStatuses.containers", ListType::Set, Replace),
        ("Pod", "spec.containers.resources.claims", by("name"), Replace),
        ("Pod", "spec.containers.restartPolicyRules.exitCodes.values", ListType::Set, Replace),
        ("Pod", "spec.hostAliases", by("ip"), MergeBy("ip")),
        ("Job", "status.uncountedTerminatedPods.succeeded", ListType::Set, Replace),
        ("Job", "status.uncountedTerminatedPods.failed", ListType::Set, Replace),
        ("Job", "status.conditions", ListType::Atomic, MergeBy("type")),
        ("Deployment", "status.conditions", by("type"), MergeBy("type")),
    ];
    for (kind, path, list, strategy) in rows {
        let place = at(kind, path);
        assert_eq!((place.list_type(), place.patch_strategy()), (list, strategy), "{path} of {kind}");
    }
}

#[test]
fn some_maps_are_one_value() {
    let rows: [(&str, &str, &[&str]); 7] = [
        (
            "Ingress",
            "spec",
            &[
                "defaultBackend.service.port",
                "defaultBackend.resource",
                "rules.http.paths.backend.service.port",
                "rules.http.paths.backend.resource",
            ],
        ),
        (
            "Pod",
            "spec",
            &[
                "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution",
                "containers.env.valueFrom.fileKeyRef",
                "containers.env.valueFrom.secretKeyRef",
                "volumes.csi.nodePublishSecretRef",
            ],
        ),
        (
            "Deployment",
            "spec.template.spec.volumes",
            &[
                "cephfs.secretRef",
                "cinder.secretRef",
                "flexVolume.secretRef",
                "iscsi.secretRef",
                "rbd.secretRef",
                "scaleIO.secretRef",
                "storageos.secretRef",
            ],
        ),
        ("PersistentVolume", "spec", &["nodeAffinity.required", "rbd.secretRef"]),
        (
            "PersistentVolume",
            "spec.csi",
            &[
                "controllerExpandSecretRef",
                "controllerPublishSecretRef",
                "nodeExpandSecretRef",
                "nodePublishSecretRef",
                "nodeStageSecretRef",
            ],
        ),
        ("ResourceQuota", "spec", &["scopeSelector"]),
        ("PodDisruptionBudget", "spec", &["selector"]),
    ];
    for (kind, parent, fields) in rows {
        for field in fields {
            let path = format!("{parent}.{field}");
            assert!(at(kind, &path).is_atomic_map(false), "{path} of {kind}");
        }
    }
}

#[test]
fn the_others_merge() {
    for (kind, path) in [
        ("HorizontalPodAutoscaler", "spec.scaleTargetRef"),
        ("Ingress", "spec.defaultBackend.service"),
        ("Ingress", "spec.defaultBackend"),
        ("Pod", "spec.containers.envFrom.secretRef"),
        ("Pod", "spec.affinity.nodeAffinity"),
        ("Pod", "spec.containers.resources"),
        ("PersistentVolume", "spec.nodeAffinity"),
    ] {
        assert!(!at(kind, path).is_atomic_map(false), "{path} of {kind}");
    }
}

#[test]
fn a_patch_replaces_the_selector_of_a_disruption_budget() {
    assert!(at("PodDisruptionBudget", "spec.selector").patch_replaces_map());
    for (kind, path) in [("Deployment", "spec.selector"), ("PodDisruptionBudget", "metadata.labels")] {
        assert!(!at(kind, path).patch_replaces_map(), "{path} of {kind}");
    }
}
