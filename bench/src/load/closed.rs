//! Closed loops: each connection, or stream, asks again as soon as it is answered.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{self, Instant},
};

use super::{Target, Throughput};
use crate::{
    backend::BODY,
    http1,
    process::{Usage, own_waited},
};

/// After an error, how long a connection waits before it is made anew.
const PAUSE: Duration = Duration::from_millis(10);

/// How many requests there are at once, and over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Shape {
    /// So many connections of HTTP/1.1.
    Http1 { connections: usize },
    /// So many connections of HTTP/2 with so many streams each.
    Http2 { connections: usize, streams: usize },
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    errors: AtomicU64,
}

impl Counts {
    fn count(&self, result: &io::Result<bool>) {
        let counter = if matches!(result, Ok(true)) { &self.requests } else { &self.errors };
        counter.fetch_add(1, Relaxed);
    }
}

/// What there is to see of proxy and backend while a load runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sight {
    /// What the proxy has used so far.
    pub usage: Option<Usage>,
    pub resident_kib: Option<u64>,
    /// How many connections the backend has accepted so far.
    pub backend_connections: u64,
}

/// Runs a closed loop for `warm`, and then for `measured` with counting.
pub(crate) async fn closed(
    target: &Target,
    shape: Shape,
    warm: Duration,
    measured: Duration,
    look: impl Fn() -> Sight,
) -> Throughput {
    let counts = Arc::<Counts>::default();
    // They end with this set, and their connections with them.
    let mut connections = JoinSet::new();
    match shape {
        Shape::Http1 { connections: count } => {
            for _ in 0..count {
                connections.spawn(http1(target.clone(), Arc::clone(&counts)));
            }
        }
        Shape::Http2 { connections: count, streams } => {
            for _ in 0..count {
                connections.spawn(http2(target.clone(), streams, Arc::clone(&counts)));
            }
        }
    }
    time::sleep(warm).await;
    let (before, seen_before, waited_before) = (counts.requests.load(Relaxed), look(), own_waited());
    let start = Instant::now();
    time::sleep(measured).await;
    let (after, seconds) = (counts.requests.load(Relaxed), start.elapsed().as_secs_f64());
    let (seen, waited_after) = (look(), own_waited());
    let during = |number: fn(&Usage) -> Duration| {
        let (after, before) = (number(seen.usage.as_ref()?), number(seen_before.usage.as_ref()?));
        Some(after.saturating_sub(before).as_secs_f64())
    };
    let waited = waited_after.saturating_sub(waited_before).as_secs_f64();
    Throughput {
        requests: after - before,
        // Those of the warm-up too: an error is one.
        errors: counts.errors.load(Relaxed),
        seconds,
        cpu_seconds: during(|usage| usage.cpu),
        disturbed: waited.max(during(|usage| usage.waited).unwrap_or_default()) / seconds,
        resident_kib: seen.resident_kib,
        backend_connections: seen.backend_connections - seen_before.backend_connections,
    }
}

async fn http1(target: Target, counts: Arc<Counts>) {
    let request = target.request();
    loop {
        match http1::Connection::open(target.address).await {
            Ok(mut connection) => loop {
                let result = connection.exchange(&request).await;
                counts.count(&result);
                if result.is_err() {
                    break;
                }
            },
            Err(error) => counts.count(&Err(error)),
        }
        time::sleep(PAUSE).await;
    }
}

async fn http2(target: Target, streams: usize, counts: Arc<Counts>) {
    loop {
        if let Err(error) = http2_connection(&target, streams, &counts).await {
            counts.count(&Err(error));
        }
        time::sleep(PAUSE).await;
    }
}

/// Runs until the connection breaks.
async fn http2_connection(target: &Target, streams: usize, counts: &Arc<Counts>) -> io::Result<()> {
    let stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 20)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(io::Error::other)?;
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        let (mut sender, target, counts) = (sender.clone(), target.clone(), Arc::clone(counts));
        tasks.spawn(async move {
            loop {
                let result = http2_exchange(&mut sender, &target).await;
                counts.count(&result);
                if result.is_err() {
                    time::sleep(PAUSE).await;
                }
            }
        });
    }
    connection.await.map_err(io::Error::other)
}

async fn http2_exchange(sender: &mut h2::client::SendRequest<Bytes>, target: &Target) -> io::Result<bool> {
    let mut request = Request::get(format!("http://{}{}", target.host, target.path));
    for (name, value) in &target.headers {
        request = request.header(*name, value);
    }
    let request = request.body(()).map_err(io::Error::other)?;
    futures::future::poll_fn(|cx| sender.poll_ready(cx)).await.map_err(io::Error::other)?;
    let (response, _) = sender.send_request(request, true).map_err(io::Error::other)?;
    let response = response.await.map_err(io::Error::other)?;
    let status = response.status();
    let mut body = response.into_body();
    let mut length = 0;
    while let Some(data) = body.data().await {
        let data = data.map_err(io::Error::other)?;
        length += data.len();
        // An error is the connection's, which tells of it itself.
        let _ = body.flow_control().release_capacity(data.len());
    }
    Ok(status == 200 && length == BODY)
}
