//! Timeouts of books' routes, by ServiceProfile and by HTTPRoute, and the patterns that part one HTTPRoute's paths from another's.
//!
//! What takes long is what it takes in the demo: before books changes one, it asks whether there is such an author.
//! Here it asks somebody who can be told how long to take over the answer.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use meshgate_clusters::Vantage;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::{converge, deadline};
use meshgate_harness::metrics::Metrics;
use meshgate_harness::plan::Plan;
use meshgate_harness::probe::{Batch, Record, Request, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::books_retries::{BOOKS, NAMESPACE, SETTLES, configure, get, profiles, restore};
use crate::books::{self, form, open};
use crate::counters::{Proxy, fqdn, only_pod};

/// The cases of this file.
pub const CASES: &[Case] = &[Case {
    id: "route_metrics/books-timeouts",
    summary: "A timeout of a route of books ends the changes that take longer and no others, by ServiceProfile, annotation and \
              HTTPRoute, and each path counts on the route whose pattern it has",
    needs: &[Need::Serves, Need::App("books"), Need::RouteMetrics, Need::OncePerRecipe],
    claims: &[],
    stage: Stage::Alone,
    plan: planned,
    run: |context| Box::pin(timeouts(context)),
}];

/// The timeout, and how long what is slow takes. Nothing else comes near either.
const TIMEOUT: &str = "2s";
const SLOW_MS: u64 = 3000;

/// So many changes, of which some are slow.
const CHANGES: usize = 8;
const SLOW: usize = 2;

/// More requests at once than there are front ends, so that each has some.
const AT_ONCE: usize = 12;

/// How soon after its answer a request is counted.
const COUNTED: Duration = Duration::from_secs(1);

/// A book that is there from the start, and the route of its changes in the profile.
const BOOK: u64 = 7;
const ROUTE: &str = "PUT /books/{id}.json";

/// Whom books asks instead of `authors`.
const AUTHORS: &str = "authors";

fn planned(plan: &mut Plan) {
    books::plan(plan);
    let app = plan.backend(AUTHORS, 1, &[]);
    plan.service_for(AUTHORS, &app);
}

async fn timeouts(context: Context) -> CaseResult {
    open(&context).await?;
    let profiles = profiles(&context);
    let known = get(&profiles, BOOKS).await?;
    // Who comes next finds books with the answers that it had.
    let after = context.clone();
    context.afterwards(async move { authors_at(&after, "http://authors:7001").await });
    for means in [Means::Field, Means::Annotation] {
        let after = context.clone();
        context
            .afterwards(async move { after.world.kubernetes.delete_all(&routes(means)).await.map_err(Failure::from) });
    }
    let (of_books, before) = (profiles.clone(), known.clone());
    context.afterwards(async move { restore(&of_books, before).await });

    ask_the_slow_ones(&context).await?;
    by_profile(&context, &known).await?;
    by_route(&context).await?;
    Ok(Outcome::Pass)
}

/// Has books ask the case's own backend about authors, and waits until no other instance of it answers: that backend says no, then yes.
async fn ask_the_slow_ones(context: &Context) -> Result<(), Failure> {
    authors_at(context, &format!("http://{}:80", fqdn(context, AUTHORS))).await?;
    for (fault, status) in [(json!({"status": 500}), 500), (json!({}), 303)] {
        fault_of_authors(context, &fault).await?;
        converge(SETTLES, || async {
            let records = changes(context, AT_ONCE, AT_ONCE).await.map_err(|failure| failure.to_string())?;
            all(&records, status)
        })
        .await
        .map_err(|seen| check("changes of a book").failure(format!("{status} every time"), seen))?;
    }
    Ok(())
}

async fn authors_at(context: &Context, url: &str) -> Result<(), Failure> {
    configure(context, "books", json!([{"name": "AUTHORS_SITE", "value": url}])).await
}

/// How the backend that stands for `authors` answers from now on.
async fn fault_of_authors(context: &Context, fault: &Value) -> Result<(), Failure> {
    let pod = only_pod(context, &context.plan.full(AUTHORS)).await?;
    let request = Request::get(format!("{pod}:8080"), "/_fault").body("POST", fault.to_string());
    let record = context.send_from(Vantage::Node, request).await;
    check("the answer to a fault").equal(record.status, Some(200))
}

/// `timeout` in the profile, as the demo's older documentation has it for this very route.
async fn by_profile(context: &Context, known: &DynamicObject) -> Result<(), Failure> {
    let mut changed = known.data["spec"].clone();
    for one in changed["routes"].as_array_mut().into_iter().flatten().filter(|one| one["name"] == ROUTE) {
        one["timeout"] = json!(TIMEOUT);
    }
    let patch = Patch::Merge(json!({"spec": changed}));
    profiles(context).patch(BOOKS, &PatchParams::default(), &patch).await.context("the profile of books")?;

    let dst = format!("{BOOKS}:7002");
    let on = |labels: &[(&'static str, &'static str)], by| {
        let route = [("direction", "outbound"), ("dst", dst.as_str()), ("rt_route", ROUTE)];
        Expected { name: "route_response_total", labels: [&route[..], labels].concat(), by }
    };
    let late = [("status_code", ""), ("classification", "failure"), ("error", "timeout")];
    let front_ends = FrontEnds::find(context).await?;
    let good = [("status_code", "200"), ("classification", "success"), ("error", "")];
    in_force(context, &front_ends, [on(&good, AT_ONCE), on(&late, AT_ONCE)]).await?;
    let expected = [on(&[], CHANGES), on(&late, SLOW), on(&good, CHANGES - SLOW)];
    judge(context, &front_ends, 0, 0, &expected).await
}

/// How an HTTPRoute is given its timeout.
#[derive(Clone, Copy, Debug)]
enum Means {
    /// `timeout.linkerd.io/request`
    Annotation,
    /// `timeouts.request`
    Field,
}

impl Means {
    /// The HTTPRoute for changes. Each has its own, so that the counters tell which one is in force.
    fn route(self) -> &'static str {
        match self {
            Self::Annotation => "books-change-annotated",
            Self::Field => "books-change",
        }
    }
}

