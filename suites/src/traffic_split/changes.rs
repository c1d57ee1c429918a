//! Splits that change and legs that die while requests come in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use meshgate_harness::case::{Case, Evidence, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::deadline;
use meshgate_harness::plan::Backend;
use meshgate_harness::probe::{Record, Request, Summary, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Answers, SETTLES, sample, shares, until_from};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "traffic_split/changed-under-load",
        summary: "A split that turns from 100/0 to 0/100 under load fails no request and then sends all to the new leg",
        needs: &[Need::Serves, Need::Split, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[Evidence::Confirms("ingress.split")],
        stage: Stage::Shared,
        plan: |plan| shares::split(plan, 100, 0),
        run: |context| Box::pin(changed_under_load(context)),
    },
    Case {
        id: "traffic_split/dead-leaf",
        summary: "A leg without endpoints fails at most one request per connection, then the living legs get everything",
        needs: &[Need::Serves, Need::Split, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Waiting,
        plan: |plan| {
            plan.service("apex", Backend::A);
            plan.service("live", Backend::A);
            plan.service("dead", Backend::Nothing);
            plan.service("other", Backend::B);
            plan.split("apex", &[("live", 100), ("other", 0), ("dead", 0)]);
            plan.route("apex", "apex");
        },
        run: |context| Box::pin(dead_leaf(context)),
    },
];

async fn changed_under_load(context: Context) -> CaseResult {
    let request = context.get("apex")?;
    let kubernetes = &context.world.kubernetes;
    kubernetes.apply(&context.plan.split_object("apex", &[("one", 100), ("two", 0)])).await?;
    until_from(&context, &request, Backend::A).await?;

    let (flowing, stop) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let load = {
        // Paced by the backend: what counts is that requests keep coming, not how many.
        let request = Request { path: "/?delay_ms=10".into(), ..request.clone() };
        let context = context.clone();
        let (flowing, stop) = (Arc::clone(&flowing), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut records: Vec<Record> = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                records.extend(context.send_many(request.clone(), 40, 4).await);
                flowing.notify_one();
            }
            records
        })
    };
    flowing.notified().await;
    kubernetes.apply(&context.plan.split_object("apex", &[("one", 0), ("two", 100)])).await?;
    let turned = until_from(&context, &request, Backend::B).await;
    stop.store(true, Ordering::Relaxed);
    let records = load.await.context("the load ended early")?;
    turned?;

    let during = Answers::all_good("while the split changed", &records)?;
    check("the requests that the old leg answered under load").that(
        during.of(Backend::A) > 0,
        "some: the load began before the change",
        format!("{:?}", during.0.services),
    )?;
    sample(&context, "after the change", request, 200).await?.only(Backend::B)?;
    Ok(Outcome::Pass)
}

/// How long a request to a leg without endpoints may take: the proxy waits three seconds for one, and a machine may stand still for two.
const FAILS: Duration = Duration::from_secs(8);

/// Linkerd's proxy was observed to fail one request per connection, after 3 s, and then to leave the leg out. A proxy that
/// leaves it out from the start is right, too.
async fn dead_leaf(context: Context) -> CaseResult {
    const CONNECTIONS: usize = 8;
    let request = context.get("apex")?;
    let kubernetes = &context.world.kubernetes;
    // As it was before an earlier look, which has left the dead leg alone.
    kubernetes.apply(&context.plan.split_object("apex", &[("live", 100), ("other", 0), ("dead", 0)])).await?;
    until_from(&context, &request, Backend::A).await?;
    kubernetes.apply(&context.plan.split_object("apex", &[("live", 40), ("other", 40), ("dead", 20)])).await?;

    // The first answer of the other living leg shows that the split is in force.
    let deadline = deadline(SETTLES);
    let mut records = Vec::new();
    while Summary::of(&records).service(Backend::B.name()) == 0 && Instant::now() < deadline {
        records.extend(context.send_many(request.clone(), 100, CONNECTIONS).await);
    }
    check("the living legs, while a third has no endpoints").that(
        Summary::of(&records).service(Backend::B.name()) > 0,
        "answers from both",
        format!("{:?}", Summary::of(&records).services),
    )?;
    records.extend(context.send_many(request.clone(), 200, CONNECTIONS).await);
    let failed: Vec<&Record> = records.iter().filter(|record| !record.is(200)).collect();
    check("requests that failed when a leg without endpoints got a weight").that(
        failed.len() <= CONNECTIONS,
        format!("at most {CONNECTIONS} of {}, one per connection", records.len()),
        format!("{} ({:?})", failed.len(), Summary::of(&records).statuses),
    )?;
    failed.into_iter().try_for_each(failed_fast)?;
    let after = context.send_many(request.clone(), 100, CONNECTIONS).await;
    Answers::all_good("once the leg is known to be dead", &after)?;

    // The control: the same leg without a living one beside it.
    kubernetes.apply(&context.plan.split_object("apex", &[("live", 0), ("other", 0), ("dead", 100)])).await?;
    let refused = |record: &Record| failed_fast(record).is_ok();
    context.until(SETTLES, "the dead leg alone to fail", request, refused).await?;
    Ok(Outcome::Pass)
}

fn failed_fast(record: &Record) -> Result<(), Failure> {
    let took = Duration::from_micros(record.total_us);
    check("a request to a leg without endpoints").that(
        matches!(record.status, Some(503 | 504)) && took < FAILS,
        format!("503 or 504 within {} s", FAILS.as_secs()),
        format!("{} after {:.1} s", outcome(record), took.as_secs_f64()),
    )
}
