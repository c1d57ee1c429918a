//! Admission webhooks: who is asked what, and what comes of the answer.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use meshgate_store::{GroupResource, Subresource, WriteOptions};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::cluster::Cluster;
use crate::webhook::{Webhook, allow, on_config_maps, patch};

const MUTATING: &str = "MutatingWebhookConfiguration";
const VALIDATING: &str = "ValidatingWebhookConfiguration";

/// Registers webhooks under the name of a configuration.
fn register(cluster: &Cluster, kind: &str, name: &str, webhooks: &[Value]) {
    let plural = format!("{}s", kind.to_lowercase());
    let object = json!({"metadata": {"name": name}, "webhooks": webhooks});
    cluster.put("admissionregistration.k8s.io", &plural, "", object);
}

async fn maps(cluster: &Cluster) -> Api<ConfigMap> {
    Api::namespaced(cluster.client().await, "default")
}

fn map(name: &str, labels: &[(&str, &str)]) -> ConfigMap {
    let labels: BTreeMap<String, String> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let metadata = ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
    ConfigMap { metadata, data: Some(BTreeMap::from([("key".to_owned(), "value".to_owned())])), ..ConfigMap::default() }
}

async fn create(maps: &Api<ConfigMap>, name: &str) -> Result<ConfigMap, (u16, String)> {
    maps.create(&PostParams::default(), &map(name, &[])).await.map_err(refusal)
}

/// Code and message of an answer that is an error.
fn refusal(error: kube::Error) -> (u16, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.message.clone()),
        other => panic!("{other}"),
    }
}

/// A patch that sets a key of a ConfigMap's data.
fn set(key: &str, value: &str) -> Value {
    patch(&json!([{"op": "add", "path": format!("/data/{key}"), "value": value}]))
}

fn data(map: &ConfigMap, key: &str) -> Option<String> {
    map.data.as_ref()?.get(key).cloned()
}

#[tokio::test]
async fn a_mutating_webhook_sees_the_draft_and_changes_it() {
    let cluster = Cluster::start().await;
    let webhook = Webhook::start(|_| {
        patch(&json!([
            {"op": "add", "path": "/spec/containers/-", "value": {"name": "proxy", "image": "proxy"}},
            {"op": "add", "path": "/metadata/annotations", "value": {"injected": "yes"}},
        ]))
    })
    .await;
    let mut on_pods = on_config_maps("pods", &webhook.client());
    on_pods["rules"][0]["resources"] = json!(["pods"]);
    on_pods["rules"][0]["operations"] = json!(["CREATE"]);
    register(&cluster, MUTATING, "injector", &[on_pods]);
    let pods: Api<Pod> = Api::namespaced(cluster.client().await, "default");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-"},
        "spec": {"containers": [{"name": "web", "image": "web"}]},
    });
    let stored = pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();

    let request = &webhook.asked()[0];
    assert_eq!((&request["operation"], &request["namespace"]), (&json!("CREATE"), &json!("default")));
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "Pod"}));
    assert_eq!(request["resource"], json!({"group": "", "version": "v1", "resource": "pods"}));
    assert_eq!((&request["userInfo"]["username"], &request["dryRun"]), (&json!("kubernetes-admin"), &json!(false)));
    assert_eq!(request["oldObject"], Value::Null);
    let shown = &request["object"];
    assert_eq!(
        (&shown["kind"], &shown["spec"]["restartPolicy"]),
        (&json!("Pod"), &json!("Always")),
        "defaults are there"
    );
    for absent in ["uid", "name", "managedFields", "creationTimestamp"] {
        assert_eq!(shown["metadata"].get(absent), None, "{absent}");
    }

    assert_eq!(stored.metadata.annotations.unwrap()["injected"], "yes");
    assert!(stored.metadata.name.unwrap().starts_with("web-") && stored.metadata.uid.is_some());
    let spec = stored.spec.unwrap();
    let names: Vec<_> = spec.containers.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(names, ["web", "proxy"]);
    let proxy = &spec.containers[1];
    assert_eq!(proxy.image_pull_policy.as_deref(), Some("Always"), "what was added has its defaults");
    let volumes = spec.volumes.unwrap();
    assert_eq!(volumes.len(), 1, "one token for both: {volumes:?}");
    assert_eq!(proxy.volume_mounts.as_ref().unwrap()[0].name, volumes[0].name);
}

