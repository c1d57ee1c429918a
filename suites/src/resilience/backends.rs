//! Pods that come and go under load.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams};
use meshgate_fixtures::Balances;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::{converge, patient};
use meshgate_harness::plan::NAMESPACE;
use meshgate_harness::probe::{Batch, Record, Request, Summary, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};

use super::{
    CONNECTIONS, Load, SETTLES, all_good, each_answers, failures, only_from, quickest, ready_pods, scale, serve_own,
    unhurried,
};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "resilience/backend-killed",
        summary: "One of two pods is killed under load: few requests fail, or for a short time, then the other and the replacement answer everything",
        needs: &[Need::Serves, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Waiting,
        plan: |plan| serve_own(plan, 2),
        run: |context| Box::pin(backend_killed(context)),
    },
    Case {
        id: "resilience/scaled",
        summary: "From one pod to three and back under load: all three answer, then one, and few requests fail, or for a short time",
        needs: &[Need::Serves, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Waiting,
        plan: |plan| serve_own(plan, 1),
        run: |context| Box::pin(scaled(context)),
    },
    Case {
        id: "resilience/endpoints-gone-and-back",
        summary: "A Service that loses its last pod is refused within seconds, then at once, and answers again when a pod is back",
        needs: &[Need::Serves, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Waiting,
        plan: |plan| serve_own(plan, 1),
        run: |context| Box::pin(endpoints_gone_and_back(context)),
    },
];

/// How many requests may fail around the end of one pod: those under way on each connection, and for each connection those sent
/// in the moment until everybody has learned of it.
const PER_LOST_POD: usize = 4 * CONNECTIONS;

/// How long a controller that looks at endpoints itself may take to learn of a pod's end.
const LEARNS: Duration = Duration::from_secs(5);

/// What may fail around the end of so many pods. A proxy that balances fails few requests. A controller fails, until it has learned
/// of it, as often as it is asked: not how many they are tells anything of it, but for how long there are any.
fn lost(context: &Context, when: &str, records: &[Record], pods: usize) -> Result<(), Failure> {
    if context.promises().balances == Balances::Proxy {
        return failures(when, records, pods * PER_LOST_POD);
    }
    let failed = || records.iter().filter(|record| !record.is(200)).map(|record| record.started_us);
    let span = failed().max().unwrap_or_default() - failed().min().unwrap_or_default();
    let span = Duration::from_micros(span);
    check(format!("the time from the first to the last request that failed {when}")).that(
        span <= patient(LEARNS),
        format!("at most {} s", patient(LEARNS).as_secs()),
        format!("{:.1} s, in which {} of {} failed", span.as_secs_f64(), failed().count(), records.len()),
    )
}

async fn backend_killed(context: Context) -> CaseResult {
    let before = scale(&context, 2).await?;
    each_answers(&context, &before).await?;
    let load = Load::start(&context, unhurried(&context)?).await?;
    let victim = before.keys().next().context("two pods")?;
    let api: Api<Pod> = Api::namespaced(context.world.kubernetes.client(), NAMESPACE);
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    api.delete(victim, &at_once).await.with_context(|| format!("killing {victim}"))?;

    let after = ready_pods(&context, 2).await?;
    check("the pod that was killed").that(!after.contains_key(victim), "to be gone", format!("{after:?}"))?;
    only_from(&context, &after).await?;
    each_answers(&context, &after).await?;
    let records = load.end().await?;
    lost(&context, "while one of two pods was killed", &records, 1)?;
    all_good("afterwards", &context.send_many(context.get("main")?, 100, CONNECTIONS).await)?;
    Ok(Outcome::Pass)
}

async fn scaled(context: Context) -> CaseResult {
    scale(&context, 1).await?;
    let load = Load::start(&context, unhurried(&context)?).await?;
    let three = scale(&context, 3).await?;
    each_answers(&context, &three).await?;
    all_good("while one pod became three", &load.end().await?)?;

    let load = Load::start(&context, unhurried(&context)?).await?;
    let one = scale(&context, 1).await?;
    only_from(&context, &one).await?;
    lost(&context, "while three pods became one", &load.end().await?, 2)?;
    let records = context.send_many(context.get("main")?, 100, CONNECTIONS).await;
    all_good("afterwards", &records)?;
    check("the pods that answer afterwards").equal(Summary::of(&records).pods.len(), 1)?;
    Ok(Outcome::Pass)
}

/// Which status says that there is no pod is the controller's choice where it looks at endpoints itself, and a load balancer outside
/// may say the same of a backend that is gone and of one that is broken. The proxy's own answer is asked for from a meshed pod.
async fn endpoints_gone_and_back(context: Context) -> CaseResult {
    // A proxy waits three seconds for a pod, and controllers up to five for one that has just gone to take a connection.
    const PATIENCE: Duration = Duration::from_secs(9);
    scale(&context, 1).await?;
    let request = context.get("main")?;
    context.until(PATIENCE, "the only pod to answer", request.clone(), |record| record.is(200)).await?;
    scale(&context, 0).await?;

    let statuses: &[u16] = if context.world.cell.mode.has_proxy() { &[404, 503, 504] } else { &[404, 502, 503, 504] };
    let gone = |record: &Record| refused(record, statuses, PATIENCE).is_ok();
    context.until(SETTLES, "a Service without pods to be refused", request.clone(), gone).await?;
    let mut records = Vec::new();
    for _ in 0..3 {
        records.push(context.send(request.clone()).await);
    }
    records.iter().try_for_each(|record| refused(record, statuses, PATIENCE))?;
    quickest("once the Service is known to have no pods", &records)?;

    let authority = context.route("main")?.authority();
    let direct = Request::get(authority.clone(), "/").header("l5d-dst-override", authority);
    let inside = || context.send_inside(Batch::of(vec![direct.clone()]));
    let by_proxy = |record: &Record| refused(record, &[503, 504], PATIENCE);
    // A controller that looks at endpoints itself may have heard of it before the mesh. The first has to wait.
    converge(SETTLES, || async {
        let records = inside().await.map_err(|failure| failure.to_string())?;
        records.iter().try_for_each(by_proxy).map_err(|failure| failure.to_string())
    })
    .await
    .map_err(|seen| check("a meshed pod's request to a Service without pods").failure("to be refused", seen))?;
    let mut records = Vec::new();
    for _ in 0..3 {
        records.extend(inside().await?);
    }
    records.iter().try_for_each(by_proxy)?;
    quickest("of a proxy that has waited once", &records)?;

    scale(&context, 1).await?;
    context.until(PATIENCE, "the pod that is back to answer", request.clone(), |record| record.is(200)).await?;
    all_good("afterwards", &context.send_many(request, 50, CONNECTIONS).await)?;
    Ok(Outcome::Pass)
}

fn refused(record: &Record, statuses: &[u16], within: Duration) -> Result<(), Failure> {
    let took = Duration::from_micros(record.total_us);
    check("a request to a Service without pods").that(
        statuses.iter().any(|status| record.is(*status)) && took <= within,
        format!("one of {statuses:?} within {} s", within.as_secs()),
        format!("{} after {:.1} s", outcome(record), took.as_secs_f64()),
    )
}
