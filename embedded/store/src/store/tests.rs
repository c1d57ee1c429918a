use serde_json::{Value, json};

use super::*;

fn configmaps() -> GroupResource {
    GroupResource::new("", "configmaps")
}

fn services() -> GroupResource {
    GroupResource::new("", "services")
}

fn deployments() -> GroupResource {
    GroupResource::new("apps", "deployments")
}

fn options() -> WriteOptions {
    WriteOptions::default()
}

fn config(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"value": value}}, "data": {"key": value}})
}

fn service(name: &str, spec: Value) -> Value {
    let mut object = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

fn deployment(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "c:1"}]}},
        },
    })
}

fn revision_of(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn drain(watch: &mut Watch) -> Vec<Event> {
    std::iter::from_fn(|| watch.try_next()).collect()
}

#[test]
fn a_new_object_gets_its_metadata() {
    let store = Store::new();
    let before = store.revision();
    let created = store.create(&configmaps(), "default", config("a", "1"), &options()).unwrap();
    let meta = &created["metadata"];
    assert_eq!(created["apiVersion"], "v1");
    assert_eq!(created["kind"], "ConfigMap");
    assert_eq!(meta["namespace"], "default");
    assert_eq!(meta["uid"].as_str().unwrap().len(), 36);
    assert_eq!(revision_of(&created), before + 1);
    assert_eq!(store.revision(), before + 1);
    assert_eq!(*store.get(&configmaps(), "default", "a").unwrap(), *created);
}

#[test]
fn generated_names_end_in_five_letters() {
    let object = json!({"metadata": {"generateName": "web-"}});
    let created = Store::new().create(&configmaps(), "default", object, &options()).unwrap();
    let name = created["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
}

#[test]
fn errors_read_as_kubernetes_says_them() {
    let store = Store::new();
    store.create(&configmaps(), "default", config("a", "1"), &options()).unwrap();
    let error = store.create(&configmaps(), "default", config("a", "1"), &options()).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (409, "configmaps \"a\" already exists"));
    let error = store.create(&configmaps(), "nowhere", config("a", "1"), &options()).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (404, "namespaces \"nowhere\" not found"));
    let error = store.get(&deployments(), "default", "x").unwrap_err();
    assert_eq!(error.message, "deployments.apps \"x\" not found");
    let mut stale = config("a", "2");
    stale["metadata"]["resourceVersion"] = json!("1");
    let error = store.update(&configmaps(), "default", "a", Subresource::Main, stale, &options()).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            409,
            "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; \
             please apply your changes to the latest version and try again"
        )
    );
}

#[test]
fn a_write_that_changes_nothing_keeps_the_revision() {
    let store = Store::new();
    let first = store.create(&deployments(), "default", deployment("web"), &options()).unwrap();
    let mut watch = store.watch(&deployments(), None, &Selectors::default(), Start::After(store.revision())).unwrap();
    let again =
        store.update(&deployments(), "default", "web", Subresource::Main, deployment("web"), &options()).unwrap();
    assert_eq!(first, again);
    assert!(drain(&mut watch).is_empty());
}

#[test]
fn generation_follows_the_spec_and_status_is_apart() {
    let store = Store::new();
    let mut object = deployment("web");
    object["status"] = json!({"replicas": 7});
    let created = store.create(&deployments(), "default", object, &options()).unwrap();
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(created["status"], json!({}));
    let write = |sub, key: &str, value: Value| {
        let mut change = |object: &mut Value| {
            *object.pointer_mut(key).unwrap() = value.clone();
            Ok(())
        };
        store.modify(&deployments(), "default", "web", sub, &options(), &mut change).unwrap()
    };
    let labelled = write(Subresource::Main, "/metadata", json!({"name": "web", "labels": {"a": "b"}}));
    assert_eq!(labelled["metadata"]["generation"], 1);
    let scaled = write(Subresource::Main, "/spec/replicas", json!(3));
    assert_eq!(scaled["metadata"]["generation"], 2);
    let ignored = write(Subresource::Status, "/spec/replicas", json!(9));
    assert_eq!(ignored["spec"]["replicas"], 3);
    let told = write(Subresource::Status, "/status", json!({"replicas": 3}));
    assert_eq!(told["status"]["replicas"], 3);
    assert_eq!(told["metadata"]["generation"], 2);
    let kept = write(Subresource::Main, "/status", json!({"replicas": 8}));
    assert_eq!(kept["status"]["replicas"], 3);
}

