//! How responses are told apart: by status, class, gRPC status and latency.

use std::borrow::Cow;
use std::collections::BTreeMap;

use meshgate_clusters::{Feature, Vantage};
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::metrics::Metrics;
use meshgate_harness::plan::Backend;
use meshgate_harness::probe::Request;
use meshgate_harness::probe::grpc::{Reply, call};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::{Value, json};

use super::{get, on_route, profiled, quiet, send};
use crate::counters::{Moved, Proxy, fqdn, settle};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "route_metrics/classes",
        summary: "A route's response classes decide what is a failure: 418 can be one, 503 none",
        needs: &[Need::Serves, Need::RouteMetrics, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| profiled(plan, &[class("/teapot", 418, true), class("/busy", 503, false), get("/plain")]),
        run: |context| Box::pin(classes(context)),
    },
    Case {
        id: "route_metrics/status-codes",
        summary: "Responses count by status code, and from 500 on as failures",
        needs: &[Need::Serves, Need::RouteMetrics, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| profiled(plan, &[get("/s")]),
        run: |context| Box::pin(status_codes(context)),
    },
    Case {
        id: "route_metrics/grpc-status",
        summary: "gRPC responses count by grpc-status, which makes a 200 a success or a failure: INTERNAL is one, NOT_FOUND an answer",
        needs: &[
            Need::Serves,
            Need::RouteMetrics,
            Need::Template("grpc"),
            Need::DataPlane(Feature::Http2WithoutTls),
            Need::OncePerRecipe,
        ],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.service("main", Backend::B).grpc();
            plan.route("main", "main").template("grpc");
            let route =
                |method: &str| json!({"name": method, "condition": {"method": "POST", "pathRegex": path(method)}});
            plan.profile("main", json!({"routes": [route("Unary"), route("Fail")]}));
        },
        run: |context| Box::pin(grpc_status(context)),
    },
    Case {
        id: "route_metrics/latency-counts",
        summary: "Latency histograms have one observation for each response, in cumulative buckets",
        needs: &[Need::Serves, Need::RouteMetrics, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| profiled(plan, &[get("/l")]),
        run: |context| Box::pin(latency_counts(context)),
    },
];

/// A route that says of one status whether it is a failure.
fn class(path: &str, status: u16, is_failure: bool) -> Value {
    json!({
        "name": path,
        "condition": {"pathRegex": path},
        "responseClasses": [{"condition": {"status": {"min": status, "max": status}}, "isFailure": is_failure}],
    })
}

/// Responses on a route with a status and class.
fn classified(context: &Context, route: &str, status: &str, class: &str, by: usize) -> Moved {
    on_route(context, "route_response_total", route, by).and([("status_code", status), ("classification", class)])
}

async fn classes(context: Context) -> CaseResult {
    quiet(&context).await?;
    let before = Proxy::Controller.read(&context).await?;
    let wanted = [
        ("/teapot?status=418", 3, 418),
        ("/teapot", 1, 200),
        ("/busy?status=503", 4, 503),
        // The control: without classes the same statuses count the other way.
        ("/plain?status=418", 2, 418),
        ("/plain?status=503", 2, 503),
    ];
    send(&context, &wanted).await?;
    let expected = [
        classified(&context, "/teapot", "418", "failure", 3),
        classified(&context, "/teapot", "418", "success", 0),
        classified(&context, "/teapot", "200", "success", 1),
        classified(&context, "/busy", "503", "success", 4),
        classified(&context, "/busy", "503", "failure", 0),
        classified(&context, "GET /plain", "418", "success", 2),
        classified(&context, "GET /plain", "503", "failure", 2),
    ];
    settle(&context, Proxy::Controller, &before, &expected).await?;
    Ok(Outcome::Pass)
}

async fn status_codes(context: Context) -> CaseResult {
    quiet(&context).await?;
    let before = Proxy::Controller.read(&context).await?;
    let wanted = [
        ("/s", 5, 200, "success"),
        ("/s?status=201", 4, 201, "success"),
        ("/s?status=404", 3, 404, "success"),
        ("/s?status=500", 2, 500, "failure"),
        ("/s?status=503", 1, 503, "failure"),
    ];
    send(&context, &wanted.map(|(path, times, status, _)| (path, times, status))).await?;
    let main = fqdn(&context, "main");
    let mut expected = vec![on_route(&context, "route_request_total", "GET /s", 15)];
    for (_, times, status, class) in wanted {
        let status = status.to_string();
        expected.push(classified(&context, "GET /s", &status, class, times));
        // The endpoint's own count says the same.
        let labels =
            [("direction", "outbound"), ("authority", &main), ("status_code", &status), ("classification", class)];
        expected.push(Moved::new("response_total", labels, times));
    }
    settle(&context, Proxy::Controller, &before, &expected).await?;
    Ok(Outcome::Pass)
}

