//! The application's connections: where they were going decides where they go, or in ingress mode what each request says.

mod attempts;
mod balancers;
mod destination;
mod http;
mod onward;
mod plan;
mod tls;

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use ::http::Response;
use tokio::{
    net::TcpStream,
    time::{self, Instant},
};
use tracing::{debug, warn};

use crate::{
    Config, KeepAlive, OriginalDst, Target,
    balance::{EndpointFactory, Queue},
    cache::Cache,
    connect::Connector,
    control::Control,
    detect::{Detected, detect},
    dialect::{Dialect, Dialled},
    http::{Abort, BoxedRequest, EndpointLoad, Failed, PoolSettings, ProxyError, ResponseBody, Version, serve},
    identity::LocalIdentity,
    io::{Io, Transport},
    loop_guard::LoopGuard,
    metrics::{
        Counter, Direction, Keyed, Labels, Metrics, PassedOn, TcpRoute, TcpRouteError, Tls, outbound_source_labels,
    },
    places::Places,
    process::Drain,
    tcp,
};
use balancers::Balancers;
use destination::Destination;
pub(crate) use onward::Onward;
use plan::{Carried, Parts, Plan, TcpLeg};

/// The outbound side of the proxy.
pub(crate) struct Outbound {
    ingress: Option<Ingress>,
    discovery_timeout: Duration,
    detect_timeout: Duration,
    keep_alive: Option<KeepAlive>,
    informational: bool,
    original: OriginalDst,
    control: Control,
    parts: Parts,
    destinations: Arc<Cache<Target, Destination>>,
    guard: LoopGuard,
    metrics: Metrics,
    errors: Keyed<&'static str, Counter>,
    /// Of requests without an answer yet. As with Linkerd's proxy, one whose answer has begun takes none.
    in_flight: Places,
    drain: Drain,
}

/// What ingress mode needs to know.
struct Ingress {
    dialect: Dialect,
    suffixes: Vec<String>,
    /// The labels of what connections are for.
    parent: Labels,
}

/// How the requests of one connection find their destinations.
#[derive(Clone)]
enum Routing {
    /// All go to the same.
    Connection(Arc<Destination>),
    /// Each chooses; the address is for those that do not. What the first has chosen is kept where it holds for all.
    Request(SocketAddr, Option<Arc<OnceLock<Target>>>),
}

impl Outbound {
    #[expect(clippy::too_many_arguments, reason = "they are the parts of a proxy, put together in one place")]
    pub(crate) fn new(
        config: &Config,
        guard_id: Option<Arc<str>>,
        mark: Option<u32>,
        identity: LocalIdentity,
        control: Control,
        metrics: Metrics,
        original: OriginalDst,
        drain: Drain,
    ) -> Self {
        let connector = Connector::new(mark, config.outbound_connect_timeout)
            .noticing(config.outbound_connect_keepalive, config.outbound_connect_user_timeout);
        let connector = if config.allow_loopback { connector } else { connector.refuse_loopback() };
        let settings = PoolSettings {
            connector,
            identity,
            limits: config.outbound_pool,
            windows: config.connect_windows,
            keep_alive: config.connect_keep_alive,
        };
        let guard = LoopGuard::new(guard_id, Direction::Outbound, &metrics);
        let factory = EndpointFactory::new(metrics.clone(), settings, &config.inbound_ips);
        let factory = if config.ingress_mode { factory.guarding(guard.clone()) } else { factory };
        let queue = Queue { timeout: config.failfast_timeout, capacity: config.queue_capacity };
        let balancers = Arc::new(Balancers::new(control.clone(), factory.clone(), queue));
        let ingress = config.ingress_mode.then(|| Ingress {
            dialect: config.dialect,
            suffixes: config.profile_suffixes.clone(),
            parent: plan::ingress_labels(),
        });
        Self {
            parts: Parts {
                balancers,
                factory,
                ingress: config.ingress_mode,
                needs_policy: config.ingress_mode && config.dialect.needs_policy(),
                metrics: metrics.clone(),
            },
            ingress,
            discovery_timeout: config.discovery_timeout,
            detect_timeout: config.outbound_detect_timeout,
            keep_alive: config.outbound_server_keep_alive,
            informational: config.informational_headers,
            original,
            control,
            destinations: Cache::new(config.outbound_discovery_idle_timeout),
            guard,
            metrics,
            errors: Keyed::default(),
            in_flight: Places::new(config.outbound_max_in_flight),
            drain,
        }
    }

