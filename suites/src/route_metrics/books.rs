//! The known failure of books, two services behind the one that shows it.

use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::probe::outcome;
use meshgate_harness::verdict::{CaseResult, Outcome, check};

use crate::books::{form, id, location, on_route, open, plan, proxy};
use crate::counters::{Proxy, settle};

/// The cases of this file.
pub const CASES: &[Case] = &[Case {
    id: "route_metrics/books",
    summary: "Half of the new books fail at the ingress, and the counters by route lead to who is to blame: authors, on HEAD alone",
    needs: &[Need::Serves, Need::App("books"), Need::RouteMetrics, Need::OncePerRecipe],
    claims: &[],
    stage: Stage::Alone,
    plan,
    run: |context| Box::pin(known_failure(context)),
}];

async fn known_failure(context: Context) -> CaseResult {
    /// Every second HEAD request fails: so many of these, whichever is the first.
    const FORMS: usize = 8;
    const BAD: usize = FORMS / 2;
    open(&context).await?;
    let (books, authors) = (proxy(&context, "books").await?, proxy(&context, "authors").await?);
    let before = Proxy::Controller.read(&context).await?;
    let before_books = books.read(&context).await?;
    let before_authors = authors.read(&context).await?;

    let new_book = form(&context, "/books", "title=Half&author_id=4&pages=9")?;
    let mut made = Vec::new();
    let mut failed = 0;
    for _ in 0..FORMS {
        let record = context.send(new_book.clone()).await;
        match record.status {
            Some(500) => failed += 1,
            _ => made.push(id(&location(&record, &new_book)?)?),
        }
    }
    check("new books that fail, at the client").equal(failed, BAD)?;

    // From the ingress on: who asks, and who answers what.
    let webapp = ("webapp", 7000);
    let good = [("status_code", "303"), ("classification", "success")];
    let bad = [("status_code", "500"), ("classification", "failure")];
    let at_the_ingress = [
        on_route("route_response_total", "outbound", webapp, "POST /books", BAD).and(good),
        on_route("route_response_total", "outbound", webapp, "POST /books", BAD).and(bad),
    ];
    settle(&context, Proxy::Controller, &before, &at_the_ingress).await?;
    let (inbound, outbound) = ("inbound", "outbound");
    let (posts, heads) = ("POST /books.json", "HEAD /authors/{id}.json");
    let refused = [("status_code", "503"), ("classification", "failure")];
    let in_books = [
        on_route("route_response_total", inbound, ("books", 7002), posts, FORMS),
        on_route("route_response_total", inbound, ("books", 7002), posts, BAD).and(bad),
        on_route("route_response_total", outbound, ("authors", 7001), heads, FORMS),
        on_route("route_response_total", outbound, ("authors", 7001), heads, BAD).and(refused),
    ];
    settle(&context, books, &before_books, &in_books).await?;
    let in_authors = [
        on_route("route_response_total", inbound, ("authors", 7001), heads, FORMS),
        on_route("route_response_total", inbound, ("authors", 7001), heads, BAD).and(refused),
    ];
    settle(&context, authors, &before_authors, &in_authors).await?;

    for book in made {
        let record = context.send(form(&context, &format!("/books/{book}/delete"), "")?).await;
        check(format!("deleting the book {book}")).that(record.is(303), "303", outcome(&record))?;
    }
    Ok(Outcome::Pass)
}
