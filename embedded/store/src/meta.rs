//! `metadata`: names, identity, times, generation, ownership of fields.

use jiff::Timestamp;
use rand::Rng;
use serde_json::{Value, json};

use crate::builtin::has_generation;
use crate::invalid::FieldErrors;
use crate::json::{child, default_to, drop_meta, int_at, set_meta, str_at, unset};
use crate::{GroupResource, ResourceType, Status};

/// Letters of generated names: no vowels (no words by accident), no digits that look like letters.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Kubernetes cuts `generateName` here, so that a name with its suffix stays a DNS label.
const MAX_GENERATE_NAME: usize = 58;

/// Fields of `metadata` that only the store writes.
const SERVER_OWNED: [&str; 6] =
    ["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "namespace"];

/// The time as `metadata` has it: RFC 3339 in UTC, whole seconds.
pub(crate) fn now() -> String {
    format_time(Timestamp::now())
}

/// The time in so many seconds.
pub(crate) fn now_plus(seconds: i64) -> String {
    let now = Timestamp::now();
    let later = Timestamp::from_second(now.as_second().saturating_add(seconds)).unwrap_or(now);
    format_time(later)
}

fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A random (version 4) UUID.
pub fn new_uid() -> String {
    let bits: u128 = rand::rng().random();
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Five random letters, as Kubernetes appends to `generateName`.
pub(crate) fn suffix() -> String {
    let mut rng = rand::rng();
    (0..5).map(|_| char::from(SUFFIX_ALPHABET[rng.random_range(0..SUFFIX_ALPHABET.len())])).collect()
}

/// Checks `apiVersion` and `kind` of a body against the resource it was sent to, and answers the version it is written in.
/// An absent one means the preferred version.
pub(crate) fn check_kind(resource: &ResourceType, object: &Value) -> Result<String, Status> {
    if !object.is_object() {
        return Err(Status::bad_request(format!("expected a JSON object of kind {}, found {object}", resource.kind)));
    }
    let kind = str_at(object, "/kind");
    if !kind.is_empty() && kind != resource.kind {
        return Err(Status::bad_request(format!(
            "the kind in the data ({kind}) does not match the kind of the URL ({})",
            resource.kind
        )));
    }
    let api_version = str_at(object, "/apiVersion");
    let preferred = || resource.versions.first().map(|version| version.name.clone()).unwrap_or_default();
    if api_version.is_empty() {
        return Ok(preferred());
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if group != resource.resource.group || !resource.versions.iter().any(|served| served.name == version) {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            api_version_of(resource, &preferred())
        )));
    }
    Ok(version.to_owned())
}

/// `apps/v1`, or `v1` for the core group.
pub(crate) fn api_version_of(resource: &ResourceType, version: &str) -> String {
    let group = &resource.resource.group;
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Stamps the stored form: preferred `apiVersion`, and the kind.
pub(crate) fn stamp_kind(resource: &ResourceType, object: &mut Value) {
    let version = resource.versions.first().map(|version| version.name.as_str()).unwrap_or_default();
    object["apiVersion"] = json!(api_version_of(resource, version));
    object["kind"] = json!(resource.kind);
}

/// Fills the metadata of a new object. `namespace` is the one of the request.
pub(crate) fn prepare_create(resource: &ResourceType, namespace: &str, object: &mut Value) -> Result<(), Status> {
    if !str_at(object, "/metadata/resourceVersion").is_empty() {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    check_namespace(resource, namespace, object)?;
    for key in SERVER_OWNED.iter().chain(&["resourceVersion", "selfLink"]) {
        drop_meta(object, key);
    }
    let base: String = str_at(object, "/metadata/generateName").chars().take(MAX_GENERATE_NAME).collect();
    if str_at(object, "/metadata/name").is_empty() && !base.is_empty() {
        set_meta(object, "name", base + &suffix());
    }
    if resource.namespaced {
        set_meta(object, "namespace", namespace);
    }
    set_meta(object, "uid", new_uid());
    set_meta(object, "creationTimestamp", now());
    if has_generation(resource) {
        set_meta(object, "generation", 1);
    }
    drop_empty(object);
    Ok(())
}

fn check_namespace(resource: &ResourceType, namespace: &str, object: &Value) -> Result<(), Status> {
    let own = str_at(object, "/metadata/namespace");
    if resource.namespaced && namespace.is_empty() {
        return Err(Status::bad_request("an empty namespace may not be set during creation"));
    }
    if !own.is_empty() && own != namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the provided object ({own}) does not match the namespace sent on the request ({namespace})"
        )));
    }
    Ok(())
}

/// Carries over what an update may not change, and checks its preconditions.
pub(crate) fn prepare_update(resource: &ResourceType, old: &Value, new: &mut Value) -> Result<(), Status> {
    let key = &resource.resource;
    let name = str_at(old, "/metadata/name");
    if unset(new, "metadata") {
        child(new, "metadata");
    }
    if let Some(meta) = new.get_mut("metadata") {
        default_to(meta, "name", name);
    }
    let new_name = str_at(new, "/metadata/name");
    if new_name != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({new_name}) does not match the name on the URL ({name})"
        )));
    }
    check_namespace(resource, str_at(old, "/metadata/namespace"), new)?;
    check_revision(key, old, str_at(new, "/metadata/resourceVersion"))?;
    check_uid(key, old, str_at(new, "/metadata/uid"))?;
    let deleted = str_at(new, "/metadata/deletionTimestamp");
    if !deleted.is_empty() && str_at(old, "/metadata/deletionTimestamp").is_empty() {
        let mut errors = FieldErrors::default();
        errors.invalid("metadata.deletionTimestamp", &json!(deleted), "field is immutable");
        errors.into_result(resource, name)?;
    }
    for field in SERVER_OWNED {
        match old.pointer("/metadata").and_then(|meta| meta.get(field)) {
            Some(value) => set_meta(new, field, value.clone()),
            None => drop_meta(new, field),
        }
    }
    drop_meta(new, "selfLink");
    drop_empty(new);
    // A PUT without them keeps them.
    if new.pointer("/metadata/managedFields").is_none()
        && let Some(managers) = old.pointer("/metadata/managedFields")
    {
        set_meta(new, "managedFields", managers.clone());
    }
    Ok(())
}

