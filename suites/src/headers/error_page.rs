//! Errors that the controller has another Service answer: that request goes through the mesh, too.

use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::matrix::Dialect;
use meshgate_harness::plan::{Backend, NAMESPACE, Plan};
use meshgate_harness::probe::{Record, Request, outcome};
use meshgate_harness::verdict::{CaseResult, Outcome, check};

use super::OVERRIDE;
use crate::counters::fqdn;

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

/// The port of a Service by which it is told that a client has chosen it.
const CHOSEN: u16 = 8081;

/// The route's own backend fails where it is asked to; the page is the other backend's.
fn plan(plan: &mut Plan) {
    plan.service("page", Backend::B);
    plan.service("other", Backend::A);
    let page = plan.full("page");
    let page_override = format!("{page}.{NAMESPACE}.svc.cluster.local:80");
    let main = plan.serve("main", Backend::A).template("error-page");
    main.value("error_service", page).value("error_override", page_override);
}

async fn not_chosen(context: Context) -> CaseResult {
    // The control: what does not fail is the route's own answer.
    let record = context.send(context.get("main")?).await;
    check("who answers what does not fail").equal(record.service(), Some(Backend::A.name()))?;

    let failing = Request { path: "/?status=503".to_owned(), ..context.get("main")? };
    let by = |record: &Record, backend: Backend| record.service() == Some(backend.name());
    let page = |record: &Record| by(record, Backend::B);
    // What is asked for is not what has failed.
    let own =
        |record: &Record| by(record, Backend::A) && record.seen.as_ref().is_some_and(|seen| seen.path != failing.path);
    // Without an override the proxy follows the client's Host, which leads nowhere.
    let documented = context.world.cell.dialect == Some(Dialect::Documented);
    let asked = |record: &Record| page(record) || own(record) || documented && record.service().is_none();
    context.until(super::SETTLES, "somebody to be asked for the error page", failing.clone(), asked).await?;
    let plain = context.send(failing.clone()).await;

    let other = format!("{}:{CHOSEN}", fqdn(&context, "other"));
    let record = context.send(failing.clone().header(OVERRIDE, other)).await;
    if record.seen.as_ref().is_some_and(|seen| seen.port == CHOSEN) {
        let observed = format!("a client chose by its own {OVERRIDE} who serves the error page");
        return Ok(Outcome::Weakness { name: "error-page-chosen", observed });
    }
    let what = "who serves the error page to a client that names somebody else";
    if own(&plain) {
        check(what).that(own(&record), "the route's own Service, as without it", outcome(&record))?;
        let observed =
            "the route's override goes with the request for its error page, and its own Service is asked".to_owned();
        return Ok(Outcome::Weakness { name: "error-page-void", observed });
    }
    check(what).that(page(&record), Backend::B.name(), outcome(&record))?;
    Ok(Outcome::Pass)
}
