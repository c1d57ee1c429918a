//! Who chooses the pod that answers: the controller or the proxy beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Evidence, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::deadline;
use meshgate_harness::plan::Backend;
use meshgate_harness::probe::{Batch, Connection, Keep, Record, Request, Summary};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use tokio::time::Instant;

use crate::counters::{ENDPOINTS, Moved, Proxy, cluster_ip, ended, fqdn, settle};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "modes/choice-honoured",
        summary: "The pods that the controller chooses answer, in turn, and the proxy sends to no other",
        needs: &[Need::Serves, Need::ControllerBalances, Need::Mode(Mode::Default)],
        claims: &[Evidence::Confirms("default.honours-choice")],
        // A controller begins its turns anew with each configuration, and other cases change it.
        stage: Stage::Alone,
        plan: |plan| {
            let app = plan.backend("pods", 2, &[]);
            plan.service_for("main", &app);
            plan.route("main", "main");
        },
        run: |context| Box::pin(choice_honoured(context)),
    },
    Case {
        id: "modes/no-header-honours-choice",
        summary: "In ingress mode, a request that names no Service goes to the pod that the controller chose",
        needs: &[Need::Serves, Need::ControllerBalances, Need::Mode(Mode::Ingress)],
        claims: &[],
        // A controller begins its turns anew with each configuration, and other cases change it.
        stage: Stage::Alone,
        plan: |plan| {
            let app = plan.backend("pods", 2, &[]);
            plan.service_for("main", &app);
            plan.route("main", "main");
        },
        run: |context| Box::pin(choice_honoured(context)),
    },
    Case {
        id: "modes/balances-itself",
        summary: "In ingress mode the proxy spreads over the pods of the Service that the header names, wherever the controller \
                  would have sent",
        needs: &[Need::Serves, Need::ProxyBalances, Need::Mode(Mode::Ingress), Need::Value("override")],
        claims: &[Evidence::Confirms("ingress.balances")],
        stage: Stage::Shared,
        plan: |plan| {
            // The controller knows the one pod of `dialled`, the header names the two of `main`.
            let app = plan.backend("pods", 2, &[]);
            plan.service_for("main", &app);
            plan.service("dialled", Backend::B);
            let name = format!("{}.workbench.svc.cluster.local:80", plan.full("main"));
            plan.route("main", "dialled").value("override", name).unawaited();
        },
        run: |context| Box::pin(balances_itself(context)),
    },
    Case {
        id: "modes/balances-cluster-ip",
        summary: "In default mode the proxy spreads over the pods of a Service whose cluster IP the controller sends to",
        needs: &[Need::Serves, Need::ProxyBalances, Need::Mode(Mode::Default)],
        claims: &[Evidence::Confirms("modes.cluster-ip-default")],
        stage: Stage::Shared,
        plan: |plan| {
            let app = plan.backend("pods", 2, &[]);
            plan.service_for("main", &app);
            plan.route("main", "main");
        },
        run: |context| Box::pin(balances_cluster_ip(context)),
    },
];

/// How long a route may take to be there.
const SETTLES: Duration = Duration::from_secs(10);

/// How many requests show a choice.
const REQUESTS: usize = 100;

/// How many answers each pod gave. Every answer has to be a 200 of one of the case's two pods.
async fn by_pod(context: &Context, records: &[Record]) -> Result<BTreeMap<String, usize>, Failure> {
    let summary = Summary::of(records);
    let pods = context.pods_of(&context.plan.full("pods")).await?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (name, address) in &pods {
        counts.insert(format!("{address}:8080"), summary.pods.get(name).copied().unwrap_or_default());
    }
    check("the answers").that(
        pods.len() == 2 && counts.values().sum::<usize>() == records.len() && summary.status(200) == records.len(),
        format!("{} times 200 from two pods of the case's own", records.len()),
        format!("statuses {:?}, errors {:?}, pods {:?}", summary.statuses, summary.errors, summary.pods),
    )?;
    Ok(counts)
}

/// One request after the other over one connection, of which the first makes a pod look slow to a balancer that measures. One that
/// only counts is not impressed.
fn slow_first(request: Request) -> Batch {
    let request = request.on(Connection::PerWorker);
    let slow = Request { path: "/?delay_ms=200".to_owned(), ..request.clone() };
    let requests = std::iter::once(slow).chain(std::iter::repeat_n(request, REQUESTS - 1)).collect();
    Batch { requests, concurrency: 1, repeat: None, keep: Keep::Status }
}

/// Whether no pod answered twice in a row.
fn takes_turns(records: &[Record]) -> bool {
    records.windows(2).all(|pair| pair[0].pod() != pair[1].pod())
}

