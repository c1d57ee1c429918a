//! What the controllers of pods share: making them, claiming them, judging them.

use std::time::Duration;

use meshgate_admission::{Admission, Request};
use meshgate_store::{GroupResource, Object, Status, Store, Subresource, WriteOptions};
use serde_json::{Value, json};

use crate::events::{EventType, Recorder};
use crate::objects::{
    self, condition, controller_of, controller_reference, deleting, int_at, is_controlled_by, is_true, items, name,
    namespace, resources, select, str_at, uid,
};
use crate::time;

/// A pod from the template at `spec.template` of its owner, named after the owner.
pub(crate) fn from_template(owner: &Value, template: &Value) -> Value {
    let mut meta = json!({
        "generateName": format!("{}-", name(owner)),
        "namespace": namespace(owner),
        "ownerReferences": [controller_reference(owner)],
    });
    for key in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.pointer(&format!("/metadata/{key}")) {
            meta[key] = value.clone();
        }
    }
    json!({"metadata": meta, "spec": template["spec"]})
}

/// Creates a pod, if admission webhooks let it be, and tells of it in an event about the owner.
pub(crate) async fn create(store: &Store, events: &Recorder, owner: &Value, pod: Value) -> Result<Object, Status> {
    let created = admit(store, owner, pod).await;
    match &created {
        Ok(pod) => {
            events.record(owner, EventType::Normal, "SuccessfulCreate", &format!("Created pod: {}", name(pod)));
        }
        Err(error) => {
            events.record(owner, EventType::Warning, "FailedCreate", &format!("Error creating: {error}"));
        }
    }
    created
}

/// Creates a pod as a client would: the account of the controller is the one that asks.
async fn admit(store: &Store, owner: &Value, pod: Value) -> Result<Object, Status> {
    let account = format!("{}-controller", str_at(owner, "/kind").to_lowercase());
    let request = Request {
        user: json!({
            "username": format!("system:serviceaccount:kube-system:{account}"),
            "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
        }),
        resource: resources::pods(),
        kind: "Pod".to_owned(),
        version: "v1".to_owned(),
        namespace: namespace(owner).to_owned(),
        name: name(&pod).to_owned(),
        subresource: Subresource::Main,
    };
    let create = |pod, options: &WriteOptions| store.create(&request.resource, &request.namespace, pod, options);
    let written = Admission::new(store.clone()).write(&request, &objects::options(), pod, create).await?;
    for warning in written.warnings {
        tracing::warn!(warning, owner = name(owner), "an admission webhook warns of a pod");
    }
    Ok(written.object)
}

/// Deletes a pod and tells of it in an event about the owner.
pub(crate) fn delete(store: &Store, events: &Recorder, owner: &Value, pod: &Value) -> Result<(), Status> {
    objects::delete(store, &resources::pods(), pod)?;
    events.record(owner, EventType::Normal, "SuccessfulDelete", &format!("Deleted pod: {}", name(pod)));
    Ok(())
}

/// Whether the pod has neither ended nor is it being deleted.
pub(crate) fn is_active(pod: &Value) -> bool {
    !has_ended(pod) && !deleting(pod)
}

/// Whether the pod has succeeded or failed.
pub(crate) fn has_ended(pod: &Value) -> bool {
    matches!(str_at(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Whether the pod is ready.
pub(crate) fn is_ready(pod: &Value) -> bool {
    is_true(&pod["status"], "Ready")
}

/// Whether a pod has been ready for `min_ready` seconds: yes, no, or not before some time.
pub(crate) enum Availability {
    Available,
    Unavailable,
    In(Duration),
}

/// Judges whether a pod counts as available.
pub(crate) fn availability(pod: &Value, min_ready: i64) -> Availability {
    let Some(ready) = condition(&pod["status"], "Ready").filter(|_| is_ready(pod)) else {
        return Availability::Unavailable;
    };
    if min_ready <= 0 {
        return Availability::Available;
    }
    match time::left(str_at(ready, "/lastTransitionTime"), min_ready) {
        Some(left) => Availability::In(left),
        None => Availability::Available,
    }
}

/// How many pods are available, and when that may change by time alone.
pub(crate) fn count_available(pods: &[Object], min_ready: i64) -> (i64, Option<Duration>) {
    let mut count = 0;
    let mut next: Option<Duration> = None;
    for pod in pods {
        match availability(pod, min_ready) {
            Availability::Available => count += 1,
            Availability::Unavailable => {}
            Availability::In(left) => next = Some(next.map_or(left, |known| known.min(left))),
        }
    }
    (count, next)
}

/// A pod's claim to stay when some must go: unbound, pending, unready and young ones go first. Smaller goes first.
pub(crate) fn rank(pod: &Value) -> impl Ord + use<> {
    let phase = match str_at(pod, "/status/phase") {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    let restarts: i64 =
        items(pod, "/status/containerStatuses").iter().map(|status| int_at(status, "/restartCount")).sum();
    let bound = !str_at(pod, "/spec/nodeName").is_empty();
    let created = str_at(pod, "/metadata/creationTimestamp").to_owned();
    (bound, phase, is_ready(pod), std::cmp::Reverse(restarts), std::cmp::Reverse(created))
}

/// The objects of a resource that an owner controls, after taking in orphans its selector selects and
/// letting go of those it selects no more.
pub(crate) fn claim(
    store: &Store,
    resource: &GroupResource,
    owner: &Value,
    selector: &Value,
) -> Result<Vec<Object>, Status> {
    let mut claimed = Vec::new();
    let selected = select(store, resource, namespace(owner), selector)?;
    for object in &selected {
        if is_controlled_by(object, owner) {
            claimed.push(Object::clone(object));
        } else if controller_of(object).is_none() && !deleting(object) && !deleting(owner) {
            let reference = controller_reference(owner);
            objects::change(store, resource, object, |object| adopt(object, &reference))?;
            claimed.push(store.get(resource, namespace(object), name(object))?);
        }
    }
    if deleting(owner) {
        return Ok(claimed);
    }
    for object in objects::list(store, resource, namespace(owner))? {
        let selected = selected.iter().any(|known| uid(known) == uid(&object));
        if is_controlled_by(&object, owner) && !selected && !deleting(&object) {
            let owner = uid(owner).to_owned();
            objects::change(store, resource, &object, |object| release(object, &owner))?;
        }
    }
    Ok(claimed)
}

fn adopt(object: &mut Value, reference: &Value) {
    if controller_of(object).is_some() {
        return;
    }
    if !object["metadata"]["ownerReferences"].is_array() {
        object["metadata"]["ownerReferences"] = json!([]);
    }
    if let Some(owners) = object["metadata"]["ownerReferences"].as_array_mut() {
        owners.push(reference.clone());
    }
}

/// Drops the references to an owner.
pub(crate) fn release(object: &mut Value, owner: &str) {
    if let Some(owners) = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut) {
        owners.retain(|reference| str_at(reference, "/uid") != owner);
    }
}
