//! The backend that says what it saw.
//!
//! ```text
//! port 8080, 8081  HTTP/1.1 and h2c ┐            ┌ admin: /healthz /_requests /_fault
//! port 8443        HTTPS            ┴─> request ─┼ gRPC:  /meshgate.echo.v1.Echo/...
//! port 9000        raw TCP, every byte back      ├ WebSocket upgrade, on any path
//!                                                └ anything else: the answer, as the query wants it
//! ```
//!
//! Every HTTP answer carries `x-echo-pod` and `x-echo-service`; the usual one is an [`Answer`] as JSON. The query bends it
//! ([`control`] has the list). Requests with the header `x-meshgate-marker` are remembered and can be asked for at
//! `/_requests?marker=...`, so that a test can tell "arrived" from "was answered". `POST /_fault` breaks the process while
//! it runs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::serve::{self, Gate, Http};

pub mod control;
pub mod fault;
pub mod grpc;
mod http;
mod recorder;
mod tcp;
mod tls;
mod websocket;

#[cfg(test)]
pub(crate) mod tests;

/// The environment of the echo backend.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Name of the service, for its answers
    #[arg(long, env = "NAME", default_value = "echo")]
    pub name: String,
    /// Name of the pod, for its answers
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub pod: String,
    /// HTTP/1.1 and h2c
    #[arg(long, env = "HTTP_PORT", default_value = "8080")]
    pub http_port: u16,
    /// The same, on a second port
    #[arg(long, env = "ALT_PORT", default_value = "8081")]
    pub alt_port: u16,
    /// Raw TCP: every byte comes back
    #[arg(long, env = "TCP_PORT", default_value = "9000")]
    pub tcp_port: u16,
    /// HTTPS, with a certificate made at the start
    #[arg(long, env = "TLS_PORT", default_value = "8443")]
    pub tls_port: u16,
    /// Further names in the certificate, besides the service's
    #[arg(long, env = "TLS_NAMES", value_delimiter = ',')]
    pub tls_names: Vec<String>,
    /// Every n-th request is answered 503; none when left out
    #[arg(long, env = "FAIL_EVERY", value_parser = clap::value_parser!(u64).range(1..))]
    pub fail_every: Option<u64>,
}

/// What the backend says of a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// The pod's name; the host's when it has none.
    pub pod: String,
    /// Its NAME.
    pub service: String,
    /// The port that took the request.
    pub port: u16,
    /// Where the connection came from, `address:port`.
    pub peer: String,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: String,
    /// As written.
    pub method: String,
    /// `http` or `https`: the connection's.
    pub scheme: String,
    /// The authority in the request target: always on HTTP/2, on HTTP/1 only with an absolute target.
    pub authority: Option<String>,
    /// The first Host header, or else the authority.
    pub host: Option<String>,
    /// The request target's path with its query, not decoded.
    pub path: String,
    /// In the order of arrival, duplicates after the first of their name; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Length of the body.
    pub body_bytes: u64,
    /// Of the body, in hexadecimal.
    pub body_sha256: String,
    /// After the body.
    pub trailers: Vec<(String, String)>,
    /// Counted over all connections of the process, from 1.
    pub connection_id: u64,
    /// Counted on the connection, from 1.
    pub request_number: u64,
}

/// The backend with its ports bound.
pub struct Echo {
    http: TcpListener,
    alt: Option<TcpListener>,
    tcp: Option<TcpListener>,
    tls: Option<TcpListener>,
    tls_names: Vec<String>,
    state: Arc<State>,
    gate: Gate,
}

/// The ports that were bound; 0 for what is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// HTTP/1.1 and h2c.
    pub http: u16,
    /// The same again.
    pub alt: u16,
    /// Raw TCP.
    pub tcp: u16,
    /// HTTPS.
    pub tls: u16,
}

/// What the ports share.
struct State {
    name: String,
    pod: String,
    fail_every: Option<u64>,
    /// Requests that `fail_every` counted.
    counted: AtomicU64,
    counters: control::Counters,
    recorder: recorder::Recorder,
    faults: fault::Faults,
    refuse: watch::Sender<bool>,
}

impl State {
    /// Whether FAIL_EVERY takes this request. Counts it.
    fn fails(&self) -> bool {
        self.fail_every.is_some_and(|every| (self.counted.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(every))
    }
}

impl Echo {
    /// Binds the ports; a port of 0 is left out, but for the first, which takes any.
    pub async fn bind(config: Config) -> io::Result<Self> {
        let optional = async |port: u16| match port {
            0 => Ok(None),
            port => serve::bind(port).await.map(Some),
        };
        let (refuse, gate) = Gate::controlled();
        let hostname = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        let mut tls_names = vec![config.name.clone(), "localhost".to_owned()];
        tls_names.extend(config.tls_names);
        Ok(Self {
            http: serve::bind(config.http_port).await?,
            alt: optional(config.alt_port).await?,
            tcp: optional(config.tcp_port).await?,
            tls: optional(config.tls_port).await?,
            tls_names,
            state: Arc::new(State {
                pod: if config.pod.is_empty() { hostname() } else { config.pod },
                name: config.name,
                fail_every: config.fail_every,
                counted: AtomicU64::new(0),
                counters: control::Counters::default(),
                recorder: recorder::Recorder::default(),
                faults: fault::Faults::default(),
                refuse,
            }),
            gate,
        })
    }

    /// The ports that were bound.
    pub fn ports(&self) -> io::Result<Ports> {
        let port = |listener: &Option<TcpListener>| match listener {
            Some(listener) => Ok::<u16, io::Error>(listener.local_addr()?.port()),
            None => Ok(0),
        };
        Ok(Ports {
            http: self.http.local_addr()?.port(),
            alt: port(&self.alt)?,
            tcp: port(&self.tcp)?,
            tls: port(&self.tls)?,
        })
    }

    /// Serves until `shutdown`, then until what is in flight is answered.
    pub async fn serve(self, shutdown: CancellationToken) -> io::Result<()> {
        let ports = self.ports()?;
        tracing::info!(service = self.state.name, pod = self.state.pod, ?ports, "echo is ready");
        let ids = Arc::new(AtomicU64::new(0));
        let state = self.state;
        let serve_http = |listener: Option<TcpListener>, tls| {
            let (gate, ids, shutdown) = (self.gate.clone(), Arc::clone(&ids), shutdown.clone());
            let state = Arc::clone(&state);
            async move {
                let Some(listener) = listener else { return Ok(()) };
                let handler = move |request, connection| http::answer(Arc::clone(&state), request, connection);
                Http { listener, tls, gate, ids }.serve(shutdown, handler).await
            }
        };
        let acceptor = match self.tls {
            Some(_) => Some(tls::acceptor(&self.tls_names).map_err(io::Error::other)?),
            None => None,
        };
        tokio::try_join!(
            serve_http(Some(self.http), None),
            serve_http(self.alt, None),
            serve_http(self.tls, acceptor),
            tcp::serve(self.tcp, Arc::clone(&state), self.gate.clone(), shutdown.clone()),
        )
        .map(|_| ())
    }
}
