//! Splits that do not count, because the controller sends to pods of its own choice.

use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Evidence, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::converge;
use meshgate_harness::plan::{Backend, Plan};
use meshgate_harness::probe::{Batch, Request, outcome};
use meshgate_harness::verdict::{CaseResult, Outcome, check};

use super::{Answers, SETTLES, sample, shares, until_from};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "traffic_split/not-in-default-mode",
        summary: "In default mode a split is void when the controller sends to pods, and counts for a client of the Service",
        needs: &[Need::Serves, Need::NoSplit, Need::Mode(Mode::Default), Need::OncePerRecipe],
        claims: &[Evidence::Confirms("default.no-split")],
        stage: Stage::Shared,
        plan: to_the_other,
        run: |context| Box::pin(void(context)),
    },
    Case {
        id: "traffic_split/not-without-override",
        summary: "In ingress mode without the header a split is void when the controller sends to pods",
        needs: &[Need::Serves, Need::NoSplit, Need::Mode(Mode::Ingress), Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: to_the_other,
        run: |context| Box::pin(void(context)),
    },
    Case {
        id: "traffic_split/not-from-outside",
        summary: "A split is void for a load balancer outside the mesh, and counts for a meshed client of the Service",
        needs: &[Need::Serves, Need::NoSplit, Need::Mode(Mode::Outside)],
        claims: &[],
        stage: Stage::Shared,
        plan: to_the_other,
        run: |context| Box::pin(void(context)),
    },
];

/// Everything is to go to the other backend than the apex's own.
fn to_the_other(plan: &mut Plan) {
    shares::split(plan, 0, 100);
}

async fn void(context: Context) -> CaseResult {
    let request = context.get("apex")?;
    until_from(&context, &request, Backend::A).await?;

    // The control: the same split, asked for by the Service's name from a meshed pod, whose proxy has to hear of it first.
    let apex = Request::get(context.route("apex")?.authority(), "/");
    converge(SETTLES, || async {
        let records =
            context.send_inside(Batch::of(vec![apex.clone()])).await.map_err(|failure| failure.to_string())?;
        let other = records.iter().find(|record| record.service() != Some(Backend::B.name()));
        other.map_or(Ok(()), |record| Err(outcome(record)))
    })
    .await
    .map_err(|seen| check("the split, from the probe pod").failure("to be followed", seen))?;
    let inside = Batch::repeated(apex, 100, 4);
    let records = context.send_inside(inside).await?;
    Answers::all_good("from the probe pod to the apex", &records)?.only(Backend::B)?;

    sample(&context, "through the controller", request, 400).await?.only(Backend::A)?;
    Ok(Outcome::Pass)
}