/// 409 unless the asked revision is empty or the object's.
pub(crate) fn check_revision(key: &GroupResource, object: &Value, asked: &str) -> Result<(), Status> {
    if asked.is_empty() || asked == str_at(object, "/metadata/resourceVersion") {
        return Ok(());
    }
    Err(Status::stale(key, str_at(object, "/metadata/name")))
}

/// 409 unless the asked uid is empty or the object's.
pub(crate) fn check_uid(key: &GroupResource, object: &Value, asked: &str) -> Result<(), Status> {
    let uid = str_at(object, "/metadata/uid");
    if asked.is_empty() || asked == uid {
        return Ok(());
    }
    let why = format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {uid}");
    Err(Status::conflict(key, str_at(object, "/metadata/name"), &why))
}

/// Raises the generation when anything but metadata and status differs.
pub(crate) fn bump_generation(resource: &ResourceType, old: &Value, new: &mut Value) {
    if has_generation(resource) && spec_differs(old, new, has_status(resource)) {
        raise_generation(new);
    }
}

/// Adds one to the generation.
pub(crate) fn raise_generation(object: &mut Value) {
    let generation = int_at(object, "/metadata/generation").unwrap_or(0) + 1;
    set_meta(object, "generation", generation);
}

/// Whether the status is a subresource of its own.
pub(crate) fn has_status(resource: &ResourceType) -> bool {
    resource.versions.iter().any(|version| version.status)
}

fn spec_differs(old: &Value, new: &Value, status_apart: bool) -> bool {
    let counts =
        |key: &str| key != "metadata" && key != "apiVersion" && key != "kind" && !(status_apart && key == "status");
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return true };
    old.iter().any(|(key, value)| counts(key) && new.get(key) != Some(value))
        || new.keys().any(|key| counts(key) && !old.contains_key(key))
}

/// Whether two forms of an object are the same but for revision and the times in `managedFields`.
pub(crate) fn same(old: &Value, new: &Value) -> bool {
    let (Some(a), Some(b)) = (old.as_object(), new.as_object()) else { return old == new };
    a.len() == b.len()
        && a.iter().all(|(key, value)| match (key.as_str(), b.get(key)) {
            (_, None) => false,
            ("metadata", Some(other)) => same_meta(value, other),
            (_, Some(other)) => value == other,
        })
}

fn same_meta(old: &Value, new: &Value) -> bool {
    let (Some(a), Some(b)) = (old.as_object(), new.as_object()) else { return old == new };
    let counts = |key: &&String| *key != "resourceVersion" && *key != "managedFields";
    a.keys().filter(counts).all(|key| a.get(key) == b.get(key))
        && b.keys().filter(counts).all(|key| a.contains_key(key))
        && same_managers(old.get("managedFields"), new.get("managedFields"))
}

/// Whether two `managedFields` are the same but for their times.
pub(crate) fn same_managers(old: Option<&Value>, new: Option<&Value>) -> bool {
    fn entries(value: Option<&Value>) -> &[Value] {
        value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
    fn fields(entry: &Value) -> impl Iterator<Item = (&String, &Value)> {
        entry.as_object().into_iter().flatten().filter(|(key, _)| *key != "time")
    }
    entries(old).len() == entries(new).len()
        && entries(old).iter().zip(entries(new)).all(|(old, new)| fields(old).eq(fields(new)))
}

/// Drops what Go would not print: null and empty maps and lists in metadata, a null status.
fn drop_empty(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.retain(|key, value| key == "metadata" || !value.is_null());
    }
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.retain(|_, value| match value {
            Value::Null => false,
            Value::Object(map) => !map.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::String(text) => !text.is_empty(),
            _ => true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_version_4() {
        let uid = new_uid();
        assert_eq!(uid.len(), 36);
        assert_eq!(&uid[14..15], "4");
        assert!("89ab".contains(&uid[19..20]), "{uid}");
        assert_ne!(uid, new_uid());
    }

    #[test]
    fn times_have_whole_seconds() {
        let time = now();
        assert_eq!(time.len(), "2026-11-22T23:18:01Z".len());
        assert!(time.parse::<Timestamp>().is_ok());
    }

    #[test]
    fn sameness_ignores_revision_and_manager_times() {
        let old = json!({"metadata": {"name": "a", "resourceVersion": "1", "managedFields": [{"manager": "m", "time": "x"}]}, "spec": {}});
        let mut new = json!({"metadata": {"name": "a", "resourceVersion": "2", "managedFields": [{"manager": "m", "time": "y"}]}, "spec": {}});
        assert!(same(&old, &new));
        new["metadata"]["managedFields"][0]["manager"] = json!("other");
        assert!(!same(&old, &new));
    }
}
