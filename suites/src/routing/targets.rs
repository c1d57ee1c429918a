//! Which backend a request reaches: by host, path, Service and port, or for want of those.

use std::time::Duration;

use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::Backend;
use meshgate_harness::probe::{Record, Request};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};

use super::{MARKER, arrived, marker};

/// How long the controller may take to follow a change.
const SETTLES: Duration = Duration::from_secs(10);

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "routing/host",
        summary: "Two hosts reach two Services",
        needs: &[Need::Serves, Need::OncePerRecipe],
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
        needs: &[Need::Serves, Need::SharesHosts, Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("a", Backend::A).host("paths.routing-path.test").path("/a");
            plan.serve("b", Backend::B).host("paths.routing-path.test").path("/b");
        },
        run: |context| Box::pin(path(context)),
    },
    Case {
        id: "routing/several-services",
        summary: "One host serves three Services under three paths, each request going to its own",
        needs: &[Need::Serves, Need::SharesHosts, Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            let host = "one.routing-several-services.test";
            plan.serve("a", Backend::A).host(host).path("/a");
            plan.serve("b", Backend::B).host(host).path("/b");
            // The same pods as `b`, told apart by the port that they are reached on.
            plan.service("c", Backend::B).port("other", 82, "alt");
            plan.route("c", "c").host(host).path("/c").port(82);
        },
        run: |context| Box::pin(several_services(context)),
    },
    Case {
        id: "routing/several-ports",
        summary: "Two ports of one Service are two destinations",
        needs: &[Need::Serves, Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.service("a", Backend::A);
            plan.route("http", "a");
            plan.route("alt", "a").port(8081);
        },
        run: |context| Box::pin(several_ports(context)),
    },
    Case {
        id: "routing/two-paths",
        summary: "Two paths in one object are two destinations, by Service and port",
        needs: &[Need::Serves, Need::Template("two-paths"), Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.service("a", Backend::A);
            plan.service("b", Backend::B);
            let other = plan.full("b");
            plan.route("both", "a").template("two-paths").value("other_service", other).value("other_port", "8081");
        },
        run: |context| Box::pin(two_paths(context)),
    },
    Case {
        id: "routing/default-backend",
        summary: "While there is a default backend it answers what no route does, and only that",
        needs: &[Need::Serves, Need::Template("default-backend"), Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Alone,
        plan: |plan| {
            plan.serve("known", Backend::A);
            plan.service("fallback", Backend::B);
        },
        run: |context| Box::pin(default_backend(context)),
    },
    Case {
        id: "routing/unknown-host",
        summary: "A host without a route is answered 404 by the controller itself and reaches no backend",
        needs: &[Need::Serves, Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("known", Backend::A);
        },
        run: |context| Box::pin(unknown_host(context)),
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
        let seen = context.expect_seen(Request { path: path.into(), ..context.get(route)? }).await?;
        check(format!("the backend of {path}")).equal(seen.service, backend.name())?;
        check("the path that arrives").equal(seen.path, path)?;
    }
    Ok(Outcome::Pass)
}

async fn several_services(context: Context) -> CaseResult {
    for (route, backend, port) in [("a", Backend::A, 8080), ("b", Backend::B, 8080), ("c", Backend::B, 8081)] {
        let seen = context.seen(route).await?;
        let what = format!("backend and port of {}", context.route(route)?.path);
        check(what).equal((seen.service.as_str(), seen.port), (backend.name(), port))?;
    }
    Ok(Outcome::Pass)
}

async fn several_ports(context: Context) -> CaseResult {
    for (route, port) in [("http", 8080), ("alt", 8081)] {
        let seen = context.seen(route).await?;
        check(format!("the container port behind the Service's port {}", context.route(route)?.port))
            .equal((seen.service.as_str(), seen.port), (Backend::A.name(), port))?;
    }
    Ok(Outcome::Pass)
}

async fn two_paths(context: Context) -> CaseResult {
    for (path, backend, port) in [("/", Backend::A, 8080), ("/another-endpoint", Backend::B, 8081)] {
        let seen = context.expect_seen(Request { path: path.into(), ..context.get("both")? }).await?;
        check(format!("backend and port of {path}"))
            .equal((seen.service.as_str(), seen.port), (backend.name(), port))?;
    }
    Ok(Outcome::Pass)
}

async fn default_backend(context: Context) -> CaseResult {
    let mut plan = (*context.plan).clone();
    let objects = plan
        .route("fallback", "fallback")
        .template("default-backend")
        .objects(&context.world.recipe)
        .map_err(anyhow::Error::from)?;
    let kubernetes = &context.world.kubernetes;
    let unknown = unknown(&context)?;
    context.until(SETTLES, "no default backend yet", unknown.clone(), |record| record.is(404)).await?;
    context.apply_meanwhile(&objects).await?;
    let judged = falls_back(&context, &unknown).await;
    kubernetes.delete_all(&objects).await?;
    judged?;
    context.until_all(SETTLES, "the default backend is gone", unknown, |record| record.is(404)).await?;
    Ok(Outcome::Pass)
}

async fn falls_back(context: &Context, unknown: &Request) -> Result<(), Failure> {
    let fallback = Backend::B.name();
    let answers = |record: &Record| record.is(200) && record.service() == Some(fallback);
    context.until_all(SETTLES, "the default backend answers an unknown host", unknown.clone(), answers).await?;
    let seen = context.expect_seen(Request { path: "/any/path?x=1".into(), ..unknown.clone() }).await?;
    check("the backend of any path of an unknown host").equal(seen.service, fallback)?;
    check("the backend of a host that has a route").equal(context.seen("known").await?.service, Backend::A.name())
}

async fn unknown_host(context: Context) -> CaseResult {
    let (stray, proper) = (marker(), marker());
    let record = context.send(unknown(&context)?.header(MARKER, &stray)).await;
    check("the status of an unknown host").equal(record.status, Some(404))?;
    let echo: Vec<&str> = record.header("x-echo-service").collect();
    check("backends that signed the answer").equal(echo, Vec::<&str>::new())?;

    // The control: the same count does see a request that a backend gets.
    context.expect_seen(context.get("known")?.header(MARKER, &proper)).await?;
    let known = arrived(&context, Backend::A, &proper).await?.len();
    check("requests for a known host that its backend remembers").equal(known, 1)?;
    for backend in [Backend::A, Backend::B] {
        let arrived = arrived(&context, backend, &stray).await?.len();
        check(format!("requests for an unknown host at {}", backend.name())).equal(arrived, 0)?;
    }
    Ok(Outcome::Pass)
}

/// A request for a host that no route knows.
fn unknown(context: &Context) -> Result<Request, Failure> {
    Ok(context.get("known")?.host(format!("nobody.{}", context.route("known")?.host)))
}
