//! A mesh whose admission webhook injects the proxy: whether it does, and whether it did.
//!
//! Such a webhook's `failurePolicy` is `Ignore`: while it does not answer, pods are created without a proxy, and nobody says so. What would
//! be judged then is not the mesh.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{anyhow, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use meshgate_clusters::remote::NAMESPACE;
use meshgate_inject::{INJECT, PROXY_CONTAINER};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::kubernetes::Kubernetes;

/// What a mesh that is not Meshgate's own consists of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Foreign {
    /// The mesh itself, with its injector.
    pub core: Vec<Value>,
    /// What runs in it and wants proxies, and so can only come once the injector answers.
    pub extensions: Vec<Value>,
}

/// How long the API server may take to ask a webhook whose Deployment is available: it learns of the configuration and of the Service's
/// endpoints by watches of its own.
const ANSWERS: Duration = Duration::from_secs(20);

/// What there is to do.
const LOOK: &str = "see the log of the mesh's injector (Deployment linkerd-proxy-injector) and `kubectl describe \
                    mutatingwebhookconfiguration linkerd-proxy-injector-webhook-config`: the Service that it names has to have endpoints, which the \
                    API server has to reach, and its selectors have to select the pods";

/// Waits until a pod that asks for a proxy would get one. None is made: a dry run passes the webhooks all the same.
///
/// # Errors
/// When it would still come without one.
pub async fn awaited(kubernetes: &Kubernetes, mesh: &[Value]) -> anyhow::Result<()> {
    if !has_injector(mesh) {
        bail!(
            "the mesh: expected a MutatingWebhookConfiguration for pods among its manifests, found none, so nothing gives pods a proxy; \
             install one with its injector"
        );
    }
    // On a cluster that is not Meshgate's own this namespace is there before everything else.
    let api: Api<Pod> = Api::namespaced(kubernetes.client(), NAMESPACE);
    let pod = serde_json::from_value(json!({
        "metadata": {"generateName": "injected-", "annotations": {INJECT: "enabled"}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    }))?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let deadline = Instant::now() + ANSWERS;
    loop {
        let found = match api.create(&dry_run, &pod).await {
            Ok(pod) if has_proxy(&pod) => return Ok(()),
            Ok(_) => "it would come without".to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Err(anyhow!(
                "the mesh does not inject: expected a new pod with the annotation {INJECT}: enabled to get the container {PROXY_CONTAINER} by the \
                 mesh's webhook, found for {} s: {found}; {LOOK}",
                ANSWERS.as_secs()
            ));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Refuses pods that asked for a proxy and came without. Those in the mesh's own namespaces are its own business.
///
/// # Errors
/// Some of them, by name.
pub async fn complete(kubernetes: &Kubernetes, mesh: &[Value]) -> anyhow::Result<()> {
    let missing = missing(&kubernetes.all_pods().await?, mesh);
    if missing.is_empty() {
        return Ok(());
    }
    let (named, more) = missing.split_at(missing.len().min(3));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    Err(anyhow!(
        "expected the container {PROXY_CONTAINER} in every pod with the annotation {INJECT}, found none in {}{more}: the mesh's webhook did not answer \
         when they were created, though it did before; run again, and if that does not help: {LOOK}",
        named.join(", ")
    ))
}

/// Whether there is a webhook that sees new pods.
fn has_injector(mesh: &[Value]) -> bool {
    let configurations = mesh.iter().filter(|object| object["kind"] == "MutatingWebhookConfiguration");
    let lists = |value: &Value, item: &str| {
        value.as_array().is_some_and(|items| items.iter().any(|one| one == item || one == "*"))
    };
    let webhooks = configurations.filter_map(|object| object["webhooks"].as_array()).flatten();
    let mut rules = webhooks.filter_map(|webhook| webhook["rules"].as_array()).flatten();
    rules.any(|rule| lists(&rule["resources"], "pods") && lists(&rule["operations"], "CREATE"))
}

/// `namespace/name` of the pods that asked for a proxy and have none.
fn missing(pods: &[Pod], mesh: &[Value]) -> Vec<String> {
    let namespaces = mesh.iter().filter(|object| object["kind"] == "Namespace");
    let own: BTreeSet<&str> = namespaces.filter_map(|object| object["metadata"]["name"].as_str()).collect();
    let mut missing: Vec<String> = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none() && asks(pod) && !has_proxy(pod))
        .map(|pod| (pod.metadata.namespace.as_deref().unwrap_or_default(), pod.metadata.name.as_deref().unwrap_or("?")))
        .filter(|(namespace, _)| !own.contains(namespace))
        .map(|(namespace, name)| format!("{namespace}/{name}"))
        .collect();
    missing.sort();
    missing
}

fn asks(pod: &Pod) -> bool {
    let annotation = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(INJECT));
    annotation.is_some_and(|value| value != "disabled")
}

/// Beside the application, or before it as a native sidecar.
fn has_proxy(pod: &Pod) -> bool {
    let spec = pod.spec.iter();
    let mut containers = spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    containers.any(|container| container.name == PROXY_CONTAINER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use crate::tenancy::Tenancy;

    fn pod(namespace: &str, name: &str, annotations: Value, spec: Value) -> Pod {
        let metadata = json!({"namespace": namespace, "name": name, "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn a_pod_that_asked_in_vain_is_missing_its_proxy() {
        let enabled = json!({INJECT: "enabled"});
        let app = json!({"name": "app"});
        let without = json!({"containers": [app]});
        let beside = json!({"containers": [{"name": PROXY_CONTAINER}, app]});
        let before =
            json!({"initContainers": [{"name": PROXY_CONTAINER, "restartPolicy": "Always"}], "containers": [app]});
        let pods = [
            pod("workbench", "silent", enabled.clone(), without.clone()),
            pod("ingress", "silent", json!({INJECT: "ingress"}), without.clone()),
            pod("workbench", "beside", enabled.clone(), beside),
            pod("workbench", "before", enabled.clone(), before),
            pod("workbench", "unasked", json!({}), without.clone()),
            pod("workbench", "refused", json!({INJECT: "disabled"}), without.clone()),
            pod("linkerd-smi", "adaptor", enabled, without),
        ];
        let mesh = [json!({"kind": "Namespace", "metadata": {"name": "linkerd-smi"}})];
        assert_eq!(missing(&pods, &mesh), ["ingress/silent", "workbench/silent"]);
        assert_eq!(missing(&pods, &[]), ["ingress/silent", "linkerd-smi/adaptor", "workbench/silent"]);
    }

    #[tokio::test]
    async fn a_pod_of_ours_in_a_namespace_of_others_is_looked_at_and_theirs_is_not() {
        let client = fake::client(|_, path| {
            let pod = |namespace: &str, name: &str| json!({"metadata": {"namespace": namespace, "name": name, "annotations": {INJECT: "enabled"}}, "spec": {"containers": []}});
            assert!(path.starts_with("/api/v1/pods"), "{path}");
            let ours = path.contains("labelSelector=meshgate.dev%2Fowned%3Dtrue");
            let theirs = (!ours).then(|| pod("default", "theirs"));
            let items: Vec<Value> = [pod("default", "kuard")].into_iter().chain(theirs).collect();
            (200, json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": items}))
        });
        let guest = Kubernetes::guest(client, Tenancy::new("image"));
        let error = complete(&guest, &[]).await.unwrap_err().to_string();
        assert!(error.contains("found none in default/kuard: "), "{error}");
    }

    #[test]
    fn an_injector_is_a_webhook_for_new_pods() {
        let configuration = |kind: &str, resource: &str| json!({"kind": kind, "webhooks": [{"rules": [{"operations": ["CREATE"], "resources": [resource, "services"]}]}]});
        assert!(has_injector(&[configuration("MutatingWebhookConfiguration", "pods")]));
        assert!(!has_injector(&[configuration("ValidatingWebhookConfiguration", "pods")]));
        assert!(!has_injector(&[configuration("MutatingWebhookConfiguration", "jobs")]));
        assert!(!has_injector(&[json!({"kind": "Deployment"})]));
    }
}
