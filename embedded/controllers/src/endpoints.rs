//! EndpointSlices (and the older Endpoints) of Services with a selector: which pods are behind a Service, and in what state.

mod slices;
mod subsets;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use meshgate_store::{Object, Status, Store, at};
use serde_json::{Value, json};

use crate::objects::{
    bool_at, deleting, find, int_at, items, list, name, namespace, resources, select, selects, str_at, uid,
};
use crate::pods;
use crate::runner::{Controller, Key, Next, Seen, Watched};

/// The controller; its keys are Services.
pub(crate) struct Endpoints {
    store: Store,
    /// The Services a pod was behind when it was last seen, by the pod's namespace and name.
    behind: HashMap<(String, String), BTreeSet<Key>>,
}

impl Endpoints {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, behind: HashMap::new() }
    }

    /// The Services that a pod's event concerns: those it is behind now, and those it was behind before.
    fn services_of(&mut self, seen: &Seen) -> Vec<Key> {
        let pod = &seen.object;
        let place = (namespace(pod).to_owned(), name(pod).to_owned());
        let now: BTreeSet<Key> = match seen.deleted {
            true => BTreeSet::new(),
            false => list(&self.store, &resources::services(), namespace(pod))
                .unwrap_or_default()
                .iter()
                .filter(|service| {
                    selects(at(service, "/spec/selector").and_then(Value::as_object), &pod["metadata"]["labels"])
                })
                .map(|service| Key::new(resources::services(), namespace(service), name(service)))
                .collect(),
        };
        let before = if now.is_empty() { self.behind.remove(&place) } else { self.behind.insert(place, now.clone()) };
        now.into_iter().chain(before.unwrap_or_default()).collect::<BTreeSet<Key>>().into_iter().collect()
    }
}

#[async_trait]
impl Controller for Endpoints {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn watched(&self) -> Watched {
        Watched::Some(vec![
            resources::services(),
            resources::pods(),
            resources::endpoint_slices(),
            resources::endpoints(),
        ])
    }

    fn keys(&mut self, seen: &Seen) -> Vec<Key> {
        let object = &seen.object;
        if seen.resource == resources::pods() {
            return self.services_of(seen);
        }
        let service = if seen.resource == resources::endpoint_slices() {
            str_at(object, "/metadata/labels/kubernetes.io~1service-name")
        } else {
            name(object)
        };
        if service.is_empty() { Vec::new() } else { vec![Key::new(resources::services(), namespace(object), service)] }
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Next, Status> {
        // Slices of a deleted Service go with it by their owner reference; Endpoints go by name.
        let Some(service) = find(&self.store, &key.resource, &key.namespace, &key.name)? else {
            subsets::remove(&self.store, key)?;
            return Ok(Next::Done);
        };
        let selector = service.pointer("/spec/selector").cloned().unwrap_or_default();
        let has_selector = selector.as_object().is_some_and(|selector| !selector.is_empty());
        if deleting(&service) || !has_selector || str_at(&service, "/spec/type") == "ExternalName" {
            return Ok(Next::Done);
        }
        let pods = select(&self.store, &resources::pods(), &key.namespace, &json!({"matchLabels": selector}))?;
        let backends: Vec<Backend> = pods.iter().filter_map(|pod| Backend::of(&service, pod)).collect();
        slices::write(&self.store, &service, &group(&backends))?;
        subsets::write(&self.store, &service, &group(&backends))?;
        Ok(Next::Done)
    }
}

/// A pod behind a Service.
struct Backend {
    pod: Object,
    address: String,
    /// The Service's ports as this pod serves them, as they stand in a slice.
    ports: Vec<Value>,
    ready: bool,
    serving: bool,
    terminating: bool,
    /// The pod's DNS name below a headless Service.
    hostname: Option<String>,
}

impl Backend {
    /// Pods without an address and pods that have ended are behind nothing.
    fn of(service: &Value, pod: &Object) -> Option<Self> {
        let address = str_at(pod, "/status/podIP").to_owned();
        if address.is_empty() || pods::has_ended(pod) {
            return None;
        }
        let (serving, terminating) = (pods::is_ready(pod), deleting(pod));
        let ready = bool_at(service, "/spec/publishNotReadyAddresses") || (serving && !terminating);
        let subdomain = str_at(pod, "/spec/subdomain") == name(service);
        let hostname = str_at(pod, "/spec/hostname");
        Some(Self {
            address,
            ports: ports(service, pod),
            ready,
            serving,
            terminating,
            hostname: (subdomain && !hostname.is_empty()).then(|| hostname.to_owned()),
            pod: Object::clone(pod),
        })
    }

    /// The reference to the pod that both kinds carry.
    fn target(&self) -> Value {
        json!({"kind": "Pod", "namespace": namespace(&self.pod), "name": name(&self.pod), "uid": uid(&self.pod)})
    }
}

/// The Service's ports with the number the pod serves each on. A named target port that the pod does not have is left out.
/// A port without a name has the name `""`, which is how Service and slice ports are matched.
fn ports(service: &Value, pod: &Value) -> Vec<Value> {
    let ports = items(service, "/spec/ports").iter().filter_map(|port| {
        let protocol = str_at(port, "/protocol");
        let number = match &port["targetPort"] {
            Value::String(target) => container_port(pod, target, protocol)?,
            Value::Number(target) if target.as_i64() != Some(0) => target.as_i64()?,
            _ => int_at(port, "/port"),
        };
        let mut entry = json!({"name": str_at(port, "/name"), "port": number, "protocol": protocol});
        if let Some(application) = port.get("appProtocol").filter(|value| !value.is_null()) {
            entry["appProtocol"] = application.clone();
        }
        Some(entry)
    });
    ports.collect()
}

/// The container port of a name. Restartable init containers (sidecars) have ports too.
fn container_port(pod: &Value, wanted: &str, protocol: &str) -> Option<i64> {
    let sidecars =
        items(pod, "/spec/initContainers").iter().filter(|container| str_at(container, "/restartPolicy") == "Always");
    let containers = items(pod, "/spec/containers").iter().chain(sidecars);
    let port = containers
        .flat_map(|container| items(container, "/ports"))
        .find(|port| str_at(port, "/name") == wanted && str_at(port, "/protocol") == protocol)?;
    port["containerPort"].as_i64()
}

/// The backends with the same ports, which share slices. Keyed by the ports' JSON.
type Groups<'a> = BTreeMap<String, Vec<&'a Backend>>;

fn group(backends: &[Backend]) -> Groups<'_> {
    let mut groups = Groups::new();
    for backend in backends {
        groups.entry(Value::from(backend.ports.clone()).to_string()).or_default().push(backend);
    }
    groups
}

fn is_headless(service: &Value) -> bool {
    str_at(service, "/spec/clusterIP") == "None"
}

/// Labels of the Service that its slices and Endpoints carry, with their own.
fn labels(service: &Value, own: &[(&str, &str)], headless: &str) -> Value {
    let mut labels = service["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    for (key, value) in own {
        labels.insert((*key).to_owned(), json!(value));
    }
    labels.remove(headless);
    if is_headless(service) {
        labels.insert(headless.to_owned(), json!(""));
    }
    Value::Object(labels)
}
