//! The connections to one endpoint.
//!
//! HTTP/1: one request per connection at a time; idle ones are kept for a while. HTTP/2: one connection for all requests,
//! made by whoever comes first while the others wait for it.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    task::Poll,
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use http::{Request, Response, Version, header, uri::Authority};
use http_body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{io::AsyncWriteExt, time};
use tracing::debug;

use super::{
    AuthorityOverride, BoxedRequest, Broken, Http2Params, Incoming, RequestBody, UNSENT,
    error::h2_error,
    http1::{Connection, Failure},
    orig_proto,
};
use crate::{
    KeepAlive, PoolLimits, Windows,
    balance::{EndpointInfo, Hint},
    connect::{ConnectError, Connector},
    identity::LocalIdentity,
    io::{Io, Transport},
    metrics::TcpScope,
    tls::ServerIdentity,
    transport_header::{self, Session, To},
};

/// How often idle connections are looked at.
const LOOK: Duration = Duration::from_secs(1);

type Http2 = http2::SendRequest<RequestBody>;

/// What the pools of one direction have in common.
#[derive(Clone)]
pub(crate) struct PoolSettings {
    pub(crate) connector: Connector,
    /// Who this proxy is to endpoints that have an identity.
    pub(crate) identity: LocalIdentity,
    /// Which idle HTTP/1 connections are kept.
    pub(crate) limits: PoolLimits,
    /// Those that HTTP/2 connections begin with.
    pub(crate) windows: Windows,
    /// How proxies that have gone without a word are noticed.
    pub(crate) keep_alive: Option<KeepAlive>,
}

/// The connections to one address.
pub(crate) struct Pool {
    dial: Arc<Dial>,
    idle: Mutex<Idle>,
    shared: Mutex<SharedConnection>,
}

/// Makes connections to one address.
struct Dial {
    address: SocketAddr,
    /// Who is there; without it connections are plaintext.
    tls: Option<ServerIdentity>,
    hint: Hint,
    /// The port that is dialled in place of the address's, which a transport header tells then.
    tagged: Option<u16>,
    /// What requests and connections are for, if it is a gateway that is there.
    authority: Option<AuthorityOverride>,
    http2: Http2Params,
    settings: Arc<PoolSettings>,
    tcp: Arc<TcpScope>,
}

#[derive(Default)]
struct Idle {
    connections: Vec<(Connection, Instant)>,
    watched: bool,
}

enum SharedConnection {
    None,
    Connecting(Shared<BoxFuture<'static, Result<Http2, ConnectError>>>),
    Ready(Http2),
}

/// Why there is no response.
pub(crate) enum SendError {
    /// Nothing has left this proxy: the request may go to another endpoint.
    NotSent(BoxedRequest, ConnectError),
    /// Something may have left it.
    Broken(Broken),
}

/// The pool that an HTTP/1 connection returns to when its response has ended.
#[derive(Clone)]
pub(super) struct Home(Weak<Pool>);

impl Pool {
    /// `info` is what is known about who is at the address.
    pub(crate) fn new(
        address: SocketAddr,
        info: &EndpointInfo,
        settings: Arc<PoolSettings>,
        tcp: Arc<TcpScope>,
    ) -> Arc<Self> {
        let EndpointInfo { identity: tls, hint, tagged, authority, http2, .. } = info.clone();
        let dial = Arc::new(Dial { address, tls, hint, tagged, authority, http2, settings, tcp });
        Arc::new(Self { dial, idle: Mutex::default(), shared: Mutex::new(SharedConnection::None) })
    }

    /// A connection for anything but HTTP.
    pub(crate) async fn connect(&self) -> Result<Io, ConnectError> {
        self.dial.connect(None).await
    }

