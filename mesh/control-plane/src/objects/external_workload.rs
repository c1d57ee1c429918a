//! ExternalWorkloads: machines outside of the cluster that are to the mesh what pods are.
//!
//! Taken from Linkerd's destination controller (`controller/api/destination/endpoint_translator_utils.go`, `watcher/port_publisher.go`)
//! and policy controller (`policy-controller/k8s/index/src/inbound/workload.rs`).

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{
    Kind, PortSet,
    objects::{
        Pod,
        pod::{PROXY_PORT, Proxy, ProxyIdentity, identity_ports, inbound_policy},
        wire::{self, annotation},
    },
};

/// The condition of one that serves.
const READY: &str = "Ready";

/// What is kept of an ExternalWorkload beyond what is kept of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExternalWorkload {
    pub(crate) uid: String,
    pub(crate) is_ready: bool,
    /// Its ports, of any protocol.
    pub(crate) ports: Vec<WorkloadPort>,
}

/// A port of an ExternalWorkload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkloadPort {
    /// Empty if it has none.
    pub(crate) name: String,
    pub(crate) number: u16,
    /// `TCP`, if it does not say.
    pub(crate) protocol: String,
}

impl ExternalWorkload {
    fn of(workload: &wire::ExternalWorkload) -> Self {
        let conditions = workload.status.conditions.as_deref().unwrap_or_default();
        let ports = workload.spec.ports.iter().flatten().map(|port| WorkloadPort {
            name: port.name.clone(),
            number: port.port,
            protocol: wire::protocol(&port.protocol).into(),
        });
        Self {
            uid: workload.metadata.uid.clone().unwrap_or_default(),
            is_ready: conditions.iter().any(|condition| condition.type_ == READY && condition.status == "True"),
            ports: ports.collect(),
        }
    }
}

/// Where its proxy takes connections that say which port they are for, if no port of it has that name.
const DEFAULT_PROXY_PORT: u16 = 4143;

impl From<wire::ExternalWorkload> for Pod {
    fn from(workload: wire::ExternalWorkload) -> Self {
        let external = Some(Box::new(ExternalWorkload::of(&workload)));
        let wire::ExternalWorkload { metadata, spec, .. } = workload;
        let ports = spec.ports.unwrap_or_default();
        let port = |name: &str| ports.iter().find(|port| port.name == name).map(|port| port.port);
        let addresses = spec.workload_ips.unwrap_or_default();
        let named = ports.iter().filter(|port| !port.name.is_empty() && matches!(&*port.protocol, "" | "TCP"));
        let identity = ProxyIdentity::Uri { uri: spec.mesh_tls.identity, server_name: spec.mesh_tls.server_name };
        Self {
            kind: Kind::ExternalWorkload,
            key: wire::key(&metadata),
            ips: addresses.iter().filter_map(|address| address.ip.parse().ok()).collect(),
            host_ports: Vec::new(),
            metric_labels: metric_labels(&metadata),
            opaque_ports: annotation(&metadata, super::OPAQUE_PORTS)
                .map(|list| PortSet::from_items(list.split(','), port)),
            inbound_policy: inbound_policy(&metadata),
            identity_ports: identity_ports(&metadata),
            // Only what is in the mesh is one of these.
            proxy: Some(Proxy {
                identity,
                skipped: PortSet::default(),
                port: Some(port(PROXY_PORT).unwrap_or(DEFAULT_PROXY_PORT)),
                admin: None,
            }),
            named_ports: named.map(|port| (port.name.clone(), port.port)).collect(),
            probes: BTreeSet::new(),
            external,
            labels: metadata.labels.unwrap_or_default(),
        }
    }
}

/// Its own name, and that of its owner, if it has one alone.
fn metric_labels(metadata: &ObjectMeta) -> HashMap<String, String> {
    let name = metadata.name.clone().unwrap_or_default();
    let mut labels = HashMap::from([("external_workload".to_owned(), name)]);
    if let Some([owner]) = metadata.owner_references.as_deref() {
        labels.insert(owner.kind.to_lowercase(), owner.name.clone());
    }
    labels
}
