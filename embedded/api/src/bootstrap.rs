//! The objects that every cluster begins with: the default roles and the Service of the API server itself.

use std::net::SocketAddr;

use meshgate_store::{GroupResource, Store, WriteOptions};
use serde_json::{Value, json};

use crate::rbac;
use crate::server::{Error, ServerConfig};

/// Creates them; those that are there already stay as they are.
pub(crate) fn create_objects(store: &Store, endpoint: SocketAddr) -> Result<(), Error> {
    for (plural, object) in rbac::default_objects() {
        create(store, &GroupResource::new(rbac::GROUP, plural), "", object)?;
    }
    create(store, &GroupResource::new("", "services"), "default", service(endpoint.port()))?;
    create(store, &GroupResource::new("discovery.k8s.io", "endpointslices"), "default", slice(endpoint))?;
    create(store, &GroupResource::new("", "endpoints"), "default", endpoints(endpoint))
}

fn create(store: &Store, resource: &GroupResource, namespace: &str, object: Value) -> Result<(), Error> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let options = WriteOptions { manager: "kube-apiserver".to_owned(), ..WriteOptions::default() };
    match store.create(resource, namespace, object, &options) {
        Ok(_) => Ok(()),
        Err(status) if status.reason == "AlreadyExists" => Ok(()),
        Err(status) => Err(Error::Bootstrap { resource: resource.to_string(), name, status }),
    }
}

fn service(target_port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ServerConfig::CLUSTER_IP,
            "clusterIPs": [ServerConfig::CLUSTER_IP],
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": target_port}],
        },
    })
}

fn slice(endpoint: SocketAddr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": [endpoint.ip().to_string()],
            "conditions": {"ready": true, "serving": true, "terminating": false},
        }],
        "ports": [{"name": "https", "port": endpoint.port(), "protocol": "TCP"}],
    })
}

fn endpoints(endpoint: SocketAddr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{
            "addresses": [{"ip": endpoint.ip().to_string()}],
            "ports": [{"name": "https", "port": endpoint.port(), "protocol": "TCP"}],
        }],
    })
}
