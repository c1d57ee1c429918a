//! A name that is not the cluster's, as the destination that a client asks for.

use meshgate_clusters::Ability;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::matrix::Dialect;
use meshgate_harness::plan::Backend;
use meshgate_harness::probe::{Batch, Request, outcome};
use meshgate_harness::verdict::{CaseResult, Outcome, check};

use super::{OVERRIDE, client_chooses};

/// The cases of this file.
pub const CASES: &[Case] = &[Case {
    id: "headers/client-override-outside",
    summary: "A client's override that names a host outside the cluster does not make the ingress its relay",
    needs: &[Need::Cluster(Ability::OutsideNames), Need::Serves],
    claims: &[],
    stage: Stage::Shared,
    plan: |plan| {
        plan.serve("main", Backend::A);
    },
    run: |context| Box::pin(outside(context)),
}];

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
