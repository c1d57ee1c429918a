//! books through the ingress: pages, and forms that end in absolute redirects.

use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::probe::{Record, Request, describe, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};

use crate::books::{SETTLES, form, get, id, insist, location, open, plan};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "routing/books-pages",
        summary: "The pages of books, made of answers of two services behind the front end, arrive through the ingress",
        needs: &[Need::Serves, Need::App("books"), Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan,
        run: |context| Box::pin(pages(context)),
    },
    Case {
        id: "routing/books-forms",
        summary: "Forms of books work through the ingress, and their absolute redirects lead back to the host that the client asked",
        needs: &[Need::Serves, Need::App("books"), Need::KeepsHost, Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Alone,
        plan,
        run: |context| Box::pin(forms(context)),
    },
    Case {
        id: "routing/books-any-host",
        summary: "A route for any host opens books under any host and path, and under none once it is gone",
        needs: &[Need::Serves, Need::App("books"), Need::Template("default-backend"), Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Alone,
        plan,
        run: |context| Box::pin(any_host(context)),
    },
];

/// The text of a page; anything but a 200 of HTML is a failure.
async fn page(context: &Context, request: Request) -> Result<String, Failure> {
    let what = describe(&request);
    let record = context.send(request).await;
    let html = record.header("content-type").any(|kind| kind.starts_with("text/html"));
    check(what).that(record.is(200) && html, "200 of HTML", outcome(&record))?;
    Ok(record.body)
}

async fn pages(context: Context) -> CaseResult {
    open(&context).await?;
    let pages: [(&str, &[&str]); 4] = [
        ("/", &["Middlemarch", "Virginia Woolf", "/books/15", "/authors/10"]),
        ("/authors/4", &["George Eliot", "Middlemarch", "Silas Marner"]),
        ("/books/6", &["Middlemarch", "George Eliot", "880 pages"]),
        ("/books/6/edit", &["value=\"880\"", "George Eliot"]),
    ];
    for (path, wanted) in pages {
        let text = page(&context, get(&context, path)?).await?;
        let missing = wanted.iter().find(|wanted| !text.contains(**wanted));
        check(format!("what the page {path} says")).that(
            missing.is_none(),
            format!("all of {wanted:?}"),
            format!("no {missing:?} in {} bytes", text.len()),
        )?;
    }
    // The control: a book that is not there leads to the index.
    let absent = get(&context, "/books/9999")?;
    let record = context.send(absent.clone()).await;
    check("where the page of no book leads to").equal(location(&record, &absent)?, base(&context)? + "/")?;
    Ok(Outcome::Pass)
}

async fn any_host(context: Context) -> CaseResult {
    open(&context).await?;
    let mut plan = (*context.plan).clone();
    let route = plan.route_to("any", "booksapp", "webapp").port(7000).template("default-backend");
    let objects = route.objects(&context.world.recipe).map_err(anyhow::Error::from)?;
    let unknown = get(&context, "/")?.host("books.nobody.test");
    let kubernetes = &context.world.kubernetes;
    context.apply_meanwhile(&objects).await?;
    let judged = async {
        let opens = |record: &Record| record.is(200) && record.body.contains("Middlemarch");
        context.until_all(SETTLES, "books under a host of no route", unknown.clone(), opens).await?;
        let text = page(&context, Request { path: "/books/6".into(), ..unknown.clone() }).await?;
        check("the page of a book under that host").that(text.contains("880 pages"), "its 880 pages", "none")
    }
    .await;
    kubernetes.delete_all(&objects).await?;
    judged?;
    // The control: it was that route.
    context.until_all(SETTLES, "no books under it any more", unknown, |record| record.is(404)).await?;
    Ok(Outcome::Pass)
}

async fn forms(context: Context) -> CaseResult {
    open(&context).await?;
    let base = base(&context)?;
    let last_name = format!("Forms{:08x}", rand::random::<u32>());
    let author = form(&context, "/authors", &format!("first_name=Ernest&last_name={last_name}"))?;
    let author = location(&context.send(author.clone()).await, &author)?;
    let author_id = id(&author)?;
    check("where a new author leads to").equal(&author, &format!("{base}/authors/{author_id}"))?;

    let fields = |title: &str, pages: &str| format!("title=Ready+Player+{title}&author_id={author_id}&pages={pages}");
    let book = insist(&context, form(&context, "/books", &fields("One", "345"))?).await?;
    let book_id = id(&book)?;
    check("where a new book leads to").equal(&book, &format!("{base}/books/{book_id}"))?;
    let path = format!("/books/{book_id}");
    let edited = insist(&context, form(&context, &format!("{path}/edit"), &fields("Three", "567"))?).await?;
    check("where an edited book leads to").equal(&edited, &book)?;
    let text = page(&context, get(&context, &path)?).await?;
    check("the edited book's page").that(
        text.contains("Ready Player Three") && text.contains("567 pages") && text.contains(&last_name),
        "title, pages and author as edited",
        text,
    )?;

    // What is wrong with a form is said on the page that it leads to, by way of a cookie.
    let wrong = form(&context, "/books", &fields("Four", "none"))?;
    let mut record = context.send(wrong.clone()).await;
    if record.status == Some(500) {
        record = context.send(wrong.clone()).await;
    }
    check("where a book without pages leads to").equal(location(&record, &wrong)?, format!("{base}/"))?;
    let cookie = record.header("set-cookie").next().and_then(|cookie| cookie.split(';').next()).unwrap_or_default();
    let text = page(&context, get(&context, "/")?.header("Cookie", cookie)).await?;
    check("the page after it").that(text.contains("Pages is not a number"), "Pages is not a number", text)?;

    for path in [format!("{path}/delete"), format!("/authors/{author_id}/delete")] {
        let delete = form(&context, &path, "")?;
        check(path).equal(location(&context.send(delete.clone()).await, &delete)?, format!("{base}/"))?;
    }
    let text = page(&context, get(&context, "/")?).await?;
    check("the index afterwards").that(!text.contains(&last_name), "no trace of the author", text)?;
    Ok(Outcome::Pass)
}

/// `http://host` as the client asked for it.
fn base(context: &Context) -> Result<String, Failure> {
    Ok(format!("http://{}", context.route("webapp")?.host))
}
