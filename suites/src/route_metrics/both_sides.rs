//! Both ends of a request: the proxy beside the controller and the one beside the application, over HTTP and TCP.

use meshgate_fixtures::Balances;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::converge;
use meshgate_harness::metrics::Metrics;
use meshgate_harness::plan::{Backend, NAMESPACE};
use meshgate_harness::probe::{Payload, Request};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};

use super::{get, on_route, profiled, send};
use crate::counters::{Moved, Proxy, fqdn, only_pod, settle};
use crate::resilience::{SETTLES, scale, serve_own};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "route_metrics/inbound",
        summary: "The application's own proxy counts the requests that the controller's sent, and by route where that one does",
        needs: &[Need::Serves, Need::Proxy, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| profiled(plan, &[get("/in")]),
        run: |context| Box::pin(inbound(context)),
    },
    Case {
        id: "route_metrics/authority-label",
        summary: "Requests to a Service carry its name as authority, requests to a pod's address carry none",
        needs: &[Need::Serves, Need::Proxy, Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("main", Backend::B);
        },
        run: |context| Box::pin(authority_label(context)),
    },
    Case {
        id: "route_metrics/tcp",
        summary: "Connections and bytes of the Service are counted at both ends, and connections end with the pod",
        needs: &[Need::Serves, Need::Proxy, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Waiting,
        plan: |plan| serve_own(plan, 1),
        run: |context| Box::pin(tcp(context)),
    },
];

/// Statuses that nobody else's requests have, so that series of a shared pod can be told apart.
const INBOUND_STATUS: u16 = 231;
const AUTHORITY_STATUS: u16 = 232;

async fn inbound(context: Context) -> CaseResult {
    const REQUESTS: usize = 8;
    let pod = only_pod(&context, Backend::B.name()).await?;
    let before = Proxy::Pod(pod).read_all(&context).await?;
    let before_controller = Proxy::Controller.read(&context).await?;
    send(&context, &[(&format!("/in?status={INBOUND_STATUS}"), REQUESTS, INBOUND_STATUS)]).await?;
    let (address, status) = (format!("{pod}:8080"), INBOUND_STATUS.to_string());
    let arrived = [
        ("direction", "inbound"),
        ("target_addr", address.as_str()),
        ("status_code", status.as_str()),
        ("classification", "success"),
    ];
    let mut expected = vec![
        Moved::new("response_total", arrived, REQUESTS),
        Moved::new("response_latency_ms_count", [arrived[0], arrived[1], arrived[2]], REQUESTS),
    ];
    // The name of the Service reaches that proxy only with a request that was sent by name.
    let by_route = if context.promises().route_metrics { REQUESTS } else { 0 };
    let dst = format!("{}:80", fqdn(&context, "main"));
    let route = [("direction", "inbound"), ("dst", dst.as_str()), ("rt_route", "GET /in")];
    expected.push(Moved::new("route_request_total", route, by_route));
    expected.push(Moved::new("route_response_total", route, by_route).and([("status_code", status.as_str())]));
    settle(&context, Proxy::Pod(pod), &before, &expected).await?;

    let outbound = [
        Moved::new("response_total", [("direction", "outbound"), ("status_code", status.as_str())], REQUESTS),
        on_route(&context, "route_request_total", "GET /in", by_route),
    ];
    settle(&context, Proxy::Controller, &before_controller, &outbound).await?;
    Ok(Outcome::Pass)
}

async fn authority_label(context: Context) -> CaseResult {
    const REQUESTS: usize = 6;
    let pod = only_pod(&context, Backend::B.name()).await?;
    let before = Proxy::Controller.read(&context).await?;
    send(&context, &[(&format!("/?status={AUTHORITY_STATUS}"), REQUESTS, AUTHORITY_STATUS)]).await?;
    let (main, address, status) = (fqdn(&context, "main"), format!("{pod}:8080"), AUTHORITY_STATUS.to_string());
    let by_name = context.promises().balances == Balances::Proxy;
    let authority = if by_name { main.as_str() } else { "" };
    let labels = [
        ("direction", "outbound"),
        ("authority", authority),
        ("target_addr", address.as_str()),
        ("status_code", status.as_str()),
    ];
    let expected = [
        Moved::new("response_total", labels, REQUESTS),
        Moved::new("response_total", [labels[0], labels[3]], REQUESTS),
    ];
    let after = settle(&context, Proxy::Controller, &before, &expected).await?;

    let sample = after.select("response_total", &labels).next();
    let Some(sample) = sample else { return Err(check("the series").failure("one", "none")) };
    check(format!("the label dst_namespace of {sample}")).equal(sample.label("dst_namespace"), NAMESPACE)?;
    let pods = context.pods_of(Backend::B.name()).await?;
    let name = pods.first().map_or("", |(name, _)| name);
    check(format!("the label dst_pod of {sample}")).equal(sample.label("dst_pod"), name)?;
    if by_name {
        check(format!("the label dst_service of {sample}"))
            .equal(sample.label("dst_service"), context.plan.full("main"))?;
    }
    for (label, expected) in [("target_ip", pod.to_string()), ("target_port", "8080".to_owned())] {
        check(format!("the label {label} of {sample}")).equal(sample.label(label), expected)?;
    }
    Ok(Outcome::Pass)
}

