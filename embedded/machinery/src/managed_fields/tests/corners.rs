//! Corners of ownership: empty lists, entries of maps, parts that are always there, objects without entries, orders.

use super::*;

fn schema() -> Value {
    let text = json!({"type": "string"});
    let number = json!({"type": "integer"});
    json!({"properties": {"spec": {"properties": {
        "replicas": number,
        "labels": {"type": "object", "additionalProperties": text},
        "maps": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": number}}},
        "tags": {"type": "array", "items": text, "x-kubernetes-list-type": "set"},
        "atoms": {"type": "array", "items": text},
        "ports": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": text, "port": number}},
        },
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }}}})
}

fn custom(spec: Value) -> Value {
    json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "x"}, "spec": spec})
}

/// What an apply to a custom object makes of it.
fn custom_applied(live: Option<&Value>, spec: Value, manager: &str) -> Result<Value, ApplyError> {
    apply(Shape::Custom(&schema()), live, &custom(spec), writer(manager, T1), false)
}

/// What an update, or a creation, of a custom object makes of it.
fn custom_updated(old: Option<&Value>, spec: Value, manager: &str) -> Value {
    let mut new = custom(spec);
    track_update(Shape::Custom(&schema()), old, &mut new, writer(manager, T2));
    new
}

fn fields(object: &Value, manager: &str) -> Value {
    entry(&expanded(object), manager)["fieldsV1"].clone()
}

#[test]
fn entries_of_maps_are_owned_themselves() {
    let spec = json!({"maps": {"k": {"x": 1}}, "free": {"z": {"q": 1}}, "labels": {"l": "1"}});
    let live = custom_applied(None, spec, "one").unwrap();
    assert_eq!(
        fields(&live, "one"),
        json!({"f:spec": {
            "f:free": {"f:z": {".": {}, "f:q": {}}},
            "f:labels": {"f:l": {}},
            "f:maps": {"f:k": {".": {}, "f:x": {}}},
        }})
    );
    let found = conflicts(custom_applied(Some(&live), json!({"free": {"z": 1}}), "two"));
    assert_eq!(found, [("conflict with \"one\"".to_owned(), ".spec.free.z".to_owned())]);
}

#[test]
fn empty_sets_and_associative_lists_are_nobodys() {
    let spec = json!({"tags": [], "ports": [], "atoms": [], "labels": {}});
    let live = custom_applied(None, spec.clone(), "one").unwrap();
    assert_eq!(fields(&live, "one"), json!({"f:spec": {"f:atoms": {}, "f:labels": {}}}));
    assert_eq!(live["spec"], spec);
    // Whoever empties one leaves none.
    let live = custom_applied(None, json!({"tags": ["a"], "replicas": 1}), "one").unwrap();
    let live = custom_applied(Some(&live), json!({"tags": [], "replicas": 1}), "one").unwrap();
    assert_eq!(live["spec"], json!({"replicas": 1}));
    assert_eq!(fields(&live, "one"), json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn a_new_object_is_owned_but_for_what_go_types_always_have() {
    let live = custom_updated(None, json!({"replicas": 1, "labels": {}}), "one");
    assert_eq!(fields(&live, "one"), json!({"f:spec": {".": {}, "f:labels": {}, "f:replicas": {}}}));

    let mut live = deployment(None);
    live["spec"]["strategy"] = json!({"type": "Recreate"});
    live["spec"]["template"]["metadata"] = json!({"labels": {"app": "web"}});
    live["spec"]["template"]["spec"] = json!({"containers": [{"name": "app", "image": "i"}]});
    track_update(KIND, None, &mut live, writer("one", T1));
    assert_eq!(
        fields(&live, "one")["f:spec"],
        json!({
            "f:selector": {},
            "f:strategy": {"f:type": {}},
            "f:template": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {".": {}, "f:image": {}, "f:name": {}}}},
            },
        })
    );

    let containers = json!([{"name": "app", "image": "i"}]);
    let mut job = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "x"}, "spec": {
        "schedule": "* * * * *",
        "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": containers}}}},
    }});
    track_update(Shape::Builtin("CronJob"), None, &mut job, writer("one", T1));
    assert_eq!(
        fields(&job, "one"),
        json!({"f:spec": {
            "f:schedule": {},
            "f:jobTemplate": {"f:spec": {"f:template": {"f:spec": {
                "f:restartPolicy": {},
                "f:containers": {"k:{\"name\":\"app\"}": {".": {}, "f:image": {}, "f:name": {}}},
            }}}},
        }})
    );
}

#[test]
fn updates_of_an_object_without_entries_are_not_tracked() {
    let live = custom_updated(Some(&custom(json!({"replicas": 1}))), json!({"replicas": 2}), "one");
    assert_eq!(live, custom(json!({"replicas": 2})));
    let found = conflicts(custom_applied(Some(&live), json!({"replicas": 3}), "two"));
    assert_eq!(found, [("conflict with \"before-first-apply\" using a/v1".to_owned(), ".spec.replicas".to_owned())]);
}

