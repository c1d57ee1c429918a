//! Bodies in YAML.

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::protocol::ask;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const YAML: &str = "content-type: application/yaml";
const APPLY: &str = "content-type: application/apply-patch+yaml";

/// A ConfigMap whose `data` is in flow style and may use the anchors.
fn map(name: &str, data: &str) -> String {
    let anchors = "annotations: &one {a: one, b: one}, labels: &two {b: two, c: two}";
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, {anchors}}}\ndata: {data}\n")
}

#[tokio::test]
async fn merge_keys_merge_in_every_write() {
    let cluster = Cluster::start().await;
    let writes = [
        ("POST", MAPS.to_owned(), YAML, "{<<: *one, c: own}", 201, json!({"a": "one", "b": "one", "c": "own"})),
        ("PUT", format!("{MAPS}/m"), YAML, "{<<: [*one, *two]}", 200, json!({"a": "one", "b": "one", "c": "two"})),
        (
            "PATCH",
            format!("{MAPS}/m?fieldManager=t&force=true"),
            APPLY,
            "{<<: *two, b: own}",
            200,
            json!({"a": "one", "b": "own", "c": "two"}),
        ),
        // As kubectl reads it, too: what a merge key brings takes the place of what stands before it.
        (
            "PATCH",
            format!("{MAPS}/n?fieldManager=t"),
            APPLY,
            "{b: own, <<: {<<: *two, d: own}}",
            201,
            json!({"b": "two", "c": "two", "d": "own"}),
        ),
    ];
    for (method, path, kind, data, code, expected) in writes {
        let name = if path.contains("/n?") { "n" } else { "m" };
        let (got, answer) = ask(&cluster, method, &path, &[kind], &map(name, data)).await;
        assert_eq!(got, code, "{method} {data}: {answer}");
        let stored: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(stored["data"], expected, "{method} {data}");
        assert_eq!(stored["metadata"]["annotations"], json!({"a": "one", "b": "one"}), "{method} {data}");
    }
}

#[tokio::test]
async fn merge_keys_without_maps_are_refused() {
    let cluster = Cluster::start().await;
    let apply = format!("{MAPS}/m?fieldManager=t");
    let strict = format!("{apply}&fieldValidation=Strict");
    let wants_maps = "map merge requires map or sequence of maps as the value";
    let cases = [
        ("PATCH", apply.as_str(), APPLY, "{<<: text}", wants_maps),
        ("PATCH", apply.as_str(), APPLY, "{<<: ~}", wants_maps),
        ("PATCH", apply.as_str(), APPLY, "{<<: [*one, text]}", wants_maps),
        ("POST", MAPS, YAML, "{<<: [[*one]]}", wants_maps),
        ("PATCH", apply.as_str(), APPLY, "{<<: *three}", "unknown anchor"),
        ("PATCH", apply.as_str(), APPLY, "&three {<<: *three}", "recursion limit exceeded"),
        ("PATCH", strict.as_str(), APPLY, "{<<: *one, b: own}", "duplicate field \"data.b\""),
        ("PATCH", strict.as_str(), APPLY, "{b: own, <<: *one}", "duplicate field \"data.b\""),
    ];
    for (method, path, kind, data, message) in cases {
        let (code, answer) = ask(&cluster, method, path, &[kind], &map("m", data)).await;
        let status: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((code, &status["reason"]), (400, &json!("BadRequest")), "{data}: {answer}");
        assert!(status["message"].as_str().unwrap().contains(message), "{data}: {answer}");
    }
    // The control: nothing is wrong with what is merged and not said again.
    assert_eq!(ask(&cluster, "PATCH", &strict, &[APPLY], &map("m", "{<<: *one, c: own}")).await.0, 201);
}
