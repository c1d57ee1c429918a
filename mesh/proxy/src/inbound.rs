//! Connections to the pod, passed to the application that they are for.
//!
//! ServiceProfiles change nothing here but the counting: a request whose name has a profile is counted under its routes.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue, Request, Response, Version as HttpVersion, header::HOST, uri::Authority};
use hyper::body::Incoming;
use linkerd2_proxy_api::destination::DestinationProfile;
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{self, Instant},
};
use tracing::{debug, warn};

use crate::{
    Config, NameAddr, OriginalDst, Target,
    balance::{Endpoint, EndpointFactory},
    cache::Cache,
    connect::Connector,
    control::{Answer, Answers, Control},
    detect::{Detected, detect},
    dialect,
    http::{
        Abort, PoolSettings, ProxyError, RequestBody, Respond, ResponseBody, SendError, Upgrade, Version, orig_proto,
        serve, strip_hop_by_hop,
    },
    identity::LocalIdentity,
    io::{Io, Transport},
    loop_guard::LoopGuard,
    metrics::{Counter, Direction, Keyed, Labels, Metrics, Observation, Tls, source_labels},
    outbound::{POOL_IDLE, POOL_MAX_IDLE},
    process::Drain,
    profile::ServiceProfile,
    tcp,
    tls::{self, Accepted, Peer},
    transport_header::{self, Session},
};

const CANONICAL: HeaderName = HeaderName::from_static("l5d-dst-canonical");

/// Tells the application who the client is, if that has been proven.
const CLIENT_ID: HeaderName = HeaderName::from_static("l5d-client-id");

/// Requests are not held up for their metrics any longer than this, as in Linkerd.
const PROFILE_PATIENCE: Duration = Duration::from_millis(500);

/// An application's address, and the identity of a client, which is among the labels of what is counted.
type Application = (SocketAddr, Option<Arc<str>>);

/// The inbound side of the proxy.
pub(crate) struct Inbound {
    config: Arc<Config>,
    /// The proxy's own port, which no connection can be for.
    port: u16,
    original: OriginalDst,
    control: Control,
    factory: EndpointFactory,
    identity: LocalIdentity,
    applications: Arc<Cache<Application, Endpoint>>,
    profiles: Arc<Cache<NameAddr, Profile>>,
    guard: LoopGuard,
    metrics: Metrics,
    errors: Keyed<&'static str, Counter>,
    detections: Keyed<&'static str, Counter>,
    drain: Drain,
}

/// A connection of which is known who made it and where it goes.
struct Arrival {
    io: Io,
    target: SocketAddr,
    peer: Peer,
    /// What it speaks, if that need not be found out.
    known: Option<Detected>,
}

/// Whose connection it is, and what the application is told of that.
#[derive(Clone)]
struct Client {
    peer: Arc<Peer>,
    header: Option<HeaderValue>,
}

impl Client {
    fn new(peer: Peer) -> Self {
        let header = peer.client_id().and_then(|id| HeaderValue::from_str(id).ok());
        Self { peer: Arc::new(peer), header }
    }
}

/// The profile of a name, as it changes.
struct Profile(watch::Receiver<Option<Option<Arc<ServiceProfile>>>>);

impl Inbound {
    #[expect(clippy::too_many_arguments, reason = "they are the parts of a proxy, put together in one place")]
    pub(crate) fn new(
        config: &Arc<Config>,
        port: u16,
        guard_id: Option<Arc<str>>,
        mark: Option<u32>,
        identity: LocalIdentity,
        control: Control,
        metrics: Metrics,
        original: OriginalDst,
        drain: Drain,
    ) -> Self {
        let connector = Connector::new(mark, config.inbound_connect_timeout);
        let settings = PoolSettings {
            connector,
            // The application is in the same pod.
            identity: LocalIdentity::none(),
            idle_timeout: POOL_IDLE,
            max_idle: POOL_MAX_IDLE,
        };
        Self {
            port,
            identity,
            original,
            control,
            factory: EndpointFactory::new(metrics.clone(), settings, &config.inbound_ips),
            applications: Cache::new(config.inbound_discovery_idle_timeout),
            profiles: Cache::new(config.inbound_discovery_idle_timeout),
            guard: LoopGuard::new(guard_id, Direction::Inbound, &metrics),
            metrics,
            errors: Keyed::default(),
            detections: Keyed::default(),
            drain,
            config: Arc::clone(config),
        }
    }

