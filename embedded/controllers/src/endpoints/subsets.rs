//! The Endpoints object of a Service, for clients from before EndpointSlices.

use meshgate_store::{Object, Status, Store};
use serde_json::{Value, json};

use super::{Backend, Groups, labels};
use crate::objects::{self, change, find, name, namespace, resources, str_at};
use crate::runner::Key;

/// The label of who writes the object.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

const MANAGER: &str = "endpoint-controller";

/// Marks the Endpoints of headless Services.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Makes the Endpoints what they should be.
pub(super) fn write(store: &Store, service: &Object, groups: &Groups<'_>) -> Result<(), Status> {
    let subsets: Vec<Value> = groups.values().filter_map(|backends| subset(backends)).collect();
    let labels = labels(service, &[(MANAGED_BY, MANAGER)], HEADLESS);
    match find(store, &resources::endpoints(), namespace(service), name(service))? {
        Some(endpoints) => change(store, &resources::endpoints(), &endpoints, |endpoints| {
            endpoints["metadata"]["labels"] = labels.clone();
            if subsets.is_empty() {
                endpoints.as_object_mut().map(|endpoints| endpoints.remove("subsets"));
            } else {
                endpoints["subsets"] = subsets.clone().into();
            }
        }),
        None => {
            let mut endpoints = json!({"metadata": {"name": name(service), "labels": labels}});
            if !subsets.is_empty() {
                endpoints["subsets"] = subsets.into();
            }
            match objects::create(store, &resources::endpoints(), namespace(service), endpoints) {
                Err(error) if error.code == 403 => Ok(()),
                created => created.map(drop),
            }
        }
    }
}

/// Removes the Endpoints of a Service that is gone, if they are ours.
pub(super) fn remove(store: &Store, service: &Key) -> Result<(), Status> {
    let endpoints = find(store, &resources::endpoints(), &service.namespace, &service.name)?;
    let ours = |endpoints: &Object| endpoints["metadata"]["labels"][MANAGED_BY] == MANAGER;
    match endpoints.filter(ours) {
        Some(endpoints) => objects::delete(store, &resources::endpoints(), &endpoints),
        None => Ok(()),
    }
}

/// The pods of one set of ports. Terminating ones are not told here at all.
fn subset(backends: &[&Backend]) -> Option<Value> {
    let ports = backends.first()?.ports.clone();
    let present = backends.iter().copied().filter(|backend| !backend.terminating || backend.ready);
    let (ready, waiting): (Vec<_>, Vec<_>) = present.partition(|backend| backend.ready);
    if ready.is_empty() && waiting.is_empty() {
        return None;
    }
    let ports: Vec<Value> = ports.into_iter().map(without_empty_name).collect();
    let mut subset = json!({"ports": ports});
    for (field, backends) in [("addresses", ready), ("notReadyAddresses", waiting)] {
        if !backends.is_empty() {
            subset[field] = backends.iter().map(|backend| address(backend)).collect();
        }
    }
    Some(subset)
}

/// In this kind an absent name is not written.
fn without_empty_name(mut port: Value) -> Value {
    if str_at(&port, "/name").is_empty()
        && let Some(port) = port.as_object_mut()
    {
        port.remove("name");
    }
    port
}

fn address(backend: &Backend) -> Value {
    let mut address = json!({"ip": backend.address, "targetRef": backend.target()});
    let node = str_at(&backend.pod, "/spec/nodeName");
    if !node.is_empty() {
        address["nodeName"] = json!(node);
    }
    if let Some(hostname) = &backend.hostname {
        address["hostname"] = json!(hostname);
    }
    address
}
