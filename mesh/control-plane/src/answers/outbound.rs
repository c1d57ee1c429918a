//! `OutboundPolicies`: the protocol of a destination, its routes and the balancers behind them.

mod grpc;
mod http;

use std::{net::SocketAddr, time::Duration};

use linkerd2_proxy_api::{
    destination::WeightedAddr,
    meta::Metadata,
    opaque_route::Forbidden,
    outbound::{
        Backend, FailureAccrual, HttpRoute, OpaqueRoute, OutboundPolicy, ProxyProtocol, Queue,
        backend::{self, BalanceP2c, EndpointDiscovery, balance_p2c, endpoint_discovery},
        opaque_route,
        proxy_protocol::{self, Detect, Grpc, Http1, Http2, Opaque},
    },
};

use crate::{
    Cluster, Key,
    answers::{default_ref, duration, is_opaque, service_ref},
    index::State,
    objects::{AppProtocol, Extras, LoadBias, Service},
};

// All of these are what Linkerd's policy controller sends.
const DETECT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_RTT: Duration = Duration::from_millis(30);
const EWMA_DECAY: Duration = Duration::from_secs(10);
const PENALTY_DECAY: Duration = Duration::from_secs(10);
const QUEUE_CAPACITY: u32 = 100;
const FAILFAST_TIMEOUT: Duration = Duration::from_secs(3);

/// What the requests of a rule are answered with whose backends are all to get none.
const NO_WEIGHT: &str = "every backend of the rule has the weight 0";

/// The policy of a Service by name, for clients in a namespace; `None` (`NotFound`) if there is no such Service.
pub(crate) fn by_service(
    state: &State,
    cluster: &Cluster,
    service: &Key,
    port: u16,
    client_namespace: Option<&str>,
) -> Option<OutboundPolicy> {
    let service = state.service(service).filter(|service| !service.external)?;
    Some(of_service(state, cluster, service, port, client_namespace))
}

/// The policy of an address: of the Service whose cluster IP it is, or plain forwarding for an address that is not the
/// cluster's. `None` (`NotFound`) for a pod, about which the profile says everything.
pub(crate) fn by_address(
    state: &State,
    cluster: &Cluster,
    address: SocketAddr,
    client_namespace: Option<&str>,
) -> Option<OutboundPolicy> {
    match state.service_by_ip(address.ip()) {
        Some(service) if service.port(address.port()).is_some() => {
            Some(of_service(state, cluster, service, address.port(), client_namespace))
        }
        Some(service) => Some(forbidden(service, address)),
        None if cluster.contains(address.ip()) => None,
        None => Some(forwarded(cluster, address)),
    }
}

fn of_service(
    state: &State,
    cluster: &Cluster,
    service: &Service,
    port: u16,
    client_namespace: Option<&str>,
) -> OutboundPolicy {
    let own = balancer(cluster, &service.key, port, service.load_bias);
    let opaque = Opaque { routes: vec![opaque_route(default_ref("opaq"), own.clone(), Vec::new())] };
    let routes = state.routes(&service.key, port, client_namespace);
    let to = Destination { state, cluster, extras: &service.extras, load_bias: service.load_bias, own: &own };
    let declared = service.port(port).and_then(|port| port.protocol);
    let failure_accrual = service.failure_accrual;
    let grpc = grpc::routes(&to, &routes);
    let http = || {
        let mut http = http::routes(&to, &routes);
        if http.is_empty() {
            http.push(http::default_route(cluster, own.clone(), &service.extras));
        }
        http
    };
    // With Linkerd too: where there are GRPCRoutes, HTTPRoutes count for nothing and nothing but gRPC is expected.
    let kind = match declared {
        _ if is_opaque(service, port, cluster) => proxy_protocol::Kind::Opaque(opaque),
        Some(AppProtocol::Opaque | AppProtocol::Other) => proxy_protocol::Kind::Opaque(opaque),
        Some(AppProtocol::Http1) => proxy_protocol::Kind::Http1(Http1 { routes: http(), failure_accrual }),
        _ if !grpc.is_empty() => proxy_protocol::Kind::Grpc(Grpc { routes: grpc, failure_accrual }),
        Some(AppProtocol::Http2) => proxy_protocol::Kind::Http2(Http2 { routes: http(), failure_accrual }),
        None => detect(http(), opaque, failure_accrual),
    };
    policy(service_ref(&service.key, port), kind)
}

/// What the routes of a Service lead to.
struct Destination<'a> {
    state: &'a State,
    cluster: &'a Cluster,
    /// For rules that say nothing of retries or timeouts themselves.
    extras: &'a Extras,
    /// For all backends: who sends says how it chooses.
    load_bias: Option<LoadBias>,
    /// For rules that name no backends.
    own: &'a Backend,
}

