//! Listening, TLS and connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use meshgate_store::{PodAccess, Status, Store};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bootstrap;
use crate::credentials::Credentials;
use crate::handler::{self, Api};
use crate::tokens::Tokens;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate could not be made, for example because a serving name is no DNS name.
    #[error("the API server's certificates could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The certificate was made but TLS does not take it.
    #[error("the API server's TLS could not be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The operating system gave no random numbers.
    #[error("the operating system gave no random numbers for the API server's keys")]
    Random,
    /// An object that every cluster begins with could not be created.
    #[error("{resource} {name:?}, which every cluster begins with, could not be created: {status}")]
    Bootstrap {
        /// Plural.
        resource: String,
        /// Name.
        name: String,
        /// What the store said.
        status: Status,
    },
}

/// Where the server listens.
pub enum Listener {
    /// TLS on TCP.
    Tcp(TcpListener),
    /// A Unix socket. A connection that begins with a TLS handshake gets TLS, any other is plain HTTP.
    Unix(UnixListener),
}

/// What a server needs.
pub struct ServerConfig {
    /// The objects.
    pub store: Store,
    /// The pods: logs, exec, port-forward.
    pub pods: Arc<dyn PodAccess>,
    /// The CA and the tokens.
    pub credentials: Credentials,
    /// Where to listen.
    pub listeners: Vec<Listener>,
    /// DNS names and IP addresses in the serving certificate, usually [`ServerConfig::default_names`].
    pub names: Vec<String>,
    /// Where pods reach the server: the endpoint of the Service `default/kubernetes`.
    pub endpoint: SocketAddr,
    /// Ends the server, its watches and its streams.
    pub shutdown: CancellationToken,
}

impl ServerConfig {
    /// The address of the Service `default/kubernetes`.
    pub const CLUSTER_IP: &'static str = "10.96.0.1";

    /// The names under which clients in pods and on the host reach the server.
    pub fn default_names() -> Vec<String> {
        [
            Self::CLUSTER_IP,
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "127.0.0.1",
            "localhost",
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

/// The API server.
pub struct Server;

/// A running server.
pub struct Running {
    credentials: Credentials,
    addresses: Vec<SocketAddr>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Creates the objects that every cluster begins with (the default roles, the Service `default/kubernetes`) and
    /// serves. Must be called inside a Tokio runtime. The server ends when `shutdown` is cancelled.
    pub fn start(config: ServerConfig) -> Result<Running, Error> {
        let ServerConfig { store, pods, credentials, listeners, names, endpoint, shutdown } = config;
        bootstrap::create_objects(&store, endpoint)?;
        let tls = TlsAcceptor::from(credentials.authority().server_config(&names)?);
        let api = Arc::new(Api::new(store, pods, credentials.clone(), shutdown.clone()));
        let tasks = TaskTracker::new();
        let mut addresses = Vec::new();
        for listener in listeners {
            let connections = Connections { api: api.clone(), tls: tls.clone(), tasks: tasks.clone() };
            match listener {
                Listener::Tcp(listener) => {
                    addresses.extend(listener.local_addr());
                    tasks.spawn(connections.accept_tcp(listener));
                }
                Listener::Unix(listener) => {
                    tasks.spawn(connections.accept_unix(listener));
                }
            }
        }
        tasks.close();
        Ok(Running { credentials, addresses, shutdown, tasks })
    }
}

impl Running {
    /// The cluster's credentials.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The CA's certificate as PEM.
    pub fn ca_pem(&self) -> &str {
        self.credentials.ca_pem()
    }

    /// The tokens of ServiceAccounts.
    pub fn tokens(&self) -> &Tokens {
        self.credentials.tokens()
    }

    /// A kubeconfig (YAML) of the administrator for a server URL.
    pub fn kubeconfig(&self, server_url: &str) -> String {
        self.credentials.kubeconfig(server_url)
    }

    /// The TCP addresses it listens on, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Ends the server and waits until every connection is closed.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.wait().await;
    }
}

/// Accepts the connections of one listener.
struct Connections {
    api: Arc<Api>,
    tls: TlsAcceptor,
    tasks: TaskTracker,
}

impl Connections {
    async fn accept_tcp(self, listener: TcpListener) {
        while let Some((stream, peer)) = self.next(|| listener.accept()).await {
            // Watch events are small and wanted at once.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, %peer, "TCP_NODELAY was not set");
            }
            let (api, tls) = (self.api.clone(), self.tls.clone());
            self.tasks.spawn(async move { secure(api, tls, stream).await });
        }
    }

    async fn accept_unix(self, listener: UnixListener) {
        while let Some((stream, _)) = self.next(|| listener.accept()).await {
            let (api, tls) = (self.api.clone(), self.tls.clone());
            self.tasks.spawn(async move {
                let mut stream = BufReader::new(stream);
                // The first byte of a TLS connection is the record type "handshake".
                match stream.fill_buf().await {
                    Ok([0x16, ..]) => secure(api, tls, stream).await,
                    Ok([]) | Err(_) => {}
                    Ok(_) => serve(api, stream).await,
                }
            });
        }
    }

    /// The next connection, or `None` at shutdown. A failing accept (out of descriptors) is tried again after a pause.
    async fn next<T, F: Future<Output = io::Result<T>>>(&self, accept: impl Fn() -> F) -> Option<T> {
        loop {
            let accepted = tokio::select! {
                accepted = accept() => accepted,
                () = self.api.shutdown.cancelled() => return None,
            };
            match accepted {
                Ok(accepted) => return Some(accepted),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn secure<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(api: Arc<Api>, tls: TlsAcceptor, stream: S) {
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(Duration::from_secs(10), tls.accept(stream)) => accepted,
        () = api.shutdown.cancelled() => return,
    };
    match accepted {
        Ok(Ok(stream)) => serve(api, stream).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

/// How long an HTTP/1.1 connection may be without a request. Clients of hyper and Go keep one for 90 seconds; whoever ends it before them
/// does so now and then as a request is being sent, which is not sent again then. hyper has the limit of a head for this, of 30 seconds.
const IDLE: Duration = Duration::from_secs(120);

/// Serves HTTP/1.1 or HTTP/2 on a connection until it closes, or until shutdown and its last answer.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(api: Arc<Api>, stream: S) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(250);
    let service = service_fn(|request: http::Request<Incoming>| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(handler::serve(api, request).await) }
    });
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = api.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended with an error");
    }
}
