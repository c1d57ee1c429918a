use proptest::prelude::*;

use super::*;

fn patched(kind: &str, mut target: Value, patch: Value) -> Value {
    strategic_merge_patch(kind, &mut target, &patch).unwrap();
    target
}

fn deployment() -> Value {
    json!({
        "metadata": {"name": "web", "labels": {"app": "web"}, "finalizers": ["a/x", "b/y"]},
        "spec": {
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
            "template": {"spec": {
                "containers": [
                    {"name": "web", "image": "web:1", "ports": [{"containerPort": 80}], "args": ["a", "b"]},
                    {"name": "side", "image": "side:1"},
                ],
                "volumes": [{"name": "v", "emptyDir": {}}],
                "tolerations": [{"key": "a"}],
            }},
        },
    })
}

#[test]
fn lists_merge_by_key_and_others_are_replaced() {
    let patch = json!({"spec": {"template": {"spec": {
        "containers": [{"name": "web", "image": "web:2", "args": ["c"], "ports": [{"containerPort": 81}]}, {"name": "new"}],
        "tolerations": [{"key": "b"}],
    }}}});
    let got = patched("Deployment", deployment(), patch);
    let spec = &got["spec"]["template"]["spec"];
    assert_eq!(
        spec["containers"],
        json!([
            {"name": "web", "image": "web:2", "args": ["c"], "ports": [{"containerPort": 81}, {"containerPort": 80}]},
            {"name": "new"},
            {"name": "side", "image": "side:1"},
        ])
    );
    assert_eq!(spec["tolerations"], json!([{"key": "b"}]));
}

