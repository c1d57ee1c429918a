//! Connections as CONNECT streams of one HTTP/2 connection, and the client's side of them.
//!
//! After RFC 9113, section 8.5: DATA frames carry the bytes, the end of a stream is the end of a direction, and a connection that
//! was reset ends its stream with CONNECT_ERROR. Why no connection came about is told in a header, so that refused stays refused.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::Reason;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The header of an answer without a connection: why.
pub(super) const ERROR: &str = "meshgate-connect-error";

/// The header of an answer about a name: its first IPv4 address.
pub(super) const ADDRESS: &str = "meshgate-address";

/// How much of one tunnel may be under way unread, and of all together: bodies of cases are a few MiB.
pub(super) const STREAM_WINDOW: u32 = 1 << 20;
pub(super) const CONNECTION_WINDOW: u32 = 32 << 20;

/// How often the connection is tried while nothing else shows that it is there, and how long an answer may take. What lies in between, such as a
/// load balancer before an API server, forgets connections on which nothing passes, and tells neither side.
const TRIED: Duration = Duration::from_secs(20);
const ANSWERS: Duration = Duration::from_secs(20);

/// How many tunnels a client may hold.
pub(super) const STREAMS: u32 = 10_000;

/// What can be told of a connection that did not come about; anything else is `other`.
const KINDS: [(&str, io::ErrorKind); 7] = [
    ("refused", io::ErrorKind::ConnectionRefused),
    ("reset", io::ErrorKind::ConnectionReset),
    ("timed-out", io::ErrorKind::TimedOut),
    ("host-unreachable", io::ErrorKind::HostUnreachable),
    ("network-unreachable", io::ErrorKind::NetworkUnreachable),
    ("invalid", io::ErrorKind::InvalidInput),
    ("not-found", io::ErrorKind::NotFound),
];

pub(super) fn name(kind: io::ErrorKind) -> HeaderValue {
    let name = KINDS.iter().find(|(_, known)| *known == kind).map_or("other", |(name, _)| name);
    HeaderValue::from_static(name)
}

/// The client's side of all tunnels of one vantage point. Cheap to clone.
#[derive(Clone)]
pub struct Tunnels {
    requests: h2::client::SendRequest<Bytes>,
}

impl Tunnels {
    /// Over a connection to a vantage point. What drives it runs in a task of its own until the connection ends.
    ///
    /// # Errors
    /// When the other side does not speak HTTP/2.
    pub async fn over(connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<Self> {
        Self::tried(connection, TRIED, ANSWERS).await
    }

    pub(super) async fn tried(
        connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        every: Duration,
        answers: Duration,
    ) -> io::Result<Self> {
        let (requests, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_reset_streams(STREAMS as usize)
            .enable_push(false)
            .handshake(connection)
            .await
            .map_err(io::Error::other)?;
        let pings = connection.ping_pong();
        tokio::spawn(async move {
            // Dropped, it ends all its tunnels, and the next one is asked for over a new connection.
            tokio::select! {
                ended = connection => match ended {
                    Ok(()) => {}
                    Err(error) => tracing::debug!(%error, "the connection to a vantage point ended"),
                },
                () = silent(pings, every, answers) => tracing::debug!("the connection to a vantage point is silent"),
            }
        });
        Ok(Self { requests })
    }

    /// Waits until a tunnel can be asked for; an error means that the connection to the vantage point is gone.
    ///
    /// # Errors
    /// Why it is gone.
    pub async fn ready(&mut self) -> io::Result<()> {
        self.requests = self.requests.clone().ready().await.map_err(io::Error::other)?;
        Ok(())
    }

    /// Connects from the vantage point.
    ///
    /// # Errors
    /// With the kind that a socket there met, or [`io::ErrorKind::Other`] when the vantage point itself is in trouble.
    pub async fn connect(&mut self, to: SocketAddr) -> io::Result<Piped> {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = to.to_string().parse().map_err(io::Error::other)?;
        let (response, send) = self.requests.send_request(request, false).map_err(io::Error::other)?;
        let response = response.await.map_err(io::Error::other)?;
        if response.status() == StatusCode::OK {
            return Ok(Piped::new(send, response.into_body()));
        }
        Err(failed(&response, &format!("connecting to {to}")))
    }

    /// The first IPv4 address that a name has where the vantage point is.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it has none, or [`io::ErrorKind::Other`] when the vantage point itself is in trouble.
    pub async fn look_up(&mut self, name: &str) -> io::Result<Ipv4Addr> {
        let mut request = Request::new(());
        *request.uri_mut() = format!("http://{name}/").parse().map_err(io::Error::other)?;
        let (response, _) = self.requests.send_request(request, true).map_err(io::Error::other)?;
        let response = response.await.map_err(io::Error::other)?;
        let address = response.headers().get(ADDRESS).and_then(|value| value.to_str().ok()?.parse().ok());
        address.ok_or_else(|| failed(&response, &format!("looking up {name}")))
    }
}

/// Waits until nobody answers any more.
async fn silent(pings: Option<h2::PingPong>, every: Duration, answers: Duration) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::time::sleep(every).await;
        match tokio::time::timeout(answers, pings.ping(h2::Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection has ended, which it says itself.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// What an answer says that went wrong.
fn failed(response: &Response<h2::RecvStream>, what: &str) -> io::Error {
    let told = response.headers().get(ERROR).and_then(|value| value.to_str().ok()).unwrap_or("other");
    let kind = KINDS.iter().find(|(name, _)| *name == told).map_or(io::ErrorKind::Other, |(_, kind)| *kind);
    io::Error::new(kind, format!("{what} from a pod: {told}"))
}

/// The bytes of one tunnel, on either side. Dropped before its end it is cancelled.
pub struct Piped {
    send: h2::SendStream<Bytes>,
    receive: h2::RecvStream,
    /// Received and not read yet.
    left: Bytes,
    ended: bool,
}

impl Piped {
    pub(super) fn new(send: h2::SendStream<Bytes>, receive: h2::RecvStream) -> Self {
        Self { send, receive, left: Bytes::new(), ended: false }
    }

    /// Tells the other side that the connection broke.
    pub(super) fn break_off(&mut self) {
        self.send.send_reset(Reason::CONNECT_ERROR);
    }
}

/// A stream that ended as a socket's error.
fn broken(error: h2::Error) -> io::Error {
    match error.reason() {
        Some(Reason::CONNECT_ERROR) => io::ErrorKind::ConnectionReset.into(),
        Some(Reason::CANCEL) => io::ErrorKind::ConnectionAborted.into(),
        _ => io::Error::other(error),
    }
}

impl AsyncRead for Piped {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.left.is_empty() {
            match ready!(self.receive.poll_data(context)) {
                Some(Ok(bytes)) => self.left = bytes,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let read = self.left.len().min(into.remaining());
        into.put_slice(&self.left[..read]);
        self.left.advance(read);
        Poll::Ready(self.receive.flow_control().release_capacity(read).map_err(broken))
    }
}

impl AsyncWrite for Piped {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(bytes.len());
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let written = self.send.capacity().min(bytes.len());
        let sent = self.send.send_data(Bytes::copy_from_slice(&bytes[..written]), false);
        Poll::Ready(sent.map(|()| written).map_err(broken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            self.ended = true;
            self.send.send_data(Bytes::new(), true).map_err(broken)?;
        }
        Poll::Ready(Ok(()))
    }
}
