//! Loops that the guard refuses, each beside the same loop without it.

use meshgate_clusters::Ability;
use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Evidence, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::converge;
use meshgate_harness::matrix::{Dialect, Mesh};
use meshgate_harness::plan::{Backend, Route};
use meshgate_harness::probe::{Batch, Record, Request, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};

use super::{
    Ingress, ROUNDS, SETTLES, UNGUARDED, UNGUARDED_TOO, marker_path, passed, refused, send_marked, storm, unguarded,
    until_unresolvable,
};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "loops/page-example-com",
        summary: "The page's example.com, which leads back to the ingress: followed and refused within one hop as documented, not \
                  followed today",
        needs: &[
            Need::Mesh(Mesh::Bundled),
            Need::Cluster(Ability::OutsideNames),
            Need::Mode(Mode::Ingress),
            Need::Template("bare"),
        ],
        claims: &[
            Evidence::HoldsAsDocumented("ingress.thinks-example-com"),
            Evidence::HoldsAsDocumented("ingress.infinite-loop"),
        ],
        stage: Stage::Alone,
        plan: |plan| {
            unguarded(plan, UNGUARDED);
            plan.serve("example", Backend::A).template("bare").unawaited();
        },
        run: |context| Box::pin(page_example_com(context)),
    },
    Case {
        id: "loops/default-backend",
        summary: "A default backend without the header loops for names that lead to the ingress, and is refused within one hop",
        needs: &[
            Need::Mesh(Mesh::Bundled),
            Need::Cluster(Ability::OutsideNames),
            Need::Dialect(Dialect::Documented),
            Need::Template("default-backend-bare"),
        ],
        claims: &[],
        stage: Stage::Alone,
        plan: |plan| {
            unguarded(plan, UNGUARDED);
            plan.serve("known", Backend::A).template("bare").unawaited();
        },
        run: |context| Box::pin(default_backend(context)),
    },
    Case {
        id: "loops/override-names-ingress",
        summary: "A client's override that names the ingress itself does not take a request through it twice",
        needs: &[Need::Mesh(Mesh::Bundled), Need::Mode(Mode::Ingress), Need::Template("bare")],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            unguarded(plan, UNGUARDED);
            plan.serve("main", Backend::A).template("bare").unawaited();
        },
        run: |context| Box::pin(override_names_ingress(context)),
    },
    Case {
        id: "loops/two-hops",
        summary: "Of two ingresses that send to each other each is passed once when one of them has the guard",
        needs: &[
            Need::Mesh(Mesh::Bundled),
            Need::Cluster(Ability::OutsideNames),
            Need::Dialect(Dialect::Documented),
            Need::Template("rewrite-host"),
        ],
        // What comes to the other ingress comes there by the Host that the first put in place of the client's.
        claims: &[Evidence::Confirms("ingress.host-modified")],
        stage: Stage::Alone,
        plan: |plan| {
            unguarded(plan, UNGUARDED);
            unguarded(plan, UNGUARDED_TOO);
            let (here, there) = (host(plan.full("here")), host(plan.full("there")));
            plan.service("site", Backend::A);
            plan.route("here", "site").host(&here).template("rewrite-host").value("upstream_host", &there).unawaited();
            plan.route("there", "site").host(&there).template("rewrite-host").value("upstream_host", &here).unawaited();
        },
        run: |context| Box::pin(two_hops(context)),
    },
];

fn host(name: String) -> String {
    format!("{name}.test")
}

async fn page_example_com(context: Context) -> CaseResult {
    let route = context.route("example")?;
    let (main, unguarded) = (Ingress::main(&context), Ingress::named(&context, UNGUARDED)?);
    let dns = |ingresses: &[&Ingress]| {
        let addresses: Vec<_> = ingresses.iter().map(|ingress| ingress.entrance.ip).collect();
        context.world.cluster.set_external_name(&route.host, &addresses);
    };
    dns(&[]);

    if context.world.cell.dialect != Some(Dialect::Documented) {
        // Whatever DNS says of the name, guard or not.
        for ingress in [&main, &unguarded] {
            dns(&[ingress]);
            let request = ingress.request(&context, route);
            let served = |record: &Record| record.is(200) && record.service() == Some(Backend::A.name());
            context.until(SETTLES, "the original destination to answer", request.clone(), served).await?;
            let (record, marker) = send_marked(&context, request).await;
            check(format!("through {}", ingress.workload)).that(
                served(&record),
                "200 from echo-a",
                outcome(&record),
            )?;
            passed(&context, ingress, &marker, 1).await?;
        }
        dns(&[]);
        return Ok(Outcome::Pass);
    }

    for ingress in [&main, &unguarded] {
        until_unresolvable(&context, ingress, route, &route.host).await?;
    }
    let refusals = main.refusals(&context).await?;
    dns(&[&main]);
    let (record, marker) = send_marked(&context, main.request(&context, route)).await;
    dns(&[]);
    refused("a request for example.com, which leads back here", &record)?;
    passed(&context, &main, &marker, 1).await?;
    check("loops that the proxy counts").equal(main.refusals(&context).await? - refusals, 1.0)?;

    let names = [(route.host.as_str(), &unguarded)];
    let marker = storm(&context, unguarded.request(&context, route), &unguarded, &names).await?;
    unguarded.passes(&context, &marker, ROUNDS).await?;
    Ok(Outcome::Pass)
}

