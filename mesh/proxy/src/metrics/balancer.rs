//! The families of balancers: their endpoints, and what waits for one.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{ControlClient, Counter, Family, Gauge, Histogram, Labels, Registry, Seconds, Shape, registry::Metric};

/// What a balancer chooses endpoints for, which its families are named by. A balancer of requests is that of connections as well where
/// both go to the same Service.
#[derive(Debug, Clone, Copy)]
pub(super) enum Balanced {
    Requests,
    Connections,
    /// Connections that the policy says to be TLS.
    Tls,
    /// Calls to the control plane.
    Calls(ControlClient),
}

/// The name of a family.
macro_rules! named {
    ($balanced:expr, $after:literal) => {
        match $balanced {
            Balanced::Requests => concat!("outbound_http_balancer_", $after),
            Balanced::Connections => concat!("outbound_tcp_balancer_", $after),
            Balanced::Tls => concat!("outbound_tls_balancer_", $after),
            Balanced::Calls(ControlClient::Identity) => concat!("control_identity_balancer_", $after),
            Balanced::Calls(ControlClient::Destination) => concat!("control_destination_balancer_", $after),
            Balanced::Calls(ControlClient::Policy) => concat!("control_policy_balancer_", $after),
        }
    };
}

/// `outbound_http_balancer_*`, or those of what else is balanced. Their texts say requests of all of them.
#[derive(Clone)]
pub(crate) struct BalancerFamilies {
    endpoints: Family<Gauge>,
    p2c_endpoints: Family<Gauge>,
    updates: Family<Counter>,
    length: Family<Gauge>,
    requests: Family<Counter>,
    latency: Family<Histogram>,
    opened: Family<Counter>,
    shut: Family<Counter>,
    open_time: Family<Seconds<false>>,
    shut_time: Family<Seconds<false>>,
    timeout: Family<Seconds<false>>,
}

/// What is so of a balancer's endpoints.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BalancerState {
    /// How many get requests.
    pub(crate) ready: u64,
    /// How many are set aside.
    pub(crate) pending: u64,
    /// All of them.
    pub(crate) endpoints: u64,
    /// What the control plane has changed about them.
    pub(crate) reset: u64,
    pub(crate) added: u64,
    pub(crate) removed: u64,
}

/// The series of the balancer of one backend of one parent.
pub(crate) struct BalancerScope {
    ready: Arc<Gauge>,
    pending: Arc<Gauge>,
    endpoints: Arc<Gauge>,
    reset: Arc<Counter>,
    added: Arc<Counter>,
    removed: Arc<Counter>,
    length: Arc<Gauge>,
    requests: Arc<Counter>,
    latency: Arc<Histogram>,
    opened: Arc<Counter>,
    shut: Arc<Counter>,
    open_time: Arc<Seconds<false>>,
    shut_time: Arc<Seconds<false>>,
    timeout: Arc<Seconds<false>>,
}

impl BalancerFamilies {
    pub(super) fn new(registry: &Registry, of: Balanced) -> Self {
        let gauge = |name, help| registry.family(name, help);
        let counter = |name, help| registry.family(name, help);
        let seconds = |name, help| registry.family(name, help);
        Self {
            endpoints: gauge(named!(of, "endpoints"), "Endpoints of a balancer, by state."),
            p2c_endpoints: gauge(named!(of, "p2c_endpoints"), "Endpoints of a balancer."),
            updates: counter(
                named!(of, "p2c_updates_total"),
                "Changes to a balancer's endpoints by the control plane.",
            ),
            length: gauge(named!(of, "queue_length"), "Requests that wait for an endpoint."),
            requests: counter(
                named!(of, "queue_requests_total"),
                "Requests that have asked for an endpoint, and were not refused at once.",
            ),
            latency: registry.shaped(
                named!(of, "queue_latency_seconds"),
                "How long requests have waited for an endpoint.",
                &Shape::QUEUE,
            ),
            opened: counter(named!(of, "queue_gate_open_total"), "How often a balancer began to take requests."),
            shut: counter(
                named!(of, "queue_gate_shut_total"),
                "How often a balancer began to refuse requests at once.",
            ),
            open_time: seconds(
                named!(of, "queue_gate_open_time_seconds"),
                "Since when a balancer takes requests, in seconds of the Unix epoch.",
            ),
            shut_time: seconds(
                named!(of, "queue_gate_shut_time_seconds"),
                "Since when a balancer refuses requests, in seconds of the Unix epoch.",
            ),
            timeout: seconds(
                named!(of, "queue_gate_timeout_seconds"),
                "How long requests wait before a balancer refuses others.",
            ),
        }
    }

