//! What is not there when the controller's proxy knows pods instead of Services.

use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Evidence, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::metrics::Metrics;
use meshgate_harness::plan::Plan;
use meshgate_harness::probe::{self, Batch, Request};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::json;

use super::{get, on_route, profiled, send};
use crate::counters::{Proxy, fqdn, settle};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "route_metrics/absent",
        summary: "Where the controller chooses pods, its proxy has no route series of the Service and none of its timeouts",
        needs: &[Need::Serves, Need::NoRouteMetrics, Need::Mode(Mode::Default), Need::OncePerRecipe],
        claims: &[Evidence::Confirms("default.no-profiles"), Evidence::Confirms("default.no-route-metrics")],
        stage: Stage::Shared,
        plan: routes,
        run: |context| Box::pin(absent(context)),
    },
    Case {
        id: "route_metrics/absent-without-header",
        summary: "In ingress mode, requests without the header to pods have no route series and none of the timeouts",
        needs: &[Need::Serves, Need::NoRouteMetrics, Need::Mode(Mode::Ingress), Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: routes,
        run: |context| Box::pin(absent(context)),
    },
];

fn routes(plan: &mut Plan) {
    let slow = json!({"name": "slow", "condition": {"pathRegex": "/slow"}, "timeout": "300ms"});
    profiled(plan, &[get("/a"), slow]);
}

async fn absent(context: Context) -> CaseResult {
    const REQUESTS: usize = 6;
    send(&context, &[("/a", REQUESTS, 200), ("/slow?delay_ms=700", 1, 200)]).await?;

    // The control: such requests to the Service's cluster IP are counted by route, and time out, on a machine that stands still for a while too.
    let probe = Proxy::Pod(context.world.pod_address("probe").await?);
    let before = probe.read(&context).await?;
    let target = format!("{}:80", fqdn(&context, "main"));
    let mut requests = vec![Request::get(&target, "/a"); REQUESTS];
    requests.push(Request::get(&target, "/slow?delay_ms=8000"));
    let records = context.send_inside(Batch::of(requests)).await?;
    for (index, record) in records.iter().enumerate() {
        let status = if index < REQUESTS { 200 } else { 504 };
        check("the control: an answer to the probe pod").that(
            record.is(status),
            status.to_string(),
            probe::outcome(record),
        )?;
    }
    let expected = [
        on_route(&context, "route_request_total", "GET /a", REQUESTS),
        on_route(&context, "route_response_total", "slow", 1).and([("error", "timeout")]),
    ];
    let control = settle(&context, probe, &before, &expected).await?;
    check("the control: the kinds of route series at the probe pod's proxy").that(
        !route_series(&context, &control).is_empty(),
        "some",
        "none",
    )?;

    // By now the controller's proxy, too, has counted what it counts.
    no_series(&context, &Proxy::Controller.read(&context).await?).map(|()| Outcome::Pass)
}

fn route_series(context: &Context, metrics: &Metrics) -> Vec<String> {
    let dst = format!("{}:80", fqdn(context, "main"));
    let of_routes =
        metrics.samples().filter(|sample| sample.name.starts_with("route_") && sample.label("direction") == "outbound");
    of_routes.filter(|sample| sample.label("dst") == dst).map(|sample| sample.to_string()).collect()
}

fn no_series(context: &Context, metrics: &Metrics) -> Result<(), Failure> {
    let series = route_series(context, metrics);
    check("route series of the Service at the proxy beside the controller").that(
        series.is_empty(),
        "none",
        series.join("; "),
    )
}
