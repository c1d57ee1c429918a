//! What can go wrong with a request, and what the client is told.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION},
};
use tonic::Code;

use super::{Broken, Failed, Last, Overdue, ResponseBody, orig_proto::is_carried};
use crate::{
    NameAddr, Target,
    classify::is_grpc,
    connect::ConnectError,
    dialect::Invalid,
    inbound::Exceeded,
    metrics::{ErrorClass, service_name},
};

/// Says, from proxy to proxy, that a request has not reached the application: it may be sent to another one.
pub(crate) const UNSENT: HeaderName = HeaderName::from_static("meshgate-proxy-unsent");

/// Why this proxy answers instead of an application. Statuses are Linkerd's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    /// No endpoint for as long as a request waits for one.
    #[error("{}: service in fail-fast", service_name(.0))]
    FailFast(NameAddr),
    /// As before, and it is known already.
    #[error("service unavailable")]
    LoadShed,
    /// A policy's backend is none.
    #[error("{0}")]
    NoDispatcher(Arc<str>),
    /// No endpoint could be connected to.
    #[error("endpoint {}", .0.told())]
    Connect(#[source] ConnectError),
    /// The connection broke before a response.
    #[error("endpoint connection: {0}")]
    Broken(#[source] Broken),
    /// There are as many requests as this side of the proxy works on at once.
    #[error("service unavailable")]
    Overloaded,
    /// No response in the time that a ServiceProfile's route allows.
    #[error("HTTP response timeout after {0:?}")]
    ResponseTimeout(Duration),
    /// The same of a policy's route.
    #[error("timed out waiting for response headers: {0}")]
    Overdue(Overdue),
    /// The policy cannot be kept to.
    #[error("invalid client policy: {0}")]
    InvalidPolicy(&'static str),
    /// The policy has no route for such a request.
    #[error("no route of {0} matches the request")]
    NoRoute(Target),
    /// The control plane has no policy, in an era in which that was an error.
    #[error("there is no policy for {0}")]
    NoPolicy(Target),
    /// The policy is for connections that are something else.
    #[error("the policy for {0} has no routes for HTTP: its connections are taken for something else")]
    NotHttp(Target),
    /// The control plane knows nothing by that name.
    #[error("there is no Service `{0}`")]
    NoSuchService(Target),
    /// The control plane says that the name cannot be served.
    #[error("discovery of {target} failed: {message}")]
    Discovery { target: Target, message: String },
    /// The control plane says nothing.
    #[error("discovery of {target} did not finish within {timeout:?}")]
    DiscoveryTimedOut { target: Target, timeout: Duration },
    /// The request names a target that it may not have.
    #[error(transparent)]
    Target(#[from] Invalid),
    /// The request names a host that DNS does not know.
    #[error("the host `{name}` has no address: {message}")]
    Unresolvable { name: NameAddr, message: String },
    /// The request has been here before.
    #[error("loop: this proxy ({0}) has sent the request before")]
    Loop(String),
    /// The proxy is no gateway to the Service that the request is for.
    #[error(
        "gateway: expected a name in a domain of LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES, found `{0}`; ask the gateway of its cluster"
    )]
    GatewayDomain(NameAddr),
    /// The gateway has passed the request on before.
    #[error("gateway loop: this proxy ({0}) has passed the request on before")]
    GatewayLoop(Arc<str>),
    /// The request would go from the inbound proxy to itself.
    #[error("inbound connection must not target port {0}")]
    InboundPort(u16),
    /// The request's head contradicts itself.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// A policy's route sends its requests elsewhere.
    #[error("redirected")]
    Redirected { status: StatusCode, location: HeaderValue },
    /// The port's policy does not let this client in.
    #[error("client {client}: server {server}: unauthorized request on route")]
    Unauthorized { client: SocketAddr, server: Arc<str> },
    /// The port's policy has no route for such a request.
    #[error("no route found for request")]
    NoInboundRoute,
    /// There are more requests than the port's policy allows.
    #[error("{0}")]
    RateLimited(Exceeded),
    /// A policy's route fails this share of its requests, as configured.
    #[error("{message}")]
    Injected { status: StatusCode, message: String },
    /// As before, on a route for gRPC.
    #[error("{message}")]
    InjectedGrpc { code: Code, message: String },
}

impl ProxyError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::FailFast(_) | Self::ResponseTimeout(_) | Self::Overdue(_) | Self::DiscoveryTimedOut { .. } => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Connect(ConnectError::TimedOut { .. }) => StatusCode::GATEWAY_TIMEOUT,
            Self::Connect(ConnectError::Itself { .. }) => StatusCode::LOOP_DETECTED,
            Self::Connect(ConnectError::Application { status, .. }) => *status,
            Self::LoadShed | Self::Overloaded | Self::Discovery { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect(_)
            | Self::Broken(_)
            | Self::Unresolvable { .. }
            | Self::NoPolicy(_)
            | Self::NotHttp(_)
            | Self::NoDispatcher(_) => StatusCode::BAD_GATEWAY,
            Self::Target(Invalid::OutsideTheCluster { .. }) => StatusCode::BAD_GATEWAY,
            Self::Target(Invalid::NotAName(_)) | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::NoRoute(_) | Self::NoSuchService(_) | Self::GatewayDomain(_) => StatusCode::NOT_FOUND,
            Self::Loop(_) | Self::GatewayLoop(_) => StatusCode::LOOP_DETECTED,
            Self::InboundPort(_) | Self::InjectedGrpc { .. } | Self::InvalidPolicy(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::NoInboundRoute => StatusCode::NOT_FOUND,
            Self::Unauthorized { .. } => StatusCode::FORBIDDEN,
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Injected { status, .. } | Self::Redirected { status, .. } => *status,
        }
    }

    /// The code for a gRPC client.
    pub(crate) fn grpc_code(&self) -> Code {
        match self {
            Self::InjectedGrpc { code, .. } => return *code,
            // Linkerd's, whatever the status is.
            Self::Injected { .. } => return Code::FailedPrecondition,
            _ => {}
        }
        match self.status() {
            StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
            StatusCode::LOOP_DETECTED => Code::Aborted,
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::FORBIDDEN => Code::PermissionDenied,
            StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
            status if status.is_redirection() => Code::NotFound,
            StatusCode::BAD_REQUEST => Code::InvalidArgument,
            _ => Code::Internal,
        }
    }

    /// What the log says: with what the kernel said, which clients are not told.
    pub(crate) fn in_full(&self) -> String {
        match self {
            Self::Connect(error) => format!("endpoint {error}"),
            error => error.to_string(),
        }
    }

    /// The label of `*_http_errors_total`. A connection that was refused is not counted there, as in Linkerd: the
    /// endpoint's `response_total` has it.
    pub(crate) fn label(&self) -> Option<&'static str> {
        match self {
            Self::FailFast(_) => Some("failfast"),
            Self::LoadShed | Self::Overloaded => Some("loadshed"),
            Self::ResponseTimeout(_) | Self::Overdue(_) => Some("response timeout"),
            Self::Broken(_) => Some("i/o"),
            Self::Loop(_) | Self::Connect(ConnectError::Itself { .. }) => Some("loop"),
            Self::Connect(ConnectError::Identity { .. }) => Some("identity required"),
            Self::Unauthorized { .. } => Some("unauthorized"),
            Self::GatewayDomain(_) => Some("gateway domain invalid"),
            Self::GatewayLoop(_) => Some("gateway loop"),
            Self::Connect(_) | Self::Injected { .. } | Self::InjectedGrpc { .. } | Self::Redirected { .. } => None,
            _ => Some("unexpected"),
        }
    }

    /// The label `error` of a route's `response_total`.
    pub(crate) fn class(&self) -> ErrorClass {
        ErrorClass(match self {
            Self::ResponseTimeout(_) | Self::Overdue(_) => "timeout",
            Self::Broken(error) => broken_class(error).0,
            _ => "unclassified",
        })
    }

    /// The label `error` where requests are counted by how their streams end; `None` if Linkerd's proxy answers in place of the
    /// application there already, so that a status is counted.
    pub(crate) fn stream_error(&self) -> Option<&'static str> {
        match self {
            Self::FailFast(_) => Some("FAIL_FAST"),
            Self::LoadShed | Self::Overloaded => Some("LOAD_SHED"),
            Self::Overdue(overdue) => Some(overdue.label()),
            Self::ResponseTimeout(_) => Some("RESPONSE_HEADERS_TIMEOUT"),
            Self::Broken(error) => Some(stream_error(error)),
            _ => None,
        }
    }

    /// Whether the client's HTTP/1 connection ends with the answer. Errors of the request alone leave it open, and so do the limits
    /// of a policy, but not those of a ServiceProfile: both as with Linkerd's proxy.
    fn closes(&self) -> bool {
        !matches!(
            self,
            Self::NoRoute(_)
                | Self::NoSuchService(_)
                | Self::Overdue(_)
                | Self::Target(_)
                | Self::Loop(_)
                | Self::GatewayDomain(_)
                | Self::GatewayLoop(_)
                | Self::Connect(ConnectError::Itself { .. } | ConnectError::Application { closes: false, .. })
                | Self::Injected { .. }
                | Self::InjectedGrpc { .. }
                | Self::Redirected { .. }
                | Self::Unauthorized { .. }
                | Self::NoInboundRoute
                | Self::RateLimited(_)
        )
    }

    /// Linkerd closes the connection without an answer where these come up, or has no such check at all. Their reason is
    /// always told, even where the proxy adds no headers of its own otherwise.
    fn always_explained(&self) -> bool {
        matches!(
            self,
            Self::Target(_)
                | Self::Unresolvable { .. }
                | Self::Loop(_)
                | Self::Connect(ConnectError::Itself { .. })
                | Self::NoSuchService(_)
                | Self::NoPolicy(_)
                | Self::NotHttp(_)
                | Self::Discovery { .. }
                | Self::DiscoveryTimedOut { .. }
        )
    }
}

