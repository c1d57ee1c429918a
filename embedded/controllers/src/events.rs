//! Core v1 Events, as `kubectl describe` and `kubectl get events` show them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use meshgate_store::{Store, Subresource, WriteOptions};
use serde_json::{Value, json};

use crate::objects::{resources, str_at};
use crate::time;

/// Repeated events kept in mind to be counted instead of written again.
const MEMORY: usize = 1024;

/// The two types of Events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// Something happened as it should.
    Normal,
    /// Something a person may want to look at.
    Warning,
}

/// Writes Events about objects. An event that repeats raises the count of the first. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    store: Store,
    component: String,
    host: String,
    /// Event names by what makes two events the same.
    known: Arc<Mutex<HashMap<Sameness, String>>>,
}

/// The uid of the object, the reason and the message.
type Sameness = (String, String, String);

impl Recorder {
    /// A recorder for a component, e.g. `deployment-controller`.
    pub fn new(store: Store, component: &str) -> Self {
        Self { store, component: component.to_owned(), host: String::new(), known: Arc::default() }
    }

    /// The same recorder reporting from a node (`kubelet, meshgate`).
    #[must_use]
    pub fn on_host(mut self, host: &str) -> Self {
        self.host = host.to_owned();
        self
    }

    /// Records an event about an object (with `apiVersion`, `kind`, `metadata`). Failures are logged: an event is
    /// never worth failing for.
    pub fn record(&self, about: &Value, event_type: EventType, reason: &str, message: &str) {
        self.record_field(about, "", event_type, reason, message);
    }

    /// The same about a part of the object, e.g. `spec.containers{web}`.
    pub fn record_field(&self, about: &Value, field_path: &str, event_type: EventType, reason: &str, message: &str) {
        let sameness = (str_at(about, "/metadata/uid").to_owned(), reason.to_owned(), message.to_owned());
        let namespace = match str_at(about, "/metadata/namespace") {
            "" => "default",
            namespace => namespace,
        };
        let known = self.memory().get(&sameness).cloned();
        if known.is_some_and(|name| self.count(namespace, &name)) {
            return;
        }
        let event = self.event(about, field_path, event_type, reason, message);
        match self.store.create(&resources::events(), namespace, event, &WriteOptions::default()) {
            Ok(event) => {
                let mut memory = self.memory();
                if memory.len() >= MEMORY {
                    memory.clear();
                }
                memory.insert(sameness, str_at(&event, "/metadata/name").to_owned());
            }
            // The namespace is going away, and its events with it.
            Err(error) if error.code == 403 || error.is_not_found() => {}
            Err(error) => tracing::debug!(%error, reason, message, "an event could not be written"),
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, HashMap<Sameness, String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a repetition; false when the first event is gone.
    fn count(&self, namespace: &str, name: &str) -> bool {
        let mut change = |event: &mut Value| {
            event["count"] = json!(event["count"].as_i64().unwrap_or(1) + 1);
            event["lastTimestamp"] = json!(time::now());
            Ok(())
        };
        let options = WriteOptions::default();
        self.store.modify(&resources::events(), namespace, name, Subresource::Main, &options, &mut change).is_ok()
    }

    fn event(&self, about: &Value, field_path: &str, event_type: EventType, reason: &str, message: &str) -> Value {
        let now = time::now();
        let meta = &about["metadata"];
        let mut involved = json!({
            "apiVersion": about["apiVersion"], "kind": about["kind"], "namespace": meta["namespace"],
            "name": meta["name"], "uid": meta["uid"], "resourceVersion": meta["resourceVersion"],
        });
        if !field_path.is_empty() {
            involved["fieldPath"] = json!(field_path);
        }
        if let Some(involved) = involved.as_object_mut() {
            involved.retain(|_, value| !value.is_null());
        }
        let mut source = json!({"component": self.component});
        if !self.host.is_empty() {
            source["host"] = json!(self.host);
        }
        let unique: u64 = rand::random();
        json!({
            "metadata": {"name": format!("{}.{unique:016x}", str_at(about, "/metadata/name"))},
            "involvedObject": involved,
            "type": match event_type { EventType::Normal => "Normal", EventType::Warning => "Warning" },
            "reason": reason,
            "message": message,
            "source": source,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "eventTime": null,
            "reportingComponent": self.component,
            "reportingInstance": self.host,
        })
    }
}
