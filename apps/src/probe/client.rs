//! A client with its connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::model::{Connection, Keep, Request, Scheme, Version};
use super::record::{Record, Recording};
use super::{Connect, http1, http2, tls};

/// Sends one request after the other, over connections that it keeps.
pub struct Client<'c> {
    connect: &'c dyn Connect,
    kept: HashMap<Key, Link>,
    /// The last connection id given out.
    ids: Arc<AtomicU64>,
    clock: Instant,
}

/// What makes a connection fit for a request.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    scheme: Scheme,
    target: String,
    server_name: String,
    http2: bool,
    /// Named connections to one target are different ones.
    name: Option<String>,
}

struct Link {
    id: u64,
    protocol: Protocol,
    peer: Option<tls::Peer>,
}

enum Protocol {
    Http1(http1::Link),
    Http2(http2::Link),
}

impl<'c> Client<'c> {
    /// A client without connections.
    pub fn new(connect: &'c dyn Connect) -> Self {
        Self::of_batch(connect, Arc::default(), Instant::now())
    }

    /// A client that shares connection ids and the clock with others.
    pub(super) fn of_batch(connect: &'c dyn Connect, ids: Arc<AtomicU64>, clock: Instant) -> Self {
        Self { connect, kept: HashMap::new(), ids, clock }
    }

    /// Sends a request and waits for the whole answer, or for what prevents it. A connection goes back among the kept ones
    /// unless the request was to have one of its own, or the answer forbids it.
    pub async fn send(&mut self, request: &Request, keep: Keep) -> Record {
        let mut recording = Recording::new(&request.id, keep, self.clock);
        let limit = Duration::from_millis(request.timeout_ms);
        let result = tokio::time::timeout(limit, self.exchange(request, &mut recording)).await;
        recording.finish(result.unwrap_or_else(|_| Err(Failure::timeout(request.timeout_ms))))
    }

    async fn exchange(&mut self, request: &Request, recording: &mut Recording) -> Result<(), Failure> {
        let name = match &request.connection {
            Connection::New => None,
            Connection::PerWorker => Some(String::new()),
            Connection::Named(name) => Some(name.clone()),
        };
        let key = Key {
            scheme: request.scheme,
            target: request.target.clone(),
            server_name: if request.scheme == Scheme::Https { request.server_name().to_owned() } else { String::new() },
            http2: request.version == Version::H2c,
            name,
        };
        let mut kept = if request.connection == Connection::New { None } else { self.kept.remove(&key) };
        if kept.as_mut().is_some_and(|link| !link.protocol.is_alive()) {
            kept = None;
        }
        recording.record.reused = kept.is_some();
        let mut link = match kept {
            Some(link) => link,
            None => self.open(request).await?,
        };
        recording.record.connection_id = link.id;
        recording.record.tls.clone_from(&link.peer);
        let reusable = match &mut link.protocol {
            Protocol::Http1(link) => link.exchange(request, recording).await?,
            Protocol::Http2(link) => link.exchange(request, recording).await?,
        };
        if reusable && request.connection != Connection::New {
            self.kept.insert(key, link);
        }
        Ok(())
    }

    async fn open(&mut self, request: &Request) -> Result<Link, Failure> {
        let mut stream = self.connect.connect(&request.target).await?;
        let id = self.ids.fetch_add(1, Ordering::Relaxed) + 1;
        let http2 = request.version == Version::H2c;
        let mut peer = None;
        if request.scheme == Scheme::Https {
            let alpn: &[&str] = if http2 { &["h2"] } else { &["http/1.1"] };
            let (secured, found) = tls::secure(stream, request.server_name(), alpn).await?;
            (stream, peer) = (secured, Some(found));
        }
        let protocol = if http2 {
            Protocol::Http2(http2::Link::open(stream).await?)
        } else {
            Protocol::Http1(http1::Link::new(stream))
        };
        Ok(Link { id, protocol, peer })
    }
}

impl Protocol {
    fn is_alive(&mut self) -> bool {
        match self {
            Self::Http1(link) => link.is_alive(),
            Self::Http2(link) => link.is_alive(),
        }
    }
}
