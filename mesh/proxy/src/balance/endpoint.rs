//! One address that requests are sent to.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue, Response, StatusCode, response};
use linkerd2_proxy_api::destination::{WeightedAddr, protocol_hint::Protocol};
use tonic::Code;
use tracing::warn;

use super::{
    bias::LoadBias,
    ewma::PeakEwma,
    health::{Accrual, Health, Verdict},
};
use crate::{
    NameAddr,
    classify::{Class, Classify, grpc_code},
    connect::ConnectError,
    http::{
        AuthorityOverride, BoxedRequest, Broken, EndpointLoad, Http2Params, Last, PROXY_CONNECTION, Pool, PoolSettings,
        ProxyError, ResponseBody, SendError, StreamEnd, UNSENT,
    },
    io::Io,
    loop_guard::LoopGuard,
    metrics::{
        Direction, HttpScope, Labels, Metrics, Observers, TcpScope, Tls, ZoneLocality, endpoint_labels, inbound_labels,
    },
    profile::ResponseClasses,
    tls::{Peer, ServerIdentity},
};

/// Names who has to answer, and goes no further than this proxy.
const REQUIRE_ID: HeaderName = HeaderName::from_static("l5d-require-id");

/// Linkerd's.
const DEFAULT_RTT: Duration = Duration::from_millis(30);
const DECAY: Duration = Duration::from_secs(10);

/// Makes endpoints of one direction.
#[derive(Clone)]
pub(crate) struct EndpointFactory {
    metrics: Metrics,
    settings: Arc<PoolSettings>,
    /// The addresses of the proxy's own pod.
    own: Arc<[IpAddr]>,
    /// For endpoints there.
    guard: Option<LoopGuard>,
    accrual: Option<Accrual>,
    bias: Option<LoadBias>,
}

/// What the control plane says about an endpoint.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct EndpointInfo {
    pub(crate) metric_labels: BTreeMap<String, String>,
    /// Who is there, if it is a proxy that proves it.
    pub(crate) identity: Option<ServerIdentity>,
    /// What it is known to speak.
    pub(crate) hint: Hint,
    /// The port of the proxy there, if connections are to say themselves which port they are for.
    pub(crate) tagged: Option<u16>,
    /// What requests and connections are for, if it is a gateway that is there.
    pub(crate) authority: Option<AuthorityOverride>,
    /// How connections of HTTP/2 to it are made.
    pub(crate) http2: Http2Params,
}

/// What an endpoint is known to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Hint {
    /// That is not known.
    #[default]
    None,
    /// A proxy that takes HTTP/1 over HTTP/2.
    Http2,
    /// Not HTTP, as far as that proxy is concerned.
    Opaque,
}

/// An address with its connections, its load and its counters.
pub(crate) struct Endpoint {
    address: SocketAddr,
    info: EndpointInfo,
    pool: Arc<Pool>,
    scope: Arc<HttpScope>,
    load: PeakEwma,
    bias: Option<LoadBias>,
    /// Present if it is in the proxy's own pod and must not get requests that have come from there.
    guard: Option<LoopGuard>,
    health: Health,
    /// Whether the client's connection ends where the proxy there has lost the one to its application. As in Linkerd
    /// (`handle_proxy_error_headers.rs`): not where another endpoint may get the next request.
    closes: bool,
}

impl EndpointFactory {
    /// `own` are the addresses of the proxy's own pod.
    pub(crate) fn new(metrics: Metrics, settings: PoolSettings, own: &[IpAddr]) -> Self {
        Self { metrics, settings: Arc::new(settings), own: own.into(), guard: None, accrual: None, bias: None }
    }

    /// Requests do not go back to the port of the proxy's own pod that they came in by.
    pub(crate) fn guarding(self, guard: LoopGuard) -> Self {
        Self { guard: Some(guard), ..self }
    }

