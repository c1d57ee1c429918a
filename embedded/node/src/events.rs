//! Events about pods, as `kubectl describe pod` shows them.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use meshgate_store::{Store, Subresource, WriteOptions};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::kinds;

/// Events remembered for counting; beyond it, counting begins anew.
const REMEMBERED: usize = 4096;

/// How serious an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// All is well.
    Normal,
    /// It is not.
    Warning,
}

/// What makes an event the same as another: pod uid, field path, reason, message.
type Key = (String, String, &'static str, String);

/// Writes events; one that repeats is counted instead of written again.
pub(crate) struct Recorder {
    store: Store,
    /// Names of the events that were written.
    known: Mutex<HashMap<Key, String>>,
}

impl Recorder {
    /// A recorder that writes to `store`.
    pub(crate) fn new(store: Store) -> Self {
        Self { store, known: Mutex::default() }
    }

    /// Records an event about a pod, or about the part of it that `field_path` names. Never fails: an event that
    /// cannot be written is only logged.
    pub(crate) fn record(&self, pod: &Pod, field_path: &str, kind: Kind, reason: &'static str, message: &str) {
        let metadata = &pod.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let uid = metadata.uid.clone().unwrap_or_default();
        let key = (uid.clone(), field_path.to_owned(), reason, message.to_owned());
        let now = Timestamp::now();
        let time = format!("{now:.0}");
        let known = self.known.lock().get(&key).cloned();
        if let Some(name) = known {
            let mut count = |event: &mut Value| {
                event["count"] = json!(event["count"].as_i64().unwrap_or(1) + 1);
                event["lastTimestamp"] = json!(time);
                Ok(())
            };
            let options = WriteOptions { manager: "kubelet".into(), ..Default::default() };
            let counted =
                self.store.modify(&kinds::events(), namespace, &name, Subresource::Main, &options, &mut count).is_ok();
            if counted {
                return;
            }
        }
        let pod_name = metadata.name.as_deref().unwrap_or_default();
        let name = format!("{pod_name}.{:x}", now.as_nanosecond());
        let mut involved = json!({
            "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pod_name, "uid": uid,
            "resourceVersion": metadata.resource_version,
        });
        if !field_path.is_empty() {
            involved["fieldPath"] = json!(field_path);
        }
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved,
            "type": format!("{kind:?}"), "reason": reason, "message": message,
            "source": {"component": "kubelet", "host": kinds::NODE},
            "reportingComponent": "kubelet", "reportingInstance": kinds::NODE,
            "firstTimestamp": time, "lastTimestamp": time, "count": 1,
        });
        let options = WriteOptions { manager: "kubelet".into(), ..Default::default() };
        match self.store.create(&kinds::events(), namespace, event, &options) {
            Ok(_) => {
                let mut known = self.known.lock();
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                known.insert(key, name);
            }
            // The namespace may be on its way out.
            Err(error) => tracing::debug!(%error, pod = pod_name, reason, "cannot write an event"),
        }
    }
}
