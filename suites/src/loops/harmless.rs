//! Ways that lead back to the ingress, or look like it, and must not be mistaken for loops.

use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::Backend;
use meshgate_harness::probe::{Batch, Request, outcome};
use meshgate_harness::verdict::{CaseResult, Outcome, check};

use super::{Ingress, marker_path, passed, send_marked};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "loops/host-leads-back",
        summary: "A route that works does so, in one pass, though its host name leads back to the ingress",
        needs: &[Need::Serves],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("main", Backend::A);
        },
        run: |context| Box::pin(host_leads_back(context)),
    },
    Case {
        id: "loops/hairpin",
        summary: "A pod reaches the ingress by its external address and is answered once",
        needs: &[Need::Serves],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("main", Backend::A).host("main.loops-hairpin.test");
        },
        run: |context| Box::pin(hairpin(context)),
    },
];

/// The page's loop with the safeguard in place: the override, or default mode.
async fn host_leads_back(context: Context) -> CaseResult {
    let main = Ingress::main(&context);
    let host = context.route("main")?.host.clone();
    context.world.cluster.set_external_name(&host, &[main.address]);
    let (record, marker) = send_marked(&context, context.get("main")?).await;
    check("a request whose host leads back to the ingress").that(
        record.is(200) && record.service() == Some(Backend::A.name()),
        "200 from echo-a",
        outcome(&record),
    )?;
    passed(&context, &main, &marker, 1).await?;
    Ok(Outcome::Pass)
}

async fn hairpin(context: Context) -> CaseResult {
    let main = Ingress::main(&context);
    let route = context.route("main")?;
    // The probe's proxy in the documented dialect asks DNS for the host.
    context.world.cluster.set_external_name(&route.host, &[main.address]);
    let markers = [marker_path("hairpin"), marker_path("hairpin")];
    let request = |marker: &String| Request { path: marker.clone(), ..main.request(&context, route) };
    let records = context.send_inside(Batch::of(markers.iter().map(request).collect())).await?;
    check("records").equal(records.len(), markers.len())?;
    for (record, marker) in records.iter().zip(&markers) {
        check("a request from a pod to the external address").that(
            record.is(200) && record.service() == Some(Backend::A.name()),
            "200 from echo-a",
            outcome(record),
        )?;
        passed(&context, &main, marker, 1).await?;
    }
    Ok(Outcome::Pass)
}
