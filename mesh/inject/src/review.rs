//! `AdmissionReview` in, `AdmissionReview` out: what an injector in the cluster answers about a new pod.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::containers::PROXY_CONTAINER;
use crate::{Options, annotations, inject_object};

/// The prefix of annotations that a pod has from its namespace when it has none of the same name.
const CONFIG: &str = "config.linkerd.io/";

/// Why a review cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// It is no review of `admission.k8s.io/v1`.
    #[error("expected an AdmissionReview of admission.k8s.io/v1 with a request, found {0}")]
    NoReview(String),
}

fn request(review: &Value) -> Result<&Value, ReviewError> {
    let is_review = review["apiVersion"] == "admission.k8s.io/v1" && review["kind"] == "AdmissionReview";
    let request = &review["request"];
    if is_review && request["uid"].is_string() {
        return Ok(request);
    }
    Err(ReviewError::NoReview(format!("{} {}", review["apiVersion"], review["kind"])))
}

/// The namespace that [`review`] needs for an answer; `None` when the object is no pod.
///
/// # Errors
/// [`ReviewError::NoReview`].
pub fn reviewed_namespace(review: &Value) -> Result<Option<&str>, ReviewError> {
    let request = request(review)?;
    Ok(request["namespace"].as_str().filter(|_| request["object"]["kind"] == "Pod"))
}

