//! Deleting what Meshgate made, and nothing else: found by its label, whoever made it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PropagationPolicy};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{Discovery, Scope, verbs};
use tokio::time::{Instant, timeout};

use super::{NAMESPACE, OWNED, Reach, RemoteError, is_owned};

/// How long what was deleted may take to be gone: pods have their grace, and who deletes them is held to so many requests a second. Three
/// namespaces with 25 pods took a Kubernetes 1.20 with its defaults 97 seconds.
const GOES: Duration = Duration::from_secs(300);

/// How long a list may take. A client tries again where an API server says that it is busy, as one does for an aggregated API that is down.
const LISTS: Duration = Duration::from_secs(20);

/// Questions under way at once.
const AT_ONCE: usize = 8;

/// Deletes everything with the label, but for Meshgate's own namespace, and waits until it is gone.
///
/// What could stand in the way of other deletions goes first (webhooks), then what is in namespaces of others, then Meshgate's namespaces,
/// with all that is in them, and other objects that are in none, last the definitions of what they were.
pub(super) async fn everything(reach: &Reach, client: &Client, progress: &dyn Fn(&str)) -> Result<(), RemoteError> {
    let discovery = discover(client).await.map_err(|error| reach.failed("asking which kinds it serves", error))?;
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
            .map(|(kind, _)| owned(reach, client, kind, &own, progress))
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

/// What kinds there are: in one answer where the API server gives it so, since asked one by one a single aggregated API that is down would be
/// the end of it. One older than Kubernetes 1.26 answers that question with the list of its groups, in which no kind is found.
async fn discover(client: &Client) -> kube::Result<Discovery> {
    const CORE: &str = "";
    match Discovery::new(client.clone()).run_aggregated().await {
        Ok(discovery) if discovery.has_group(CORE) => Ok(discovery),
        _ => Discovery::new(client.clone()).run().await,
    }
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
///
/// A kind that somebody else brought may be broken in their way: what converts its versions is gone, or what serves it is down. A run could
/// make nothing of such a kind either, so it is told and passed over.
async fn owned(
    reach: &Reach,
    client: &Client,
    kind: &ApiResource,
    own: &BTreeSet<String>,
    progress: &dyn Fn(&str),
) -> Result<Vec<(ApiResource, DynamicObject)>, RemoteError> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), kind);
    let labelled = ListParams::default().labels(&format!("{OWNED}=true"));
    let found = match timeout(LISTS, api.list(&labelled)).await {
        Ok(Ok(found)) => found.items,
        // Kinds come and go with their definitions, and some refuse to be listed.
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 403..=405) => Vec::new(),
        failed => {
            let why = match &failed {
                Ok(Err(error)) => error.to_string(),
                _ => format!("no answer within {} s", LISTS.as_secs()),
            };
            if is_of_others(client, kind).await {
                progress(&format!("passing over {}.{}, which cannot be listed: {why}", kind.plural, kind.group));
                return Ok(Vec::new());
            }
            let error = match failed {
                Ok(Err(error)) => error,
                _ => kube::Error::Service(why.into()),
            };
            return Err(reach.failed(format!("listing {}", kind.plural), error));
        }
    };
    let ours = |object: &DynamicObject| {
        let in_own_namespace = object.metadata.namespace.as_ref().is_some_and(|namespace| own.contains(namespace));
        let own_namespace = kind.kind == "Namespace" && object.metadata.name.as_deref() == Some(NAMESPACE);
        !in_own_namespace && !own_namespace && object.metadata.owner_references.is_none()
    };
    Ok(found.into_iter().filter(ours).map(|object| (kind.clone(), object)).collect())
}

