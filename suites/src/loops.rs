//! Loops: how often one request passes a controller.
//!
//! The measure is amplification: every request of these cases has a path of its own, and the controller's access log says how often
//! it passed. One in has to be at most one pass through each controller. The control experiments send the same request through
//! instances of the controller whose proxy has its loop guard off, watch the request go round, and end the storm by taking
//! the name that it follows out of DNS.

use std::time::Duration;

use anyhow::anyhow;
use meshgate_clusters::Entrance;
use meshgate_harness::case::Case;
use meshgate_harness::context::Context;
use meshgate_harness::convergence::{converge, deadline};
use meshgate_harness::plan::{Plan, Route};
use meshgate_harness::probe::{Record, Request, describe, outcome};
use meshgate_harness::verdict::{Failure, check};
use tokio::time::Instant;

use crate::counters::Proxy;

mod guarded;
mod harmless;

/// The cases of this area.
pub const CASES: &[&[Case]] = &[guarded::CASES, harmless::CASES];

/// How long routes, names and logs may take to follow.
const SETTLES: Duration = Duration::from_secs(10);

/// A loop has to be seen to go round so often before it counts as one.
const ROUNDS: usize = 5;

/// Instances of the controller without the loop guard.
const UNGUARDED: &str = "unguarded";
const UNGUARDED_TOO: &str = "unguarded-too";

fn unguarded(plan: &mut Plan, name: &str) {
    plan.instance(name, &[("config.meshgate.dev/loop-guard", "off")]);
}

/// An instance of the controller.
#[derive(Clone)]
struct Ingress {
    workload: String,
    entrance: Entrance,
}

impl Ingress {
    /// The one that all cases share.
    fn main(context: &Context) -> Self {
        Self { workload: context.world.controller.workload.clone(), entrance: context.world.ingress.clone() }
    }

    /// One that the case declared.
    fn named(context: &Context, name: &str) -> Result<Self, Failure> {
        let entrance = context.world.instances.get(name).cloned();
        let entrance = entrance.ok_or_else(|| anyhow!("{} declares no instance {name:?}", context.id))?;
        Ok(Self { workload: name.to_owned(), entrance })
    }

    /// `workload.namespace.svc.cluster.local:80`.
    fn authority(&self, context: &Context) -> String {
        format!("{}.{}.svc.cluster.local:{}", self.workload, context.world.controller.namespace, self.port(context))
    }

    fn port(&self, context: &Context) -> u16 {
        context.world.controller.ports.http
    }

    fn request(&self, context: &Context, route: &Route) -> Request {
        context.world.request_to(route, &self.entrance)
    }

