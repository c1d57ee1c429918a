//! Which route a request counts under.

use std::time::Duration;

use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Evidence, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::Plan;
use meshgate_harness::probe::{self, Request};
use meshgate_harness::verdict::{CaseResult, Outcome, check};
use serde_json::json;

use super::{get, on_route, profiled, quiet, send};
use crate::counters::{Proxy, settle};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "route_metrics/counts",
        summary: "The proxy beside the controller counts every request and response under its route, exactly",
        needs: &[Need::Serves, Need::RouteMetrics, Need::Mode(Mode::Ingress), Need::OncePerRecipe],
        claims: &[Evidence::Confirms("ingress.route-metrics"), Evidence::Confirms("ingress.header-added")],
        stage: Stage::Shared,
        plan: two_routes,
        run: |context| Box::pin(counts(context)),
    },
    Case {
        id: "route_metrics/counts-cluster-ip",
        summary: "In default mode the proxy counts by route too, where the controller sends to cluster IPs",
        needs: &[Need::Serves, Need::RouteMetrics, Need::Mode(Mode::Default), Need::OncePerRecipe],
        claims: &[Evidence::Confirms("modes.cluster-ip-default"), Evidence::Refutes("ingress.needs-configuration")],
        stage: Stage::Shared,
        plan: two_routes,
        run: |context| Box::pin(counts(context)),
    },
    Case {
        id: "route_metrics/default-route",
        summary: "A request that no route of the profile matches counts without a route's label",
        needs: &[Need::Serves, Need::RouteMetrics, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Shared,
        plan: two_routes,
        run: |context| Box::pin(default_route(context)),
    },
    Case {
        id: "route_metrics/timeout",
        summary: "A route's timeout ends a slow request with 504 and counts as error timeout; other routes have none",
        needs: &[Need::Serves, Need::RouteMetrics, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Waiting,
        plan: |plan| {
            let slow = json!({"name": "slow", "condition": {"pathRegex": "/slow"}, "timeout": "300ms"});
            let roomy = json!({"name": "roomy", "condition": {"pathRegex": "/roomy"}, "timeout": "10s"});
            profiled(plan, &[slow, roomy, get("/patient")]);
        },
        run: |context| Box::pin(timeout(context)),
    },
];

fn two_routes(plan: &mut Plan) {
    profiled(plan, &[get("/a"), get("/b/[^/]+")]);
}

async fn counts(context: Context) -> CaseResult {
    quiet(&context).await?;
    let before = Proxy::Controller.read(&context).await?;
    send(&context, &[("/a", 7, 200), ("/b/1", 3, 200), ("/b/2?query=1", 2, 200)]).await?;
    let ok = |route, by| {
        let labels = [("status_code", "200"), ("classification", "success"), ("grpc_status", ""), ("error", "")];
        on_route(&context, "route_response_total", route, by).and(labels)
    };
    let expected = [
        on_route(&context, "route_request_total", "GET /a", 7),
        on_route(&context, "route_request_total", "GET /b/[^/]+", 5),
        on_route(&context, "route_request_total", "", 0),
        ok("GET /a", 7),
        ok("GET /b/[^/]+", 5),
        on_route(&context, "route_response_total", "GET /a", 7),
        on_route(&context, "route_response_total", "GET /b/[^/]+", 5),
        // Nothing was retried: as many attempts as requests.
        on_route(&context, "route_actual_response_total", "GET /a", 7),
    ];
    settle(&context, Proxy::Controller, &before, &expected).await?;
    Ok(Outcome::Pass)
}

async fn default_route(context: Context) -> CaseResult {
    quiet(&context).await?;
    let before = Proxy::Controller.read(&context).await?;
    // `/ab` begins like a route and `/b/1/2` goes on after one: the expressions are for whole paths.
    send(&context, &[("/a", 2, 200), ("/ab", 3, 200), ("/b/1/2", 2, 200), ("/elsewhere?x=/a", 4, 200)]).await?;
    let expected = [
        on_route(&context, "route_request_total", "", 9),
        on_route(&context, "route_response_total", "", 9).and([("status_code", "200"), ("classification", "success")]),
        on_route(&context, "route_request_total", "GET /a", 2),
        on_route(&context, "route_request_total", "GET /b/[^/]+", 0),
    ];
    settle(&context, Proxy::Controller, &before, &expected).await?;
    Ok(Outcome::Pass)
}

async fn timeout(context: Context) -> CaseResult {
    quiet(&context).await?;
    let before = Proxy::Controller.read(&context).await?;
    // So long that a machine which stands still for a while has it ended by the timeout all the same.
    let slow = Request { path: "/slow?delay_ms=8000".to_owned(), ..context.get("main")? };
    let record = context.send(slow).await;
    let took = Duration::from_micros(record.total_us);
    check("the answer to a request that takes 8 s, on a route with a timeout of 300 ms").that(
        record.is(504) && (Duration::from_millis(300)..Duration::from_secs(7)).contains(&took),
        "504 after 0.3 to 7 s",
        format!("{} after {took:?}", probe::outcome(&record)),
    )?;
    // The control: a request slower than that is answered where the route has another timeout, or none.
    send(&context, &[("/patient?delay_ms=600", 1, 200), ("/roomy?delay_ms=600", 1, 200)]).await?;
    let timed_out = [("status_code", ""), ("classification", "failure"), ("error", "timeout")];
    let expected = [
        on_route(&context, "route_response_total", "slow", 1).and(timed_out),
        on_route(&context, "route_response_total", "slow", 1),
        on_route(&context, "route_request_total", "slow", 1),
        on_route(&context, "route_response_total", "roomy", 1).and([("status_code", "200"), ("error", "")]),
        on_route(&context, "route_response_total", "GET /patient", 1).and([("status_code", "200"), ("error", "")]),
    ];
    settle(&context, Proxy::Controller, &before, &expected).await?;
    Ok(Outcome::Pass)
}