/// Whether somebody else brought a kind: by a definition or by an API server of its own that Meshgate did not make.
async fn is_of_others(client: &Client, kind: &ApiResource) -> bool {
    let of = |group: &str, kind: &str, plural: &str| {
        let gvk = GroupVersionKind::gvk(group, "v1", kind);
        Api::<DynamicObject>::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&gvk, plural))
    };
    let definitions = of("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions");
    if let Ok(Some(definition)) = definitions.get_opt(&format!("{}.{}", kind.plural, kind.group)).await {
        return !is_owned(&definition.metadata);
    }
    let services = of("apiregistration.k8s.io", "APIService", "apiservices");
    // One without a Service stands for what the API server serves itself.
    let service = services.get_opt(&format!("{}.{}", kind.version, kind.group)).await;
    service.is_ok_and(|service| {
        service.is_some_and(|service| !service.data["spec"]["service"].is_null() && !is_owned(&service.metadata))
    })
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::{Value, json};

    use super::*;
    use crate::remote::fake;

    /// What is told of a kind whose lists fail, where its definition has these labels and an APIService this Service.
    async fn listed(status: u16, definition: Option<Value>, service: Option<Value>) -> (bool, String) {
        let client = fake::client(move |_, path| {
            let failure = |code: u16| {
                (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": "x", "message": "broken"}))
            };
            let found = |labels: &Value, spec: Value| {
                (
                    200,
                    json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "x", "labels": labels}, "spec": spec}),
                )
            };
            match (path, &definition, &service) {
                (path, Some(labels), _) if path.contains("/customresourcedefinitions/") => found(labels, json!({})),
                (path, _, Some(service)) if path.contains("/apiservices/") => {
                    found(&json!({}), json!({"service": service}))
                }
                (path, ..) if path.contains("/things") && path.contains("labelSelector") => failure(status),
                _ => failure(404),
            }
        });
        let gvk = GroupVersionKind::gvk("example.com", "v1", "Thing");
        let kind = ApiResource::from_gvk_with_plural(&gvk, "things");
        let told = Mutex::new(String::new());
        let progress = |text: &str| told.lock().unwrap().push_str(text);
        let found = owned(&fake::reach(), &client, &kind, &BTreeSet::new(), &progress).await;
        (found.is_ok_and(|found| found.is_empty()), told.into_inner().unwrap())
    }

    /// As Kubernetes 1.20 answers, whatever a client says that it accepts.
    #[tokio::test]
    async fn kinds_are_found_where_they_are_not_told_in_one_answer() {
        let client = fake::client(|_, path| {
            let version = json!({"groupVersion": "apps/v1", "version": "v1"});
            let verbs = json!(["delete", "list"]);
            let answer = match path {
                "/api" => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
                "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                    {"name": "apps", "versions": [version], "preferredVersion": version},
                ]}),
                "/api/v1" => json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
                    {"name": "pods", "singularName": "", "namespaced": true, "kind": "Pod", "verbs": verbs},
                ]}),
                "/apis/apps/v1" => json!({"kind": "APIResourceList", "groupVersion": "apps/v1", "resources": [
                    {"name": "deployments", "singularName": "", "namespaced": true, "kind": "Deployment", "verbs": verbs},
                ]}),
                _ => {
                    return (
                        404,
                        json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "x", "message": path}),
                    );
                }
            };
            (200, answer)
        });
        let found = discover(&client).await.unwrap();
        let mut kinds: Vec<_> =
            found.groups().flat_map(|group| group.recommended_resources()).map(|(kind, _)| kind.kind).collect();
        kinds.sort();
        assert_eq!(kinds, ["Deployment", "Pod"]);
    }

    #[tokio::test]
    async fn a_kind_of_others_that_cannot_be_listed_is_passed_over() {
        let owned = json!({OWNED: "true"});
        let (passed, told) = listed(500, Some(json!({})), None).await;
        assert!(passed && told.starts_with("passing over things.example.com, which cannot be listed: "), "{told}");
        let (passed, told) = listed(503, None, Some(json!({"name": "metrics"}))).await;
        assert!(passed && !told.is_empty(), "what an aggregated API serves that is down: {told}");
        assert_eq!(
            listed(500, Some(owned), None).await,
            (false, String::new()),
            "of Meshgate's own something may be left"
        );
        assert_eq!(listed(500, None, Some(Value::Null)).await, (false, String::new()), "the API server's own");
        assert_eq!(listed(404, None, None).await, (true, String::new()), "a kind that went");
    }
}
