//! Names by which a client asks for a destination otherwise: one that is not the cluster's, and the host of its request.

use anyhow::Context as _;
use meshgate_clusters::Ability;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::matrix::Dialect;
use meshgate_harness::plan::Backend;
use meshgate_harness::probe::{Batch, Request, outcome};
use meshgate_harness::verdict::{CaseResult, Outcome, check};

use super::{OVERRIDE, client_chooses};

/// The cases of this file.
pub const CASES: &[Case] = &[OUTSIDE, HOST];

const OUTSIDE: Case = Case {
    id: "headers/client-override-outside",
    summary: "A client's override that names a host outside the cluster does not make the ingress its relay",
    needs: &[Need::Cluster(Ability::OutsideNames), Need::Serves],
    claims: &[],
    stage: Stage::Shared,
    plan: |plan| {
        plan.serve("main", Backend::A);
    },
    run: |context| Box::pin(outside(context)),
};

const HOST: Case = Case {
    id: "headers/host-chooses-nothing",
    summary: "On a route for every host the host that a client asks for does not choose a Service that no route leads to",
    needs: &[Need::Serves, Need::Template("any-host")],
    claims: &[],
    stage: Stage::Shared,
    plan: |plan| {
        plan.service("main", Backend::A);
        plan.service("other", Backend::B);
        plan.route("main", "main").template("any-host").path("/host-chooses-nothing");
    },
    run: |context| Box::pin(host_chooses_nothing(context)),
};

async fn outside(context: Context) -> CaseResult {
    // The name is in the outside world's DNS; that a pod is behind it makes it answer.
    let name = format!("{}.test", context.plan.full("outside"));
    let (_, pod) =
        context.pods_of(Backend::B.name()).await?.into_iter().next().ok_or_else(|| {
            anyhow::anyhow!("no pod of {} to stand for a host outside the cluster", Backend::B.name())
        })?;
    context.world.cluster.set_external_name(&name, &[pod]);
    let result = judged(&context, &format!("{name}:8080")).await;
    context.world.cluster.set_external_name(&name, &[]);
    result
}

async fn host_chooses_nothing(context: Context) -> CaseResult {
    let other = context.plan.services.get("other").context("the plan's other Service")?;
    let host = format!("{}.{}", other.name, other.namespace);
    // The control: by the host of its own Service the route leads there.
    check("who answers by the route's own host").equal(context.seen("main").await?.service, Backend::A.name())?;
    let record = context.send(context.get("main")?.host(&host)).await;
    if record.service() == Some(Backend::B.name()) {
        let observed = format!("a client reached a Service that no route leads to by asking for the host {host}");
        return Ok(Outcome::Weakness { name: "host-chooses", observed });
    }
    check(format!("who answers a client that asks for {host}")).equal(record.service(), Some(Backend::A.name()))?;
    Ok(Outcome::Pass)
}

async fn judged(context: &Context, host: &str) -> CaseResult {
    let record = context.send(context.get("main")?.header(OVERRIDE, host)).await;
    let what = format!("who answered a client whose {OVERRIDE} is {host}");
    let chosen = client_chooses(context);
    let outside = chosen && context.world.cell.dialect == Some(Dialect::Documented);
    if outside {
        check(what).equal(record.service(), Some(Backend::B.name()))?;
    } else if chosen {
        check(what).that(record.service().is_none(), "nobody, with an error", outcome(&record))?;
    } else {
        check(what).equal(record.service(), Some(Backend::A.name()))?;
    }

    // The control: the host answers who is led there. By the header where the proxy follows it so, and by its name.
    let header = Request::get(context.get("main")?.target, "/").host(host).header(OVERRIDE, host);
    let ways = match context.world.cell.dialect {
        Some(Dialect::Documented) => vec![Request::get(host, "/"), header],
        _ => vec![Request::get(host, "/")],
    };
    for record in context.send_inside(Batch::of(ways)).await? {
        check(format!("the control, {host} from inside the mesh")).that(
            record.service() == Some(Backend::B.name()),
            format!("200 from {}", Backend::B.name()),
            outcome(&record),
        )?;
    }
    if outside {
        let observed = format!("a client reached {host}, outside the cluster, by its own header");
        return Ok(Outcome::Weakness { name: "open-relay", observed });
    }
    Ok(Outcome::Pass)
}