#[tokio::test]
async fn webhooks_are_asked_in_order_and_validating_ones_at_the_end() {
    let cluster = Cluster::start().await;
    let (first, second) = (Webhook::start(|_| set("first", "1")).await, Webhook::start(|_| set("second", "2")).await);
    let judge = Webhook::start(|_| allow()).await;
    register(&cluster, VALIDATING, "a", &[on_config_maps("judge", &judge.client())]);
    register(&cluster, MUTATING, "b", &[on_config_maps("second", &second.client())]);
    register(&cluster, MUTATING, "a", &[on_config_maps("first", &first.client())]);
    let maps = maps(&cluster).await;
    let stored = create(&maps, "x").await.unwrap();
    assert_eq!((data(&stored, "first"), data(&stored, "second")), (Some("1".into()), Some("2".into())));
    assert_eq!(first.asked()[0]["object"]["data"], json!({"key": "value"}));
    assert_eq!(second.asked()[0]["object"]["data"], json!({"key": "value", "first": "1"}));
    let judged = &judge.asked()[0]["object"];
    assert_eq!(judged["data"], json!({"key": "value", "first": "1", "second": "2"}));
    assert_eq!(judged["metadata"]["uid"].as_str(), stored.metadata.uid.as_deref());
}

#[tokio::test]
async fn a_denial_is_the_answer() {
    let cluster = Cluster::start().await;
    let webhook = Webhook::start(|request| match request["name"].as_str() {
        Some("coded") => {
            json!({"allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": "not here"}})
        }
        Some("reasoned") => json!({"allowed": false, "status": {"reason": "NoRoom"}}),
        Some("bare") => json!({"allowed": false}),
        _ => allow(),
    })
    .await;
    let mut hook = on_config_maps("judge", &webhook.client());
    hook["rules"][0]["operations"] = json!(["*"]);
    hook["failurePolicy"] = json!("Ignore");
    register(&cluster, VALIDATING, "judge", &[hook]);
    let maps = maps(&cluster).await;
    let denied = "admission webhook \"judge.meshgate.test\" denied the request";
    for (name, code, why) in
        [("coded", 403, ": not here"), ("reasoned", 400, ": NoRoom"), ("bare", 400, " without explanation")]
    {
        assert_eq!(create(&maps, name).await.unwrap_err(), (code, format!("{denied}{why}")));
        assert!(maps.get_opt(name).await.unwrap().is_none());
    }
    create(&maps, "good").await.unwrap();

    cluster.put("", "configmaps", "default", json!({"metadata": {"name": "coded"}}));
    let kept = refusal(maps.delete("coded", &DeleteParams::default()).await.unwrap_err());
    assert_eq!(kept, (403, format!("{denied}: not here")));
    maps.delete("good", &DeleteParams::default()).await.unwrap();
    let last = webhook.asked().pop().unwrap();
    assert_eq!((&last["operation"], &last["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(last["oldObject"]["metadata"]["name"], "good");
}

#[tokio::test]
async fn a_patch_that_does_not_fit_refuses_the_write() {
    let cluster = Cluster::start().await;
    // A move over what it comes from cannot be undone.
    let webhook = Webhook::start(|_| {
        patch(&json!([
            {"op": "move", "from": "/data/key", "path": "/data"},
            {"op": "test", "path": "/data/absent", "value": 1},
        ]))
    })
    .await;
    register(&cluster, MUTATING, "a", &[on_config_maps("hook", &webhook.client())]);
    let maps = maps(&cluster).await;
    let (code, message) = create(&maps, "x").await.unwrap_err();
    assert_eq!(code, 500, "{message}");
    let problem =
        "admission webhook \"hook.meshgate.test\" answered with a patch: the JSON patch does not fit the object";
    assert!(message.contains(problem), "{message}");
    assert!(maps.get_opt("x").await.unwrap().is_none());
}

#[tokio::test]
async fn a_webhook_that_cannot_be_asked_stops_writes_unless_it_may_fail() {
    let cluster = Cluster::start().await;
    let maps = maps(&cluster).await;
    let (webhook, stranger) = (Webhook::start(|_| set("seen", "yes")).await, Webhook::start(|_| allow()).await);
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let nowhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let url = |port: u16| format!("https://localhost:{port}/review");
    let by_service =
        |name: &str| json!({"service": {"namespace": "default", "name": name}, "caBundle": webhook.bundle});
    for (case, client, problem) in [
        ("closed", json!({"url": url(nowhere.port()), "caBundle": webhook.bundle}), "refused"),
        ("stranger", json!({"url": url(webhook.port), "caBundle": stranger.bundle}), "invalid peer certificate"),
        ("nobody", json!({"url": url(webhook.port)}), "invalid peer certificate"),
        (
            "silent",
            json!({"url": url(silent.local_addr().unwrap().port()), "caBundle": webhook.bundle}),
            "context deadline exceeded",
        ),
        ("absent", by_service("absent"), "services \"absent\" not found"),
    ] {
        let mut hook = on_config_maps("hook", &client);
        hook["timeoutSeconds"] = json!(1);
        register(&cluster, MUTATING, case, &[hook.clone()]);
        let (code, message) = create(&maps, case).await.unwrap_err();
        assert_eq!(code, 500, "{case}");
        let begin = "Internal error occurred: failed calling webhook \"hook.meshgate.test\": failed to call webhook: ";
        assert!(message.starts_with(begin) && message.contains(problem), "{case}: {message}");
        assert!(maps.get_opt(case).await.unwrap().is_none(), "{case}");

        let configurations = GroupResource::new("admissionregistration.k8s.io", "mutatingwebhookconfigurations");
        cluster.store.delete(&configurations, "", case, &Default::default()).unwrap();
        hook["failurePolicy"] = json!("Ignore");
        register(&cluster, MUTATING, case, &[hook]);
        assert_eq!(data(&create(&maps, case).await.unwrap(), "seen"), None, "{case}");
        cluster.store.delete(&configurations, "", case, &Default::default()).unwrap();
    }
    register(&cluster, MUTATING, "control", &[on_config_maps("hook", &webhook.client())]);
    assert_eq!(data(&create(&maps, "control").await.unwrap(), "seen").as_deref(), Some("yes"));
}

#[tokio::test]
async fn a_service_is_dialled_and_has_to_prove_its_name() {
    let cluster = Cluster::start().await;
    let maps = maps(&cluster).await;
    let webhook = Webhook::start(|_| allow()).await;
    for name in ["hook", "other"] {
        let spec = json!({"type": "ExternalName", "externalName": "localhost"});
        cluster.put("", "services", "default", json!({"metadata": {"name": name}, "spec": spec}));
    }
    let hook = |service: &str| {
        let service = json!({"namespace": "default", "name": service, "path": "/review", "port": webhook.port});
        on_config_maps("hook", &json!({"service": service, "caBundle": webhook.bundle}))
    };
    register(&cluster, VALIDATING, "hook", &[hook("hook")]);
    create(&maps, "good").await.unwrap();
    assert_eq!(webhook.asked().len(), 1);
    register(&cluster, VALIDATING, "other", &[hook("other")]);
    let (code, message) = create(&maps, "bad").await.unwrap_err();
    let url = format!("Post \"https://other.default.svc:{}/review?timeout=10s\": ", webhook.port);
    assert!(code == 500 && message.contains(&url) && message.contains("not valid for name"), "{message}");
}

#[tokio::test]
async fn selectors_choose_namespaces_and_objects() {
    let cluster = Cluster::start().await;
    let webhook = Webhook::start(|_| allow()).await;
    cluster.put("", "namespaces", "", json!({"metadata": {"name": "demo", "labels": {"mesh": "on"}}}));
    let mut by_namespace = on_config_maps("namespaces", &webhook.client());
    by_namespace["namespaceSelector"] = json!({"matchLabels": {"mesh": "on"}});
    let mut by_object = on_config_maps("objects", &webhook.client());
    by_object["objectSelector"] = json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]});
    register(&cluster, VALIDATING, "a", &[by_namespace, by_object]);
    let client = cluster.client().await;
    for (namespace, labels, times) in [
        ("default", &[][..], 0),
        ("demo", &[], 1),
        ("default", &[("app", "web")], 1),
        ("default", &[("app", "db")], 0),
        ("demo", &[("app", "web")], 2),
    ] {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let before = webhook.asked().len();
        let created = maps.create(&PostParams::default(), &map("x", labels)).await.unwrap();
        assert_eq!(webhook.asked().len() - before, times, "{namespace} {labels:?}");
        maps.delete(created.metadata.name.as_deref().unwrap(), &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_dry_run_is_shown_as_one_and_stores_nothing() {
    let cluster = Cluster::start().await;
    let webhook = Webhook::start(|_| set("seen", "yes")).await;
    register(&cluster, MUTATING, "a", &[on_config_maps("hook", &webhook.client())]);
    let maps = maps(&cluster).await;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let answer = maps.create(&dry, &map("x", &[])).await.unwrap();
    assert_eq!(data(&answer, "seen").as_deref(), Some("yes"));
    assert_eq!(webhook.asked()[0]["dryRun"], true);
    assert!(maps.get_opt("x").await.unwrap().is_none());
}

#[tokio::test]
async fn an_update_is_shown_with_what_was_before() {
    let cluster = Cluster::start().await;
    let webhook = Webhook::start(|_| set("seen", "yes")).await;
    let maps = maps(&cluster).await;
    create(&maps, "x").await.unwrap();
    register(&cluster, MUTATING, "a", &[on_config_maps("hook", &webhook.client())]);
    let change = Patch::Merge(json!({"data": {"key": "new"}}));
    let patched = maps.patch("x", &PatchParams::default(), &change).await.unwrap();
    assert_eq!((data(&patched, "key"), data(&patched, "seen")), (Some("new".into()), Some("yes".into())));
    let asked = &webhook.asked()[0];
    assert_eq!((&asked["operation"], &asked["name"]), (&json!("UPDATE"), &json!("x")));
    assert_eq!((&asked["oldObject"]["data"]["key"], &asked["object"]["data"]["key"]), (&json!("value"), &json!("new")));

    let again = maps.patch("x", &PatchParams::default(), &change).await.unwrap();
    assert_eq!(again.metadata.resource_version, patched.metadata.resource_version, "a write that changes nothing");
}

#[tokio::test]
async fn what_a_webhook_adds_to_an_apply_is_not_the_configurations() {
    let cluster = Cluster::start().await;
    let webhook = Webhook::start(|_| set("seen", "yes")).await;
    register(&cluster, MUTATING, "a", &[on_config_maps("hook", &webhook.client())]);
    let maps = maps(&cluster).await;
    let apply = |data: Value| {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data});
        (PatchParams::apply("me"), Patch::Apply(object))
    };
    let (params, both) = apply(json!({"a": "1", "b": "2"}));
    maps.patch("x", &params, &both).await.unwrap();
    let (params, one) = apply(json!({"a": "1"}));
    let applied = maps.patch("x", &params, &one).await.unwrap();
    let expected = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("seen".to_owned(), "yes".to_owned())]);
    assert_eq!(applied.data, Some(expected), "the key that is applied no more is gone, the webhook's stays");
    let managers = applied.metadata.managed_fields.unwrap();
    let of = |operation: &str| {
        let entry = managers.iter().find(|entry| entry.operation.as_deref() == Some(operation)).unwrap();
        serde_json::to_value(&entry.fields_v1).unwrap()["f:data"].clone()
    };
    assert_eq!(of("Apply"), json!({"f:a": {}}));
    assert_eq!(of("Update"), json!({"f:seen": {}}));
}

