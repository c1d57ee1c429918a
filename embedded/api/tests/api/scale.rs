//! The scale subresource, and who owns replicas.

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::kube_rs::widgets;
use crate::protocol::{JSON, ask};

const APPLY: &str = "content-type: application/apply-patch+yaml";
const MERGE: &str = "content-type: application/merge-patch+json";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const WIDGETS: &str = "/apis/example.org/v1/namespaces/default/widgets";

fn deployment(replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
    })
}

fn widget(replicas: i64) -> Value {
    let spec = json!({"host": "w.test", "replicas": replicas});
    json!({"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "web"}, "spec": spec})
}

fn scale(spec: &Value) -> Value {
    let metadata = json!({"name": "web", "namespace": "default"});
    json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": spec})
}

fn replicas(count: i64) -> Value {
    json!({"replicas": count})
}

async fn read(cluster: &Cluster, path: &str) -> Value {
    let (code, answer) = ask(cluster, "GET", path, &[], "").await;
    assert_eq!(code, 200, "{path}: {answer}");
    serde_json::from_str(&answer).unwrap()
}

/// The owners of an object's replicas: manager, operation and subresource.
fn owners(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let owners = entries.filter(|entry| entry.pointer("/fieldsV1/f:spec/f:replicas").is_some());
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or("main").to_owned();
    owners.map(|entry| ["manager", "operation", "subresource"].map(|field| text(entry, field)).join(" ")).collect()
}

/// Method, the path after the object's, content type and body; the code, the replicas and their owners then.
type Step = (&'static str, &'static str, &'static str, Value, u16, i64, &'static [&'static str]);

const ONE: &[&str] = &["one Apply main"];
const TWO: &[&str] = &["two Update scale"];

/// The same story for a built-in kind and for a custom one.
async fn story(collection: &str, object: fn(i64) -> Value) {
    let cluster = Cluster::start().await;
    cluster.put("apiextensions.k8s.io", "customresourcedefinitions", "", widgets());
    let merge = |count| json!({"spec": replicas(count)});
    let apply = |count| scale(&replicas(count));
    let steps: [Step; 15] = [
        ("PATCH", "?fieldManager=one", APPLY, object(1), 201, 1, ONE),
        ("PATCH", "/scale?fieldManager=two", MERGE, merge(5), 200, 5, TWO),
        ("PATCH", "?fieldManager=one", APPLY, object(1), 409, 5, TWO),
        ("PATCH", "?fieldManager=one&force=true", APPLY, object(1), 200, 1, ONE),
        ("PATCH", "/scale?fieldManager=three", APPLY, apply(17), 409, 1, ONE),
        ("PATCH", "/scale?fieldManager=three&force=true", APPLY, apply(17), 200, 17, &["three Apply scale"]),
        ("PUT", "/scale?fieldManager=four", JSON, apply(7), 200, 7, &["four Update scale"]),
        ("PUT", "/scale?fieldManager=six", JSON, apply(7), 200, 7, &["four Update scale"]),
        ("PATCH", "/scale?fieldManager=five", APPLY, apply(7), 200, 7, &["five Apply scale", "four Update scale"]),
        ("PATCH", "/scale?fieldManager=two", MERGE, merge(5), 200, 5, TWO),
        ("PATCH", "/scale?fieldManager=six", MERGE, json!({"status": replicas(42)}), 200, 5, TWO),
        // Go leaves a 0 out, and what is not there is nobody's.
        ("PATCH", "/scale?fieldManager=six", MERGE, merge(0), 200, 0, &[]),
        ("PATCH", "?fieldManager=one", APPLY, object(1), 200, 1, ONE),
        // Who leaves out what nobody else wants takes it away.
        ("PATCH", "/scale?fieldManager=three&force=true", APPLY, apply(3), 200, 3, &["three Apply scale"]),
        ("PATCH", "/scale?fieldManager=three", APPLY, scale(&json!({})), 200, 0, &[]),
    ];
    for (number, (method, rest, kind, body, code, count, expected)) in steps.into_iter().enumerate() {
        let (got, answer) = ask(&cluster, method, &format!("{collection}/web{rest}"), &[kind], &body.to_string()).await;
        assert_eq!(got, code, "step {number}: {answer}");
        let stored = read(&cluster, &format!("{collection}/web")).await;
        assert_eq!(stored["spec"]["replicas"], count, "step {number}");
        assert_eq!(owners(&stored), expected, "step {number}: {}", stored["metadata"]["managedFields"]);
        let shown = read(&cluster, &format!("{collection}/web/scale")).await;
        let spec = if count == 0 { json!({}) } else { replicas(count) };
        assert_eq!((&shown["spec"], &shown["metadata"]["managedFields"]), (&spec, &Value::Null), "step {number}");
    }
}

#[tokio::test]
async fn who_scales_owns_the_replicas() {
    story(DEPLOYMENTS, deployment).await;
}

#[tokio::test]
async fn who_scales_owns_the_replicas_of_custom_kinds() {
    story(WIDGETS, widget).await;
}

#[tokio::test]
async fn the_entry_of_who_scales_and_the_conflict_with_who_owns() {
    let cluster = Cluster::start().await;
    let web = format!("{DEPLOYMENTS}/web");
    let one = format!("{web}?fieldManager=one");
    assert_eq!(ask(&cluster, "PATCH", &one, &[APPLY], &deployment(1).to_string()).await.0, 201);
    let three = format!("{web}/scale?fieldManager=three");
    let three = async || {
        let (code, answer) = ask(&cluster, "PATCH", &three, &[APPLY], &scale(&replicas(17)).to_string()).await;
        let status: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((code, &status["reason"]), (409, &json!("Conflict")), "{answer}");
        status["details"]["causes"].clone()
    };
    let cause = |owner: &str| {
        let message = format!("conflict with {owner}");
        json!([{"reason": "FieldManagerConflict", "message": message, "field": ".spec.replicas"}])
    };
    assert_eq!(three().await, cause("\"one\""));
    let two = format!("{web}/scale?fieldManager=two");
    assert_eq!(ask(&cluster, "PUT", &two, &[JSON], &scale(&replicas(5)).to_string()).await.0, 200);
    assert_eq!(three().await, cause("\"two\" with subresource \"scale\" using autoscaling/v1"));
    let stored = read(&cluster, &web).await;
    let entries = stored["metadata"]["managedFields"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["manager"] == "two").unwrap();
    let expected = json!({
        "manager": "two", "operation": "Update", "subresource": "scale", "apiVersion": "apps/v1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}},
    });
    assert_eq!(*entry, expected, "without a time, as on Kubernetes");
    assert_eq!(stored["metadata"]["generation"], 2);
}

#[tokio::test]
async fn scales_that_are_refused() {
    let cluster = Cluster::start().await;
    assert_eq!(ask(&cluster, "POST", DEPLOYMENTS, &[JSON], &deployment(1).to_string()).await.0, 201);
    let path = |query: &str| format!("{DEPLOYMENTS}/web/scale{query}");
    let with = |pointer: &str, value: Value| {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let mut scale = scale(&replicas(3));
        scale.pointer_mut(parent).unwrap()[key] = value;
        scale
    };
    let (whole, forced) = (scale(&replicas(3)), "?fieldManager=t&force=true");
    let untyped = "failed to create typed patch object (default/web; autoscaling/v1, Kind=Scale): ";
    let unknown = format!("{untyped}.spec.bogus: field not declared in schema");
    let cases = [
        ("PATCH", "", APPLY, whole.clone(), 422, "fieldManager: Required value"),
        ("PATCH", forced, MERGE, whole.clone(), 422, "force: Forbidden"),
        ("PATCH", forced, APPLY, deployment(3), 400, "invalid object type: apps/v1, Kind=Deployment"),
        ("PATCH", forced, APPLY, with("/metadata/name", json!("other")), 400, "does not match the name on the URL"),
        ("PATCH", forced, APPLY, with("/metadata/namespace", json!("other")), 400, "namespace of the provided object"),
        ("PATCH", forced, APPLY, with("/metadata/managedFields", json!([])), 400, "must be nil"),
        ("PATCH", forced, APPLY, with("/metadata/resourceVersion", json!("1")), 409, "has been modified"),
        ("PATCH", forced, APPLY, with("/spec/bogus", json!(1)), 500, unknown.as_str()),
        ("PATCH", forced, APPLY, with("/spec/replicas", json!("3")), 400, "cannot unmarshal string"),
        ("PATCH", forced, APPLY, with("/spec/replicas", json!(-1)), 422, "must be greater than or equal to 0"),
        ("PATCH", "?fieldManager=t", APPLY, whole.clone(), 409, "before-first-apply"),
        ("PUT", "", JSON, with("/metadata/resourceVersion", json!("1")), 409, "has been modified"),
        ("PUT", "", JSON, with("/spec/replicas", json!(-1)), 422, "must be greater than or equal to 0"),
    ];
    for (method, query, kind, body, code, message) in cases {
        let (got, answer) = ask(&cluster, method, &path(query), &[kind], &body.to_string()).await;
        let status: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(got, code, "{body}: {answer}");
        assert!(status["message"].as_str().unwrap().contains(message), "{body}: {answer}");
    }
    assert_eq!(read(&cluster, &path("")).await["spec"], replicas(1), "nothing wrong was done");
    assert_eq!(ask(&cluster, "PATCH", &path(forced), &[APPLY], &whole.to_string()).await.0, 200, "the control");
    assert_eq!(read(&cluster, &path("")).await["spec"], replicas(3));
}
