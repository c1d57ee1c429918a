//! The newer families: requests by the route that they took and by where it led, in seconds, and by how they ended.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode};

use super::{Counter, Family, Histogram, Keyed, Labels, Registry, Shape};
use crate::{classify::grpc_code, http::ProxyError};

/// Whether a route is for requests of any kind or for gRPC, which is a family's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    Http,
    Grpc,
}

/// A name with the variant in its middle.
macro_rules! named {
    ($variant:expr, $before:literal, $after:literal) => {
        match $variant {
            Variant::Http => concat!($before, "http", $after),
            Variant::Grpc => concat!($before, "grpc", $after),
        }
    };
}

/// What is counted of the streams of one kind of route, or of their backends.
#[derive(Clone)]
pub(crate) struct StreamFamilies {
    ends: EndLabels,
    requests: Option<Family<Counter>>,
    request_durations: Option<Family<Histogram>>,
    response_durations: Option<Family<Histogram>>,
    statuses: Family<Counter>,
    request_frames: Option<Family<Histogram>>,
    response_frames: Option<Family<Histogram>>,
}

/// How it is written how a stream ended.
#[derive(Debug, Clone, Copy)]
enum EndLabels {
    /// `http_status` or `grpc_status`, and `error`.
    Outbound(Variant),
    /// `status`.
    Inbound(Variant),
}

/// The series of one route, or of one of its backends.
pub(crate) struct StreamScope {
    ends: EndLabels,
    requests: Option<Arc<Counter>>,
    request_durations: Option<Arc<Histogram>>,
    response_durations: Option<Arc<Histogram>>,
    request_frames: Option<Arc<Histogram>>,
    response_frames: Option<Arc<Histogram>>,
    statuses: Family<Counter>,
    by_end: Keyed<End, Counter>,
    labels: Labels,
}

/// How a stream ended: with a status of HTTP or gRPC, with an error by Linkerd's name for it, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    status: Option<u16>,
    error: &'static str,
}

/// When the last of a request with a body has left, or will not leave any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent(Arc<OnceLock<Instant>>);

impl Sent {
    /// That is now. Only the first time counts.
    pub(crate) fn now(&self) {
        self.0.get_or_init(Instant::now);
    }
}

const REQUESTS: &str = "The total number of requests dispatched.";
const REQUEST_DURATION: &str = "The time between request initialization and response completion.";
const RESPONSE_DURATION: &str = "The time between request completion and response completion.";
const STATUSES: &str = "Completed request-response streams.";
const REQUEST_FRAMES: &str = "Request data frame sizes.";
const RESPONSE_FRAMES: &str = "Response data frame sizes.";

impl StreamFamilies {
    /// Of the routes of policies.
    pub(super) fn routes(registry: &Registry, variant: Variant) -> Self {
        let durations = named!(variant, "outbound_", "_route_request_duration_seconds");
        let frames = named!(variant, "outbound_", "_route_request_frame_size_bytes");
        Self {
            ends: EndLabels::Outbound(variant),
            requests: None,
            request_durations: Some(registry.shaped(durations, REQUEST_DURATION, &Shape::REQUEST)),
            response_durations: None,
            statuses: registry.family(named!(variant, "outbound_", "_route_request_statuses_total"), STATUSES),
            request_frames: Some(registry.shaped(frames, REQUEST_FRAMES, &Shape::FRAMES)),
            response_frames: None,
        }
    }

    /// Of what those routes lead to.
    pub(super) fn backends(registry: &Registry, variant: Variant) -> Self {
        let requests = named!(variant, "outbound_", "_route_backend_requests_total");
        let durations = named!(variant, "outbound_", "_route_backend_response_duration_seconds");
        let statuses = named!(variant, "outbound_", "_route_backend_response_statuses_total");
        let frames = named!(variant, "outbound_", "_route_backend_response_frame_size_bytes");
        Self {
            ends: EndLabels::Outbound(variant),
            requests: Some(registry.family(requests, REQUESTS)),
            request_durations: None,
            response_durations: Some(registry.shaped(durations, RESPONSE_DURATION, &Shape::RESPONSE)),
            statuses: registry.family(statuses, STATUSES),
            request_frames: None,
            response_frames: Some(registry.shaped(frames, RESPONSE_FRAMES, &Shape::FRAMES)),
        }
    }

    /// Of the routes by which requests reach the application.
    pub(super) fn inbound(registry: &Registry, variant: Variant) -> Self {
        let requests = named!(variant, "inbound_", "_requests_total");
        let request_durations = named!(variant, "inbound_", "_request_duration_seconds");
        let response_durations = named!(variant, "inbound_", "_response_duration_seconds");
        let request_frames = named!(variant, "inbound_", "_request_frame_size_bytes");
        let response_frames = named!(variant, "inbound_", "_response_frame_size_bytes");
        Self {
            ends: EndLabels::Inbound(variant),
            requests: Some(registry.family(requests, REQUESTS)),
            request_durations: Some(registry.shaped(request_durations, REQUEST_DURATION, &Shape::REQUEST)),
            response_durations: Some(registry.shaped(response_durations, RESPONSE_DURATION, &Shape::RESPONSE)),
            statuses: registry.family(named!(variant, "inbound_", "_statuses_total"), STATUSES),
            request_frames: Some(registry.shaped(request_frames, REQUEST_FRAMES, &Shape::FRAMES)),
            response_frames: Some(registry.shaped(response_frames, RESPONSE_FRAMES, &Shape::FRAMES)),
        }
    }

