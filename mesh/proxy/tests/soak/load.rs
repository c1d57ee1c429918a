//! The clients. Each asks for something, compares what it gets with what it asked for, and asks for the next.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Collected};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{Asked, Body, OPAQUE, UPGRADE, body, pattern},
    ledger::{Class, Finished, Ledger, Outcome},
    support::Connection,
};

/// A request that takes longer hangs.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Between the requests of one client, at most.
const PAUSE_MS: u64 = 20;
const STREAMS: usize = 4;
const LARGEST: usize = 100 * 1024;

/// Clients behind one proxy.
#[derive(Clone)]
pub struct Clients {
    pub ledger: Arc<Ledger>,
    pub from: IpAddr,
    pub proxy: SocketAddr,
    /// Who applications are told that they are.
    pub identity: &'static str,
    /// They only ask plain things, since policies refuse them at times.
    pub marked: bool,
    pub stop: CancellationToken,
}

#[derive(Debug, Clone, Copy)]
pub enum Client {
    /// HTTP/1, on one connection as long as that lasts.
    Kept,
    /// HTTP/1, with a connection for each request.
    New,
    /// Several requests at a time on one HTTP/2 connection.
    Streams,
    Upgrading,
    Opaque,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// One thing that is asked for.
struct Question {
    asked: Asked,
    class: Class,
    method: Method,
    /// In how many pieces its body is sent.
    pieces: usize,
}

impl Clients {
    pub fn spawn(&self, client: Client, seed: u64, tasks: &mut JoinSet<()>) {
        let (clients, rng) = (self.clone(), StdRng::seed_from_u64(seed));
        tasks.spawn(async move { clients.run(client, rng).await });
    }

    async fn run(self, client: Client, mut rng: StdRng) {
        let mut kept = None;
        while !self.stop.is_cancelled() {
            match client {
                Client::Kept => self.one(&mut kept, &mut rng).await,
                Client::New => self.one(&mut None, &mut rng).await,
                Client::Streams => self.several(&mut kept, &mut rng).await,
                Client::Upgrading | Client::Opaque => self.connection(client, &mut rng).await,
            }
            time::sleep(Duration::from_millis(rng.random_range(0..PAUSE_MS))).await;
        }
    }

    async fn one(&self, kept: &mut Option<Sender>, rng: &mut StdRng) {
        let question = self.question(rng);
        let exchange = async {
            loop {
                let mut sender = match kept.take() {
                    Some(sender) => sender,
                    None => self.http1().await,
                };
                let Sender::Http1(connection) = &mut sender else { panic!("not a connection of this client") };
                // It has ended since the last answer; nothing was sent.
                if connection.ready().await.is_err() {
                    continue;
                }
                let (outcome, usable) = self.ask(&mut sender, &question).await;
                if usable {
                    *kept = Some(sender);
                }
                return outcome;
            }
        };
        self.account(question.asked.id, question.class, exchange).await;
    }

    async fn several(&self, kept: &mut Option<Sender>, rng: &mut StdRng) {
        let sender = match kept.take() {
            Some(Sender::Http2(sender)) if !sender.is_closed() => sender,
            _ => self.http2().await,
        };
        let questions: Vec<_> = (0..STREAMS).map(|_| self.question(rng)).collect();
        let exchanges = questions.iter().map(|question| {
            let mut sender = Sender::Http2(sender.clone());
            let exchange = async move { self.ask(&mut sender, question).await.0 };
            self.account(question.asked.id, question.class, exchange)
        });
        futures::future::join_all(exchanges).await;
        *kept = Some(Sender::Http2(sender));
    }

    async fn account(&self, id: u64, class: Class, exchange: impl Future<Output = Outcome>) {
        let from = Instant::now();
        let outcome = time::timeout(DEADLINE, exchange).await.unwrap_or(Outcome::TimedOut);
        self.ledger.finished(Finished { id, class, from, until: Instant::now(), outcome });
    }

    fn question(&self, rng: &mut StdRng) -> Question {
        let size = |rng: &mut StdRng| match rng.random_range(0..10) {
            0 => rng.random_range(0..LARGEST),
            _ => rng.random_range(0..2048),
        };
        let kind = if self.marked { 0 } else { rng.random_range(0..20) };
        let (class, method) = match kind {
            0..12 => (Class::Plain, Method::GET),
            12..13 => (Class::Plain, Method::DELETE),
            13..14 => (Class::Once, Method::POST),
            14..18 => (Class::Body { idempotent: false }, Method::POST),
            _ => (Class::Body { idempotent: true }, Method::PUT),
        };
        let class = if self.marked { Class::Marked } else { class };
        let length = if matches!(class, Class::Body { .. }) { 1 + size(rng) } else { 0 };
        let asked = Asked {
            id: self.ledger.id(),
            length,
            delay: Duration::from_millis(rng.random_range(0..20)),
            size: size(rng),
            pieces: if rng.random_bool(0.2) { 5 } else { 1 },
        };
        Question { asked, class, method, pieces: if rng.random_bool(0.3) { 4 } else { 1 } }
    }

