//! Serving HTTP on a connection whose version is known.

use std::{convert::Infallible, pin::pin};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tracing::debug;

use super::{Abort, MAX_HEAD, ResponseBody};
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
    let io = TokioIo::new(io);
    let result = match version {
        Version::Http1 => {
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).auto_date_header(false).max_buf_size(MAX_HEAD.max(400 * 1024));
            // A client may take its time between requests; Linkerd sets no limit either.
            server.header_read_timeout(None);
            let mut connection = pin!(server.serve_connection(io, service_fn(service)).with_upgrades());
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
            let mut connection = pin!(server.serve_connection(io, service_fn(service)));
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

async fn stopped(drain: &Drain) -> Result<(), Infallible> {
    drain.stopping().await;
    Ok(())
}
