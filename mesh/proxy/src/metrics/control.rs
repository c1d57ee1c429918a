//! The families of calls to the control plane: `control_*`.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use tonic::Status;

use super::{
    BalancerFamilies, BalancerScope, Counter, Family, Histogram, Labels, Late, Registry, Shape, Tls, balancer::Balanced,
};
use crate::ControlAddr;

/// What a client of the control plane is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ControlClient {
    Identity,
    Destination,
    Policy,
}

/// `control_request_total`, `control_response_total`, `control_response_latency_ms`, `control_dns_resolutions_total` and
/// `control_*_balancer_*`.
#[derive(Clone)]
pub(crate) struct ControlFamilies {
    requests: Family<Counter>,
    responses: Family<Counter>,
    latencies: Family<Histogram>,
    resolutions: Family<Counter>,
    identity: BalancerFamilies,
    destination: BalancerFamilies,
    policy: BalancerFamilies,
}

/// How often the name of a service was looked up.
pub(crate) struct Resolutions {
    found: Late,
    not_found: Late,
}

/// The series of the calls to one service.
#[derive(Clone)]
pub(crate) struct ControlScope {
    labels: Labels,
    requests: Arc<Counter>,
    latencies: Arc<Histogram>,
    responses: Family<Counter>,
}

/// One call.
pub(crate) struct ControlCall<'a> {
    scope: &'a ControlScope,
    began: Instant,
    answered: bool,
}

impl ControlClient {
    fn label(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Destination => "destination",
            Self::Policy => "policy",
        }
    }
}

impl ControlFamilies {
    pub(super) fn new(registry: &Registry) -> Self {
        let balancer = |client| BalancerFamilies::new(registry, Balanced::Calls(client));
        Self {
            requests: registry.family("control_request_total", "Calls to the control plane."),
            responses: registry.family("control_response_total", "Calls to the control plane that ended."),
            latencies: registry.shaped(
                "control_response_latency_ms",
                "How long the control plane took to answer.",
                &Shape::LATENCY_MS,
            ),
            resolutions: registry.family(
                "control_dns_resolutions_total",
                "How often names of the control plane were looked up, by what came of it.",
            ),
            identity: balancer(ControlClient::Identity),
            destination: balancer(ControlClient::Destination),
            policy: balancer(ControlClient::Policy),
        }
    }

    /// Those of the client of a service. The resolver is the system's, which asks for addresses of both kinds at once, as Linkerd's does
    /// if there are no SRV records.
    pub(crate) fn resolutions(&self, client: ControlClient) -> Resolutions {
        let labels = Labels::new().with("client", client.label()).with("record_type", "A/AAAA");
        let late = |result| Late::new(&self.resolutions, labels.clone().with("result", result));
        Resolutions { found: late("ok"), not_found: late("not_found") }
    }

    /// The series of the addresses of a service. An address is ready unless it could not be connected to lately. A call waits while its
    /// name is looked up and a connection made, and the gate is shut while none of the addresses can be connected to: calls come to nothing
    /// then, but none is refused unless that was tried, so that no time is told after which they would be.
    pub(crate) fn balancer(&self, client: ControlClient, service: &ControlAddr) -> BalancerScope {
        let families = match client {
            ControlClient::Identity => &self.identity,
            ControlClient::Destination => &self.destination,
            ControlClient::Policy => &self.policy,
        };
        families.patient(&Labels::new().with("addr", &service.authority))
    }

    /// The series of a service.
    pub(crate) fn scope(&self, service: &ControlAddr) -> ControlScope {
        let server = service.name.as_ref().map(AsRef::as_ref);
        let labels = Labels::new().with("addr", &service.authority);
        let labels = server.map_or(Tls::None("loopback"), Tls::Server).on(labels);
        ControlScope {
            requests: self.requests.hold(&labels),
            latencies: self.latencies.hold(&answered(labels.clone())),
            responses: self.responses.clone(),
            labels,
        }
    }
}

impl Resolutions {
    /// `host:port` has been looked up. For an address nobody was asked.
    pub(crate) fn count(&self, authority: &str, found: &io::Result<Vec<SocketAddr>>) {
        if authority.parse::<SocketAddr>().is_ok() {
            return;
        }
        match found {
            Ok(addresses) if !addresses.is_empty() => self.found.increment(),
            Ok(_) | Err(_) => self.not_found.increment(),
        }
    }
}

impl ControlScope {
    /// A call is made.
    pub(crate) fn begin(&self) -> ControlCall<'_> {
        self.requests.increment();
        ControlCall { scope: self, began: Instant::now(), answered: false }
    }
}

impl ControlCall<'_> {
    /// The first message of the answer has come, or there is none.
    pub(crate) fn answered(&mut self) {
        if !std::mem::replace(&mut self.answered, true) {
            self.scope.latencies.took(self.began.elapsed());
        }
    }

    /// The call has ended, perhaps with a status other than OK.
    pub(crate) fn end(mut self, status: Option<&Status>) {
        // An error with a source was made by the transport, whatever its code.
        let reached = status.is_none_or(|status| std::error::Error::source(status).is_none());
        if reached {
            self.answered();
        }
        let code = status.map_or(0, |status| status.code() as i32);
        let labels = self.scope.labels.clone();
        let labels = if reached { answered(labels) } else { labels };
        let labels = labels.with("classification", if code == 0 { "success" } else { "failure" });
        self.scope.responses.hold(&labels.with_display("grpc_status", code).with("error", "")).increment();
    }
}

/// gRPC answers with this, whatever its own status is.
fn answered(labels: Labels) -> Labels {
    labels.with("status_code", "200")
}