/// The label `error` of a response that broke.
pub(crate) fn broken_class(error: &Broken) -> ErrorClass {
    if let Broken::Overdue(_) = error {
        return ErrorClass("timeout");
    }
    let reason = h2_error(error).and_then(h2::Error::reason);
    ErrorClass(match reason {
        Some(h2::Reason::NO_ERROR) => "h2(NO_ERROR)",
        Some(h2::Reason::PROTOCOL_ERROR) => "h2(PROTOCOL_ERROR)",
        Some(h2::Reason::INTERNAL_ERROR) => "h2(INTERNAL_ERROR)",
        Some(h2::Reason::FLOW_CONTROL_ERROR) => "h2(FLOW_CONTROL_ERROR)",
        Some(h2::Reason::STREAM_CLOSED) => "h2(STREAM_CLOSED)",
        Some(h2::Reason::FRAME_SIZE_ERROR) => "h2(FRAME_SIZE_ERROR)",
        Some(h2::Reason::REFUSED_STREAM) => "h2(REFUSED_STREAM)",
        Some(h2::Reason::CANCEL) => "h2(CANCEL)",
        Some(h2::Reason::ENHANCE_YOUR_CALM) => "h2(ENHANCE_YOUR_CALM)",
        Some(_) => "h2",
        None => "unclassified",
    })
}

