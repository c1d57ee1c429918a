use proptest::prelude::*;
use serde_json::json;

use super::*;

fn schema() -> Value {
    json!({"type": "object", "required": ["spec"], "properties": {
        "metadata": {"type": "object"},
        "spec": {"type": "object", "required": ["routes"], "properties": {
            "replicas": {"type": "integer", "minimum": 1, "maximum": 5, "default": 2},
            "mode": {"type": "string", "enum": ["Fast", "Safe"]},
            "host": {"type": "string", "pattern": "^[a-z.]+$", "minLength": 2, "maxLength": 10},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "note": {"type": "string", "nullable": true},
            "until": {"type": "string", "format": "date-time"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                     "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
            "retry": {"type": "object", "default": {}, "properties": {"attempts": {"type": "integer", "default": 3}}},
            "routes": {"type": "array", "minItems": 1, "maxItems": 3,
                       "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["match"],
                       "items": {"type": "object", "required": ["match"], "properties": {
                           "match": {"type": "string"}, "kind": {"type": "string", "default": "Rule"}}}},
        }},
    }})
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "a.example/v1", "kind": "Route", "metadata": {"name": "x"}, "spec": spec})
}

fn errors(spec: Value) -> Vec<String> {
    let errors = validate(&schema(), &object(spec));
    errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
}

#[test]
fn valid_objects_pass() {
    let spec = json!({
        "replicas": 5, "mode": "Fast", "host": "a.b", "port": "http", "note": null, "until": "2026-01-01T00:00:00Z",
        "free": {"x": [1]}, "labels": {"a": "b"}, "routes": [{"match": "a"}, {"match": "b"}],
    });
    assert_eq!(errors(spec.clone()), Vec::<String>::new());
    let mut decoded = object(spec.clone());
    assert_eq!(decode(&schema(), "Route", "v1", &mut decoded), Ok(vec![]));
    assert_eq!(decoded, object(spec));
}

