//! The rules of writing: what a request becomes before it is stored, or why it is refused.

use std::sync::Arc;

use serde_json::{Value, json};

use super::admission;
use super::state::State;
use super::{DeleteOptions, Draft, Object, Subresource, WriteOptions};
use crate::fields::Given;
use crate::invalid::FieldErrors;
use crate::json::{drop_meta, int_at, items, set_meta, str_at};
use crate::{GroupResource, ResourceType, Status, Warnings, conversion, crds, defaults, fields, meta, validation};

/// Namespaces that may not be deleted.
const PERMANENT: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Holds an owner until its dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";

/// Holds an owner until its dependents are freed of it.
const ORPHAN: &str = "orphan";

/// Who keeps `managedFields`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ownership {
    /// This write notes what it changes.
    Noted,
    /// An apply, or who changed a Scale, has settled it before.
    Settled,
}

/// Creates an object.
pub(super) fn create(
    state: &mut State,
    resource: &GroupResource,
    namespace: &str,
    object: Value,
    options: &WriteOptions,
) -> Result<Object, Status> {
    create_owned(state, resource, namespace, object, options, Ownership::Noted)
}

fn create_owned(
    state: &mut State,
    resource: &GroupResource,
    namespace: &str,
    mut object: Value,
    options: &WriteOptions,
    ownership: Ownership,
) -> Result<Object, Status> {
    let kind = state.resource(resource)?;
    let version = meta::check_kind(&kind, &object)?;
    fields::decode(&kind, &version, &mut object, options)?;
    conversion::upgrade(&kind, &version, &mut object);
    meta::prepare_create(&kind, namespace, &mut object)?;
    meta::stamp_kind(&kind, &mut object);
    let name = str_at(&object, "/metadata/name").to_owned();
    admission::namespace(state, &kind, namespace, &name)?;
    admission::definition(state, &kind, &name)?;
    if !name.is_empty() && state.find(resource, namespace, &name).is_some() {
        return Err(Status::already_exists(resource, &name));
    }
    defaults::first_status(&kind, &mut object);
    complete(state, &kind, &version, None, Subresource::Main, &mut object)?;
    validation::check(&kind, &version, None, &object)?;
    if ownership == Ownership::Noted {
        fields::track(&kind, None, &mut object, Subresource::Main, options);
    }
    if options.dry_run {
        return Ok(Arc::new(object));
    }
    Ok(state.commit(resource, None, object))
}

/// Custom objects cannot be replaced blindly: a PUT must say which revision it is based on.
pub(super) fn check_unconditional(kind: &ResourceType, object: &Value, name: &str) -> Result<(), Status> {
    let mut errors = FieldErrors::default();
    if !kind.builtin && str_at(object, "/metadata/resourceVersion").is_empty() {
        errors.invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
    }
    errors.into_result(kind, name)
}

/// What a change in place may not do: it has seen which object it is.
pub(super) fn check_change(kind: &ResourceType, current: &Value, object: &Value) -> Result<(), Status> {
    let name = str_at(current, "/metadata/name");
    let uid = str_at(object, "/metadata/uid");
    let mut errors = FieldErrors::default();
    if !uid.is_empty() && uid != str_at(current, "/metadata/uid") {
        errors.invalid("metadata.uid", &json!(uid), "field is immutable");
    }
    errors.into_result(kind, name)?;
    check_unconditional(kind, object, name)
}

/// Replaces `current`, which must be the stored object.
pub(super) fn replace(
    state: &mut State,
    resource: &GroupResource,
    current: &Object,
    subresource: Subresource,
    mut object: Value,
    options: &WriteOptions,
    given: Given,
) -> Result<Object, Status> {
    let ownership = match (given, subresource) {
        (Given::Merged, _) | (_, Subresource::Scale) => Ownership::Settled,
        (Given::Whole | Given::Patched, Subresource::Main | Subresource::Status) => Ownership::Noted,
    };
    let kind = state.resource(resource)?;
    let version = meta::check_kind(&kind, &object)?;
    fields::decode_changes(&kind, &version, current, &mut object, options, given)?;
    conversion::upgrade(&kind, &version, &mut object);
    let is_nobodys = ownership == Ownership::Settled && object.pointer("/metadata/managedFields").is_none();
    meta::prepare_update(&kind, current, &mut object)?;
    meta::stamp_kind(&kind, &mut object);
    keep_the_other_part(&kind, current, subresource, &mut object);
    if is_nobodys {
        // What a PUT does not say is kept; what an apply leaves to nobody is nobody's.
        drop_meta(&mut object, "managedFields");
    }
    complete(state, &kind, &version, Some(current), subresource, &mut object)?;
    if meta::same(current, &object) {
        return Ok(Arc::clone(current));
    }
    validation::check(&kind, &version, Some(current), &object)?;
    meta::bump_generation(&kind, current, &mut object);
    if ownership == Ownership::Noted {
        fields::track(&kind, Some(current), &mut object, subresource, options);
    }
    if options.dry_run {
        return Ok(Arc::new(object));
    }
    Ok(commit(state, resource, Some(current), object))
}

