//! Deleting what Meshgate made, and nothing else: found by its label, whoever made it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PropagationPolicy};
use kube::core::ApiResource;
use kube::discovery::{Discovery, Scope, verbs};
use tokio::time::Instant;

use super::{NAMESPACE, OWNED, Reach, RemoteError};

/// How long what was deleted may take to be gone: pods have their grace.
const GOES: Duration = Duration::from_secs(120);

/// Questions under way at once.
const AT_ONCE: usize = 8;

/// Deletes everything with the label, but for Meshgate's own namespace, and waits until it is gone.
///
/// What could stand in the way of other deletions goes first (webhooks), then what is in namespaces of others, then Meshgate's namespaces,
/// with all that is in them, and other objects that are in none, last the definitions of what they were.
pub(super) async fn everything(reach: &Reach, client: &Client, progress: &dyn Fn(&str)) -> Result<(), RemoteError> {
    // In one answer where the API server gives it so: asked one by one, a single aggregated API that is down would be the end of it.
    let discovery = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(discovery) => discovery,
        Err(_) => {
            let one_by_one = Discovery::new(client.clone()).run().await;
            one_by_one.map_err(|error| reach.failed("asking which kinds it serves", error))?
        }
    };
    let kinds: Vec<(ApiResource, Scope)> = discovery
        .groups()
        .flat_map(|group| group.recommended_resources())
        .filter(|(_, can)| can.supports_operation(verbs::LIST) && can.supports_operation(verbs::DELETE))
        .map(|(kind, can)| (kind, can.scope))
        .collect();
    let own = own_namespaces(reach, client).await?;
    for rank in 0..=3 {
        let of_rank = kinds.iter().filter(|(kind, scope)| self::rank(kind, scope) == rank);
        let found: Vec<Vec<(ApiResource, DynamicObject)>> = stream::iter(of_rank)
            .map(|(kind, _)| owned(reach, client, kind, &own))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let found: Vec<_> = found.into_iter().flatten().collect();
        if found.is_empty() {
            continue;
        }
        progress(&format!("deleting {}", summary(&found)));
        for (kind, object) in &found {
            delete(reach, client, kind, object).await?;
        }
        gone(reach, client, &found).await?;
    }
    Ok(())
}

/// Deletes a namespace and waits until it is gone.
pub(super) async fn namespace(reach: &Reach, client: &Client, name: &str) -> Result<(), RemoteError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let failed = |error| reach.failed(format!("deleting the namespace {name}"), error);
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        // One that is going already.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        deleted => deleted.map(drop).map_err(failed)?,
    }
    let deadline = Instant::now() + GOES;
    loop {
        let Some(found) = api.get_opt(name).await.map_err(failed)? else { return Ok(()) };
        if Instant::now() >= deadline {
            let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
            let why: Vec<String> = conditions
                .into_iter()
                .filter(|condition| condition.status == "True")
                .filter_map(|condition| condition.message)
                .collect();
            return Err(RemoteError::Stuck {
                seconds: GOES.as_secs(),
                what: format!("Namespace {name}: {}", why.join("; ")),
            });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn rank(kind: &ApiResource, scope: &Scope) -> u8 {
    match (kind.kind.as_str(), scope) {
        ("ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" | "APIService", _) => 0,
        (_, Scope::Namespaced) => 1,
        ("CustomResourceDefinition", _) => 3,
        _ => 2,
    }
}

/// Meshgate's namespaces: what is in them goes with them.
async fn own_namespaces(reach: &Reach, client: &Client) -> Result<BTreeSet<String>, RemoteError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let found = api.list_metadata(&ListParams::default().labels(&format!("{OWNED}=true"))).await;
    let found = found.map_err(|error| reach.failed("listing namespaces", error))?;
    Ok(found.items.into_iter().filter_map(|namespace| namespace.metadata.name).collect())
}

/// What of a kind Meshgate made, beyond its own namespace and what goes with a namespace or an owner anyway.
async fn owned(
    reach: &Reach,
    client: &Client,
    kind: &ApiResource,
    own: &BTreeSet<String>,
) -> Result<Vec<(ApiResource, DynamicObject)>, RemoteError> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), kind);
    let labelled = ListParams::default().labels(&format!("{OWNED}=true"));
    let found = match api.list(&labelled).await {
        Ok(found) => found.items,
        // Kinds come and go with their definitions, and some refuse to be listed.
        Err(kube::Error::Api(status)) if matches!(status.code, 403..=405) => Vec::new(),
        Err(error) => return Err(reach.failed(format!("listing {}", kind.plural), error)),
    };
    let ours = |object: &DynamicObject| {
        let in_own_namespace = object.metadata.namespace.as_ref().is_some_and(|namespace| own.contains(namespace));
        let own_namespace = kind.kind == "Namespace" && object.metadata.name.as_deref() == Some(NAMESPACE);
        !in_own_namespace && !own_namespace && object.metadata.owner_references.is_none()
    };
    Ok(found.into_iter().filter(ours).map(|object| (kind.clone(), object)).collect())
}

async fn delete(reach: &Reach, client: &Client, kind: &ApiResource, object: &DynamicObject) -> Result<(), RemoteError> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let params = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    match api_of(client, kind, object).delete(name, &params).await {
        Ok(_) => Ok(()),
        // Gone, or going, in the meantime.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(reach.failed(format!("deleting {}", describe(kind, object)), error)),
    }
}

async fn gone(reach: &Reach, client: &Client, deleted: &[(ApiResource, DynamicObject)]) -> Result<(), RemoteError> {
    let deadline = Instant::now() + GOES;
    for (kind, object) in deleted {
        let api = api_of(client, kind, object);
        let name = object.metadata.name.as_deref().unwrap_or_default();
        loop {
            let found = match api.get_metadata_opt(name).await {
                Ok(found) => found,
                // The kind itself is gone.
                Err(kube::Error::Api(status)) if status.code == 404 => None,
                Err(error) => return Err(reach.failed(describe(kind, object), error)),
            };
            // What has its name and another uid is not what was deleted.
            if found.is_none_or(|found| found.metadata.uid != object.metadata.uid) {
                break;
            }
            if Instant::now() >= deadline {
                return Err(RemoteError::Stuck { seconds: GOES.as_secs(), what: describe(kind, object) });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

fn api_of(client: &Client, kind: &ApiResource, object: &DynamicObject) -> Api<DynamicObject> {
    match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, kind),
        None => Api::all_with(client.clone(), kind),
    }
}

fn describe(kind: &ApiResource, object: &DynamicObject) -> String {
    let name = object.metadata.name.as_deref().unwrap_or("?");
    match &object.metadata.namespace {
        Some(namespace) => format!("{} {namespace}/{name}", kind.kind),
        None => format!("{} {name}", kind.kind),
    }
}

/// `3 Namespaces, 1 ClusterRole`, for a person who waits.
fn summary(found: &[(ApiResource, DynamicObject)]) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    for (kind, _) in found {
        *counts.entry(&kind.kind).or_default() += 1;
    }
    counts.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}
