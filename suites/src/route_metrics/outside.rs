//! What is counted of requests from a load balancer outside the mesh: by the application's own proxy, and by route only where the
//! Host that arrives is the name of the Service.

use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::{Backend, NAMESPACE, Plan};
use meshgate_harness::probe::{self, Batch, Request};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::json;

use super::{get, on_route, profiled, send};
use crate::counters::{Moved, Proxy, fqdn, only_pod, settle};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "route_metrics/outside-uncounted",
        summary: "Requests from outside the mesh are counted by the application's own proxy, but under no route, and no timeout ends them",
        needs: &[Need::Serves, Need::NoRouteMetrics, Need::Mode(Mode::Outside)],
        claims: &[],
        stage: Stage::Shared,
        plan: routes,
        run: |context| Box::pin(uncounted(context)),
    },
    Case {
        id: "route_metrics/outside-by-host",
        summary: "When the Host is the Service's own name, the application's proxy counts requests from outside the mesh by route; \
                  timeouts stay without effect",
        needs: &[Need::Serves, Need::NoRouteMetrics, Need::Mode(Mode::Outside)],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            routes(plan);
            let name = format!("{}.{NAMESPACE}.svc.cluster.local", plan.full("main"));
            plan.route("main", "main").host(&name);
        },
        run: |context| Box::pin(by_host(context)),
    },
];

const REQUESTS: usize = 6;

/// Statuses that nobody else's requests have, so that they can be told apart at a pod that cases share.
const UNCOUNTED: u16 = 233;
const BY_HOST: u16 = 234;

fn routes(plan: &mut Plan) {
    let slow = json!({"name": "slow", "condition": {"pathRegex": "/slow"}, "timeout": "300ms"});
    profiled(plan, &[get("/a"), slow]);
}

/// Requests on a route, and one on a route with a timeout, longer than that: all are answered.
async fn send_both(context: &Context, status: u16) -> Result<(), Failure> {
    send(context, &[(&format!("/a?status={status}"), REQUESTS, status), ("/slow?delay_ms=700", 1, 200)]).await
}

/// Requests that the application's own proxy counts under a route of the Service.
fn by_route(context: &Context, route: &str, by: usize) -> Moved {
    let dst = format!("{}:80", fqdn(context, "main"));
    Moved::new("route_request_total", [("direction", "inbound"), ("dst", dst.as_str()), ("rt_route", route)], by)
}

fn answered(address: &str, status: u16) -> Moved {
    let status = status.to_string();
    let labels = [("direction", "inbound"), ("target_addr", address), ("status_code", status.as_str())];
    Moved::new("response_total", labels, REQUESTS)
}

async fn uncounted(context: Context) -> CaseResult {
    let pod = only_pod(&context, Backend::B.name()).await?;
    let address = format!("{pod}:8080");
    let before = Proxy::Pod(pod).read(&context).await?;
    send_both(&context, UNCOUNTED).await?;
    let expected = [
        answered(&address, UNCOUNTED),
        by_route(&context, "GET /a", 0),
        by_route(&context, "slow", 0),
        by_route(&context, "", 0),
    ];
    settle(&context, Proxy::Pod(pod), &before, &expected).await?;
    control(&context).await
}

async fn by_host(context: Context) -> CaseResult {
    let pod = only_pod(&context, Backend::B.name()).await?;
    let address = format!("{pod}:8080");
    // The cell has waited for the route, by the same Host.
    let before = Proxy::Pod(pod).read(&context).await?;
    send_both(&context, BY_HOST).await?;
    let expected = [answered(&address, BY_HOST), by_route(&context, "GET /a", REQUESTS), by_route(&context, "slow", 1)];
    settle(&context, Proxy::Pod(pod), &before, &expected).await?;
    control(&context).await
}

/// The control: a meshed client's requests to the Service are counted by route at both ends, and time out, on a machine that stands still for a
/// while too.
async fn control(context: &Context) -> CaseResult {
    let probe = Proxy::Pod(context.world.pod_address("probe").await?);
    let pod = Proxy::Pod(only_pod(context, Backend::B.name()).await?);
    let (at_probe, at_pod) = (probe.read(context).await?, pod.read(context).await?);
    let target = format!("{}:80", fqdn(context, "main"));
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
        on_route(context, "route_request_total", "GET /a", REQUESTS),
        on_route(context, "route_response_total", "slow", 1).and([("error", "timeout")]),
    ];
    settle(context, probe, &at_probe, &expected).await?;
    settle(context, pod, &at_pod, &[by_route(context, "GET /a", REQUESTS)]).await?;
    Ok(Outcome::Pass)
}
