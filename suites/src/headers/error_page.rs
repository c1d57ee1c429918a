//! Errors that the controller has another Service answer: that request goes through the mesh, too.

use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::matrix::Dialect;
use meshgate_harness::plan::{Backend, Plan};
use meshgate_harness::probe::{Record, Request, outcome};
use meshgate_harness::verdict::{CaseResult, Outcome, check};

use super::{OVERRIDE, other};

/// The cases of this file.
pub const CASES: &[Case] = &[Case {
    id: "headers/error-page-not-chosen",
    summary: "A client's override does not choose who serves the controller's error page",
    needs: &[Need::Serves, Need::Template("error-page")],
    claims: &[],
    stage: Stage::Shared,
    plan,
    run: |context| Box::pin(not_chosen(context)),
}];

/// The route's own backend fails where it is asked to; the page is the other backend's.
fn plan(plan: &mut Plan) {
    plan.service("page", Backend::B);
    plan.service("other", Backend::A);
    let page = plan.full("page");
    plan.serve("main", Backend::A).template("error-page").value("error_service", page);
}

async fn not_chosen(context: Context) -> CaseResult {
    // The control: what does not fail is the route's own answer.
    let record = context.send(context.get("main")?).await;
    check("who answers what does not fail").equal(record.service(), Some(Backend::A.name()))?;

    let failing = Request { path: "/?status=503".to_owned(), ..context.get("main")? };
    let page = |record: &Record| record.service() == Some(Backend::B.name());
    if context.world.cell.dialect == Some(Dialect::Documented) {
        // Without an override the proxy follows the client's Host, which leads nowhere.
        let record = context.send(failing.clone()).await;
        check("the answer to what fails, its page being asked for by the client's Host").that(
            record.service().is_none(),
            "an error of a proxy",
            outcome(&record),
        )?;
    } else {
        context.until(super::SETTLES, "the error page to be served for what fails", failing.clone(), page).await?;
    }
    let record = context.send(failing.header(OVERRIDE, other(&context))).await;
    if record.service() == Some(Backend::A.name()) {
        let observed = format!("a client chose by its own {OVERRIDE} who serves the error page");
        return Ok(Outcome::Weakness { name: "error-page-chosen", observed });
    }
    check("who serves the error page to a client that names somebody else").that(
        page(&record),
        Backend::B.name(),
        outcome(&record),
    )?;
    Ok(Outcome::Pass)
}
