//! A load balancer outside the mesh: what it chooses stands, and only the pods' own proxies tell of it.

use std::collections::BTreeMap;

use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::probe::{Batch, Request, Summary};
use meshgate_harness::verdict::{CaseResult, Outcome, check};

use crate::counters::{Moved, Proxy, fqdn, settle};

/// The cases of this file.
pub const CASES: &[Case] = &[Case {
    id: "modes/outside-choice-stands",
    summary: "A load balancer outside the mesh has no proxy, the pods that it chooses answer, and their own proxies count just that",
    needs: &[Need::Serves, Need::ControllerBalances, Need::Mode(Mode::Outside)],
    claims: &[],
    stage: Stage::Shared,
    plan: |plan| {
        let app = plan.backend("pods", 2, &[]);
        plan.service_for("main", &app);
        plan.route("main", "main");
    },
    run: |context| Box::pin(choice_stands(context)),
}];

const REQUESTS: usize = 60;

/// A status that no probe of the kubelet is answered with.
const STATUS: u16 = 235;

async fn choice_stands(context: Context) -> CaseResult {
    let metrics = context.controller_metrics().await;
    check("metrics of a mesh proxy where the load balancer is").that(metrics.is_err(), "none", "some")?;

    let pods = context.pods_of(&context.plan.full("pods")).await?;
    check("the case's pods").equal(pods.len(), 2)?;
    let mut before = BTreeMap::new();
    for (name, address) in &pods {
        before.insert(name.clone(), Proxy::Pod(*address).read(&context).await?);
    }
    let path = format!("/?status={STATUS}");
    let request = Request { path: path.clone(), ..context.get("main")? };
    let balanced = Summary::of(&context.send_many(request, REQUESTS, 4).await);
    check("answers").equal(balanced.status(STATUS), REQUESTS)?;
    // The control: a meshed client's requests to the Service come to the same pods, chosen by its own proxy.
    let direct = Request::get(format!("{}:80", fqdn(&context, "main")), &path);
    let meshed = Summary::of(&context.send_inside(Batch::repeated(direct, REQUESTS, 4)).await?);
    check("the control, answers to a meshed client").equal(meshed.status(STATUS), REQUESTS)?;
    let status = STATUS.to_string();

    for (name, address) in &pods {
        let of = |summary: &Summary| summary.pods.get(name).copied().unwrap_or_default();
        check(format!("the answers of {name} to the load balancer")).that(
            of(&balanced) >= REQUESTS / 10,
            format!("at least {}", REQUESTS / 10),
            of(&balanced).to_string(),
        )?;
        let target = format!("{address}:8080");
        let arrived = [("direction", "inbound"), ("target_addr", &target), ("status_code", &status)];
        let expected = [Moved::new("response_total", arrived, of(&balanced) + of(&meshed))];
        settle(&context, Proxy::Pod(*address), &before[name], &expected).await?;
        // Nobody's proxy vouches for what comes from outside.
        let unknown = [arrived[0], arrived[1], ("tls", "no_identity"), ("no_tls_reason", "no_tls_from_remote")];
        let count = Proxy::Pod(*address).count(&context, "request_total", &unknown).await?;
        let count = count - before[name].sum("request_total", &unknown);
        check(format!("the requests from clients without an identity that the proxy of {name} counts")).that(
            count >= of(&balanced) as f64,
            format!("at least {}", of(&balanced)),
            count.to_string(),
        )?;
    }
    Ok(Outcome::Pass)
}
