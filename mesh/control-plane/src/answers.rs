//! From objects to answers: pure functions, one file for each question.

pub(crate) mod endpoints;
pub(crate) mod inbound;
pub(crate) mod outbound;
pub(crate) mod place;
pub(crate) mod profile;
pub(crate) mod status;

use std::{net::SocketAddr, time::Duration};

use linkerd2_proxy_api::{destination, meta};

use crate::{
    Cluster, Key,
    objects::{AppProtocol, Pod, Proxy, Service},
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
    service.port(port).is_some_and(|port| port.protocol == Some(AppProtocol::Opaque))
        || service.opaque_ports.as_ref().unwrap_or(&cluster.opaque_ports).contains(port)
}

/// An endpoint: an address, and what its pod tells about it.
fn endpoint(address: SocketAddr, pod: Option<&Pod>, cluster: &Cluster) -> destination::WeightedAddr {
    use destination::protocol_hint::{H2, Opaque, OpaqueTransport, Protocol};
    let opaque = is_opaque_at(address.port(), pod, cluster);
    let proxy = pod.and_then(|pod| pod.proxy.as_ref()).filter(|proxy| !proxy.skipped.contains(address.port()));
    let identity = pod.zip(proxy).and_then(|(pod, proxy)| identity(pod, proxy, cluster));
    let hint = match proxy {
        _ if opaque => Some(destination::ProtocolHint {
            protocol: Some(Protocol::Opaque(Opaque {})),
            // Whoever proves nothing is not heard at the proxy's own port.
            opaque_transport: proxy
                .and_then(|proxy| proxy.port)
                .filter(|_| identity.is_some())
                .map(|port| OpaqueTransport { inbound_port: port.into() }),
        }),
        // Any control plane's proxy takes HTTP/1 over HTTP/2.
        Some(_) => Some(destination::ProtocolHint { protocol: Some(Protocol::H2(H2 {})), opaque_transport: None }),
        None => None,
    };
    // Without the port, nothing would tell TLS for the proxy from what the application speaks.
    let identity = identity.filter(|_| !opaque || hint.is_some_and(|hint| hint.opaque_transport.is_some()));
    destination::WeightedAddr {
        addr: Some(address.into()),
        weight: ENDPOINT_WEIGHT,
        metric_labels: pod.map(|pod| pod.metric_labels.clone()).unwrap_or_default(),
        protocol_hint: hint,
        tls_identity: identity,
        ..Default::default()
    }
}

/// Whether a port of a pod, or of something that is none, carries no HTTP.
fn is_opaque_at(port: u16, pod: Option<&Pod>, cluster: &Cluster) -> bool {
    pod.and_then(|pod| pod.opaque_ports.as_ref()).unwrap_or(&cluster.opaque_ports).contains(port)
}

/// Who a pod's proxy is, if it belongs to this control plane. What Linkerd's
/// `controller/api/destination/endpoint_translator.go` says of one.
fn identity(pod: &Pod, proxy: &Proxy, cluster: &Cluster) -> Option<destination::TlsIdentity> {
    use destination::tls_identity::{DnsLikeIdentity, Strategy};
    let domain = cluster.identity.as_ref()?;
    if proxy.control_plane_namespace != domain.control_plane_namespace {
        return None;
    }
    let name = format!("{}.{}.{}", proxy.service_account, pod.key.namespace, domain.suffix());
    let name = DnsLikeIdentity { name };
    Some(destination::TlsIdentity { server_name: Some(name.clone()), strategy: Some(Strategy::DnsLikeIdentity(name)) })
}
