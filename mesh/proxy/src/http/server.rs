//! Serving HTTP on a connection whose version is known.

use std::{convert::Infallible, pin::pin, time::Duration};

use http::{Request, Response};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tracing::debug;

use super::{Abort, BoxedRequest, Incoming, MAX_HEAD, RequestBody, ResponseBody, http1};
use crate::{io::Io, process::Drain};

/// A version of HTTP that a connection speaks from its first byte to its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// How long a client may take for a head once it has begun it: longer than one on a bad line needs. Linkerd has no limit.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Answers requests until the client leaves. When the proxy is to stop, requests in flight are still answered, and the
/// client is told to come back on another connection.
pub(crate) async fn serve<S, F>(io: Io, version: Version, drain: &Drain, service: S)
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
            if let Err(error) = serve_http2(io, drain, service).await {
                debug!(%error, "a client's connection ended");
            }
        }
    }
}

async fn serve_http2<S, F>(io: Io, drain: &Drain, service: S) -> hyper::Result<()>
where
    S: Fn(BoxedRequest) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<ResponseBody>, Abort>> + Send + 'static,
{
    let service =
        move |request: Request<hyper::body::Incoming>| service(RequestBody::pass(request.map(Incoming::Http2)));
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

async fn stopped(drain: &Drain) -> Result<(), Infallible> {
    drain.stopping().await;
    Ok(())
}
