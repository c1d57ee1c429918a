//! What a write needs from other objects: its namespace, a pod's service account, a Service's addresses.

mod addresses;

use serde_json::{Value, json};

use super::Object;
use super::state::State;
use crate::json::{default_to, items, str_at, unset};
use crate::{GroupResource, ResourceType, Status, crds, defaults, meta};

/// Marks the IngressClass that Ingresses without a class get.
const DEFAULT_CLASS: &str = "/metadata/annotations/ingressclass.kubernetes.io~1is-default-class";

/// Refuses a new object whose namespace is missing or being deleted.
pub(super) fn namespace(state: &State, kind: &ResourceType, namespace: &str, name: &str) -> Result<(), Status> {
    if !kind.namespaced {
        return Ok(());
    }
    let found = state.get(&GroupResource::new("", "namespaces"), "", namespace)?;
    if str_at(&found, "/metadata/deletionTimestamp").is_empty() {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut status = Status::forbidden(&kind.resource, name, &why);
    status.details["causes"] = json!([{
        "reason": "NamespaceTerminating",
        "message": format!("namespace {namespace} is being terminated"),
        "field": "metadata.namespace",
    }]);
    Err(status)
}

/// Refuses a new object whose CRD is being deleted.
pub(super) fn definition(state: &State, kind: &ResourceType, name: &str) -> Result<(), Status> {
    if state.definition(kind).is_some_and(|crd| crds::is_terminating(crd)) {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(Status::forbidden(&kind.resource, name, why));
    }
    Ok(())
}

/// Completes an object from others of the store, or refuses it.
pub(super) fn admit(
    state: &State,
    kind: &ResourceType,
    old: Option<&Object>,
    object: &mut Value,
) -> Result<(), Status> {
    if !kind.builtin {
        return Ok(());
    }
    match (kind.kind.as_str(), old) {
        ("Pod", None) => pod(state, kind, object),
        ("Service", old) => addresses::assign(state, kind, old, object),
        ("Ingress", None) => {
            ingress_class(state, object);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The admission plugins `ServiceAccount`, `Priority` and `DefaultTolerationSeconds`.
fn pod(state: &State, kind: &ResourceType, pod: &mut Value) -> Result<(), Status> {
    let namespace = str_at(pod, "/metadata/namespace").to_owned();
    let name = str_at(pod, "/metadata/name").to_owned();
    let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) else { return Ok(()) };
    default_to(spec, "serviceAccountName", "default");
    let account_name = str_at(spec, "/serviceAccountName").to_owned();
    spec["serviceAccount"] = json!(account_name);
    let Some(account) = state.find(&GroupResource::new("", "serviceaccounts"), &namespace, &account_name) else {
        let why = format!(
            "error looking up service account {namespace}/{account_name}: serviceaccount \"{account_name}\" not found"
        );
        return Err(Status::forbidden(&kind.resource, &name, &why));
    };
    let automount = |value: &Value| value.get("automountServiceAccountToken").and_then(Value::as_bool);
    if automount(spec).or_else(|| automount(account)).unwrap_or(true) {
        defaults::token_volume(spec, &meta::suffix());
    }
    if unset(spec, "imagePullSecrets")
        && let Some(secrets) = account.get("imagePullSecrets")
    {
        spec["imagePullSecrets"] = secrets.clone();
    }
    default_to(spec, "priority", 0);
    default_to(spec, "preemptionPolicy", "PreemptLowerPriority");
    tolerations(spec);
    Ok(())
}

fn tolerations(spec: &mut Value) {
    default_to(spec, "tolerations", json!([]));
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let present = items(spec, "/tolerations").iter().any(|known| {
            str_at(known, "/key") == key || (unset(known, "key") && str_at(known, "/operator") == "Exists")
        });
        if !present && let Some(list) = spec.get_mut("tolerations").and_then(Value::as_array_mut) {
            list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
}

fn ingress_class(state: &State, ingress: &mut Value) {
    if ingress.pointer("/metadata/annotations/kubernetes.io~1ingress.class").is_some() {
        return;
    }
    let classes = GroupResource::new("networking.k8s.io", "ingressclasses");
    let default = state.objects(&classes).find(|class| str_at(class, DEFAULT_CLASS) == "true");
    if let (Some(class), Some(spec)) = (default, ingress.get_mut("spec")) {
        default_to(spec, "ingressClassName", str_at(class, "/metadata/name"));
    }
}