async fn choice_honoured(context: Context) -> CaseResult {
    let request = context.get("main")?;
    // A controller that takes a configuration meanwhile begins its turns anew, and what the case before has changed may come late. Once as many
    // requests as are judged have been in turn there is none on its way any more.
    let deadline = deadline(SETTLES);
    while !takes_turns(&context.send_batch(slow_first(request.clone())).await) {
        check("the order of the answers of two pods").that(
            Instant::now() < deadline,
            "one pod after the other, at the latest when the controller has come to rest",
            "a pod twice in a row",
        )?;
    }
    for (_, address) in context.pods_of(&context.plan.full("pods")).await? {
        let address = format!("{address}:8080");
        let labels = [("direction", "outbound"), ("target_addr", address.as_str())];
        ended(&context, Proxy::Controller, ENDPOINTS, &labels).await?;
    }
    let before = Proxy::Controller.read(&context).await?;
    let records = context.send_batch(slow_first(request)).await;
    let counts = by_pod(&context, &records).await?;
    check("the order of the answers of two pods").that(
        takes_turns(&records),
        "one pod after the other, as the controller chooses",
        format!("a pod twice in a row ({counts:?})"),
    )?;
    check("the answers of each pod").that(
        counts.values().all(|count| *count == REQUESTS / 2),
        format!("{} each", REQUESTS / 2),
        format!("{counts:?}"),
    )?;
    // The proxy's word for the same: it was the pod, not a Service, that each request was for.
    let expected: Vec<Moved> = counts
        .iter()
        .map(|(address, count)| {
            let labels = [("direction", "outbound"), ("target_addr", address), ("authority", "")];
            Moved::new("response_total", labels, *count).and([("status_code", "200")])
        })
        .collect();
    settle(&context, Proxy::Controller, &before, &expected).await?;

    // The control: where the proxy chooses among the same pods, it spares the one that was slow.
    let name = fqdn(&context, "main");
    let balanced = context.send_inside(slow_first(Request::get(format!("{name}:80"), "/"))).await?;
    by_pod(&context, &balanced).await?;
    check("the control: the order of the answers through a proxy that balances").that(
        !takes_turns(&balanced),
        "not strictly in turn",
        "strictly in turn, so that the order proves nothing",
    )?;
    Ok(Outcome::Pass)
}

/// Sends so many requests at a time that a balancer which counts what is under way has to use both pods, and checks that the
/// proxy chose them and the controller connected to neither. So much is under way at a time that a pod whose first answer took two seconds is used
/// as well.
async fn spreads(context: &Context) -> Result<(), Failure> {
    let authority = fqdn(context, "main");
    let before = Proxy::Controller.read(context).await?;
    let request = Request { path: "/?delay_ms=300".to_owned(), ..context.get("main")? };
    let records = context.send_many(request, REQUESTS, 25).await;
    let counts = by_pod(context, &records).await?;
    check("the answers of each pod").that(
        counts.values().all(|count| *count >= REQUESTS / 20),
        format!("at least {} each", REQUESTS / 20),
        format!("{counts:?}"),
    )?;
    let expected: Vec<Moved> = counts
        .iter()
        .map(|(address, count)| {
            let labels = [("direction", "outbound"), ("target_addr", address), ("authority", authority.as_str())];
            Moved::new("request_total", labels, *count)
        })
        .collect();
    settle(context, Proxy::Controller, &before, &expected).await?;
    for address in counts.keys() {
        let labels = [("direction", "outbound"), ("peer", "src"), ("target_addr", address.as_str())];
        let own = Proxy::Controller.count(context, "tcp_open_total", &labels).await?;
        check(format!("the controller's own connections to the pod {address}")).equal(own, 0.0)?;
    }
    Ok(())
}

async fn balances_itself(context: Context) -> CaseResult {
    let pods = context.plan.full("pods");
    let accept = |record: &Record| record.is(200) && record.service() == Some(pods.as_str());
    context
        .until(SETTLES, "the pods of the Service that the header names to answer", context.get("main")?, accept)
        .await?;
    spreads(&context).await?;
    Ok(Outcome::Pass)
}

async fn balances_cluster_ip(context: Context) -> CaseResult {
    spreads(&context).await?;
    let address = format!("{}:80", cluster_ip(&context, "main").await?);
    let metrics = Proxy::Controller.read(&context).await?;
    let labels = [("direction", "outbound"), ("peer", "src"), ("target_addr", address.as_str())];
    let opened = metrics.sum("tcp_open_total", &labels);
    check(format!("the controller's connections to the cluster IP {address}")).that(
        opened > 0.0,
        "some",
        opened.to_string(),
    )?;
    Ok(Outcome::Pass)
}
