//! The EndpointSlices of a Service.

use meshgate_store::{Object, Selectors, Status, Store};
use serde_json::{Value, json};

use super::{Backend, Groups, labels};
use crate::objects::{self, change, controller_reference, items, name, namespace, resources, str_at};

/// Who writes these slices. Slices of other managers are left alone.
const MANAGER: &str = "endpointslice-controller.k8s.io";

/// The label of the Service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The label of who writes a slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Marks slices of headless Services.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Endpoints in one slice at most, as Kubernetes' default.
const MAX_ENDPOINTS: usize = 100;

/// Makes the slices what they should be, changing as few as possible: a slice with the right ports is kept.
pub(super) fn write(store: &Store, service: &Object, groups: &Groups<'_>) -> Result<(), Status> {
    let labels = labels(service, &[(SERVICE_NAME, name(service)), (MANAGED_BY, MANAGER)], HEADLESS);
    let mut wanted: Vec<(Value, Value)> = Vec::new();
    for backends in groups.values() {
        let ports = backends.first().map_or_else(|| json!([]), |backend| Value::from(backend.ports.clone()));
        for chunk in backends.chunks(MAX_ENDPOINTS) {
            wanted.push((ports.clone(), chunk.iter().map(|backend| endpoint(backend)).collect()));
        }
    }
    if wanted.is_empty() {
        wanted.push((json!([]), json!([])));
    }
    let mut present = existing(store, service)?;
    let mut unmatched = Vec::new();
    for (ports, endpoints) in wanted {
        match present.iter().position(|slice| slice["ports"] == ports) {
            Some(index) => update(store, &present.remove(index), &labels, &ports, &endpoints)?,
            None => unmatched.push((ports, endpoints)),
        }
    }
    for (ports, endpoints) in unmatched {
        match present.pop() {
            Some(slice) => update(store, &slice, &labels, &ports, &endpoints)?,
            None => create(store, service, &labels, ports, endpoints)?,
        }
    }
    for slice in present {
        objects::delete(store, &resources::endpoint_slices(), &slice)?;
    }
    Ok(())
}

fn existing(store: &Store, service: &Object) -> Result<Vec<Object>, Status> {
    let labels = format!("{SERVICE_NAME}={},{MANAGED_BY}={MANAGER}", name(service));
    let selectors = Selectors { labels, fields: String::new() };
    let slices = store.list(&resources::endpoint_slices(), Some(namespace(service)), &selectors)?.items;
    Ok(slices.into_iter().filter(|slice| !objects::deleting(slice)).collect())
}

/// Endpoints keep their order where they are in the slice already, so that a change of one pod changes one entry.
fn update(store: &Store, slice: &Object, labels: &Value, ports: &Value, endpoints: &Value) -> Result<(), Status> {
    let before = items(slice, "/endpoints");
    let place = |endpoint: &Value| {
        let uid = str_at(endpoint, "/targetRef/uid");
        before.iter().position(|known| str_at(known, "/targetRef/uid") == uid).unwrap_or(before.len())
    };
    let mut endpoints = endpoints.as_array().cloned().unwrap_or_default();
    endpoints.sort_by_key(place);
    change(store, &resources::endpoint_slices(), slice, |slice| {
        slice["metadata"]["labels"] = labels.clone();
        slice["ports"] = ports.clone();
        slice["endpoints"] = endpoints.clone().into();
    })
}

fn create(store: &Store, service: &Object, labels: &Value, ports: Value, endpoints: Value) -> Result<(), Status> {
    let slice = json!({
        "metadata": {
            "generateName": format!("{}-", name(service)),
            "labels": labels,
            "ownerReferences": [controller_reference(service)],
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": endpoints,
    });
    match objects::create(store, &resources::endpoint_slices(), namespace(service), slice) {
        // The namespace is on its way out; so is the Service.
        Err(error) if error.code == 403 => Ok(()),
        created => created.map(drop),
    }
}

fn endpoint(backend: &Backend) -> Value {
    let mut endpoint = json!({
        "addresses": [backend.address],
        "conditions": {"ready": backend.ready, "serving": backend.serving, "terminating": backend.terminating},
        "targetRef": backend.target(),
    });
    let node = str_at(&backend.pod, "/spec/nodeName");
    if !node.is_empty() {
        endpoint["nodeName"] = json!(node);
    }
    if let Some(hostname) = &backend.hostname {
        endpoint["hostname"] = json!(hostname);
    }
    endpoint
}
