//! `OutboundPolicies`: the protocol of a destination, its routes and the balancers behind them.

use std::{net::SocketAddr, time::Duration};

use linkerd2_proxy_api::{
    destination::WeightedAddr,
    http_route::{HttpFailureInjector, Ratio},
    meta::Metadata,
    opaque_route::Forbidden,
    outbound::{
        Backend, FailureAccrual, HttpRoute as ApiHttpRoute, OpaqueRoute, OutboundPolicy, ProxyProtocol, Queue,
        backend::{self, BalanceP2c, EndpointDiscovery, balance_p2c, endpoint_discovery},
        http_route, opaque_route,
        proxy_protocol::{self, Detect, Http1, Http2, Opaque},
    },
};

use crate::{
    Cluster, Key,
    answers::{default_ref, duration, is_opaque, resource, service_ref},
    index::State,
    objects::{Extras, HttpRoute, RouteBackend, RouteRule, Service, match_everything},
};

// All of these are what Linkerd's policy controller sends.
const DETECT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_RTT: Duration = Duration::from_millis(30);
const EWMA_DECAY: Duration = Duration::from_secs(10);
const QUEUE_CAPACITY: u32 = 100;
const FAILFAST_TIMEOUT: Duration = Duration::from_secs(3);

/// The policy of a Service by name; `None` (`NotFound`) if there is no such Service.
pub(crate) fn by_service(state: &State, cluster: &Cluster, service: &Key, port: u16) -> Option<OutboundPolicy> {
    let service = state.service(service).filter(|service| !service.external)?;
    Some(of_service(state, cluster, service, port))
}

/// The policy of an address: of the Service whose cluster IP it is, or plain forwarding for an address that is not the
/// cluster's. `None` (`NotFound`) for a pod, about which the profile says everything.
pub(crate) fn by_address(state: &State, cluster: &Cluster, address: SocketAddr) -> Option<OutboundPolicy> {
    match state.service_by_ip(address.ip()) {
        Some(service) if service.port(address.port()).is_some() => {
            Some(of_service(state, cluster, service, address.port()))
        }
        Some(service) => Some(forbidden(service, address)),
        None if cluster.contains(address.ip()) => None,
        None => Some(forwarded(address)),
    }
}

fn of_service(state: &State, cluster: &Cluster, service: &Service, port: u16) -> OutboundPolicy {
    let own = || balancer(cluster, &service.key, port);
    let opaque = Opaque { routes: vec![opaque_route(default_ref("opaq"), own(), Vec::new())] };
    let kind = if is_opaque(service, port, cluster) {
        proxy_protocol::Kind::Opaque(opaque)
    } else {
        let mut routes: Vec<_> = state
            .routes(&service.key)
            .filter(|route| route.applies_to(&service.key, port))
            .map(|route| http_route(state, cluster, route, own))
            .collect();
        if routes.is_empty() {
            routes.push(default_http_route(own(), &service.extras));
        }
        detect(routes, opaque, service.failure_accrual)
    };
    policy(service_ref(&service.key, port), kind)
}

fn policy(metadata: Metadata, kind: proxy_protocol::Kind) -> OutboundPolicy {
    OutboundPolicy { metadata: Some(metadata), protocol: Some(ProxyProtocol { kind: Some(kind) }) }
}

fn detect(routes: Vec<ApiHttpRoute>, opaque: Opaque, failure_accrual: Option<FailureAccrual>) -> proxy_protocol::Kind {
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
    let route = opaque_route(default_ref("undeclared-port"), forward(metadata.clone(), address), vec![filter]);
    policy(metadata, proxy_protocol::Kind::Opaque(Opaque { routes: vec![route] }))
}

/// An address outside of the cluster is dialled as it is. In ingress mode a proxy refuses what has neither profile nor
/// policy, and it asks for no profile outside of the cluster's networks: hence an answer here.
fn forwarded(address: SocketAddr) -> OutboundPolicy {
    let metadata = default_ref("egress-fallback");
    let backend = || forward(default_ref("egress-fallback"), address);
    let opaque = Opaque { routes: vec![opaque_route(metadata.clone(), backend(), Vec::new())] };
    policy(metadata, detect(vec![default_http_route(backend(), &Extras::default())], opaque, None))
}

