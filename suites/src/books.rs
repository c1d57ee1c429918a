//! books behind the ingress: what its cases have in common.

use std::time::Duration;

use anyhow::anyhow;
use meshgate_harness::context::Context;
use meshgate_harness::plan::Plan;
use meshgate_harness::probe::{Record, Request, describe, outcome};
use meshgate_harness::verdict::{Failure, check};

use crate::counters::{Moved, Proxy};

/// How long routes may take.
pub const SETTLES: Duration = Duration::from_secs(20);

/// More forms than this in a row do not fail by the known failure, which takes every second one.
const TRIES: usize = 8;

/// The application and a route to its front end, `webapp`.
pub fn plan(plan: &mut Plan) {
    plan.app("books");
    plan.route_to("webapp", "booksapp", "webapp").port(7000);
}

/// Waits until the front end answers through the ingress.
pub async fn open(context: &Context) -> Result<(), Failure> {
    context.until(SETTLES, "books behind the ingress", get(context, "/")?, |record| record.is(200)).await
}

/// A request for a page.
pub fn get(context: &Context, path: &str) -> Result<Request, Failure> {
    Ok(Request { path: path.to_owned(), ..context.get("webapp")? })
}

/// A posted form.
pub fn form(context: &Context, path: &str, fields: &str) -> Result<Request, Failure> {
    let request = get(context, path)?.body("POST", fields);
    Ok(request.header("Content-Type", "application/x-www-form-urlencoded"))
}

/// Where an answer leads to; anything but a redirect is a failure.
pub fn location(record: &Record, request: &Request) -> Result<String, Failure> {
    let location = record.header("location").next().unwrap_or_default();
    check(describe(request)).that(record.is(303) && !location.is_empty(), "303 with a Location", outcome(record))?;
    Ok(location.to_owned())
}

/// Sends a form until the known failure spares it, and says where the answer leads to.
pub async fn insist(context: &Context, request: Request) -> Result<String, Failure> {
    let mut record = Record::default();
    for _ in 0..TRIES {
        record = context.send(request.clone()).await;
        if record.status != Some(500) {
            break;
        }
    }
    location(&record, &request)
}

/// The id at the end of a Location such as `http://host/books/16`.
pub fn id(location: &str) -> Result<u64, Failure> {
    let id = location.rsplit('/').next().unwrap_or_default();
    id.parse().map_err(|_| anyhow!("expected a Location that ends in an id, found {location:?}").into())
}

/// The proxy beside the one pod of a service of books.
pub async fn proxy(context: &Context, app: &str) -> Result<Proxy, Failure> {
    Ok(Proxy::Pod(context.world.address_of("booksapp", &format!("app={app}")).await?))
}

/// Requests on a route of a service of books: `route_…{direction, dst="authors.booksapp.svc.cluster.local:7001", rt_route=…}`.
pub fn on_route(
    name: &'static str,
    direction: &'static str,
    (service, port): (&str, u16),
    route: &str,
    by: usize,
) -> Moved {
    let labels = [
        ("direction", direction.to_owned()),
        ("dst", format!("{service}.booksapp.svc.cluster.local:{port}")),
        ("rt_route", route.to_owned()),
    ];
    Moved::new(name, labels, by)
}
