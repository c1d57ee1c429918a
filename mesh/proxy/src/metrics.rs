//! What the proxy counts, under Linkerd's names and with Linkerd's labels in Linkerd's order.
//!
//! Counting must cost nothing that a request could feel: whoever counts holds its counters (`Arc<Counter>`), resolved once
//! per endpoint, route or connection. Labels are text that was rendered when the series was made.

mod http;
mod labels;
mod registry;
mod tcp;

pub(crate) use http::{ErrorClass, HttpFamilies, HttpScope, Observation, Observations, grpc_status, is_grpc};
pub(crate) use labels::{Labels, Tls, endpoint_labels, inbound_labels, inbound_source_labels, outbound_source_labels};
pub(crate) use registry::{Counter, Family, Gauge, Histogram, Keyed, Registry};
pub(crate) use tcp::{TcpConnection, TcpFamilies, TcpScope};

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// What a policy's routes are for, as the names of their families have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Grpc,
}

/// What is counted of the routes of policies.
#[derive(Clone)]
pub(crate) struct RouteFamilies {
    pub(crate) statuses: Family<Counter>,
    pub(crate) backend_requests: Family<Counter>,
    pub(crate) backend_statuses: Family<Counter>,
    pub(crate) retry_requests: Family<Counter>,
    pub(crate) retry_successes: Family<Counter>,
    pub(crate) retry_limit_exceeded: Family<Counter>,
    pub(crate) retry_overflow: Family<Counter>,
}

/// The families `outbound_http_route_*` or `outbound_grpc_route_*`.
macro_rules! route_families {
    ($registry:expr, $protocol:literal) => {{
        let counter = |name, help| $registry.family::<Counter>(name, help);
        RouteFamilies {
            statuses: counter(
                concat!("outbound_", $protocol, "_route_request_statuses_total"),
                "Answers to requests on a policy's route.",
            ),
            backend_requests: counter(
                concat!("outbound_", $protocol, "_route_backend_requests_total"),
                "Requests sent to a backend of a policy's route.",
            ),
            backend_statuses: counter(
                concat!("outbound_", $protocol, "_route_backend_response_statuses_total"),
                "Answers from a backend of a policy's route.",
            ),
            retry_requests: counter(
                concat!("outbound_", $protocol, "_route_retry_requests_total"),
                "Requests that were sent again.",
            ),
            retry_successes: counter(
                concat!("outbound_", $protocol, "_route_retry_successes_total"),
                "Requests that went well after they had been sent again.",
            ),
            retry_limit_exceeded: counter(
                concat!("outbound_", $protocol, "_route_retry_limit_exceeded_total"),
                "Requests that went wrong as often as they may be sent.",
            ),
            retry_overflow: counter(
                concat!("outbound_", $protocol, "_route_retry_overflow_total"),
                "Requests that were not sent again since their bodies are too long.",
            ),
        }
    }};
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
    pub(crate) outbound_detections: Family<Counter>,
    pub(crate) inbound_detections: Family<Counter>,
    pub(crate) inbound_http_allowed: Family<Counter>,
    pub(crate) inbound_http_denied: Family<Counter>,
    pub(crate) inbound_http_unrouted: Family<Counter>,
    pub(crate) inbound_http_limited: Family<Counter>,
    pub(crate) inbound_tcp_allowed: Family<Counter>,
    pub(crate) inbound_tcp_denied: Family<Counter>,
    pub(crate) inbound_tcp_terminated: Family<Counter>,
    pub(crate) balancer_endpoints: Family<Gauge>,
    http_routes: RouteFamilies,
    grpc_routes: RouteFamilies,
    pub(crate) loops_refused: Family<Counter>,
    pub(crate) certificate_refreshes: Family<Counter>,
    pub(crate) certificate_refreshed: Family<Gauge>,
    pub(crate) certificate_expires: Family<Gauge>,
    pub(crate) control_requests: Family<Counter>,
    pub(crate) control_responses: Family<Counter>,
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
            outbound_detections: counter("outbound_tcp_detect_http_results_total", "What first bytes looked like."),
            inbound_detections: counter("inbound_tcp_detect_http_results_total", "What first bytes looked like."),
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
            balancer_endpoints: registry
                .family("outbound_http_balancer_endpoints", "Endpoints of a balancer, by state."),
            http_routes: route_families!(registry, "http"),
            grpc_routes: route_families!(registry, "grpc"),
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
            control_requests: counter("control_request_total", "Calls to the control plane."),
            control_responses: counter("control_response_total", "Calls to the control plane that ended."),
            registry,
        }
    }

    /// The families of policies' routes.
    pub(crate) fn routes(&self, protocol: Protocol) -> &RouteFamilies {
        match protocol {
            Protocol::Http => &self.http_routes,
            Protocol::Grpc => &self.grpc_routes,
        }
    }

    /// Adds what is always there: the build and the process.
    pub(crate) fn describe_process(&self) {
        let build = Labels::new()
            .with("date", "")
            .with("git_sha", "")
            .with("profile", if cfg!(debug_assertions) { "debug" } else { "release" })
            .with("vendor", "meshgate")
            .with("version", env!("CARGO_PKG_VERSION"));
        self.registry.family::<Gauge>("proxy_build_info", "What this proxy was built from.").hold(&build).set(1);
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        self.registry
            .family::<Gauge>("process_start_time_seconds", "When the process started, in seconds of the Unix epoch.")
            .hold(&Labels::new())
            .set(i64::try_from(started).unwrap_or(i64::MAX));
        self.registry.on_render(ProcessGauges {
            resident: self
                .registry
                .family::<Gauge>("process_resident_memory_bytes", "Resident memory.")
                .hold(&Labels::new()),
            threads: self.registry.family::<Gauge>("process_threads", "Threads.").hold(&Labels::new()),
            descriptors: self.registry.family::<Gauge>("process_open_fds", "Open files.").hold(&Labels::new()),
        });
    }
}

/// What is read from /proc when somebody asks.
pub(crate) struct ProcessGauges {
    resident: std::sync::Arc<Gauge>,
    threads: std::sync::Arc<Gauge>,
    descriptors: std::sync::Arc<Gauge>,
}

impl ProcessGauges {
    fn refresh(&self) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<i64>().ok()
        };
        if let Some(kilobytes) = field("VmRSS:") {
            self.resident.set(kilobytes * 1024);
        }
        if let Some(threads) = field("Threads:") {
            self.threads.set(threads);
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            self.descriptors.set(i64::try_from(entries.count()).unwrap_or(i64::MAX));
        }
    }
}
