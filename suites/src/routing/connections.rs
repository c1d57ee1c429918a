//! Many requests: one after the other on a connection, and many connections at once.

use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::Backend;
use meshgate_harness::probe::Summary;
use meshgate_harness::verdict::{CaseResult, Outcome, check};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "routing/keep-alive",
        summary: "Fifty requests on one client connection are all answered on it",
        needs: &[Need::Serves, Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("a", Backend::A);
        },
        run: |context| Box::pin(keep_alive(context)),
    },
    Case {
        id: "routing/concurrent",
        summary: "200 requests over 20 connections at once are all answered",
        needs: &[Need::Serves, Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("a", Backend::A);
        },
        run: |context| Box::pin(concurrent(context)),
    },
];

async fn keep_alive(context: Context) -> CaseResult {
    let summary = Summary::of(&context.send_many(context.get("a")?, 50, 1).await);
    check("answers 200 of 50 requests").equal(summary.status(200), 50)?;
    check("connections").equal(summary.connections, 1)?;
    Ok(Outcome::Pass)
}

async fn concurrent(context: Context) -> CaseResult {
    let summary = Summary::of(&context.send_many(context.get("a")?, 200, 20).await);
    check("answers of 200 requests").equal((summary.status(200), &summary.errors), (200, &Default::default()))?;
    check("answers by the backend").equal(summary.service(Backend::A.name()), 200)?;
    // Workers take what is left to do, so one that starts late may find nothing.
    let connections = summary.connections;
    check("connections").that((2..=20).contains(&connections), "2 to 20", connections.to_string())?;
    Ok(Outcome::Pass)
}
