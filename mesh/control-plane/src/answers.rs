//! From objects to answers: pure functions, one file for each question.

pub(crate) mod endpoints;
pub(crate) mod inbound;
pub(crate) mod outbound;
pub(crate) mod place;
pub(crate) mod profile;
pub(crate) mod slices;
pub(crate) mod status;

use std::{net::SocketAddr, time::Duration};

use linkerd2_proxy_api::{destination, meta};

use crate::{
    Cluster, Key,
    index::State,
    objects::{AppProtocol, Pod, Protocol, Proxy, ProxyIdentity, Server, Service},
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

/// An endpoint: an address, and what its pod tells about it. It is `opaque` if it carries no HTTP.
///
/// What Linkerd's `controller/api/destination/endpoint_translator_utils.go` says of one: of what no proxy is in front of, it is the address.
fn endpoint(address: SocketAddr, pod: Option<&Pod>, opaque: bool, cluster: &Cluster) -> destination::WeightedAddr {
    use destination::protocol_hint::{H2, Opaque, OpaqueTransport, Protocol};
    let mut endpoint = destination::WeightedAddr {
        addr: Some(address.into()),
        weight: ENDPOINT_WEIGHT,
        metric_labels: pod.map(|pod| pod.metric_labels.clone()).unwrap_or_default(),
        ..Default::default()
    };
    let proxied = pod.and_then(|pod| Some((pod, pod.proxy.as_ref()?)));
    let Some((pod, proxy)) = proxied.filter(|(_, proxy)| !proxy.skipped.contains(address.port())) else {
        return endpoint;
    };
    let identity = identity(pod, proxy, cluster);
    // The proxy itself answers at its admin port, so that nothing has to be said of which port a connection is for.
    let is_admin = proxy.admin == Some(address.port());
    // Whoever proves nothing is not heard at the proxy's own port.
    let inbound_port = proxy.port.filter(|_| opaque && !is_admin && identity.is_some());
    endpoint.protocol_hint = Some(destination::ProtocolHint {
        // Any control plane's proxy takes HTTP/1 over HTTP/2.
        protocol: Some(if opaque { Protocol::Opaque(Opaque {}) } else { Protocol::H2(H2 {}) }),
        opaque_transport: inbound_port.map(|port| OpaqueTransport { inbound_port: port.into() }),
    });
    endpoint.http2 = Some(meshed_http2());
    // Without the port, nothing would tell TLS for the proxy from what the application speaks.
    endpoint.tls_identity = identity.filter(|_| !opaque || is_admin || inbound_port.is_some());
    endpoint
}

/// How a connection over HTTP/2 to another proxy is found dead: the default of Linkerd's chart
/// (`destinationController.meshedHttp2ClientProtobuf`).
fn meshed_http2() -> destination::Http2ClientParams {
    let keep_alive = destination::http2_client_params::KeepAlive {
        interval: duration(Duration::from_secs(10)),
        timeout: duration(Duration::from_secs(3)),
        while_idle: true,
    };
    destination::Http2ClientParams { keep_alive: Some(keep_alive), ..Default::default() }
}

/// The Servers that can make a port opaque.
///
/// A pod's proxy is told by its Server that nothing is to be looked into, TLS between proxies included: who sends there has to be told
/// the same, as Linkerd's destination controller does (`SetToServerProtocol` in `controller/api/destination/watcher`).
///
/// They are found once for all endpoints at a port, of which there may be thousands.
#[derive(Default)]
struct OpaqueServers<'a> {
    port: u16,
    servers: Vec<&'a Server>,
    /// The pod that was asked about last, and what was found: the pods of a Service are most often alike.
    last: Option<(&'a Pod, bool)>,
}

impl<'a> OpaqueServers<'a> {
    /// Those for a port of the pods of a namespace.
    fn of(state: &'a State, namespace: &'a str, port: u16) -> Self {
        let mut servers: Vec<_> = state.servers(namespace).filter(|server| server.may_be_for(port)).collect();
        // Of several Servers of a port the first counts: others matter as long as an opaque one comes after them.
        let last = servers.iter().rposition(|server| server.protocol == Protocol::Opaque);
        servers.truncate(last.map_or(0, |last| last + 1));
        Self { port, servers, last: None }
    }

    fn include(&mut self, pod: &'a Pod) -> bool {
        if self.servers.is_empty() {
            return false;
        }
        if let Some((last, found)) = self.last
            && (last.kind, &last.key.namespace) == (pod.kind, &pod.key.namespace)
            && last.labels == pod.labels
            && last.named_ports == pod.named_ports
        {
            return found;
        }
        let own = self.servers.iter().find(|server| server.is_for(pod, self.port));
        let found = own.is_some_and(|own| own.protocol == Protocol::Opaque);
        self.last = Some((pod, found));
        found
    }
}

/// Whether a port of a pod, or of something that is none, carries no HTTP. `servers` are those for that port.
fn is_opaque_at<'a>(port: u16, pod: Option<&'a Pod>, servers: &mut OpaqueServers<'a>, cluster: &Cluster) -> bool {
    pod.and_then(|pod| pod.opaque_ports.as_ref()).unwrap_or(&cluster.opaque_ports).contains(port)
        || pod.is_some_and(|pod| servers.include(pod))
}

/// Who a pod's proxy is, if it belongs to this control plane, or says itself who it is. What Linkerd's
/// `controller/api/destination/endpoint_translator_utils.go` says of one.
fn identity(pod: &Pod, proxy: &Proxy, cluster: &Cluster) -> Option<destination::TlsIdentity> {
    use destination::tls_identity::{DnsLikeIdentity, Strategy, UriLikeIdentity};
    let domain = cluster.identity.as_ref()?;
    let (server_name, strategy) = match &proxy.identity {
        ProxyIdentity::ServiceAccount { control_plane_namespace, name } => {
            if *control_plane_namespace != domain.control_plane_namespace {
                return None;
            }
            let name = DnsLikeIdentity { name: format!("{name}.{}.{}", pod.key.namespace, domain.suffix()) };
            (name.clone(), Strategy::DnsLikeIdentity(name))
        }
        ProxyIdentity::Uri { uri, server_name } => {
            let uri = UriLikeIdentity { uri: uri.clone() };
            (DnsLikeIdentity { name: server_name.clone() }, Strategy::UriLikeIdentity(uri))
        }
    };
    Some(destination::TlsIdentity { server_name: Some(server_name), strategy: Some(strategy) })
}
