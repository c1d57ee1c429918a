//! Serving HTTP on a connection whose version is known.

use std::{convert::Infallible, error::Error, pin::pin, sync::Arc, time::Duration};

use futures::TryFutureExt;
use http::{Request, Response};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Notify;
use tracing::debug;

use super::{Abort, BoxedRequest, Incoming, MAX_HEAD, RequestBody, ResponseBody, http1};
use crate::{KeepAlive, detect::H2_PREFACE, io::Io, process::Drain};

/// A version of HTTP that a connection speaks from its first byte to its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// In a response: it is the last on its connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Last;

/// How long a client may take for a head once it has begun it: longer than one on a bad line needs. Linkerd has no limit. Of HTTP/2 it
/// is the preface that may take so long; behind that `KeepAlive` holds, which a client that stops within a frame, or between the parts of
/// a head, cannot answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Answers requests until the client leaves. When the proxy is to stop, requests in flight are still answered, and the
/// client is told to come back on another connection. One that speaks HTTP/2 is left when it is not there any more, by `keep_alive`.
pub(crate) async fn serve<S, F>(io: Io, version: Version, keep_alive: Option<KeepAlive>, drain: &Drain, service: S)
where
    S: Fn(BoxedRequest) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<ResponseBody>, Abort>> + Send + 'static,
{
    match version {
        Version::Http1 => {
            if let Err(error) = http1::serve(io, HEAD_TIMEOUT, drain, service).await {
                debug!(%error, "a client's connection ended");
            }
        }
        Version::Http2 => {
            if let Err(error) = serve_http2(io, HEAD_TIMEOUT, keep_alive, drain, service).await {
                debug!(%error, "a client's connection ended");
            }
        }
    }
}

async fn serve_http2<S, F>(
    mut io: Io,
    head_timeout: Duration,
    keep_alive: Option<KeepAlive>,
    drain: &Drain,
    service: S,
) -> Result<(), Box<dyn Error + Send + Sync>>
where
    S: Fn(BoxedRequest) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<ResponseBody>, Abort>> + Send + 'static,
{
    tokio::select! {
        // Whoever has said it already is served even if the proxy is to stop.
        biased;
        begun = io.begins(H2_PREFACE, head_timeout) => begun?,
        () = drain.stopping() => return Ok(()),
    }
    let last = Arc::new(Notify::new());
    let ends = Arc::clone(&last);
    let service = move |request: Request<hyper::body::Incoming>| {
        let last = Arc::clone(&last);
        let answer = service(RequestBody::pass(request.map(Incoming::Http2)));
        answer.inspect_ok(move |response| {
            if response.extensions().get::<Last>().is_some() {
                last.notify_one();
            }
        })
    };
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(1024 * 1024)
        .max_header_list_size(MAX_HEAD as u32);
    if let Some(KeepAlive { interval, timeout }) = keep_alive {
        server.keep_alive_interval(interval).keep_alive_timeout(timeout);
    }
    let mut connection = pin!(server.serve_connection(TokioIo::new(io), service_fn(service)));
    let served = tokio::select! {
        result = &mut connection => result,
        Ok(()) = ended(drain, &ends) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    Ok(served?)
}

/// When no further request is taken.
async fn ended(drain: &Drain, last: &Notify) -> Result<(), Infallible> {
    tokio::select! {
        () = drain.stopping() => {}
        () = last.notified() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::future;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        time,
    };

    use super::*;
    use crate::{
        io::Transport,
        metrics::{Labels, Metrics},
    };

    const TIMEOUT: Duration = Duration::from_millis(300);

    /// A client of a server that does not ask whether it is there, and that waits so long for the preface.
    async fn client(head_timeout: Duration) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let counters = Metrics::new().tcp.scope(Labels::new()).opened();
        tokio::spawn(async move {
            let (io, drain) = (Io::new(Transport::Left(stream), counters), Drain::default());
            let answer = |_| future::ready(Ok(Response::new(ResponseBody::empty())));
            let _ = serve_http2(io, head_timeout, None, &drain, answer).await;
        });
        client
    }

    /// Everything up to the end of the connection, if that comes.
    async fn read(client: &mut TcpStream, within: Duration) -> Option<Vec<u8>> {
        let mut read = Vec::new();
        let ended = time::timeout(within, client.read_to_end(&mut read)).await.is_ok();
        ended.then_some(read)
    }

    #[tokio::test]
    async fn a_preface_that_does_not_go_on_ends_its_connection() {
        for part in [0, 14, H2_PREFACE.len() - 1] {
            let mut client = client(TIMEOUT).await;
            client.write_all(&H2_PREFACE[..part]).await.unwrap();
            assert_eq!(read(&mut client, 20 * TIMEOUT).await, Some(Vec::new()), "{part} bytes, and nobody minds");
        }
        // What is none is not waited for, however short it is.
        let mut other = client(Duration::from_secs(3600)).await;
        other.write_all(b"PRI /").await.unwrap();
        assert!(read(&mut other, 20 * TIMEOUT).await.is_some(), "it is waited for");

        // The control: who has said all of it may be silent for as long as it likes, here as nobody asks.
        let mut idle = client(TIMEOUT).await;
        idle.write_all(&[H2_PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat()).await.unwrap();
        assert_eq!(read(&mut idle, 3 * TIMEOUT).await, None);
    }
}