/// Stores an object, or removes it when it was deleted and nothing holds it any more.
fn commit(state: &mut State, resource: &GroupResource, current: Option<&Object>, mut object: Value) -> Object {
    match current {
        // Whoever takes the last finalizer away is answered with what they wrote; watches see one deletion and no change before it.
        Some(current) if released(&object) => {
            let gone = state.commit_removal(resource, current);
            set_meta(&mut object, "resourceVersion", revision(&gone));
            Arc::new(object)
        }
        _ => state.commit(resource, current, object),
    }
}

/// Fills in what the client left out: defaults, and what other objects of the store say.
fn complete(
    state: &State,
    kind: &ResourceType,
    version: &str,
    current: Option<&Object>,
    subresource: Subresource,
    object: &mut Value,
) -> Result<(), Status> {
    if subresource != Subresource::Status {
        defaults::apply(kind, object);
    }
    fields::apply_defaults(kind, version, object);
    admission::admit(state, kind, current, object)
}

/// Writes what became of a draft.
pub(super) fn settle(
    state: &mut State,
    resource: &GroupResource,
    draft: &Draft,
    mut object: Value,
    options: &WriteOptions,
) -> Result<Object, Status> {
    let kind = state.resource(resource)?;
    let (namespace, name) = (str_at(&draft.object, "/metadata/namespace"), str_at(&draft.object, "/metadata/name"));
    let current = state.find(resource, namespace, name).map(Arc::clone);
    match (&draft.current, &current) {
        (None, Some(_)) => return Err(Status::already_exists(resource, name)),
        (None, None) => {
            admission::namespace(state, &kind, namespace, name)?;
            admission::definition(state, &kind, name)?;
        }
        (Some(_), None) => return Err(Status::not_found(resource, name)),
        (Some(then), Some(now)) if revision(then) != revision(now) => return Err(Status::stale(resource, name)),
        (Some(_), Some(_)) => {}
    }
    for field in ["name", "namespace", "uid"] {
        let pointer = format!("/metadata/{field}");
        if str_at(&object, &pointer) != str_at(&draft.object, &pointer) {
            let (is, was) = (str_at(&object, &pointer), str_at(&draft.object, &pointer));
            let message = format!("admission may not change metadata.{field}: expected {was:?}, found {is:?}");
            return Err(Status::bad_request(message));
        }
    }
    let version = meta::check_kind(&kind, &object)?;
    // What webhooks add that the kind does not have is nobody's mistake who could be told.
    fields::decode(&kind, &version, &mut object, &WriteOptions::default())?;
    meta::stamp_kind(&kind, &mut object);
    keep_the_other_part(&kind, current.as_ref().unwrap_or(&draft.object), draft.subresource, &mut object);
    complete(state, &kind, &version, current.as_ref(), draft.subresource, &mut object)?;
    match &current {
        Some(current) if meta::same(current, &object) => return Ok(Arc::clone(current)),
        Some(current) => {
            // The draft has counted its own change; what admission changed belongs to the same one.
            if let Some(generation) = current.pointer("/metadata/generation") {
                set_meta(&mut object, "generation", generation.clone());
            }
            meta::bump_generation(&kind, current, &mut object);
        }
        None => {}
    }
    validation::check(&kind, &version, current.as_deref(), &object)?;
    fields::track(&kind, Some(&draft.object), &mut object, draft.subresource, options);
    if options.dry_run {
        return Ok(Arc::new(object));
    }
    Ok(commit(state, resource, current.as_ref(), object))
}

fn revision(object: &Value) -> &str {
    str_at(object, "/metadata/resourceVersion")
}

