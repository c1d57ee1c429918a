//! The recipes that the page prints and that no longer do what it says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use meshgate_fixtures::{ClientOverride, Mode, Template};
use meshgate_harness::blueprint;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::converge;
use meshgate_harness::matrix::Dialect;
use meshgate_harness::metrics::Families;
use meshgate_harness::plan::Backend;
use meshgate_harness::probe::{Batch, Record, Request, Seen};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::{Value, json};

use crate::counters::fqdn;

/// How long the controller may take to follow a change.
const SETTLES: Duration = Duration::from_secs(10);

/// The cases of this area.
pub const CASES: &[&[Case]] = &[&[
    Case {
        id: "recipe/as-printed",
        summary: "The manifests as printed lead nowhere, or to HTTPS where the recipe says so, with the one thing that they lack to the application, and without it nowhere again",
        needs: &[Need::ServesNothing, Need::Manifests],
        claims: &[],
        stage: Stage::Alone,
        plan: |plan| plan.app("emojivoto"),
        run: |context| Box::pin(as_printed(context)),
    },
    Case {
        id: "recipe/refused",
        summary: "The manifests as printed are refused, for fields or APIs that there are no more or by the controller's webhook, and nothing is stored",
        needs: &[Need::ServesNothing, Need::RefusedManifests],
        claims: &[],
        stage: Stage::Shared,
        plan: |_| {},
        run: |context| Box::pin(refused(context)),
    },
    Case {
        id: "recipe/annotation-no-op",
        summary: "The annotation sets no header: the proxy never learns the Service's name",
        needs: &[Need::Serves, Need::Mode(Mode::Ingress), Need::SetsNoOverride],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("main", Backend::A);
        },
        run: |context| Box::pin(annotation_no_op(context)),
    },
    Case {
        id: "recipe/header-needed",
        summary: "Without what the recipe adds to a route no header is set: the proxy never learns the Service's name",
        needs: &[
            Need::Serves,
            Need::Mode(Mode::Ingress),
            Need::Dialect(Dialect::Modern),
            Need::SetsOverride,
            Need::Template("bare"),
        ],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("main", Backend::A).template("bare");
        },
        run: |context| Box::pin(annotation_no_op(context)),
    },
    Case {
        id: "recipe/annotation-no-op-outside",
        summary: "The annotation sets no header at a load balancer outside the mesh: none arrives but a client's own",
        needs: &[Need::Serves, Need::Mode(Mode::Outside), Need::ClientOverride(ClientOverride::Passed)],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("main", Backend::A);
        },
        run: |context| Box::pin(annotation_no_op_outside(context)),
    },
]];

async fn as_printed(context: Context) -> CaseResult {
    let recipe = &context.world.recipe;
    let (mut printed, mends) = (as_they_are(&recipe.manifests)?, as_they_are(&recipe.mends)?);
    printed.extend(as_they_are(&recipe.install)?);
    let kubernetes = &context.world.kubernetes;
    let target = context.world.ingress.at(context.world.controller.ports.http).to_string();
    let request = Request::get(target, "/").host("example.com");
    let nowhere = |record: &Record| match recipe.redirects {
        true => record.is(301) && record.header("location").any(|location| location.starts_with("https://")),
        false => record.status.is_none_or(|status| status >= 400),
    };
    context.until(SETTLES, "the page's request leads nowhere", request.clone(), nowhere).await?;
    // The control, without which a controller that has read nothing yet would do as well as one that takes nothing of what is printed.
    let (replaced, added): (Vec<_>, Vec<_>) =
        mends.into_iter().partition(|mend| printed.iter().any(|object| blueprint::same(object, mend)));
    context.apply_meanwhile(&added).await?;
    if !replaced.is_empty() {
        let (world, printed) = (Arc::clone(&context.world), printed.clone());
        context.afterwards(async move { world.kubernetes.apply_all(&printed).await.map_err(Failure::from) });
        kubernetes.apply_all(&replaced).await?;
    }
    let mended =
        context.until(SETTLES, "it is answered once they are mended", request.clone(), |record| record.is(200)).await;
    kubernetes.delete_all(&added).await?;
    if !replaced.is_empty() {
        kubernetes.apply_all(&printed).await?;
    }
    mended?;
    context.until(SETTLES, "it leads nowhere again", request, nowhere).await?;
    Ok(Outcome::Pass)
}

fn as_they_are(templates: &[Template]) -> Result<Vec<Value>, Failure> {
    let objects = templates.iter().map(|template| template.instantiate(&BTreeMap::new()));
    Ok(objects.collect::<Result<Vec<_>, _>>().map_err(anyhow::Error::from)?.concat())
}

