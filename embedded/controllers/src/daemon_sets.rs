//! DaemonSets: one pod on each node that the template's `nodeSelector` selects.

use async_trait::async_trait;
use meshgate_store::{Object, Selectors, Status, Store};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::events::Recorder;
use crate::objects::{self, deleting, find, int_at, resources, str_at};
use crate::pods;
use crate::replica_sets::owner_keys;
use crate::runner::{Controller, Key, Next, Seen, Watched};
use crate::scheduler::node_selector_matches;

/// The label that tells pods of an outdated template apart.
const REVISION: &str = "controller-revision-hash";

/// The controller; its keys are DaemonSets.
pub(crate) struct DaemonSets {
    store: Store,
    events: Recorder,
}

impl DaemonSets {
    pub(crate) fn new(store: Store) -> Self {
        let events = Recorder::new(store.clone(), "daemonset-controller");
        Self { store, events }
    }

    /// Brings one node's pods to one of the current template. An outdated pod goes first; its successor comes once it
    /// is gone.
    async fn node(&self, set: &Object, node: &Object, pods: &[&Object], hash: &str) -> Result<(), Status> {
        let current = |pod: &&&Object| pod["metadata"]["labels"][REVISION] == hash;
        let rolls = str_at(set, "/spec/updateStrategy/type") == "RollingUpdate";
        let keep = pods.iter().filter(current).find(|pod| pods::is_active(pod)).or_else(|| {
            let outdated = pods.iter().find(|pod| pods::is_active(pod));
            outdated.filter(|_| !rolls)
        });
        for pod in pods.iter().filter(|pod| !deleting(pod)) {
            if keep.is_none_or(|keep| objects::uid(keep) != objects::uid(pod)) {
                pods::delete(&self.store, &self.events, set, pod)?;
            }
        }
        // A deleted pod may be there still, ending.
        let present =
            |pod: &&Object| self.store.get(&resources::pods(), objects::namespace(pod), objects::name(pod)).is_ok();
        if keep.is_some() || pods.iter().any(present) {
            return Ok(());
        }
        let mut pod = pods::from_template(set, &set["spec"]["template"]);
        pod["metadata"]["labels"][REVISION] = json!(hash);
        pod["spec"]["nodeName"] = json!(objects::name(node));
        pods::create(&self.store, &self.events, set, pod).await.map(drop)
    }
}

#[async_trait]
impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        "daemonsets"
    }

    fn watched(&self) -> Watched {
        Watched::Some(vec![resources::daemon_sets(), resources::pods(), resources::nodes()])
    }

    fn keys(&mut self, seen: &Seen) -> Vec<Key> {
        if seen.resource != resources::nodes() {
            return owner_keys(&self.store, &resources::daemon_sets(), "DaemonSet", seen);
        }
        let sets = self.store.list(&resources::daemon_sets(), None, &Selectors::default());
        let sets = sets.map(|list| list.items).unwrap_or_default();
        sets.iter().map(|set| Key::new(resources::daemon_sets(), objects::namespace(set), objects::name(set))).collect()
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Next, Status> {
        let Some(set) = find(&self.store, &key.resource, &key.namespace, &key.name)? else { return Ok(Next::Done) };
        let hash = template_hash(&set["spec"]["template"]);
        let nodes = self.store.list(&resources::nodes(), None, &Selectors::default())?.items;
        let template = json!({"spec": set["spec"]["template"]["spec"]});
        let wanted: Vec<&Object> = nodes.iter().filter(|node| node_selector_matches(node, &template)).collect();
        let claimed = |store: &Store| pods::claim(store, &resources::pods(), &set, &set["spec"]["selector"]);
        if !deleting(&set) {
            let pods = claimed(&self.store)?;
            for node in &wanted {
                let here: Vec<&Object> = on(&pods, node).collect();
                self.node(&set, node, &here, &hash).await?;
            }
            let elsewhere =
                |pod: &&Object| !wanted.iter().any(|node| str_at(pod, "/spec/nodeName") == objects::name(node));
            for pod in pods.iter().filter(elsewhere).filter(|pod| !deleting(pod)) {
                pods::delete(&self.store, &self.events, &set, pod)?;
            }
        }
        let active: Vec<Object> = claimed(&self.store)?.into_iter().filter(|pod| pods::is_active(pod)).collect();
        let (available, next) = pods::count_available(&active, int_at(&set, "/spec/minReadySeconds"));
        let ready = active.iter().filter(|pod| pods::is_ready(pod)).count();
        let updated = active.iter().filter(|pod| pod["metadata"]["labels"][REVISION] == hash.as_str()).count();
        let desired = i64::try_from(wanted.len()).unwrap_or(i64::MAX);
        let mut status = json!({
            "currentNumberScheduled": active.len(), "desiredNumberScheduled": desired, "numberMisscheduled": 0,
            "numberReady": ready, "updatedNumberScheduled": updated,
            "observedGeneration": int_at(&set, "/metadata/generation"),
        });
        for (field, count) in [("numberAvailable", available), ("numberUnavailable", desired - available)] {
            if count > 0 {
                status[field] = json!(count);
            }
        }
        objects::set_status(&self.store, &resources::daemon_sets(), &set, &status)?;
        Ok(next.map_or(Next::Done, Next::After))
    }
}

fn on<'a>(pods: &'a [Object], node: &'a Object) -> impl Iterator<Item = &'a Object> {
    pods.iter().filter(move |pod| str_at(pod, "/spec/nodeName") == objects::name(node))
}

/// Ten hexadecimal digits that stand for a template.
pub(crate) fn template_hash(template: &Value) -> String {
    let digest = Sha256::digest(template.to_string());
    digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}
