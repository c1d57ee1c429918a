//! What kinds do: definitions of custom ones and their objects, types of built-in ones, kinds in two groups.

use super::*;

pub(super) fn widgets() -> Value {
    json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["size"], "properties": {
                        "size": {"type": "integer", "minimum": 1}, "colour": {"type": "string", "default": "red"},
                    }},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                }}},
            }],
        },
    })
}

#[test]
fn a_crd_brings_its_resource_and_takes_it_away() {
    let store = Store::new();
    let crds = GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions");
    let resource = GroupResource::new("example.com", "widgets");
    assert!(store.list(&resource, None, &Selectors::default()).unwrap_err().is_not_found());
    let crd = store.create(&crds, "", widgets(), &options()).unwrap();
    let condition = |kind: &str| {
        let conditions = crd["status"]["conditions"].as_array().unwrap();
        conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
    };
    assert!(condition("NamesAccepted") && condition("Established"));
    assert_eq!(crd["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(crd["spec"]["names"]["listKind"], "WidgetList");
    let kind = store.kind("example.com", "Widget").unwrap();
    assert_eq!(kind.short_names, ["wd"]);
    assert_eq!(kind.versions[0].columns[0].json_path, ".spec.size");
    let widget = json!({"metadata": {"name": "a"}, "spec": {"size": 3}, "status": {"seen": true}});
    let created = store.create(&resource, "default", widget, &options()).unwrap();
    assert_eq!(created["apiVersion"], "example.com/v1");
    assert_eq!(created.get("status"), None);
    let mut watch = store.watch(&resource, None, &Selectors::default(), Start::Now).unwrap();
    store.delete(&crds, "", "widgets.example.com", &DeleteOptions::default()).unwrap();
    assert!(matches!(drain(&mut watch).as_slice(), [Event::Added(_), Event::Deleted(_)]));
    assert!(store.resource(&resource).is_none());
    let error = store
        .create(
            &crds,
            "",
            json!({"metadata": {"name": "deployments.apps"}, "spec": {
                "group": "apps", "scope": "Namespaced", "names": {"plural": "deployments", "kind": "Deployment"},
                "versions": widgets()["spec"]["versions"],
            }}),
            &options(),
        )
        .unwrap_err();
    assert_eq!(error.code, 422);
}

#[test]
fn custom_objects_are_pruned_defaulted_and_validated() {
    let store = Store::new();
    let crds = GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions");
    let resource = GroupResource::new("example.com", "widgets");
    store.create(&crds, "", widgets(), &options()).unwrap();
    let widget = |spec: Value| json!({"apiVersion": "example.com/v1", "metadata": {"name": "a"}, "spec": spec});
    let strict = WriteOptions { strict: true, ..options() };
    let error = store.create(&resource, "default", widget(json!({"size": 1, "sise": 2})), &strict).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            400,
            "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: unknown field \"spec.sise\""
        )
    );
    let error = store.create(&resource, "default", widget(json!({"size": 0})), &options()).unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (422, "Invalid"));
    assert!(error.message.starts_with("Widget.example.com \"a\" is invalid: spec.size: Invalid value"), "{error}");
    let error = store.create(&resource, "default", widget(json!({})), &options()).unwrap_err();
    assert_eq!(error.details["causes"][0]["reason"], "FieldValueRequired");
    assert!(store.list(&resource, None, &Selectors::default()).unwrap().items.is_empty());
    let created = store.create(&resource, "default", widget(json!({"size": 1, "sise": 2})), &options()).unwrap();
    assert_eq!(created["spec"], json!({"size": 1, "colour": "red"}));
    let put = |revision: &Value| {
        let mut object = widget(json!({"size": 2}));
        object["metadata"]["resourceVersion"] = revision.clone();
        store.update(&resource, "default", "a", Subresource::Main, object, &options())
    };
    assert_eq!(put(&Value::Null).unwrap_err().code, 422, "a custom object is not replaced blindly");
    let updated = put(&created["metadata"]["resourceVersion"]).unwrap();
    assert_eq!(updated["metadata"]["generation"], 2);
    // A schema that is changed later holds from the next write on, whatever that writes.
    let mut later = |crd: &mut Value| {
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"] =
            json!({"size": {"type": "integer"}, "shape": {"type": "string", "default": "round"}});
        Ok(())
    };
    store.modify(&crds, "", "widgets.example.com", Subresource::Main, &options(), &mut later).unwrap();
    let touched = store.modify(&resource, "default", "a", Subresource::Main, &options(), &mut |_| Ok(())).unwrap();
    assert_eq!(touched["spec"], json!({"size": 2, "shape": "round"}));
}

