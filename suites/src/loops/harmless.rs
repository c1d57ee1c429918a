//! Ways that lead back, to the ingress or to a service, or look like it, and must not be mistaken for loops.

use meshgate_clusters::Ability;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::Backend;
use meshgate_harness::probe::{Batch, Request, outcome};
use meshgate_harness::verdict::{CaseResult, Outcome, check};

use super::{Ingress, marker_path, passed, send_marked};
use crate::books;
use crate::counters::{Moved, ROUTES, ended, settle};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "loops/host-leads-back",
        summary: "A route that works does so, in one pass, though its host name leads back to the ingress",
        needs: &[Need::Cluster(Ability::OutsideNames), Need::Serves],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("main", Backend::A);
        },
        run: |context| Box::pin(host_leads_back(context)),
    },
    Case {
        id: "loops/hairpin",
        summary: "A pod reaches the ingress by its external address and is answered once",
        needs: &[Need::Cluster(Ability::OutsideNames), Need::Serves],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("main", Backend::A).host("main.loops-hairpin.test");
        },
        run: |context| Box::pin(hairpin(context)),
    },
    Case {
        id: "loops/books-cycle",
        summary: "authors calls books while books may call authors, a cycle of services; one request runs through it once and is no loop",
        needs: &[Need::Serves, Need::App("books"), Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Alone,
        plan: books::plan,
        run: |context| Box::pin(books_cycle(context)),
    },
];

/// The page's loop with the safeguard in place: the override, or default mode.
async fn host_leads_back(context: Context) -> CaseResult {
    let main = Ingress::main(&context);
    let host = context.route("main")?.host.clone();
    context.world.cluster.set_external_name(&host, &[main.entrance.ip]);
    let (record, marker) = send_marked(&context, context.get("main")?).await;
    check("a request whose host leads back to the ingress").that(
        record.is(200) && record.service() == Some(Backend::A.name()),
        "200 from echo-a",
        outcome(&record),
    )?;
    passed(&context, &main, &marker, 1).await?;
    Ok(Outcome::Pass)
}

async fn hairpin(context: Context) -> CaseResult {
    let main = Ingress::main(&context);
    let route = context.route("main")?;
    // The probe's proxy in the documented dialect asks DNS for the host.
    context.world.cluster.set_external_name(&route.host, &[main.entrance.ip]);
    let markers = [marker_path("hairpin"), marker_path("hairpin")];
    let request = |marker: &String| Request { path: marker.clone(), ..main.request(&context, route) };
    let records = context.send_inside(Batch::of(markers.iter().map(request).collect())).await?;
    check("records").equal(records.len(), markers.len())?;
    for (record, marker) in records.iter().zip(&markers) {
        check("a request from a pod to the external address").that(
            record.is(200) && record.service() == Some(Backend::A.name()),
            "200 from echo-a",
            outcome(record),
        )?;
        passed(&context, &main, marker, 1).await?;
    }
    Ok(Outcome::Pass)
}

async fn books_cycle(context: Context) -> CaseResult {
    const BOOKS: usize = 2;
    books::open(&context).await?;
    let name = format!("first_name=Cycle&last_name={:08x}", rand::random::<u32>());
    let new_author = books::form(&context, "/authors", &name)?;
    let author = books::id(&books::location(&context.send(new_author.clone()).await, &new_author)?)?;
    // A new book makes books ask authors ...
    for _ in 0..BOOKS {
        let fields = format!("title=Round&author_id={author}&pages=9");
        books::insist(&context, books::form(&context, "/books", &fields)?).await?;
    }
    // ... and an author who goes makes authors ask books.
    let proxies = [books::proxy(&context, "authors").await?, books::proxy(&context, "books").await?];
    for proxy in proxies {
        ended(&context, proxy, ROUTES, &[("direction", "inbound")]).await?;
    }
    let before = [proxies[0].read(&context).await?, proxies[1].read(&context).await?];
    let delete = books::form(&context, &format!("/authors/{author}/delete"), "")?;
    books::location(&context.send(delete.clone()).await, &delete)?;
    let inbound = |service, route, by| books::on_route("route_response_total", "inbound", service, route, by);
    let refused = || Moved::new("meshgate_loop_refused_total", NO_LABELS, 0);
    let (authors, books) = (("authors", 7001), ("books", 7002));
    let once = [inbound(authors, "DELETE /authors/{id}.json", 1), refused()];
    settle(&context, proxies[0], &before[0], &once).await?;
    let each = [inbound(books, "GET /books.json", 1), inbound(books, "DELETE /books/{id}.json", BOOKS), refused()];
    settle(&context, proxies[1], &before[1], &each).await?;
    Ok(Outcome::Pass)
}

/// Every series of a name.
const NO_LABELS: [(&str, &str); 0] = [];
