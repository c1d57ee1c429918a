use serde::Deserialize;
use serde_json::json;

use super::*;

mod corners;

const T1: &str = "2026-01-01T00:00:00Z";
const T2: &str = "2026-01-02T00:00:00Z";

fn writer<'a>(manager: &'a str, time: &'a str) -> Writer<'a> {
    Writer { manager, subresource: None, has_status: true, time }
}

fn deployment(replicas: Option<i64>) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "demo", "labels": {"app": "web"}},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"spec": {"containers": [
                {"name": "web", "image": "web:1", "ports": [{"containerPort": 80}]},
            ]}},
        },
    });
    if let Some(replicas) = replicas {
        object["spec"]["replicas"] = replicas.into();
    }
    object
}

const KIND: Shape<'static> = Shape::Builtin("Deployment");

fn applied(live: Option<&Value>, object: &Value, manager: &str, force: bool) -> Result<Value, ApplyError> {
    apply(KIND, live, object, writer(manager, T1), force)
}

fn updated(old: &Value, mut new: Value, manager: &str) -> Value {
    track_update(KIND, Some(old), &mut new, writer(manager, T2));
    new
}

fn conflicts(result: Result<Value, ApplyError>) -> Vec<(String, String)> {
    match result {
        Err(ApplyError::Conflicts(conflicts)) => conflicts.into_iter().map(|c| (c.message(), c.field)).collect(),
        other => panic!("expected conflicts, found {other:?}"),
    }
}

fn entry<'v>(object: &'v Value, manager: &str) -> &'v Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    entries.iter().find(|entry| entry["manager"] == manager).unwrap_or_else(|| panic!("{manager} has no entry"))
}

fn owned(object: &Value, manager: &str) -> Vec<String> {
    FieldSet::deserialize(&entry(&expanded(object), manager)["fieldsV1"]).unwrap().paths()
}

#[test]
fn the_first_apply_creates_and_owns_what_it_sets() {
    let live = applied(None, &deployment(Some(2)), "kubectl", false).unwrap();
    assert_eq!(
        expanded(&live)["metadata"]["managedFields"],
        json!([{
            "apiVersion": "apps/v1",
            "fieldsType": "FieldsV1",
            "manager": "kubectl",
            "operation": "Apply",
            "time": T1,
            "fieldsV1": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {
                    "f:replicas": {},
                    "f:selector": {},
                    "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {
                        ".": {},
                        "f:image": {},
                        "f:name": {},
                        "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                    }}}},
                },
            },
        }])
    );
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let mut live = applied(None, &deployment(Some(2)), "kubectl", false).unwrap();
    // What the server fills in afterwards belongs to nobody.
    live["metadata"]["uid"] = json!("u");
    live["spec"]["strategy"] = json!({"type": "RollingUpdate"});
    live["spec"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"] = json!("TCP");
    live["status"] = json!({"replicas": 2});
    let again = apply(KIND, Some(&live), &deployment(Some(2)), writer("kubectl", T2), false).unwrap();
    assert_eq!(again, live);
}

#[test]
fn a_field_of_another_manager_conflicts_unless_forced() {
    let live = applied(None, &deployment(Some(2)), "one", false).unwrap();
    let found = conflicts(applied(Some(&live), &deployment(Some(3)), "two", false));
    assert_eq!(found, [("conflict with \"one\"".to_owned(), ".spec.replicas".to_owned())]);

    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(5);
    let live = updated(&live, scaled, "hpa");
    assert!(!owned(&live, "one").contains(&".spec.replicas".to_owned()), "an update takes what it changes");
    let error = applied(Some(&live), &deployment(Some(3)), "one", false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"hpa\" using apps/v1: .spec.replicas");

    let forced = applied(Some(&live), &deployment(Some(3)), "one", true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 3);
    assert!(owned(&forced, "one").contains(&".spec.replicas".to_owned()));
    assert_eq!(forced["metadata"]["managedFields"].as_array().unwrap().len(), 1, "the other has nothing left");
}

#[test]
fn the_same_value_is_shared() {
    let live = applied(None, &deployment(Some(2)), "one", false).unwrap();
    let live = applied(Some(&live), &deployment(Some(2)), "two", false).unwrap();
    for manager in ["one", "two"] {
        assert!(owned(&live, manager).contains(&".spec.replicas".to_owned()));
    }
    // Given up by one, it stays for the other; given up by both, it goes.
    let live = applied(Some(&live), &deployment(None), "one", false).unwrap();
    assert_eq!(live["spec"]["replicas"], 2);
    let live = applied(Some(&live), &deployment(None), "two", false).unwrap();
    assert!(live["spec"].get("replicas").is_none());
    assert_eq!(live["metadata"]["name"], "web");
}

