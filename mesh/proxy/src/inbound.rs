//! Connections to the pod, passed to the application that they are for.
//!
//! ```text
//! connection -> tls::accept -> [transport header] -> detect, as the port's policy says
//!   requests    -> loop guard -> policy: route, filters, authorization -> application
//!   other bytes -> policy: authorization                               -> application
//! ```
//!
//! A transport header with a name makes the proxy a [`gateway`], and what lets a client in leads to the outbound side.
//!
//! ServiceProfiles change nothing here but the counting: a request whose name has a profile is counted under its routes.

mod application;
mod door;
mod gateway;
mod own;
mod policy;
mod ports;
mod profile;
mod rate_limit;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{HeaderValue, Request, Response, Version as HttpVersion};
use tokio::{net::TcpStream, time::Instant};
use tracing::{debug, warn};

use crate::{
    Config, NameAddr, OriginalDst, Target,
    balance::EndpointFactory,
    cache::Cache,
    classify::Classify,
    connect::Connector,
    control::Control,
    detect::{Detected, detect},
    http::{
        Abort, BoxedRequest, Failed, PoolSettings, ProxyError, Respond, ResponseBody, SendError, UNSENT, Upgrade,
        Version, check_head, orig_proto, serve, strip_hop_by_hop,
    },
    identity::LocalIdentity,
    io::{Io, Transport},
    loop_guard::LoopGuard,
    metrics::{Counter, Direction, Keyed, Labels, Metrics, Observation, Tls},
    outbound::Outbound,
    places::Places,
    process::Drain,
    tcp,
    tls::{Accepted, Peer},
    transport_header::{self, Session, To},
};
use application::{Application, Applications, Client, authz_labels};
pub(crate) use door::Door;
use gateway::Passage;
use policy::{Permit, Protocol};
use ports::Policy;
use profile::{Profile, name};
pub(crate) use rate_limit::Exceeded;

/// The inbound side of the proxy.
pub(crate) struct Inbound {
    config: Arc<Config>,
    /// The proxy's own port, which no connection can be for.
    port: u16,
    original: OriginalDst,
    control: Control,
    door: Arc<Door>,
    applications: Applications,
    /// Where a gateway's connections go.
    outbound: Arc<Outbound>,
    profiles: Arc<Cache<NameAddr, Profile>>,
    guard: LoopGuard,
    metrics: Metrics,
    errors: Keyed<&'static str, Counter>,
    /// Of requests without an answer yet. As with Linkerd's proxy, one whose answer has begun takes none.
    in_flight: Places,
    drain: Drain,
}

/// A connection of which is known who made it and where it goes.
struct Arrival {
    io: Io,
    target: SocketAddr,
    peer: Peer,
    policy: Policy,
    /// What it is for in place of the application there, if this proxy is to be a gateway.
    name: Option<NameAddr>,
    /// What it speaks, if that need not be found out.
    known: Option<Detected>,
}