#[tokio::test]
async fn a_write_that_was_overtaken_is_shown_again() {
    let cluster = Cluster::start().await;
    let maps = maps(&cluster).await;
    create(&maps, "x").await.unwrap();
    let (store, overtaken) = (cluster.store.clone(), AtomicBool::new(false));
    let webhook = Webhook::start(move |_| {
        if !overtaken.swap(true, Ordering::SeqCst) {
            let mut change = |map: &mut Value| {
                map["data"]["other"] = json!("faster");
                Ok(())
            };
            let (resource, options) = (GroupResource::new("", "configmaps"), WriteOptions::default());
            store.modify(&resource, "default", "x", Subresource::Main, &options, &mut change).unwrap();
        }
        allow()
    })
    .await;
    register(&cluster, VALIDATING, "a", &[on_config_maps("hook", &webhook.client())]);
    let change = Patch::Merge(json!({"data": {"key": "new"}}));
    let patched = maps.patch("x", &PatchParams::default(), &change).await.unwrap();
    assert_eq!((data(&patched, "key"), data(&patched, "other")), (Some("new".into()), Some("faster".into())));
    let seen: Vec<Value> = webhook.asked().iter().map(|asked| asked["object"]["data"]["other"].clone()).collect();
    assert_eq!(seen, [Value::Null, json!("faster")]);
}

