//! `OutboundPolicies`: the protocol of a destination, its routes and the balancers behind them.

mod egress;
mod grpc;
mod http;
mod tcp;

use std::{net::SocketAddr, time::Duration};

use linkerd2_proxy_api::{
    destination::WeightedAddr,
    meta::Metadata,
    outbound::{
        Backend, FailureAccrual, HttpRoute, OpaqueRoute, OutboundPolicy, ProxyProtocol, Queue,
        backend::{self, BalanceP2c, EndpointDiscovery, balance_p2c, endpoint_discovery},
        opaque_route,
        proxy_protocol::{self, Detect, Grpc, Http1, Http2, Opaque, Tls},
    },
};

use crate::{
    Cluster, Key,
    answers::{default_ref, duration, is_opaque, service_ref},
    index::State,
    objects::{AppProtocol, Extras, LoadBias, Referent, Route, RouteType, Service},
};
use egress::Egress;

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

/// The policy of an address: of the Service whose cluster IP it is, of the EgressNetwork that it is in, or plain forwarding for one
/// that is not the cluster's. `None` (`NotFound`) for a pod, about which the profile says everything.
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
        None => match Egress::find(state, cluster, address, client_namespace) {
            Some(egress) => Some(of_network(state, cluster, egress, client_namespace)),
            None => (!cluster.contains(address.ip())).then(|| forwarded(cluster, address)),
        },
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
    let to =
        Destination { state, cluster, extras: &service.extras, load_bias: service.load_bias, own: &own, egress: None };
    let declared = match service.port(port).and_then(|port| port.protocol) {
        _ if is_opaque(service, port, cluster) => Some(AppProtocol::Opaque),
        declared => declared,
    };
    let routes = state.routes(&Referent::Service(service.key.clone()), port, client_namespace);
    policy(service_ref(&service.key, port), to.protocol(declared, service.failure_accrual, &routes))
}

/// Of an address in an EgressNetwork. One that has addresses of the cluster has no routes, as with Linkerd, and is one all the same.
fn of_network(state: &State, cluster: &Cluster, egress: Egress<'_>, client_namespace: Option<&str>) -> OutboundPolicy {
    let Egress { network, address } = egress;
    let own = forward(egress.metadata(), address);
    let to = Destination { state, cluster, extras: &network.extras, load_bias: None, own: &own, egress: Some(egress) };
    let is_opaque = network.opaque_ports.as_ref().unwrap_or(&cluster.opaque_ports).contains(address.port());
    let routes = match network.overlaps(cluster) {
        true => Vec::new(),
        false => state.routes(&egress.parent(), address.port(), client_namespace),
    };
    let declared = is_opaque.then_some(AppProtocol::Opaque);
    policy(egress.metadata(), to.protocol(declared, network.failure_accrual, &routes))
}

/// What the routes of a Service or an EgressNetwork lead to.
struct Destination<'a> {
    state: &'a State,
    cluster: &'a Cluster,
    /// For rules that say nothing of retries or timeouts themselves.
    extras: &'a Extras,
    /// For all backends: who sends says how it chooses.
    load_bias: Option<LoadBias>,
    /// For rules that name no backends.
    own: &'a Backend,
    /// Where it is no Service.
    egress: Option<Egress<'a>>,
}

impl Destination<'_> {
    /// What is spoken, and the routes for that. `declared` is what the port itself says.
    ///
    /// With Linkerd too: of the types of routes the first that there is counts, and nothing but that is expected; but where it is HTTP,
    /// other connections have the default.
    fn protocol(
        &self,
        declared: Option<AppProtocol>,
        failure_accrual: Option<FailureAccrual>,
        routes: &[&Route],
    ) -> proxy_protocol::Kind {
        let has = |route_type: RouteType| routes.iter().any(|route| route.route_type() == route_type);
        let opaque = || Opaque { routes: tcp::opaque_routes(self, routes) };
        let http = || http::routes(self, routes);
        match declared {
            Some(AppProtocol::Opaque | AppProtocol::Other) => proxy_protocol::Kind::Opaque(opaque()),
            Some(AppProtocol::Http1) => proxy_protocol::Kind::Http1(Http1 { routes: http(), failure_accrual }),
            _ if has(RouteType::Grpc) => {
                proxy_protocol::Kind::Grpc(Grpc { routes: grpc::routes(self, routes), failure_accrual })
            }
            Some(AppProtocol::Http2) => proxy_protocol::Kind::Http2(Http2 { routes: http(), failure_accrual }),
            None if has(RouteType::Http) => self.detect(http(), failure_accrual),
            None if has(RouteType::Tls) => proxy_protocol::Kind::Tls(Tls { routes: tcp::tls_routes(self, routes) }),
            None if has(RouteType::Tcp) => proxy_protocol::Kind::Opaque(opaque()),
            None => self.detect(http(), failure_accrual),
        }
    }

    fn detect(&self, http: Vec<HttpRoute>, failure_accrual: Option<FailureAccrual>) -> proxy_protocol::Kind {
        detect(http, Opaque { routes: vec![self.opaque_route()] }, failure_accrual)
    }

    /// For connections that no route is for.
    fn opaque_route(&self) -> OpaqueRoute {
        match self.egress {
            None => opaque_route(default_ref("opaq"), self.own.clone(), Vec::new()),
            Some(egress) => {
                let filters = if egress.network.allows { Vec::new() } else { vec![tcp::opaque::forbid()] };
                opaque_route(egress.default_route("tcp"), self.own.clone(), filters)
            }
        }
    }

    /// A backend, and why it cannot be one if it cannot.
    fn backend(&self, referent: &Referent, port: Option<u16>) -> (Backend, Option<String>) {
        match referent {
            Referent::Service(service) => self.service(service, port),
            Referent::EgressNetwork(network) => self.network(network, port),
        }
    }

    fn service(&self, service: &Key, port: Option<u16>) -> (Backend, Option<String>) {
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
    let route =
        opaque_route(default_ref("undefined-port"), forward(metadata.clone(), address), vec![tcp::opaque::forbid()]);
    policy(metadata, proxy_protocol::Kind::Opaque(Opaque { routes: vec![route] }))
}

/// An address outside of the cluster and of all networks is dialled as it is. In ingress mode a proxy refuses what has neither profile nor
/// policy, and it asks for no profile outside of the cluster's networks: hence an answer here.
fn forwarded(cluster: &Cluster, address: SocketAddr) -> OutboundPolicy {
    let metadata = default_ref("egress-fallback");
    let backend = || forward(default_ref("egress-fallback"), address);
    let opaque = Opaque { routes: vec![opaque_route(metadata.clone(), backend(), Vec::new())] };
    let route = http::default_route(cluster, backend(), &Extras::default());
    policy(metadata, detect(vec![route], opaque, None))
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
    OpaqueRoute { metadata: Some(metadata), rules: vec![tcp::opaque::only(backend, filters)] }
}

#[cfg(test)]
mod tests;
