//! The admin server: `/metrics`, `/ready`, `/live` and, if enabled, `/shutdown`.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tracing::{debug, warn};

use crate::{identity::LocalIdentity, metrics::Metrics, process::Drain};

/// Answers until the process ends: metrics can be read while the proxy stops.
pub(crate) fn serve(listener: TcpListener, metrics: Metrics, identity: LocalIdentity, shutdown: bool, drain: Drain) {
    tokio::spawn(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "a connection to the admin server could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    continue;
                }
            };
            let (metrics, identity, drain) = (metrics.clone(), identity.clone(), drain.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let response = answer(&request, &metrics, identity.is_certified(), shutdown, &drain);
                    async move { Ok::<_, Infallible>(response) }
                });
                if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
                    debug!(%error, "an admin connection ended");
                }
            });
        }
    });
}

fn answer(
    request: &Request<Incoming>,
    metrics: &Metrics,
    certified: bool,
    shutdown: bool,
    drain: &Drain,
) -> Response<Full<Bytes>> {
    let text = |status: StatusCode, body: String| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
        response
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            // As exporters have it: `name[]` for these families, `exclude[]` for all others. Of a busy proxy's three megabytes,
            // three quarters are buckets of latencies.
            let query = request.uri().query().unwrap_or_default();
            let all = |key: &str| -> Vec<&str> { query.split('&').filter_map(|pair| pair.strip_prefix(key)).collect() };
            let (named, excluded) = (all("name[]="), all("exclude[]="));
            let left_out = |family: &str| excluded.contains(&family) || !named.is_empty() && !named.contains(&family);
            text(StatusCode::OK, metrics.registry.render(left_out))
        }
        (&Method::GET, "/ready") if certified => text(StatusCode::OK, "ready\n".to_owned()),
        (&Method::GET, "/ready") => {
            text(StatusCode::SERVICE_UNAVAILABLE, "not ready: no certificate has been issued yet\n".to_owned())
        }
        (&Method::GET, "/live") => text(StatusCode::OK, "live\n".to_owned()),
        (&Method::POST, "/shutdown") if shutdown => {
            drain.stop();
            text(StatusCode::OK, "shutdown\n".to_owned())
        }
        (&Method::POST, "/shutdown") => {
            let hint = "shutdown endpoint is not enabled: set LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED=true\n";
            text(StatusCode::NOT_FOUND, hint.to_owned())
        }
        (_, "/metrics" | "/ready" | "/live" | "/shutdown") => text(StatusCode::METHOD_NOT_ALLOWED, String::new()),
        _ => text(StatusCode::NOT_FOUND, String::new()),
    }
}
