//! Deployments: one ReplicaSet per template, and the way from the old ones to the new one.
//!
//! `history` finds and makes the ReplicaSets, `rollout` decides their sizes, `progress` writes the status.

mod history;
mod progress;
mod rollout;

use async_trait::async_trait;
use meshgate_store::{Object, Status, Store};

use crate::events::{EventType, Recorder};
use crate::objects::{self, bool_at, deleting, find, int_at, name, namespace, resources, str_at};
use crate::pods;
use crate::replica_sets::owner_keys;
use crate::runner::{Controller, Key, Next, Seen, Watched};

/// The revision of a Deployment's template, on the Deployment and on its ReplicaSets.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// The Deployment's size when a ReplicaSet was last sized.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";

/// The same with the surge.
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";

/// The label that tells the pods of different templates apart.
const HASH: &str = "pod-template-hash";

/// The controller; its keys are Deployments.
pub(crate) struct Deployments {
    store: Store,
    events: Recorder,
}

impl Deployments {
    pub(crate) fn new(store: Store) -> Self {
        let events = Recorder::new(store.clone(), "deployment-controller");
        Self { store, events }
    }

    /// Sizes a ReplicaSet and tells of it.
    fn resize(&self, deployment: &Object, set: &mut Object, replicas: i64) -> Result<(), Status> {
        let before = int_at(set, "/spec/replicas");
        let annotations = rollout::size_annotations(deployment);
        objects::change(&self.store, &resources::replica_sets(), set, |set| {
            set["spec"]["replicas"] = replicas.into();
            for (key, value) in &annotations {
                set["metadata"]["annotations"][*key] = value.as_str().into();
            }
        })?;
        *set = self.store.get(&resources::replica_sets(), namespace(set), name(set))?;
        if before != replicas {
            let direction = if before < replicas { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {} from {before} to {replicas}", name(set));
            self.events.record(deployment, EventType::Normal, "ScalingReplicaSet", &message);
        }
        Ok(())
    }

    /// Brings the ReplicaSets one step further.
    fn roll(&self, deployment: &Object) -> Result<Next, Status> {
        let mut sets = history::owned(&self.store, deployment)?;
        let paused = bool_at(deployment, "/spec/paused");
        if paused || rollout::only_scaled(deployment, &sets) {
            for (set, replicas) in rollout::scaled(deployment, &sets) {
                self.resize(deployment, &mut Object::clone(&set), replicas)?;
            }
            sets = history::owned(&self.store, deployment)?;
        } else if str_at(deployment, "/spec/strategy/type") == "Recreate" {
            self.recreate(deployment, &mut sets)?;
        } else {
            self.rolling_update(deployment, &mut sets)?;
        }
        if !paused {
            history::forget(&self.store, deployment, &sets)?;
        }
        progress::write(&self.store, &self.events, deployment, &sets)
    }

    fn rolling_update(&self, deployment: &Object, sets: &mut history::Sets) -> Result<(), Status> {
        history::ensure_new(&self.store, deployment, sets, |others| rollout::first_size(deployment, others))?;
        if let Some(message) = sets.created.take() {
            self.events.record(deployment, EventType::Normal, "ScalingReplicaSet", &message);
        }
        let limits = rollout::Limits::of(deployment);
        if let Some(new) = &mut sets.new {
            let wanted = rollout::new_size(&limits, new, &sets.old);
            self.resize(deployment, new, wanted)?;
        }
        for (index, replicas) in rollout::old_sizes(&limits, sets.new.as_ref(), &sets.old) {
            self.resize(deployment, &mut sets.old[index], replicas)?;
        }
        Ok(())
    }

    /// All old pods go before the first new one comes.
    fn recreate(&self, deployment: &Object, sets: &mut history::Sets) -> Result<(), Status> {
        for set in &mut sets.old {
            if int_at(set, "/spec/replicas") > 0 {
                self.resize(deployment, set, 0)?;
            }
        }
        let new = sets.new.as_ref().map(|set| objects::uid(set).to_owned());
        let pods =
            objects::select(&self.store, &resources::pods(), namespace(deployment), &deployment["spec"]["selector"])?;
        let old_runs = pods.iter().filter(|pod| !pods::has_ended(pod)).any(|pod| {
            let owner = objects::controller_of(pod).map(|owner| str_at(owner, "/uid"));
            owner.is_some_and(|owner| sets.old.iter().any(|set| objects::uid(set) == owner)) && owner != new.as_deref()
        });
        if old_runs {
            return Ok(());
        }
        let wanted = int_at(deployment, "/spec/replicas");
        history::ensure_new(&self.store, deployment, sets, |_| wanted)?;
        if let Some(message) = sets.created.take() {
            self.events.record(deployment, EventType::Normal, "ScalingReplicaSet", &message);
        }
        match &mut sets.new {
            Some(new) => self.resize(deployment, new, wanted),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployments"
    }

    fn watched(&self) -> Watched {
        Watched::Some(vec![resources::deployments(), resources::replica_sets(), resources::pods()])
    }

    fn keys(&mut self, seen: &Seen) -> Vec<Key> {
        if seen.resource != resources::pods() {
            return owner_keys(&self.store, &resources::deployments(), "Deployment", seen);
        }
        // Only `Recreate` waits for pods, and only for those that end.
        if !seen.deleted && !pods::has_ended(&seen.object) {
            return Vec::new();
        }
        let owner = objects::controller_of(&seen.object).filter(|owner| str_at(owner, "/kind") == "ReplicaSet");
        let set = owner.and_then(|owner| {
            find(&self.store, &resources::replica_sets(), namespace(&seen.object), str_at(owner, "/name"))
                .ok()
                .flatten()
        });
        let deployment = set.as_ref().and_then(|set| objects::controller_of(set)).map(|owner| str_at(owner, "/name"));
        deployment.map(|name| Key::new(resources::deployments(), namespace(&seen.object), name)).into_iter().collect()
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Next, Status> {
        let Some(deployment) = find(&self.store, &key.resource, &key.namespace, &key.name)? else {
            return Ok(Next::Done);
        };
        if deleting(&deployment) {
            let sets = history::owned(&self.store, &deployment)?;
            return progress::write(&self.store, &self.events, &deployment, &sets);
        }
        self.roll(&deployment)
    }
}
