//! Printers of nodes, namespaces, storage, policies and extensions.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::config::created_at;
use super::format::{NONE, UNKNOWN, age, count, int, items, text, text_or};
use super::printer::Column::{self, Number, Text, Wide};
use super::printer::{Builtin, Cells};

pub(super) fn printer(group: &str, plural: &str) -> Option<Builtin> {
    let (columns, cells): (&'static [Column], Cells) = match (group, plural) {
        ("", "namespaces") => (&[Text("Status"), Text("Age")], namespace),
        ("", "nodes") => (
            &[
                Text("Status"),
                Text("Roles"),
                Text("Age"),
                Text("Version"),
                Wide("Internal-IP"),
                Wide("External-IP"),
                Wide("OS-Image"),
                Wide("Kernel-Version"),
                Wide("Container-Runtime"),
            ],
            node,
        ),
        ("", "persistentvolumes") => (
            &[
                Text("Capacity"),
                Text("Access Modes"),
                Text("Reclaim Policy"),
                Text("Status"),
                Text("Claim"),
                Text("StorageClass"),
                Text("Reason"),
                Text("Age"),
            ],
            volume,
        ),
        ("", "persistentvolumeclaims") => (
            &[
                Text("Status"),
                Text("Volume"),
                Text("Capacity"),
                Text("Access Modes"),
                Text("StorageClass"),
                Text("Age"),
            ],
            claim,
        ),
        ("storage.k8s.io", "storageclasses") => (
            &[
                Text("Provisioner"),
                Text("ReclaimPolicy"),
                Text("VolumeBindingMode"),
                Text("AllowVolumeExpansion"),
                Text("Age"),
            ],
            storage_class,
        ),
        ("scheduling.k8s.io", "priorityclasses") => {
            (&[Number("Value"), Text("Global-Default"), Text("Age"), Text("PreemptionPolicy")], priority_class)
        }
        ("policy", "poddisruptionbudgets") => (
            &[Text("Min Available"), Text("Max Unavailable"), Number("Allowed Disruptions"), Text("Age")],
            disruption_budget,
        ),
        ("autoscaling", "horizontalpodautoscalers") => (
            &[Text("Reference"), Text("Targets"), Text("MinPods"), Text("MaxPods"), Text("Replicas"), Text("Age")],
            autoscaler,
        ),
        ("apiextensions.k8s.io", "customresourcedefinitions") => (&[Text("Created At")], created_at),
        ("admissionregistration.k8s.io", _) => (&[Number("Webhooks"), Text("Age")], webhooks),
        ("apiregistration.k8s.io", "apiservices") => (&[Text("Service"), Text("Available"), Text("Age")], api_service),
        _ => return None,
    };
    Some(Builtin { columns, cells })
}

fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(text(object, "/status/phase")), age(object, now)]
}

fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = items(object, "/status/conditions").iter().find(|condition| text(condition, "/type") == "Ready");
    let mut status = match ready.map(|ready| text(ready, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    let roles = if roles.is_empty() { NONE.to_owned() } else { roles.join(",") };
    let address = |kind: &str| -> Value {
        let addresses = items(object, "/status/addresses");
        json!(
            addresses
                .iter()
                .find(|address| text(address, "/type") == kind)
                .map_or(NONE, |found| text(found, "/address"))
        )
    };
    let info = |key: &str| json!(text_or(object, &format!("/status/nodeInfo/{key}"), UNKNOWN));
    vec![
        json!(status),
        json!(roles),
        age(object, now),
        json!(text(object, "/status/nodeInfo/kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

/// `RWO,ROX`.
fn access_modes(object: &Value, pointer: &str) -> String {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => "RWO",
        Some("ReadOnlyMany") => "ROX",
        Some("ReadWriteMany") => "RWX",
        Some("ReadWriteOncePod") => "RWOP",
        _ => "",
    };
    items(object, pointer).iter().map(short).collect::<Vec<_>>().join(",")
}

fn volume(object: &Value, now: Timestamp) -> Vec<Value> {
    let claim = match text(object, "/spec/claimRef/name") {
        "" => String::new(),
        name => format!("{}/{name}", text(object, "/spec/claimRef/namespace")),
    };
    vec![
        json!(text(object, "/spec/capacity/storage")),
        json!(access_modes(object, "/spec/accessModes")),
        json!(text(object, "/spec/persistentVolumeReclaimPolicy")),
        json!(text(object, "/status/phase")),
        json!(claim),
        json!(text(object, "/spec/storageClassName")),
        json!(text(object, "/status/reason")),
        age(object, now),
    ]
}

fn claim(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(text(object, "/status/phase")),
        json!(text(object, "/spec/volumeName")),
        json!(text(object, "/status/capacity/storage")),
        json!(access_modes(object, "/status/accessModes")),
        json!(text(object, "/spec/storageClassName")),
        age(object, now),
    ]
}

fn storage_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(text(object, "/provisioner")),
        json!(text_or(object, "/reclaimPolicy", "Delete")),
        json!(text_or(object, "/volumeBindingMode", "Immediate")),
        json!(object["allowVolumeExpansion"].as_bool().unwrap_or(false).to_string()),
        age(object, now),
    ]
}

fn priority_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(int(object, "/value")),
        json!(object["globalDefault"].as_bool().unwrap_or(false).to_string()),
        age(object, now),
        json!(text_or(object, "/preemptionPolicy", "PreemptLowerPriority")),
    ]
}