    /// Serves one connection to the pod.
    pub(crate) async fn connection(self: Arc<Self>, stream: TcpStream) {
        let original = match self.original.of(&stream) {
            Ok(original) => original,
            Err(error) => return warn!(%error, "a connection without an original destination is closed"),
        };
        if !self.is_own(original.ip()) {
            return warn!(%original, "a connection to an address that is not this pod's is closed");
        }
        if let Err(error) = stream.set_nodelay(true) {
            return debug!(%error, "a connection was closed before it was served");
        }
        let deadline = Instant::now() + self.config.inbound_detect_timeout;
        let Arrival { mut io, target, peer, known } = match self.arrive(stream, original, deadline).await {
            Ok(arrival) => arrival,
            Err(error) => return self.tls_failed(original, &error),
        };
        let detected = match known {
            Some(known) => known,
            None => match self.detect(&mut io, target.port(), deadline).await {
                Ok(detected) => detected,
                Err(error) => return debug!(%error, "a connection broke before its protocol was known"),
            },
        };
        let version = match detected {
            Detected::Http1 => Version::Http1,
            Detected::Http2 => Version::Http2,
            Detected::Tls | Detected::Opaque | Detected::TimedOut => return self.opaque(io, target, &peer).await,
        };
        let (drain, client) = (self.drain.clone(), Client::new(peer));
        serve(io, version, &drain, move |request| Arc::clone(&self).request(target, client.clone(), request)).await;
    }

    /// Finds out who is there and, on a connection to the proxy's own port, what for.
    async fn arrive(&self, stream: TcpStream, original: SocketAddr, deadline: Instant) -> io::Result<Arrival> {
        if self.config.is_opaque(original.port()) {
            let label = source_labels(Direction::Inbound, original, Tls::None("port_skipped"));
            let io = Io::new(Transport::Tcp(stream), self.metrics.tcp.scope(label).opened());
            return Ok(Arrival { io, target: original, peer: Peer::Plaintext, known: Some(Detected::Opaque) });
        }
        let (credentials, direct) = (self.identity.credentials(), original.port() == self.port);
        let Accepted { mut transport, mut prefix, peer, tagged } =
            tls::accept(stream, credentials.as_deref(), direct, deadline).await?;
        let mut target = original;
        let mut known = matches!(peer, Peer::Elsewhere(_)).then_some(Detected::Opaque);
        if tagged {
            if peer.client_id().is_none() {
                return Err(io::Error::other("a transport header of a client that does not say who it is"));
            }
            let (port, session, rest) = transport_header::read(&mut transport, deadline).await?;
            target.set_port(port);
            prefix = rest;
            known = Some(match session {
                Some(Session::Http1(_)) => Detected::Http1,
                Some(Session::Http2(_)) => Detected::Http2,
                None => Detected::Opaque,
            });
        }
        let label = source_labels(Direction::Inbound, target, peer.label());
        let mut io = Io::new(transport, self.metrics.tcp.scope(label).opened());
        io.unread(prefix);
        Ok(Arrival { io, target, peer, known })
    }

    async fn detect(&self, io: &mut Io, port: u16, deadline: Instant) -> io::Result<Detected> {
        let detected = detect(io, deadline).await?;
        let label = detected.label();
        let make = || {
            let labels = Labels::new().with_display("srv_port", port).with("result", label);
            self.metrics.inbound_detections.hold(&labels)
        };
        self.detections.get_or_make(label, make).increment();
        Ok(detected)
    }

    fn tls_failed(&self, original: SocketAddr, error: &io::Error) {
        debug!(%original, %error, "a client's TLS failed");
        let labels = Labels::new().with_target(original).with("error", "tls");
        self.metrics.inbound_tcp_errors.hold(&labels).increment();
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        self.config.inbound_ips.is_empty() || self.config.inbound_ips.contains(&ip)
    }

    fn application(&self, address: SocketAddr, peer: &Peer) -> Result<Arc<Endpoint>, ProxyError> {
        if address.port() == self.port {
            return Err(ProxyError::InboundPort(self.port));
        }
        let key = (address, peer.client_id().cloned());
        Ok(self.applications.get_or_make(&key, || self.factory.application(address, peer)))
    }

    async fn opaque(&self, io: Io, original: SocketAddr, peer: &Peer) {
        let connected = match self.application(original, peer) {
            Ok(application) => application.connect().await.map_err(ProxyError::Connect),
            Err(error) => Err(error),
        };
        match connected {
            Ok(application) => tcp::join(io, application).await,
            Err(error) => {
                debug!(%original, %error, "a connection could not be passed on");
                let labels = Labels::new().with_target(original).with("error", error.label().unwrap_or("i/o"));
                self.metrics.inbound_tcp_errors.hold(&labels).increment();
            }
        }
    }

