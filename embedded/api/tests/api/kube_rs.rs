//! kube-rs: typed lists, watches in both strategies, server-side apply, discovery.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::discovery::{ApiResource, Discovery};
use kube::runtime::{WatchStreamExt, watcher};
use meshgate_store::{GroupResource, Subresource, WriteOptions};
use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE};

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("key".to_owned(), value.to_owned())])),
        ..ConfigMap::default()
    }
}

#[tokio::test]
async fn objects_come_and_go() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client().await, "default");
    let created = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    assert!(created.metadata.uid.is_some());
    let again = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap_err();
    let kube::Error::Api(status) = again else { panic!("{again}") };
    assert_eq!((status.code, status.reason.as_str()), (409, "AlreadyExists"));

    let mut stale = created.clone();
    let mut newer = created;
    newer.data.as_mut().unwrap().insert("key".to_owned(), "2".to_owned());
    maps.replace("a", &PostParams::default(), &newer).await.unwrap();
    stale.data.as_mut().unwrap().insert("key".to_owned(), "3".to_owned());
    let error = maps.replace("a", &PostParams::default(), &stale).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict"), "{error}");

    let patch = Patch::Merge(json!({"data": {"key": null, "other": "4"}}));
    let patched = maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data.unwrap(), BTreeMap::from([("other".to_owned(), "4".to_owned())]));

    let metadata = maps.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(metadata.items[0].metadata.name.as_deref(), Some("a"));
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn pages_have_everything_once() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client().await, "default");
    for number in 0..7 {
        maps.create(&PostParams::default(), &config_map(&format!("map-{number}"), "x")).await.unwrap();
    }
    let mut params = ListParams::default().limit(3);
    let mut names = Vec::new();
    loop {
        let page = maps.list(&params).await.unwrap();
        assert!(page.items.len() <= 3);
        names.extend(page.items.into_iter().filter_map(|map| map.metadata.name));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    let all: Vec<String> = (0..7).map(|number| format!("map-{number}")).collect();
    assert_eq!(names, all);
    let error = maps.list(&ListParams::default().continue_token("nonsense")).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 400), "{error}");
}

#[tokio::test]
async fn both_strategies_of_the_watcher_see_every_change() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client().await, "default");
    maps.create(&PostParams::default(), &config_map("present", "1")).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut changes = pin!(watcher(maps.clone(), config).applied_objects());
        let mut next = async || {
            let change = tokio::time::timeout(PATIENCE, changes.try_next()).await.expect("a change in time");
            change.unwrap().unwrap().metadata.name.unwrap()
        };
        assert_eq!(next().await, "present");
        maps.create(&PostParams::default(), &config_map("new", "1")).await.unwrap();
        assert_eq!(next().await, "new");
        maps.delete("new", &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_watch_ends_in_time_and_a_stale_one_is_gone() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client().await, "default");
    let params = WatchParams::default().timeout(1);
    let events: Vec<_> = maps.watch(&params, "0").await.unwrap().collect().await;
    assert!(events.is_empty(), "{events:?}");
    // Revisions are milliseconds since 1970; 5 is long gone.
    let events: Vec<_> = maps.watch(&params, "5").await.unwrap().collect().await;
    assert!(matches!(events.as_slice(), [Ok(WatchEvent::Error(status))] if status.code == 410), "{events:?}");
}

/// kube-rs lists again only when it reads of a 410 in the stream; a watch that is refused it tries again from the same revision.
#[tokio::test]
async fn a_watcher_that_was_away_for_too_long_lists_again() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client().await, "default");
    maps.create(&PostParams::default(), &config_map("a", "0")).await.unwrap();
    let mut events = pin!(watcher(maps, watcher::Config::default()));
    let mut next = async || {
        let event = tokio::time::timeout(PATIENCE, events.next()).await.expect("an event in time");
        event.expect("watchers do not end")
    };
    while !matches!(next().await.unwrap(), watcher::Event::InitDone) {}
    // It has listed and not begun to watch; these are more changes than are kept.
    let (resource, options) = (GroupResource::new("", "configmaps"), WriteOptions::default());
    for turn in 1..=300 {
        let mut change = |map: &mut Value| {
            map["data"]["key"] = json!(turn.to_string());
            Ok(())
        };
        cluster.store.modify(&resource, "default", "a", Subresource::Main, &options, &mut change).unwrap();
    }
    let error = next().await.unwrap_err();
    assert!(matches!(&error, watcher::Error::WatchError(status) if status.code == 410), "{error}");
    assert!(matches!(next().await.unwrap(), watcher::Event::Init));
    let watcher::Event::InitApply(map) = next().await.unwrap() else { panic!("nothing was listed") };
    assert_eq!(map.data.unwrap()["key"], "300");
}

