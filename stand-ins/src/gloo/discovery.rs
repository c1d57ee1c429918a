//! Gloo's discovery: an Upstream in Gloo's own namespace for every port of every Service (`projects/gloo/pkg/plugins/kubernetes/uds_convert.go`).
//!
//! The stand-in of Gloo knows them by the names that they would have ([`super::upstreams`]). So nothing is written where that plays Gloo, and
//! everything where Gloo itself does.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::player::{Player, player};
use super::upstreams::kube_of;
use super::{FOLDER, UPSTREAMS, XDS_PORT, own_namespace};
use crate::flags::Flags;
use crate::objects::{Object, Objects, SERVICES, Watches, items, text};
use crate::run::over;

/// The label of an Upstream that discovery has written, and may remove.
const LABEL: &str = "discovered_by";
const BY: &str = "kubernetesplugin";

/// Before something that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The role.
pub(crate) async fn main(_flags: Flags) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = discover() => result,
        _ = terminate.recv() => Ok(()),
    }
}

async fn discover() -> anyhow::Result<()> {
    if player(("127.0.0.1", XDS_PORT), Path::new(FOLDER)).await == Player::StandIn {
        tracing::info!("nothing to write: the stand-in of Gloo knows the Upstreams of Services by their names");
        return std::future::pending().await;
    }
    // Someone else may have installed the same provider already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await?;
    let own = own_namespace();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &own, &UPSTREAMS.resource());
    let watches = Watches::start(&client, &[SERVICES, UPSTREAMS]);
    watches.listed().await;
    loop {
        let due = Due::of(&watches.objects(), &own);
        match due.make(&api).await {
            Ok(()) => {
                watches.changed().await;
                over(&watches).await;
            }
            Err(error) => {
                tracing::warn!(%error, "an Upstream could not be written; trying again");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// What the Upstreams lack.
#[derive(Debug, Default, PartialEq)]
struct Due {
    write: Vec<Value>,
    remove: Vec<String>,
}

impl Due {
    fn of(objects: &Objects, own: &str) -> Self {
        let wanted: BTreeMap<String, Value> = objects.all(SERVICES).flat_map(upstreams_of).collect();
        let ours = objects.all(UPSTREAMS).filter(|it| it.namespace().as_deref() == Some(own) && is_discovered(it));
        let remove = ours.map(|upstream| upstream.name_any()).filter(|name| !wanted.contains_key(name)).collect();
        let write = wanted.iter().filter_map(|(name, spec)| {
            let lacks = match objects.get(UPSTREAMS, own, name) {
                // One of the name that somebody else has written stays.
                Some(upstream) => is_discovered(upstream) && upstream.data["spec"] != *spec,
                None => true,
            };
            let labels = BTreeMap::from([(LABEL, BY)]);
            lacks.then(|| {
                json!({
                    "apiVersion": "gloo.solo.io/v1",
                    "kind": "Upstream",
                    "metadata": {"name": name, "namespace": own, "labels": labels},
                    "spec": spec,
                })
            })
        });
        Self { write: write.collect(), remove }
    }

    async fn make(&self, api: &Api<DynamicObject>) -> kube::Result<()> {
        let params = PatchParams::apply("discovery").force();
        for upstream in &self.write {
            api.patch(text(upstream, "/metadata/name"), &params, &Patch::Apply(upstream)).await?;
        }
        for name in &self.remove {
            match api.delete(name, &DeleteParams::default()).await {
                Ok(_) => {}
                // Another instance was faster.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_discovered(upstream: &Object) -> bool {
    let labels = upstream.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(LABEL)).is_some_and(|by| by == BY)
}

/// The Upstreams of a Service: the name and `spec` of each.
fn upstreams_of(service: &Object) -> Vec<(String, Value)> {
    let found = items(&service.data, "/spec/ports").filter_map(|port| {
        let kube = kube_of(service, port)?;
        let mut spec = json!({
            "kube": {"serviceName": kube.service, "serviceNamespace": kube.namespace, "servicePort": kube.port},
        });
        if let Some(selector) = service.data["spec"].get("selector") {
            spec["kube"]["selector"] = selector.clone();
        }
        if let Some(labels) = &service.metadata.labels {
            spec["discoveryMetadata"] = json!({"labels": labels});
        }
        if kube.http2 {
            spec["useHttp2"] = true.into();
        }
        Some((kube.upstream(), spec))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str = r"
kind: Service
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {selector: {app: web}, ports: [{name: http, port: 80}, {name: grpc, port: 81}]}
";

    fn due(text: &str) -> Due {
        Due::of(&Objects::from_yaml(&[SERVICES, UPSTREAMS], text), "gloo-system")
    }

    #[test]
    fn every_port_of_a_service_is_an_upstream_of_gloos_namespace() {
        let Due { write, remove } = due(SHOP);
        assert!(remove.is_empty());
        let [plain, grpc] = &write[..] else { panic!("{write:?}") };
        assert_eq!(
            *plain,
            json!({
                "apiVersion": "gloo.solo.io/v1",
                "kind": "Upstream",
                "metadata": {
                    "name": "shop-web-80", "namespace": "gloo-system", "labels": {"discovered_by": "kubernetesplugin"},
                },
                "spec": {
                    "discoveryMetadata": {"labels": {"app": "web"}},
                    "kube": {"serviceName": "web", "serviceNamespace": "shop", "servicePort": 80, "selector": {"app": "web"}},
                },
            })
        );
        assert_eq!((&grpc["metadata"]["name"], &grpc["spec"]["useHttp2"]), (&json!("shop-web-81"), &json!(true)));
    }

    #[test]
    fn what_is_there_is_left_alone_unless_it_is_out_of_date() {
        let mut text = SHOP.to_owned();
        for upstream in due(SHOP).write {
            text += &format!("---\n{upstream}\n");
        }
        assert_eq!(due(&text), Due::default());
        let names = |write: &[Value]| -> Vec<String> {
            write.iter().map(|upstream| upstream["metadata"]["name"].as_str().unwrap().to_owned()).collect()
        };
        let renamed = due(&text.replace("name: grpc", "name: other"));
        assert_eq!((names(&renamed.write), renamed.remove), (vec!["shop-web-81".to_owned()], vec![]));
        let closed = due(&text.replace(", {name: grpc, port: 81}", ""));
        assert_eq!((names(&closed.write), closed.remove), (vec![], vec!["shop-web-81".to_owned()]));
    }

    #[test]
    fn what_others_have_written_stays() {
        let own = "---\nkind: Upstream\nmetadata: {name: NAME, namespace: gloo-system}\nspec: {static: {hosts: []}}\n";
        let of_name = due(&(SHOP.to_owned() + &own.replace("NAME", "shop-web-80")));
        assert_eq!((of_name.write.len(), of_name.remove.len()), (1, 0));
        let of_none = due(&(SHOP.to_owned() + &own.replace("NAME", "mine")));
        assert_eq!((of_none.write.len(), of_none.remove.len()), (2, 0));
    }
}