/// The same by Linkerd's newer names. What is not HTTP/2 has broken with its connection.
pub(crate) fn stream_error(error: &Broken) -> &'static str {
    if let Broken::Overdue(overdue) = error {
        return overdue.label();
    }
    match h2_error(error) {
        Some(h2) if h2.is_reset() => match h2.reason() {
            Some(h2::Reason::CANCEL) => "CANCEL",
            Some(h2::Reason::REFUSED_STREAM) => "REFUSED",
            Some(h2::Reason::ENHANCE_YOUR_CALM) => "ENHANCE_YOUR_CALM",
            _ => "RESET",
        },
        Some(h2) if h2.is_go_away() => "GO_AWAY",
        Some(h2) if !h2.is_io() => "UNKNOWN",
        _ => "IO",
    }
}

/// What of HTTP/2 an error comes from, if it does.
pub(crate) fn h2_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a h2::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

/// A response that cannot be made: the client's stream is reset with the reason of the server's.
#[derive(Debug)]
pub(crate) struct Abort(Broken);

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Abort {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// How to answer one request: what its client understands, remembered before the request moves on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Respond {
    version: Version,
    grpc: bool,
    informational: bool,
}

impl Respond {
    /// `informational` is whether the client may see `l5d-proxy-error` and `l5d-proxy-connection`.
    pub(crate) fn to<B>(request: &Request<B>, informational: bool) -> Self {
        // As with Linkerd's proxy, gRPC over HTTP/1 is HTTP/1: its client could not read what is said in gRPC.
        let grpc = request.version() == Version::HTTP_2 && is_grpc(request.headers()) && !is_carried(request);
        Self { version: request.version(), grpc, informational }
    }