#[tokio::test]
async fn applied_objects_are_created_and_owned() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let service = |port: u16| {
        Patch::Apply(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": port}]},
        }))
    };
    let one = services.patch("web", &PatchParams::apply("one"), &service(80)).await.unwrap();
    assert_eq!(one.spec.unwrap().ports.unwrap()[0].port, 80);
    let again = services.patch("web", &PatchParams::apply("one"), &service(80)).await.unwrap();
    assert_eq!(again.metadata.resource_version, one.metadata.resource_version, "nothing changed");
    let labels = |value: &str| {
        Patch::Apply(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "labels": {"l": value}}}),
        )
    };
    services.patch("web", &PatchParams::apply("two"), &labels("two")).await.unwrap();
    let error = services.patch("web", &PatchParams::apply("three"), &labels("three")).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 409), "{error}");
    let forced = services.patch("web", &PatchParams::apply("three").force(), &labels("three")).await.unwrap();
    assert_eq!(forced.metadata.labels.unwrap()["l"], "three");
}

#[tokio::test]
async fn discovery_finds_builtin_and_custom_kinds() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let crds: Api<DynamicObject> = Api::all_with(
        client.clone(),
        &ApiResource {
            group: "apiextensions.k8s.io".into(),
            version: "v1".into(),
            api_version: "apiextensions.k8s.io/v1".into(),
            kind: "CustomResourceDefinition".into(),
            plural: "customresourcedefinitions".into(),
        },
    );
    let crd = serde_json::from_value(widgets()).unwrap();
    crds.create(&PostParams::default(), &crd).await.unwrap();
    for discovery in [
        Discovery::new(client.clone()).run().await.unwrap(),
        Discovery::new(client.clone()).run_aggregated().await.unwrap(),
    ] {
        let (deployment, capabilities) = discovery
            .resolve_gvk(&kube::core::GroupVersionKind::gvk("apps", "v1", "Deployment"))
            .expect("deployments are discovered");
        assert_eq!(deployment.plural, "deployments");
        assert!(capabilities.subresources.iter().any(|(sub, _)| sub.plural.contains("scale")));
        let (widget, _) = discovery
            .resolve_gvk(&kube::core::GroupVersionKind::gvk("example.org", "v1", "Widget"))
            .expect("widgets are discovered");
        let widgets: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &widget);
        assert!(widgets.list(&ListParams::default()).await.unwrap().items.is_empty());
    }
}

#[tokio::test]
async fn namespaces_have_their_phase_and_the_api_its_service() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let default = namespaces.get("default").await.unwrap();
    assert_eq!(default.status.unwrap().phase.as_deref(), Some("Active"));
    let services: Api<Service> = Api::namespaced(client, "default");
    let spec = services.get("kubernetes").await.unwrap().spec.unwrap();
    assert_eq!(spec.cluster_ip.as_deref(), Some("10.96.0.1"));
}

#[tokio::test]
async fn streams_work_with_kube_rs_too() {
    let cluster = Cluster::start().await;
    cluster.pod("web", "127.0.0.1");
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(cluster.client().await, "default");
    let logs = pods.logs("web", &kube::api::LogParams { tail_lines: Some(1), ..Default::default() }).await.unwrap();
    assert_eq!(logs, "web/main line 10\n");

    let port = crate::streams::echo_server().await;
    let mut forward = pods.portforward("web", &[port]).await.unwrap();
    let mut stream = forward.take_stream(port).unwrap();
    crate::streams::expect_echo(&mut stream).await;
    drop(stream);

    let params = kube::api::AttachParams::default().stdin(true).stderr(false);
    let mut process = pods.exec("web", ["cat"], &params).await.unwrap();
    let mut stdin = process.stdin().unwrap();
    let mut stdout = process.stdout().unwrap();
    let text = tokio::time::timeout(Duration::from_secs(20), async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        stdin.write_all(b"hello").await.unwrap();
        stdin.shutdown().await.unwrap();
        drop(stdin);
        let mut text = String::new();
        stdout.read_to_string(&mut text).await.unwrap();
        text
    })
    .await
    .expect("closing stdin ends the command");
    assert_eq!(text, "hello");
}

/// A CRD with columns, status and scale.
pub fn widgets() -> serde_json::Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.org"},
        "spec": {
            "group": "example.org", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"], "listKind": "WidgetList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "additionalPrinterColumns": [
                    {"name": "Host", "type": "string", "jsonPath": ".spec.host"},
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "schema": {"openAPIV3Schema": {
                    "type": "object", "description": "A widget.",
                    "properties": {
                        "spec": {
                            "type": "object", "description": "What is wanted of it.",
                            "properties": {"host": {"type": "string", "description": "Its host."}, "replicas": {"type": "integer"}},
                        },
                        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
                    },
                }},
            }],
        },
    })
}
