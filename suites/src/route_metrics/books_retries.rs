//! Retries of the known failure of books, by ServiceProfile and by HTTPRoute.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::{converge, deadline, patient};
use meshgate_harness::probe::{Batch, outcome};
use meshgate_harness::statistics::Sequential;
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::books_timeouts::FrontEnds;
use crate::books::{form, id, location, on_route, open, plan, proxy};
use crate::counters::settle;

/// The cases of this file.
pub const CASES: &[Case] = &[Case {
    id: "route_metrics/books-retries",
    summary: "Retries lift the success of new books as far as they should: all of it by ServiceProfile, 3/4 and 15/16 by HTTPRoute",
    needs: &[Need::Serves, Need::App("books"), Need::RouteMetrics, Need::OncePerRecipe],
    claims: &[],
    stage: Stage::Alone,
    plan,
    run: |context| Box::pin(retries(context)),
}];

pub(super) const NAMESPACE: &str = "booksapp";
const AUTHORS: &str = "authors.booksapp.svc.cluster.local";
pub(super) const BOOKS: &str = "books.booksapp.svc.cluster.local";

/// How long a change may take until requests show it.
pub(super) const SETTLES: Duration = Duration::from_secs(20);

async fn retries(context: Context) -> CaseResult {
    open(&context).await?;
    // Deleting an author deletes its books, whatever their number.
    let new_author = form(&context, "/authors", "first_name=Half&last_name=Cline")?;
    let author = id(&location(&context.send(new_author.clone()).await, &new_author)?)?;
    let profiles = profiles(&context);
    let known = (get(&profiles, AUTHORS).await?, get(&profiles, BOOKS).await?);

    // Who comes next finds books as it was.
    let after = context.clone();
    context.afterwards(async move {
        let delete = form(&after, &format!("/authors/{author}/delete"), "")?;
        location(&after.send(delete.clone()).await, &delete).map(drop)
    });
    let after = context.clone();
    context.afterwards(async move {
        failing(&after, json!([{"name": "FAIL_EVERY", "value": "2"}, gone("FAILURE_RATE"), gone("SEED")])).await
    });
    let after = context.clone();
    context.afterwards(async move { after.world.kubernetes.delete(&route(0)).await.map_err(Failure::from) });
    for known in [known.0.clone(), known.1] {
        let profiles = profiles.clone();
        context.afterwards(async move { restore(&profiles, known).await });
    }

    by_profile(&context, author, &known.0).await?;
    by_route(&context, author).await?;
    Ok(Outcome::Pass)
}

/// `isRetryable` on the request that fails: whoever asks books sees no failure, and its proxy counts all of them.
async fn by_profile(context: &Context, author: u64, known: &DynamicObject) -> Result<(), Failure> {
    const FORMS: usize = 8;
    let route = "HEAD /authors/{id}.json";
    let mut changed = known.data["spec"].clone();
    for one in changed["routes"].as_array_mut().into_iter().flatten().filter(|one| one["name"] == route) {
        one["isRetryable"] = json!(true);
    }
    let patch = Patch::Merge(json!({"spec": changed}));
    profiles(context).patch(AUTHORS, &PatchParams::default(), &patch).await.context("the profile of authors")?;
    // Without retries every second request fails, so three in a row are proof.
    let request = new_book(context, author)?;
    converge(SETTLES, || async {
        let records = context.send_many(request.clone(), 3, 1).await;
        let bad = records.iter().find(|record| !record.is(303));
        bad.map_or(Ok(()), |record| Err(outcome(record)))
    })
    .await
    .map_err(|seen| check("new books with retries").failure("to succeed", seen))?;

    let books = proxy(context, "books").await?;
    let before = books.read(context).await?;
    for record in context.send_many(request, FORMS, 1).await {
        check("a new book").that(record.is(303), "303", outcome(&record))?;
    }
    let authors = ("authors", 7001);
    let outbound = |name, by| on_route(name, "outbound", authors, route, by);
    let (good, refused) = ([("status_code", "200")], [("status_code", "503"), ("classification", "failure")]);
    // Each of them failed once, and each time the request after it, which was its retry, did not.
    let expected = [
        outbound("route_response_total", FORMS),
        outbound("route_response_total", FORMS).and(good),
        outbound("route_actual_response_total", 2 * FORMS),
        outbound("route_actual_response_total", FORMS).and(good),
        outbound("route_actual_response_total", FORMS).and(refused),
    ];
    settle(context, books, &before, &expected).await?;
    restore(&profiles(context), known.clone()).await
}

/// An HTTPRoute that retries: of failures of half the requests, as in the demo, k retries leave one in 2^(k+1).
async fn by_route(context: &Context, author: u64) -> Result<(), Failure> {
    // A profile would be followed in place of the route.
    profiles(context).delete(BOOKS, &DeleteParams::default()).await.context("the profile of books")?;
    failing(
        context,
        json!([gone("FAIL_EVERY"), {"name": "FAILURE_RATE", "value": "0.5"}, {"name": "SEED", "value": "7"}]),
    )
    .await?;
    let front_ends = FrontEnds::find(context).await?;
    for (retries, share, off) in [(0_u32, 0.5, 0.15), (1, 0.75, 0.12), (3, 0.9375, 0.06)] {
        context.world.kubernetes.apply(&route(retries)).await?;
        in_force(context, author, &front_ends, retries).await?;
        succeed(context, author, Sequential { p: share, off }, retries).await?;
    }
    Ok(())
}