/// Answers a review of a pod with a JSON patch that adds the proxy, if the pod, or else its namespace, asks for one by
/// annotation. Pods that have a proxy, and other objects, are allowed as they are.
///
/// `namespace` is the Namespace object of the pod.
///
/// # Errors
/// [`ReviewError::NoReview`].
pub fn review(review: &Value, namespace: &Value, options: &Options) -> Result<Value, ReviewError> {
    let request = request(review)?;
    let mut response = json!({"uid": request["uid"], "allowed": true});
    if let Some(patch) = patch(request, namespace, options) {
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(STANDARD.encode(patch.to_string()));
    }
    Ok(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
}

fn patch(request: &Value, namespace: &Value, options: &Options) -> Option<Value> {
    let pod = &request["object"];
    if pod["kind"] != "Pod" || has_proxy(pod) {
        return None;
    }
    let mut injected = pod.clone();
    // What controllers create may have no namespace of its own yet.
    injected["metadata"]["namespace"] = request["namespace"].clone();
    inherit(&mut injected, namespace);
    if !inject_object(&mut injected, options).changed() {
        return None;
    }
    if let Some((kind, name)) = owner(pod) {
        injected["metadata"]["labels"][format!("linkerd.io/proxy-{kind}")] = json!(name);
    }
    let mut operations = Vec::new();
    for (part, keys) in
        [("metadata", &["labels", "annotations"][..]), ("spec", &["volumes", "initContainers", "containers"])]
    {
        for key in keys {
            let new = &injected[part][*key];
            if pod[part][*key] != *new {
                operations.push(json!({"op": "add", "path": format!("/{part}/{key}"), "value": new}));
            }
        }
    }
    Some(Value::Array(operations))
}

fn has_proxy(pod: &Value) -> bool {
    let lists = ["containers", "initContainers"].into_iter().filter_map(|list| pod["spec"][list].as_array());
    lists.flatten().any(|container| container["name"] == PROXY_CONTAINER)
}

/// Gives a pod the annotations of its namespace that concern the proxy.
fn inherit(pod: &mut Value, namespace: &Value) {
    let Some(from) = namespace.pointer("/metadata/annotations").and_then(Value::as_object) else { return };
    if !pod["metadata"]["annotations"].is_object() {
        pod["metadata"]["annotations"] = json!({});
    }
    let Some(own) = pod["metadata"]["annotations"].as_object_mut() else { return };
    for (key, value) in from {
        if key == annotations::INJECT || key.starts_with(CONFIG) {
            own.entry(key).or_insert_with(|| value.clone());
        }
    }
}

/// The workload that a pod belongs to: its kind, lower case, and name. Of a Deployment the pod knows by its ReplicaSet's name.
fn owner(pod: &Value) -> Option<(String, &str)> {
    let owners = pod.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    let (kind, name) = (owner["kind"].as_str()?, owner["name"].as_str()?);
    let hash = pod.pointer("/metadata/labels/pod-template-hash").and_then(Value::as_str);
    let deployment = hash.and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
    match deployment.filter(|_| kind == "ReplicaSet") {
        Some(deployment) => Some(("deployment".to_owned(), deployment)),
        None => Some((kind.to_lowercase(), name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scope;

    fn options() -> Options {
        Options { scope: Scope::Annotated, ..Options::default() }
    }

    fn asked(annotations: Value, containers: Value) -> Value {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "generateName": "web-5d8f-", "annotations": annotations, "labels": {"app": "web", "pod-template-hash": "5d8f"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d8f", "controller": true}],
            },
            "spec": {"containers": containers},
        });
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {"uid": "u", "namespace": "demo", "object": pod},
        })
    }

    fn web() -> Value {
        json!([{"name": "web", "image": "web"}])
    }

    fn namespace(annotations: Value) -> Value {
        json!({"metadata": {"name": "demo", "annotations": annotations}})
    }

    /// What the patch adds, by path; empty without a patch.
    fn added(question: &Value, namespace: &Value) -> Vec<(String, Value)> {
        let answer = review(question, namespace, &options()).unwrap();
        let response = &answer["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("u"), &json!(true)));
        let Some(patch) = response["patch"].as_str() else { return Vec::new() };
        assert_eq!(response["patchType"], "JSONPatch");
        let patch: Vec<Value> = serde_json::from_slice(&STANDARD.decode(patch).unwrap()).unwrap();
        assert!(patch.iter().all(|operation| operation["op"] == "add"));
        let pair = |mut operation: Value| (operation["path"].as_str().unwrap().to_owned(), operation["value"].take());
        patch.into_iter().map(pair).collect()
    }

    #[test]
    fn the_pod_or_its_namespace_asks() {
        let enabled = json!({"linkerd.io/inject": "enabled"});
        let disabled = json!({"linkerd.io/inject": "disabled"});
        for (pod, namespace_has, injected) in [
            (&enabled, &json!({}), true),
            (&json!(null), &enabled, true),
            (&disabled, &enabled, false),
            (&json!({}), &json!({}), false),
        ] {
            let added = added(&asked(pod.clone(), web()), &namespace(namespace_has.clone()));
            assert_eq!(!added.is_empty(), injected, "pod {pod}, namespace {namespace_has}");
        }
    }

    #[test]
    fn the_patch_adds_what_the_injector_adds() {
        let question = asked(json!({"linkerd.io/inject": "ingress"}), web());
        let added = added(&question, &namespace(json!({"config.linkerd.io/proxy-log-level": "debug"})));
        let value = |path: &str| &added.iter().find(|(at, _)| at == path).unwrap_or_else(|| panic!("{path}")).1;
        assert_eq!(value("/spec/containers")[0]["name"], PROXY_CONTAINER);
        assert_eq!(value("/spec/containers")[1]["name"], "web");
        assert_eq!(value("/spec/initContainers")[0]["name"], "linkerd-init");
        assert_eq!(value("/metadata/labels")["app"], "web");
        assert_eq!(value("/metadata/labels")["linkerd.io/proxy-deployment"], "web");
        assert_eq!(value("/metadata/labels")["linkerd.io/workload-ns"], "demo");
        assert_eq!(value("/metadata/annotations")["linkerd.io/inject"], "ingress");
        assert_eq!(value("/metadata/annotations")["config.linkerd.io/proxy-log-level"], "debug");
    }

    #[test]
    fn a_pod_with_a_proxy_stays() {
        let containers = json!([{"name": "web", "image": "web"}, {"name": PROXY_CONTAINER, "image": "other"}]);
        let question = asked(json!({"linkerd.io/inject": "enabled"}), containers);
        assert_eq!(added(&question, &namespace(json!({}))), []);
    }

    #[test]
    fn what_is_no_review_of_a_pod() {
        let error = review(&json!({"kind": "Pod"}), &Value::Null, &options()).unwrap_err();
        assert!(error.to_string().contains("expected an AdmissionReview"), "{error}");
        let mut question = asked(json!({"linkerd.io/inject": "enabled"}), web());
        assert_eq!(reviewed_namespace(&question), Ok(Some("demo")));
        question["request"]["object"]["kind"] = json!("Service");
        assert_eq!(reviewed_namespace(&question), Ok(None));
        assert_eq!(added(&question, &Value::Null), []);
    }
}
