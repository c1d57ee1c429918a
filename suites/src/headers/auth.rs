//! Authorisation that the controller asks another Service for: the question goes through the mesh, too.

use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::{Backend, NAMESPACE, Plan};
use meshgate_harness::probe::{Request, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};

use super::{OVERRIDE, other};
use crate::counters::fqdn;

/// The cases of this file.
pub const CASES: &[Case] = &[Case {
    id: "headers/auth-not-chosen",
    summary: "A client's override does not choose who is asked whether a request may pass",
    needs: &[Need::Serves, Need::Template("auth"), Need::Template("auth-bare")],
    claims: &[],
    stage: Stage::Waiting,
    plan,
    run: |context| Box::pin(not_chosen(context)),
}];

/// `other` lets everything pass. Behind `gate` there is nobody, so that nothing passes.
fn plan(plan: &mut Plan) {
    plan.service("other", Backend::B);
    let nobody = plan.full("nobody");
    plan.service_for("gate", &nobody);
    for (name, template, asked) in
        [("open", "auth", "other"), ("closed", "auth", "gate"), ("bare", "auth-bare", "gate")]
    {
        let asked = format!("{}.{NAMESPACE}.svc.cluster.local", plan.full(asked));
        plan.serve(name, Backend::A)
            .template(template)
            .value("auth_url", format!("http://{asked}/"))
            .value("auth_override", format!("{asked}:80"))
            .unawaited();
    }
}

async fn not_chosen(context: Context) -> CaseResult {
    // The control: what may pass does, so that the route is there and only the answer to the question can refuse.
    context
        .until(super::SETTLES, "a route that may be passed to answer", context.get("open")?, |record| {
            record.is(200) && record.service() == Some(Backend::A.name())
        })
        .await?;
    refused(&context, context.get("closed")?, "nobody says that it may pass").await?;
    let bringing = context.get("closed")?.header(OVERRIDE, other(&context));
    let record = context.send(bringing.clone()).await;
    if record.service() == Some(Backend::A.name()) {
        let observed = format!("a client chose by its own {OVERRIDE} who says whether its request may pass");
        return Ok(Outcome::Weakness { name: "auth-bypass", observed });
    }
    refused(&context, bringing, "a client names the one who would let it pass").await?;

    // The control: without the recipe's protection the same header opens the same gate in ingress mode.
    if context.world.cell.mode == Mode::Ingress {
        let bare = context.get("bare")?.header(OVERRIDE, other(&context));
        let passes = |record: &meshgate_harness::probe::Record| record.service() == Some(Backend::A.name());
        context.until(super::SETTLES, "the unprotected gate to open for a client's header", bare, passes).await?;
    }
    Ok(Outcome::Pass)
}

async fn refused(context: &Context, request: Request, why: &str) -> Result<(), Failure> {
    let record = context.send(request).await;
    check(format!("the answer when {why} ({} asked)", fqdn(context, "gate"))).that(
        record.service().is_none() && record.status.is_some_and(|status| status >= 400),
        "an error of the controller",
        outcome(&record),
    )
}