    /// How often a request has passed, once `least` passes and everything that ended before this call are in the log.
    async fn passes(&self, context: &Context, marker: &str, least: usize) -> Result<usize, Failure> {
        let count = || async { context.passes(&self.workload, marker).await };
        converge(SETTLES, || async {
            match count().await {
                Ok(passes) if passes >= least => Ok(()),
                Ok(passes) => Err(format!("{passes}")),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
        .map_err(|seen| {
            check(format!("the passes of {marker} through {}", self.workload))
                .failure(format!("at least {least}"), seen)
        })?;

        // Whatever had ended before a later request is in the log before it.
        let target = self.entrance.at(self.port(context)).to_string();
        let fence = marker_path("fence");
        context.send(Request::get(target, &fence).host(format!("nobody.{}", context.plan.full("test")))).await;
        converge(SETTLES, || async {
            match context.passes(&self.workload, &fence).await {
                Ok(1..) => Ok(()),
                Ok(0) => Err("not there".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
        .map_err(|seen| {
            check(format!("a later request in the log of {}", self.workload)).failure("to be there", seen)
        })?;
        count().await
    }

    /// How many requests its proxy has sent on. Not how many have reached it: the kubelet's probes do that too.
    async fn departures(&self, context: &Context) -> Result<f64, Failure> {
        let pod = context.world.controller_pod(&self.workload).await?;
        Proxy::Pod(pod).count(context, "request_total", &[("direction", "outbound")]).await
    }

    /// How many requests its proxy has refused as loops.
    async fn refusals(&self, context: &Context) -> Result<f64, Failure> {
        let pod = context.world.controller_pod(&self.workload).await?;
        Proxy::Pod(pod).count(context, "meshgate_loop_refused_total", &[]).await
    }
}

/// A path that no other request has.
fn marker_path(what: &str) -> String {
    format!("/{what}-{:016x}", rand::random::<u64>())
}

/// Gives a request a path of its own and sends it.
async fn send_marked(context: &Context, request: Request) -> (Record, String) {
    let marker = marker_path("loop");
    let record = context.send(Request { path: marker.clone(), ..request }).await;
    (record, marker)
}

/// The request was refused as a loop: 508 with the reason.
fn refused(what: &str, record: &Record) -> Result<(), Failure> {
    let told = record.header("l5d-proxy-error").any(|reason| reason.contains("loop: "));
    check(what).that(record.is(508) && told, "508 and l5d-proxy-error: loop", outcome(record))
}

/// Amplification: how often a request that came in once passed an ingress.
async fn passed(context: &Context, ingress: &Ingress, marker: &str, expected: usize) -> Result<(), Failure> {
    let passes = ingress.passes(context, marker, expected).await?;
    check(format!("the passes of {marker} through {}", ingress.workload)).equal(passes, expected)
}

/// Waits until an ingress serves a route whose Host DNS does not know, which the documented dialect looks up.
async fn until_unresolvable(context: &Context, ingress: &Ingress, route: &Route, name: &str) -> Result<(), Failure> {
    let accept = |record: &Record| {
        record.is(502)
            && record.header("l5d-proxy-error").any(|reason| reason.contains(name) && reason.contains("no address"))
    };
    context.until_all(SETTLES, &format!("the proxy to look {name} up"), ingress.request(context, route), accept).await
}

/// Waits until a request has gone round often enough, and returns how often it has. The first look that says so is proof, and each further one would be
/// hundreds of rounds more for the storm to wear out a program on its way.
async fn goes_round(context: &Context, watched: &Ingress, before: f64) -> Result<f64, Failure> {
    let deadline = deadline(SETTLES);
    loop {
        let rounds = watched.departures(context).await.map(|now| now - before);
        if Instant::now() >= deadline || rounds.as_ref().is_ok_and(|rounds| *rounds >= ROUNDS as f64) {
            return rounds;
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
}

/// The control experiment: sends a request that is to go round through `watched` while these names lead to these ingresses, sees it do so
/// [`ROUNDS`] times, then takes the names out of DNS, which ends it. Returns the request's mark.
///
/// Where this process stood still before that, the storm may have worn out a program on its way and ended by that one's error: headers that have
/// grown too large (431), or no connection that is left (500). Then there is one more, and its answer is judged.
async fn storm(
    context: &Context,
    request: Request,
    watched: &Ingress,
    names: &[(&str, &Ingress)],
) -> Result<String, Failure> {
    let (mut marker, mut record) = storm_once(context, &request, watched, names).await?;
    if !record.is(502) {
        context.until_all(SETTLES, "the storm to be over", request.clone(), |record| record.is(502)).await?;
        (marker, record) = storm_once(context, &request, watched, names).await?;
    }
    check(format!("{}, when the name it follows is gone from DNS", describe(&request))).that(
        record.is(502),
        "502",
        outcome(&record),
    )?;
    Ok(marker)
}

/// One such request: its mark, and its answer.
async fn storm_once(
    context: &Context,
    request: &Request,
    watched: &Ingress,
    names: &[(&str, &Ingress)],
) -> Result<(String, Record), Failure> {
    let marker = marker_path("storm");
    let request = Request { path: marker.clone(), ..request.clone() };
    let what = describe(&request);
    let before = watched.departures(context).await?;
    for (name, ingress) in names {
        context.world.cluster.set_external_name(name, &[ingress.entrance.ip]);
    }
    let client = {
        let context = context.clone();
        tokio::spawn(async move { context.send(request).await })
    };
    let rounds = goes_round(context, watched, before).await;
    for (name, _) in names {
        context.world.cluster.set_external_name(name, &[]);
    }
    let record = client.await.map_err(|error| anyhow!("the client ended early: {error}"))?;
    let rounds = rounds?;
    check(format!("{what} without the loop guard")).that(
        rounds >= ROUNDS as f64,
        format!("to go round through {} {ROUNDS} times", watched.workload),
        format!("{rounds} rounds"),
    )?;
    Ok((marker, record))
}
