//! Headers and access: who decides where a request goes, and who may use the proxy at all.

use std::time::Duration;

use meshgate_clusters::Feature;
use meshgate_fixtures::{ClientOverride, Mode};
use meshgate_harness::case::{Case, CaseFuture, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::matrix::Dialect;
use meshgate_harness::plan::{Backend, Plan};
use meshgate_harness::probe::{self, Payload, Request, Version};
use meshgate_harness::verdict::{CaseResult, Outcome, check};

use crate::counters::fqdn;

mod access;
mod auth;
mod default_backend;
mod error_page;
mod nominated;
mod outside;
mod own;
mod protocols;
mod smuggled;

/// How long new routes may take to work.
const SETTLES: Duration = Duration::from_secs(20);

/// The header.
const OVERRIDE: &str = "l5d-dst-override";

/// The cases of this area.
pub const CASES: &[&[Case]] = &[
    SPELLINGS,
    protocols::CASES,
    default_backend::CASES,
    nominated::CASES,
    auth::CASES,
    error_page::CASES,
    outside::CASES,
    own::CASES,
    smuggled::CASES,
    access::CASES,
];

/// What a client's own header does.
const SPELLINGS: &[Case] = &[
    spelling("headers/client-override", "A client's l5d-dst-override does not choose the destination", |context| {
        Box::pin(spelled(context, Names::Other, |request, other| request.header(OVERRIDE, other)))
    }),
    spelling("headers/client-override-upper-case", "Nor does it in capitals", |context| {
        Box::pin(spelled(context, Names::Other, |request, other| request.header("L5D-DST-OVERRIDE", other)))
    }),
    spelling("headers/client-override-twice", "Nor when it is sent twice", |context| {
        Box::pin(spelled(context, Names::Other, |request, other| {
            request.header(OVERRIDE, other).header(OVERRIDE, other)
        }))
    }),
    spelling("headers/client-override-trailing-dot", "Nor when its name ends in a dot", |context| {
        Box::pin(spelled(context, Names::Other, |request, other| {
            request.header(OVERRIDE, other.replace(":80", ".:80"))
        }))
    }),
    spelling("headers/client-override-comma", "Two values in one line name nothing", |context| {
        Box::pin(spelled(context, Names::Nothing, |request, other| {
            request.header(OVERRIDE, format!("{other},{other}"))
        }))
    }),
    spelling("headers/client-override-underscore", "Underscores make another header of it", |context| {
        Box::pin(spelled(context, Names::Nothing, |request, other| request.header("l5d_dst_override", other)))
    }),
    spelling("headers/client-override-trailer", "Behind the body it is no header any more", |context| {
        Box::pin(spelled(context, Names::Nothing, in_trailer))
    }),
    Case {
        needs: &[Need::Serves, Need::Template("grpc"), Need::DataPlane(Feature::Http2WithoutTls)],
        // A controller that does not know trailers breaks the connection, which the proxy before it shares between clients.
        stage: Stage::Alone,
        ..spelling("headers/client-override-http2-trailer", "Nor is it over HTTP/2", |context| {
            Box::pin(spelled(context, Names::NothingIfTaken, |request, other| {
                in_trailer(request.version(Version::H2c), other)
            }))
        })
    },
    Case {
        needs: &[Need::Serves, Need::Template("grpc"), Need::DataPlane(Feature::Http2WithoutTls)],
        ..spelling("headers/client-override-http2", "Nor does it over HTTP/2", |context| {
            Box::pin(spelled(context, Names::Other, |request, other| {
                request.version(Version::H2c).header(OVERRIDE, other)
            }))
        })
    },
    Case {
        id: "headers/application-sees-none",
        summary: "In ingress mode the header never reaches the application, whoever set it",
        needs: &[Need::Serves, Need::Mode(Mode::Ingress)],
        claims: &[],
        stage: Stage::Shared,
        plan: two_services,
        run: |context| Box::pin(application_sees_none(context)),
    },
    Case {
        id: "headers/application-sees-it",
        summary: "In default mode a client's header reaches the application",
        needs: &[Need::Serves, Need::Mode(Mode::Default), Need::ClientOverride(ClientOverride::Passed)],
        claims: &[],
        stage: Stage::Shared,
        plan: two_services,
        run: |context| Box::pin(application_sees_it(context)),
    },
];

/// What a spelling of the header means to the proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// The other Service.
    Other,
    /// No Service.
    Nothing,
    /// No Service, in a request that a controller may also refuse.
    NothingIfTaken,
}

