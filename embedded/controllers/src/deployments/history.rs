//! The ReplicaSets of a Deployment: which one has its template, and their revisions.

use std::fmt::Write as _;

use meshgate_store::{Object, Status, Store};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{HASH, REVISION, rollout};
use crate::objects::{self, controller_reference, deleting, int_at, name, namespace, resources, str_at};
use crate::pods;

/// Annotations of a Deployment that its ReplicaSets do not get.
const NOT_COPIED: [&str; 4] =
    ["kubectl.kubernetes.io/last-applied-configuration", REVISION, super::DESIRED, super::MAXIMUM];

/// Earlier revisions of a ReplicaSet that was rolled back to.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";

/// Letters of hashes: safe in names, no words by accident.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The ReplicaSets of a Deployment.
pub(super) struct Sets {
    /// The one with the Deployment's template, if it is there.
    pub(super) new: Option<Object>,
    /// The others, oldest first.
    pub(super) old: Vec<Object>,
    /// What to tell of a ReplicaSet that was just made.
    pub(super) created: Option<String>,
}

impl Sets {
    pub(super) fn all(&self) -> impl Iterator<Item = &Object> {
        self.old.iter().chain(&self.new)
    }
}

/// Reads the ReplicaSets of a Deployment, claiming those its selector selects.
pub(super) fn owned(store: &Store, deployment: &Object) -> Result<Sets, Status> {
    let mut sets = pods::claim(store, &resources::replica_sets(), deployment, &deployment["spec"]["selector"])?;
    sets.sort_by(|a, b| age(a).cmp(&age(b)));
    let template = without_hash(&deployment["spec"]["template"]);
    let new = sets.iter().position(|set| !deleting(set) && without_hash(&set["spec"]["template"]) == template);
    let new = new.map(|index| sets.remove(index));
    Ok(Sets { new, old: sets, created: None })
}

fn age(set: &Object) -> (i64, &str, &str) {
    (revision(set), str_at(set, "/metadata/creationTimestamp"), name(set))
}

/// The revision of a ReplicaSet, 0 when it has none.
pub(super) fn revision(object: &Value) -> i64 {
    object["metadata"]["annotations"][REVISION].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A template without its hash label, to be compared.
fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH);
    }
    // `creationTimestamp: null` comes with templates that went through Go types.
    if let Some(meta) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.retain(|_, value| !value.is_null());
    }
    template
}

/// Makes the ReplicaSet of the current template unless it is there, and gives it the highest revision.
pub(super) fn ensure_new(
    store: &Store,
    deployment: &Object,
    sets: &mut Sets,
    size: impl FnOnce(&[Object]) -> i64,
) -> Result<(), Status> {
    let highest = sets.old.iter().map(|set| revision(set)).max().unwrap_or(0);
    match &mut sets.new {
        Some(new) => raise(store, new, highest + 1)?,
        None => {
            let replicas = size(&sets.old);
            let new = create(store, deployment, replicas, highest + 1)?;
            if replicas > 0 {
                sets.created = Some(format!("Scaled up replica set {} from 0 to {replicas}", name(&new)));
            }
            sets.new = Some(new);
        }
    }
    let wanted = sets.new.as_ref().map_or(0, |set| revision(set));
    if revision(deployment) != wanted {
        objects::change(store, &resources::deployments(), deployment, |deployment| {
            deployment["metadata"]["annotations"][REVISION] = json!(wanted.to_string());
        })?;
    }
    Ok(())
}

/// After a rollback the old ReplicaSet is the newest revision again.
fn raise(store: &Store, set: &mut Object, least: i64) -> Result<(), Status> {
    let before = revision(set);
    if before >= least {
        return Ok(());
    }
    objects::change(store, &resources::replica_sets(), set, |set| {
        let annotations = &mut set["metadata"]["annotations"];
        let past = annotations[REVISION_HISTORY].as_str().unwrap_or_default().to_owned();
        if before > 0 {
            let past = if past.is_empty() { before.to_string() } else { format!("{past},{before}") };
            annotations[REVISION_HISTORY] = json!(past);
        }
        annotations[REVISION] = json!(least.to_string());
    })?;
    *set = store.get(&resources::replica_sets(), namespace(set), name(set))?;
    Ok(())
}

fn create(store: &Store, deployment: &Object, replicas: i64, revision: i64) -> Result<Object, Status> {
    let mut collisions = int_at(deployment, "/status/collisionCount");
    loop {
        let hash = hash(&deployment["spec"]["template"], collisions);
        let set = replica_set(deployment, &hash, replicas, revision);
        match objects::create(store, &resources::replica_sets(), namespace(deployment), set) {
            // Another template with the same name: hash again with a count, as Kubernetes does.
            Err(error) if error.reason == "AlreadyExists" && collisions < 16 => collisions += 1,
            created => return created,
        }
    }
}

fn replica_set(deployment: &Object, hash: &str, replicas: i64, revision: i64) -> Value {
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"]["labels"][HASH] = json!(hash);
    let mut selector = deployment["spec"]["selector"].clone();
    selector["matchLabels"][HASH] = json!(hash);
    let mut annotations: Map<String, Value> =
        deployment["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    annotations.insert(REVISION.to_owned(), json!(revision.to_string()));
    for (key, value) in rollout::size_annotations(deployment) {
        annotations.insert(key.to_owned(), json!(value));
    }
    let mut spec = json!({"replicas": replicas, "selector": selector, "template": template});
    if let Some(seconds) = deployment["spec"].get("minReadySeconds") {
        spec["minReadySeconds"] = seconds.clone();
    }
    json!({
        "metadata": {
            "name": format!("{}-{hash}", name(deployment)),
            "labels": spec["template"]["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [controller_reference(deployment)],
        },
        "spec": spec,
    })
}

/// Ten letters that stand for a template.
fn hash(template: &Value, collisions: i64) -> String {
    let mut text = String::new();
    canonical(template, &mut text);
    let digest = Sha256::digest(format!("{text}{collisions}"));
    digest.iter().take(10).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

/// JSON with sorted keys, so that equal templates have equal hashes.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            for key in keys {
                text.push_str(key);
                text.push(':');
                canonical(&map[key], text);
                text.push(';');
            }
        }
        Value::Array(list) => {
            text.push('[');
            list.iter().for_each(|item| canonical(item, text));
            text.push(']');
        }
        // Writing to a String cannot fail.
        other => drop(write!(text, "{other}")),
    }
}

/// Deletes the oldest empty ReplicaSets beyond `revisionHistoryLimit`.
pub(super) fn forget(store: &Store, deployment: &Object, sets: &Sets) -> Result<(), Status> {
    let limit = deployment["spec"]["revisionHistoryLimit"].as_u64().and_then(|limit| usize::try_from(limit).ok());
    let Some(limit) = limit else { return Ok(()) };
    let excess = sets.old.len().saturating_sub(limit);
    let empty =
        |set: &&Object| int_at(set, "/spec/replicas") == 0 && int_at(set, "/status/replicas") == 0 && !deleting(set);
    for set in sets.old.iter().take(excess).filter(empty) {
        objects::delete(store, &resources::replica_sets(), set)?;
    }
    Ok(())
}