fn balancer(cluster: &Cluster, service: &Key, port: u16) -> Backend {
    let path = format!("{}:{port}", service.fqdn(&cluster.domain));
    let discovery = endpoint_discovery::Kind::Dst(endpoint_discovery::DestinationGet { path });
    let load = balance_p2c::PeakEwma { default_rtt: duration(DEFAULT_RTT), decay: duration(EWMA_DECAY) };
    Backend {
        metadata: Some(service_ref(service, port)),
        kind: Some(backend::Kind::Balancer(BalanceP2c {
            discovery: Some(EndpointDiscovery { kind: Some(discovery) }),
            load: Some(balance_p2c::Load::PeakEwma(load)),
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

fn default_http_route(backend: Backend, extras: &Extras) -> ApiHttpRoute {
    let backend = http_route::RouteBackend { backend: Some(backend), ..Default::default() };
    let rule = http_route::Rule {
        matches: vec![match_everything()],
        backends: Some(first_available(backend)),
        timeouts: extras.timeouts,
        retry: extras.retry.clone(),
        ..Default::default()
    };
    ApiHttpRoute { metadata: Some(default_ref("http")), hosts: Vec::new(), rules: vec![rule] }
}

fn first_available(backend: http_route::RouteBackend) -> http_route::Distribution {
    use http_route::distribution::{FirstAvailable, Kind};
    http_route::Distribution { kind: Some(Kind::FirstAvailable(FirstAvailable { backends: vec![backend] })) }
}

fn http_route(state: &State, cluster: &Cluster, route: &HttpRoute, own: impl Fn() -> Backend) -> ApiHttpRoute {
    let rules = route.rules.iter().map(|rule| http_rule(state, cluster, rule, &own));
    ApiHttpRoute {
        metadata: Some(resource(route.group(), "HTTPRoute", &route.key, 0)),
        hosts: route.hosts.clone(),
        rules: rules.collect(),
    }
}

fn http_rule(state: &State, cluster: &Cluster, rule: &RouteRule, own: &impl Fn() -> Backend) -> http_route::Rule {
    use http_route::distribution::{Kind, RandomAvailable};
    let backends = if rule.backends.is_empty() {
        first_available(http_route::RouteBackend { backend: Some(own()), ..Default::default() })
    } else {
        let backends =
            rule.backends.iter().filter(|backend| backend.weight > 0).map(|backend| http_route::WeightedRouteBackend {
                backend: Some(route_backend(state, cluster, backend)),
                weight: backend.weight,
            });
        let random = RandomAvailable { backends: backends.collect() };
        http_route::Distribution { kind: Some(Kind::RandomAvailable(random)) }
    };
    http_route::Rule {
        matches: rule.matches.clone(),
        filters: rule.filters.clone(),
        backends: Some(backends),
        timeouts: rule.timeouts,
        retry: rule.retry.clone(),
        ..Default::default()
    }
}

/// A backend that cannot be is answered with 500 by the proxy, with the reason, in the share of requests that is its.
#[allow(deprecated, reason = "the message still has the field for old proxies")]
fn route_backend(state: &State, cluster: &Cluster, backend: &RouteBackend) -> http_route::RouteBackend {
    let RouteBackend { service, port, filters, .. } = backend;
    let exists = state.service(service).is_some_and(|service| !service.external);
    let mut filters = filters.clone();
    if !exists || port.is_none() {
        let message = if exists {
            format!("the reference to {service} names no port of a Service")
        } else {
            format!("Service {service} does not exist")
        };
        let injector =
            HttpFailureInjector { status: 500, message, ratio: Some(Ratio { numerator: 1, denominator: 1 }) };
        filters.insert(0, http_route::Filter { kind: Some(http_route::filter::Kind::FailureInjector(injector)) });
    }
    // Without a port the failure comes first; the balancer is there because a backend without one is not valid.
    let balancer = balancer(cluster, service, port.unwrap_or(80));
    http_route::RouteBackend { backend: Some(balancer), filters, request_timeout: None }
}

#[cfg(test)]
mod tests;
