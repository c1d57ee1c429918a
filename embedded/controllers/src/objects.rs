//! Reading and writing objects: paths, owners, conditions, selectors.

use meshgate_store::{GroupResource, Object, Selectors, Status, Store, Subresource, WriteOptions, at};
use serde_json::{Map, Value, json};

use crate::time;

/// Resources that controllers name.
pub(crate) mod resources {
    use super::GroupResource;

    macro_rules! resources {
        ($($function:ident: $group:literal $plural:literal),* $(,)?) => {
            $(pub(crate) fn $function() -> GroupResource {
                GroupResource::new($group, $plural)
            })*
        };
    }

    resources! {
        config_maps: "" "configmaps",
        endpoints: "" "endpoints",
        events: "" "events",
        namespaces: "" "namespaces",
        nodes: "" "nodes",
        pods: "" "pods",
        service_accounts: "" "serviceaccounts",
        services: "" "services",
        daemon_sets: "apps" "daemonsets",
        deployments: "apps" "deployments",
        replica_sets: "apps" "replicasets",
        stateful_sets: "apps" "statefulsets",
        jobs: "batch" "jobs",
        endpoint_slices: "discovery.k8s.io" "endpointslices",
    }
}

/// The string at a JSON pointer, `""` when there is none.
pub(crate) fn str_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a JSON pointer, 0 when there is none.
pub(crate) fn int_at(value: &Value, pointer: &str) -> i64 {
    at(value, pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// The boolean at a JSON pointer, false when there is none.
pub(crate) fn bool_at(value: &Value, pointer: &str) -> bool {
    at(value, pointer).and_then(Value::as_bool).unwrap_or(false)
}

/// The elements of the array at a JSON pointer.
pub(crate) fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    at(value, pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// `metadata.name`.
pub(crate) fn name(object: &Value) -> &str {
    str_at(object, "/metadata/name")
}

/// `metadata.namespace`, `""` when cluster-scoped.
pub(crate) fn namespace(object: &Value) -> &str {
    str_at(object, "/metadata/namespace")
}

/// `metadata.uid`.
pub(crate) fn uid(object: &Value) -> &str {
    str_at(object, "/metadata/uid")
}

/// Whether the object is being deleted.
pub(crate) fn deleting(object: &Value) -> bool {
    !str_at(object, "/metadata/deletionTimestamp").is_empty()
}

/// The object, or `None` when there is none.
pub(crate) fn find(
    store: &Store,
    resource: &GroupResource,
    namespace: &str,
    name: &str,
) -> Result<Option<Object>, Status> {
    match store.get(resource, namespace, name) {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The objects of a namespace.
pub(crate) fn list(store: &Store, resource: &GroupResource, namespace: &str) -> Result<Vec<Object>, Status> {
    Ok(store.list(resource, Some(namespace), &Selectors::default())?.items)
}

/// Changes the main part of an object. One that is gone by now is no error.
pub(crate) fn change(
    store: &Store,
    resource: &GroupResource,
    object: &Value,
    mut change: impl FnMut(&mut Value),
) -> Result<(), Status> {
    write(store, resource, object, Subresource::Main, &mut change)
}

/// Replaces the status of an object. One that is gone by now is no error.
pub(crate) fn set_status(
    store: &Store,
    resource: &GroupResource,
    object: &Value,
    status: &Value,
) -> Result<(), Status> {
    write(store, resource, object, Subresource::Status, &mut |object| object["status"] = status.clone())
}

/// Changes the status of an object where others may write it too. One that is gone by now is no error.
pub(crate) fn change_status(
    store: &Store,
    resource: &GroupResource,
    object: &Value,
    mut change: impl FnMut(&mut Value),
) -> Result<(), Status> {
    write(store, resource, object, Subresource::Status, &mut |object| {
        if !object["status"].is_object() {
            object["status"] = json!({});
        }
        change(&mut object["status"]);
    })
}

fn write(
    store: &Store,
    resource: &GroupResource,
    object: &Value,
    subresource: Subresource,
    change: &mut dyn FnMut(&mut Value),
) -> Result<(), Status> {
    let mut change = |object: &mut Value| {
        change(object);
        Ok(())
    };
    match store.modify(resource, namespace(object), name(object), subresource, &options(), &mut change) {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Creates an object as the controllers' manager.
pub(crate) fn create(
    store: &Store,
    resource: &GroupResource,
    namespace: &str,
    object: Value,
) -> Result<Object, Status> {
    store.create(resource, namespace, object, &options())
}

/// How controllers write.
pub(crate) fn options() -> WriteOptions {
    WriteOptions { manager: MANAGER.to_owned(), ..WriteOptions::default() }
}

/// Deletes an object as the garbage collector would. One that is gone by now is no error.
pub(crate) fn delete(store: &Store, resource: &GroupResource, object: &Value) -> Result<(), Status> {
    let options = meshgate_store::DeleteOptions { uid: Some(uid(object).to_owned()), ..Default::default() };
    match store.delete(resource, namespace(object), name(object), &options) {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// The name in `managedFields` of what controllers write.
const MANAGER: &str = "kube-controller-manager";

/// A reference to the controlling owner.
pub(crate) fn controller_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": name(owner), "uid": uid(owner),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// The reference to the controlling owner, if there is one.
pub(crate) fn controller_of(object: &Value) -> Option<&Value> {
    items(object, "/metadata/ownerReferences").iter().find(|owner| bool_at(owner, "/controller"))
}

/// Whether `object` is controlled by `owner`.
pub(crate) fn is_controlled_by(object: &Value, owner: &Value) -> bool {
    controller_of(object).is_some_and(|reference| str_at(reference, "/uid") == uid(owner))
}

/// A `LabelSelector` as the query that `Store::list` takes.
pub(crate) fn selector_query(selector: &Value) -> String {
    let mut terms: Vec<String> = Vec::new();
    for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
        terms.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    for expression in items(selector, "/matchExpressions") {
        let key = str_at(expression, "/key");
        let values: Vec<&str> = items(expression, "/values").iter().filter_map(Value::as_str).collect();
        let values = values.join(",");
        terms.push(match str_at(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    terms.join(",")
}

/// The objects of a namespace that a `LabelSelector` selects. An empty selector selects nothing here, because
/// controllers must not take what is not theirs.
pub(crate) fn select(
    store: &Store,
    resource: &GroupResource,
    namespace: &str,
    selector: &Value,
) -> Result<Vec<Object>, Status> {
    let labels = selector_query(selector);
    if labels.is_empty() {
        return Ok(Vec::new());
    }
    Ok(store.list(resource, Some(namespace), &Selectors { labels, fields: String::new() })?.items)
}

/// Whether `labels` has every pair of a plain map selector; an empty selector selects nothing.
pub(crate) fn selects(selector: Option<&Map<String, Value>>, labels: &Value) -> bool {
    selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    })
}

/// The condition of a type in a status.
pub(crate) fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    items(status, "/conditions").iter().find(|condition| str_at(condition, "/type") == kind)
}

/// Whether the condition of a type is `True`.
pub(crate) fn is_true(status: &Value, kind: &str) -> bool {
    condition(status, kind).is_some_and(|condition| str_at(condition, "/status") == "True")
}

/// Sets a condition. The transition time moves only with the condition's status, `lastUpdateTime` (where the kind has it)
/// with any change.
pub(crate) fn set_condition(
    status: &mut Value,
    kind: &str,
    state: &str,
    reason: &str,
    message: &str,
    update_time: bool,
) {
    let old = condition(status, kind).cloned().unwrap_or_default();
    let unchanged = str_at(&old, "/status") == state;
    if unchanged && str_at(&old, "/reason") == reason && str_at(&old, "/message") == message {
        return;
    }
    let now = time::now();
    let transition = if unchanged { str_at(&old, "/lastTransitionTime").to_owned() } else { now.clone() };
    let mut new =
        json!({"type": kind, "status": state, "reason": reason, "message": message, "lastTransitionTime": transition});
    if update_time {
        new["lastUpdateTime"] = json!(now);
    }
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|condition| str_at(condition, "/type") == kind) {
        Some(condition) => *condition = new,
        None => conditions.push(new),
    }
}

/// Removes a condition.
pub(crate) fn remove_condition(status: &mut Value, kind: &str) {
    if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
        conditions.retain(|condition| str_at(condition, "/type") != kind);
    }
}

/// Forgets what a condition said, but not since when it has its status, so that setting it counts as news.
pub(crate) fn renew_condition(status: &mut Value, kind: &str) {
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    let condition = conditions.and_then(|list| list.iter_mut().find(|condition| str_at(condition, "/type") == kind));
    if let Some(condition) = condition.and_then(Value::as_object_mut) {
        condition.remove("reason");
    }
}