    /// The answer for `error`. A reset HTTP/2 stream is passed on as such.
    pub(crate) fn with(self, failed: impl Into<Failed>) -> Result<Response<ResponseBody>, Abort> {
        let failed = failed.into();
        match failed.error {
            ProxyError::Broken(broken) if self.version == Version::HTTP_2 && h2_error(&broken).is_some() => {
                Err(Abort(broken))
            }
            _ => Ok(self.response(&failed)),
        }
    }

    fn response(self, failed: &Failed) -> Response<ResponseBody> {
        let error = &failed.error;
        let mut response = Response::new(ResponseBody::empty());
        *response.version_mut() = self.version;
        // Another proxy's answer is passed on as it was, and explains itself between the proxies only.
        let own = !matches!(error, ProxyError::Connect(ConnectError::Application { .. }));
        let explain = self.informational && own || error.always_explained();
        let message = HeaderValue::from_str(&failed.to_string().replace(['\n', '\r'], " ")).ok().filter(|_| explain);
        if let ProxyError::Redirected { location, .. } = error {
            response.headers_mut().insert(LOCATION, location.clone());
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        if let Some(message) = message {
            if self.grpc {
                headers.insert("grpc-message", message.clone());
            }
            headers.insert("l5d-proxy-error", message);
        }
        if error.closes() && self.version != Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if error.closes() && self.informational && own {
            headers.insert("l5d-proxy-connection", HeaderValue::from_static("close"));
        }
        if self.grpc {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(error.grpc_code() as i32));
        } else {
            *response.status_mut() = error.status();
        }
        if error.closes() && !own {
            response.extensions_mut().insert(Last);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_http1_are_answered_in_http1() {
        let answer = |version, carried: bool| {
            let mut request = Request::post("http://web/s/m").version(version).header(CONTENT_TYPE, "application/grpc");
            if carried {
                request = request.header("l5d-orig-proto", "HTTP/1.1");
            }
            let answer = Respond::to(&request.body(()).unwrap(), true).with(ProxyError::NoInboundRoute).unwrap();
            (answer.status(), answer.headers().contains_key("grpc-status"))
        };
        assert_eq!(answer(Version::HTTP_2, false), (StatusCode::OK, true));
        for (version, carried) in [(Version::HTTP_11, false), (Version::HTTP_2, true)] {
            assert_eq!(answer(version, carried), (StatusCode::NOT_FOUND, false), "{version:?}");
        }
    }
}