/// The routes of books, by the patterns that HTTPRoutes have; the last one takes the rest.
///
/// `/books` as a prefix of segments is that of `/books/7.json` and not of `/books.json`, and expressions are for whole paths.
fn routes(means: Means) -> [Value; 4] {
    let mut change =
        json!({"matches": [{"path": {"type": "RegularExpression", "value": "/books/[0-9]+[.]json"}, "method": "PUT"}]});
    let mut annotations = json!({});
    match means {
        Means::Annotation => annotations = json!({"timeout.linkerd.io/request": TIMEOUT}),
        Means::Field => change["timeouts"] = json!({"request": TIMEOUT}),
    }
    let get = |kind: &str, path: &str| json!({"matches": [{"path": {"type": kind, "value": path}, "method": "GET"}]});
    [
        route(means.route(), &annotations, &change),
        route(ONE, &json!({}), &get("PathPrefix", "/books")),
        route(LIST, &json!({}), &get("RegularExpression", "/books[.]js.n")),
        route("books-rest", &json!({}), &json!({})),
    ]
}

const ONE: &str = "books-one";
const LIST: &str = "books-list";

fn route(name: &str, annotations: &Value, rule: &Value) -> Value {
    json!({
        "apiVersion": "policy.linkerd.io/v1beta3",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
        "spec": {
            "parentRefs": [{"name": "books", "kind": "Service", "group": "core", "port": 7002}],
            "rules": [rule],
        },
    })
}