#[test]
fn what_is_left_out_is_removed_with_its_defaults() {
    let mut first = deployment(None);
    first["spec"]["strategy"] = json!({"type": "RollingUpdate"});
    first["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "side", "image": "s"}));
    let mut live = applied(None, &first, "kubectl", false).unwrap();
    live["spec"]["strategy"]["rollingUpdate"] = json!({"maxSurge": 1});
    live["spec"]["template"]["spec"]["containers"][1]["terminationMessagePath"] = json!("/dev/x");
    let mut second = deployment(None);
    second["metadata"].as_object_mut().unwrap().remove("labels");
    let live = applied(Some(&live), &second, "kubectl", false).unwrap();
    assert!(live["spec"].get("strategy").is_none());
    assert!(live["metadata"].get("labels").is_none());
    assert_eq!(live["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1);
    assert_eq!(live["metadata"]["namespace"], "demo");
}

#[test]
fn what_others_added_survives() {
    let live = applied(None, &deployment(None), "kubectl", false).unwrap();
    let mut injected = live.clone();
    injected["spec"]["template"]["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!({"name": "proxy", "image": "p"}));
    injected["metadata"]["annotations"] = json!({"injected": "yes"});
    injected["metadata"]["finalizers"] = json!(["x/y"]);
    let live = updated(&live, injected, "injector");
    let mut next = deployment(None);
    next["spec"]["template"]["spec"]["containers"][0]["image"] = json!("web:2");
    next["metadata"]["annotations"] = json!({"mine": "1"});
    next["metadata"]["finalizers"] = json!(["a/b"]);
    let live = applied(Some(&live), &next, "kubectl", false).unwrap();
    let containers = &live["spec"]["template"]["spec"]["containers"];
    assert_eq!((&containers[0]["name"], &containers[1]["image"]), (&json!("proxy"), &json!("web:2")));
    assert_eq!(live["metadata"]["annotations"], json!({"injected": "yes", "mine": "1"}));
    assert_eq!(live["metadata"]["finalizers"], json!(["x/y", "a/b"]));
}

#[test]
fn empty_maps_are_no_values() {
    let bare = || json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    let shape = Shape::Builtin("ConfigMap");
    let mut live = bare();
    live["metadata"]["annotations"] = json!({});
    live["data"] = json!({});
    track_update(shape, None, &mut live, writer("creator", T1));
    let mut config = bare();
    config["metadata"]["annotations"] = json!({"a": "1"});
    config["data"] = json!({"k": "v"});
    let live = apply(shape, Some(&live), &config, writer("kubectl", T1), false).unwrap();
    assert_eq!(live["data"], json!({"k": "v"}));
    // The creator owned the annotations as such; that must not keep others from adding to them or removing theirs.
    let live = apply(shape, Some(&live), &bare(), writer("kubectl", T1), false).unwrap();
    assert!(live["data"].get("k").is_none());
}

#[test]
fn atomic_lists_and_maps_are_owned_as_a_whole() {
    let live = applied(None, &deployment(None), "one", false).unwrap();
    let mut other = deployment(None);
    other["spec"]["selector"]["matchLabels"]["tier"] = json!("x");
    let found = conflicts(applied(Some(&live), &other, "two", false));
    assert_eq!(found[0].1, ".spec.selector");
}

#[test]
fn status_belongs_to_its_own_entry() {
    let live = applied(None, &deployment(Some(1)), "kubectl", false).unwrap();
    let mut new = live.clone();
    new["status"] = json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    let status = Writer { subresource: Some("status"), ..writer("controller", T2) };
    track_update(KIND, Some(&live), &mut new, status);
    let stored = expanded(&new);
    let entry = entry(&stored, "controller");
    assert_eq!(entry["subresource"], "status");
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:status": {"f:replicas": {},
            "f:conditions": {".": {}, "k:{\"type\":\"Available\"}": {".": {}, "f:type": {}, "f:status": {}}}}})
    );
    // An apply to the main resource that carries a status neither changes nor owns it.
    let mut config = deployment(Some(1));
    config["status"] = json!({"replicas": 9});
    assert_eq!(applied(Some(&new), &config, "kubectl", false).unwrap(), new);
    // An apply to the status changes nothing else.
    config["spec"]["replicas"] = json!(7);
    config["metadata"]["labels"] = json!({"z": "z"});
    let after = apply(KIND, Some(&new), &config, Writer { manager: "x", ..status }, true).unwrap();
    assert_eq!((&after["status"]["replicas"], &after["spec"]["replicas"]), (&json!(9), &json!(1)));
    assert_eq!(after["metadata"]["labels"], json!({"app": "web"}));
}

