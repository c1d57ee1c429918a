//! Resilience: what fails when parts die, restart, slow down or refuse, and within what time it mends.
//!
//! Each case has a backend of its own and bounds the failures while it breaks something, and then sees that none are left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use meshgate_harness::case::Case;
use meshgate_harness::context::Context;
use meshgate_harness::convergence::{converge, deadline, patient};
use meshgate_harness::plan::{NAMESPACE, Plan, Route};
use meshgate_harness::probe::{Record, Request, Summary};
use meshgate_harness::verdict::{Failure, check};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

mod backends;
mod bad_objects;
mod became_bad;
mod certificates;
mod faults;
mod neighbours;
mod restarts;

/// The cases of this area.
pub const CASES: &[&[Case]] = &[
    backends::CASES,
    restarts::CASES,
    faults::CASES,
    neighbours::CASES,
    bad_objects::CASES,
    became_bad::CASES,
    certificates::CASES,
];

/// How long pods may take to come and go, and everybody to know.
pub(crate) const SETTLES: Duration = Duration::from_secs(15);

/// How long a pod may take to end that has been told to, before it is killed.
const GRACE: Duration = Duration::from_secs(30);

/// Shorter than anything that a proxy waits for in vain: connections 1 s, endpoints 3 s.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Over how many keep-alive connections a case sends.
const CONNECTIONS: usize = 4;

/// The case's own pods, which its route `main` reaches.
const PODS: &str = "pods";

/// So many pods of the case's own behind its route `main`.
pub(crate) fn serve_own(plan: &mut Plan, replicas: u32) {
    let app = plan.backend(PODS, replicas, &[]);
    plan.service_for("main", &app);
    plan.route("main", "main");
}

/// A GET for the case's route that the backend answers after a while: it is under way long enough to be hit by what happens, and
/// many of them are no burden.
fn unhurried(context: &Context) -> Result<Request, Failure> {
    Ok(Request { path: "/?delay_ms=25".into(), ..context.get("main")? })
}

/// The objects of a route but for those that routes of the case's plan have as well: what several share is there before and after them.
fn own_objects(context: &Context, route: &Route) -> Result<Vec<Value>, Failure> {
    let recipe = &context.world.recipe;
    let objects = |route: &Route| route.objects(recipe).map_err(anyhow::Error::from);
    let mut shared = Vec::new();
    for planned in context.plan.routes.values() {
        shared.extend(objects(planned)?);
    }
    let mut own = objects(route)?;
    own.retain(|object| !shared.iter().any(|other| is_same(object, other)));
    Ok(own)
}

/// Whether two manifests are of one object.
fn is_same(one: &Value, other: &Value) -> bool {
    let alike = |field: &str| one["metadata"][field] == other["metadata"][field];
    one["apiVersion"] == other["apiVersion"] && one["kind"] == other["kind"] && alike("namespace") && alike("name")
}

/// Sets the number of the case's pods, waits until so many are ready and no other is left, and returns their addresses by name.
pub(crate) async fn scale(context: &Context, replicas: usize) -> Result<BTreeMap<String, Ipv4Addr>, Failure> {
    let api: Api<Deployment> = Api::namespaced(context.world.kubernetes.client(), NAMESPACE);
    let patch = Patch::Merge(serde_json::json!({"spec": {"replicas": replicas}}));
    let name = context.plan.full(PODS);
    api.patch(&name, &PatchParams::default(), &patch).await.with_context(|| format!("scaling {name}"))?;
    ready_pods(context, replicas).await
}

