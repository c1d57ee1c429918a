//! Objects as the API serves them, for tests.

use serde_json::{Value, json};

use crate::{Cluster, Index};

/// A synced index of these objects.
pub(crate) fn index(objects: impl IntoIterator<Item = Value>) -> Index {
    let index = Index::new(Cluster::default());
    for object in objects {
        index.apply(&object).unwrap();
    }
    index.mark_synced();
    index
}

/// Service `default/NAME` with cluster IP `ip`, port 80 named `http` and port 3306 named `db`.
pub(crate) fn service(name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [
            {"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"},
            {"name": "db", "port": 3306, "targetPort": 3306, "protocol": "TCP"},
            {"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"},
        ]},
    })
}

/// The EndpointSlice of `default/SERVICE`: `http` is port 8080 of each pod (name, address, whether it is ready).
pub(crate) fn slice(service: &str, pods: &[(&str, &str, bool)]) -> Value {
    slice_of("Pod", service, pods)
}

/// The same, of whatever kind is behind it.
pub(crate) fn slice_of(kind: &str, service: &str, pods: &[(&str, &str, bool)]) -> Value {
    let endpoints: Vec<_> = pods
        .iter()
        .map(|(name, ip, ready)| {
            json!({
                "addresses": [ip],
                "conditions": {"ready": ready},
                "hostname": name,
                "targetRef": {"kind": kind, "name": name, "namespace": "default"},
                "zone": "z1",
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": format!("{service}-x1"), "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "db", "port": 3306, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// Pod `default/web-HASH-xyz` of Deployment `web`.
pub(crate) fn pod(name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"pod-template-hash": "5d4f", "linkerd.io/control-plane-ns": "linkerd"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "uid": "1", "controller": true,
            }],
        },
        "spec": {"serviceAccountName": "web", "containers": [{"ports": [{"name": "web", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    })
}

/// ExternalWorkload `default/NAME`, one of a group, with port 8080 named `http`.
pub(crate) fn external_workload(name: &str, ip: &str) -> Value {
    let identity = format!("spiffe://root.linkerd.cluster.local/{name}");
    json!({
        "apiVersion": "workload.linkerd.io/v1beta1",
        "kind": "ExternalWorkload",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"app": "vm"},
            "ownerReferences": [{"apiVersion": "example.com/v1", "kind": "WorkloadGroup", "name": "vms", "uid": "1"}],
        },
        "spec": {
            "meshTLS": {"identity": identity, "serverName": format!("{name}.cluster.local")},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "workloadIPs": [{"ip": ip}],
        },
    })
}

/// A node in a zone.
pub(crate) fn node(name: &str, zone: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
    })
}

/// ServiceProfile of `default/SERVICE` in a namespace.
pub(crate) fn profile(service: &str, namespace: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "linkerd.io/v1alpha2",
        "kind": "ServiceProfile",
        "metadata": {"name": format!("{service}.default.svc.cluster.local"), "namespace": namespace},
        "spec": spec,
    })
}

/// TrafficSplit `default/NAME` of a Service.
pub(crate) fn split(name: &str, version: &str, apex: &str, backends: Value) -> Value {
    json!({
        "apiVersion": format!("split.smi-spec.io/{version}"),
        "kind": "TrafficSplit",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"service": apex, "backends": backends},
    })
}