#[test]
fn what_was_before_the_first_apply_to_a_status_is_of_the_status() {
    let mut live = deployment(Some(2));
    live["status"] = json!({"replicas": 2, "readyReplicas": 1});
    let mut config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}});
    config["status"] = json!({"replicas": 2});
    let status = Writer { subresource: Some("status"), ..writer("one", T1) };
    let after = apply(KIND, Some(&live), &config, status, false).unwrap();
    assert_eq!(fields(&after, "one"), json!({"f:status": {"f:replicas": {}}}));
    let stored = expanded(&after);
    let earlier = entry(&stored, "before-first-apply");
    assert_eq!(earlier["subresource"], "status");
    assert_eq!(earlier["fieldsV1"], json!({"f:status": {"f:readyReplicas": {}, "f:replicas": {}}}));
    config["status"] = json!({"replicas": 3});
    let owner = "conflict with \"before-first-apply\" with subresource \"status\" using apps/v1";
    let found = conflicts(apply(KIND, Some(&live), &config, status, false));
    assert_eq!(found, [(owner.to_owned(), ".status.replicas".to_owned())]);
}

#[test]
fn an_apply_brings_items_into_its_order() {
    for (live, applied, merged) in [
        (json!(["t1", "t3", "t2"]), json!(["t2", "t1"]), json!(["t3", "t2", "t1"])),
        (json!(["a", "b", "c", "d"]), json!(["d", "b"]), json!(["a", "c", "d", "b"])),
        (
            json!(["s1", "a", "s2", "b", "s3"]),
            json!(["n", "a", "b", "m"]),
            json!(["s1", "n", "a", "s2", "b", "s3", "m"]),
        ),
    ] {
        let object = custom_updated(None, json!({"tags": live}), "one");
        let got = custom_applied(Some(&object), json!({"tags": applied}), "two").unwrap();
        assert_eq!(got["spec"]["tags"], merged, "{applied} onto {live}");
    }
    let ports = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Value>();
    let live = custom_updated(None, json!({"ports": ports(&["a", "s", "b"])}), "one");
    let got = custom_applied(Some(&live), json!({"ports": ports(&["b", "n", "a"])}), "two").unwrap();
    assert_eq!(got["spec"]["ports"], ports(&["s", "b", "n", "a"]));
}

#[test]
fn an_apply_that_only_reorders_is_a_change() {
    let live = custom_applied(None, json!({"tags": ["a", "b"]}), "one").unwrap();
    let after = custom_applied(Some(&live), json!({"tags": ["b", "a"]}), "one").unwrap();
    assert_eq!(after["spec"]["tags"], json!(["b", "a"]));
    assert_eq!(fields(&after, "one"), fields(&live, "one"));
}

#[test]
fn a_field_that_becomes_of_another_kind_loses_or_gets_what_is_in_it() {
    let live = custom_updated(None, json!({"free": {"z": {"q": 1}}}), "one");
    let live = custom_updated(Some(&live), json!({"free": {"z": 1}}), "two");
    assert_eq!(fields(&live, "one"), json!({"f:spec": {".": {}, "f:free": {}}}));
    assert_eq!(fields(&live, "two"), json!({"f:spec": {"f:free": {"f:z": {}}}}));
    let live = custom_updated(Some(&live), json!({"free": {"z": {"r": {"s": 1}}}}), "three");
    assert_eq!(fields(&live, "three"), json!({"f:spec": {"f:free": {"f:z": {".": {}, "f:r": {".": {}, "f:s": {}}}}}}));
}

#[test]
fn conflicts_are_told_level_by_level() {
    let spec = |number: u8| {
        let text = number.to_string();
        json!({
            "replicas": number, "labels": {"x": text}, "maps": {"k": {"x": number}}, "atoms": [text],
            "ports": [{"name": "p", "port": number}],
        })
    };
    let live = custom_applied(None, spec(1), "one").unwrap();
    let found = conflicts(custom_applied(Some(&live), spec(2), "two"));
    let paths: Vec<&str> = found.iter().map(|(_, path)| path.as_str()).collect();
    assert_eq!(
        paths,
        [".spec.atoms", ".spec.replicas", ".spec.labels.x", ".spec.maps.k.x", ".spec.ports[name=\"p\"].port"]
    );
}

/// A reference that is one value is taken over whole: half of each would be valid for nobody.
#[test]
fn the_port_of_an_ingress_is_one_value() {
    let ingress = |port: Value| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"}, "spec": {
            "defaultBackend": {"service": {"name": "web", "port": port}},
        }})
    };
    let shape = Shape::Builtin("Ingress");
    let live = apply(shape, None, &ingress(json!({"name": "http"})), writer("one", T1), false).unwrap();
    let live = apply(shape, Some(&live), &ingress(json!({"number": 80})), writer("two", T1), true).unwrap();
    assert_eq!(live["spec"]["defaultBackend"]["service"]["port"], json!({"number": 80}));
    let service = |fields: Value| json!({"f:spec": {"f:defaultBackend": {"f:service": fields}}});
    assert_eq!(fields(&live, "one"), service(json!({"f:name": {}})));
    assert_eq!(fields(&live, "two"), service(json!({"f:name": {}, "f:port": {}})));
}