#[test]
fn modify_lets_its_closure_use_the_store_and_retries_when_overtaken() {
    let store = Store::new();
    store.create(&configmaps(), "default", config("a", "0"), &options()).unwrap();
    let mut runs = 0;
    let mut change = |object: &mut Value| {
        runs += 1;
        if runs == 1 {
            store.update(&configmaps(), "default", "a", Subresource::Main, config("a", "other"), &options())?;
        }
        object["data"]["mine"] = json!("1");
        Ok(())
    };
    let after = store.modify(&configmaps(), "default", "a", Subresource::Main, &options(), &mut change).unwrap();
    assert_eq!(after["data"], json!({"key": "other", "mine": "1"}));
    assert_eq!(runs, 2);
}

#[test]
fn finalizers_hold_an_object_until_the_last_is_gone() {
    let store = Store::new();
    let mut object = config("a", "1");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    store.create(&configmaps(), "default", object, &options()).unwrap();
    let (marked, gone) = store.delete(&configmaps(), "default", "a", &DeleteOptions::default()).unwrap();
    assert!(!gone && marked["metadata"]["deletionTimestamp"].is_string());
    let mut free = |object: &mut Value| {
        object["metadata"]["finalizers"] = json!([]);
        Ok(())
    };
    store.modify(&configmaps(), "default", "a", Subresource::Main, &options(), &mut free).unwrap();
    assert!(store.get(&configmaps(), "default", "a").unwrap_err().is_not_found());
}

#[test]
fn a_bound_pod_is_given_its_grace() {
    let store = Store::new();
    let pods = GroupResource::new("", "pods");
    let account = json!({"metadata": {"name": "default"}});
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "c:1"}]}});
    let error = store.create(&pods, "default", pod("a"), &options()).unwrap_err();
    assert_eq!(
        error.message,
        "pods \"a\" is forbidden: error looking up service account default/default: serviceaccount \"default\" not found"
    );
    store.create(&GroupResource::new("", "serviceaccounts"), "default", account, &options()).unwrap();
    store.create(&pods, "default", pod("unbound"), &options()).unwrap();
    assert!(store.delete(&pods, "default", "unbound", &DeleteOptions::default()).unwrap().1);
    store.create(&pods, "default", pod("a"), &options()).unwrap();
    let mut bind = |pod: &mut Value| {
        pod["spec"]["nodeName"] = json!("meshgate");
        Ok(())
    };
    store.modify(&pods, "default", "a", Subresource::Main, &options(), &mut bind).unwrap();
    let (pod, gone) = store.delete(&pods, "default", "a", &DeleteOptions::default()).unwrap();
    assert!(!gone);
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 30);
    let (again, _) = store.delete(&pods, "default", "a", &DeleteOptions::default()).unwrap();
    assert_eq!(again["metadata"], pod["metadata"], "a second deletion with the same grace changes nothing");
    let now = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
    assert!(store.delete(&pods, "default", "a", &now).unwrap().1);
}

#[test]
fn a_namespace_is_marked_and_refuses_new_content() {
    let store = Store::new();
    let namespaces = GroupResource::new("", "namespaces");
    let created = store.create(&namespaces, "", json!({"metadata": {"name": "demo"}}), &options()).unwrap();
    assert_eq!(created["metadata"]["labels"]["kubernetes.io/metadata.name"], "demo");
    assert_eq!(created["status"]["phase"], "Active");
    let (marked, gone) = store.delete(&namespaces, "", "demo", &DeleteOptions::default()).unwrap();
    assert!(!gone);
    assert_eq!(marked["status"]["phase"], "Terminating");
    let error = store.create(&configmaps(), "demo", config("a", "1"), &options()).unwrap_err();
    assert_eq!(error.code, 403);
    assert_eq!(error.details["causes"][0]["reason"], "NamespaceTerminating");
    store.remove(&namespaces, "", "demo").unwrap();
    assert!(store.get(&namespaces, "", "demo").unwrap_err().is_not_found());
    assert_eq!(store.delete(&namespaces, "", "default", &DeleteOptions::default()).unwrap_err().code, 403);
}