    /// What comes of a request, and whether its HTTP/1 connection can be used again.
    async fn ask(&self, sender: &mut Sender, question: &Question) -> (Outcome, bool) {
        let Question { asked, method, pieces, .. } = question;
        let request = Request::builder().method(method.clone()).header("x-asked", asked.header());
        let body = match asked.length {
            0 => body(Bytes::new(), 1),
            length => body(pattern(!asked.id, length), *pieces),
        };
        let response = match sender {
            Sender::Http1(sender) => {
                let request = request.uri("/").header(header::HOST, "web").body(body).unwrap();
                sender.send_request(request).await
            }
            Sender::Http2(sender) => sender.send_request(request.uri("http://web/").body(body).unwrap()).await,
        };
        match response {
            Ok(response) => {
                let usable = response.headers().get(header::CONNECTION).is_none_or(|value| value != "close");
                let outcome = self.judge(response, *asked).await;
                let broken = matches!(outcome, Outcome::Cut(_));
                (outcome, usable && !broken)
            }
            Err(error) => (Outcome::Unanswered(chain(&error)), false),
        }
    }

    async fn judge(&self, response: Response<Incoming>, asked: Asked) -> Outcome {
        let (head, body) = response.into_parts();
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match head.status {
            StatusCode::OK => {}
            StatusCode::FORBIDDEN => return Outcome::Forbidden,
            status => return Outcome::Failed(format!("{} {}", status.as_u16(), header("l5d-proxy-error"))),
        }
        if header("x-id") != asked.id.to_string() {
            return Outcome::Wrong(format!("the answer is that of request {:?}", header("x-id")));
        }
        if header("x-client") != self.identity {
            return Outcome::Wrong(format!("the application took {} for {:?}", self.identity, header("x-client")));
        }
        match body.collect().await.map(Collected::to_bytes) {
            Ok(body) if body == pattern(asked.id, asked.size) => Outcome::Answered,
            Ok(_) => Outcome::Wrong("the body is not what the application sent".to_owned()),
            Err(error) => Outcome::Cut(chain(&error)),
        }
    }

    /// Bytes there and back, on a connection that is not HTTP or is so no longer.
    async fn connection(&self, client: Client, rng: &mut StdRng) {
        let id = self.ledger.id();
        let bytes = [&[OPAQUE][..], &pattern(id, rng.random_range(1..LARGEST))].concat();
        let exchange = async {
            let stream = Connection::open(self.from, self.proxy).await.stream;
            if matches!(client, Client::Opaque) {
                return there_and_back(stream, &bytes).await;
            }
            let (mut sender, connection) = http1::handshake::<_, Body>(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection.with_upgrades());
            let asked = Asked { id, length: 0, delay: Duration::ZERO, size: 0, pieces: 1 };
            let request = Request::get("/").header(header::HOST, "web").header("x-asked", asked.header());
            let request = request.header(header::CONNECTION, "upgrade").header(header::UPGRADE, UPGRADE);
            match sender.send_request(request.body(body(Bytes::new(), 1)).unwrap()).await {
                Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    match hyper::upgrade::on(response).await {
                        Ok(upgraded) => there_and_back(TokioIo::new(upgraded), &bytes).await,
                        Err(error) => Outcome::Cut(chain(&error)),
                    }
                }
                Ok(response) => Outcome::Failed(format!("{} to an upgrade", response.status())),
                Err(error) => Outcome::Unanswered(chain(&error)),
            }
        };
        self.account(id, Class::Connection, exchange).await;
    }

    async fn http1(&self) -> Sender {
        let io = TokioIo::new(Connection::open(self.from, self.proxy).await.stream);
        let (sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        Sender::Http1(sender)
    }

    async fn http2(&self) -> http2::SendRequest<Body> {
        let io = TokioIo::new(Connection::open(self.from, self.proxy).await.stream);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

async fn there_and_back(stream: impl AsyncRead + AsyncWrite, bytes: &[u8]) -> Outcome {
    let (mut from, mut to) = tokio::io::split(stream);
    let send = async {
        to.write_all(bytes).await?;
        to.shutdown().await
    };
    let mut back = Vec::new();
    let (sent, read) = tokio::join!(send, from.read_to_end(&mut back));
    match (sent, read) {
        _ if !bytes.starts_with(&back) => Outcome::Wrong("other bytes came back".to_owned()),
        (Ok(()), Ok(_)) if back.len() == bytes.len() => Outcome::Answered,
        (sent, read) => Outcome::Cut(format!("{} of {} bytes came back: {sent:?}, {read:?}", back.len(), bytes.len())),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