async fn by_route(context: &Context) -> Result<(), Failure> {
    /// How often a book is looked at, and the list of all books.
    const BOOK_PAGES: usize = 5;
    const LISTS: usize = 4;
    // A profile would be followed in place of the routes.
    profiles(context).delete(BOOKS, &DeleteParams::default()).await.context("the profile of books")?;
    let front_ends = FrontEnds::find(context).await?;
    let kubernetes = &context.world.kubernetes;
    for means in [Means::Annotation, Means::Field] {
        kubernetes.apply_all(&routes(means)).await?;
        let on = |name, status, error, by| {
            let route = [("parent_name", "books"), ("route_name", name)];
            let end = [("http_status", status), ("error", error)];
            Expected { name: "outbound_http_route_request_statuses_total", labels: [route, end].concat(), by }
        };
        let late = |by| on(means.route(), "", "REQUEST_TIMEOUT", by);
        let good = |by| on(means.route(), "200", "", by);
        in_force(context, &front_ends, [good(AT_ONCE), late(AT_ONCE)]).await?;
        let expected = [
            late(SLOW),
            good(CHANGES - SLOW),
            // Who changes a book reads it first.
            on(ONE, "200", "", BOOK_PAGES + CHANGES),
            on(LIST, "200", "", LISTS),
        ];
        judge(context, &front_ends, BOOK_PAGES, LISTS, &expected).await?;
        kubernetes.delete(&routes(means)[0]).await?;
    }
    Ok(())
}