#[test]
fn services_get_addresses_of_their_own() {
    let store = Store::new();
    let create = |namespace: &str, name: &str, spec: Value| {
        store.create(&services(), namespace, service(name, spec), &options())
    };
    assert_eq!(create("default", "kubernetes", json!({})).unwrap()["spec"]["clusterIP"], "10.96.0.1");
    assert_eq!(create("kube-system", "kube-dns", json!({})).unwrap()["spec"]["clusterIP"], "10.96.0.10");
    let web = create("default", "web", json!({})).unwrap();
    let address = web["spec"]["clusterIP"].as_str().unwrap();
    assert!(address.starts_with("10.96."));
    assert_eq!(web["spec"]["clusterIPs"], json!([address]));
    assert_eq!(web["spec"]["ports"][0], json!({"port": 80, "protocol": "TCP", "targetPort": 80}));
    let error = create("default", "thief", json!({"clusterIP": address})).unwrap_err();
    assert_eq!(error.code, 422);
    assert!(error.message.ends_with("provided IP is already allocated"), "{error}");
    assert_eq!(
        create("default", "fixed", json!({"clusterIP": "10.96.7.7"})).unwrap()["spec"]["clusterIP"],
        "10.96.7.7"
    );
    assert_eq!(create("default", "far", json!({"clusterIP": "10.97.0.1"})).unwrap_err().code, 422);
    assert_eq!(create("default", "none", json!({"clusterIP": "None"})).unwrap()["spec"]["clusterIP"], "None");
    let balanced = create("default", "lb", json!({"type": "LoadBalancer"})).unwrap();
    let port = balanced["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30000..=32767).contains(&port));
    assert_eq!(balanced["spec"]["externalTrafficPolicy"], "Cluster");
}

#[test]
fn a_service_keeps_its_address_through_a_put_without_it() {
    let store = Store::new();
    let web = store.create(&services(), "default", service("web", json!({"type": "NodePort"})), &options()).unwrap();
    let put = service("web", json!({"type": "NodePort", "selector": {"app": "web"}}));
    let after = store.update(&services(), "default", "web", Subresource::Main, put, &options()).unwrap();
    assert_eq!(after["spec"]["clusterIP"], web["spec"]["clusterIP"]);
    assert_eq!(after["spec"]["ports"], web["spec"]["ports"]);
    let moved = service("web", json!({"clusterIP": "10.96.9.9"}));
    let error = store.update(&services(), "default", "web", Subresource::Main, moved, &options()).unwrap_err();
    assert!(error.message.contains("may not change once set"), "{error}");
}

#[test]
fn a_watch_sees_objects_enter_and_leave_its_selector() {
    let store = Store::new();
    let selectors = Selectors { labels: "value=1".to_owned(), fields: String::new() };
    store.create(&configmaps(), "default", config("a", "1"), &options()).unwrap();
    let mut watch = store.watch(&configmaps(), Some("default"), &selectors, Start::InitialEvents).unwrap();
    let begun = store.revision();
    store.update(&configmaps(), "default", "a", Subresource::Main, config("a", "2"), &options()).unwrap();
    store.update(&configmaps(), "default", "a", Subresource::Main, config("a", "1"), &options()).unwrap();
    store.create(&configmaps(), "kube-system", config("a", "1"), &options()).unwrap();
    store.delete(&configmaps(), "default", "a", &DeleteOptions::default()).unwrap();
    let events = drain(&mut watch);
    let [Event::Added(_), Event::InitialEventsEnd(end), Event::Deleted(left), Event::Added(_), Event::Deleted(gone)] =
        events.as_slice()
    else {
        panic!("unexpected events: {events:?}")
    };
    assert_eq!(*end, begun);
    assert_eq!(revision_of(left), begun + 1, "a leaving object carries the revision of its leaving");
    assert_eq!(left["data"]["key"], "1", "and is told as it was");
    assert_eq!(revision_of(gone), store.revision());
}

#[test]
fn a_watch_outside_the_window_is_refused() {
    let store = Store::new();
    let created = store.create(&configmaps(), "default", config("a", "1"), &options()).unwrap();
    let watch = |after| store.watch(&configmaps(), None, &Selectors::default(), Start::After(after));
    for outside in [1, store.revision() + 1] {
        let error = watch(outside).unwrap_err();
        assert_eq!((error.code, error.reason.as_str()), (410, "Expired"));
    }
    assert!(watch(revision_of(&created)).is_ok());
    assert!(watch(revision_of(&created) - 1).is_ok());
    for turn in 0..5000 {
        store
            .update(&configmaps(), "default", "a", Subresource::Main, config("a", &turn.to_string()), &options())
            .unwrap();
    }
    assert_eq!(watch(revision_of(&created)).unwrap_err().code, 410);
    assert_eq!(drain(&mut watch(store.revision() - 256).unwrap()).len(), 256);
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_closed() {
    let store = Store::new();
    store.create(&configmaps(), "default", config("a", "1"), &options()).unwrap();
    let mut watch = store.watch(&configmaps(), None, &Selectors::default(), Start::Now).unwrap();
    for turn in 0..17_000 {
        store
            .update(&configmaps(), "default", "a", Subresource::Main, config("a", &turn.to_string()), &options())
            .unwrap();
    }
    let mut seen = 0;
    while watch.next().await.is_some() {
        seen += 1;
    }
    assert!((16_000..17_000).contains(&seen), "{seen}");
}

fn by(manager: &str) -> WriteOptions {
    WriteOptions { manager: manager.to_owned(), ..WriteOptions::default() }
}

fn managers(object: &Value) -> Vec<(&str, &str)> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    entries.iter().map(|entry| (entry["manager"].as_str().unwrap(), entry["operation"].as_str().unwrap())).collect()
}

#[test]
fn apply_creates_merges_and_tells_conflicts() {
    let store = Store::new();
    let apply = |object: Value, options: &WriteOptions| {
        store.apply(&deployments(), "default", "web", Subresource::Main, object, options)
    };
    let (created, new) = apply(deployment("web"), &by("one")).unwrap();
    assert!(new);
    assert_eq!(managers(&created), [("one", "Apply")]);
    let (again, new) = apply(deployment("web"), &by("one")).unwrap();
    assert!(!new);
    assert_eq!(again, created, "applying the same keeps the revision");
    let mut scaled = deployment("web");
    scaled["spec"]["template"]["spec"]["containers"][0]["image"] = json!("c:2");
    let error = apply(scaled.clone(), &by("two")).unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (409, "Conflict"));
    assert_eq!(error.details["causes"][0]["reason"], "FieldManagerConflict");
    let force = WriteOptions { force: true, ..by("two") };
    let (taken, _) = apply(scaled, &force).unwrap();
    assert_eq!(taken["spec"]["template"]["spec"]["containers"][0]["image"], "c:2");
    assert_eq!(taken["metadata"]["generation"], 2);
    assert_eq!(
        store
            .apply(&deployments(), "default", "web", Subresource::Main, deployment("web"), &options())
            .unwrap_err()
            .code,
        400
    );
}

