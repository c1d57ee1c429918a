//! What the proxy counts, under Linkerd's names and with Linkerd's labels in Linkerd's order.
//!
//! Counting must cost nothing that a request could feel: whoever counts holds its counters (`Arc<Counter>`), resolved once
//! per endpoint, route or connection. Labels are text that was rendered when the series was made.

mod balancer;
mod control;
mod histogram;
mod hosts;
mod http;
mod labels;
mod observe;
mod process;
mod registry;
mod route;
mod runtime;
mod stream;
mod tcp;

pub(crate) use balancer::{BalancerFamilies, BalancerScope, BalancerState};
pub(crate) use control::{ControlCall, ControlClient, ControlFamilies, ControlScope, Resolutions};
pub(crate) use histogram::{Histogram, Shape};
pub(crate) use hosts::{ByHost, HostName, HostNames};
pub(crate) use http::{ErrorClass, HttpFamilies, HttpScope, Observation};
pub(crate) use labels::{
    Labels, Tls, endpoint_labels, inbound_labels, inbound_source_labels, outbound_source_labels, service_labels,
    service_name,
};
pub(crate) use observe::{Observer, Observers};
pub(crate) use registry::{Counter, Family, Gauge, Keyed, Late, Refresh, Registry, Seconds};
pub(crate) use route::{PassedOn, TcpRoute, TcpRouteError, TcpRouteFamilies};
pub(crate) use stream::{Sent, StreamFamilies, StreamObservation, StreamScope, Variant};
pub(crate) use tcp::{DetectFamilies, TcpConnection, TcpFamilies, TcpScope, ZoneLocality};

use std::{sync::Arc, time::Duration};

use balancer::Balanced;
use process::Process;
use runtime::Runtime;

/// A direction of traffic, as label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Inbound,
    Outbound,
}

impl Direction {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// The retries of policies' routes.
#[derive(Clone)]
pub(crate) struct RetryFamilies {
    pub(crate) requests: Family<Counter>,
    pub(crate) successes: Family<Counter>,
    pub(crate) limit_exceeded: Family<Counter>,
    pub(crate) overflow: Family<Counter>,
    /// Whether routes are told apart by host.
    pub(crate) hosts: HostNames,
}

/// Every family of the proxy.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    pub(crate) http: HttpFamilies,
    pub(crate) route: HttpFamilies,
    pub(crate) route_actual: HttpFamilies,
    pub(crate) route_retryable: Family<Counter>,
    pub(crate) tcp: TcpFamilies,
    pub(crate) outbound_http_errors: Family<Counter>,
    pub(crate) inbound_http_errors: Family<Counter>,
    pub(crate) outbound_tcp_errors: Family<Counter>,
    pub(crate) inbound_tcp_errors: Family<Counter>,
    pub(crate) outbound_protocols: Family<Counter>,
    pub(crate) outbound_detections: DetectFamilies,
    pub(crate) inbound_detections: DetectFamilies,
    pub(crate) inbound_transport_headers: Family<Counter>,
    pub(crate) inbound_http_allowed: Family<Counter>,
    pub(crate) inbound_http_denied: Family<Counter>,
    pub(crate) inbound_http_unrouted: Family<Counter>,
    pub(crate) inbound_http_limited: Family<Counter>,
    pub(crate) inbound_tcp_allowed: Family<Counter>,
    pub(crate) inbound_tcp_denied: Family<Counter>,
    pub(crate) inbound_tcp_terminated: Family<Counter>,
    pub(crate) balancers: BalancerFamilies,
    /// Those of connections.
    tcp_balancers: BalancerFamilies,
    tls_balancers: BalancerFamilies,
    tcp_routes: TcpRouteFamilies,
    tls_routes: TcpRouteFamilies,
    /// Those of HTTP's routes.
    policies: PolicyFamilies,
    /// Those of gRPC's.
    grpc_policies: PolicyFamilies,
    pub(crate) loops_refused: Family<Counter>,
    pub(crate) certificate_refreshes: Family<Counter>,
    pub(crate) certificate_refreshed: Family<Seconds<false>>,
    pub(crate) certificate_expires: Family<Seconds<false>>,
    pub(crate) control: ControlFamilies,
    /// The names of hosts by which the routes of TLS are told apart.
    pub(crate) hosts: HostNames,
    /// Looked up when somebody asks, for as long as anything is counted.
    _process: Arc<Process>,
    _runtime: Option<Arc<Runtime>>,
}