    /// Sends a request in its own version of HTTP, or over HTTP/2 if that is understood. `sending` is called when there is a connection to send on.
    pub(crate) async fn send(
        self: &Arc<Self>,
        mut request: BoxedRequest,
        sending: impl FnMut(),
    ) -> Result<Response<Incoming>, SendError> {
        let renamed = self.dial.authority.as_ref().map(|authority| authority.replace(&mut request));
        let carried = if self.dial.hint == Hint::Http2 && request.version() != Version::HTTP_2 {
            orig_proto::upgrade(&mut request, || Authority::try_from(self.dial.address.to_string()).ok())
        } else {
            None
        };
        let result = if request.version() == Version::HTTP_2 {
            self.send_http2(request, sending).await
        } else {
            self.send_http1(request, sending).await
        };
        match result {
            Ok(mut response) => {
                if carried.is_some() {
                    orig_proto::downgrade_response(&mut response);
                }
                Ok(response)
            }
            Err(SendError::NotSent(mut request, error)) => {
                if let Some(original) = carried {
                    orig_proto::restore(&mut request, original);
                }
                if let Some(original) = renamed {
                    original.restore(&mut request);
                }
                Err(SendError::NotSent(request, error))
            }
            Err(broken) => Err(broken),
        }
    }

    async fn send_http1(
        self: &Arc<Self>,
        mut request: BoxedRequest,
        mut sending: impl FnMut(),
    ) -> Result<Response<Incoming>, SendError> {
        let home = (request.version() == Version::HTTP_11).then(|| Home(Arc::downgrade(self)));
        let repeatable = is_repeatable(&request);
        let mut repeated = false;
        loop {
            let idle = self.checkout();
            let reused = idle.is_some();
            let connection = match idle {
                Some(connection) => connection,
                // Boxed: it is seldom, and larger than all the rest.
                None => match Box::pin(self.dial.connect(Some(Session::HTTP1))).await {
                    Ok(io) => Connection::new(io),
                    Err(error) => return Err(SendError::NotSent(request, error)),
                },
            };
            sending();
            match connection.send(&mut request, home.clone()).await {
                Ok(response) if repeatable && self.dial.is_unsent(&response) => {
                    return Err(self.dial.unsent(request, &response));
                }
                Ok(response) => return Ok(response),
                // It closed the connection while the request was on its way: on one that was idle this is to be expected, on one
                // that is new it is once.
                Err(Failure::Unanswered(_))
                    if repeatable && request.method().is_idempotent() && (reused || !repeated) =>
                {
                    repeated |= !reused;
                }
                Err(Failure::Unanswered(error) | Failure::Broken(error)) => {
                    return Err(SendError::Broken(error.into()));
                }
            }
        }
    }

    async fn send_http2(
        &self,
        mut request: BoxedRequest,
        mut sending: impl FnMut(),
    ) -> Result<Response<Incoming>, SendError> {
        let mut repeated = false;
        loop {
            let (mut connection, reused) = match self.shared_connection().await {
                Ok(found) => found,
                Err(error) => return Err(SendError::NotSent(request, error)),
            };
            let again = repeatable(&request);
            sending();
            match connection.try_send_request(*request).await {
                Ok(response) => match again.filter(|_| self.dial.is_unsent(&response)) {
                    Some(again) => return Err(self.dial.unsent(again, &response)),
                    None => return Ok(response.map(Incoming::Http2)),
                },
                Err(mut error) => match error.take_message() {
                    Some(unsent) if reused => request = Box::new(unsent),
                    Some(unsent) => {
                        let error = self.handshake_error(&error.into_error());
                        return Err(SendError::NotSent(Box::new(unsent), error));
                    }
                    None => {
                        let error = error.into_error();
                        let again = again.filter(|again| again.method().is_idempotent());
                        match again.filter(|_| !repeated && closed_unanswered(&error)) {
                            Some(again) => (request, repeated) = (again, true),
                            None => return Err(SendError::Broken(error.into())),
                        }
                    }
                },
            }
        }
    }

