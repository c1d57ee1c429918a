//! The families that count requests and responses: `request_total`, `route_*` and `route_actual_*` have one shape.

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, StatusCode};
use tonic::Code;

use super::{Counter, Family, Histogram, Keyed, Labels, Registry, Shape};
use crate::classify::{Classify, grpc_code};

/// Requests, responses and, but for attempts, latencies.
#[derive(Clone)]
pub(crate) struct HttpFamilies {
    requests: Family<Counter>,
    responses: Family<Counter>,
    latencies: Option<Family<Histogram>>,
}

/// The series of one endpoint or route.
pub(crate) struct HttpScope {
    families: HttpFamilies,
    labels: Labels,
    requests: Arc<Counter>,
    responses: Keyed<Outcome, Counter>,
    latencies: Keyed<Option<StatusCode>, Histogram>,
}

/// How a response ended: the labels that follow the scope's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outcome {
    status: Option<StatusCode>,
    success: bool,
    code: Option<Code>,
    error: &'static str,
}

/// Why there was no response, or no whole one: the label `error` of `response_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ErrorClass(pub(crate) &'static str);

impl HttpFamilies {
    pub(super) fn new(
        registry: &Registry,
        [requests, responses]: [&'static str; 2],
        latencies: Option<&'static str>,
        help: &'static str,
    ) -> Self {
        Self {
            requests: registry.family(requests, help),
            responses: registry.family(responses, help),
            latencies: latencies.map(|name| registry.shaped(name, help, &Shape::LATENCY_MS)),
        }
    }

    /// The series with these labels.
    pub(crate) fn scope(&self, labels: Labels) -> Arc<HttpScope> {
        Arc::new(HttpScope {
            requests: self.requests.hold(&labels),
            families: self.clone(),
            labels,
            responses: Keyed::default(),
            latencies: Keyed::default(),
        })
    }
}

impl HttpScope {
    /// A request that is about to be made; it counts from [`Observation::sent`] on.
    pub(crate) fn observe(self: &Arc<Self>, classify: Classify) -> Observation {
        Observation {
            scope: Arc::clone(self),
            classify,
            started: Instant::now(),
            sent: false,
            head: None,
            latency_taken: false,
            ended: false,
        }
    }

    fn count(&self, outcome: Outcome) {
        let make = || {
            let labels = match outcome.status {
                Some(status) => self.labels.clone().with("status_code", status.as_str()),
                None => self.labels.clone(),
            };
            let labels = labels.with("classification", if outcome.success { "success" } else { "failure" });
            let labels = match outcome.code {
                Some(code) => labels.with_display("grpc_status", code as i32),
                None => labels.with("grpc_status", ""),
            };
            self.families.responses.hold(&labels.with("error", outcome.error))
        };
        self.responses.get_or_make(outcome, make).increment();
    }
}

/// One request on its way. Counted exactly once, at the end of the response's stream.
pub(crate) struct Observation {
    scope: Arc<HttpScope>,
    classify: Classify,
    started: Instant,
    sent: bool,
    head: Option<Head>,
    latency_taken: bool,
    ended: bool,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    status: StatusCode,
    code: Option<Code>,
}

impl Observation {
    /// The request leaves, or would leave if there were somewhere to send it to.
    pub(crate) fn sent(&mut self) {
        if !std::mem::replace(&mut self.sent, true) {
            self.scope.requests.increment();
        }
    }

    /// The response's head has come.
    pub(crate) fn head(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.head = Some(Head { status, code: grpc_code(headers) });
    }

    /// The first frame of the body has come, or there is none.
    pub(crate) fn first_frame(&mut self) {
        if std::mem::replace(&mut self.latency_taken, true) {
            return;
        }
        let Some(family) = &self.scope.families.latencies else { return };
        let status = self.head.map(|head| head.status);
        let make = || {
            let labels = self.scope.labels.clone();
            family.hold(&match status {
                Some(status) => labels.with("status_code", status.as_str()),
                None => labels,
            })
        };
        self.scope.latencies.get_or_make(status, make).took(self.started.elapsed());
    }

    /// The stream has ended well.
    pub(crate) fn end(&mut self, trailers: Option<&HeaderMap>) {
        let Some(head) = self.head else { return };
        self.first_frame();
        let class = self.classify.class(head.status, head.code, trailers.and_then(grpc_code));
        self.finish(Outcome { status: Some(head.status), success: class.success, code: class.code, error: "" });
    }

    /// There is no response, or its stream broke.
    pub(crate) fn fail(&mut self, ErrorClass(error): ErrorClass) {
        self.finish(Outcome { status: None, success: false, code: None, error });
    }

    /// The request could not be sent after all. If it was counted, so is its end.
    pub(crate) fn unsent(&mut self) {
        if self.sent {
            self.fail(ErrorClass("unclassified"));
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.ended, true) {
            self.scope.count(outcome);
        }
    }
}

impl Drop for Observation {
    // A client that goes away in the middle of a response still had one.
    fn drop(&mut self) {
        self.end(None);
    }
}
