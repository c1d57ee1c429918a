//! The metrics of the gRPC services, in Prometheus' text format, named as upstream's.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use parking_lot::Mutex;
use tonic::Code;

use crate::grpc;
use crate::serve::{self, Body};

/// Upper bounds in seconds: the default buckets of Prometheus' Go client.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What a service counted.
pub(super) struct Metrics {
    service: &'static str,
    methods: Mutex<BTreeMap<&'static str, Method>>,
    votes: Mutex<BTreeMap<&'static str, u64>>,
}

#[derive(Default)]
struct Method {
    started: u64,
    handled: BTreeMap<String, u64>,
    /// Calls at or below each bound, cumulative.
    buckets: [u64; BUCKETS.len()],
    seconds: f64,
}

impl Metrics {
    pub fn new(service: &'static str) -> Self {
        Self { service, methods: Mutex::default(), votes: Mutex::default() }
    }

    /// Runs a call and counts it.
    pub async fn count<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, tonic::Status>>,
    ) -> Result<T, tonic::Status> {
        self.methods.lock().entry(method).or_default().started += 1;
        let started = Instant::now();
        let result = call.await;
        let code = result.as_ref().err().map_or(Code::Ok, tonic::Status::code);
        self.handled(method, code, started.elapsed());
        result
    }

    fn handled(&self, method: &'static str, code: Code, took: Duration) {
        let mut methods = self.methods.lock();
        let method = methods.entry(method).or_default();
        let seconds = took.as_secs_f64();
        *method.handled.entry(grpc::code_name(code)).or_default() += 1;
        method.seconds += seconds;
        for (count, _) in method.buckets.iter_mut().zip(BUCKETS).filter(|(_, bound)| seconds <= *bound) {
            *count += 1;
        }
    }

    /// Counts a vote that was accepted.
    pub fn vote(&self, shortcode: &'static str) {
        *self.votes.lock().entry(shortcode).or_default() += 1;
    }

    /// Answers a scrape.
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        match request.uri().path() {
            "/metrics" => {
                let mut page = String::new();
                match self.write(&mut page) {
                    Ok(()) => serve::text(StatusCode::OK, "text/plain; version=0.0.4", page),
                    Err(error) => serve::text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
                }
            }
            "/healthz" => serve::text(StatusCode::OK, "text/plain", "ok\n"),
            path => serve::text(StatusCode::NOT_FOUND, "text/plain", format!("{path} is not /metrics\n")),
        }
    }

    fn write(&self, page: &mut String) -> fmt::Result {
        let methods = self.methods.lock();
        let service = self.service;
        let labels = |method: &str| format!("grpc_method=\"{method}\",grpc_service=\"{service}\",grpc_type=\"unary\"");
        writeln!(page, "# TYPE grpc_server_started_total counter")?;
        for (name, method) in methods.iter() {
            writeln!(page, "grpc_server_started_total{{{}}} {}", labels(name), method.started)?;
        }
        writeln!(page, "# TYPE grpc_server_handled_total counter")?;
        for (name, method) in methods.iter() {
            for (code, count) in &method.handled {
                writeln!(page, "grpc_server_handled_total{{grpc_code=\"{code}\",{}}} {count}", labels(name))?;
            }
        }
        writeln!(page, "# TYPE grpc_server_handling_seconds histogram")?;
        for (name, method) in methods.iter() {
            let labels = labels(name);
            let total: u64 = method.handled.values().sum();
            for (bound, count) in BUCKETS.iter().zip(method.buckets) {
                writeln!(page, "grpc_server_handling_seconds_bucket{{{labels},le=\"{bound}\"}} {count}")?;
            }
            writeln!(page, "grpc_server_handling_seconds_bucket{{{labels},le=\"+Inf\"}} {total}")?;
            writeln!(page, "grpc_server_handling_seconds_sum{{{labels}}} {}", method.seconds)?;
            writeln!(page, "grpc_server_handling_seconds_count{{{labels}}} {total}")?;
        }
        let votes = self.votes.lock();
        if !votes.is_empty() {
            writeln!(page, "# TYPE emojivoto_votes_total counter")?;
        }
        for (shortcode, count) in votes.iter() {
            writeln!(page, "emojivoto_votes_total{{emoji=\"{shortcode}\"}} {count}")?;
        }
        Ok(())
    }
}