impl Inbound {
    #[expect(clippy::too_many_arguments, reason = "they are the parts of a proxy, put together in one place")]
    pub(crate) fn new(
        config: &Arc<Config>,
        port: u16,
        guard_id: Option<Arc<str>>,
        mark: Option<u32>,
        door: Arc<Door>,
        control: Control,
        outbound: Arc<Outbound>,
        original: OriginalDst,
        drain: Drain,
    ) -> Self {
        let connector =
            Connector::new(mark, config.inbound_connect_timeout).noticing(config.inbound_connect_keepalive, None);
        let settings = PoolSettings {
            connector,
            // The application is in the same pod.
            identity: LocalIdentity::none(),
            limits: config.inbound_pool,
            windows: config.connect_windows,
            // Nor can it vanish without a word from there.
            keep_alive: None,
        };
        let metrics = door.metrics.clone();
        Self {
            port,
            door,
            original,
            control,
            outbound,
            applications: Applications::new(
                EndpointFactory::new(metrics.clone(), settings, &config.inbound_ips),
                config.inbound_discovery_idle_timeout,
            ),
            profiles: Cache::new(config.inbound_discovery_idle_timeout),
            guard: LoopGuard::new(guard_id, Direction::Inbound, &metrics),
            metrics,
            errors: Keyed::default(),
            in_flight: Places::new(config.inbound_max_in_flight),
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
        let address = match self.original.client(&stream) {
            Ok(address) => address,
            Err(error) => return debug!(%error, "a connection was closed before it was served"),
        };
        let policy = self.door.policy(original.port());
        let deadline = self.door.deadline(&policy);
        let Arrival { mut io, target, peer, policy, name, known } =
            match self.arrive(stream, original, policy, deadline).await {
                Ok(arrival) => arrival,
                Err(error) => return self.door.failed(original, &error),
            };
        let detected = match known {
            Some(known) => known,
            None => match self.detect(&mut io, &policy, deadline).await {
                Ok(detected) => detected,
                Err(error) => return debug!(%error, "a connection broke before its protocol was known"),
            },
        };
        let passage = match name.map(|name| self.passage(name, &peer)).transpose() {
            Ok(passage) => passage.map(Arc::new),
            Err(error) => return debug!(%error, "a connection for a gateway is closed: no header can tell whose it is"),
        };
        let client = Client::new(address, peer, policy);
        let version = match detected {
            Detected::Http1 => Version::Http1,
            Detected::Http2 => Version::Http2,
            Detected::Tls | Detected::Opaque | Detected::TimedOut => {
                return match &passage {
                    Some(passage) => self.pass_bytes(io, target, client, passage).await,
                    None => self.opaque(io, target, client).await,
                };
            }
        };
        let (keep_alive, drain) = (self.config.inbound_server_keep_alive, self.drain.clone());
        serve(io, version, keep_alive, &drain, move |request| {
            Arc::clone(&self).request(target, client.clone(), passage.clone(), request)
        })
        .await;
    }

    /// Finds out who is there and, on a connection to the proxy's own port, what for.
    async fn arrive(
        &self,
        stream: TcpStream,
        original: SocketAddr,
        mut policy: Policy,
        deadline: Instant,
    ) -> io::Result<Arrival> {
        let direct = original.port() == self.port;
        if !direct && policy.borrow().protocol == Protocol::Opaque {
            let io = self.door.io(Transport::Left(stream), original, Tls::None("port_skipped"), &policy);
            return Ok(Arrival {
                io,
                target: original,
                peer: Peer::Plaintext,
                policy,
                name: None,
                known: Some(Detected::Opaque),
            });
        }
        let Accepted { mut transport, mut prefix, peer, tagged } = self.door.accept(stream, direct, deadline).await?;
        if direct && (!tagged || peer.client_id().is_none()) {
            let problem =
                "a connection to the proxy's own port that says neither who its client is nor which port it is for";
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, problem));
        }
        let mut target = original;
        let passed_on = matches!(peer, Peer::Elsewhere(_)) || policy.borrow().protocol == Protocol::Tls;
        let (mut known, mut name) = (passed_on.then_some(Detected::Opaque), None);
        if tagged {
            let (to, session, rest) = transport_header::read(&mut transport, deadline).await?;
            self.count_header(&to, session, &peer);
            match to {
                To::Port(port) => {
                    target.set_port(port);
                    policy = self.door.policy(port);
                }
                To::Name(to) => name = Some(to),
            }
            prefix = rest;
            known = Some(match session {
                Some(Session::Http1(_)) => Detected::Http1,
                Some(Session::Http2(_)) => Detected::Http2,
                None => Detected::Opaque,
            });
        }
        let mut io = self.door.io(transport, target, peer.label(), &policy);
        io.unread(prefix);
        Ok(Arrival { io, target, peer, policy, name, known })
    }

    fn count_header(&self, to: &To, session: Option<Session>, peer: &Peer) {
        let session = match session {
            Some(Session::Http1(_)) => "http/1",
            Some(Session::Http2(_)) => "http/2",
            None => "",
        };
        let (port, name) = match to {
            To::Port(port) => (*port, ""),
            To::Name(name) => (name.port(), name.name()),
        };
        let labels = Labels::new().with("session_protocol", session).with_display("target_port", port);
        let client = peer.client_id().map(AsRef::as_ref).unwrap_or_default();
        let labels = labels.with("target_name", name).with("client_id", client);
        self.metrics.inbound_transport_headers.hold(&labels).increment();
    }

    async fn detect(&self, io: &mut Io, policy: &Policy, deadline: Instant) -> io::Result<Detected> {
        let protocol = policy.borrow().protocol;
        if protocol == Protocol::Http2 {
            return Ok(Detected::Http2);
        }
        let began = Instant::now();
        let detected = detect(io, deadline).await;
        let result = detected.as_ref().map_or("error", |detected| detected.label());
        self.metrics.inbound_detections.count(result, began.elapsed(), &policy.borrow().labels);
        // A client's proxy carries HTTP/1 over HTTP/2, so that this is looked for where HTTP/1 is all there is.
        Ok(match detected? {
            Detected::Http2 => Detected::Http2,
            _ if protocol == Protocol::Http1 => Detected::Http1,
            detected => detected,
        })
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        self.config.inbound_ips.is_empty() || self.config.inbound_ips.contains(&ip)
    }

    fn application(
        &self,
        address: SocketAddr,
        client: &Client,
        permit: &Arc<Permit>,
    ) -> Result<Arc<Application>, ProxyError> {
        if address.port() == self.port {
            return Err(ProxyError::InboundPort(self.port));
        }
        Ok(self.applications.get(address, client, permit))
    }

    /// What lets a connection in that is not looked into, if anything does.
    fn admit(&self, target: SocketAddr, client: &mut Client) -> Option<Arc<Permit>> {
        let policy = Arc::clone(&client.policy.borrow_and_update());
        let by = |labels: &Labels| authz_labels(target, labels, &client.peer);
        let Some(permit) = policy.permit(client.address, &client.peer) else {
            debug!(%target, client = %client.address, "a connection is refused by the port's policy");
            self.metrics.inbound_tcp_denied.hold(&by(&policy.labels)).increment();
            return None;
        };
        self.metrics.inbound_tcp_allowed.hold(&by(&permit.labels)).increment();
        Some(Arc::clone(permit))
    }

    /// Counts a connection that was let in and is so no more.
    fn terminated(&self, target: SocketAddr, client: &Client, permit: &Permit) {
        debug!(%target, client = %client.address, "a connection ends by a change of the port's policy");
        let labels = authz_labels(target, &permit.labels, &client.peer);
        self.metrics.inbound_tcp_terminated.hold(&labels).increment();
    }

    async fn opaque(&self, io: Io, target: SocketAddr, mut client: Client) {
        let Some(permit) = self.admit(target, &mut client) else { return };
        let connected = match self.application(target, &client, &permit) {
            Ok(application) => application.endpoint.connect().await.map_err(ProxyError::Connect),
            Err(error) => Err(error),
        };
        match connected {
            Ok(application) => tokio::select! {
                _ = tcp::join(io, application) => {}
                () = client.refused() => self.terminated(target, &client, &permit),
            },
            Err(error) => {
                debug!(%target, error = %error.in_full(), "a connection could not be passed on");
                let labels = Labels::new().with_target(target).with("error", error.label().unwrap_or("i/o"));
                self.metrics.inbound_tcp_errors.hold(&labels).increment();
            }
        }
    }

    async fn request(
        self: Arc<Self>,
        original: SocketAddr,
        client: Client,
        passage: Option<Arc<Passage>>,
        request: BoxedRequest,
    ) -> Result<Response<ResponseBody>, Abort> {
        // Peers of which nothing is known are not told what went wrong in here.
        let known = client.peer.client_id().is_some();
        let respond = Respond::to(&request, known);
        let answer = match self.in_flight.take() {
            Some(_place) => match &passage {
                // Boxed: few proxies are gateways, and it is larger than all the rest.
                Some(passage) => Box::pin(self.pass_request(original, &client, passage, request)).await,
                None => self.respond(original, &client, request).await.map_err(Failed::from),
            },
            None => Err(ProxyError::Overloaded.into()),
        };
        match answer {
            Ok(response) => Ok(response),
            Err(failed) => {
                debug!(error = %failed.in_full(), "a request failed in this proxy");
                if let Some(label) = failed.error.label() {
                    let make = || self.metrics.inbound_http_errors.hold(&Labels::new().with("error", label));
                    self.errors.get_or_make(label, make).increment();
                }
                let unsent = known && matches!(failed.error, ProxyError::Connect(_));
                let mut response = respond.with(failed)?;
                if unsent {
                    response.headers_mut().insert(UNSENT, HeaderValue::from_static("application"));
                }
                Ok(response)
            }
        }
    }

    async fn respond(
        &self,
        original: SocketAddr,
        client: &Client,
        mut request: BoxedRequest,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        check_head(&request)?;
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
        // Before the policy, whose routes may look for it.
        client.tell(request.headers_mut());
        let permit = self.door.permit(original, client, &mut request)?;
        let application = self.application(original, client, &permit)?;
        application.allowed.increment();
        let stream = application.stream.as_ref();
        let application = &application.endpoint;
        let (mut route, classes) = self.route(&request).await.unzip();

        let sent = request.body_mut().count(stream.and_then(|stream| stream.request_frames()));
        let mut observation = stream.map(|stream| stream.begin(sent));
        let mut response = match application.send(request, classes).await {
            Ok(response) => response,
            Err(error) => {
                let error = match error {
                    SendError::Broken(error) => ProxyError::Broken(error),
                    SendError::NotSent(_, error) => {
                        let error = ProxyError::Connect(error);
                        application.count_unsent(&error);
                        error
                    }
                };
                if let Some(observation) = &mut observation {
                    observation.failed(&error);
                }
                if let Some(route) = &mut route {
                    route.fail(error.class());
                }
                return Err(error);
            }
        };
        // Nobody but this proxy knows.
        response.headers_mut().remove(UNSENT);
        if let Some(mut observation) = observation {
            observation.head(response.status(), response.headers());
            response.body_mut().observe(observation);
        }
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
        let mut observation = scopes.route.observe(Classify::new(request.headers(), Some(Arc::clone(route.classes()))));
        observation.sent();
        Some((observation, Arc::clone(route.classes())))
    }
}
