//! kuard through the ingress, as the page has its readers try it: by a port-forward to the controller's Service.

use std::collections::BTreeSet;
use std::time::Duration;

use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::deadline;
use meshgate_harness::probe::{Batch, Record, Request, outcome};
use meshgate_harness::verdict::{CaseResult, Outcome, check};
use tokio::time::Instant;

use super::commands::PortForward;
use crate::counters::{Moved, Proxy, settle};

/// How long the route may take.
const SETTLES: Duration = Duration::from_secs(20);

/// After this a balancer has forgotten that a pod once was slow: of a first answer of half a second less is left than others take.
const FORGETS: Duration = Duration::from_secs(35);

/// The cases of this file.
pub const CASES: &[Case] = &[Case {
    id: "routing/kuard",
    summary: "kuard answers through kubectl port-forward to the controller, all of its pods in turn, and the proxy counts it by name",
    needs: &[Need::Serves, Need::App("kuard"), Need::ProxyBalances, Need::OncePerRecipe],
    claims: &[],
    stage: Stage::Shared,
    plan: |plan| {
        plan.app("kuard");
        plan.route_to("kuard", "default", "kuard").host("127.0.0.1.nip.io");
    },
    run: |context| Box::pin(kuard(context)),
}];

async fn kuard(context: Context) -> CaseResult {
    const REQUESTS: usize = 30;
    const PODS: usize = 3;
    const CROWD: usize = 6;
    let get = context.get("kuard")?;
    context.until(SETTLES, "kuard behind the ingress", get.clone(), |record| record.is(200)).await?;

    let controller = &context.world.controller;
    let service = format!("svc/{}", controller.workload);
    let forward = PortForward::start(&context, &service, &controller.namespace, controller.ports.http).await?;
    let before = Proxy::Controller.read(&context).await?;
    let host = format!("127.0.0.1.nip.io:{}", forward.address().port());
    let request = Request { host: Some(host), ..Request::get(forward.address().to_string(), "/") };
    let mut batch = Batch { repeat: Some(REQUESTS), ..Batch::of(vec![request]) };
    let (mut pods, mut sent, deadline) = (BTreeSet::new(), 0, deadline(FORGETS));
    // A balancer may leave a pod that once was slow in peace for a while, the shorter the more the others have to do.
    while pods.len() < PODS {
        let seen = format!("{pods:?}");
        check("the pods of kuard that answered").that(Instant::now() < deadline, format!("{PODS} of them"), seen)?;
        let records = forward.send(&batch).await;
        batch.concurrency = CROWD;
        for record in records {
            check("the answer through the port-forward").that(record.is(200), "200", outcome(&record))?;
            pods.extend(hostname(&record));
            sent += 1;
        }
    }
    let authority = "kuard.default.svc.cluster.local";
    let expected = [Moved::new("request_total", [("direction", "outbound"), ("authority", authority)], sent)];
    settle(&context, Proxy::Controller, &before, &expected).await?;

    // The control: another host leads to nothing, through the same port-forward.
    let other = Request::get(forward.address().to_string(), "/").host("nobody.test");
    for record in forward.send(&Batch::of(vec![other])).await {
        check("the answer to a host without a route").that(record.is(404), "404", outcome(&record))?;
    }
    Ok(Outcome::Pass)
}

/// The pod that answered, by its own word.
fn hostname(record: &Record) -> Option<String> {
    let (_, rest) = record.body.split_once("\"hostname\":\"")?;
    rest.split('"').next().map(str::to_owned)
}