    fn handshake_error(&self, error: &hyper::Error) -> ConnectError {
        ConnectError::Handshake { address: self.dial.address, message: error.to_string() }
    }

    /// The shared connection, and whether it was there before.
    async fn shared_connection(&self) -> Result<(Http2, bool), ConnectError> {
        let connecting = {
            let mut shared = self.shared.lock();
            match &*shared {
                SharedConnection::Ready(connection) if !connection.is_closed() => {
                    return Ok((connection.clone(), true));
                }
                SharedConnection::Connecting(connecting) => connecting.clone(),
                SharedConnection::Ready(_) | SharedConnection::None => {
                    let connecting = self.connect_http2().boxed().shared();
                    *shared = SharedConnection::Connecting(connecting.clone());
                    connecting
                }
            }
        };
        let result = connecting.clone().await;
        let mut shared = self.shared.lock();
        if matches!(&*shared, SharedConnection::Connecting(current) if current.ptr_eq(&connecting)) {
            *shared = match &result {
                Ok(connection) => SharedConnection::Ready(connection.clone()),
                Err(_) => SharedConnection::None,
            };
        }
        result.map(|connection| (connection, false))
    }

    fn connect_http2(&self) -> impl Future<Output = Result<Http2, ConnectError>> + Send + 'static {
        let dial = Arc::clone(&self.dial);
        async move {
            let io = dial.connect(Some(Session::HTTP2)).await?;
            let mut client = http2::Builder::new(TokioExecutor::new());
            client.timer(TokioTimer::new());
            dial.http2.apply(&mut client, dial.settings.windows, dial.keep_alive());
            let (sender, connection) = client
                .handshake(TokioIo::new(io))
                .await
                .map_err(|error| ConnectError::Handshake { address: dial.address, message: error.to_string() })?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    debug!(%error, "an HTTP/2 connection to an endpoint ended");
                }
            });
            Ok(sender)
        }
    }

    /// The youngest idle connection that can still be used.
    fn checkout(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        loop {
            let (connection, _) = idle.connections.pop()?;
            if !connection.is_spent_now() {
                return Some(connection);
            }
        }
    }

    fn give_back(self: &Arc<Self>, connection: Connection) {
        let mut idle = self.idle.lock();
        if idle.connections.len() >= self.dial.settings.limits.max_idle {
            return;
        }
        idle.connections.push((connection, Instant::now()));
        if !std::mem::replace(&mut idle.watched, true) {
            tokio::spawn(watch(Arc::downgrade(self), self.dial.settings.limits.idle_timeout));
        }
    }
}

impl Dial {
    /// Only proxies are asked whether they are there, unless the control plane says of an endpoint that it is. Whoever answers gRPC may
    /// take a PING more often than every five minutes for an attack (gRPC's `GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS`), and
    /// hang up on all requests at the third.
    fn keep_alive(&self) -> Option<KeepAlive> {
        // To what is opaque the proxy there passes on everything that is spoken, PINGs too.
        let is_proxy = self.hint != Hint::Opaque && (self.tls.is_some() || self.hint == Hint::Http2);
        self.settings.keep_alive.filter(|_| is_proxy)
    }

    /// Whether a proxy says that the request has not reached its application. Only one that is known is believed: an application
    /// may say anything.
    fn is_unsent<B>(&self, response: &Response<B>) -> bool {
        self.tls.is_some() && response.headers().contains_key(UNSENT)
    }

    /// The proxy there has answered in place of its application, which the request has not reached.
    fn unsent<B>(&self, again: BoxedRequest, response: &Response<B>) -> SendError {
        let error = ConnectError::Application { address: self.address, status: response.status(), closes: false };
        SendError::NotSent(again, error)
    }