#[test]
fn apply_removes_what_its_manager_leaves_out() {
    let store = Store::new();
    let apply = |data: Value| {
        let object = json!({"metadata": {"name": "a"}, "data": data});
        store.apply(&configmaps(), "default", "a", Subresource::Main, object, &by("one")).unwrap().0
    };
    apply(json!({"kept": "1", "left": "2"}));
    let mut add = |object: &mut Value| {
        object["data"]["other"] = json!("3");
        Ok(())
    };
    store.modify(&configmaps(), "default", "a", Subresource::Main, &by("two"), &mut add).unwrap();
    assert_eq!(apply(json!({"kept": "1"}))["data"], json!({"kept": "1", "other": "3"}));
}

#[test]
fn writes_note_their_manager_and_a_put_without_managers_keeps_them() {
    let store = Store::new();
    let created = store.create(&deployments(), "default", deployment("web"), &by("creator")).unwrap();
    assert_eq!(managers(&created), [("creator", "Update")]);
    let again =
        store.update(&deployments(), "default", "web", Subresource::Main, deployment("web"), &by("other")).unwrap();
    assert_eq!(created, again, "nothing changed, so nobody is noted");
    let mut status = |object: &mut Value| {
        object["status"] = json!({"replicas": 1});
        Ok(())
    };
    let told =
        store.modify(&deployments(), "default", "web", Subresource::Status, &by("controller"), &mut status).unwrap();
    let entries = told["metadata"]["managedFields"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["manager"] == "controller").unwrap();
    assert_eq!(entry["subresource"], "status");
    let mut reset = |object: &mut Value| {
        object["metadata"]["managedFields"] = json!([{}]);
        Ok(())
    };
    let bare = store.modify(&deployments(), "default", "web", Subresource::Main, &options(), &mut reset).unwrap();
    assert_eq!(bare["metadata"].get("managedFields"), None);
}

