//! Route metrics: what the proxies count of a Service with a ServiceProfile, and of one without.
//!
//! Counts are exact: a case reads the counters, sends its requests and waits until they have moved by just as many.

use meshgate_harness::case::Case;
use meshgate_harness::context::Context;
use meshgate_harness::plan::{Backend, Plan};
use meshgate_harness::probe::{Batch, Connection, Record, Request};
use meshgate_harness::verdict::{Failure, check};
use serde_json::{Value, json};

use crate::counters::{Moved, Proxy, ROUTES, ended, fqdn};

mod absence;
mod books;
mod books_retries;
mod books_timeouts;
mod both_sides;
mod outside;
mod responses;
mod routes;

/// The cases of this area.
pub const CASES: &[&[Case]] = &[
    routes::CASES,
    responses::CASES,
    absence::CASES,
    both_sides::CASES,
    books::CASES,
    books_retries::CASES,
    books_timeouts::CASES,
    outside::CASES,
];

/// A Service `main` before `echo-b`, a route of the controller to it and a profile with these routes.
fn profiled(plan: &mut Plan, routes: &[Value]) {
    plan.serve("main", Backend::B);
    plan.profile("main", json!({"routes": routes}));
}

/// A route of a profile, for GETs of a path.
fn get(path: &str) -> Value {
    json!({"name": format!("GET {path}"), "condition": {"method": "GET", "pathRegex": path}})
}

/// A series of the case's routes: `route_…{direction="outbound", dst="main…:80", rt_route=…}`; `""` is the default route.
fn on_route(context: &Context, name: &'static str, route: &str, by: usize) -> Moved {
    let labels = [
        ("direction", "outbound".to_owned()),
        ("dst", format!("{}:80", fqdn(context, "main"))),
        ("rt_route", route.to_owned()),
    ];
    Moved::new(name, labels, by)
}

/// Waits until all is counted by which the cell has seen that the route is there.
async fn quiet(context: &Context) -> Result<(), Failure> {
    let dst = format!("{}:80", fqdn(context, "main"));
    ended(context, Proxy::Controller, ROUTES, &[("direction", "outbound"), ("dst", dst.as_str())]).await
}

/// So many GETs of each path, over a few connections through the controller, each answered with the status next to it.
async fn send(context: &Context, wanted: &[(&str, usize, u16)]) -> Result<(), Failure> {
    let base = context.get("main")?;
    let each = wanted.iter().flat_map(|(path, times, status)| std::iter::repeat_n((*path, *status), *times));
    let requests: Vec<(Request, u16)> = each
        .enumerate()
        .map(|(index, (path, status))| {
            let connection = Connection::Named(format!("{}", index % 4));
            (Request { path: path.to_owned(), ..base.clone() }.on(connection), status)
        })
        .collect();
    let batch = Batch { concurrency: 4, ..Batch::of(requests.iter().map(|(request, _)| request.clone()).collect()) };
    let records: Vec<Record> = context.send_batch(batch).await;
    check("the number of answers").equal(records.len(), requests.len())?;
    for (record, (request, status)) in records.iter().zip(&requests) {
        check(format!("the answer to GET {}", request.path)).that(
            record.is(*status),
            status.to_string(),
            record.outcome(),
        )?;
    }
    Ok(())
}
