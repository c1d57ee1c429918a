//! The address at which a route says that it is reached.

use std::time::Duration;

use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::converge;
use meshgate_harness::plan::{Backend, Route};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long the controller may take to publish an address: some write statuses in rounds, and of several replicas the one with the lease.
const SETTLES: Duration = Duration::from_secs(30);

/// After so many requests a status is looked at again.
const REQUESTS: usize = 20;

/// The cases of this file.
pub const CASES: &[Case] = &[PUBLISHED, BY_NAME];

const PUBLISHED: Case = Case {
    id: "routing/published-address",
    summary: "The status of a route has the address of the controller's Service, and is not written again while it is right",
    needs: &[Need::Serves, Need::PublishesAddress, Need::OncePerRecipe, Need::OncePerPromises],
    claims: &[],
    stage: Stage::Shared,
    plan: |plan| {
        plan.serve("main", Backend::A);
    },
    run: |context| Box::pin(published_address(context)),
};

const BY_NAME: Case = Case {
    id: "routing/address-by-name",
    summary: "An address and a certificate are had by the names that a cloud has for them, and an address is no such name",
    needs: &[Need::Serves, Need::Template(TEMPLATE)],
    claims: &[],
    stage: Stage::Shared,
    plan: |plan| {
        plan.serve("named", Backend::A).template(TEMPLATE).value("address_name", "static-ip-name");
        plan.service("numbered", Backend::A);
    },
    run: |context| Box::pin(address_by_name(context)),
};

const TEMPLATE: &str = "tls-by-name";

async fn published_address(context: Context) -> CaseResult {
    let wanted = of_the_controller(&context).await?;
    let main = objects(&context, context.route("main")?)?;
    let mut settled = published(&context, &main, &wanted).await?;
    // What else the status says may take a moment longer. But whoever else writes it, such as a further instance, answers each write of the
    // other's with one of its own, and so for ever.
    let deadline = Instant::now() + SETTLES;
    loop {
        for _ in 0..REQUESTS {
            context.seen("main").await?;
        }
        let now = published(&context, &main, &wanted).await?;
        if now == settled || Instant::now() >= deadline {
            check("the resourceVersion of a route whose address has not changed").equal(now, settled)?;
            return Ok(Outcome::Pass);
        }
        settled = now;
    }
}

async fn address_by_name(context: Context) -> CaseResult {
    let wanted = of_the_controller(&context).await?;
    // The control of what follows: by its name it is had, and the certificate as well, over which the request comes.
    published(&context, &objects(&context, context.route("named")?)?, &wanted).await?;
    context.seen("named").await?;

    let mut plan = (*context.plan).clone();
    let address = wanted.first().cloned().unwrap_or_default();
    plan.route("numbered", "numbered").template(TEMPLATE).value("address_name", address.as_str());
    let numbered = objects(&context, &plan.routes["numbered"])?;
    let kubernetes = &context.world.kubernetes;
    kubernetes.apply_all(&numbered).await?;
    let told = converge(SETTLES, || async {
        let events = kubernetes.events().await.map_err(|error| format!("{error:#}"))?;
        let about = |event: &&String| event.contains(&plan.routes["numbered"].name) && event.contains(&address);
        events.iter().find(about).map(drop).ok_or_else(|| "none".to_owned())
    })
    .await;
    let found = match numbered.first() {
        Some(object) => addresses(&kubernetes.get(object).await?.data),
        None => Vec::new(),
    };
    kubernetes.delete_all(&numbered).await?;
    told.map_err(|seen| check("an event that tells of a name which there is not").failure(&address, seen))?;
    check("the addresses of a route that asks for one by itself").equal(found, Vec::<String>::new())?;
    Ok(Outcome::Pass)
}

/// The addresses of the controller's Service.
async fn of_the_controller(context: &Context) -> Result<Vec<String>, Failure> {
    let controller = &context.world.controller;
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": controller.workload, "namespace": controller.namespace},
    });
    Ok(addresses(&context.world.kubernetes.get(&service).await?.data))
}

/// What load balancers are said to be in a status: `[{"ip": "..."}]`, by address or name alone.
fn addresses(object: &Value) -> Vec<String> {
    let all = object["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
    all.filter_map(|one| one["ip"].as_str().or(one["hostname"].as_str())).map(str::to_owned).collect()
}

/// Waits until those objects of a route in whose status an address is to stand say this one; their resourceVersions then.
async fn published(context: &Context, objects: &[Value], wanted: &[String]) -> Result<Vec<Option<String>>, Failure> {
    let look = || async {
        let mut versions = Vec::new();
        let publishes = &context.world.recipe.publishes;
        for object in objects.iter().filter(|object| publishes.iter().any(|kind| object["kind"] == *kind)) {
            let found = context.world.kubernetes.get(object).await.map_err(|error| format!("{error:#}"))?;
            let said = addresses(&found.data);
            if said != wanted {
                return Err(format!(
                    "{} {}: {said:?}",
                    found.types.unwrap_or_default().kind,
                    object["metadata"]["name"]
                ));
            }
            versions.push(found.metadata.resource_version);
        }
        Ok(versions)
    };
    let said = converge(SETTLES, look).await;
    said.map_err(|seen| check("the address in the status of a route").failure(format!("{wanted:?}"), seen))
}

fn objects(context: &Context, route: &Route) -> Result<Vec<Value>, Failure> {
    Ok(route.objects(&context.world.recipe).map_err(anyhow::Error::from)?)
}