    /// The series with these labels.
    pub(crate) fn scope(&self, labels: Labels) -> Arc<StreamScope> {
        let histogram = |family: &Option<Family<Histogram>>| family.as_ref().map(|family| family.hold(&labels));
        Arc::new(StreamScope {
            ends: self.ends,
            requests: self.requests.as_ref().map(|family| family.hold(&labels)),
            request_durations: histogram(&self.request_durations),
            response_durations: histogram(&self.response_durations),
            request_frames: histogram(&self.request_frames),
            response_frames: histogram(&self.response_frames),
            statuses: self.statuses.clone(),
            by_end: Keyed::default(),
            labels,
        })
    }
}

impl EndLabels {
    fn variant(self) -> Variant {
        match self {
            Self::Outbound(variant) | Self::Inbound(variant) => variant,
        }
    }

    fn on(self, labels: Labels, end: End) -> Labels {
        let with = |labels: Labels, name| match end.status {
            Some(status) => labels.with_display(name, status),
            None => labels.with(name, ""),
        };
        match self {
            Self::Outbound(Variant::Http) => with(labels, "http_status").with("error", end.error),
            Self::Outbound(Variant::Grpc) => labels.with("grpc_status", grpc_name(end.status)).with("error", end.error),
            Self::Inbound(_) => with(labels, "status"),
        }
    }
}

impl StreamScope {
    /// Counts a request. If it has a body, `sent` tells when that has left.
    pub(crate) fn begin(self: &Arc<Self>, sent: Option<Sent>) -> StreamObservation {
        if let Some(requests) = &self.requests {
            requests.increment();
        }
        StreamObservation { scope: Arc::clone(self), started: Instant::now(), sent, head: None, ended: false }
    }

    /// What counts the frames of requests.
    pub(crate) fn request_frames(&self) -> Option<&Arc<Histogram>> {
        self.request_frames.as_ref()
    }
}

/// One request on its way. Counted exactly once, at the end of the response's stream.
pub(crate) struct StreamObservation {
    scope: Arc<StreamScope>,
    started: Instant,
    sent: Option<Sent>,
    /// Whether the response's head has come, and what status that has.
    head: Option<Option<u16>>,
    ended: bool,
}

impl StreamObservation {
    /// When the request was counted.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// The response's head has come. That of gRPC has a status if the response is nothing else.
    pub(crate) fn head(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.head = Some(match self.scope.ends.variant() {
            Variant::Http => Some(status.as_u16()),
            Variant::Grpc => grpc_code(headers).map(|code| code as u16),
        });
    }

    /// So many bytes of the response's body have come.
    pub(crate) fn data(&self, bytes: usize) {
        if let Some(frames) = &self.scope.response_frames {
            frames.sized(bytes);
        }
    }

    /// The stream has ended well.
    pub(crate) fn end(&mut self, trailers: Option<&HeaderMap>) {
        let status = self.head.flatten();
        let status = match (self.scope.ends.variant(), trailers) {
            (Variant::Grpc, Some(trailers)) => grpc_code(trailers).map(|code| code as u16),
            _ => status,
        };
        self.finish(End { status, error: "" });
    }

    /// The stream broke, or there is none.
    pub(crate) fn fail(&mut self, error: &'static str) {
        self.finish(End { status: self.head.flatten(), error });
    }

    /// There is no response but the proxy's own.
    pub(crate) fn failed(&mut self, error: &ProxyError) {
        let own = || match self.scope.ends.variant() {
            Variant::Http => error.status().as_u16(),
            Variant::Grpc => error.grpc_code() as u16,
        };
        let end = match error.stream_error() {
            Some(error) => End { status: None, error },
            None => End { status: Some(own()), error: "" },
        };
        self.finish(end);
    }

    fn finish(&mut self, end: End) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let scope = &self.scope;
        let make = || scope.statuses.hold(&scope.ends.on(scope.labels.clone(), end));
        scope.by_end.get_or_make(end, make).increment();
        if let Some(durations) = &scope.request_durations {
            durations.took(self.started.elapsed());
        }
        if let Some(durations) = &scope.response_durations {
            durations.took(match &self.sent {
                None => self.started.elapsed(),
                // A response may end before its request.
                Some(sent) => sent.0.get().map_or(Duration::ZERO, Instant::elapsed),
            });
        }
    }
}

impl Drop for StreamObservation {
    // A client that goes away in the middle of a response. Of one that does not even wait for the head nothing is known.
    fn drop(&mut self) {
        if self.head.is_some() {
            self.fail("CANCEL");
        }
    }
}

/// The name of a gRPC status by its code.
fn grpc_name(code: Option<u16>) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    code.and_then(|code| NAMES.get(usize::from(code)).copied()).unwrap_or("UNKNOWN")
}