fn disruption_budget(object: &Value, now: Timestamp) -> Vec<Value> {
    let limit = |pointer: &str| match object.pointer(pointer) {
        Some(Value::String(text)) => json!(text),
        Some(Value::Number(number)) => json!(number.to_string()),
        _ => json!("N/A"),
    };
    vec![
        limit("/spec/minAvailable"),
        limit("/spec/maxUnavailable"),
        json!(int(object, "/status/disruptionsAllowed")),
        age(object, now),
    ]
}

fn autoscaler(object: &Value, now: Timestamp) -> Vec<Value> {
    let target = "/spec/scaleTargetRef";
    let reference = format!("{}/{}", text(object, &format!("{target}/kind")), text(object, &format!("{target}/name")));
    let metrics = items(object, "/spec/metrics");
    let targets: Vec<String> =
        metrics.iter().enumerate().map(|(at, metric)| metric_target(object, at, metric)).collect();
    let targets = if targets.is_empty() { NONE.to_owned() } else { targets.join(", ") };
    let minimum = object.pointer("/spec/minReplicas").map_or("<unset>".to_owned(), Value::to_string);
    vec![
        json!(reference),
        json!(targets),
        json!(minimum),
        json!(int(object, "/spec/maxReplicas").to_string()),
        json!(int(object, "/status/currentReplicas").to_string()),
        age(object, now),
    ]
}

/// `cpu: 10%/50%`, with what is known of the current value.
fn metric_target(object: &Value, at: usize, metric: &Value) -> String {
    let wanted = int(metric, "/resource/target/averageUtilization");
    let current = items(object, "/status/currentMetrics").get(at);
    let current = current.and_then(|current| current.pointer("/resource/current/averageUtilization")?.as_i64());
    let current = current.map_or(UNKNOWN.to_owned(), |current| format!("{current}%"));
    match text(metric, "/resource/name") {
        "" => UNKNOWN.to_owned(),
        name => format!("{name}: {current}/{wanted}%"),
    }
}

fn webhooks(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(count(object, "/webhooks")), age(object, now)]
}

fn api_service(object: &Value, now: Timestamp) -> Vec<Value> {
    let service = match text(object, "/spec/service/name") {
        "" => "Local".to_owned(),
        name => format!("{}/{name}", text(object, "/spec/service/namespace")),
    };
    let condition =
        items(object, "/status/conditions").iter().find(|condition| text(condition, "/type") == "Available");
    let available = match condition {
        Some(condition) if text(condition, "/status") == "True" => "True".to_owned(),
        Some(condition) => format!("{} ({})", text(condition, "/status"), text(condition, "/reason")),
        None => "Unknown".to_owned(),
    };
    vec![json!(service), json!(available), age(object, now)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_in_one_line() {
        let object = json!({
            "metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "172.18.0.2"}],
                "nodeInfo": {"kubeletVersion": "v1.37.1"},
            },
        });
        let cells = node(&object, Timestamp::now());
        assert_eq!(cells[..2], [json!("Ready,SchedulingDisabled"), json!("control-plane")]);
        assert_eq!(cells[3..6], [json!("v1.37.1"), json!("172.18.0.2"), json!(NONE)]);
    }
}