const fn spelling(id: &'static str, summary: &'static str, run: fn(Context) -> CaseFuture) -> Case {
    Case { id, summary, needs: &[Need::Serves], claims: &[], stage: Stage::Shared, plan: two_services, run }
}

fn in_trailer(request: Request, other: &str) -> Request {
    let body = Payload::Chunks { count: 2, size: 100, pause_ms: 0 };
    Request { method: "POST".into(), body, trailers: vec![(OVERRIDE.into(), other.into())], ..request }
}

fn two_services(plan: &mut Plan) {
    plan.serve("main", Backend::A);
    plan.service("other", Backend::B);
}

/// `host:port` of the Service that no route leads to.
fn other(context: &Context) -> String {
    format!("{}:80", fqdn(context, "other"))
}

/// Whether a client's header reaches a proxy that follows it.
fn client_chooses(context: &Context) -> bool {
    context.world.cell.mode == Mode::Ingress && context.promises().client_override == ClientOverride::Passed
}

async fn spelled(context: Context, names: Names, spell: fn(Request, &str) -> Request) -> CaseResult {
    let request = spell(context.get("main")?, &other(&context));
    let what = probe::describe(&request);
    // One that arrives and names nothing leaves the choice to the Host under the documented dialect, and to nobody where DNS does
    // not know that.
    let unusable =
        names == Names::Nothing && client_chooses(&context) && context.world.cell.dialect == Some(Dialect::Documented);
    if names == Names::NothingIfTaken || unusable {
        let record = context.send(request.clone()).await;
        if record.service().is_none() && record.status.is_none_or(|status| status >= 400) {
            // The control: without what is refused the request is taken.
            let mut without = Request { trailers: Vec::new(), ..request };
            without.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(OVERRIDE));
            context.expect_seen(without).await?;
            return control(&context).await;
        }
    }
    let seen = context.expect_seen(request).await?;
    if names == Names::Other {
        return chosen(&context, &what, &seen.service).await;
    }
    check(format!("{what}: the backend")).equal(seen.service, Backend::A.name())?;
    control(&context).await
}

/// Judges who has answered a request whose client names the other Service.
async fn chosen(context: &Context, what: &str, service: &str) -> CaseResult {
    if client_chooses(context) {
        check(format!("{what}: the backend, when the client's header is passed on"))
            .equal(service, Backend::B.name())?;
        let observed = "a client reached a Service that no route leads to by its own header".to_owned();
        return Ok(Outcome::Weakness { name: "open-relay", observed });
    }
    check(format!("{what}: the backend")).equal(service, Backend::A.name())?;
    control(context).await
}

/// The control: the other Service is there to be chosen. In ingress mode the same header, sent from inside the mesh past the
/// controller, does choose it; in the others no header does, and it answers who dials it.
async fn control(context: &Context) -> CaseResult {
    let other = other(context);
    let request = match context.world.cell.mode {
        Mode::Ingress => Request::get(format!("{}:80", fqdn(context, "main")), "/").header(OVERRIDE, other),
        Mode::Default | Mode::Outside => Request::get(other, "/"),
    };
    let records = context.send_inside(probe::Batch::of(vec![request])).await?;
    let service = records.first().and_then(|record| record.service());
    check("the control, the other Service past the controller").equal(service, Some(Backend::B.name()))?;
    Ok(Outcome::Pass)
}

async fn application_sees_none(context: Context) -> CaseResult {
    let own = format!("{}:80", fqdn(&context, "main"));
    for request in [context.get("main")?, context.get("main")?.header(OVERRIDE, own)] {
        let seen = context.expect_seen(request).await?;
        let values: Vec<&str> = seen.header(OVERRIDE).collect();
        check("l5d-dst-override at the application").equal(values, Vec::<&str>::new())?;
    }
    Ok(Outcome::Pass)
}

async fn application_sees_it(context: Context) -> CaseResult {
    let value = other(&context);
    let seen = context.expect_seen(context.get("main")?.header(OVERRIDE, &value)).await?;
    let values: Vec<&str> = seen.header(OVERRIDE).collect();
    check("l5d-dst-override at the application").equal(values, vec![value.as_str()])?;
    // The control: what no client sends does not arrive.
    let seen = context.seen("main").await?;
    check("l5d-dst-override that nobody sent").equal(seen.header(OVERRIDE).count(), 0)?;
    Ok(Outcome::Weakness {
        name: "header-reaches-application",
        observed: "the application saw the client's l5d-dst-override".to_owned(),
    })
}
