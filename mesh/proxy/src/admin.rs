//! The admin server.
//!
//! | path | method | what |
//! |---|---|---|
//! | `/metrics` | GET | every family, or those of `?name[]=`, or all but those of `?exclude[]=`, by name or kind; in gzip if asked for |
//! | `/live`, `/ready` | GET | 200; `/ready` 503 as long as there is no certificate |
//! | `/env.json` | GET | the variables `LINKERD2_PROXY_*` and `MESHGATE_PROXY_*` that are set, or those that the query names (`?A&B`) |
//! | `/proxy-log-level` | GET, PUT | the filter of the log; only from loopback |
//! | `/shutdown` | POST | stops the proxy, if that is enabled; only from loopback |
//!
//! `/env.json` shows less than Linkerd's does, which is the whole environment of the process: no variable that is not the proxy's, and
//! no private key. What it shows of the identity is the name, the token's file and the trust anchors, which are no secrets.

mod gzip;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, ALLOW, CONTENT_TYPE},
};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use tokio::{
    net::{TcpListener, TcpStream},
    time,
};
use tracing::{debug, warn};

use crate::{
    Config, LogLevel, OriginalDst, http::BoxedRequest, identity::LocalIdentity, inbound::Door, metrics::Metrics,
    process::Drain,
};

/// More than any filter of a log needs.
const MAX_BODY: usize = 16 * 1024;

/// What the admin server tells of, and what it changes.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) config: Arc<Config>,
    pub(crate) metrics: Metrics,
    pub(crate) identity: LocalIdentity,
    /// That of the log, if it can be changed.
    pub(crate) log: Option<LogLevel>,
    pub(crate) drain: Drain,
}

impl Admin {
    /// Answers until the process ends: metrics can be read while the proxy stops. `address` is where the listener is, and whoever comes
    /// in by `door`.
    pub(crate) fn serve(self, listener: TcpListener, address: SocketAddr, door: Arc<Door>, original: OriginalDst) {
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        tokio::spawn(self.clone().connection(stream, address, Arc::clone(&door), original.clone()));
                    }
                    Err(error) => {
                        warn!(%error, "a connection to the admin server could not be accepted");
                        time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        });
    }

    async fn connection(self, stream: TcpStream, address: SocketAddr, door: Arc<Door>, original: OriginalDst) {
        let client = match stream.set_nodelay(true).and_then(|()| original.client(&stream)) {
            Ok(client) => client,
            Err(error) => return debug!(%error, "an admin connection was closed before it was served"),
        };
        let keep_alive = self.config.inbound_server_keep_alive;
        let answer = move |client: SocketAddr, request: BoxedRequest| {
            let admin = self.clone();
            async move { admin.answer(client.ip(), *request).await }
        };
        door.serve_own(stream, address, client, keep_alive, answer).await;
    }

    async fn answer<B>(&self, client: IpAddr, request: Request<B>) -> Response<Bytes>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = request.uri().path();
        let allowed = match path {
            "/metrics" | "/ready" | "/live" | "/env.json" => "GET",
            "/proxy-log-level" => "GET, PUT",
            "/shutdown" => "POST",
            _ => return text(StatusCode::NOT_FOUND, ""),
        };
        if !allowed.split(", ").any(|method| method == request.method()) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return response;
        }
        if matches!(path, "/proxy-log-level" | "/shutdown") && !client.is_loopback() {
            return text(StatusCode::FORBIDDEN, "only requests from the proxy's own pod are allowed, over loopback\n");
        }
        match path {
            "/metrics" => self.metrics(&request),
            "/ready" if self.identity.is_certified() => text(StatusCode::OK, "ready\n"),
            "/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: no certificate has been issued yet\n"),
            "/live" => text(StatusCode::OK, "live\n"),
            "/env.json" => self.environment(&request),
            "/proxy-log-level" => self.log_level(request).await,
            _ => self.shutdown(),
        }
    }

    /// As exporters have it: `name[]` for these families, `exclude[]` for all others; and `exclude[]=histogram` for what has no buckets,
    /// which are more than three quarters of a busy proxy's three megabytes.
    fn metrics<B>(&self, request: &Request<B>) -> Response<Bytes> {
        let query = request.uri().query().unwrap_or_default();
        let all = |key: &str| -> Vec<&str> { query.split('&').filter_map(|pair| pair.strip_prefix(key)).collect() };
        let (named, excluded) = (all("name[]="), all("exclude[]="));
        let left_out = |family: &str, kind: &str| {
            excluded.contains(&family) || excluded.contains(&kind) || !named.is_empty() && !named.contains(&family)
        };
        gzip::compressed(request.headers(), text(StatusCode::OK, ""), self.metrics.registry.render(left_out))
    }

    fn environment<B>(&self, request: &Request<B>) -> Response<Bytes> {
        let accept = request.headers().get(ACCEPT).map(|accept| String::from_utf8_lossy(accept.as_bytes()));
        if accept.is_some_and(|accept| ![JSON, "application/*", "*/*"].iter().any(|kind| accept.contains(kind))) {
            return text(StatusCode::NOT_ACCEPTABLE, JSON);
        }
        let all = &self.config.environment;
        let shown: BTreeMap<&str, Option<&String>> = match request.uri().query() {
            Some(names) if names.contains('=') => {
                let hint = "the query names variables, as in `/env.json?LINKERD2_PROXY_LOG`, and has no values\n";
                return text(StatusCode::BAD_REQUEST, hint);
            }
            Some(names) => names.split('&').map(|name| (name, all.get(name))).collect(),
            None => all.iter().map(|(name, value)| (name.as_str(), Some(value))).collect(),
        };
        let shown = shown.into_iter().map(|(name, value)| (name.to_owned(), value.cloned().into())).collect();
        let mut response = text(StatusCode::OK, serde_json::Value::Object(shown).to_string());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        response
    }

    async fn log_level<B>(&self, request: Request<B>) -> Response<Bytes>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(log) = &self.log else { return text(StatusCode::NOT_FOUND, "the log is not the proxy's to change\n") };
        if request.method() == Method::GET {
            return match log.current() {
                Ok(directives) => text(StatusCode::OK, directives),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            };
        }
        let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return text(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}\n")),
        };
        let set = std::str::from_utf8(&body).map_err(|error| error.to_string());
        match set.and_then(|directives| log.set(directives.trim()).map_err(|error| error.to_string())) {
            Ok(()) => text(StatusCode::NO_CONTENT, ""),
            Err(error) => text(StatusCode::BAD_REQUEST, error + "\n"),
        }
    }

    fn shutdown(&self) -> Response<Bytes> {
        if !self.config.shutdown_endpoint {
            let hint = "shutdown endpoint is not enabled: set LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED=true\n";
            return text(StatusCode::NOT_FOUND, hint);
        }
        self.drain.stop();
        text(StatusCode::OK, "shutdown\n")
    }
}