    /// The series with these labels, or without labels some that nobody sees. A balancer refuses requests once one has waited for
    /// `timeout`.
    pub(crate) fn scope(&self, labels: Option<&Labels>, timeout: Duration) -> BalancerScope {
        self.make(labels, Some(timeout))
    }

    /// The series with these labels, of a balancer that refuses no request for how long another has waited: it is shut while there is
    /// nobody whom one could be sent to.
    pub(crate) fn patient(&self, labels: &Labels) -> BalancerScope {
        self.make(Some(labels), None)
    }

    fn make(&self, labels: Option<&Labels>, timeout: Option<Duration>) -> BalancerScope {
        fn hold<M: Metric>(family: &Family<M>, labels: Option<&Labels>) -> Arc<M> {
            labels.map_or_else(|| family.unseen(), |labels| family.hold(labels))
        }
        let with = |name, value| labels.map(|labels| Labels::new().with(name, value).followed_by(labels));
        let state = |state| hold(&self.endpoints, with("endpoint_state", state).as_ref());
        let op = |op| hold(&self.updates, with("op", op).as_ref());
        let scope = BalancerScope {
            ready: state("ready"),
            pending: state("pending"),
            endpoints: hold(&self.p2c_endpoints, labels),
            reset: op("Reset"),
            added: op("Add"),
            removed: op("Remove"),
            length: hold(&self.length, labels),
            requests: hold(&self.requests, labels),
            latency: hold(&self.latency, labels),
            opened: hold(&self.opened, labels),
            shut: hold(&self.shut, labels),
            open_time: hold(&self.open_time, labels),
            shut_time: hold(&self.shut_time, labels),
            timeout: timeout.map_or_else(|| self.timeout.unseen(), |_| hold(&self.timeout, labels)),
        };
        scope.timeout.set(timeout.unwrap_or_default());
        scope.opened();
        scope
    }
}

impl BalancerScope {
    /// What was so `before` is so no longer, but this. Differences are counted, since another balancer may have the same labels.
    pub(crate) fn changed(&self, before: &BalancerState, now: &BalancerState) {
        let moved = |before: u64, now: u64| now.cast_signed() - before.cast_signed();
        self.ready.add(moved(before.ready, now.ready));
        self.pending.add(moved(before.pending, now.pending));
        self.endpoints.add(moved(before.endpoints, now.endpoints));
        self.reset.add(now.reset - before.reset);
        self.added.add(now.added - before.added);
        self.removed.add(now.removed - before.removed);
    }

    /// Requests are taken from now on.
    pub(crate) fn opened(&self) {
        self.opened.increment();
        self.open_time.set(now());
        self.shut_time.set(Duration::ZERO);
    }

    /// Requests are refused from now on.
    pub(crate) fn shut(&self) {
        self.shut.increment();
        self.shut_time.set(now());
        self.open_time.set(Duration::ZERO);
    }

    /// A request has found an endpoint at once.
    pub(crate) fn passed(&self) {
        self.requests.increment();
        self.latency.took(Duration::ZERO);
    }

    /// A request waits for an endpoint, until this is dropped.
    pub(crate) fn waits(&self) -> Waiting<'_> {
        self.requests.increment();
        self.length.add(1);
        Waiting { scope: self, since: Instant::now() }
    }
}

/// A request that waits for an endpoint.
pub(crate) struct Waiting<'a> {
    scope: &'a BalancerScope,
    since: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.scope.length.add(-1);
        self.scope.latency.took(self.since.elapsed());
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