/// Where status is a subresource, the main resource keeps the old status and the status changes nothing else.
fn keep_the_other_part(kind: &ResourceType, current: &Value, subresource: Subresource, object: &mut Value) {
    match subresource {
        Subresource::Main | Subresource::Scale if !meta::has_status(kind) => {}
        Subresource::Main | Subresource::Scale => match current.get("status") {
            Some(status) => object["status"] = status.clone(),
            None => {
                object.as_object_mut().map(|map| map.remove("status"));
            }
        },
        Subresource::Status => restore_all_but_status(current, object),
    }
}

/// What is as it was, which is most of a large object, is not copied.
fn restore_all_but_status(current: &Value, object: &mut Value) {
    let (Some(old), Some(new)) = (current.as_object(), object.as_object_mut()) else { return };
    let metadata = new.get_mut("metadata").filter(|metadata| old.get("metadata") != Some(metadata));
    let managers = metadata.and_then(Value::as_object_mut).and_then(|metadata| metadata.remove("managedFields"));
    new.retain(|key, _| key == "status" || old.contains_key(key));
    for (key, value) in old.iter().filter(|(key, _)| *key != "status") {
        if new.get(key) != Some(value) {
            new.insert(key.clone(), value.clone());
        }
    }
    if let Some(managers) = managers {
        set_meta(object, "managedFields", managers);
    }
}

/// Whether nothing holds a deleted object any more.
fn released(object: &Value) -> bool {
    !str_at(object, "/metadata/deletionTimestamp").is_empty()
        && items(object, "/metadata/finalizers").is_empty()
        && items(object, "/spec/finalizers").is_empty()
        && int_at(object, "/metadata/deletionGracePeriodSeconds").unwrap_or(0) == 0
}