    /// Endpoints whose answers are as `accrual` says they must not be are set aside, and failures count as `bias` says.
    pub(crate) fn judging(&self, accrual: Option<Accrual>, bias: Option<LoadBias>) -> Self {
        Self { accrual, bias, ..self.clone() }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// An endpoint of `name`, or one that is dialled by address only.
    pub(crate) fn make(&self, address: SocketAddr, name: Option<&NameAddr>, mut info: EndpointInfo) -> Endpoint {
        // In the proxy's own pod there is nobody to prove anything to, and without an identity nothing to prove.
        let local = self.own.contains(&address.ip());
        if local || !self.settings.identity.is_some() {
            (info.identity, info.tagged) = (None, None);
        }
        if local {
            (info.hint, info.authority) = (Hint::None, None);
        }
        let tls = match &info.identity {
            Some(server) => Tls::Server(server.id()),
            None if local => Tls::None("loopback"),
            None => Tls::None("not_provided_by_service_discovery"),
        };
        let authority = name.map(NameAddr::authority);
        let start = || Labels::new().with("direction", Direction::Outbound.label());
        let labels = |start| endpoint_labels(start, authority.as_deref(), address, tls, &info.metric_labels);
        let (http, tcp) = (labels(start()), labels(start().with("peer", "dst")));
        let tcp = self.metrics.tcp.endpoint(tcp, ZoneLocality::of(&info.metric_labels));
        let guard = self.guard.as_ref().filter(|_| local);
        let closes = name.is_none() && info.identity.is_some();
        Endpoint { closes, ..self.with_labels(address, info, guard.cloned(), http, tcp) }
    }

    /// The application at an address of the proxy's own pod, for the requests of one peer that `permit` lets in.
    pub(crate) fn application(&self, address: SocketAddr, peer: &Peer, permit: &Labels) -> Endpoint {
        let tcp = Labels::new().with("direction", Direction::Inbound.label()).with("peer", "dst").with_target(address);
        let tcp = self.metrics.tcp.scope(Tls::None("loopback").on(tcp));
        let http = inbound_labels(address, peer.label(), permit);
        self.with_labels(address, EndpointInfo::default(), None, http, tcp)
    }

    fn with_labels(
        &self,
        address: SocketAddr,
        info: EndpointInfo,
        guard: Option<LoopGuard>,
        http: Labels,
        tcp: Arc<TcpScope>,
    ) -> Endpoint {
        Endpoint {
            address,
            guard,
            pool: Pool::new(address, &info, Arc::clone(&self.settings), tcp),
            scope: self.metrics.http.scope(http),
            load: PeakEwma::new(DEFAULT_RTT, DECAY),
            bias: self.bias,
            health: Health::new(self.accrual),
            closes: false,
            info,
        }
    }
}

impl EndpointInfo {
    /// From the control plane's answer, with labels that all of its set have. An identity that is not understood is as good as
    /// none: what must not go to anybody else says so by itself (`l5d-require-id`).
    pub(crate) fn of(addr: &WeightedAddr, shared_labels: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut metric_labels: BTreeMap<_, _> = shared_labels.into_iter().collect();
        metric_labels.extend(addr.metric_labels.clone());
        let identity = addr.tls_identity.as_ref().and_then(|identity| {
            let parsed = ServerIdentity::of(identity);
            if let Err(problem) = &parsed {
                warn!(addr = ?addr.addr, problem, "an endpoint's identity is not understood; connections to it are plaintext");
            }
            parsed.ok()
        });
        let hint = match addr.protocol_hint.and_then(|hint| hint.protocol) {
            Some(Protocol::H2(_)) => Hint::Http2,
            Some(Protocol::Opaque(_)) => Hint::Opaque,
            None => Hint::None,
        };
        let tagged = addr.protocol_hint.and_then(|hint| hint.opaque_transport).filter(|_| identity.is_some());
        let tagged = tagged.and_then(|transport| u16::try_from(transport.inbound_port).ok());
        let authority = addr.authority_override.as_ref().and_then(|authority| {
            let parsed = AuthorityOverride::parse(&authority.authority_override);
            if parsed.is_none() {
                warn!(addr = ?addr.addr, ?authority, "an endpoint's authority is none; its requests keep theirs");
            }
            parsed
        });
        let http2 = addr.http2.as_ref().map(Http2Params::of).unwrap_or_default();
        Self { metric_labels, identity, hint, tagged, authority, http2 }
    }
}

impl Endpoint {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn info(&self) -> &EndpointInfo {
        &self.info
    }

