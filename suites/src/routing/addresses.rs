//! The address at which a route says that it is reached.

use std::time::Duration;

use meshgate_clusters::Ability;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::{converge, deadline, patient};
use meshgate_harness::plan::{Backend, Route};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long the controller may take to publish an address: some write statuses in rounds, and of several replicas the one with the lease.
const SETTLES: Duration = Duration::from_secs(30);

/// How long the controller's Service may take to get one from a load balancer. Whether a cluster has such a thing is not written anywhere.
const BALANCED: Duration = Duration::from_secs(20);

/// After so many requests a status is looked at again.
const REQUESTS: usize = 20;

/// The cases of this file.
pub const CASES: &[Case] = &[PUBLISHED, BY_NAME];

const PUBLISHED: Case = Case {
    id: "routing/published-address",
    summary: "The status of a route has the address of the controller's Service, and is not written again while it is right",
    needs: &[
        Need::Cluster(Ability::LoadBalancers),
        Need::Serves,
        Need::PublishesAddress,
        Need::OncePerRecipe,
        Need::OncePerPromises,
    ],
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
    needs: &[Need::Cluster(Ability::LoadBalancers), Need::Serves, Need::Template(TEMPLATE)],
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
    if !has_address(&context).await? {
        return Ok(without_address());
    }
    let main = objects(&context, context.route("main")?)?;
    let mut settled = published(&context, &main).await?;
    // What else the status says may take a moment longer. But whoever else writes it, such as a further instance, answers each write of the
    // other's with one of its own, and so for ever.
    let deadline = deadline(SETTLES);
    loop {
        for _ in 0..REQUESTS {
            context.seen("main").await?;
        }
        let now = published(&context, &main).await?;
        if now == settled || Instant::now() >= deadline {
            check("the resourceVersion of a route whose address has not changed").equal(now, settled)?;
            return Ok(Outcome::Pass);
        }
        settled = now;
    }
}

async fn address_by_name(context: Context) -> CaseResult {
    if !has_address(&context).await? {
        return Ok(without_address());
    }
    // The control of what follows: by its name it is had, and the certificate as well, over which the request comes.
    published(&context, &objects(&context, context.route("named")?)?).await?;
    context.seen("named").await?;

    let mut plan = (*context.plan).clone();
    let address = of_the_controller(&context).await?.first().cloned().unwrap_or_default();
    plan.route("numbered", "numbered").template(TEMPLATE).value("address_name", address.as_str());
    let numbered = objects(&context, &plan.routes["numbered"])?;
    let kubernetes = &context.world.kubernetes;
    context.apply_meanwhile(&numbered).await?;
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

/// Waits until the controller's Service has an address that it could publish.
async fn has_address(context: &Context) -> Result<bool, Failure> {
    let deadline = deadline(BALANCED);
    while of_the_controller(context).await?.is_empty() {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(true)
}

fn without_address() -> Outcome {
    let seconds = patient(BALANCED).as_secs();
    Outcome::NotApplicable {
        why: format!("no load balancer gave the controller's Service an address within {seconds} s"),
    }
}

/// What load balancers are said to be in a status: `[{"ip": "..."}]`, by address or name alone.
fn addresses(object: &Value) -> Vec<String> {
    let all = object["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
    all.filter_map(|one| one["ip"].as_str().or(one["hostname"].as_str())).map(str::to_owned).collect()
}

/// Waits until those objects of a route in whose status an address is to stand say those that the controller's Service has then; their
/// resourceVersions at that time.
async fn published(context: &Context, objects: &[Value]) -> Result<Vec<Option<String>>, Failure> {
    let look = || async {
        let wanted = of_the_controller(context).await.map_err(|failure| failure.to_string())?;
        let mut versions = Vec::new();
        let publishes = &context.world.recipe.publishes;
        for object in objects.iter().filter(|object| publishes.iter().any(|kind| object["kind"] == *kind)) {
            let found = context.world.kubernetes.get(object).await.map_err(|error| format!("{error:#}"))?;
            let said = addresses(&found.data);
            if wanted.is_empty() || said != wanted {
                let kind = found.types.unwrap_or_default().kind;
                return Err(format!("{kind} {}: {said:?}, and of the Service {wanted:?}", object["metadata"]["name"]));
            }
            versions.push(found.metadata.resource_version);
        }
        Ok(versions)
    };
    let said = converge(SETTLES, look).await;
    said.map_err(|seen| check("the address in the status of a route").failure("that of the controller's Service", seen))
}

fn objects(context: &Context, route: &Route) -> Result<Vec<Value>, Failure> {
    Ok(route.objects(&context.world.recipe).map_err(anyhow::Error::from)?)
}
