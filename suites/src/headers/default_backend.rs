//! Default backends: what no route of a host takes goes through the mesh, too.

use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::converge;
use meshgate_harness::matrix::Dialect;
use meshgate_harness::plan::{Backend, Plan, Route};
use meshgate_harness::probe::{Record, Request, describe, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};

use super::{OVERRIDE, SETTLES, chosen, other, two_services};
use crate::counters::{Proxy, fqdn};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "headers/client-override-default-backend",
        summary: "A client's l5d-dst-override does not choose the destination of what the default backend takes",
        // In default mode no header decides anything, wherever a request goes.
        needs: &[Need::Serves, Need::Mode(Mode::Ingress), Need::Template("default-backend"), Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Alone,
        plan: two_services,
        run: |context| Box::pin(default_backend(context)),
    },
    Case {
        id: "headers/own-default-backend",
        summary: "The controller's own default backend is named to the proxy by a route for it; without one nobody names it, unless a client \
                  names another",
        needs: &[Need::Serves, Need::Mode(Mode::Ingress), Need::OwnDefaultBackend, Need::Template("default-backend")],
        claims: &[],
        stage: Stage::Alone,
        plan: with_own,
        run: |context| Box::pin(own_default_backend(context)),
    },
];

/// The route that takes every host. It exists only while a case runs.
const FALLBACK: &str = "fallback";

/// An instance of the controller whose own default backend is the Service [`FALLBACK`].
const OWN: &str = "own-default";

fn with_own(plan: &mut Plan) {
    two_services(plan);
    // Not where the route of another case leads, which this instance reads as well.
    plan.service(FALLBACK, Backend::B);
    plan.instance_with_default_backend(OWN, FALLBACK);
}

/// The route that takes every host, to a Service of the case. Its own host is one that no other route has.
fn fallback(context: &Context, service: &str) -> Route {
    let mut plan = (*context.plan).clone();
    plan.route(FALLBACK, service).template("default-backend").clone()
}

fn by(backend: Backend) -> impl Fn(&Record) -> bool {
    move |record| record.is(200) && record.service() == Some(backend.name())
}

async fn default_backend(context: Context) -> CaseResult {
    let route = fallback(&context, "main");
    let objects = route.objects(&context.world.recipe).map_err(anyhow::Error::from)?;
    let unknown = context.world.request_to(&route, &context.world.ingress);
    context.apply_meanwhile(&objects).await?;
    let judged = attacked(&context, &unknown).await;
    context.world.kubernetes.delete_all(&objects).await?;
    let outcome = judged?;
    context.until_all(SETTLES, "the default backend to be gone", unknown, |record| record.is(404)).await?;
    Ok(outcome)
}

async fn attacked(context: &Context, unknown: &Request) -> CaseResult {
    let served = by(Backend::A);
    context.until_all(SETTLES, "the default backend to answer an unknown host", unknown.clone(), served).await?;
    let attack = unknown.clone().header(OVERRIDE, other(context));
    let what = describe(&attack);
    let seen = context.expect_seen(attack).await?;
    chosen(context, &what, &seen.service).await
}

async fn own_default_backend(context: Context) -> CaseResult {
    let route = fallback(&context, FALLBACK);
    let entrance = context.world.instances.get(OWN);
    let entrance = entrance.ok_or_else(|| anyhow::anyhow!("{} declares no instance {OWN:?}", context.id))?;
    let unknown = context.world.request_to(&route, entrance);
    let attack = unknown.clone().header(OVERRIDE, format!("{}:80", fqdn(&context, "main")));
    let proxy = Proxy::Pod(context.world.controller_pod(OWN).await?);

    let open = without_route(&context, proxy, &unknown, &attack).await?;

    let objects = route.objects(&context.world.recipe).map_err(anyhow::Error::from)?;
    context.apply_meanwhile(&objects).await?;
    let judged = with_route(&context, proxy, &unknown, &attack).await;
    // It is gone only from where it has been: another instance may take it, and every host with it, after it was deleted.
    let elsewhere = context.world.request_to(&route, &context.world.ingress);
    let there = context.until_all(SETTLES, "the route for it everywhere", elsewhere.clone(), by(Backend::B)).await;
    context.world.kubernetes.delete_all(&objects).await?;
    judged?;
    there?;
    context.until_all(SETTLES, "the route for it to be gone", elsewhere, |record| record.is(404)).await?;
    if open {
        let observed =
            format!("without a route for it, a client chose by its own {OVERRIDE} who answers for the default backend");
        return Ok(Outcome::Weakness { name: "default-backend-chosen", observed });
    }
    Ok(Outcome::Pass)
}

/// Nobody names the Service. Returns whether a client can name another.
async fn without_route(context: &Context, proxy: Proxy, unknown: &Request, attack: &Request) -> Result<bool, Failure> {
    let header = context.world.recipe.own_default_backend.as_ref().is_some_and(|own| own.header);
    // A header without a Service names nothing; without a header it is where the controller dials, or the Host, which leads nowhere.
    let lost = header || context.world.cell.dialect == Some(Dialect::Documented);
    let expected = |record: &Record| {
        if lost { record.service().is_none() && !record.is(200) } else { by(Backend::B)(record) }
    };
    let wanted = if lost { "an error of a proxy" } else { "200 from echo-b" };
    // An instance may read all routes, and that of an earlier case or look may not be gone from it yet.
    converge(SETTLES, || async {
        let before = named(context, proxy).await.map_err(|error| error.to_string())?;
        let record = context.send(unknown.clone()).await;
        let now = named(context, proxy).await.map_err(|error| error.to_string())?;
        if now == before && expected(&record) {
            return Ok(());
        }
        Err(format!("{}, and {} requests by its name", outcome(&record), now - before))
    })
    .await
    .map_err(|seen| {
        check("what no route takes, without a route for the default backend")
            .failure(format!("{wanted}, and no request that the proxy knows by the Service's name"), seen)
    })?;
    let record = context.send(attack.clone()).await;
    if !header && by(Backend::A)(&record) {
        return Ok(true);
    }
    check("the same from a client that names another Service").that(expected(&record), wanted, outcome(&record))?;
    Ok(false)
}

/// The route names it, and no client can name another.
async fn with_route(context: &Context, proxy: Proxy, unknown: &Request, attack: &Request) -> Result<(), Failure> {
    // Each of them by its name: without the route the same backend may answer, by the address.
    converge(SETTLES, || async {
        let before = named(context, proxy).await.map_err(|error| error.to_string())?;
        let record = context.send(unknown.clone()).await;
        let now = named(context, proxy).await.map_err(|error| error.to_string())?;
        if now > before && by(Backend::B)(&record) {
            return Ok(());
        }
        Err(format!("{}, and {} requests by its name", outcome(&record), now - before))
    })
    .await
    .map_err(|seen| {
        check("what no route takes, with a route for the default backend")
            .failure("200 from echo-b, and a request that the proxy knows by the Service's name", seen)
    })?;
    let what = "the default backend to answer a client that names another Service";
    context.from_now_on(SETTLES, what, attack.clone(), by(Backend::B)).await
}

/// How many requests the proxy has sent to the default backend by its name.
async fn named(context: &Context, proxy: Proxy) -> Result<f64, Failure> {
    let service = fqdn(context, FALLBACK);
    proxy.count(context, "request_total", &[("direction", "outbound"), ("authority", &service)]).await
}