/// Server-side apply.
pub(super) fn apply(
    state: &mut State,
    resource: &GroupResource,
    namespace: &str,
    name: &str,
    subresource: Subresource,
    mut object: Value,
    options: &WriteOptions,
) -> Result<(Object, bool), Status> {
    let kind = state.resource(resource)?;
    let version = meta::check_kind(&kind, &object)?;
    if options.manager.is_empty() {
        return Err(Status::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    fields::decode_configuration(&kind, &version, &mut object)?;
    conversion::upgrade(&kind, &version, &mut object);
    meta::stamp_kind(&kind, &mut object);
    match state.find(resource, namespace, name).map(Arc::clone) {
        Some(current) => {
            meta::check_uid(resource, &current, str_at(&object, "/metadata/uid"))?;
            meta::check_revision(resource, &current, str_at(&object, "/metadata/resourceVersion"))?;
            let merged = fields::merge(&kind, &version, Some(&current), &object, subresource, options)?;
            // What the configuration may say was checked above; the live object may hold older fields.
            let options = WriteOptions { strict: false, warnings: Warnings::default(), ..options.clone() };
            Ok((replace(state, resource, &current, subresource, merged, &options, Given::Merged)?, false))
        }
        None if subresource != Subresource::Main => Err(Status::not_found(resource, name)),
        None => {
            let uid = str_at(&object, "/metadata/uid");
            if !uid.is_empty() {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(Status::conflict(resource, name, &why));
            }
            set_meta(&mut object, "name", name);
            let merged = fields::merge(&kind, &version, None, &object, subresource, options)?;
            Ok((create_owned(state, resource, namespace, merged, options, Ownership::Settled)?, true))
        }
    }
}

/// Deletes, or begins to.
pub(super) fn delete(
    state: &mut State,
    resource: &GroupResource,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<(Object, bool), Status> {
    let kind = state.resource(resource)?;
    let current = state.get(resource, namespace, name)?;
    meta::check_uid(resource, &current, options.uid.as_deref().unwrap_or_default())?;
    meta::check_revision(resource, &current, options.revision.as_deref().unwrap_or_default())?;
    let is_namespace = kind.builtin && kind.kind == "Namespace";
    if is_namespace && PERMANENT.contains(&name) {
        return Err(Status::forbidden(resource, name, "this namespace may not be deleted"));
    }
    let mut object = Value::clone(&current);
    let grace = if kind.builtin && kind.kind == "Pod" { pod_grace(&current, options) } else { 0 };
    hold(&mut object, options.propagation.as_deref());
    if *resource == crds::resource() && str_at(&current, "/metadata/deletionTimestamp").is_empty() {
        let defined = crds::resource_type(&current).resource;
        if !options.dry_run {
            delete_all(state, &defined)?;
        }
        if state.objects(&defined).next().is_some() {
            crds::terminate(&mut object);
        }
    }
    let held = grace > 0
        || !items(&object, "/metadata/finalizers").is_empty()
        || (is_namespace && !items(&object, "/spec/finalizers").is_empty());
    if !held {
        return Ok((if options.dry_run { current } else { state.commit_removal(resource, &current) }, true));
    }
    mark(&mut object, grace);
    if is_namespace {
        object["status"]["phase"] = json!("Terminating");
    }
    if options.dry_run {
        return Ok((Arc::new(object), false));
    }
    if meta::same(&current, &object) {
        return Ok((current, false));
    }
    Ok((state.commit(resource, Some(&current), object), false))
}

/// Deletes the objects of a resource, or begins to.
fn delete_all(state: &mut State, resource: &GroupResource) -> Result<(), Status> {
    let objects: Vec<Object> = state.objects(resource).map(Arc::clone).collect();
    for object in &objects {
        let (namespace, name) = (str_at(object, "/metadata/namespace"), str_at(object, "/metadata/name"));
        delete(state, resource, namespace, name, &DeleteOptions::default())?;
    }
    Ok(())
}

/// Sets the deletion's time and grace. A second deletion can only shorten the grace.
fn mark(object: &mut Value, grace: i64) {
    let deleting = !str_at(object, "/metadata/deletionTimestamp").is_empty();
    let sooner = int_at(object, "/metadata/deletionGracePeriodSeconds").is_none_or(|left| grace < left);
    if deleting && !sooner {
        return;
    }
    set_meta(object, "deletionTimestamp", meta::now_plus(grace));
    set_meta(object, "deletionGracePeriodSeconds", grace);
    if int_at(object, "/metadata/generation").is_some() {
        meta::raise_generation(object);
    }
}

/// Puts the finalizer of a propagation policy on the object.
fn hold(object: &mut Value, propagation: Option<&str>) {
    let wanted = match propagation {
        Some("Foreground") => FOREGROUND,
        Some("Orphan") => ORPHAN,
        _ => return,
    };
    let mut finalizers: Vec<Value> = items(object, "/metadata/finalizers").to_vec();
    finalizers.retain(|finalizer| finalizer != FOREGROUND && finalizer != ORPHAN);
    finalizers.push(json!(wanted));
    set_meta(object, "finalizers", finalizers);
}

/// Seconds a pod has to stop: none when no node runs it or it has ended.
fn pod_grace(pod: &Value, options: &DeleteOptions) -> i64 {
    if str_at(pod, "/spec/nodeName").is_empty() || matches!(str_at(pod, "/status/phase"), "Succeeded" | "Failed") {
        return 0;
    }
    let asked = options.grace_seconds.or_else(|| int_at(pod, "/spec/terminationGracePeriodSeconds"));
    match asked.unwrap_or(30) {
        negative if negative < 0 => 1,
        grace => grace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_write_brings_the_status_and_its_owners_and_nothing_else() {
        let current = json!({
            "metadata": {"name": "a", "labels": {"a": "b"}, "managedFields": [{"manager": "one"}]},
            "spec": {"replicas": 1},
            "status": {"replicas": 1},
        });
        let restored = |mut object: Value| {
            restore_all_but_status(&current, &mut object);
            object
        };
        let with = |pointer: &str, value: Value| {
            let mut object = current.clone();
            *object.pointer_mut(pointer).unwrap() = value;
            object
        };
        assert_eq!(restored(with("/status", json!({"replicas": 2}))), with("/status", json!({"replicas": 2})));
        assert_eq!(restored(with("/spec", json!({"replicas": 2}))), current);
        assert_eq!(restored(with("/metadata/labels", json!({}))), current);
        let owners = json!([{"manager": "two"}]);
        assert_eq!(restored(with("/metadata/managedFields", owners.clone())), with("/metadata/managedFields", owners));
        let mut less = current.clone();
        less.as_object_mut().unwrap().retain(|key, _| key == "metadata");
        less["more"] = json!(1);
        let mut without = current.clone();
        without.as_object_mut().unwrap().remove("status");
        assert_eq!(restored(less), without);
    }
}
