//! Sending requests into the cluster from where clients are.
//!
//! The engine is [`meshgate_apps::probe`], the same that the probe pod runs; here it gets sockets of the cluster's vantage points.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use meshgate_apps::probe::{self, Stream};
use meshgate_clusters::{Cluster, Vantage};

use crate::convergence::patient;

pub use meshgate_apps::probe::{
    Batch, Connect, Connection, ErrorKind, Keep, Payload, Record, Request, Scheme, Seen, Summary, Version, grpc, raw,
    tls, websocket,
};

/// How long an answer of a pod may take that is asked for metrics, or to send requests itself.
const EXCHANGE: Duration = Duration::from_secs(60);

/// Sends requests from the vantage points of a cluster.
#[derive(Clone)]
pub struct Prober {
    cluster: Arc<dyn Cluster>,
}

/// Sockets of one vantage point. Targets are addresses: outside, there is no DNS of the cluster.
pub struct From {
    cluster: Arc<dyn Cluster>,
    vantage: Vantage,
}

impl Connect for From {
    fn connect<'a>(&'a self, target: &'a str) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            let to: SocketAddr = target.parse().map_err(|_| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("expected address:port to connect to, found {target:?}"),
                )
            })?;
            Ok(Box::pin(self.cluster.connect(self.vantage, to).await?) as Stream)
        })
    }
}

impl Prober {
    /// For a cluster.
    pub fn new(cluster: Arc<dyn Cluster>) -> Self {
        Self { cluster }
    }

    /// The sockets of a vantage point, for what is no single request.
    pub fn from(&self, vantage: Vantage) -> From {
        From { cluster: Arc::clone(&self.cluster), vantage }
    }

    /// Sends one request on a connection of its own.
    pub async fn send(&self, vantage: Vantage, request: &Request) -> Record {
        self.run(vantage, &Batch::of(vec![request.clone()])).await.pop().unwrap_or_default()
    }

    /// Sends a batch.
    pub async fn run(&self, vantage: Vantage, batch: &Batch) -> Vec<Record> {
        probe::run(batch, &self.from(vantage)).await
    }

    /// Has the probe pod at this address send a batch.
    ///
    /// # Errors
    /// When the pod does not answer with records.
    pub async fn run_inside(&self, pod: SocketAddr, batch: &Batch) -> anyhow::Result<Vec<Record>> {
        let body = serde_json::to_vec(batch)?;
        let request =
            http::Request::post("/batch").header("content-type", "application/json").body(Full::from(body))?;
        serde_json::from_slice(&self.exchange(pod, request).await?).context("the probe pod's answer")
    }

    /// GETs a whole document, of any length, from the node.
    ///
    /// # Errors
    /// When there is no 200.
    pub async fn fetch(&self, from: SocketAddr, path: &str) -> anyhow::Result<String> {
        let request = http::Request::get(path).body(Full::default())?;
        let body = self.exchange(from, request).await?;
        String::from_utf8(body.into()).with_context(|| format!("GET {from}{path}"))
    }

    async fn exchange(
        &self,
        to: SocketAddr,
        request: http::Request<Full<bytes::Bytes>>,
    ) -> anyhow::Result<bytes::Bytes> {
        let what = format!("{} {to}{}", request.method(), request.uri());
        match tokio::time::timeout(patient(EXCHANGE), self.exchanged(to, request)).await {
            Ok(exchanged) => exchanged,
            Err(_) => bail!("{what}: expected an answer within {} s, found none", patient(EXCHANGE).as_secs()),
        }
    }

    async fn exchanged(
        &self,
        to: SocketAddr,
        mut request: http::Request<Full<bytes::Bytes>>,
    ) -> anyhow::Result<bytes::Bytes> {
        let what = format!("{} {to}{}", request.method(), request.uri());
        request.headers_mut().insert(http::header::HOST, to.to_string().parse()?);
        let stream = self.cluster.connect(Vantage::Node, to).await.with_context(|| what.clone())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.with_context(|| what.clone())?;
        let status = response.status();
        let body = response.into_body().collect().await.with_context(|| what.clone())?.to_bytes();
        if status != http::StatusCode::OK {
            bail!("{what}: expected 200, found {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }
}

/// A request in a few words, for messages.
pub fn describe(request: &Request) -> String {
    let host = request.host.as_deref().unwrap_or(&request.target);
    format!("{} {host}{}", request.method, request.path)
}

/// An answer in a few words: its status or error, who answered, and the start of a body that is not an echo backend's.
pub fn outcome(record: &Record) -> String {
    match &record.seen {
        Some(seen) => format!("{} from {}", record.outcome(), seen.service),
        None => {
            let body: String = record.body.chars().take(120).collect();
            let error: Vec<&str> = record.header("l5d-proxy-error").collect();
            format!("{} {} {}", record.outcome(), error.join(", "), body.trim()).trim_end().to_owned()
        }
    }
}
