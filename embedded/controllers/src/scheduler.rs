//! Binds pods to the first node that takes them.

use async_trait::async_trait;
use meshgate_store::{Object, Selectors, Status, Store, Subresource, WriteOptions};
use serde_json::{Value, json};

use crate::events::{EventType, Recorder};
use crate::objects::{self, bool_at, condition, deleting, find, items, name, namespace, resources, str_at};
use crate::runner::{Controller, Key, Next, Seen, Watched};
use crate::time;

/// The controller; its keys are pods.
pub(crate) struct Scheduler {
    store: Store,
    events: Recorder,
}

impl Scheduler {
    pub(crate) fn new(store: Store) -> Self {
        let events = Recorder::new(store.clone(), "default-scheduler");
        Self { store, events }
    }

    /// The pods that wait for a node.
    fn waiting(&self) -> Vec<Key> {
        let selectors = Selectors { labels: String::new(), fields: "spec.nodeName=".to_owned() };
        let pods = self.store.list(&resources::pods(), None, &selectors).map(|list| list.items).unwrap_or_default();
        pods.iter().map(|pod| Key::new(resources::pods(), namespace(pod), name(pod))).collect()
    }

    fn bind(&self, pod: &Object, node: &str) -> Result<(), Status> {
        // Before the binding, because after it the status is the node's to write.
        scheduled(&self.store, pod, "True", "", "")?;
        let mut bound = false;
        let mut change = |pod: &mut Value| {
            bound = str_at(pod, "/spec/nodeName").is_empty();
            if bound {
                pod["spec"]["nodeName"] = json!(node);
            }
            Ok(())
        };
        let options = WriteOptions { manager: "kube-scheduler".to_owned(), ..WriteOptions::default() };
        let pods = resources::pods();
        match self.store.modify(&pods, namespace(pod), name(pod), Subresource::Main, &options, &mut change) {
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        if bound {
            let message = format!("Successfully assigned {}/{} to {node}", namespace(pod), name(pod));
            self.events.record(pod, EventType::Normal, "Scheduled", &message);
        }
        Ok(())
    }
}

#[async_trait]
impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn watched(&self) -> Watched {
        Watched::Some(vec![resources::pods(), resources::nodes()])
    }

    fn keys(&mut self, seen: &Seen) -> Vec<Key> {
        if seen.resource == resources::nodes() {
            return if seen.deleted { Vec::new() } else { self.waiting() };
        }
        if seen.deleted || !str_at(&seen.object, "/spec/nodeName").is_empty() {
            return Vec::new();
        }
        vec![Key::new(resources::pods(), namespace(&seen.object), name(&seen.object))]
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Next, Status> {
        let Some(pod) = find(&self.store, &key.resource, &key.namespace, &key.name)? else { return Ok(Next::Done) };
        let ours = str_at(&pod, "/spec/schedulerName") == "default-scheduler";
        let bound = !str_at(&pod, "/spec/nodeName").is_empty();
        if bound || !ours || deleting(&pod) || !items(&pod, "/spec/schedulingGates").is_empty() {
            return Ok(Next::Done);
        }
        let nodes = self.store.list(&resources::nodes(), None, &Selectors::default())?.items;
        if let Some(node) = nodes.iter().find(|node| takes(node, &pod)) {
            self.bind(&pod, name(node))?;
            return Ok(Next::Done);
        }
        let message = match nodes.len() {
            0 => "no nodes available to schedule pods".to_owned(),
            count => format!(
                "0/{count} nodes are available: {count} node(s) didn't match Pod's node affinity/selector or were unschedulable."
            ),
        };
        if condition(&pod["status"], "PodScheduled").is_none_or(|known| str_at(known, "/message") != message) {
            scheduled(&self.store, &pod, "False", "Unschedulable", &message)?;
            self.events.record(&pod, EventType::Warning, "FailedScheduling", &message);
        }
        Ok(Next::Done)
    }
}

/// Whether a node is open to new pods and has the labels of the pod's `nodeSelector`.
pub(crate) fn takes(node: &Value, pod: &Value) -> bool {
    !bool_at(node, "/spec/unschedulable") && !deleting(node) && node_selector_matches(node, pod)
}

/// Whether a node has the labels of the pod's `nodeSelector`.
pub(crate) fn node_selector_matches(node: &Value, pod: &Value) -> bool {
    let wanted = pod.pointer("/spec/nodeSelector").and_then(Value::as_object);
    wanted.is_none_or(|wanted| {
        wanted
            .iter()
            .all(|(key, value)| node.pointer("/metadata/labels").and_then(|labels| labels.get(key)) == Some(value))
    })
}

/// Writes the pod's `PodScheduled` condition.
fn scheduled(store: &Store, pod: &Value, state: &str, reason: &str, message: &str) -> Result<(), Status> {
    let mut condition = json!({
        "type": "PodScheduled", "status": state, "lastProbeTime": null, "lastTransitionTime": time::now(),
    });
    if !reason.is_empty() {
        condition["reason"] = json!(reason);
        condition["message"] = json!(message);
    }
    objects::change_status(store, &resources::pods(), pod, |status| {
        if !status["conditions"].is_array() {
            status["conditions"] = json!([]);
        }
        if let Some(conditions) = status["conditions"].as_array_mut() {
            conditions.retain(|known| str_at(known, "/type") != "PodScheduled");
            conditions.push(condition.clone());
        }
    })
}