/// The part of the echo backend's gRPC message that the case uses.
#[derive(Clone, PartialEq, prost::Message)]
struct EchoRequest {
    /// The status that `Fail` ends with.
    #[prost(uint32, tag = "3")]
    code: u32,
}

fn path(method: &str) -> String {
    format!("/meshgate.echo.v1.Echo/{method}")
}

async fn grpc_status(context: Context) -> CaseResult {
    quiet(&context).await?;
    let before = Proxy::Controller.read(&context).await?;
    let outside = context.world.prober.from(Vantage::Outside(0));
    for (method, code, times) in [("Unary", 0, 4), ("Fail", 5, 3), ("Fail", 13, 2)] {
        for _ in 0..times {
            let request = Request { path: path(method), ..context.get("main")? };
            let reply: Result<Reply<()>, _> =
                call(&request, &[EchoRequest { code: u32::try_from(code).unwrap_or_default() }], false, &outside).await;
            let found = match &reply {
                Ok(reply) => format!("HTTP {} and grpc-status {:?}", reply.http_status, reply.code),
                Err(failure) => failure.to_string(),
            };
            check(format!("the answer of {method}")).that(
                reply.is_ok_and(|reply| reply.http_status == 200 && reply.code == Some(code)),
                format!("HTTP 200 and grpc-status {code}"),
                found,
            )?;
        }
    }
    let counted = |method, code: &'static str, class: &str, by| {
        classified(&context, method, "200", class, by).and([("grpc_status", code), ("error", "")])
    };
    let expected = [
        counted("Unary", "0", "success", 4),
        counted("Fail", "5", "success", 3),
        counted("Fail", "13", "failure", 2),
        on_route(&context, "route_response_total", "Fail", 5),
        on_route(&context, "route_response_total", "Unary", 4),
    ];
    settle(&context, Proxy::Controller, &before, &expected).await?;
    Ok(Outcome::Pass)
}

async fn latency_counts(context: Context) -> CaseResult {
    const QUICK: usize = 10;
    const SLOW: usize = 3;
    quiet(&context).await?;
    let before = Proxy::Controller.read_all(&context).await?;
    send(&context, &[("/l", QUICK, 200), ("/l?delay_ms=250", SLOW, 200)]).await?;
    let main = fqdn(&context, "main");
    let endpoint = [("direction", "outbound"), ("authority", main.as_str()), ("status_code", "200")];
    let route = [("status_code", "200")];
    let expected = [
        Moved::new("response_latency_ms_count", endpoint, QUICK + SLOW),
        Moved::new("response_latency_ms_bucket", endpoint, QUICK + SLOW).and([("le", "+Inf")]),
        on_route(&context, "route_response_latency_ms_count", "GET /l", QUICK + SLOW).and(route),
    ];
    let after = settle(&context, Proxy::Controller, &before, &expected).await?;

    let buckets = buckets(&before, &after, &main)?;
    check("the buckets, which are cumulative").that(
        buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1),
        "none lower than the one before",
        format!("{buckets:?}"),
    )?;
    let up_to = |limit: f64| buckets.iter().find(|(le, _)| *le == limit).map(|(_, count)| *count);
    check("the responses counted as quicker than 200 ms, of which 3 took 250").that(
        up_to(200.0).is_some_and(|count| count <= QUICK as f64),
        format!("at most {QUICK}"),
        format!("{:?}", up_to(200.0)),
    )?;
    let sum = [("direction", "outbound"), ("authority", main.as_str()), ("status_code", "200")];
    let total = after.sum("response_latency_ms_sum", &sum) - before.sum("response_latency_ms_sum", &sum);
    check("the sum of the latencies in ms")
        .that(total >= 250.0 * SLOW as f64, "at least 750", total.to_string())
        .map(|()| Outcome::Pass)
}

/// By how much each bucket of the Service's latencies moved, lowest bound first.
fn buckets(before: &Metrics, after: &Metrics, authority: &str) -> Result<Vec<(f64, f64)>, Failure> {
    let labels = [("direction", "outbound"), ("authority", authority), ("status_code", "200")];
    let mut moved: BTreeMap<Cow<'_, str>, f64> = BTreeMap::new();
    for (metrics, sign) in [(after, 1.0), (before, -1.0)] {
        for sample in metrics.select("response_latency_ms_bucket", &labels) {
            *moved.entry(sample.label("le")).or_default() += sign * sample.value;
        }
    }
    let bound = |le: &str| if le == "+Inf" { f64::INFINITY } else { le.parse().unwrap_or(f64::NAN) };
    let mut buckets: Vec<(f64, f64)> = moved.into_iter().map(|(le, by)| (bound(&le), by)).collect();
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    check("the number of buckets").that(buckets.len() > 10, "more than 10", buckets.len().to_string())?;
    Ok(buckets)
}
