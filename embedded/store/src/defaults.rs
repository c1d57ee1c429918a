//! Defaults of the built-in kinds, as `k8s.io/kubernetes/pkg/apis/*/v1/defaults.go` has them.
//!
//! Pure functions of the object. What needs other objects (addresses, service accounts) is in `admission`.

mod pods;
mod services;
mod workloads;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::ResourceType;
use crate::json::{child, child_value, default_to, items, items_mut, str_at};

pub(crate) use pods::token_volume;

/// Applies the defaults of a built-in kind. Objects of other kinds are left alone.
pub(crate) fn apply(resource: &ResourceType, object: &mut Value) {
    match (resource.resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pods::pod(object),
        ("", "PodTemplate") => workloads::template(object, "template"),
        ("", "ReplicationController") => workloads::replication_controller(object),
        ("", "Service") => services::service(object),
        ("", "Endpoints") => services::endpoints(object),
        ("", "Namespace") => namespace(object),
        ("", "Secret") => secret(object),
        ("", "PersistentVolumeClaim") => claim(object),
        ("", "PersistentVolume") => volume(object),
        ("apps", "Deployment") => workloads::deployment(object),
        ("apps", "ReplicaSet") => workloads::replica_set(object),
        ("apps", "DaemonSet") => workloads::daemon_set(object),
        ("apps", "StatefulSet") => workloads::stateful_set(object),
        ("batch", "Job") => workloads::job(object),
        ("batch", "CronJob") => workloads::cron_job(object),
        ("discovery.k8s.io", "EndpointSlice") => services::endpoint_slice(object),
        ("networking.k8s.io", "NetworkPolicy") => services::network_policy(object),
        ("networking.k8s.io", "Ingress") => default_status(object, json!({"loadBalancer": {}})),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => role_binding(object),
        ("autoscaling", _) => {
            if let Some(spec) = child_value(object, "spec") {
                default_to(spec, "minReplicas", 1);
            }
        }
        ("apiextensions.k8s.io", _) => crate::crds::apply_defaults(object),
        ("admissionregistration.k8s.io", _) => webhooks(object),
        ("storage.k8s.io", "StorageClass") => {
            default_to(object, "reclaimPolicy", "Delete");
            default_to(object, "volumeBindingMode", "Immediate");
        }
        ("scheduling.k8s.io", "PriorityClass") => default_to(object, "preemptionPolicy", "PreemptLowerPriority"),
        _ => {}
    }
}

/// The status of a new object: dropped where it is a subresource, then what Kubernetes' strategies put there.
pub(crate) fn first_status(resource: &ResourceType, object: &mut Value) {
    if crate::meta::has_status(resource)
        && let Some(map) = object.as_object_mut()
    {
        map.remove("status");
    }
    if !resource.builtin {
        return;
    }
    let status = match resource.kind.as_str() {
        "Namespace" => json!({"phase": "Active"}),
        "Pod" => json!({"phase": "Pending", "qosClass": pods::qos_class(object)}),
        "PersistentVolume" | "PersistentVolumeClaim" => json!({"phase": "Pending"}),
        "Service" | "Ingress" => json!({"loadBalancer": {}}),
        "Deployment" | "StatefulSet" | "Job" | "CronJob" | "Node" => json!({}),
        "ReplicaSet" | "ReplicationController" => json!({"replicas": 0}),
        "DaemonSet" => json!({
            "currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0,
        }),
        _ => return,
    };
    object["status"] = status;
}

fn default_status(object: &mut Value, status: Value) {
    default_to(object, "status", status);
}

fn namespace(object: &mut Value) {
    let name = str_at(object, "/metadata/name").to_owned();
    if let Some(meta) = child_value(object, "metadata")
        && let Some(labels) = child(meta, "labels")
    {
        labels.insert("kubernetes.io/metadata.name".to_owned(), json!(name));
    }
    if let Some(spec) = child_value(object, "spec") {
        default_to(spec, "finalizers", json!(["kubernetes"]));
    }
    default_status(object, json!({"phase": "Active"}));
}

/// `stringData` is write-only: it overrides `data` and is not kept.
fn secret(object: &mut Value) {
    default_to(object, "type", "Opaque");
    let Some(Value::Object(plain)) = object.as_object_mut().and_then(|map| map.remove("stringData")) else { return };
    if plain.is_empty() {
        return;
    }
    if let Some(data) = child(object, "data") {
        for (key, value) in plain {
            data.insert(key, json!(STANDARD.encode(value.as_str().unwrap_or_default())));
        }
    }
}

fn claim(object: &mut Value) {
    if let Some(spec) = child_value(object, "spec") {
        default_to(spec, "volumeMode", "Filesystem");
    }
    default_status(object, json!({"phase": "Pending"}));
}

fn volume(object: &mut Value) {
    if let Some(spec) = child_value(object, "spec") {
        default_to(spec, "volumeMode", "Filesystem");
        default_to(spec, "persistentVolumeReclaimPolicy", "Retain");
    }
}

fn role_binding(object: &mut Value) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    if let Some(role) = object.get_mut("roleRef") {
        default_to(role, "apiGroup", GROUP);
    }
    for subject in items_mut(object, "subjects") {
        if matches!(str_at(subject, "/kind"), "User" | "Group") {
            default_to(subject, "apiGroup", GROUP);
        }
    }
}

fn webhooks(object: &mut Value) {
    let mutating = str_at(object, "/kind") == "MutatingWebhookConfiguration";
    for webhook in items_mut(object, "webhooks") {
        default_to(webhook, "failurePolicy", "Fail");
        default_to(webhook, "matchPolicy", "Equivalent");
        default_to(webhook, "timeoutSeconds", 10);
        default_to(webhook, "namespaceSelector", json!({}));
        default_to(webhook, "objectSelector", json!({}));
        if mutating {
            default_to(webhook, "reinvocationPolicy", "Never");
        }
        for rule in items_mut(webhook, "rules") {
            default_to(rule, "scope", "*");
        }
        if let Some(service) = webhook.get_mut("clientConfig").and_then(|config| config.get_mut("service")) {
            default_to(service, "port", 443);
        }
    }
}

/// Whether any element of the array at a pointer satisfies a condition.
fn any(value: &Value, pointer: &str, condition: impl Fn(&Value) -> bool) -> bool {
    items(value, pointer).iter().any(condition)
}

#[cfg(test)]
mod tests;