    /// Serves one connection of the application.
    pub(crate) async fn connection(self: Arc<Self>, stream: TcpStream) {
        let original = match self.original.of(&stream) {
            Ok(original) => original,
            Err(error) => return warn!(%error, "a connection without an original destination is closed"),
        };
        if let Err(error) = stream.set_nodelay(true) {
            return debug!(%error, "a connection was closed before it was served");
        }
        let scope = self.metrics.tcp.scope(outbound_source_labels(original, Tls::None("loopback")));
        let mut io = Io::new(Transport::Left(stream), scope.opened());

        let (routing, parent) = if let Some(ingress) = &self.ingress {
            (Routing::Request(original, ingress.dialect.keeps_first().then(Arc::default)), ingress.parent.clone())
        } else {
            let destination = self.destination(&Target::Address(original));
            // A server that speaks first must not wait for a client that does not, so this comes before detection. A
            // client that speaks HTTP is told when discovery takes too long; another's connection is closed then.
            let parent = match time::timeout(self.discovery_timeout, destination.plan()).await {
                Ok(plan) => {
                    plan.protocol.increment();
                    if plan.opaque {
                        return self.opaque(io, original, &plan).await;
                    }
                    plan.parent.clone()
                }
                Err(_) => plan::parent_labels(None, None),
            };
            (Routing::Connection(destination), parent)
        };
        let version = loop {
            match self.detect(&mut io, &parent).await {
                Some(Detected::Http1) => break Version::Http1,
                Some(Detected::Http2) => break Version::Http2,
                Some(Detected::TimedOut) if !io.has_unread() => {
                    let Some(plan) = self.plan(&routing, original).await else { return };
                    if plan.tls.is_some() {
                        return self.opaque(io, original, &plan).await;
                    }
                    if self.server_spoke_first(&mut io, original, &plan).await {
                        return;
                    }
                }
                Some(Detected::Tls | Detected::Opaque | Detected::TimedOut) => {
                    let Some(plan) = self.plan(&routing, original).await else { return };
                    return self.opaque(io, original, &plan).await;
                }
                None => return,
            }
        };
        let (keep_alive, drain) = (self.keep_alive, self.drain.clone());
        serve(io, version, keep_alive, &drain, move |request| Arc::clone(&self).request(routing.clone(), request))
            .await;
    }

    /// `parent` are the labels of what the connection is for.
    async fn detect(&self, io: &mut Io, parent: &Labels) -> Option<Detected> {
        let began = Instant::now();
        let detected = detect(io, began + self.detect_timeout).await;
        let result = detected.as_ref().map_or("error", |detected| detected.label());
        self.metrics.outbound_detections.count(result, began.elapsed(), parent);
        detected.inspect_err(|error| debug!(%error, "a connection broke before its protocol was known")).ok()
    }

    fn destination(&self, target: &Target) -> Arc<Destination> {
        self.destinations
            .get_or_make(target, || Destination::discover(target.clone(), &self.control, self.parts.clone()))
    }

    /// Where the connection goes when its requests do not say.
    async fn plan(&self, routing: &Routing, original: SocketAddr) -> Option<Arc<Plan>> {
        let destination = match routing {
            Routing::Connection(destination) => Arc::clone(destination),
            Routing::Request(original, _) => {
                match self.ingress.as_ref().map_or(Dialled::Discovered, |ingress| ingress.dialect.connections()) {
                    Dialled::Discovered => self.destination(&Target::Address(*original)),
                    Dialled::Forwarded => Arc::new(Destination::forward(*original, &self.parts)),
                    Dialled::Refused => {
                        self.tcp_error(*original, "HTTP only");
                        return None;
                    }
                }
            }
        };
        let plan = time::timeout(self.discovery_timeout, destination.plan()).await;
        if plan.is_err() {
            self.tcp_error(original, "unexpected");
        }
        plan.ok()
    }

    /// The client has said nothing for as long as detection waits. Perhaps the server speaks first: it is connected, and
    /// whoever speaks first decides. `true` when the connection has been served, `false` when the client began to speak.
    ///
    /// Linkerd takes such a connection for opaque at once. But a client that pools HTTP connections keeps spare ones that stay
    /// silent for longer than this, and the requests it sends on them later would go past all routing.
    async fn server_spoke_first(&self, io: &mut Io, original: SocketAddr, plan: &Plan) -> bool {
        let (mut server, _load) = match self.connect_opaque(original, PassedOn::Bytes, &plan.tcp.to).await {
            Ok(connected) => connected,
            Err(error) => {
                plan.tcp.route.opened().fail(error);
                return true;
            }
        };
        tokio::select! {
            biased;
            spoke = io.speaks() => spoke.is_err(),
            _ = server.speaks() => {
                let connection = plan.tcp.route.opened();
                if !tcp::join(io, &mut server).await {
                    connection.fail(TcpRouteError::Unexpected);
                }
                true
            }
        }
    }

