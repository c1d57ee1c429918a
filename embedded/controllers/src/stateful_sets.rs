//! StatefulSets: numbered pods, made and removed in order. Volume claims are not made: this cluster has no volumes to claim.

use async_trait::async_trait;
use meshgate_store::{Object, Status, Store};
use serde_json::{Value, json};

use crate::daemon_sets::template_hash;
use crate::events::{EventType, Recorder};
use crate::objects::{self, deleting, find, int_at, items, name, resources, str_at};
use crate::pods;
use crate::replica_sets::owner_keys;
use crate::runner::{Controller, Key, Next, Seen, Watched};

/// The label that tells pods of an outdated template apart.
const REVISION: &str = "controller-revision-hash";

/// The controller; its keys are StatefulSets.
pub(crate) struct StatefulSets {
    store: Store,
    events: Recorder,
}

impl StatefulSets {
    pub(crate) fn new(store: Store) -> Self {
        let events = Recorder::new(store.clone(), "statefulset-controller");
        Self { store, events }
    }

    /// One step: make the next missing pod, else remove the last superfluous one, else replace the last outdated one.
    /// With `OrderedReady` every step waits until the pods before are ready.
    async fn step(&self, set: &Object, pods: &[Object], hash: &str) -> Result<(), Status> {
        let wanted = int_at(set, "/spec/replicas");
        let start = int_at(set, "/spec/ordinals/start");
        let parallel = str_at(set, "/spec/podManagementPolicy") == "Parallel";
        let at = |ordinal: i64| pods.iter().find(|pod| ordinal_of(set, pod) == Some(ordinal));
        for ordinal in start..start + wanted {
            match at(ordinal) {
                None => {
                    pods::create(&self.store, &self.events, set, pod(set, ordinal, hash)).await?;
                    if !parallel {
                        return Ok(());
                    }
                }
                Some(pod) if pods::has_ended(pod) && !deleting(pod) => {
                    return pods::delete(&self.store, &self.events, set, pod);
                }
                Some(pod) if !parallel && (deleting(pod) || !pods::is_ready(pod)) => {
                    return self.repair(set, pod, hash);
                }
                Some(_) => {}
            }
        }
        let mut superfluous: Vec<(i64, &Object)> = pods
            .iter()
            .filter_map(|pod| Some((ordinal_of(set, pod)?, pod)))
            .filter(|(ordinal, _)| !(start..start + wanted).contains(ordinal))
            .collect();
        superfluous.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
        for (_, pod) in superfluous {
            if !deleting(pod) {
                pods::delete(&self.store, &self.events, set, pod)?;
            }
            if !parallel {
                return Ok(());
            }
        }
        if str_at(set, "/spec/updateStrategy/type") != "RollingUpdate" || pods.iter().any(|pod| deleting(pod)) {
            return Ok(());
        }
        let partition = start + int_at(set, "/spec/updateStrategy/rollingUpdate/partition");
        for pod in (partition..start + wanted).rev().filter_map(at) {
            if is_outdated(pod, hash) {
                return pods::delete(&self.store, &self.events, set, pod);
            }
            if !pods::is_ready(pod) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A pod of an outdated template that never becomes ready is replaced, or the set would wait for it for ever.
    fn repair(&self, set: &Object, pod: &Object, hash: &str) -> Result<(), Status> {
        let rolls = str_at(set, "/spec/updateStrategy/type") == "RollingUpdate";
        if rolls && is_outdated(pod, hash) && !deleting(pod) {
            return pods::delete(&self.store, &self.events, set, pod);
        }
        Ok(())
    }
}

#[async_trait]
impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        "statefulsets"
    }

    fn watched(&self) -> Watched {
        Watched::Some(vec![resources::stateful_sets(), resources::pods()])
    }

    fn keys(&mut self, seen: &Seen) -> Vec<Key> {
        owner_keys(&self.store, &resources::stateful_sets(), "StatefulSet", seen)
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Next, Status> {
        let Some(set) = find(&self.store, &key.resource, &key.namespace, &key.name)? else { return Ok(Next::Done) };
        let hash = template_hash(&set["spec"]["template"]);
        let claimed = |store: &Store| pods::claim(store, &resources::pods(), &set, &set["spec"]["selector"]);
        if !deleting(&set) {
            if !items(&set, "/spec/volumeClaimTemplates").is_empty() {
                let message = "volumeClaimTemplates are ignored: this cluster has no persistent volumes; use emptyDir";
                self.events.record(&set, EventType::Warning, "FailedCreate", message);
            }
            self.step(&set, &claimed(&self.store)?, &hash).await?;
        }
        let active: Vec<Object> = claimed(&self.store)?.into_iter().filter(|pod| pods::is_active(pod)).collect();
        let (available, next) = pods::count_available(&active, int_at(&set, "/spec/minReadySeconds"));
        let updated = active.iter().filter(|pod| !is_outdated(pod, &hash)).count();
        let revision = format!("{}-{hash}", name(&set));
        let old = str_at(&set, "/status/currentRevision");
        let current = if updated == active.len() || old.is_empty() { revision.clone() } else { old.to_owned() };
        let status = json!({
            "replicas": active.len(),
            "readyReplicas": active.iter().filter(|pod| pods::is_ready(pod)).count(),
            "availableReplicas": available,
            "updatedReplicas": updated,
            "currentReplicas": if current == revision { updated } else { active.len() - updated },
            "currentRevision": current,
            "updateRevision": revision,
            "observedGeneration": int_at(&set, "/metadata/generation"),
            "collisionCount": 0,
        });
        objects::set_status(&self.store, &resources::stateful_sets(), &set, &status)?;
        Ok(next.map_or(Next::Done, Next::After))
    }
}

fn is_outdated(pod: &Value, hash: &str) -> bool {
    !str_at(pod, &format!("/metadata/labels/{REVISION}")).ends_with(hash)
}

fn ordinal_of(set: &Object, pod: &Object) -> Option<i64> {
    name(pod).strip_prefix(name(set))?.strip_prefix('-')?.parse().ok()
}

fn pod(set: &Object, ordinal: i64, hash: &str) -> Value {
    let mut pod = pods::from_template(set, &set["spec"]["template"]);
    let pod_name = format!("{}-{ordinal}", name(set));
    if let Some(meta) = pod["metadata"].as_object_mut() {
        meta.remove("generateName");
    }
    pod["metadata"]["name"] = json!(pod_name);
    pod["metadata"]["labels"][REVISION] = json!(format!("{}-{hash}", name(set)));
    pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] = json!(pod_name);
    pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] = json!(ordinal.to_string());
    pod["spec"]["hostname"] = json!(pod_name);
    if let Some(service) = set["spec"]["serviceName"].as_str().filter(|service| !service.is_empty()) {
        pod["spec"]["subdomain"] = json!(service);
    }
    pod
}
