//! The outbound policy of a Service without HTTPRoutes, as Linkerd's policy controller gives it: one default route.

use linkerd2_proxy_api::{
    meta::{Metadata, Resource, metadata},
    outbound::{
        Backend, HttpRoute, OpaqueRoute, OutboundPolicy, ProxyProtocol, Queue,
        backend::{self, BalanceP2c, EndpointDiscovery, balance_p2c, endpoint_discovery},
        http_route, opaque_route,
        proxy_protocol::{self, Detect, Http1, Http2, Opaque},
    },
};
use prost_types::Duration;

use crate::services::{PORT, Service};

/// The policy.
pub(super) fn of(service: &Service) -> OutboundPolicy {
    let http = http_route::RouteBackend { backend: Some(backend(service)), ..Default::default() };
    let http = http_route::distribution::FirstAvailable { backends: vec![http] };
    let rule = http_route::Rule {
        backends: Some(http_route::Distribution { kind: Some(http_route::distribution::Kind::FirstAvailable(http)) }),
        ..Default::default()
    };
    let routes = vec![HttpRoute { metadata: Some(default_of("http")), hosts: Vec::new(), rules: vec![rule] }];
    let opaque = opaque_route::RouteBackend { backend: Some(backend(service)), ..Default::default() };
    let opaque = opaque_route::distribution::FirstAvailable { backends: vec![opaque] };
    let rule = opaque_route::Rule {
        backends: Some(opaque_route::Distribution {
            kind: Some(opaque_route::distribution::Kind::FirstAvailable(opaque)),
        }),
        ..Default::default()
    };
    let opaque = Opaque { routes: vec![OpaqueRoute { metadata: Some(default_of("opaq")), rules: vec![rule] }] };
    let detect = Detect {
        timeout: Some(Duration { seconds: 10, nanos: 0 }),
        opaque: Some(opaque),
        http1: Some(Http1 { routes: routes.clone(), failure_accrual: None }),
        http2: Some(Http2 { routes, failure_accrual: None }),
    };
    OutboundPolicy {
        metadata: Some(resource(service)),
        protocol: Some(ProxyProtocol { kind: Some(proxy_protocol::Kind::Detect(detect)) }),
    }
}

fn backend(service: &Service) -> Backend {
    let path = format!("{}:{PORT}", service.host());
    let discovery = endpoint_discovery::Kind::Dst(endpoint_discovery::DestinationGet { path });
    let load = balance_p2c::PeakEwma {
        default_rtt: Some(Duration { seconds: 0, nanos: 30_000_000 }),
        decay: Some(Duration { seconds: 10, nanos: 0 }),
    };
    Backend {
        metadata: Some(resource(service)),
        kind: Some(backend::Kind::Balancer(BalanceP2c {
            discovery: Some(EndpointDiscovery { kind: Some(discovery) }),
            load: Some(balance_p2c::Load::PeakEwma(load)),
        })),
        queue: Some(Queue { capacity: 100, failfast_timeout: Some(Duration { seconds: 3, nanos: 0 }) }),
    }
}

fn resource(service: &Service) -> Metadata {
    let resource = Resource {
        group: "core".to_owned(),
        kind: "Service".to_owned(),
        name: service.name.clone(),
        namespace: "ns".to_owned(),
        port: PORT.into(),
        ..Default::default()
    };
    Metadata { kind: Some(metadata::Kind::Resource(resource)) }
}

fn default_of(name: &str) -> Metadata {
    Metadata { kind: Some(metadata::Kind::Default(name.to_owned())) }
}