/// Waits until one request alone has been sent again more often than the route before allows: once, where there were no retries,
/// and then twice. One is proof, as a proxy takes a route over in one step. Which front end's it is the ingress's proxy says, which may leave one of them
/// in peace for longer than this waits.
async fn in_force(context: &Context, author: u64, front_ends: &FrontEnds, retries: u32) -> Result<(), Failure> {
    let least = f64::from(retries.min(2));
    let (request, deadline) = (new_book(context, author)?, deadline(SETTLES));
    let sent_again = || front_ends.count(context, "outbound_http_route_retry_requests_total", &[("route_name", NAME)]);
    loop {
        let before = sent_again().await?;
        context.send(request.clone()).await;
        let times = sent_again().await? - before;
        if times >= least {
            return Ok(());
        }
        check(format!("how often a new book is sent again under an HTTPRoute with {retries} retries")).that(
            Instant::now() < deadline,
            format!("{least} times at least once within {} s", patient(SETTLES).as_secs()),
            format!("{times} times the last time"),
        )?;
    }
}

async fn succeed(context: &Context, author: u64, expected: Sequential, retries: u32) -> Result<(), Failure> {
    let (mut n, mut good) = (0, 0);
    loop {
        for record in context.send_batch(Batch::repeated(new_book(context, author)?, 40, 4)).await {
            check("an answer to a new book").that(record.is(303) || record.is(500), "303 or 500", outcome(&record))?;
            n += 1;
            good += u64::from(record.is(303));
        }
        let share = format!("new books that succeed with {retries} retries");
        if let Some(judged) = context.judge_share(&share, expected, n, good, format!("{good} of {n}")) {
            return judged;
        }
    }
}

const NAME: &str = "books-create";

/// The demo's route for new books.
fn route(retries: u32) -> Value {
    let mut annotations = json!({"retry.linkerd.io/http": "5xx", "retry.linkerd.io/limit": retries.to_string()});
    if retries == 0 {
        annotations = json!({});
    }
    json!({
        "apiVersion": "policy.linkerd.io/v1beta3",
        "kind": "HTTPRoute",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "annotations": annotations},
        "spec": {
            "parentRefs": [{"name": "books", "kind": "Service", "group": "core", "port": 7002}],
            "rules": [{"matches": [{"path": {"value": "/books.json", "type": "Exact"}, "method": "POST"}]}, {}],
        },
    })
}

fn new_book(context: &Context, author: u64) -> Result<meshgate_harness::probe::Request, Failure> {
    form(context, "/books", &format!("title=Half&author_id={author}&pages=9"))
}

/// How `authors` fails: entries of its environment.
async fn failing(context: &Context, env: Value) -> Result<(), Failure> {
    configure(context, "authors", env).await
}

/// Gives a service of books entries of its environment, and waits until it runs with them.
pub(super) async fn configure(context: &Context, name: &str, env: Value) -> Result<(), Failure> {
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "service", "env": env}]}}}});
    let api: Api<Deployment> = Api::namespaced(context.world.kubernetes.client(), NAMESPACE);
    let patched = api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
    patched.with_context(|| format!("the Deployment {name}"))?;
    context.world.kubernetes.deployments_ready(deadline(SETTLES), |_| {}).await?;
    Ok(())
}

fn gone(name: &str) -> Value {
    json!({"name": name, "$patch": "delete"})
}

pub(super) fn profiles(context: &Context) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("linkerd.io", "v1alpha2", "ServiceProfile");
    let kind = ApiResource::from_gvk_with_plural(&kind, "serviceprofiles");
    Api::namespaced_with(context.world.kubernetes.client(), NAMESPACE, &kind)
}

pub(super) async fn get(profiles: &Api<DynamicObject>, name: &str) -> Result<DynamicObject, Failure> {
    Ok(profiles.get(name).await.with_context(|| format!("the ServiceProfile {name}"))?)
}

/// Makes a profile what it was, be it changed or gone.
pub(super) async fn restore(profiles: &Api<DynamicObject>, known: DynamicObject) -> Result<(), Failure> {
    let name = known.metadata.name.clone().unwrap_or_default();
    let spec = json!({"spec": known.data["spec"]});
    if profiles.get_opt(&name).await.context("a ServiceProfile")?.is_some() {
        profiles.patch(&name, &PatchParams::default(), &Patch::Merge(spec)).await.context("a ServiceProfile")?;
        return Ok(());
    }
    let mut again = known;
    again.metadata.resource_version = None;
    again.metadata.uid = None;
    again.metadata.managed_fields = None;
    profiles.create(&PostParams::default(), &again).await.context("a ServiceProfile")?;
    Ok(())
}