    async fn request(
        self: Arc<Self>,
        original: SocketAddr,
        client: Client,
        request: Request<Incoming>,
    ) -> Result<Response<ResponseBody>, Abort> {
        // Peers of which nothing is known are not told what went wrong in here.
        let respond = Respond::to(&request, client.peer.client_id().is_some());
        match self.respond(original, &client, request).await {
            Ok(response) => Ok(response),
            Err(error) => {
                debug!(%error, "a request failed in this proxy");
                if let Some(label) = error.label() {
                    let make = || self.metrics.inbound_http_errors.hold(&Labels::new().with("error", label));
                    self.errors.get_or_make(label, make).increment();
                }
                respond.with(error)
            }
        }
    }

    async fn respond(
        &self,
        original: SocketAddr,
        client: &Client,
        mut request: Request<Incoming>,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        self.guard.check(request.headers())?;
        let carried = orig_proto::downgrade(&mut request);
        let upgrade = Upgrade::of(&mut request)?;
        let version = request.version();
        if version != HttpVersion::HTTP_2 {
            strip_hop_by_hop(request.headers_mut(), upgrade.keeps_headers());
        }
        if self.config.ingress_mode {
            self.guard.mark_entry(request.headers_mut(), original.port());
        }
        match &client.header {
            Some(id) => request.headers_mut().insert(CLIENT_ID, id.clone()),
            None => request.headers_mut().remove(CLIENT_ID),
        };
        let application = self.application(original, &client.peer)?;
        let (mut route, classes) = self.route(&request).await.unzip();

        let mut response = match application.send(RequestBody::pass(request), classes).await {
            Ok(response) => response,
            Err(error) => {
                let error = match error {
                    SendError::Broken(error) => ProxyError::Broken(error),
                    SendError::NotSent(_, error) => {
                        let error = ProxyError::Connect(error);
                        application.count_unsent(error.status());
                        error
                    }
                };
                if let Some(route) = &mut route {
                    route.fail(error.class());
                }
                return Err(error);
            }
        };
        if let Some(mut route) = route {
            route.head(response.status(), response.headers());
            response.body_mut().observe(route);
        }
        if version != HttpVersion::HTTP_2 {
            let upgraded = upgrade.complete(&mut response, &self.drain);
            strip_hop_by_hop(response.headers_mut(), upgraded);
            *response.version_mut() = HttpVersion::HTTP_11;
        }
        if carried {
            orig_proto::upgrade_response(&mut response);
        }
        Ok(response)
    }

    /// What counts the request under its route, if its name has a profile, and how its response is classified.
    async fn route<B>(&self, request: &Request<B>) -> Option<(Observation, Arc<crate::profile::ResponseClasses>)> {
        let name = name(request)?;
        if !self.config.profile_suffixes.iter().any(|suffix| name.is_within(suffix)) {
            return None;
        }
        let profile = self
            .profiles
            .get_or_make(&name, || Profile::follow(name.port(), self.control.profile(&Target::Name(name.clone()))));
        let profile = profile.get().await?;
        let route = profile.route(request.method(), request.uri().path());
        let scopes = route.scopes(&self.metrics, Direction::Inbound);
        let mut observation = scopes.route.observe(Some(Arc::clone(route.classes())));
        observation.sent();
        Some((observation, Arc::clone(route.classes())))
    }
}

impl Profile {
    fn follow(port: u16, mut answers: Answers<DestinationProfile>) -> Self {
        let (profiles, listener) = watch::channel(None);
        tokio::spawn(async move {
            loop {
                let answer = answers.borrow_and_update().clone();
                if let Some(answer) = answer {
                    profiles.send_replace(Some(match answer {
                        Answer::Found(profile) => ServiceProfile::compile(&profile, port).map(Arc::new),
                        Answer::Nothing | Answer::Failed(_) => None,
                    }));
                }
                tokio::select! {
                    changed = answers.changed() => if changed.is_err() {
                        return profiles.closed().await;
                    },
                    () = profiles.closed() => return,
                }
            }
        });
        Self(listener)
    }

    /// The profile, if there is one and the control plane says so soon.
    async fn get(&self) -> Option<Arc<ServiceProfile>> {
        if let Some(known) = &*self.0.borrow() {
            return known.clone();
        }
        let mut listener = self.0.clone();
        let known = time::timeout(PROFILE_PATIENCE, listener.wait_for(Option::is_some)).await;
        known.ok()?.ok()?.clone().flatten()
    }
}

/// The name that a request is for: what the client's proxy says, or `:authority`, or `Host`.
fn name<B>(request: &Request<B>) -> Option<NameAddr> {
    let header = |name| request.headers().get(name).and_then(|value| Authority::try_from(value.as_bytes()).ok());
    let authority = header(CANONICAL).or_else(|| request.uri().authority().cloned()).or_else(|| header(HOST))?;
    dialect::name(&authority)
}