/// The route takes every host that no other takes, so it exists only while this case runs.
async fn default_backend(context: Context) -> CaseResult {
    let mut route = context.route("known")?.clone();
    route.name = context.plan.full("lost");
    route.host("lost.loops-default-backend.test").template("default-backend-bare");
    let objects = route.objects(&context.world.recipe).map_err(anyhow::Error::from)?;
    context.apply_meanwhile(&objects).await?;
    let result = lost(&context, &route).await;
    context.world.cluster.set_external_name(&route.host, &[]);
    context.world.kubernetes.delete_all(&objects).await?;
    result?;
    let request = Ingress::main(&context).request(&context, &route);
    context.until_all(SETTLES, "the default backend to be gone", request, |record| record.is(404)).await?;
    Ok(Outcome::Pass)
}

async fn lost(context: &Context, route: &Route) -> Result<(), Failure> {
    let (main, unguarded) = (Ingress::main(context), Ingress::named(context, UNGUARDED)?);
    let dns = |addresses: &[_]| context.world.cluster.set_external_name(&route.host, addresses);
    dns(&[]);
    for ingress in [&main, &unguarded] {
        until_unresolvable(context, ingress, route, &route.host).await?;
    }
    dns(&[main.entrance.ip]);
    let (record, marker) = send_marked(context, main.request(context, route)).await;
    dns(&[]);
    refused("a request that only the default backend takes", &record)?;
    passed(context, &main, &marker, 1).await?;

    let names = [(route.host.as_str(), &unguarded)];
    let marker = storm(context, unguarded.request(context, route), &unguarded, &names).await?;
    unguarded.passes(context, &marker, ROUNDS).await?;
    Ok(())
}

/// Its proxy would hand the request to the ingress itself, past its own inbound side.
async fn override_names_ingress(context: Context) -> CaseResult {
    let route = context.route("main")?;
    let (main, unguarded) = (Ingress::main(&context), Ingress::named(&context, UNGUARDED)?);
    let documented = context.world.cell.dialect == Some(Dialect::Documented);
    for ingress in [&main, &unguarded] {
        if documented {
            until_unresolvable(&context, ingress, route, &route.host).await?;
        } else {
            let request = ingress.request(&context, route);
            context.until(SETTLES, "the route to answer", request, |record| record.is(200)).await?;
        }
    }

    let naming =
        |ingress: &Ingress| ingress.request(&context, route).header("l5d-dst-override", ingress.authority(&context));
    let (record, marker) = send_marked(&context, naming(&main)).await;
    refused("a request whose override names the ingress that it came to", &record)?;
    passed(&context, &main, &marker, 1).await?;

    // From a meshed pod the same header is legitimate: it leads to the ingress, which is passed once.
    let marker = marker_path("loop");
    let inside = Request { target: route.authority(), path: marker.clone(), ..naming(&main) };
    let record = context.send_inside(Batch::of(vec![inside])).await?.pop().unwrap_or_default();
    let expected = if documented { 502 } else { 200 };
    check("a request from a pod whose override names the ingress").that(
        record.is(expected),
        expected.to_string(),
        outcome(&record),
    )?;
    passed(&context, &main, &marker, 1).await?;

    // The control: without the guard the ingress gets it again, and then without the header.
    let (record, marker) = send_marked(&context, naming(&unguarded)).await;
    check("the same without the loop guard").that(record.is(expected), expected.to_string(), outcome(&record))?;
    passed(&context, &unguarded, &marker, 2).await?;
    Ok(Outcome::Pass)
}

/// The first's name leads to one ingress, which rewrites it to the second's, which leads to the other, which rewrites it back.
async fn two_hops(context: Context) -> CaseResult {
    let (here, there) = (context.route("here")?, context.route("there")?);
    let main = Ingress::main(&context);
    let (unguarded, too) = (Ingress::named(&context, UNGUARDED)?, Ingress::named(&context, UNGUARDED_TOO)?);
    let dns = |name: &str, addresses: &[_]| context.world.cluster.set_external_name(name, addresses);
    dns(&here.host, &[]);
    dns(&there.host, &[]);
    for ingress in [&main, &unguarded, &too] {
        until_unresolvable(&context, ingress, here, &there.host).await?;
        until_unresolvable(&context, ingress, there, &here.host).await?;
    }

    dns(&here.host, &[main.entrance.ip]);
    dns(&there.host, &[too.entrance.ip]);
    let (record, marker) = send_marked(&context, main.request(&context, here)).await;
    dns(&here.host, &[]);
    refused("a request between two ingresses, of which the first has the guard", &record)?;
    passed(&context, &main, &marker, 1).await?;
    passed(&context, &too, &marker, 1).await?;

    let names = [(here.host.as_str(), &unguarded), (there.host.as_str(), &too)];
    let marker = storm(&context, unguarded.request(&context, here), &unguarded, &names).await?;
    unguarded.passes(&context, &marker, ROUNDS).await?;
    too.passes(&context, &marker, ROUNDS - 1).await?;
    // Several workers write one log, and who has answered writes its line a moment later.
    converge(SETTLES, || async {
        let first = context.passes(&unguarded.workload, &marker).await.map_err(|failure| failure.to_string())?;
        let second = context.passes(&too.workload, &marker).await.map_err(|failure| failure.to_string())?;
        if first.abs_diff(second) <= 1 { Ok(()) } else { Err(format!("{first} and {second}")) }
    })
    .await
    .map_err(|seen| {
        check("the passes through two ingresses without the guard")
            .failure("as many through the one as through the other", seen)
    })?;
    Ok(Outcome::Pass)
}
