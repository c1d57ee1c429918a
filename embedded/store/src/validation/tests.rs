use serde_json::{Value, json};

use super::has_same_content;
use crate::{DeleteOptions, GroupResource, Object, Status, Store, Subresource, WriteOptions};

/// An object that is taken, to be changed in one place at a time.
pub(super) struct Good {
    resource: GroupResource,
    object: Value,
}

impl Good {
    pub(super) fn new(group: &str, plural: &str, object: Value) -> Self {
        let good = Self { resource: GroupResource::new(group, plural), object };
        good.create(good.object.clone()).unwrap();
        good
    }

    fn create(&self, object: Value) -> Result<Object, Status> {
        let store = Store::new();
        let create = |resource: &GroupResource, namespace: &str, object: Value| {
            store.create(resource, namespace, object, &WriteOptions::default())
        };
        let account = json!({"metadata": {"name": "default"}});
        create(&GroupResource::new("", "serviceaccounts"), "default", account).unwrap();
        let is_namespaced = store.resource(&self.resource).unwrap().namespaced;
        create(&self.resource, if is_namespaced { "default" } else { "" }, object)
    }

    /// The object with another value at a pointer. Null takes a field out; an element may follow the last one of a
    /// list.
    fn with(&self, pointer: &str, value: &Value) -> Value {
        let mut object = self.object.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/");
        match object.pointer_mut(parent) {
            Some(Value::Object(map)) => {
                map.remove(&key);
                if !value.is_null() {
                    map.insert(key, value.clone());
                }
            }
            Some(Value::Array(list)) => {
                let index: usize = key.parse().unwrap();
                list.resize(list.len().max(index + 1), Value::Null);
                list[index] = value.clone();
            }
            _ => panic!("there is nothing at {parent}"),
        }
        object
    }

    /// Changes after which the object is still a good one: pointer and value.
    pub(super) fn takes(&self, changes: &[(&str, Value)]) {
        for (pointer, value) in changes {
            if let Err(error) = self.create(self.with(pointer, value)) {
                panic!("{pointer} = {value}: {error}");
            }
        }
    }

    /// Changes that break a rule: pointer and value, then the field that is complained of, and a part of the complaint.
    pub(super) fn refuses(&self, changes: &[(&str, Value, &str, &str)]) {
        for (pointer, value, field, part) in changes {
            let Err(error) = self.create(self.with(pointer, value)) else { panic!("{pointer} = {value} was taken") };
            assert_eq!((error.code, error.reason.as_str()), (422, "Invalid"), "{pointer} = {value}: {error}");
            let fits = |cause: &Value| cause["field"] == *field && cause["message"].as_str().unwrap().contains(part);
            let causes = error.details["causes"].as_array().unwrap();
            assert!(causes.iter().any(fits), "{pointer} = {value}: {causes:#?}");
        }
    }
}

fn refuse(group: &str, plural: &str, object: Value) -> String {
    let store = Store::new();
    let error =
        store.create(&GroupResource::new(group, plural), "default", object, &WriteOptions::default()).unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (422, "Invalid"), "{error}");
    assert!(!error.details["causes"].as_array().unwrap().is_empty());
    error.message
}

fn accept(group: &str, plural: &str, object: Value) {
    Store::new().create(&GroupResource::new(group, plural), "default", object, &WriteOptions::default()).unwrap();
}

fn template(labels: Value) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "c:1"}]}})
}

#[test]
fn names_are_checked() {
    let message = refuse("", "configmaps", json!({"metadata": {"name": "Not_A_Name"}}));
    assert!(message.starts_with("ConfigMap \"Not_A_Name\" is invalid: metadata.name: Invalid value: \"Not_A_Name\": a lowercase RFC 1123 subdomain"), "{message}");
    assert_eq!(
        refuse("", "configmaps", json!({"metadata": {}})),
        "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required"
    );
    accept("rbac.authorization.k8s.io", "roles", json!({"metadata": {"name": "system:read"}}));
    let message = refuse("", "configmaps", json!({"metadata": {"name": "a", "labels": {"a b": "c"}}}));
    assert!(message.contains("metadata.labels: Invalid value: \"a b\": name part must consist of"), "{message}");
}

#[test]
fn what_is_being_deleted_gets_no_new_finalizers() {
    let store = Store::new();
    let configmaps = GroupResource::new("", "configmaps");
    let object = json!({"metadata": {"name": "a", "finalizers": ["e.io/f"]}});
    store.create(&configmaps, "default", object, &WriteOptions::default()).unwrap();
    let set = |finalizers: Value| {
        let mut change = |object: &mut Value| {
            object["metadata"]["finalizers"] = finalizers.clone();
            Ok(())
        };
        store.modify(&configmaps, "default", "a", Subresource::Main, &WriteOptions::default(), &mut change)
    };
    set(json!(["e.io/f", "e.io/h"])).unwrap();
    assert!(!store.delete(&configmaps, "default", "a", &DeleteOptions::default()).unwrap().1);
    let error = set(json!(["e.io/f", "e.io/g", "e.io/i"])).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            422,
            "ConfigMap \"a\" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is \
             being deleted, found new finalizers []string{\"e.io/g\", \"e.io/i\"}"
        )
    );
    assert_eq!(error.details["causes"][0]["reason"], "FieldValueForbidden");
    let left = set(json!(["e.io/h"])).unwrap();
    assert_eq!(left["metadata"]["finalizers"], json!(["e.io/h"]), "one of the old ones may go");
}