#[test]
fn items_and_fields_are_deleted() {
    let patch = json!({
        "metadata": {"labels": {"app": null}, "$deleteFromPrimitiveList/finalizers": ["a/x"], "finalizers": ["c/z"]},
        "spec": {"template": {"spec": {
            "containers": [{"name": "side", "$patch": "delete"}, {"name": "absent", "$patch": "delete"}],
            "tolerations": null,
        }}},
    });
    let got = patched("Deployment", deployment(), patch);
    assert_eq!(got["metadata"], json!({"name": "web", "labels": {}, "finalizers": ["c/z", "b/y"]}));
    assert_eq!(got["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1);
    assert!(got["spec"]["template"]["spec"].get("tolerations").is_none());
}

#[test]
fn retain_keys_drops_the_others() {
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate", "rollingUpdate": null}}});
    assert_eq!(patched("Deployment", deployment(), patch)["spec"]["strategy"], json!({"type": "Recreate"}));
    let patch = json!({"spec": {"template": {"spec": {
        "volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}],
    }}}});
    let got = patched("Deployment", deployment(), patch);
    assert_eq!(got["spec"]["template"]["spec"]["volumes"], json!([{"name": "v", "configMap": {"name": "c"}}]));
}

#[test]
fn replace_applies_to_maps_and_lists() {
    let patch = json!({
        "metadata": {"labels": {"$patch": "replace", "new": "x"}},
        "spec": {"template": {"spec": {"containers": [{"$patch": "replace"}, {"name": "only"}]}}},
    });
    let got = patched("Deployment", deployment(), patch);
    assert_eq!(got["metadata"]["labels"], json!({"new": "x"}));
    assert_eq!(got["spec"]["template"]["spec"]["containers"], json!([{"name": "only"}]));
    let patch = json!({"metadata": {"labels": {"$patch": "delete"}, "annotations": {"$patch": "delete"}}});
    let got = patched("Deployment", deployment(), patch);
    assert_eq!(got["metadata"]["labels"], json!({}));
    assert!(got["metadata"].get("annotations").is_none());
}

#[test]
fn element_order_is_obeyed_and_strangers_keep_their_place() {
    let target =
        json!({"spec": {"containers": [{"name": "injected"}, {"name": "a"}, {"name": "b"}, {"name": "last"}]}});
    let patch = json!({"spec": {
        "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
        "containers": [{"name": "c", "image": "c"}],
    }});
    let got = patched("Pod", target, patch);
    let names: Vec<_> =
        got["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["c", "injected", "b", "a", "last"]);
}

/// Items of the patch in its order; others where they were, before those that they preceded.
#[test]
fn merged_lists_are_brought_into_an_order() {
    let named = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Value>();
    let rows: [(&[&str], Value, &[&str]); 5] = [
        (&["app"], json!({"containers": named(&["sidecar"])}), &["sidecar", "app"]),
        (&["a", "b"], json!({"containers": named(&["b", "a"])}), &["b", "a"]),
        (&["a", "b", "c"], json!({"containers": named(&["c", "a"])}), &["b", "c", "a"]),
        (
            &["a", "gone", "b"],
            json!({"containers": [{"name": "new"}, {"name": "gone", "$patch": "delete"}, {"name": "b"}]}),
            &["new", "a", "b"],
        ),
        // What `kubectl apply` sends.
        (
            &["app", "injected"],
            json!({"$setElementOrder/containers": named(&["app", "new"]), "containers": named(&["new"])}),
            &["app", "new", "injected"],
        ),
    ];
    for (live, patch, wanted) in rows {
        let template = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
        let live = template(json!({"containers": named(live)}));
        let wanted = template(json!({"containers": named(wanted)}));
        assert_eq!(patched("Deployment", live, template(patch.clone())), wanted, "{patch}");
    }
    let rows = [
        (json!(["a/a"]), json!({"finalizers": ["b/b"]}), json!(["b/b", "a/a"])),
        (json!(["a/a", "b/b", "c/c"]), json!({"finalizers": ["c/c", "a/a"]}), json!(["b/b", "c/c", "a/a"])),
        (
            json!(["a/a", "i/i"]),
            json!({"$setElementOrder/finalizers": ["n/n", "a/a"], "finalizers": ["n/n"]}),
            json!(["n/n", "a/a", "i/i"]),
        ),
    ];
    for (live, patch, wanted) in rows {
        let live = json!({"metadata": {"finalizers": live}});
        let got = patched("ConfigMap", live, json!({"metadata": patch.clone()}));
        assert_eq!(got["metadata"]["finalizers"], wanted, "{patch}");
    }
}

#[test]
fn some_lists_and_maps_are_replaced() {
    let node = |taint: &str| json!({"spec": {"taints": [{"key": taint, "effect": "NoSchedule"}]}});
    assert_eq!(patched("Node", node("a"), node("b")), node("b"));
    let selecting = |label: &str| json!({"spec": {"selector": {"matchLabels": {label: "1"}}}});
    assert_eq!(patched("PodDisruptionBudget", selecting("a"), selecting("b")), selecting("b"));
    let both = json!({"spec": {"selector": {"matchLabels": {"a": "1", "b": "1"}}}});
    assert_eq!(patched("Deployment", selecting("a"), selecting("b")), both);
}

#[test]
fn a_directive_without_anything_to_apply_to_leaves_nothing() {
    for directive in ["replace", "delete", "merge"] {
        let map = json!({"metadata": {"name": "a"}});
        let patch = json!({"data": {"$patch": directive, "c": "x"}});
        assert_eq!(patched("ConfigMap", map.clone(), patch), map, "{directive}");
        let patch = json!({"spec": {"containers": [{"name": "a", "$patch": directive}, {"name": "b"}]}});
        assert_eq!(patched("Pod", json!({}), patch)["spec"]["containers"], json!([{"name": "b"}]), "{directive}");
    }
    // The control: with something to apply it to.
    let patch = json!({"data": {"$patch": "replace", "c": "x"}});
    assert_eq!(patched("ConfigMap", json!({"data": {"a": "1"}}), patch), json!({"data": {"c": "x"}}));
}

#[test]
fn directives_never_reach_the_object() {
    let patch = json!({"spec": {
        "$setElementOrder/ports": [{"port": 80}],
        "ports": [{"port": 80, "$patch": "merge"}, {"port": 81, "$patch": "delete"}],
        "sessionAffinityConfig": {"$retainKeys": ["clientIP"], "clientIP": {"timeoutSeconds": 1, "x": null}},
    }});
    let got = patched("Service", json!({}), patch);
    assert_eq!(got, json!({"spec": {"ports": [], "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}}}));
}

#[test]
fn malformed_patches_are_refused() {
    let refuse = |patch: Value| {
        strategic_merge_patch("Pod", &mut json!({"spec": {"containers": [{"name": "a"}]}}), &patch).unwrap_err()
    };
    assert!(matches!(refuse(json!([])), PatchError::NotAnObject("an array")));
    assert!(matches!(refuse(json!({"$patch": "remove"})), PatchError::Directive { .. }));
    assert!(matches!(refuse(json!({"spec": {"$retainKeys": "x"}})), PatchError::Directive { .. }));
    // A key of the patch that would be dropped at once, and a way to merge that lists do not have.
    for (patch, directive) in [
        (json!({"spec": {"$retainKeys": ["hostname"], "hostname": "h", "nodeName": "n"}}), "$retainKeys"),
        (json!({"spec": {"containers": [{"name": "a", "$patch": "merge"}]}}), "$patch"),
    ] {
        let error = refuse(patch);
        assert!(matches!(&error, PatchError::Directive { directive: named, .. } if named == directive), "{error}");
    }
    let error = refuse(json!({"spec": {"containers": [{"image": "x"}]}}));
    assert_eq!(
        error.to_string(),
        r#"an item of "spec.containers" in the patch does not contain its merge key "name": {"image":"x"}"#
    );
}

fn containers() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-d]", ("[x-z]", prop::option::of(0..3u8)), 0..4).prop_map(|items| {
        let items = items.into_iter().map(|(name, (image, port))| {
            let ports: Vec<Value> = port.into_iter().map(|port| json!({"containerPort": port})).collect();
            json!({"name": name, "image": image, "ports": ports})
        });
        json!({"spec": {"containers": items.collect::<Vec<_>>()}})
    })
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(target in containers(), patch in containers()) {
        let once = patched("Pod", target, patch.clone());
        let twice = patched("Pod", once.clone(), patch);
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn an_object_patched_onto_nothing_is_itself(object in containers()) {
        prop_assert_eq!(patched("Pod", json!({}), object.clone()), object);
    }
}

/// What a directive stands in as a new item is kept, what it stands in anywhere else that is new is not.
#[test]
fn directives_have_nothing_to_say_of_what_is_new() {
    let rows = [
        (
            json!({"containers": [{"name": "c", "lifecycle": {"$patch": "replace", "stopSignal": "x"}}]}),
            "/spec/containers/0",
            json!({"name": "c", "lifecycle": {"stopSignal": "x"}}),
        ),
        (
            json!({"containers": [{"name": "c", "env": [{"name": "x", "value": "1", "$patch": "delete"}, {"name": "y"}]}]}),
            "/spec/containers/0/env",
            json!([{"name": "x", "value": "1"}, {"name": "y"}]),
        ),
        (
            json!({"initContainers": [{"name": "r", "env": [{"name": "x", "$patch": "delete"}]}]}),
            "/spec/initContainers/0/env",
            json!([]),
        ),
        (
            json!({"securityContext": {"$retainKeys": ["runAsUser"], "runAsUser": 1, "runAsGroup": 2}}),
            "/spec/securityContext",
            json!({"runAsUser": 1, "runAsGroup": 2}),
        ),
    ];
    for (patch, at, expected) in rows {
        let got = patched("Pod", json!({"spec": {"containers": [{"name": "a"}]}}), json!({"spec": patch}));
        assert_eq!(got.pointer(at), Some(&expected), "{patch}");
    }
}