/// Waits until the case has so many pods, all ready.
async fn ready_pods(context: &Context, count: usize) -> Result<BTreeMap<String, Ipv4Addr>, Failure> {
    let deadline = deadline(SETTLES + GRACE);
    loop {
        let pods = context.world.kubernetes.pods(NAMESPACE, &format!("app={}", context.plan.full(PODS))).await?;
        let ready: BTreeMap<String, Ipv4Addr> = pods.iter().filter_map(ready_pod).collect();
        if ready.len() == count && pods.len() == count {
            return Ok(ready);
        }
        if Instant::now() >= deadline {
            let found = format!("{} pods, {} of them ready", pods.len(), ready.len());
            return Err(anyhow::anyhow!("{}: expected {count} ready pods, found {found}", context.id).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn ready_pod(pod: &Pod) -> Option<(String, Ipv4Addr)> {
    let status = pod.status.as_ref()?;
    let ready =
        |condition: &k8s_openapi::api::core::v1::PodCondition| condition.type_ == "Ready" && condition.status == "True";
    let ready = pod.metadata.deletion_timestamp.is_none() && status.conditions.iter().flatten().any(ready);
    ready.then_some((pod.metadata.name.clone()?, status.pod_ip.as_ref()?.parse().ok()?))
}

/// Waits until nobody but these pods answers, and every request is answered.
async fn only_from(context: &Context, pods: &BTreeMap<String, Ipv4Addr>) -> Result<(), Failure> {
    let request = context.get("main")?;
    converge(SETTLES, || async {
        let summary = Summary::of(&context.send_many(request.clone(), 20, CONNECTIONS).await);
        let strange = summary.pods.keys().any(|pod| !pods.contains_key(pod));
        let answered: usize = summary.pods.values().sum();
        if summary.status(200) == summary.total && answered == summary.total && !strange {
            Ok(())
        } else {
            Err(format!("{:?}, errors {:?}, pods {:?}", summary.statuses, summary.errors, summary.pods))
        }
    })
    .await
    .map_err(|seen| check("who answers").failure(format!("only {:?}, every time", pods.keys()), seen))
}

/// Sends until every one of these pods has answered.
async fn each_answers(context: &Context, pods: &BTreeMap<String, Ipv4Addr>) -> Result<(), Failure> {
    let deadline = deadline(SETTLES);
    let mut seen = BTreeSet::new();
    let mut records = context.send_many(context.get("main")?, 20, CONNECTIONS).await;
    loop {
        seen.extend(Summary::of(&records).pods.into_keys());
        if pods.keys().all(|pod| seen.contains(pod)) {
            return Ok(());
        }
        check("the pods that answer").that(
            Instant::now() < deadline,
            format!("all of {:?} within {} s", pods.keys(), patient(SETTLES).as_secs()),
            format!("{seen:?}"),
        )?;
        records = send_crowd(context).await?;
    }
}

/// Many requests at once, each under way for a while. A balancer leaves a pod that once was slow in peace, after an
/// answer of half a second for longer than a case waits, unless the others have so much to do that it is the quicker
/// one all the same.
async fn send_crowd(context: &Context) -> Result<Vec<Record>, Failure> {
    const CROWD: usize = 32;
    let request = Request { path: "/?delay_ms=100".into(), ..context.get("main")? };
    Ok(context.send_many(request, 2 * CROWD, CROWD).await)
}

/// Every one of the answers is a 200.
fn all_good(what: &str, records: &[Record]) -> Result<(), Failure> {
    failures(what, records, 0)
}

/// At most so many requests have got another answer than 200, or none.
fn failures(what: &str, records: &[Record], most: usize) -> Result<(), Failure> {
    let summary = Summary::of(records);
    let failed = summary.total - summary.status(200);
    check(format!("requests that failed {what}")).that(
        failed <= most,
        format!("at most {most} of {}", summary.total),
        format!("{failed} (statuses {:?}, errors {:?})", summary.statuses, summary.errors),
    )
}

/// The quickest of several answers was there at once. All are asked for one after the other, so that what the proxy waits for
/// would show in every one of them, and a busy machine only in some.
fn quickest(what: &str, records: &[Record]) -> Result<(), Failure> {
    let took = Duration::from_micros(records.iter().map(|record| record.total_us).min().unwrap_or(u64::MAX));
    check(format!("the quickest of {} answers {what}", records.len())).that(
        took <= AT_ONCE,
        format!("within {} s", AT_ONCE.as_secs()),
        format!("after {:.2} s", took.as_secs_f64()),
    )
}

/// Requests that keep coming over keep-alive connections while a case breaks something.
struct Load {
    stop: CancellationToken,
    task: JoinHandle<Vec<Record>>,
}

impl Load {
    /// Begins, and returns once the first answers are there.
    async fn start(context: &Context, request: Request) -> Result<Self, Failure> {
        let (stop, (first, mut flowing)) = (CancellationToken::new(), mpsc::channel(1));
        let (context, stopped) = (context.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let (mut records, began) = (Vec::new(), Instant::now());
            while !stopped.is_cancelled() {
                // A record tells its time since its batch began.
                let before = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                let batch = context.send_many(request.clone(), 10 * CONNECTIONS, CONNECTIONS).await;
                let since = |record: Record| Record { started_us: before + record.started_us, ..record };
                records.extend(batch.into_iter().map(since));
                // Only the first matters; later ones find the channel full or closed.
                let _ = first.try_send(());
            }
            records
        });
        flowing.recv().await.context("the load ended before it began")?;
        Ok(Self { stop, task })
    }

    /// Ends, and returns everything that was answered or not, with times since the load began.
    async fn end(mut self) -> Result<Vec<Record>, Failure> {
        self.stop.cancel();
        Ok((&mut self.task).await.context("the load ended early")?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
