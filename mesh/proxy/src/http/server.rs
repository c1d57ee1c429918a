//! Serving HTTP on a connection whose version is known.

use std::{
    convert::Infallible,
    future::{self, Ready},
    pin::pin,
    time::Duration,
};

use futures::future::Either;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::{
    Abort, MAX_HEAD, Respond, ResponseBody,
    head_timeout::{HEAD_TIMEOUT, noticed},
    headers::check_head,
};
use crate::{io::Io, process::Drain};

/// A version of HTTP that a connection speaks from its first byte to its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// Answers requests until the client leaves. When the proxy is to stop, requests in flight are still answered, and the
/// client is told to come back on another connection.
pub(crate) async fn serve<S, F>(io: Io, version: Version, drain: &Drain, service: S)
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<ResponseBody>, Abort>> + Send + 'static,
{
    serve_on(io, version, HEAD_TIMEOUT, drain, service).await;
}

async fn serve_on<S, F>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    version: Version,
    head_timeout: Duration,
    drain: &Drain,
    service: S,
) where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<ResponseBody>, Abort>> + Send + 'static,
{
    let service = move |request| answer(request, &service);
    let result = match version {
        Version::Http1 => {
            let mut server = http1::Builder::new();
            let (io, timer) = noticed(io);
            server.timer(timer).header_read_timeout(head_timeout).auto_date_header(false).max_header_size(MAX_HEAD);
            let mut connection = pin!(server.serve_connection(TokioIo::new(io), service_fn(service)).with_upgrades());
            tokio::select! {
                result = &mut connection => result,
                Ok(()) = stopped(drain) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
        Version::Http2 => {
            let mut server = http2::Builder::new(TokioExecutor::new());
            server
                .timer(TokioTimer::new())
                .auto_date_header(false)
                .initial_stream_window_size(65_535)
                .initial_connection_window_size(1024 * 1024)
                .max_header_list_size(MAX_HEAD as u32);
            let mut connection = pin!(server.serve_connection(TokioIo::new(io), service_fn(service)));
            tokio::select! {
                result = &mut connection => result,
                Ok(()) = stopped(drain) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = result {
        debug!(%error, "a client's connection ended");
    }
}

/// What the service answers, if the request's head has one meaning only.
fn answer<S, F>(request: Request<Incoming>, service: S) -> Either<F, Ready<F::Output>>
where
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<ResponseBody>, Abort>>,
{
    match check_head(&request) {
        Ok(()) => Either::Left(service(request)),
        Err(error) => Either::Right(future::ready(Respond::to(&request, false).with(error))),
    }
}

async fn stopped(drain: &Drain) -> Result<(), Infallible> {
    drain.stopping().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
        time,
    };

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(300);
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    fn client() -> DuplexStream {
        let (client, server) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let service = |_| future::ready(Ok(Response::new(ResponseBody::empty())));
            serve_on(server, Version::Http1, TIMEOUT, &Drain::default(), service).await;
        });
        client
    }

    async fn ask(client: &mut DuplexStream, request: &[u8]) {
        client.write_all(request).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert!(client.read_buf(&mut head).await.unwrap() > 0, "the connection was cut");
        }
        assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", head.escape_ascii());
    }

    /// Sends the start of a head byte by byte, without a pause long enough to be noticed; when the connection was cut.
    async fn dribble(client: &mut DuplexStream) -> time::Instant {
        let begun = time::Instant::now();
        for byte in REQUEST.iter().chain(b"x-more: ").chain(std::iter::repeat(&b'a')) {
            let byte = if *byte == b'\n' { b' ' } else { *byte };
            if client.write_all(&[byte]).await.is_err() {
                break;
            }
            assert!(begun.elapsed() < 20 * TIMEOUT, "the head never ends and nobody minds");
            time::sleep(TIMEOUT / 10).await;
        }
        time::Instant::now()
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_is_cut_and_an_idle_connection_is_not() {
        // Idle from the start, idle after a request, and the same with bytes that are not yet a head.
        let (mut fresh, mut kept) = (client(), client());
        ask(&mut kept, REQUEST).await;
        for first in [true, false] {
            let mut slow = client();
            if !first {
                ask(&mut slow, REQUEST).await;
            }
            let begun = time::Instant::now();
            // It is the first byte that counts, not the last.
            slow.write_all(b"GET / HT").await.unwrap();
            let cut = slow.read(&mut [0; 64]).await;
            assert!(matches!(cut, Ok(0) | Err(_)), "something was answered to half a head");
            assert!(begun.elapsed() >= TIMEOUT);
        }
        // Meanwhile the limit has passed twice.
        ask(&mut fresh, REQUEST).await;
        ask(&mut kept, REQUEST).await;
    }

    #[tokio::test]
    async fn a_head_that_comes_slowly_may_take_as_long_as_the_limit_and_no_longer() {
        let mut slow = client();
        let begun = time::Instant::now();
        let cut = dribble(&mut slow).await;
        assert!(cut - begun >= TIMEOUT);
        // The control: one that ends in time is served, however it is cut.
        let mut client = client();
        for byte in &REQUEST[..REQUEST.len() - 1] {
            client.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        ask(&mut client, &REQUEST[REQUEST.len() - 1..]).await;
    }
}
