//! One address that requests are sent to.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};

use super::ewma::{self, PeakEwma};
use crate::{
    NameAddr,
    connect::ConnectError,
    http::{EndpointLoad, Pool, PoolSettings, RequestBody, ResponseBody, SendError},
    io::Io,
    loop_guard::LoopGuard,
    metrics::{Direction, HttpScope, Labels, Metrics, Observations, endpoint_labels, inbound_labels},
    profile::ResponseClasses,
};

/// Linkerd's.
const DEFAULT_RTT: Duration = Duration::from_millis(30);
const DECAY: Duration = Duration::from_secs(10);
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Makes endpoints of one direction.
#[derive(Clone)]
pub(crate) struct EndpointFactory {
    metrics: Metrics,
    settings: Arc<PoolSettings>,
    direction: Direction,
    /// For endpoints in the proxy's own pod.
    guard: Option<(LoopGuard, Arc<[IpAddr]>)>,
}

/// An address with its connections, its load and its counters.
pub(crate) struct Endpoint {
    address: SocketAddr,
    metric_labels: BTreeMap<String, String>,
    pool: Arc<Pool>,
    scope: Arc<HttpScope>,
    load: PeakEwma,
    /// Present if it is in the proxy's own pod and must not get requests that have come from there.
    guard: Option<LoopGuard>,
    /// When to try again after failed connects, in [`ewma::now`]'s nanoseconds; 0 while connects succeed.
    due: AtomicU64,
    failures: AtomicU32,
}

impl EndpointFactory {
    pub(crate) fn new(metrics: Metrics, settings: PoolSettings, direction: Direction) -> Self {
        Self { metrics, settings: Arc::new(settings), direction, guard: None }
    }

    /// Requests do not go back to the port of the proxy's own pod that they came in by.
    pub(crate) fn guarding(self, guard: LoopGuard, own: Arc<[IpAddr]>) -> Self {
        Self { guard: Some((guard, own)), ..self }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// An endpoint of `name`, or one that is dialled by address only. `metric_labels` are the control plane's.
    pub(crate) fn make(
        &self,
        address: SocketAddr,
        name: Option<&NameAddr>,
        metric_labels: BTreeMap<String, String>,
    ) -> Endpoint {
        let start = || Labels::new().with("direction", self.direction.label());
        let (http, tcp) = match self.direction {
            Direction::Outbound => {
                let authority = name.map(NameAddr::authority);
                let labels = |start| endpoint_labels(start, authority.as_deref(), address, &metric_labels);
                (labels(start()), labels(start().with("peer", "dst")))
            }
            Direction::Inbound => {
                let tcp = start().with("peer", "dst").with_target(address);
                (inbound_labels(address), tcp.with("tls", "no_identity").with("no_tls_reason", "loopback"))
            }
        };
        let guard = self.guard.as_ref().filter(|(_, own)| own.contains(&address.ip()));
        Endpoint {
            address,
            guard: guard.map(|(guard, _)| guard.clone()),
            pool: Pool::new(address, Arc::clone(&self.settings), self.metrics.tcp.scope(tcp)),
            scope: self.metrics.http.scope(http),
            load: PeakEwma::new(DEFAULT_RTT, DECAY),
            due: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            metric_labels,
        }
    }
}

impl Endpoint {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn metric_labels(&self) -> &BTreeMap<String, String> {
        &self.metric_labels
    }

    pub(crate) fn load(&self) -> &PeakEwma {
        &self.load
    }

    /// Whether the last connect succeeded, or it is time to try again.
    pub(crate) fn is_up(&self) -> bool {
        let due = self.due();
        due == 0 || due <= ewma::now()
    }

    /// When to try again.
    pub(crate) fn due(&self) -> u64 {
        self.due.load(Relaxed)
    }

    /// Sends a request, and counts it once there is a connection for it.
    pub(crate) async fn send(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        classes: Option<Arc<ResponseClasses>>,
    ) -> Result<Response<ResponseBody>, SendError> {
        if let Some(guard) = &self.guard
            && guard.is_from(request.headers(), self.address.port())
        {
            return Err(SendError::NotSent(Box::new(request), ConnectError::Itself { address: self.address }));
        }
        let mut observation = self.scope.observe(classes);
        let load = EndpointLoad::new(self);
        match self.pool.send(request, || observation.sent()).await {
            Ok((response, connection)) => {
                self.connected();
                let (head, body) = response.into_parts();
                observation.head(head.status, &head.headers);
                let mut observations = Observations::default();
                observations.add(observation);
                let body = ResponseBody::watched(body, observations, load, connection);
                Ok(Response::from_parts(head, body))
            }
            Err(error) => {
                match &error {
                    SendError::NotSent(..) => self.unreachable(),
                    SendError::Broken(broken) => observation.fail(crate::http::broken_class(broken)),
                }
                Err(error)
            }
        }
    }

    /// A connection for anything but HTTP.
    pub(crate) async fn connect(&self) -> Result<Io, ConnectError> {
        match self.pool.connect().await {
            Ok(io) => {
                self.connected();
                Ok(io)
            }
            Err(error) => {
                self.unreachable();
                Err(error)
            }
        }
    }

    /// Counts a request that could be sent neither here nor elsewhere, with the answer that its client gets.
    pub(crate) fn count_unsent(&self, status: StatusCode) {
        let mut observation = self.scope.observe(None);
        observation.sent();
        observation.head(status, &http::HeaderMap::new());
        observation.end(None);
    }

    fn connected(&self) {
        if self.due.load(Relaxed) != 0 {
            self.due.store(0, Relaxed);
            self.failures.store(0, Relaxed);
        }
    }

    fn unreachable(&self) {
        let failures = self.failures.fetch_add(1, Relaxed).min(16);
        let backoff = MIN_BACKOFF.saturating_mul(1 << failures).min(MAX_BACKOFF);
        self.due.store(ewma::now() + backoff.as_nanos() as u64, Relaxed);
    }
}