#[test]
fn kubectl_may_change_what_it_set_on_the_client_side() {
    let mut live = deployment(Some(2));
    let last = deployment(Some(2)).to_string();
    live["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    track_update(KIND, None, &mut live, writer("kubectl-client-side-apply", T1));
    // The control: another manager conflicts.
    let found = conflicts(applied(Some(&live), &deployment(Some(3)), "other", false));
    assert_eq!(found, [("conflict with \"kubectl-client-side-apply\" using apps/v1".into(), ".spec.replicas".into())]);
    let after = applied(Some(&live), &deployment(Some(3)), "kubectl", false).unwrap();
    assert_eq!(after["spec"]["replicas"], 3);
    let kept = after["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(kept).unwrap()["spec"]["replicas"], 3);
    // What somebody else changed since is not kubectl's any more.
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(9);
    let live = updated(&live, scaled, "hpa");
    assert_eq!(conflicts(applied(Some(&live), &deployment(Some(3)), "kubectl", false)).len(), 1);
}

/// What `kubectl apply --server-side` does to an object that client-side apply made: it hands the fields over by a JSON
/// patch of the managed fields, and applies again.
#[test]
fn ownership_moves_from_client_side_to_server_side_apply() {
    let mut live = deployment(Some(2));
    live["spec"]["minReadySeconds"] = json!(5);
    live["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": live.to_string()});
    track_update(KIND, None, &mut live, writer("kubectl-client-side-apply", T1));
    let config = deployment(Some(2));
    let live = applied(Some(&live), &config, "kubectl", false).unwrap();
    assert_eq!(live["spec"]["minReadySeconds"], 5, "still owned by client-side apply");

    let mut entries = expanded(&live)["metadata"]["managedFields"].as_array().unwrap().clone();
    let former = entries.iter().position(|entry| entry["manager"] == "kubectl-client-side-apply").unwrap();
    let former = FieldSet::deserialize(&entries.remove(former)["fieldsV1"]).unwrap();
    let mut union = FieldSet::deserialize(&entries[0]["fieldsV1"]).unwrap();
    union.add(&former);
    entries[0]["fieldsV1"] = serde_json::to_value(&union).unwrap();
    let mut handed_over = live.clone();
    let patch = json!([{"op": "replace", "path": "/metadata/managedFields", "value": entries}]);
    crate::patch::json_patch(&mut handed_over, &patch).unwrap();
    let live = updated(&live, handed_over, "kubectl");
    assert_eq!(expanded(&live)["metadata"]["managedFields"], Value::Array(entries));

    let live = applied(Some(&live), &config, "kubectl", false).unwrap();
    assert!(live["spec"].get("minReadySeconds").is_none(), "left out by the only owner");
    assert_eq!(live["spec"]["replicas"], 2);
    assert_eq!(live["metadata"]["managedFields"].as_array().unwrap().len(), 1);
}

#[test]
fn managed_fields_can_be_replaced_and_reset() {
    let live = applied(None, &deployment(Some(2)), "one", false).unwrap();
    let mut renamed = live.clone();
    renamed["metadata"]["managedFields"][0]["manager"] = json!("two");
    let live = updated(&live, renamed, "kubectl");
    assert!(owned(&live, "two").contains(&".spec.replicas".to_owned()));
    assert_eq!(live["metadata"]["managedFields"].as_array().unwrap().len(), 1);

    let mut reset = live.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    let reset = updated(&live, reset, "kubectl");
    assert!(reset["metadata"].get("managedFields").is_none());
    // After that, everything belongs to "before-first-apply".
    assert_eq!(
        conflicts(applied(Some(&reset), &deployment(Some(3)), "one", false))[0].0,
        "conflict with \"before-first-apply\" using apps/v1"
    );

    // A write that leaves the entries out, as most typed clients do on PUT, keeps them.
    let mut put = deployment(Some(4));
    put["metadata"]["labels"]["new"] = json!("1");
    let put = updated(&live, put, "client");
    assert_eq!(owned(&put, "client"), [".metadata.labels.new", ".spec.replicas"]);
    assert!(owned(&put, "two").contains(&".spec.selector".to_owned()));
}

#[test]
fn an_update_that_changes_nothing_keeps_the_time() {
    let live = applied(None, &deployment(Some(2)), "one", false).unwrap();
    assert_eq!(updated(&live, live.clone(), "two"), live);
}

#[test]
fn malformed_configurations_are_refused() {
    let mut twice = deployment(None);
    twice["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "web"}));
    let error = applied(None, &twice, "one", false).unwrap_err();
    assert_eq!(error.to_string(), ".spec.template.spec.containers: duplicate entries for key [name=\"web\"]");
    let mut nameless = deployment(None);
    nameless["spec"]["template"]["spec"]["containers"] = json!([{"image": "x"}]);
    assert!(matches!(applied(None, &nameless, "one", false), Err(ApplyError::Malformed { .. })));
    let mut portless = deployment(None);
    portless["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([{"protocol": "UDP"}]);
    let live = applied(None, &portless, "one", false).expect("whether a key may be absent is for validation to say");
    let port = ".spec.template.spec.containers[name=\"web\"].ports[protocol=\"UDP\"].protocol".to_owned();
    assert!(owned(&live, "one").contains(&port), "{:?}", owned(&live, "one"));
}

#[test]
fn custom_objects_follow_their_schema() {
    let schema = json!({"properties": {"spec": {"properties": {
        "routes": {"type": "array"},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    }}}});
    let shape = Shape::Custom(&schema);
    let object = |routes: Value, ports: Value| json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "x"}, "spec": {"routes": routes, "ports": ports}});
    let w = |manager| Writer { has_status: false, ..writer(manager, T1) };
    let live = apply(shape, None, &object(json!([1]), json!([{"name": "a", "p": 1}])), w("one"), false).unwrap();
    let next = object(json!([2]), json!([{"name": "b", "p": 2}]));
    let found = conflicts(apply(shape, Some(&live), &next, w("two"), false));
    assert_eq!(found, [("conflict with \"one\"".into(), ".spec.routes".into())]);
    let live = apply(shape, Some(&live), &next, w("two"), true).unwrap();
    assert_eq!(live["spec"], json!({"routes": [2], "ports": [{"name": "a", "p": 1}, {"name": "b", "p": 2}]}));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn config() -> impl Strategy<Value = Value> {
        // At least one: an empty list is nobody's, and whoever empties one leaves none.
        let containers = prop::collection::btree_map("[a-c]", prop::option::of("[x-z]"), 1..3);
        let labels = prop::collection::btree_map("[a-c]", "[x-z]", 0..3);
        (containers, labels, prop::option::of(0..3u8)).prop_map(|(containers, labels, replicas)| {
            let containers = containers.into_iter().map(|(name, image)| {
                image.map_or_else(|| json!({"name": name}), |image| json!({"name": name, "image": image}))
            });
            let mut object = json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "web", "labels": labels},
                "spec": {"template": {"spec": {"containers": containers.collect::<Vec<_>>()}}},
            });
            if let Some(replicas) = replicas {
                object["spec"]["replicas"] = replicas.into();
            }
            object
        })
    }

    fn same_content(a: &Value, b: &Value) -> bool {
        let mut comparison = Comparison::of(KIND, a, b);
        comparison.each(|set| drop_unowned(set, writer("x", T1)));
        comparison.is_empty()
    }

    proptest! {
        #[test]
        fn a_sole_manager_gets_what_it_applies(first in config(), second in config()) {
            let live = applied(None, &first, "one", false).unwrap();
            let live = applied(Some(&live), &second, "one", false).unwrap();
            prop_assert!(same_content(&live, &second), "{live} is not {second}");
        }

        #[test]
        fn applying_twice_is_applying_once(first in config(), theirs in config(), mine in config()) {
            let live = applied(None, &first, "one", false).unwrap();
            let live = applied(Some(&live), &theirs, "two", true).unwrap();
            let once = applied(Some(&live), &mine, "one", true).unwrap();
            let twice = apply(KIND, Some(&once), &mine, writer("one", T2), false).unwrap();
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn without_conflicts_force_makes_no_difference(first in config(), second in config()) {
            let live = applied(None, &first, "one", false).unwrap();
            if let Ok(merged) = applied(Some(&live), &second, "two", false) {
                prop_assert_eq!(merged, applied(Some(&live), &second, "two", true).unwrap());
            }
        }

        #[test]
        fn an_update_makes_the_object_what_it_says(first in config(), second in config()) {
            let live = applied(None, &first, "one", false).unwrap();
            let new = updated(&live, second.clone(), "two");
            prop_assert!(same_content(&new, &second));
        }
    }
}
