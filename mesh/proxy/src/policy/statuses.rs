//! How requests on policies' routes ended, counted by HTTP status or by gRPC code.

use std::sync::Arc;

use http::{Response, StatusCode};
use tonic::Code;

use crate::{
    http::{ProxyError, ResponseBody, StreamEnd, h2_error},
    metrics::{Counter, Family, Keyed, Labels, Protocol, grpc_status},
};

/// The series of one route, or of one of its backends.
#[derive(Clone)]
pub(crate) struct Statuses(Arc<Inner>);

struct Inner {
    protocol: Protocol,
    family: Family<Counter>,
    labels: Labels,
    counters: Keyed<End, Counter>,
}

/// How a request ended: with a status, or with an error by Linkerd's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    status: Option<Status>,
    error: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Http(StatusCode),
    Grpc(Code),
}

impl Statuses {
    pub(super) fn new(protocol: Protocol, family: Family<Counter>, labels: Labels) -> Self {
        Self(Arc::new(Inner { protocol, family, labels, counters: Keyed::default() }))
    }

    /// Counts how a request ended: HTTP by the head of its response, gRPC when its code has come, which may be with its trailers.
    pub(crate) fn count(&self, result: &mut Result<Response<ResponseBody>, ProxyError>) {
        let inner = &*self.0;
        match (inner.protocol, result) {
            (Protocol::Http, Ok(response)) => inner.increment(Some(Status::Http(response.status())), ""),
            (Protocol::Grpc, Ok(response)) => match grpc_status(response.headers()) {
                Some(code) => inner.increment(Some(grpc(code)), ""),
                None => {
                    let inner = Arc::clone(&self.0);
                    response.body_mut().at_end(move |end| match end {
                        StreamEnd::Whole(trailers) => inner.increment(trailers.and_then(grpc_status).map(grpc), ""),
                        StreamEnd::Broken(error) => inner.increment(None, name(error)),
                        StreamEnd::Dropped => inner.increment(None, "CANCEL"),
                    });
                }
            },
            (_, Err(ProxyError::FailFast(_))) => inner.increment(None, "FAIL_FAST"),
            (_, Err(ProxyError::LoadShed(_))) => inner.increment(None, "LOAD_SHED"),
            (_, Err(ProxyError::ResponseTimeout(_))) => inner.increment(None, "RESPONSE_HEADERS_TIMEOUT"),
            (_, Err(ProxyError::Broken(error))) => inner.increment(None, name(error)),
            (Protocol::Http, Err(error)) => inner.increment(Some(Status::Http(error.status())), ""),
            (Protocol::Grpc, Err(error)) => inner.increment(Some(Status::Grpc(error.grpc_code())), ""),
        }
    }
}

impl Inner {
    fn increment(&self, status: Option<Status>, error: &'static str) {
        let end = End { status, error };
        let make = || {
            let labels = self.labels.clone();
            let labels = match (self.protocol, status) {
                (_, Some(Status::Http(status))) => labels.with("http_status", status.as_str()),
                (_, Some(Status::Grpc(code))) => labels.with("grpc_status", text(code)),
                (Protocol::Http, None) => labels.with("http_status", ""),
                // Linkerd's name for no code at all.
                (Protocol::Grpc, None) => labels.with("grpc_status", text(Code::Unknown)),
            };
            self.family.hold(&labels.with("error", error))
        };
        self.counters.get_or_make(end, make).increment();
    }
}

fn grpc(code: u32) -> Status {
    Status::Grpc(i32::try_from(code).map_or(Code::Unknown, Code::from_i32))
}

/// What broke a response. Without HTTP/2's word for it, the connection did.
fn name(error: &hyper::Error) -> &'static str {
    let Some(error) = h2_error(error) else { return "IO" };
    match error.reason() {
        _ if error.is_io() => "IO",
        _ if error.is_go_away() => "GO_AWAY",
        Some(h2::Reason::CANCEL) => "CANCEL",
        Some(h2::Reason::REFUSED_STREAM) => "REFUSED",
        Some(h2::Reason::ENHANCE_YOUR_CALM) => "ENHANCE_YOUR_CALM",
        Some(_) => "RESET",
        None => "UNKNOWN",
    }
}

/// A code as gRPC spells it.
fn text(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
