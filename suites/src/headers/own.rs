//! The header that a load balancer outside the mesh sets, or does not, or a controller whose proxy is in default mode: nobody acts on it, and
//! nobody takes it away.
//!
//! Only the proxy in ingress mode that sends a request follows `l5d-dst-override`; the one that receives it does not look at it (Linkerd's neither).

use meshgate_clusters::Vantage;
use meshgate_fixtures::{ClientOverride, Mode};
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::{Backend, NAMESPACE, Plan};
use meshgate_harness::probe::{Record, Request, Seen};
use meshgate_harness::verdict::{CaseResult, Outcome, check};

use super::{OVERRIDE, SETTLES, application_sees_it, other, two_services};
use crate::counters::only_pod;

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "headers/outside-header-void",
        summary: "The header decides nothing for a load balancer outside the mesh: the same one with a proxy beside it is led elsewhere",
        needs: &[Need::Serves, Need::Mode(Mode::Outside), Need::Value("override")],
        claims: &[],
        stage: Stage::Shared,
        plan: leading_elsewhere,
        run: |context| Box::pin(header_void(context)),
    },
    Case {
        id: "headers/default-header-void",
        summary: "In default mode the header that the recipe sets decides nothing and reaches the application: the same one is followed in \
                  ingress mode",
        needs: &[Need::Serves, Need::Mode(Mode::Default), Need::Value("override")],
        claims: &[],
        stage: Stage::Shared,
        plan: leading_elsewhere,
        run: |context| Box::pin(default_header_void(context)),
    },
    Case {
        id: "headers/outside-header-set",
        summary: "The header that the load balancer sets takes the place of a client's and reaches the application",
        needs: &[Need::Serves, Need::Mode(Mode::Outside), Need::ClientOverride(ClientOverride::Replaced)],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("main", Backend::B);
            plan.service("other", Backend::A);
        },
        run: |context| Box::pin(header_set(context)),
    },
    Case {
        id: "headers/outside-application-sees-it",
        summary: "A client's header passes a load balancer outside the mesh and reaches the application",
        needs: &[Need::Serves, Need::Mode(Mode::Outside), Need::ClientOverride(ClientOverride::Passed)],
        claims: &[],
        stage: Stage::Shared,
        plan: two_services,
        run: |context| Box::pin(application_sees_it(context)),
    },
];

/// An instance of what carries the traffic whose proxy is in ingress mode.
const INSIDE: &str = "inside";

/// `main` is where the route leads, `other` what the header names, whoever sets it.
fn leading_elsewhere(plan: &mut Plan) {
    plan.instance(INSIDE, &[("linkerd.io/inject", Mode::Ingress.annotation())]);
    plan.service("main", Backend::A);
    plan.service("other", Backend::B);
    let other = format!("{}.{NAMESPACE}.svc.cluster.local:80", plan.full("other"));
    // Through the instance inside another backend answers, so the cell cannot wait for one.
    plan.route("main", "main").value("override", other).unawaited();
}

async fn header_void(context: Context) -> CaseResult {
    let named = |request: Request| request.header(OVERRIDE, other(&context));
    let from = |backend: Backend| move |record: &Record| record.is(200) && record.service() == Some(backend.name());
    let outside = named(context.get("main")?);
    context.until(SETTLES, "the load balancer to serve the route", outside.clone(), from(Backend::A)).await?;
    for request in [outside, context.get("main")?] {
        let seen = context.expect_seen(request).await?;
        check("the backend, wherever the header leads").equal(seen.service, Backend::A.name())?;
    }
    // The control: with a proxy beside it the very same one sends where the header says.
    let inside = named(context.get_at(INSIDE, "main")?);
    context.until(SETTLES, "the control: the header to be followed inside the mesh", inside, from(Backend::B)).await?;
    Ok(Outcome::Pass)
}

async fn default_header_void(context: Context) -> CaseResult {
    let from = |backend: Backend| move |record: &Record| record.is(200) && record.service() == Some(backend.name());
    let request = context.get("main")?;
    context.until(SETTLES, "the controller to serve the route", request.clone(), from(Backend::A)).await?;
    let seen = context.expect_seen(request).await?;
    check("the backend, wherever the header leads").equal(seen.service.as_str(), Backend::A.name())?;
    check("l5d-dst-override at the application").equal(values(&seen), vec![other(&context).as_str()])?;
    // The control: an instance whose proxy is in ingress mode sends where the very same header says.
    let followed = context.get_at(INSIDE, "main")?;
    context
        .until(SETTLES, "the control: the header to be followed in ingress mode", followed, from(Backend::B))
        .await?;
    let observed = "the header named another Service, and went past the proxy to the application".to_owned();
    Ok(Outcome::Weakness { name: "header-void", observed })
}

async fn header_set(context: Context) -> CaseResult {
    let (own, client) = (context.route("main")?.authority(), other(&context));
    let request = context.get("main")?;
    let requests = [
        request.clone(),
        request.clone().header(OVERRIDE, &client),
        request.clone().header("L5D-DST-OVERRIDE", &client).header(OVERRIDE, &client),
        request.header(OVERRIDE, &client).header("Connection", OVERRIDE),
    ];
    for request in requests {
        let seen = context.expect_seen(request).await?;
        check("l5d-dst-override at the application").equal(values(&seen), vec![own.as_str()])?;
    }
    // The control: past the load balancer it is the client's own that the application sees.
    let pod = only_pod(&context, Backend::B.name()).await?;
    let direct = Request::get(format!("{pod}:8080"), "/").header(OVERRIDE, &client);
    let record = context.send_from(Vantage::Node, direct).await;
    let seen = record.seen.as_ref().map(values);
    check("the control, the header at the application without a load balancer")
        .equal(seen, Some(vec![client.as_str()]))?;
    Ok(Outcome::Pass)
}

fn values(seen: &Seen) -> Vec<&str> {
    seen.header(OVERRIDE).collect()
}
