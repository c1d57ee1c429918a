use serde_json::{Value, json};

use super::*;

mod definitions;
mod kinds;
mod watches;

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
fn the_end_of_the_last_finalizer_is_one_deletion() {
    let store = Store::new();
    let mut object = config("a", "1");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    store.create(&configmaps(), "default", object, &options()).unwrap();
    let mut watch = store.watch(&configmaps(), None, &Selectors::default(), Start::Now).unwrap();
    store.delete(&configmaps(), "default", "a", &DeleteOptions::default()).unwrap();
    let mut free = |object: &mut Value| {
        object["metadata"].as_object_mut().unwrap().remove("finalizers");
        Ok(())
    };
    let answer = store.modify(&configmaps(), "default", "a", Subresource::Main, &options(), &mut free).unwrap();
    let events = drain(&mut watch);
    let [Event::Added(_), Event::Modified(marked), Event::Deleted(gone)] = events.as_slice() else {
        panic!("unexpected events: {events:?}")
    };
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(gone["metadata"]["finalizers"], json!(["example.com/hold"]), "watches see it as it was");
    assert_eq!(answer["metadata"].get("finalizers"), None, "the writer sees what it wrote");
    assert_eq!(revision_of(gone), revision_of(marked) + 1, "one write is one revision");
    assert_eq!(revision_of(&answer), revision_of(gone));
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
fn who_applies_nothing_any_more_owns_nothing() {
    let store = Store::new();
    let apply = |manager: &str, data: Value| {
        let object = json!({"metadata": {"name": "a"}, "data": data});
        store.apply(&configmaps(), "default", "a", Subresource::Main, object, &by(manager))
    };
    apply("one", json!({"a": "b"})).unwrap();
    let given_up = apply("one", Value::Null).unwrap().0;
    assert_eq!((given_up.get("data"), given_up["metadata"].get("managedFields")), (None, None));
    assert_eq!(apply("two", json!({"a": "c"})).unwrap().0["data"], json!({"a": "c"}), "no conflict");
}

#[test]
fn what_is_gone_is_not_made_anew_by_its_uid() {
    let object = json!({"metadata": {"name": "a", "uid": "zz"}, "data": {}});
    let error = Store::new().apply(&configmaps(), "default", "a", Subresource::Main, object, &by("one")).unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (409, "Conflict"));
    assert!(error.message.contains("uid mismatch: the provided object specified uid zz"), "{error}");
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
