//! ReplicaSets: as many pods as asked.

use std::collections::BTreeSet;

use async_trait::async_trait;
use meshgate_store::{GroupResource, Object, Status, Store};
use serde_json::{Value, json};

use crate::events::Recorder;
use crate::objects::{
    self, controller_of, deleting, find, int_at, name, namespace, remove_condition, resources, selects, set_condition,
    str_at,
};
use crate::pods;
use crate::runner::{Controller, Key, Next, Seen, Watched};

/// Pods created or deleted at most in one go; the next go follows at once.
const BURST: usize = 500;

/// The controller; its keys are ReplicaSets.
pub(crate) struct ReplicaSets {
    store: Store,
    events: Recorder,
}

impl ReplicaSets {
    pub(crate) fn new(store: Store) -> Self {
        let events = Recorder::new(store.clone(), "replicaset-controller");
        Self { store, events }
    }

    /// Brings the number of pods to what is asked. The error of a creation is kept for the status.
    async fn scale(&self, set: &Object, active: &mut Vec<Object>) -> Result<(), Status> {
        let wanted = usize::try_from(int_at(set, "/spec/replicas")).unwrap_or(0);
        if active.len() < wanted {
            for _ in 0..(wanted - active.len()).min(BURST) {
                let pod = pods::from_template(set, &set["spec"]["template"]);
                active.push(pods::create(&self.store, &self.events, set, pod).await?);
            }
        } else if active.len() > wanted {
            active.sort_by_cached_key(|pod| pods::rank(pod));
            let excess = (active.len() - wanted).min(BURST);
            for pod in active.drain(..excess) {
                pods::delete(&self.store, &self.events, set, &pod)?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        "replicasets"
    }

    fn watched(&self) -> Watched {
        Watched::Some(vec![resources::replica_sets(), resources::pods()])
    }

    fn keys(&mut self, seen: &Seen) -> Vec<Key> {
        owner_keys(&self.store, &resources::replica_sets(), "ReplicaSet", seen)
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Next, Status> {
        let Some(set) = find(&self.store, &key.resource, &key.namespace, &key.name)? else { return Ok(Next::Done) };
        let all = pods::claim(&self.store, &resources::pods(), &set, &set["spec"]["selector"])?;
        let mut active: Vec<Object> = all.into_iter().filter(|pod| pods::is_active(pod)).collect();
        let scaled = if deleting(&set) { Ok(()) } else { self.scale(&set, &mut active).await };
        let min_ready = int_at(&set, "/spec/minReadySeconds");
        let (available, next) = pods::count_available(&active, min_ready);
        let template_labels = set.pointer("/spec/template/metadata/labels").and_then(Value::as_object);
        let labelled = |pod: &&Object| selects(template_labels, &pod["metadata"]["labels"]);
        let mut status = json!({
            "replicas": active.len(),
            "fullyLabeledReplicas": active.iter().filter(labelled).count(),
            "readyReplicas": active.iter().filter(|pod| pods::is_ready(pod)).count(),
            "availableReplicas": available,
            "observedGeneration": int_at(&set, "/metadata/generation"),
            "conditions": set["status"]["conditions"],
        });
        match &scaled {
            Ok(()) => remove_condition(&mut status, "ReplicaFailure"),
            Err(error) => set_condition(&mut status, "ReplicaFailure", "True", "FailedCreate", &error.message, false),
        }
        drop_zeros(&mut status);
        objects::set_status(&self.store, &resources::replica_sets(), &set, &status)?;
        scaled?;
        Ok(next.map_or(Next::Done, Next::After))
    }
}

/// Drops what Go omits when empty, all but `replicas`.
fn drop_zeros(status: &mut Value) {
    if let Some(status) = status.as_object_mut() {
        status.retain(|key, value| {
            let empty = value.is_null() || *value == 0 || value.as_array().is_some_and(Vec::is_empty);
            key == "replicas" || key == "observedGeneration" || !empty
        });
    }
}

/// The owners of a kind that an event concerns: the object itself, the controller of a pod, or, for a pod without one,
/// every owner whose selector may take it in.
pub(crate) fn owner_keys(store: &Store, owners: &GroupResource, kind: &str, seen: &Seen) -> Vec<Key> {
    let object = &seen.object;
    if seen.resource == *owners {
        return vec![Key::new(owners.clone(), namespace(object), name(object))];
    }
    if let Some(owner) = controller_of(object) {
        let concerned = str_at(owner, "/kind") == kind;
        return concerned
            .then(|| Key::new(owners.clone(), namespace(object), str_at(owner, "/name")))
            .into_iter()
            .collect();
    }
    if seen.deleted {
        return Vec::new();
    }
    let candidates = objects::list(store, owners, namespace(object)).unwrap_or_default();
    let keys: BTreeSet<Key> = candidates
        .iter()
        .filter(|owner| {
            let labels = owner.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
            labels.is_none() || selects(labels, &object["metadata"]["labels"])
        })
        .map(|owner| Key::new(owners.clone(), namespace(owner), name(owner)))
        .collect();
    keys.into_iter().collect()
}
