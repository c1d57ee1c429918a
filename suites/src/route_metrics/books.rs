//! The known failure of books, two services behind the one that shows it, and what its traffic comes to.

use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::probe::{Request, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};

use crate::books::{form, get, id, insist, location, on_route, open, plan, proxy};
use crate::counters::{Moved, Proxy, ROUTES, ended, settle};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "route_metrics/books",
        summary: "Half of the new books fail at the ingress, and the counters by route lead to who is to blame: authors, on HEAD alone",
        needs: &[Need::Serves, Need::App("books"), Need::RouteMetrics, Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Alone,
        plan,
        run: |context| Box::pin(known_failure(context)),
    },
    Case {
        id: "route_metrics/books-loop",
        summary: "Of the 13 requests of a round of the demo's traffic 10 succeed, 76.9 %, and each service's proxy counts its share by route",
        needs: &[Need::Serves, Need::App("books"), Need::RouteMetrics, Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Alone,
        plan,
        run: |context| Box::pin(one_round(context)),
    },
];

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

/// A round of the traffic generator's, through the ingress: an author with two books comes and goes, and each form is sent until it is taken.
/// Where every second HEAD request of books fails, forms that cause one are sent twice, as often as where half of them fail at random.
async fn one_round(context: Context) -> CaseResult {
    open(&context).await?;
    // Whatever failed before, the next one fails: this one does not.
    let first = insist(&context, form(&context, "/books", "title=Half&author_id=4&pages=9")?).await?;
    let delete = form(&context, &format!("/books/{}/delete", id(&first)?), "")?;
    location(&context.send(delete.clone()).await, &delete)?;

    let (books, authors) = (proxy(&context, "books").await?, proxy(&context, "authors").await?);
    // None of this is to be counted later, as part of the round.
    let inbound = [("direction", "inbound")];
    let to = |dst| [("direction", "outbound"), ("dst", dst)];
    ended(&context, Proxy::Controller, ROUTES, &to("webapp.booksapp.svc.cluster.local:7000")).await?;
    ended(&context, books, ROUTES, &inbound).await?;
    ended(&context, books, ROUTES, &to("authors.booksapp.svc.cluster.local:7001")).await?;
    ended(&context, authors, ROUTES, &inbound).await?;
    let before = Proxy::Controller.read(&context).await?;
    let (before_books, before_authors) = (books.read(&context).await?, authors.read(&context).await?);

    page(&context, "/").await?;
    let new_author = form(&context, "/authors", &format!("first_name=Round&last_name={:08x}", rand::random::<u32>()))?;
    let author = id(&location(&context.send(new_author.clone()).await, &new_author)?)?;
    page(&context, &format!("/authors/{author}")).await?;
    let book = |title: &str, pages: u32| format!("title=Ready+Player+{title}&author_id={author}&pages={pages}");
    let one = id(&at_second(&context, form(&context, "/books", &book("One", 345))?).await?)?;
    page(&context, &format!("/books/{one}")).await?;
    let two = id(&at_second(&context, form(&context, "/books", &book("Two", 456))?).await?)?;
    page(&context, &format!("/books/{two}")).await?;
    at_second(&context, form(&context, &format!("/books/{two}/edit"), &book("Three", 567))?).await?;
    for path in [format!("/books/{two}/delete"), format!("/authors/{author}/delete")] {
        let delete = form(&context, &path, "")?;
        location(&context.send(delete.clone()).await, &delete)?;
    }

    let of = |direction, service, route, all: usize, bad: usize| {
        let on = |by| on_route("route_response_total", direction, service, route, by);
        [on(all), on(bad).and([("classification", "failure")])]
    };
    let webapp = |route, all, bad| of("outbound", ("webapp", 7000), route, all, bad);
    let mut at_the_ingress = [
        webapp("GET /", 1, 0),
        webapp("POST /authors", 1, 0),
        webapp("GET /authors/{id}", 1, 0),
        webapp("POST /books", 4, 2),
        webapp("GET /books/{id}", 2, 0),
        webapp("POST /books/{id}/edit", 2, 1),
        webapp("POST /books/{id}/delete", 1, 0),
        webapp("POST /authors/{id}/delete", 1, 0),
    ]
    .concat();
    // 10 of 13 are 76.9 %.
    let everything = |by| {
        let labels = [("direction", "outbound"), ("dst", "webapp.booksapp.svc.cluster.local:7000")];
        Moved::new("route_response_total", labels, by)
    };
    at_the_ingress.extend([everything(13), everything(10).and([("classification", "success")])]);
    settle(&context, Proxy::Controller, &before, &at_the_ingress).await?;

    // Thirteen of webapp's, and two of authors', whose deletion takes the book that is left with it.
    let heads = "HEAD /authors/{id}.json";
    let books_route = |route, all, bad| of("inbound", ("books", 7002), route, all, bad);
    let in_books = [
        books_route("GET /books.json", 2 + 1, 0),
        books_route("POST /books.json", 4, 2),
        books_route("GET /books/{id}.json", 4, 0),
        books_route("PUT /books/{id}.json", 2, 1),
        books_route("DELETE /books/{id}.json", 1 + 1, 0),
        of("outbound", ("authors", 7001), heads, 6, 3),
    ];
    settle(&context, books, &before_books, &in_books.concat()).await?;
    let authors_route = |route, all, bad| of("inbound", ("authors", 7001), route, all, bad);
    let in_authors = [
        authors_route("GET /authors.json", 1, 0),
        authors_route("POST /authors.json", 1, 0),
        authors_route("GET /authors/{id}.json", 3, 0),
        authors_route("DELETE /authors/{id}.json", 1, 0),
        authors_route(heads, 6, 3),
    ];
    settle(&context, authors, &before_authors, &in_authors.concat()).await?;
    Ok(Outcome::Pass)
}

async fn page(context: &Context, path: &str) -> Result<(), Failure> {
    let record = context.send(get(context, path)?).await;
    check(format!("the page {path}")).that(record.is(200), "200", outcome(&record))
}

/// Sends a form that fails once, and again, and says where the second answer leads to.
async fn at_second(context: &Context, request: Request) -> Result<String, Failure> {
    let record = context.send(request.clone()).await;
    check(format!("the first POST {}", request.path)).that(record.is(500), "500", outcome(&record))?;
    location(&context.send(request.clone()).await, &request)
}