#[test]
fn an_object_has_one_controller() {
    let owner = |name: &str, controller: bool| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": name, "controller": controller});
    let map = |owners: Value| json!({"metadata": {"name": "a", "ownerReferences": owners}});
    let message = refuse("", "configmaps", map(json!([owner("p", true), owner("q", true)])));
    assert!(message.contains("metadata.ownerReferences: Invalid value: ["), "{message}");
    assert!(message.ends_with("Found \"true\" in references for Pod/p and Pod/q"), "{message}");
    accept("", "configmaps", map(json!([owner("p", true), owner("q", false)])));
}

#[test]
fn a_selector_must_match_its_template() {
    let deployment = |labels: Value| {
        json!({
            "metadata": {"name": "web"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template(labels)},
        })
    };
    assert_eq!(
        refuse("apps", "deployments", deployment(json!({"app": "other"}))),
        "Deployment.apps \"web\" is invalid: spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: \
         `selector` does not match template `labels`"
    );
    accept("apps", "deployments", deployment(json!({"app": "web", "more": "yes"})));
    let without = json!({"metadata": {"name": "web"}, "spec": {"template": template(json!({}))}});
    assert_eq!(
        refuse("apps", "deployments", without),
        "Deployment.apps \"web\" is invalid: [spec.selector: Required value, spec.template.metadata.labels: Invalid value: \
         {}: `selector` does not match template `labels`]"
    );
}

#[test]
fn a_selector_may_not_change() {
    let store = Store::new();
    let deployments = GroupResource::new("apps", "deployments");
    let deployment = |app: &str| {
        json!({
            "metadata": {"name": "web"},
            "spec": {"selector": {"matchLabels": {"app": app}}, "template": template(json!({"app": app}))},
        })
    };
    store.create(&deployments, "default", deployment("web"), &WriteOptions::default()).unwrap();
    let error = store
        .update(&deployments, "default", "web", Subresource::Main, deployment("other"), &WriteOptions::default())
        .unwrap_err();
    assert_eq!(
        error.message,
        "Deployment.apps \"web\" is invalid: spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"other\"}}: field is immutable"
    );
}

#[test]
fn all_problems_are_told_at_once() {
    let pod = json!({"restartPolicy": "Never", "containers": [
        {"name": "c", "volumeMounts": [{"name": "data", "mountPath": "/data"}], "ports": [{"containerPort": 70000}]},
        {"name": "c", "image": "c:1"},
    ]});
    let message = refuse("batch", "jobs", json!({"metadata": {"name": "p"}, "spec": {"template": {"spec": pod}}}));
    for part in [
        "spec.template.spec.containers[0].image: Required value",
        "spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\"",
        "spec.template.spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        "spec.template.spec.containers[1].name: Duplicate value: \"c\"",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
}

#[test]
fn services_need_ports() {
    assert_eq!(
        refuse("", "services", json!({"metadata": {"name": "web"}, "spec": {}})),
        "Service \"web\" is invalid: spec.ports: Required value"
    );
    let message =
        refuse("", "services", json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}, {"port": 80}]}}));
    assert!(message.contains("spec.ports[0].name: Required value"), "{message}");
    assert!(message.contains("spec.ports[1]: Duplicate value"), "{message}");
    let message = refuse(
        "",
        "services",
        json!({"metadata": {"name": "web"}, "spec": {"type": "Fancy", "ports": [{"port": 80}]}}),
    );
    assert!(message.contains("spec.type: Unsupported value: \"Fancy\": supported values: \"ClusterIP\""), "{message}");
    accept("", "services", json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "None"}}));
}

#[test]
fn ingress_paths_need_type_and_backend() {
    let ingress = |path: Value| {
        json!({
            "metadata": {"name": "web"}, "spec": {"rules": [{"host": "web.example", "http": {"paths": [path]}}]},
        })
    };
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    assert_eq!(
        refuse("networking.k8s.io", "ingresses", ingress(json!({"path": "/", "backend": backend}))),
        "Ingress.networking.k8s.io \"web\" is invalid: spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"
    );
    let message = refuse(
        "networking.k8s.io",
        "ingresses",
        ingress(json!({"path": "web", "pathType": "Prefix", "backend": {"service": {"name": "web"}}})),
    );
    assert!(message.contains("path: Invalid value: \"web\": must be an absolute path"), "{message}");
    assert!(message.contains("backend: Required value: port name or number is required"), "{message}");
    accept("networking.k8s.io", "ingresses", ingress(json!({"path": "/", "pathType": "Prefix", "backend": backend})));
}

#[test]
fn leases() {
    let spec = json!({"leaseDurationSeconds": 15, "leaseTransitions": 0});
    let good = Good::new("coordination.k8s.io", "leases", json!({"metadata": {"name": "a"}, "spec": spec}));
    good.takes(&[("/spec", Value::Null), ("/spec/leaseDurationSeconds", Value::Null)]);
    good.refuses(&[
        ("/spec/leaseDurationSeconds", json!(0), "spec.leaseDurationSeconds", "must be greater than 0"),
        ("/spec/leaseTransitions", json!(-1), "spec.leaseTransitions", "must be greater than or equal to 0"),
    ]);
}

#[test]
fn what_is_written_for_its_status_has_the_same_content() {
    let old = json!({"metadata": {"name": "a"}, "spec": {"a": 1}});
    for (new, is_same) in [
        (json!({"metadata": {"name": "a", "labels": {}}, "spec": {"a": 1}, "status": {"b": 2}}), true),
        (json!({"metadata": {"name": "a"}, "spec": {"a": 2}}), false),
        (json!({"metadata": {"name": "a"}}), false),
        (json!({"metadata": {"name": "a"}, "spec": {"a": 1}, "data": {}}), false),
    ] {
        assert_eq!(has_same_content(&old, &new), is_same, "{new}");
    }
}
