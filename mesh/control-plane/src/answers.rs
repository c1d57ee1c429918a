//! From objects to answers: pure functions, one file for each question.

pub(crate) mod endpoints;
pub(crate) mod inbound;
pub(crate) mod outbound;
pub(crate) mod profile;

use std::{net::SocketAddr, time::Duration};

use linkerd2_proxy_api::{destination, meta};

use crate::{
    Cluster, Key,
    objects::{Pod, Service, ServicePort},
};

/// The weight of every endpoint, as Linkerd has it. Proxies balance by latency and ignore it.
const ENDPOINT_WEIGHT: u32 = 10_000;

/// A reference to a port of a Service, in an answer's metadata.
fn service_ref(service: &Key, port: u16) -> meta::Metadata {
    resource("core", "Service", service, port)
}

fn resource(group: &str, kind: &str, key: &Key, port: u16) -> meta::Metadata {
    meta::Metadata {
        kind: Some(meta::metadata::Kind::Resource(meta::Resource {
            group: group.into(),
            kind: kind.into(),
            name: key.name.to_string(),
            namespace: key.namespace.to_string(),
            section: String::new(),
            port: port.into(),
        })),
    }
}

/// Metadata of something that comes from no object.
fn default_ref(name: &str) -> meta::Metadata {
    meta::Metadata { kind: Some(meta::metadata::Kind::Default(name.into())) }
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

/// Whether a Service's port carries no HTTP.
fn is_opaque(service: &Service, port: u16, cluster: &Cluster) -> bool {
    service.port(port).is_some_and(|port: &ServicePort| port.opaque)
        || service.opaque_ports.as_ref().unwrap_or(&cluster.opaque_ports).contains(port)
}

/// An endpoint: an address, and what its pod tells about it.
fn endpoint(address: SocketAddr, pod: Option<&Pod>, cluster: &Cluster) -> destination::WeightedAddr {
    use destination::protocol_hint::{Opaque, Protocol};
    let ports = pod.and_then(|pod| pod.opaque_ports.as_ref()).unwrap_or(&cluster.opaque_ports);
    let hint = destination::ProtocolHint { protocol: Some(Protocol::Opaque(Opaque {})), opaque_transport: None };
    destination::WeightedAddr {
        addr: Some(address.into()),
        weight: ENDPOINT_WEIGHT,
        metric_labels: pod.map(|pod| pod.metric_labels.clone()).unwrap_or_default(),
        protocol_hint: ports.contains(address.port()).then_some(hint),
        ..Default::default()
    }
}
