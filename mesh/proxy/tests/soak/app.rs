//! The applications: they keep account of every request, and say with the answer whose it is.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time,
};
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;

pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The first byte of a connection that is not HTTP.
pub const OPAQUE: u8 = 0;
pub const UPGRADE: &str = "soak-echo";

/// What a request asks of the application.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub id: u64,
    /// Of the request's body.
    pub length: usize,
    pub delay: Duration,
    /// Of the response's body, and in how many pieces it comes.
    pub size: usize,
    pub pieces: usize,
}

impl Asked {
    pub fn header(&self) -> String {
        format!("{} {} {} {} {}", self.id, self.length, self.delay.as_millis(), self.size, self.pieces)
    }

    fn of(headers: &HeaderMap) -> Option<Self> {
        let header = headers.get("x-asked")?.to_str().ok()?;
        let numbers: Vec<u64> = header.split(' ').map(|it| it.parse().ok()).collect::<Option<_>>()?;
        let [id, length, delay, size, pieces] = numbers[..] else { return None };
        let [length, size, pieces] = [length, size, pieces].map(|it| it as usize);
        Some(Self { id, length, delay: Duration::from_millis(delay), size, pieces })
    }
}

/// Bytes that no other number has.
pub fn pattern(number: u64, length: usize) -> Bytes {
    let word = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let mut bytes = word.repeat(length.div_ceil(word.len()));
    bytes.truncate(length);
    // Of a repetition it would not be known whether a part is missing.
    for (position, chunk) in bytes.chunks_mut(64).enumerate() {
        chunk[0] ^= position as u8;
    }
    bytes.into()
}

/// An application of one pod.
pub struct App {
    pub address: SocketAddr,
    pod: u32,
    ledger: Arc<Ledger>,
    /// Ends its connections where they are.
    cut: CancellationToken,
    round: Option<Round>,
}

/// From when it begins to listen until it does no more.
struct Round {
    over: CancellationToken,
    accept: JoinHandle<()>,
}

impl App {
    pub async fn start(pod: u32, ledger: &Arc<Ledger>) -> Self {
        let address = TcpListener::bind("127.2.0.1:0").await.unwrap().local_addr().unwrap();
        let mut app = Self { address, pod, ledger: Arc::clone(ledger), cut: CancellationToken::new(), round: None };
        app.listen().await;
        app
    }

    pub async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let over = CancellationToken::new();
        let (pod, ledger, cut, closing) = (self.pod, Arc::clone(&self.ledger), self.cut.clone(), over.clone());
        let accept = tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = closing.cancelled() => return,
                };
                // Whoever is gone already needs no answer.
                let Ok((stream, _)) = accepted else { continue };
                let (ledger, cut, closing) = (Arc::clone(&ledger), cut.clone(), closing.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = serve(stream, pod, ledger, cut.clone(), closing) => {}
                        () = cut.cancelled() => {}
                    }
                });
            }
        });
        self.round = Some(Round { over, accept });
    }

    /// Refuses connections from now on; what has begun is finished.
    pub async fn refuse(&mut self) {
        if let Some(Round { over, accept }) = self.round.take() {
            over.cancel();
            accept.await.unwrap();
        }
    }

    pub fn kill(&self) {
        self.cut.cancel();
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.cut.cancel();
        if let Some(Round { over, .. }) = self.round.take() {
            over.cancel();
        }
    }
}

async fn serve(stream: TcpStream, pod: u32, ledger: Arc<Ledger>, cut: CancellationToken, closing: CancellationToken) {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) if first == [OPAQUE] => return echo(stream).await,
        Ok(1) => {}
        _ => return,
    }
    let service = service_fn(move |request| {
        let (ledger, cut) = (Arc::clone(&ledger), cut.clone());
        async move { Ok::<_, Infallible>(answer(request, pod, &ledger, cut).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn echo(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite) {
    let (mut from, mut to) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut to).await;
}

async fn answer(mut request: Request<Incoming>, pod: u32, ledger: &Ledger, cut: CancellationToken) -> Response<Body> {
    let status = |status: u16| {
        let mut response = Response::new(Empty::new().boxed_unsync());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    };
    if request.headers().contains_key("x-probe") {
        return status(200);
    }
    let Some(asked) = Asked::of(request.headers()) else { return status(400) };
    ledger.arrived(asked.id, pod);
    let client = request.headers().get("l5d-client-id").cloned();
    if request.headers().contains_key(header::UPGRADE) {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let Ok(upgraded) = upgraded.await else { return };
            tokio::select! {
                () = echo(TokioIo::new(upgraded)) => {}
                () = cut.cancelled() => {}
            }
        });
        let mut response = status(101);
        response.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
        response.headers_mut().insert(header::UPGRADE, UPGRADE.parse().unwrap());
        return response;
    }
    match request.into_body().collect().await {
        Ok(body) => ledger.whole(asked.id, body.to_bytes() == pattern(!asked.id, asked.length)),
        // Whoever sent it does not wait for an answer any more.
        Err(_) => return status(400),
    }
    time::sleep(asked.delay).await;
    let mut response = Response::new(body(pattern(asked.id, asked.size), asked.pieces));
    response.headers_mut().insert("x-id", asked.id.into());
    if let Some(client) = client {
        response.headers_mut().insert("x-client", client);
    }
    response
}

/// In one piece, or in several with pauses.
pub fn body(bytes: Bytes, pieces: usize) -> Body {
    if pieces <= 1 {
        return Full::new(bytes).boxed_unsync();
    }
    let piece = bytes.len().div_ceil(pieces).max(1);
    let frames: Vec<_> = bytes.chunks(piece).map(|chunk| bytes.slice_ref(chunk)).collect();
    let frames = futures::stream::iter(frames).then(|frame| async {
        time::sleep(Duration::from_millis(3)).await;
        Ok(Frame::data(frame))
    });
    StreamBody::new(frames).boxed_unsync()
}
