//! Objects of other people that a run's controller, or its mesh, would take for its own.
//!
//! A controller serves whatever says the right thing, whoever made that, and writes what it thinks of it into its status; so a run would
//! touch what it did not make. By an object that has the place of one of its own a run is stopped anyway. What else a controller takes
//! stands in its `controller.yaml` ([`Takes`]).

use std::collections::BTreeSet;

use anyhow::Context as _;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::discovery;
use kube::error::DiscoveryError;
use meshgate_clusters::remote::is_owned;
use meshgate_fixtures::Takes;
use serde_json::json;

/// How many objects are named.
const NAMED: usize = 10;

/// What a mesh writes into: routes of a Service, an EgressNetwork or a Server, in any namespace, and EgressNetworks. Meshgate's own does as
/// Linkerd's policy controller.
pub(crate) fn of_the_mesh() -> Vec<Takes> {
    let routes = |api_version: &str, kinds: &[&str]| Takes {
        api_version: api_version.to_owned(),
        kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        at: vec!["/spec/parentRefs".to_owned()],
        says: ["Service", "EgressNetwork", "Server"].map(|kind| json!({"kind": kind})).into(),
        silent: false,
    };
    vec![
        routes("gateway.networking.k8s.io/v1", &["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"]),
        routes("gateway.networking.k8s.io/v1beta1", &["HTTPRoute"]),
        routes("gateway.networking.k8s.io/v1alpha2", &["TLSRoute", "TCPRoute"]),
        routes("policy.linkerd.io/v1beta3", &["HTTPRoute"]),
        routes("policy.linkerd.io/v1beta2", &["HTTPRoute"]),
        Takes { at: Vec::new(), says: Vec::new(), ..routes("policy.linkerd.io/v1alpha1", &["EgressNetwork"]) },
    ]
}

/// What on the cluster `who` would take of others, in a sentence; `None` if there is nothing.
///
/// # Errors
/// When the API server does not list it.
pub(crate) async fn told(client: &kube::Client, who: &str, takes: &[Takes]) -> anyhow::Result<Option<String>> {
    let adopted: Vec<String> = adopted(client, takes).await?.into_iter().collect();
    if adopted.is_empty() {
        return Ok(None);
    }
    let (named, more) = adopted.split_at(adopted.len().min(NAMED));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    Ok(Some(format!(
        "expected to find nothing of others that {who} would serve, or write a status into; found {}{more}; choose other controllers, \
         have these objects name another class or installation, or use another cluster",
        named.join(", ")
    )))
}

/// Those objects, as `Ingress namespace/name (ingressClassName: nginx)`.
async fn adopted(client: &kube::Client, takes: &[Takes]) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for (takes, kind) in takes.iter().flat_map(|takes| takes.kinds.iter().map(move |kind| (takes, kind))) {
        let version = &takes.api_version;
        let Some(api) = served(client, version, kind).await? else { continue };
        let objects = api.list(&ListParams::default()).await.with_context(|| format!("listing {version} {kind}"))?;
        for object in objects.items.iter().filter(|object| !is_owned(&object.metadata)) {
            if let Some(why) = takes.why(&serde_json::to_value(object)?) {
                let namespace = object.namespace().map(|namespace| namespace + "/").unwrap_or_default();
                found.insert(format!("{kind} {namespace}{} ({why})", object.name_any()));
            }
        }
    }
    Ok(found)
}

/// The objects of a kind; `None` where the cluster does not know it, so that nobody has any.
async fn served(client: &kube::Client, api_version: &str, kind: &str) -> anyhow::Result<Option<Api<DynamicObject>>> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    match discovery::pinned_kind(client, &GroupVersionKind::gvk(group, version, kind)).await {
        Ok((resource, _)) => Ok(Some(Api::all_with(client.clone(), &resource))),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(kube::Error::Discovery(DiscoveryError::MissingKind(_))) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("asking whether there is {api_version} {kind}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fake;

    /// A cluster with Mappings of the default installation and of another one, of Meshgate and of others, and with one Host.
    fn client() -> kube::Client {
        fake::client(|_, path| {
            let resource = |name: &str, kind: &str| json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["list"]});
            let list = |items: Value| json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items});
            let mapping = |name: &str, labels: Value, spec: Value| json!({"metadata": {"name": name, "namespace": "shop", "labels": labels}, "spec": spec});
            match path.split('?').next().unwrap_or_default() {
                "/apis/getambassador.io/v3alpha1" => {
                    let resources = [resource("mappings", "Mapping"), resource("hosts", "Host")];
                    (
                        200,
                        json!({"kind": "APIResourceList", "groupVersion": "getambassador.io/v3alpha1", "resources": resources}),
                    )
                }
                "/apis/getambassador.io/v3alpha1/mappings" => {
                    let theirs = mapping("theirs", json!({}), json!({}));
                    let other = mapping("other", json!({}), json!({"ambassador_id": ["other"]}));
                    let ours = mapping("ours", json!({"meshgate.dev/owned": "true"}), json!({}));
                    (200, list(json!([theirs, other, ours])))
                }
                "/apis/getambassador.io/v3alpha1/hosts" => (200, list(json!([]))),
                path if path.starts_with("/apis/broken.example/") => (403, json!("not you")),
                _ => (404, json!("404 page not found")),
            }
        })
    }

    fn takes(api_version: &str, kinds: &[&str]) -> Takes {
        Takes {
            api_version: api_version.to_owned(),
            kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            at: vec!["/spec/ambassador_id".to_owned()],
            says: vec![json!("default")],
            silent: true,
        }
    }

    #[tokio::test]
    async fn what_others_have_of_a_controllers_kinds_is_told() {
        let all = [
            takes("getambassador.io/v3alpha1", &["Host", "Mapping", "TCPMapping"]),
            takes("example.com/v1", &["Route"]),
        ];
        let found = told(&client(), "emissary", &all).await.unwrap().unwrap();
        assert!(found.contains("emissary would serve"), "{found}");
        assert!(
            found.contains("found Mapping shop/theirs (without ambassador_id); choose other controllers"),
            "{found}"
        );
        assert_eq!(told(&client(), "emissary", &all[1..]).await.unwrap(), None, "a kind that is not there is nobody's");
        let broken = told(&client(), "emissary", &[takes("broken.example/v1", &["Route"])]).await.unwrap_err();
        assert!(format!("{broken:#}").contains("broken.example/v1 Route"), "{broken:#}");
    }

    #[test]
    fn a_mesh_writes_into_networks_and_into_routes_of_services() {
        let [routes, .., networks] = &of_the_mesh()[..] else { panic!("expected what a mesh takes") };
        assert!(networks.why(&json!({"spec": {"trafficPolicy": "Allow"}})).is_some());
        let of = |parent: Value| routes.why(&json!({"spec": {"parentRefs": [parent]}}));
        assert!(of(json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "all"})).is_some());
        assert!(of(json!({"group": "core", "kind": "Service", "name": "web"})).is_some());
        assert_eq!(of(json!({"name": "gate"})), None, "a Gateway's");
    }
}