#[test]
fn every_rule_can_be_broken() {
    let routes = json!([{"match": "a"}]);
    let spec = |field: &str, value: Value| json!({"routes": routes, field: value});
    for (field, value, message) in [
        (
            "replicas",
            json!("2"),
            r#"spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string""#,
        ),
        (
            "replicas",
            json!(0),
            "spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1",
        ),
        (
            "replicas",
            json!(6),
            "spec.replicas: Invalid value: 6: spec.replicas in body should be less than or equal to 5",
        ),
        ("mode", json!("Slow"), r#"spec.mode: Unsupported value: "Slow": supported values: "Fast", "Safe""#),
        ("host", json!("A1"), r#"spec.host: Invalid value: "A1": spec.host in body should match '^[a-z.]+$'"#),
        ("host", json!("a"), r#"spec.host: Invalid value: "a": spec.host in body should be at least 2 chars long"#),
        ("host", json!("abcdefghijk"), "spec.host: Too long: may not be more than 10 characters"),
        (
            "port",
            json!(true),
            r#"spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean""#,
        ),
        (
            "until",
            json!("now"),
            r#"spec.until: Invalid value: "now": spec.until in body must be of type date-time: "now""#,
        ),
        (
            "labels",
            json!({"a": 1}),
            r#"spec.labels.a: Invalid value: "integer": spec.labels.a in body must be of type string: "integer""#,
        ),
        ("mode", Value::Null, r#"spec.mode: Invalid value: "null": spec.mode in body must be of type string: "null""#),
    ] {
        assert_eq!(errors(spec(field, value)), [message]);
    }
    assert_eq!(errors(json!({})), ["spec.routes: Required value"]);
    assert_eq!(
        errors(json!({"routes": []})),
        ["spec.routes: Invalid value: []: spec.routes in body should have at least 1 items"]
    );
    assert_eq!(errors(json!({"routes": [{}]})), ["spec.routes[0].match: Required value"]);
    assert_eq!(
        errors(json!({"routes": [{"match": "a"}, {"match": "a"}]})),
        [r#"spec.routes[1]: Duplicate value: {"match":"a"}"#]
    );
    assert_eq!(validate(&schema(), &json!({"metadata": {}}))[0].field, "spec");
}

#[test]
fn combinations() {
    let one =
        json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "not": {"required": ["c"]}});
    assert!(validate(&one, &json!({"a": 1})).is_empty());
    for wrong in [json!({}), json!({"a": 1, "b": 1}), json!({"a": 1, "c": 1})] {
        assert_eq!(validate(&one, &wrong).len(), 1, "{wrong}");
    }
}

#[test]
fn unknown_fields_are_pruned_and_named() {
    let mut pruned = object(json!({
        "replicaz": 1,
        "free": {"any": {"thing": 1}, "known": {"a": "x", "b": 1}},
        "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "b"}}, "status": 1},
        "routes": [{"match": "a", "matsch": "b"}],
    }));
    pruned["metadata"]["labelz"] = json!({});
    pruned["metadata"]["creationTimestamp"] = Value::Null;
    pruned["extra"] = json!(1);
    let gone = decode(&schema(), "Route", "v1", &mut pruned).unwrap();
    assert_eq!(
        gone,
        [
            "metadata.labelz",
            "extra",
            "spec.free.known.b",
            "spec.replicaz",
            "spec.routes[0].matsch",
            "spec.template.status"
        ]
    );
    let expected = json!({
        "free": {"any": {"thing": 1}, "known": {"a": "x"}},
        "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "b"}}},
        "routes": [{"match": "a"}],
    });
    assert_eq!(pruned, object(expected));
}

#[test]
fn metadata_is_checked_as_everywhere() {
    let mut wrong = object(json!({}));
    wrong["metadata"]["labels"] = json!({"a": 1});
    assert_eq!(
        decode(&schema(), "Route", "v1", &mut wrong).unwrap_err().to_string(),
        "Route in version \"v1\" cannot be handled as a Route: json: cannot unmarshal number into Go struct field \
         ObjectMeta.metadata.labels of type string"
    );
}

#[test]
fn defaults_are_filled_in_at_every_depth() {
    let mut defaulted = object(json!({"replicas": null, "note": null, "routes": [{"match": "a"}]}));
    apply_defaults(&schema(), &mut defaulted);
    let expected = json!({
        "replicas": 2, "note": null, "retry": {"attempts": 3}, "routes": [{"match": "a", "kind": "Rule"}],
    });
    assert_eq!(defaulted, object(expected));
}

#[test]
fn nulls_count_as_absent_where_they_are_not_allowed() {
    let routes = json!([{"match": "a", "kind": "Rule"}]);
    for (spec, kept) in [
        (json!({"labels": null, "mode": null}), json!({})),
        (json!({"labels": {"a": null, "b": "c"}}), json!({"labels": {"b": "c"}})),
        (json!({"free": {"any": null, "known": {"a": null}}}), json!({"free": {"any": null, "known": {}}})),
        (json!({"note": null}), json!({"note": null})),
    ] {
        let mut got = object(spec);
        got["spec"]["routes"] = routes.clone();
        apply_defaults(&schema(), &mut got);
        let mut expected = object(kept);
        expected["spec"]["routes"] = routes.clone();
        expected["spec"]["replicas"] = json!(2);
        expected["spec"]["retry"] = json!({"attempts": 3});
        assert_eq!(got, expected);
        assert!(validate(&schema(), &got).is_empty());
    }
    // In lists they stay, and are refused.
    let mut got = object(json!({"routes": [null]}));
    apply_defaults(&schema(), &mut got);
    assert_eq!(got["spec"]["routes"], json!([null]));
    assert!(!validate(&schema(), &got).is_empty());
}

proptest! {
    #[test]
    fn defaulting_and_pruning_are_idempotent(replicas in prop::option::of(0..9i64), extra in "[a-z]{1,5}", matches in prop::collection::vec("[a-c]", 0..3)) {
        let routes: Vec<Value> = matches.iter().map(|text| json!({"match": text, &extra: 1})).collect();
        let mut once = object(json!({"replicas": replicas, "routes": routes, &extra: {}}));
        decode(&schema(), "Route", "v1", &mut once).unwrap();
        apply_defaults(&schema(), &mut once);
        let mut twice = once.clone();
        prop_assert_eq!(decode(&schema(), "Route", "v1", &mut twice).unwrap(), Vec::<String>::new());
        apply_defaults(&schema(), &mut twice);
        prop_assert_eq!(once, twice);
    }
}