/// What one proxy says of the connections that it made to the case's own pod.
#[derive(Clone, Copy, Debug)]
struct Connections {
    opened: f64,
    open: f64,
    closed: f64,
    read: f64,
    written: f64,
}

impl Connections {
    fn of(metrics: &Metrics, labels: &[(&str, &str)]) -> Self {
        let sum = |name| metrics.sum(name, labels);
        Self {
            opened: sum("tcp_open_total"),
            open: sum("tcp_open_connections"),
            closed: sum("tcp_close_total"),
            read: sum("tcp_read_bytes_total"),
            written: sum("tcp_write_bytes_total"),
        }
    }
}

async fn tcp(context: Context) -> CaseResult {
    const REQUESTS: usize = 8;
    const BYTES: usize = 30_000;
    // An earlier look has left none.
    scale(&context, 1).await?;
    context.until(SETTLES, "the pod to answer", context.get("main")?, |record| record.is(200)).await?;
    let pod = only_pod(&context, &context.plan.full("pods")).await?;
    let (address, main) = (format!("{pod}:8080"), fqdn(&context, "main"));
    let authority = if context.promises().balances == Balances::Proxy { main.as_str() } else { "" };
    let outbound =
        [("direction", "outbound"), ("peer", "dst"), ("target_addr", address.as_str()), ("authority", authority)];
    let inbound = [("direction", "inbound"), ("peer", "src"), ("target_addr", address.as_str())];
    let before = Connections::of(&Proxy::Controller.read(&context).await?, &outbound);

    // All under way at once: over as many connections, or over one where the proxies speak HTTP/2 with each other.
    let request = Request {
        method: "POST".to_owned(),
        path: format!("/?delay_ms=400&bytes={BYTES}"),
        body: Payload::Bytes(BYTES),
        ..context.get("main")?
    };
    let records = context.send_many(request, REQUESTS, REQUESTS).await;
    for record in &records {
        check("an answer").that(record.is(200), "200", record.outcome())?;
    }
    let sent = (REQUESTS * BYTES) as f64;
    // Series are read one after the other, and meanwhile a connection may end that is idle.
    let after = converge(SETTLES, || async {
        let metrics = Proxy::Controller.read(&context).await.map_err(|failure| failure.to_string())?;
        let now = Connections::of(&metrics, &outbound);
        if now.opened >= 1.0 && now.opened - now.closed == now.open { Ok(now) } else { Err(format!("{now:?}")) }
    })
    .await
    .map_err(|seen| {
        check("the connections of the proxy beside the controller to the pod")
            .failure("at least one opened, and as many open as are not closed", seen)
    })?;
    // Heads of requests and answers are small beside their bodies.
    for (what, moved) in [("sent", after.written - before.written), ("received", after.read - before.read)] {
        check(format!("the bytes {what} over them")).that(
            (sent..sent * 1.2).contains(&moved),
            format!("{sent} and at most a fifth more"),
            moved.to_string(),
        )?;
    }
    let at_pod = Connections::of(&Proxy::Pod(pod).read(&context).await?, &inbound);
    check("the connections that the pod's proxy accepted").that(
        at_pod.opened >= after.opened && at_pod.read >= sent && at_pod.written >= sent,
        format!("at least {} and at least {sent} bytes each way", after.opened),
        format!("{at_pod:?}"),
    )?;
    scale(&context, 0).await?;
    all_closed(&context, &outbound).await?;
    Ok(Outcome::Pass)
}

/// A pool that never lets go would keep a gone pod's connections.
async fn all_closed(context: &Context, labels: &[(&str, &str)]) -> Result<(), Failure> {
    converge(SETTLES, || async {
        let metrics = Proxy::Controller.read(context).await.map_err(|failure| failure.to_string())?;
        let now = Connections::of(&metrics, labels);
        if now.open == 0.0 && now.opened == now.closed { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await
    .map_err(|seen| check("the connections to the pod that is gone").failure("all closed, and counted so", seen))
}