/// What is said of a manifest that is refused: for a field that its kind does not have,
const FIELDS: [&str; 2] = ["field not declared in schema", "unknown field"];

/// because a webhook has denied it,
const DENIED: &str = "denied the request";

/// or because there is no such API.
const NOT_SERVED: &str = "the cluster does not serve";

async fn refused(context: Context) -> CaseResult {
    let kubernetes = &context.world.kubernetes;
    let mends = as_they_are(&context.world.recipe.mends)?;
    for mut object in as_they_are(&context.world.recipe.refused)? {
        // An API server may learn of a webhook, and of its endpoints, a moment after the webhook is ready.
        let answer = converge(SETTLES, || async {
            match kubernetes.apply(&object).await {
                Ok(_) => {
                    kubernetes.delete(&object).await.map_err(|error| format!("{error:#}"))?;
                    Err("it is taken".to_owned())
                }
                Err(error) => {
                    let answer = format!("{error:#}");
                    if answer.contains("failed calling webhook") { Err(answer) } else { Ok(answer) }
                }
            }
        })
        .await
        .unwrap_or_else(|answer| answer);
        check("the answer to the manifest as printed").that(
            FIELDS.iter().chain(&[DENIED, NOT_SERVED]).any(|refusal| answer.contains(refusal)),
            "a refusal that names a field or an API which there is no more, or that of a webhook",
            &*answer,
        )?;
        // The control: without what it is refused for an object of that name is taken, and it was not there before.
        if answer.contains(NOT_SERVED) {
            let same = |mend: &&Value| {
                mend["kind"] == object["kind"] && mend["metadata"]["name"] == object["metadata"]["name"]
            };
            let mend = mends.iter().find(same);
            object = mend.cloned().ok_or_else(|| anyhow!("expected the same of today's API in `mends`, found none"))?;
        } else if answer.contains(DENIED) {
            // The annotations that the refusal names; those that say whose object it is stay.
            if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
                annotations.retain(|name, _| !answer.contains(name.as_str()));
            }
        } else {
            object["spec"] = json!({});
        }
        let stored = kubernetes.apply(&object).await?;
        let generation = stored.metadata.generation;
        kubernetes.delete(&object).await?;
        check("the control, the generation of the object without them").equal(generation, Some(1))?;
    }
    Ok(Outcome::Pass)
}

async fn annotation_no_op(context: Context) -> CaseResult {
    let request = context.get("main")?;
    let records = context.send_many(request, 20, 2).await;
    let good = records.iter().filter(|record| record.is(200)).count();
    check("requests answered 200").equal(good, 20)?;
    let named = [("direction", "outbound"), ("authority", &*fqdn(&context, "main"))];
    let metrics = context.controller_metrics().await?;
    check("requests that the controller's proxy knows by the Service's name")
        .equal(metrics.sum("request_total", &named), 0.0)?;
    // The control: a header that is set does name the Service, in the same mode and dialect.
    let service = format!("{}:80", fqdn(&context, "main"));
    let direct = Batch::of(vec![Request::get(service.clone(), "/").header("l5d-dst-override", service)]);
    let probe = context.world.pod_address("probe").await?;
    converge(SETTLES, || async {
        let count = async {
            context.send_inside(direct.clone()).await?;
            Ok::<_, Failure>(context.metrics_of(probe, Families::Counts).await?.sum("request_total", &named))
        };
        let count = count.await.map_err(|failure| failure.to_string())?;
        if count >= 1.0 { Ok(()) } else { Err(count.to_string()) }
    })
    .await
    .map_err(|seen| check("the control, requests that the probe's proxy knows by it").failure("at least 1", seen))?;
    Ok(Outcome::Pass)
}

async fn annotation_no_op_outside(context: Context) -> CaseResult {
    const OVERRIDE: &str = "l5d-dst-override";
    let arrived = |seen: &Seen| seen.header(OVERRIDE).map(str::to_owned).collect::<Vec<_>>();
    let seen = context.seen("main").await?;
    check("the header at the application").equal(arrived(&seen), Vec::<String>::new())?;
    // The control: one that is sent does arrive, so that none was set.
    let sent = format!("{}:80", fqdn(&context, "main"));
    let seen = context.expect_seen(context.get("main")?.header(OVERRIDE, &sent)).await?;
    check("the control, a client's own header at the application").equal(arrived(&seen), vec![sent])?;
    Ok(Outcome::Pass)
}
