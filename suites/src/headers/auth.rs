//! Authorisation that the controller asks another Service for: the question goes through the mesh, too.

use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::{Backend, NAMESPACE, Plan};
use meshgate_harness::probe::{Record, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};

use super::{OVERRIDE, other};
use crate::counters::fqdn;

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "headers/auth-not-chosen",
        summary: "A client's override does not choose who is asked whether a request may pass",
        needs: &[Need::Serves, Need::Template("auth"), Need::Template("auth-bare")],
        claims: &[],
        stage: Stage::Waiting,
        plan: |plan| {
            routes(plan, &[("open", "auth", "other"), ("closed", "auth", "gate"), ("bare", "auth-bare", "gate")])
        },
        run: |context| Box::pin(not_chosen(context)),
    },
    Case {
        id: "headers/auth-alone-not-chosen",
        summary: "Nor where the question is asked without more than the controller itself wants for it",
        needs: &[Need::Serves, Need::Template("auth-bare")],
        claims: &[],
        stage: Stage::Waiting,
        plan: |plan| routes(plan, &[("open", "auth-bare", "other"), ("closed", "auth-bare", "gate")]),
        run: |context| Box::pin(alone_not_chosen(context)),
    },
];

/// Routes, each with a template and who is asked. `other` lets everything pass. Behind `gate` there is nobody, so that nothing passes.
fn routes(plan: &mut Plan, routes: &[(&str, &str, &str)]) {
    plan.service("other", Backend::B);
    let nobody = plan.full("nobody");
    plan.service_for("gate", &nobody);
    for &(name, template, asked) in routes {
        let asked = format!("{}.{NAMESPACE}.svc.cluster.local", plan.full(asked));
        plan.serve(name, Backend::A)
            .template(template)
            .value("auth_url", format!("http://{asked}/"))
            .value("auth_override", format!("{asked}:80"))
            .unawaited();
    }
}

/// With the protection that the recipe has for it. Whatever the recipe declares of routes without, here a bypass is a failure.
async fn not_chosen(context: Context) -> CaseResult {
    let record = attacked(&context).await?;
    refused(&context, &record, "a client names the one who would let it pass")?;
    // The control: without the recipe's protection the same header opens the same gate in ingress mode.
    if context.world.cell.mode == Mode::Ingress {
        let bare = context.get("bare")?.header(OVERRIDE, other(&context));
        context.until(super::SETTLES, "the unprotected gate to open for a client's header", bare, passes).await?;
    }
    Ok(Outcome::Pass)
}

/// Without.
async fn alone_not_chosen(context: Context) -> CaseResult {
    let record = attacked(&context).await?;
    if passes(&record) {
        let observed =
            format!("where nothing but the question is set up, a client chose by its own {OVERRIDE} who answers it");
        return Ok(Outcome::Weakness { name: "auth-bypass", observed });
    }
    refused(&context, &record, "a client names the one who would let it pass")?;
    Ok(Outcome::Pass)
}

/// What a closed gate answers to a client that names another one to ask.
async fn attacked(context: &Context) -> Result<Record, Failure> {
    // The control: what may pass does, so that the route is there and only the answer to the question can refuse.
    context.until(super::SETTLES, "a route that may be passed to answer", context.get("open")?, passes).await?;
    let closed = context.get("closed")?;
    // Another route, so that it may be there later: 404 is no refusal.
    let refuses = |record: &Record| is_refused(record) && !record.is(404);
    context.until(super::SETTLES, "a route that nobody may pass to refuse", closed.clone(), refuses).await?;
    Ok(context.send(closed.header(OVERRIDE, other(context))).await)
}

fn passes(record: &Record) -> bool {
    record.is(200) && record.service() == Some(Backend::A.name())
}

fn is_refused(record: &Record) -> bool {
    record.service().is_none() && record.status.is_some_and(|status| status >= 400)
}

fn refused(context: &Context, record: &Record, why: &str) -> Result<(), Failure> {
    check(format!("the answer when {why} ({} asked)", fqdn(context, "gate"))).that(
        is_refused(record),
        "an error of the controller",
        outcome(record),
    )
}