    /// `session` is the version of HTTP that will be spoken.
    async fn connect(&self, session: Option<Session>) -> Result<Io, ConnectError> {
        let PoolSettings { connector, identity, .. } = &*self.settings;
        let tagged = self.tls.is_some() && (self.tagged.is_some() || self.authority.is_some());
        let header = tagged.then(|| {
            let session = session.filter(|_| self.hint != Hint::Opaque);
            let name = self.authority.as_ref().and_then(AuthorityOverride::name);
            let to = name.map_or(To::Port(self.address.port()), |name| To::Name(name.clone()));
            transport_header::encode(&to, session)
        });
        let dialled = SocketAddr::new(self.address.ip(), self.tagged.unwrap_or(self.address.port()));
        let stream = connector.connect(dialled).await?;
        let transport = match &self.tls {
            Some(server) => {
                let (address, timeout) = (self.address, connector.timeout());
                let shaken = time::timeout(timeout, async {
                    // What is to be secret is not said openly for want of a certificate.
                    let credentials = identity.credentials().ok_or_else(|| io::Error::other("no certificate yet"))?;
                    let mut tls = credentials.connect(stream, server, header.is_some()).await?;
                    // Who does not know of it takes connections as they are, as a gateway of old does.
                    if let Some(header) = &header
                        && tls.get_ref().1.alpn_protocol() == Some(transport_header::PROTOCOL)
                    {
                        tls.write_all(header).await?;
                    }
                    Ok::<_, io::Error>(tls)
                });
                let shaken = shaken.await;
                let tls = shaken.map_err(|_| ConnectError::TimedOut { address, timeout })?.map_err(|error| {
                    ConnectError::Tls { address, expected: Arc::clone(server.id()), message: error.to_string() }
                })?;
                Transport::Right(Box::new(tls))
            }
            None => Transport::Left(stream),
        };
        Ok(Io::new(transport, self.tcp.opened()))
    }
}

/// Whether a request may be sent again if it has not been answered: where its connection ends before the answer if it is idempotent
/// (RFC 9110, section 9.2.2), and in any case where it has not reached an application.
fn is_repeatable(request: &Request<RequestBody>) -> bool {
    request.body().is_end_stream() && !request.headers().contains_key(header::UPGRADE)
}

/// A copy of a request that may be sent again.
fn repeatable(request: &Request<RequestBody>) -> Option<BoxedRequest> {
    if !is_repeatable(request) {
        return None;
    }
    let mut again = Box::new(Request::new(RequestBody::Empty));
    again.method_mut().clone_from(request.method());
    again.uri_mut().clone_from(request.uri());
    *again.version_mut() = request.version();
    again.headers_mut().clone_from(request.headers());
    again.extensions_mut().clone_from(request.extensions());
    Some(again)
}

/// Whether the connection ended before the first byte of a response.
fn closed_unanswered(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    let reset = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionAborted
                // TLS whose peer was killed and did not say goodbye.
                | io::ErrorKind::UnexpectedEof
        )
    };
    let ended =
        |error: &h2::Error| error.is_io() || error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_incomplete_message() || source.is_some_and(reset) || h2_error(error).is_some_and(ended)
}

/// Drops connections that have been idle for too long or that the endpoint has closed, until there are none. Those that came since
/// it looked last are not noticed at once, which would cost a wake per request.
async fn watch(pool: Weak<Pool>, timeout: Duration) {
    let mut look = time::interval(timeout.clamp(Duration::from_millis(1), LOOK));
    look.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    poll_fn(|cx| {
        // Its waker has to be there again before the next tick.
        while look.poll_tick(cx).is_ready() {}
        let Some(pool) = pool.upgrade() else { return Poll::Ready(()) };
        let mut idle = pool.idle.lock();
        idle.connections.retain(|(connection, since)| since.elapsed() < timeout && !connection.is_spent(cx));
        idle.watched = !idle.connections.is_empty();
        if idle.watched { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

impl Home {
    /// Makes the connection available to the next request.
    pub(super) fn give_back(self, connection: Connection) {
        if let Some(pool) = self.0.upgrade() {
            pool.give_back(connection);
        }
    }
}
