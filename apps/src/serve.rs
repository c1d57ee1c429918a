//! The HTTP server under every role: HTTP/1.1 and h2c on one port, TLS on request, graceful to the end.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Every answer's body, gRPC or not.
pub(crate) type Body = tonic::body::Body;

/// How long a role waits for what is in flight once it was told to end.
const DRAIN: Duration = Duration::from_secs(10);

/// The connection that a request came on.
pub(crate) struct Connection {
    /// Counted over all ports of the process, from 1.
    pub id: u64,
    pub peer: SocketAddr,
    /// The port that accepted it.
    pub port: u16,
    pub tls: bool,
    requests: AtomicU64,
}

impl Connection {
    /// The number of the next request on this connection, from 1.
    pub fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The handler gives no answer; the connection (HTTP/1.1) or the stream (HTTP/2) ends.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed without an answer, as asked")]
pub(crate) struct HangUp;

/// Says when a server refuses connections. Made from a channel: true while it does.
#[derive(Clone)]
pub(crate) struct Gate(watch::Receiver<bool>);

impl Gate {
    /// A gate that never closes.
    pub fn open() -> Self {
        Self(watch::channel(false).1)
    }

    /// A gate under the control of the sender.
    pub fn controlled() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Waits until it closes; for ever when nobody can close it any more.
    async fn closed(&mut self) {
        if self.0.wait_for(|closed| *closed).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Binds a port on all IPv4 addresses of the pod; 0 takes any.
pub(crate) async fn bind(port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}; is another process on that port?"))
    })
}

/// Accepts connections until `shutdown`. While the gate is closed there is no listening socket, so the kernel refuses.
pub(crate) async fn accept(
    listener: TcpListener,
    mut gate: Gate,
    shutdown: CancellationToken,
    mut serve: impl FnMut(TcpStream, SocketAddr),
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let mut listener = Some(listener);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Ok(()) = gate.0.changed() => {
                let closed = *gate.0.borrow_and_update();
                // The old socket must be gone before the port can be bound again.
                listener = None;
                if !closed {
                    listener = Some(TcpListener::bind(address).await?);
                }
                continue;
            }
            accepted = async {
                match &listener {
                    Some(listener) => listener.accept().await,
                    None => std::future::pending().await,
                }
            } => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "the connection ended before it was served");
                }
                serve(stream, peer);
            }
            Err(error) => {
                // Out of descriptors, most likely; accepting again at once would spin.
                tracing::warn!(%address, %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// A port that speaks HTTP.
pub(crate) struct Http {
    pub listener: TcpListener,
    pub tls: Option<TlsAcceptor>,
    pub gate: Gate,
    /// The counter of connection ids, shared by the ports of a process.
    pub ids: Arc<AtomicU64>,
}

impl Http {
    /// A plain port that is always open.
    pub fn plain(listener: TcpListener) -> Self {
        Self { listener, tls: None, gate: Gate::open(), ids: Arc::default() }
    }

    /// Serves until `shutdown`, then until what is in flight is answered.
    pub async fn serve<H, F>(self, shutdown: CancellationToken, handler: H) -> io::Result<()>
    where
        H: Fn(Request<Incoming>, Arc<Connection>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response<Body>, HangUp>> + Send + 'static,
    {
        let port = self.listener.local_addr()?.port();
        let tasks = TaskTracker::new();
        let gate = self.gate.clone();
        accept(self.listener, self.gate, shutdown.clone(), |stream, peer| {
            let id = self.ids.fetch_add(1, Ordering::Relaxed) + 1;
            let tls = self.tls.clone();
            let connection = Arc::new(Connection { id, peer, port, tls: tls.is_some(), requests: AtomicU64::new(0) });
            let (handler, gate, shutdown) = (handler.clone(), gate.clone(), shutdown.clone());
            tasks.spawn(async move {
                match tls {
                    None => serve_connection(stream, connection, handler, gate, shutdown).await,
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => serve_connection(stream, connection, handler, gate, shutdown).await,
                        Err(error) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                    },
                }
            });
        })
        .await?;
        tasks.close();
        // What takes longer than the limit ends with the process.
        let _ = tokio::time::timeout(DRAIN, tasks.wait()).await;
        Ok(())
    }
}

async fn serve_connection<S, H, F>(
    stream: S,
    connection: Arc<Connection>,
    handler: H,
    mut gate: Gate,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>, Arc<Connection>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Response<Body>, HangUp>> + Send + 'static,
{
    let peer = connection.peer;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // No limit for a head, which hyper has for idle connections, too: proxies keep those for longer than its 30 seconds, and a request that
    // is sent as one is ended may not be sent again.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
    builder.http2().timer(TokioTimer::new());
    let service = service_fn(move |request| handler(request, Arc::clone(&connection)));
    let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = &mut serving => result,
        () = async { tokio::select! { () = shutdown.cancelled() => {}, () = gate.closed() => {} } } => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "the connection ended early");
    }
}

/// A whole answer with a content type.
pub(crate) fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// A whole answer of JSON, ending in a newline as Go's encoder writes it.
pub(crate) fn json(status: StatusCode, content_type: &'static str, value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            text(status, content_type, body)
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("cannot write JSON: {error}\n")),
    }
}