#[test]
fn nulls_of_custom_objects_are_left_out() {
    let store = Store::new();
    let crds = GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions");
    let resource = GroupResource::new("example.com", "widgets");
    let mut crd = widgets();
    let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    spec["labels"] = json!({"type": "object", "additionalProperties": {"type": "string"}});
    spec["note"] = json!({"type": "string", "nullable": true});
    store.create(&crds, "", crd, &options()).unwrap();
    for (name, sent, stored) in [
        ("a", json!({"labels": null}), json!({})),
        ("b", json!({"labels": {"a": null, "b": "1"}}), json!({"labels": {"b": "1"}})),
        ("c", json!({"note": null}), json!({"note": null})),
    ] {
        let object = |mut spec: Value| {
            spec["size"] = json!(1);
            json!({"metadata": {"name": name}, "spec": spec})
        };
        let created = store.create(&resource, "default", object(sent), &options()).unwrap();
        let mut stored = object(stored)["spec"].take();
        stored["colour"] = json!("red");
        assert_eq!(created["spec"], stored);
    }
    // What must be there is not there when it is null.
    let object = json!({"metadata": {"name": "d"}, "spec": {"size": null}});
    let error = store.create(&resource, "default", object, &options()).unwrap_err();
    assert!(error.message.ends_with("spec.size: Required value"), "{error}");
}

#[test]
fn built_in_kinds_refuse_what_their_types_do_not_have() {
    let store = Store::new();
    let strict = WriteOptions { strict: true, ..options() };
    let mut object = deployment("web");
    object["spec"]["replcas"] = json!(2);
    let error = store.create(&deployments(), "default", object.clone(), &strict).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            400,
            "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"spec.replcas\""
        )
    );
    let created = store.create(&deployments(), "default", object, &options()).unwrap();
    assert_eq!(created["spec"].get("replcas"), None, "without strict it is dropped");
    let mut wrong = |object: &mut Value| {
        object["spec"]["replicas"] = json!("two");
        Ok(())
    };
    let error = store.modify(&deployments(), "default", "web", Subresource::Main, &options(), &mut wrong).unwrap_err();
    assert_eq!((error.code, &*error.reason), (422, "Invalid"), "a patch that leaves what is no Deployment");
    assert!(error.message.starts_with(" \"\" is invalid: patch: Invalid value: \"{"), "{error}");
    assert!(error.message.contains("cannot unmarshal string into Go struct field"), "{error}");
    assert!(error.message.contains(r#"\"name\":\"web\""#), "what the patch left, with what it did not change: {error}");
    let mut unknown = |object: &mut Value| {
        object["spec"]["replcas"] = json!(2);
        Ok(())
    };
    let error = store.modify(&deployments(), "default", "web", Subresource::Main, &strict, &mut unknown).unwrap_err();
    assert_eq!((error.code, &error.details["causes"][0]["field"]), (422, &json!("patch")));
    assert!(error.message.ends_with(": strict decoding error: unknown field \"spec.replcas\""), "{error}");
}

#[test]
fn events_are_the_same_objects_in_both_groups() {
    let store = Store::new();
    let (core, new) = (GroupResource::new("", "events"), GroupResource::new("events.k8s.io", "events"));
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "regarding": {"kind": "Pod", "name": "p"}, "note": "hello", "reason": "R", "type": "Normal"});
    let created = store.create(&new, "default", event, &options()).unwrap();
    assert_eq!((&created["apiVersion"], &created["note"]), (&json!("events.k8s.io/v1"), &json!("hello")));
    let stored = store.get(&core, "default", "e").unwrap();
    assert_eq!((&stored["apiVersion"], &stored["message"]), (&json!("v1"), &json!("hello")));
    let selectors = |fields: &str| Selectors { labels: String::new(), fields: fields.to_owned() };
    assert_eq!(store.list(&new, None, &selectors("regarding.name=p")).unwrap().items.len(), 1);
    assert_eq!(store.list(&core, None, &selectors("involvedObject.name=q")).unwrap().items.len(), 0);
    let mut watch = store.watch(&new, None, &Selectors::default(), Start::Now).unwrap();
    assert!(matches!(watch.try_next(), Some(Event::Added(event)) if event["regarding"]["name"] == "p"));
}

#[test]
fn a_field_that_is_left_out_is_selected_by_its_zero() {
    let store = Store::new();
    let nodes = GroupResource::new("", "nodes");
    store.create(&nodes, "", json!({"metadata": {"name": "open"}}), &options()).unwrap();
    let cordoned = json!({"metadata": {"name": "cordoned"}, "spec": {"unschedulable": true}});
    store.create(&nodes, "", cordoned, &options()).unwrap();
    let schedulable = Selectors { labels: String::new(), fields: "spec.unschedulable=false".to_owned() };
    let listed = store.list(&nodes, None, &schedulable).unwrap().items;
    assert_eq!(listed.iter().map(|node| &node["metadata"]["name"]).collect::<Vec<_>>(), ["open"]);
}