/// Waits until changes are counted on the route, and then until every one that takes too long is ended and counted as such, by whichever
/// front end sends it. What takes no time says first whether the route is there, since each look at what is slow takes that long; for the
/// same reason one look at it is enough.
async fn in_force(context: &Context, front_ends: &FrontEnds, [good, late]: [Expected<'_>; 2]) -> Result<(), Failure> {
    let failure = |what: &str, seen| {
        check(format!("{what}, on a route with a timeout of {TIMEOUT}")).failure("to be counted", seen)
    };
    fault_of_authors(context, &json!({})).await?;
    let good = [good];
    let looked = converge(SETTLES, || look(context, front_ends, 303, &good)).await;
    looked.map_err(|seen| failure("changes that take no time", seen))?;

    fault_of_authors(context, &json!({"delay_ms": SLOW_MS})).await?;
    let late = [late];
    let deadline = deadline(SETTLES);
    while let Err(seen) = look(context, front_ends, 500, &late).await {
        if Instant::now() >= deadline {
            return Err(failure(&format!("changes that take {SLOW_MS} ms"), seen));
        }
    }
    Ok(())
}

/// Sends changes, more than one over each front end: whether all end so, and are counted so.
async fn look(context: &Context, front_ends: &FrontEnds, status: u16, expected: &[Expected<'_>]) -> Result<(), String> {
    let told = |failure: Failure| failure.to_string();
    let before = front_ends.read(context).await.map_err(told)?;
    all(&changes(context, AT_ONCE, AT_ONCE).await.map_err(told)?, status)?;
    converge(COUNTED, || async { moved(&before, &front_ends.read(context).await.map_err(told)?, expected) }).await
}

/// Sends changes of which some take too long, and so many requests for pages.
async fn judge(
    context: &Context,
    front_ends: &FrontEnds,
    pages: usize,
    lists: usize,
    expected: &[Expected<'_>],
) -> Result<(), Failure> {
    // Mended first: whatever is still under way is not to be one of those that are slow.
    fault_of_authors(context, &json!({})).await?;
    all(&changes(context, AT_ONCE, AT_ONCE).await?, 303)
        .map_err(|seen| check("changes that take no time").failure("303 every time", seen))?;
    fault_of_authors(context, &json!({"delay_ms": SLOW_MS, "count": SLOW + 1})).await?;
    let before = front_ends.read(context).await?;
    // The control: where the route has no timeout, the same time is none too long.
    let new = context.send(form(context, "/books", "title=Slow&author_id=4&pages=9")?);
    let (slow, new) = tokio::join!(changes(context, SLOW, SLOW), new);
    let slow = slow?;
    all(&slow, 500).map_err(|seen| check(format!("changes that take {SLOW_MS} ms")).failure("500 every time", seen))?;
    check("the control: a new book, on a route without a timeout").that(
        new.is(303) && new.total_us >= SLOW_MS * 1000,
        format!("303 after {SLOW_MS} ms"),
        format!("{} after {} ms", outcome(&new), new.total_us / 1000),
    )?;
    let good = changes(context, CHANGES - SLOW, 1).await?;
    all(&good, 303).map_err(|seen| check("changes after those").failure("303 every time", seen))?;
    check("the number of answers").equal(slow.len() + good.len(), CHANGES)?;
    for (path, times) in [(format!("/books/{BOOK}"), pages), ("/".to_owned(), lists)] {
        for _ in 0..times {
            let record = context.send(books::get(context, &path)?).await;
            check(format!("the page {path}")).that(record.is(200), "200", outcome(&record))?;
        }
    }
    front_ends.settle(context, &before, expected).await
}

/// So many changes of a book, over so many connections.
async fn changes(context: &Context, times: usize, connections: usize) -> Result<Vec<Record>, Failure> {
    let request = form(context, &format!("/books/{BOOK}/edit"), "title=Silas+Marner&author_id=4&pages=244")?;
    Ok(context.send_batch(Batch::repeated(request, times, connections)).await)
}

/// Whether all answers have a status, else one that has not.
fn all(records: &[Record], status: u16) -> Result<(), String> {
    records.iter().find(|record| !record.is(status)).map_or(Ok(()), |record| Err(outcome(record)))
}

/// A series, and by how much it has to move at all front ends together.
struct Expected<'a> {
    name: &'static str,
    labels: Vec<(&'static str, &'a str)>,
    by: usize,
}

/// The pods of `webapp`, whose proxies send what books is asked. It is the ingress's proxy that chooses one of them.
pub(super) struct FrontEnds(Vec<Proxy>);

impl FrontEnds {
    pub(super) async fn find(context: &Context) -> Result<Self, Failure> {
        let pods = context.world.kubernetes.pods(NAMESPACE, "app=webapp").await?;
        let here = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let proxies: Vec<Proxy> = here.filter_map(|pod| Some(Proxy::Pod(pod.status?.pod_ip?.parse().ok()?))).collect();
        if proxies.is_empty() {
            return Err(anyhow!("no pod of webapp has an address").into());
        }
        Ok(Self(proxies))
    }

    /// The sum of some series at all of them.
    pub(super) async fn count(
        &self,
        context: &Context,
        series: &'static str,
        labels: &[(&str, &str)],
    ) -> Result<f64, Failure> {
        let mut sum = 0.0;
        for proxy in &self.0 {
            sum += proxy.count(context, series, labels).await?;
        }
        Ok(sum)
    }

    async fn read(&self, context: &Context) -> Result<Vec<Metrics>, Failure> {
        let mut all = Vec::new();
        for proxy in &self.0 {
            all.push(proxy.read(context).await?);
        }
        Ok(all)
    }

    async fn settle(&self, context: &Context, before: &[Metrics], expected: &[Expected<'_>]) -> Result<(), Failure> {
        converge(SETTLES, || async {
            let now = self.read(context).await.map_err(|failure| failure.to_string())?;
            moved(before, &now, expected)
        })
        .await
        .map_err(|seen| {
            check("how far the counters of webapp's proxies moved together")
                .failure("as far as the case's requests make them", seen)
        })
    }
}

/// Whether all series have moved as expected, else those that have not.
fn moved(before: &[Metrics], now: &[Metrics], expected: &[Expected<'_>]) -> Result<(), String> {
    let sum = |all: &[Metrics], of: &Expected<'_>| all.iter().map(|one| one.sum(of.name, &of.labels)).sum::<f64>();
    let by = expected.iter().map(|series| (series, sum(now, series) - sum(before, series)));
    let wrong: Vec<String> = by
        .filter(|(series, by)| *by != series.by as f64)
        .map(|(series, by)| format!("{}{:?} +{by}, not +{}", series.name, series.labels, series.by))
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}