const JSON: &str = "application/json";

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
    response
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, net::Ipv4Addr};

    use http_body_util::Full;

    use super::*;

    /// No client of a test comes from anywhere but loopback.
    #[tokio::test]
    async fn what_changes_the_proxy_is_for_its_own_pod() {
        let variables = HashMap::from([
            ("LINKERD2_PROXY_DESTINATION_SVC_ADDR".to_owned(), "localhost:8086".to_owned()),
            ("LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED".to_owned(), "true".to_owned()),
        ]);
        let (log, _filter) = LogLevel::new("warn");
        let admin = Admin {
            config: Arc::new(Config::from_strings(&variables).unwrap()),
            metrics: Metrics::new(),
            identity: LocalIdentity::none(),
            log: Some(log),
            drain: Drain::default(),
        };
        let send = async |client: IpAddr, method: Method, path: &str, body: String| {
            let request = Request::builder().method(method).uri(path).body(Full::<Bytes>::from(body)).unwrap();
            admin.answer(client, request).await.status()
        };
        let ask = async |client, method, path| send(client, method, path, String::new()).await;
        let own = Ipv4Addr::LOCALHOST;
        let elsewhere = IpAddr::from([10, 1, 2, 3]);
        for (method, path) in [(Method::GET, "/proxy-log-level"), (Method::POST, "/shutdown")] {
            assert_eq!(ask(elsewhere, method.clone(), path).await, 403, "{path}");
            assert_eq!(ask(own.into(), method, path).await, 200, "{path}");
        }
        assert_eq!(ask(elsewhere, Method::PUT, "/proxy-log-level").await, 403);
        assert_eq!(send(own.into(), Method::PUT, "/proxy-log-level", "x".repeat(MAX_BODY + 1)).await, 400);
        assert_eq!(send(own.into(), Method::PUT, "/proxy-log-level", "x".repeat(MAX_BODY)).await, 204);
        for path in ["/metrics", "/live", "/ready", "/env.json"] {
            assert_eq!(ask(elsewhere, Method::GET, path).await, 200, "{path}");
        }
    }
}