    /// Passes bytes on, to wherever the plan sends them.
    async fn opaque(&self, io: Io, original: SocketAddr, plan: &Plan) {
        match &plan.tls {
            Some(tls) => self.tls(io, original, tls).await,
            None => self.carry(io, original, PassedOn::Bytes, &plan.tcp.route, &plan.tcp.to).await,
        }
    }

    /// Passes them on along one route.
    async fn carry(&self, io: Io, original: SocketAddr, what: PassedOn, route: &TcpRoute, to: &Carried) {
        let connection = route.opened();
        match self.connect_opaque(original, what, to).await {
            Ok((server, _load)) => {
                if !tcp::join(io, server).await {
                    connection.fail(TcpRouteError::Unexpected);
                }
            }
            Err(error) => connection.fail(error),
        }
    }

    /// A connection to where bytes are sent. If there is none, that has been counted but for the route.
    async fn connect_opaque(
        &self,
        original: SocketAddr,
        what: PassedOn,
        to: &Carried,
    ) -> Result<(Io, EndpointLoad), TcpRouteError> {
        let backends = match to {
            Carried::Backends(backends) => backends,
            Carried::Refused(error) => return Err(self.refused(original, what, *error)),
        };
        // As with Linkerd's proxy, a backend that refuses connections gets its share of them.
        let available = |leg: &TcpLeg| match leg {
            Ok(backend) => backend.is_available(),
            Err(_) => true,
        };
        let choose = || backends.choose(&mut rand::rng(), available);
        let mut chosen = choose();
        // One that nothing is known of yet may turn out to have no endpoints where another has.
        while backends.is_choice()
            && let Some(Ok(backend)) = chosen
            && let Some(unknown) = backend.unknown()
            && unknown.becomes_known().await
        {
            chosen = choose();
        }
        let backend = match chosen {
            Some(Ok(backend)) => backend,
            Some(Err(error)) => return Err(self.refused(original, what, *error)),
            None => return Err(self.refused(original, what, TcpRouteError::Unexpected)),
        };
        backend.connect().await.map_err(|error| {
            debug!(%original, error = %error.in_full(), "a connection could not be passed on");
            self.tcp_error(original, error.label().unwrap_or("i/o"));
            TcpRouteError::Unexpected
        })
    }

    /// Counts a connection that the policy lets go nowhere.
    fn refused(&self, original: SocketAddr, what: PassedOn, error: TcpRouteError) -> TcpRouteError {
        debug!(%original, ?error, "the policy refuses the connection");
        let label = match (error, what) {
            (TcpRouteError::Forbidden, PassedOn::Bytes) => "forbidden TCP route",
            (TcpRouteError::Forbidden, PassedOn::Tls) => "forbidden TLS route",
            _ => "unexpected",
        };
        self.tcp_error(original, label);
        error
    }

    fn tcp_error(&self, original: SocketAddr, error: &str) {
        let labels = Labels::new().with_target(original).with("error", error);
        self.metrics.outbound_tcp_errors.hold(&labels).increment();
    }

    /// Answers one request.
    async fn request(
        self: Arc<Self>,
        routing: Routing,
        request: BoxedRequest,
    ) -> Result<Response<ResponseBody>, Abort> {
        let respond = crate::http::Respond::to(&request, self.informational);
        let answer = match self.in_flight.take() {
            Some(_place) => self.respond(routing, request).await,
            None => Err(ProxyError::Overloaded.into()),
        };
        match answer {
            Ok(response) => Ok(response),
            Err(failed) => {
                self.count(&failed);
                respond.with(failed)
            }
        }
    }

    fn count(&self, failed: &Failed) {
        debug!(error = %failed.in_full(), "a request failed in this proxy");
        if let Some(label) = failed.error.label() {
            let make = || self.metrics.outbound_http_errors.hold(&Labels::new().with("error", label));
            self.errors.get_or_make(label, make).increment();
        }
    }
}