    pub(crate) fn load(&self) -> &PeakEwma {
        &self.load
    }

    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// Sends a request, and counts it once there is a connection for it.
    pub(crate) async fn send(
        self: &Arc<Self>,
        mut request: BoxedRequest,
        classes: Option<Arc<ResponseClasses>>,
    ) -> Result<Response<ResponseBody>, SendError> {
        let required = request.headers_mut().remove(REQUIRE_ID);
        if let Some(required) = &required
            && let Some(error) = self.is_not(required)
        {
            // Somebody else may be asked.
            request.headers_mut().insert(REQUIRE_ID, required.clone());
            return Err(SendError::NotSent(request, error));
        }
        if let Some(guard) = &self.guard
            && guard.is_from(request.headers(), self.address.port())
        {
            return Err(SendError::NotSent(request, ConnectError::Itself { address: self.address }));
        }
        let classify = Classify::new(request.headers(), classes);
        let mut observation = self.scope.observe(classify.clone());
        let mut load = EndpointLoad::new(self);
        match self.pool.send(request, || observation.sent()).await {
            Ok(response) => {
                let (mut head, body) = response.into_parts();
                if self.closes && head.headers.get(PROXY_CONNECTION).is_some_and(|says| says == "close") {
                    head.extensions.insert(Last);
                }
                if let Some(penalty) = self.bias.and_then(|bias| bias.of_answer(&head)) {
                    load.took(penalty);
                }
                observation.head(head.status, &head.headers);
                let mut observers = Observers::default();
                observers.add(observation);
                let mut body = ResponseBody::watched(body, observers, load);
                if self.info.identity.is_some() && head.headers.contains_key(UNSENT) {
                    self.health.unreachable();
                } else {
                    self.judge(classify, &head, &mut body);
                }
                Ok(Response::from_parts(head, body))
            }
            Err(mut error) => {
                match &mut error {
                    SendError::NotSent(unsent, error) => {
                        if let ConnectError::Application { status, closes, .. } = error {
                            *closes = self.closes;
                            observation.head(*status, &http::HeaderMap::new());
                            observation.end(None);
                        } else {
                            // It was counted if there was an idle connection, which then turned out to be closed.
                            observation.unsent();
                        }
                        // It holds for the next endpoint as well.
                        if let Some(required) = required {
                            unsent.headers_mut().insert(REQUIRE_ID, required);
                        }
                        self.health.unreachable();
                    }
                    SendError::Broken(broken) => {
                        self.broke(broken);
                        observation.fail(crate::http::broken_class(broken));
                    }
                }
                Err(error)
            }
        }
    }

    /// Judges a response: at once, or when its gRPC code comes after all of it.
    fn judge(self: &Arc<Self>, classify: Classify, head: &response::Parts, body: &mut ResponseBody) {
        let (status, code) = (head.status, grpc_code(&head.headers));
        if !self.health.is_judged() || !classify.needs_trailers(status, code) {
            return self.health.answered(verdict(status, classify.class(status, code, None)));
        }
        self.health.reached();
        let endpoint = Arc::clone(self);
        body.at_end(move |end| match end {
            StreamEnd::Whole(trailers) => {
                let class = classify.class(status, None, trailers.and_then(grpc_code));
                endpoint.health.answered(verdict(status, class));
            }
            StreamEnd::Broken(error) => endpoint.broke(error),
            // Nobody knows what would have come.
            StreamEnd::Dropped => {}
        });
    }

    /// Judges a response that did not come, or not all of it. A request that its client broke says nothing about the endpoint.
    fn broke(&self, error: &Broken) {
        if self.health.is_judged() && !error.is_of_the_request() {
            self.health.answered(Verdict::Failed);
        }
    }

    /// The error if somebody else is required here.
    fn is_not(&self, required: &HeaderValue) -> Option<ConnectError> {
        let found = self.info.identity.as_ref().map(|server| &**server.id());
        (found.map(str::as_bytes) != Some(required.as_bytes())).then(|| ConnectError::Identity {
            address: self.address,
            required: String::from_utf8_lossy(required.as_bytes()).into_owned(),
            found: found.unwrap_or("not known").to_owned(),
        })
    }

    /// A connection for anything but HTTP.
    pub(crate) async fn connect(&self) -> Result<Io, ConnectError> {
        match self.pool.connect().await {
            Ok(io) => {
                self.health.reached();
                Ok(io)
            }
            Err(error) => {
                self.health.unreachable();
                Err(error)
            }
        }
    }

    /// Counts a request that could be sent neither here nor elsewhere, with the answer that its client gets.
    pub(crate) fn count_unsent(&self, error: &ProxyError) {
        // It reached the proxy there, and was counted then.
        if matches!(error, ProxyError::Connect(ConnectError::Application { .. })) {
            return;
        }
        let mut observation = self.scope.observe(Classify::default());
        observation.sent();
        observation.head(error.status(), &http::HeaderMap::new());
        observation.end(None);
    }
}

/// What a response says about who made it. That there are too many requests is not its failure.
fn verdict(status: StatusCode, class: Class) -> Verdict {
    let limited = status == StatusCode::TOO_MANY_REQUESTS || class.code == Some(Code::ResourceExhausted);
    match class.success {
        _ if limited => Verdict::Limited,
        true => Verdict::Good,
        false => Verdict::Failed,
    }
}