/// What is counted of the routes of policies, of one variant.
#[derive(Clone)]
pub(crate) struct PolicyFamilies {
    /// Requests on outbound routes.
    routes: StreamFamilies,
    /// What became of them at the routes' backends.
    pub(crate) backends: StreamFamilies,
    pub(crate) retries: RetryFamilies,
    /// Requests that reach the application.
    pub(crate) inbound: StreamFamilies,
}

impl Metrics {
    /// For tests, which look soon.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self::retaining(Duration::MAX)
    }

    /// `idle` is how long a series stays on which nobody can count any more.
    pub(crate) fn retaining(idle: Duration) -> Self {
        let registry = Registry::new(idle);
        let counter = |name, help| registry.family::<Counter>(name, help);
        Self {
            http: HttpFamilies::new(
                &registry,
                ["request_total", "response_total"],
                Some("response_latency_ms"),
                "of requests to one endpoint",
            ),
            route: HttpFamilies::new(
                &registry,
                ["route_request_total", "route_response_total"],
                Some("route_response_latency_ms"),
                "of requests on a ServiceProfile's route, before retries",
            ),
            route_actual: HttpFamilies::new(
                &registry,
                ["route_actual_request_total", "route_actual_response_total"],
                None,
                "of attempts on a ServiceProfile's route",
            ),
            route_retryable: counter("route_retryable_total", "Responses that could have been retried."),
            tcp: TcpFamilies::new(&registry),
            outbound_http_errors: counter(
                "outbound_http_errors_total",
                "Answers that this proxy made up for an error.",
            ),
            inbound_http_errors: counter("inbound_http_errors_total", "Answers that this proxy made up for an error."),
            outbound_tcp_errors: counter("outbound_tcp_errors_total", "Connections that failed in this proxy."),
            inbound_tcp_errors: counter("inbound_tcp_errors_total", "Connections that failed in this proxy."),
            outbound_protocols: counter(
                "outbound_tcp_protocol_connections_total",
                "Connections by what the control plane says that is spoken on them.",
            ),
            outbound_detections: DetectFamilies::new(
                &registry,
                ["outbound_tcp_detect_http_results_total", "outbound_tcp_detect_http_duration_seconds"],
            ),
            inbound_detections: DetectFamilies::new(
                &registry,
                ["inbound_tcp_detect_http_results_total", "inbound_tcp_detect_http_duration_seconds"],
            ),
            inbound_transport_headers: counter(
                "inbound_tcp_transport_header_connections_total",
                "Connections of other proxies that say which port they are for.",
            ),
            inbound_http_allowed: counter("inbound_http_authz_allow_total", "Requests that a port's policy let in."),
            inbound_http_denied: counter("inbound_http_authz_deny_total", "Requests that a port's policy refused."),
            inbound_http_unrouted: counter(
                "inbound_http_route_not_found_total",
                "Requests for which a port's policy has no route.",
            ),
            inbound_http_limited: counter(
                "inbound_http_local_ratelimit_total",
                "Requests that were too many for a port's limits.",
            ),
            inbound_tcp_allowed: counter("inbound_tcp_authz_allow_total", "Connections that a port's policy let in."),
            inbound_tcp_denied: counter("inbound_tcp_authz_deny_total", "Connections that a port's policy refused."),
            inbound_tcp_terminated: counter(
                "inbound_tcp_authz_terminate_total",
                "Connections that ended when a port's policy changed.",
            ),
            balancers: BalancerFamilies::new(&registry, Balanced::Requests),
            tcp_balancers: BalancerFamilies::new(&registry, Balanced::Connections),
            tls_balancers: BalancerFamilies::new(&registry, Balanced::Tls),
            tcp_routes: TcpRouteFamilies::new(&registry, PassedOn::Bytes),
            tls_routes: TcpRouteFamilies::new(&registry, PassedOn::Tls),
            policies: PolicyFamilies::new(&registry, Variant::Http),
            grpc_policies: PolicyFamilies::new(&registry, Variant::Grpc),
            loops_refused: counter(
                "meshgate_loop_refused_total",
                "Requests refused because this proxy had sent them before.",
            ),
            certificate_refreshes: counter(
                "control_identity_cert_refreshes_total",
                "Certificates that were asked for, by result.",
            ),
            certificate_refreshed: registry.family(
                "control_identity_cert_refresh_timestamp_seconds",
                "When the certificate was issued, in seconds of the Unix epoch.",
            ),
            certificate_expires: registry.family(
                "control_identity_cert_expiration_timestamp_seconds",
                "When the certificate ends, in seconds of the Unix epoch.",
            ),
            control: ControlFamilies::new(&registry),
            hosts: HostNames::default(),
            _process: Process::new(&registry),
            _runtime: Runtime::new(&registry),
            registry,
        }
    }

    /// Outbound routes are told apart by host, if `are_labels`.
    pub(crate) fn naming_hosts(mut self, are_labels: bool) -> Self {
        self.hosts = HostNames::new(are_labels);
        for policies in [&mut self.policies, &mut self.grpc_policies] {
            policies.retries.hosts = self.hosts.clone();
        }
        self
    }

    /// The balancers of connections that are passed on.
    pub(crate) fn balancers_of(&self, what: PassedOn) -> &BalancerFamilies {
        match what {
            PassedOn::Bytes => &self.tcp_balancers,
            PassedOn::Tls => &self.tls_balancers,
        }
    }

    /// The routes that carry them.
    pub(crate) fn routes_of(&self, what: PassedOn) -> &TcpRouteFamilies {
        match what {
            PassedOn::Bytes => &self.tcp_routes,
            PassedOn::Tls => &self.tls_routes,
        }
    }

    /// Those of a variant.
    pub(crate) fn policies(&self, variant: Variant) -> &PolicyFamilies {
        match variant {
            Variant::Http => &self.policies,
            Variant::Grpc => &self.grpc_policies,
        }
    }
}

