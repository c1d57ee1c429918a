//! Backends that are slow or refuse connections while their pods stay ready.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use meshgate_clusters::Vantage;
use meshgate_fixtures::Balances;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::{converge_by, deadline};
use meshgate_harness::matrix::Mesh;
use meshgate_harness::plan::{Backend, Plan};
use meshgate_harness::probe::{Record, Request, Summary, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::counters::{ENDPOINTS, Proxy, ended};

use super::{CONNECTIONS, SETTLES, all_good, failures, only_from, quickest, scale, send_crowd, serve_own};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "resilience/slow-backend",
        summary: "A slow answer is waited for, and fast ones of the same backend do not wait with it",
        needs: &[Need::Serves, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Waiting,
        plan: |plan| {
            plan.serve("main", Backend::A);
        },
        run: |context| Box::pin(slow_backend(context)),
    },
    Case {
        id: "resilience/refusing-backend",
        summary: "One of two pods refuses connections: a proxy that balances goes to the other, a controller may not",
        // Linkerd's own proxy finds an endpoint that refuses ready and little loaded, and sends it two thirds of the requests.
        needs: &[Need::Mesh(Mesh::Bundled), Need::Serves, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            serve_unprobed(plan, 2);
            plan.route("direct", "main").port(8081);
            for workload in &mut plan.workloads {
                workload["spec"]["template"]["metadata"]["annotations"] = json!({SKIP_INBOUND: "8081"});
            }
        },
        run: |context| Box::pin(refusing_backend(context)),
    },
    Case {
        id: "resilience/all-refuse",
        summary: "A Service whose only pod refuses connections is a 502 at once, and answers as soon as the pod does",
        needs: &[Need::Serves, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Waiting,
        plan: |plan| serve_unprobed(plan, 1),
        run: |context| Box::pin(all_refuse(context)),
    },
];

/// Ports whose connections do not pass the pod's proxy.
const SKIP_INBOUND: &str = "config.linkerd.io/skip-inbound-ports";

/// The case's own pods without a readiness probe: they stay endpoints whatever they do.
fn serve_unprobed(plan: &mut Plan, replicas: u32) {
    serve_own(plan, replicas);
    for workload in &mut plan.workloads {
        if let Some(container) = workload.pointer_mut("/spec/template/spec/containers/0").and_then(Value::as_object_mut)
        {
            container.remove("readinessProbe");
        }
    }
}

async fn slow_backend(context: Context) -> CaseResult {
    const SLOW: Duration = Duration::from_millis(1500);
    const TRIES: usize = 3;
    let fast = context.get("main")?;
    let request = Request { path: format!("/?delay_ms={}", SLOW.as_millis()), ..fast.clone() };
    let (mut slow, fast) = tokio::join!(context.send(request.clone()), context.send_many(fast, 60, CONNECTIONS));
    let time = |record: &Record| Duration::from_micros(record.total_us);
    // A machine that stands still for a while makes one of them late, and whoever holds answers back all of them.
    for _ in 1..TRIES {
        if time(&slow) < SLOW + Duration::from_secs(2) {
            break;
        }
        slow = context.send(request.clone()).await;
    }
    let took = time(&slow);
    check("the slow request").that(
        slow.is(200) && took >= SLOW && took < SLOW + Duration::from_secs(2),
        "200 after 1.5 s",
        format!("{} after {:.2} s", outcome(&slow), took.as_secs_f64()),
    )?;
    all_good("beside a slow one", &fast)?;
    let median = Duration::from_micros(Summary::of(&fast).p50_us);
    check("the median time of the requests beside a slow one")
        .that(
            median < SLOW / 2,
            format!("less than {} ms", (SLOW / 2).as_millis()),
            format!("{} ms", median.as_millis()),
        )
        .map(|()| Outcome::Pass)
}

/// The same pod refuses on two ports. On one its own proxy takes the connection and answers 502 in the application's place, and
/// tells the client's proxy that the request may go elsewhere. The other port is without that proxy, so the refusal shows where the
/// pod is chosen. Either way who balances well loses next to nothing.
async fn refusing_backend(context: Context) -> CaseResult {
    const REQUESTS: usize = 300;
    let pods = good_pods(&context, 2).await?;
    let refusing = *pods.first().context("two pods")?;
    refuse(&context, refusing, Duration::from_secs(600)).await?;
    let own = Proxy::Pod(refusing);
    let application = format!("{refusing}:8080");
    let inbound = [("direction", "inbound"), ("target_addr", &*application)];
    let refused = [&inbound[..], &[("status_code", "502")]].concat();
    // What was asked to see it refuse is counted by now.
    ended(&context, own, ENDPOINTS, &inbound).await?;
    let before = own.count(&context, "response_total", &refused).await?;
    let direct = context.send_many(context.get("direct")?, REQUESTS, CONNECTIONS).await;
    let mut proxied = context.send_many(context.get("main")?, REQUESTS, CONNECTIONS).await;
    // The control: it was chosen, so that there was something to lose. Whatever is sent until then is judged as well.
    let deadline = deadline(SETTLES);
    while own.count(&context, "response_total", &refused).await? <= before {
        check("requests that the refusing pod's proxy answered with 502 during the sample").that(
            Instant::now() < deadline,
            "at least 1",
            format!("0 of {}", proxied.len()),
        )?;
        proxied.extend(send_crowd(&context).await?);
    }
    // Still so at the end, or the samples were in part ones of two good pods.
    let record = directly(&context, refusing).await;
    check("the refusing pod at the end of the sample").that(record.is(502), "502 of its proxy", outcome(&record))?;

    for (what, records) in [("its port without a proxy", &direct), ("its application behind a proxy", &proxied)] {
        let most = match context.promises().balances {
            Balances::Proxy => records.len() / 100,
            Balances::Controller => records.len() * 7 / 10,
        };
        failures(&format!("while one of two pods refused at {what}"), records, most)?;
        let statuses = Summary::of(records).statuses;
        check("the answers while one of two pods refused").that(
            statuses.keys().all(|status| [200, 502].contains(status)) && statuses.contains_key(&200),
            "200 and 502",
            format!("{statuses:?}"),
        )?;
    }
    Ok(Outcome::Pass)
}

async fn all_refuse(context: Context) -> CaseResult {
    const SECONDS: [u64; 3] = [3, 9, 27];
    // Of so many answers the quickest was held up by nothing.
    const ENOUGH: usize = 3;
    let pods = good_pods(&context, 1).await?;
    let pod = *pods.first().context("a pod")?;
    let (request, mut records, mut time) = (context.get("main")?, Vec::new(), Duration::ZERO);
    // On a busy machine a short time may be over before the pod is seen to refuse, or before the answers are here.
    for seconds in SECONDS {
        time = Duration::from_secs(seconds);
        let refuses = refuse(&context, pod, time).await;
        if refuses.is_err() && SECONDS.last() != Some(&seconds) {
            continue;
        }
        refuses?;
        while records.len() < 5 {
            let record = context.send(request.clone()).await;
            // Counts only if the pod still refuses after it.
            if !directly(&context, pod).await.is(502) {
                break;
            }
            check("a request to a Service whose only pod refuses").that(record.is(502), "502", outcome(&record))?;
            records.push(record);
        }
        if records.len() >= ENOUGH {
            break;
        }
    }
    quickest("while the only pod refuses", &records)?;
    let accepts = |record: &Record| record.is(200);
    context.until(time + SETTLES, "the pod that accepts again to answer", request, accepts).await?;
    Ok(Outcome::Pass)
}

/// So many pods that accept connections: new ones if an earlier look has left any that refuse.
async fn good_pods(context: &Context, count: usize) -> Result<Vec<Ipv4Addr>, Failure> {
    let mut pods = scale(context, count).await?;
    let looks = futures::future::join_all(pods.values().map(|pod| directly(context, *pod))).await;
    let are_new = looks.iter().any(|record| !record.is(200));
    if are_new {
        scale(context, 0).await?;
        pods = scale(context, count).await?;
    }
    for pod in pods.values() {
        answers(context, *pod, 200, deadline(SETTLES)).await?;
    }
    if are_new {
        // Who balances has to hear of them.
        only_from(context, &pods).await?;
    }
    Ok(pods.into_values().collect())
}

/// A request from the node to a pod, past every balancer.
async fn directly(context: &Context, pod: Ipv4Addr) -> Record {
    context.send_from(Vantage::Node, Request::get(format!("{pod}:8080"), "/")).await
}

async fn answers(context: &Context, pod: Ipv4Addr, status: u16, deadline: Instant) -> Result<(), Failure> {
    converge_by(deadline, || async {
        let record = directly(context, pod).await;
        if record.is(status) { Ok(()) } else { Err(outcome(&record)) }
    })
    .await
    .map_err(|seen| check(format!("the pod {pod} itself")).failure(status.to_string(), seen))
}

/// Has a pod refuse connections for a while, and waits until it does: its own proxy says 502 then.
async fn refuse(context: &Context, pod: Ipv4Addr, time: Duration) -> Result<(), Failure> {
    let fault = format!("{{\"refuse_ms\": {}}}", time.as_millis());
    let request = Request::get(format!("{pod}:8080"), "/_fault").body("POST", fault);
    let record = context.send_from(Vantage::Node, request).await;
    check("the answer to a fault").equal(record.status, Some(200))?;
    // When the time is over it refuses no more.
    answers(context, pod, 502, deadline(SETTLES).min(Instant::now() + time)).await
}