#[tokio::test]
async fn warnings_reach_the_person() {
    let cluster = Cluster::start().await;
    let webhook = Webhook::start(|_| json!({"allowed": true, "warnings": ["this \"will\" hurt"]})).await;
    register(&cluster, VALIDATING, "a", &[on_config_maps("hook", &webhook.client())]);
    let said = cluster.run(&["create", "configmap", "x"], "").await;
    assert!(said.ok && said.err.contains("Warning: this \"will\" hurt"), "{said:?}");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_honoured_is_refused() {
    let cluster = Cluster::start().await;
    let hook = on_config_maps("hook", &json!({"url": "https://localhost/"}));
    let broken = |change: fn(&mut Value)| {
        let mut hook = hook.clone();
        change(&mut hook);
        hook
    };
    for (hook, problem) in [
        (
            broken(|hook| hook["matchConditions"] = json!([{"name": "a", "expression": "true"}])),
            "webhooks[0].matchConditions: Forbidden",
        ),
        (broken(|hook| hook["sideEffects"] = json!("Unknown")), "webhooks[0].sideEffects: Unsupported value"),
        (broken(|hook| hook["timeoutSeconds"] = json!(31)), "must be between 1 and 30 seconds"),
        (broken(|hook| hook["clientConfig"] = json!({})), "exactly one of url or service is required"),
        (broken(|hook| hook["clientConfig"]["url"] = json!("http://localhost/")), "'https' is the only allowed"),
        (broken(|hook| hook["name"] = json!("hook")), "at least three segments"),
        (broken(|hook| hook["admissionReviewVersions"] = json!(["v1beta1"])), "must include at least one of v1"),
    ] {
        let object = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": MUTATING, "metadata": {"name": "a"}, "webhooks": [hook],
        });
        let said = cluster.run(&["create", "-f", "-"], &object.to_string()).await;
        assert!(!said.ok && said.err.contains(problem), "{problem}: {said:?}");
    }
    let good = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": MUTATING, "metadata": {"name": "a"}, "webhooks": [hook],
    });
    assert!(cluster.run(&["create", "-f", "-"], &good.to_string()).await.ok, "the control");
    let defaults = cluster.kubectl("get mutatingwebhookconfiguration a -o jsonpath={.webhooks[0]}").await;
    let defaults: Value = serde_json::from_str(&defaults).unwrap();
    for (field, value) in [
        ("failurePolicy", json!("Fail")),
        ("matchPolicy", json!("Equivalent")),
        ("reinvocationPolicy", json!("Never")),
        ("timeoutSeconds", json!(10)),
        ("namespaceSelector", json!({})),
        ("objectSelector", json!({})),
    ] {
        assert_eq!(defaults[field], value, "{field}");
    }
}