impl PolicyFamilies {
    fn new(registry: &Registry, variant: Variant) -> Self {
        Self {
            routes: StreamFamilies::routes(registry, variant),
            backends: StreamFamilies::backends(registry, variant),
            retries: RetryFamilies::new(registry, variant),
            inbound: StreamFamilies::inbound(registry, variant),
        }
    }

    /// The series of requests on a route with these labels.
    pub(crate) fn route(&self, labels: Labels) -> ByHost<StreamScope> {
        let (families, hosts) = (self.routes.clone(), &self.retries.hosts);
        let route = ByHost::new(hosts, move |host| families.scope(labels.clone().with("hostname", host)));
        if !hosts.are_labels() {
            // They are there before the first request.
            route.of(None);
        }
        route
    }
}

impl RetryFamilies {
    fn new(registry: &Registry, variant: Variant) -> Self {
        let [requests, successes, limit_exceeded, overflow] = match variant {
            Variant::Http => [
                "outbound_http_route_retry_requests_total",
                "outbound_http_route_retry_successes_total",
                "outbound_http_route_retry_limit_exceeded_total",
                "outbound_http_route_retry_overflow_total",
            ],
            Variant::Grpc => [
                "outbound_grpc_route_retry_requests_total",
                "outbound_grpc_route_retry_successes_total",
                "outbound_grpc_route_retry_limit_exceeded_total",
                "outbound_grpc_route_retry_overflow_total",
            ],
        };
        Self {
            requests: registry.family(requests, "Requests that were sent again."),
            successes: registry.family(successes, "Requests that went well after they had been sent again."),
            limit_exceeded: registry.family(limit_exceeded, "Requests that went wrong as often as they may be sent."),
            overflow: registry.family(overflow, "Requests that were not sent again since their bodies are too long."),
            hosts: HostNames::default(),
        }
    }
}
