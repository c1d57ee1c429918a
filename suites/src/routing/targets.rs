//! Which backend a request reaches: by host, path, Service and port.

use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::Backend;
use meshgate_harness::verdict::{CaseResult, Outcome, check};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "routing/host",
        summary: "Two hosts reach two Services",
        needs: &[Need::Serves],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("a", Backend::A);
            plan.serve("b", Backend::B);
        },
        run: |context| Box::pin(host(context)),
    },
    Case {
        id: "routing/path",
        summary: "Two paths of one host reach two Services",
        needs: &[Need::Serves],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("a", Backend::A).host("paths.routing-path.test").path("/a");
            plan.serve("b", Backend::B).host("paths.routing-path.test").path("/b");
        },
        run: |context| Box::pin(path(context)),
    },
];

async fn host(context: Context) -> CaseResult {
    for (route, backend) in [("a", Backend::A), ("b", Backend::B)] {
        let seen = context.seen(route).await?;
        check(format!("the backend of host {}", context.route(route)?.host)).equal(seen.service, backend.name())?;
    }
    Ok(Outcome::Pass)
}

async fn path(context: Context) -> CaseResult {
    for (route, backend, path) in [("a", Backend::A, "/a/deep?x=1"), ("b", Backend::B, "/b/")] {
        let seen = context.expect_seen(meshgate_harness::probe::Request { path: path.into(), ..context.get(route)? }).await?;
        check(format!("the backend of {path}")).equal(seen.service, backend.name())?;
        check("the path that arrives").equal(seen.path, path)?;
    }
    Ok(Outcome::Pass)
}