fn widgets() -> Value {
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
    assert_eq!(error.code, 400);
    assert!(error.message.contains("cannot unmarshal string into Go struct field"), "{error}");
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

mod replay {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u8, u8),
        Delete(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..6u8, 0..3u8).prop_map(|(name, value)| Step::Write(name, value)),
            1 => (0..6u8).prop_map(Step::Delete),
        ];
        proptest::collection::vec(step, 0..40)
    }

    fn perform(store: &Store, step: &Step) {
        match step {
            Step::Write(name, value) => {
                let (name, object) = (format!("n{name}"), config(&format!("n{name}"), &value.to_string()));
                if store.get(&configmaps(), "default", &name).is_ok() {
                    store.update(&configmaps(), "default", &name, Subresource::Main, object, &options()).unwrap();
                } else {
                    store.create(&configmaps(), "default", object, &options()).unwrap();
                }
            }
            Step::Delete(name) => {
                let _ = store.delete(&configmaps(), "default", &format!("n{name}"), &DeleteOptions::default());
            }
        }
    }

    type Known = BTreeMap<String, Object>;

    fn by_name(objects: Vec<Object>) -> Known {
        objects.into_iter().map(|object| (object["metadata"]["name"].as_str().unwrap().to_owned(), object)).collect()
    }

    fn replay(known: &mut Known, events: Vec<Event>) {
        for event in events {
            let name = |object: &Object| object["metadata"]["name"].as_str().unwrap().to_owned();
            match event {
                Event::Added(object) => assert!(known.insert(name(&object), object).is_none()),
                Event::Modified(object) => assert!(known.insert(name(&object), object).is_some()),
                Event::Deleted(object) => assert!(known.remove(&name(&object)).is_some()),
                Event::InitialEventsEnd(_) => {}
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// A list and the watch after it make the later list; so does a watch with initial events; with a selector too.
        #[test]
        fn a_watch_replayed_onto_a_list_is_the_later_list(before in steps(), between in steps(), after in steps()) {
            for labels in ["", "value=1", "value!=1"] {
                let store = Store::new();
                let selectors = Selectors { labels: labels.to_owned(), fields: String::new() };
                before.iter().for_each(|step| perform(&store, step));
                let list = store.list(&configmaps(), None, &selectors).unwrap();
                let mut whole = store.watch(&configmaps(), None, &selectors, Start::InitialEvents).unwrap();
                between.iter().for_each(|step| perform(&store, step));
                let mut late = store.watch(&configmaps(), None, &selectors, Start::After(list.revision)).unwrap();
                after.iter().for_each(|step| perform(&store, step));
                let wanted = by_name(store.list(&configmaps(), None, &selectors).unwrap().items);
                let mut known = by_name(list.items);
                replay(&mut known, drain(&mut late));
                prop_assert_eq!(&known, &wanted);
                let mut known = Known::new();
                replay(&mut known, drain(&mut whole));
                prop_assert_eq!(&known, &wanted);
            }
        }
    }
}