impl Destination<'_> {
    /// The balancer of a backend, and why it cannot be one if it cannot.
    fn backend(&self, service: &Key, port: Option<u16>) -> (Backend, Option<String>) {
        let exists = self.state.service(service).is_some_and(|service| !service.external);
        let problem = match port {
            _ if !exists => Some(format!("Service {service} does not exist")),
            None => Some(format!("the reference to {service} names no port of a Service")),
            Some(_) => None,
        };
        // Without a port the failure comes first; the balancer is there because a backend without one is not valid.
        (balancer(self.cluster, service, port.unwrap_or(80), self.load_bias), problem)
    }
}

fn policy(metadata: Metadata, kind: proxy_protocol::Kind) -> OutboundPolicy {
    OutboundPolicy { metadata: Some(metadata), protocol: Some(ProxyProtocol { kind: Some(kind) }) }
}

fn detect(routes: Vec<HttpRoute>, opaque: Opaque, failure_accrual: Option<FailureAccrual>) -> proxy_protocol::Kind {
    proxy_protocol::Kind::Detect(Detect {
        timeout: duration(DETECT_TIMEOUT),
        opaque: Some(opaque),
        http1: Some(Http1 { routes: routes.clone(), failure_accrual }),
        http2: Some(Http2 { routes, failure_accrual }),
    })
}

/// A connection to a port that the Service does not declare is closed.
fn forbidden(service: &Service, address: SocketAddr) -> OutboundPolicy {
    let metadata = service_ref(&service.key, address.port());
    let filter = opaque_route::Filter { kind: Some(opaque_route::filter::Kind::Forbidden(Forbidden {})) };
    let route = opaque_route(default_ref("undefined-port"), forward(metadata.clone(), address), vec![filter]);
    policy(metadata, proxy_protocol::Kind::Opaque(Opaque { routes: vec![route] }))
}

/// An address outside of the cluster is dialled as it is. In ingress mode a proxy refuses what has neither profile nor
/// policy, and it asks for no profile outside of the cluster's networks: hence an answer here.
fn forwarded(cluster: &Cluster, address: SocketAddr) -> OutboundPolicy {
    let metadata = default_ref("egress-fallback");
    let backend = || forward(default_ref("egress-fallback"), address);
    let opaque = Opaque { routes: vec![opaque_route(metadata.clone(), backend(), Vec::new())] };
    policy(metadata, detect(vec![http::default_route(cluster, backend(), &Extras::default())], opaque, None))
}

fn balancer(cluster: &Cluster, service: &Key, port: u16, bias: Option<LoadBias>) -> Backend {
    let path = format!("{}:{port}", service.fqdn(&cluster.domain));
    let discovery = endpoint_discovery::Kind::Dst(endpoint_discovery::DestinationGet { path });
    let (default_rtt, decay) = (duration(DEFAULT_RTT), duration(EWMA_DECAY));
    let load = match bias {
        None => balance_p2c::Load::PeakEwma(balance_p2c::PeakEwma { default_rtt, decay }),
        Some(LoadBias { penalty, max_retry_after }) => {
            balance_p2c::Load::PenaltyPeakEwma(balance_p2c::PenaltyPeakEwma {
                default_rtt,
                decay,
                penalty: duration(penalty),
                max_retry_after: duration(max_retry_after),
                penalty_decay: duration(PENALTY_DECAY),
            })
        }
    };
    Backend {
        metadata: Some(service_ref(service, port)),
        kind: Some(backend::Kind::Balancer(BalanceP2c {
            discovery: Some(EndpointDiscovery { kind: Some(discovery) }),
            load: Some(load),
        })),
        queue: queue(),
    }
}

fn forward(metadata: Metadata, address: SocketAddr) -> Backend {
    let address = WeightedAddr { addr: Some(address.into()), weight: 1, ..Default::default() };
    Backend { metadata: Some(metadata), kind: Some(backend::Kind::Forward(address)), queue: queue() }
}

fn queue() -> Option<Queue> {
    Some(Queue { capacity: QUEUE_CAPACITY, failfast_timeout: duration(FAILFAST_TIMEOUT) })
}

fn opaque_route(metadata: Metadata, backend: Backend, filters: Vec<opaque_route::Filter>) -> OpaqueRoute {
    use opaque_route::{Distribution, Rule, distribution};
    let backend = opaque_route::RouteBackend { backend: Some(backend), filters: Vec::new() };
    let first = distribution::FirstAvailable { backends: vec![backend] };
    let rule = Rule { backends: Some(Distribution { kind: Some(distribution::Kind::FirstAvailable(first)) }), filters };
    OpaqueRoute { metadata: Some(metadata), rules: vec![rule] }
}

#[cfg(test)]
mod tests;
