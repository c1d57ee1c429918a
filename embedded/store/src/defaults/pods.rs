//! Defaults of pods and of the pod templates inside other kinds.

use serde_json::{Value, json};

use super::any;
use crate::json::{child_value, default_to, items, items_mut, str_at, unset};

/// 0644, the mode of files in ConfigMap, Secret and projected volumes.
const DEFAULT_MODE: i64 = 0o644;

/// Where the API's token and certificate are mounted.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Seconds a pod's token lives: one hour and seven seconds, so that nobody relies on the exact hour.
const TOKEN_SECONDS: i64 = 3607;

/// A pod itself.
pub(super) fn pod(object: &mut Value) {
    let Some(spec) = child_value(object, "spec") else { return };
    pod_spec(spec);
    default_to(spec, "enableServiceLinks", true);
    for container in items_mut(spec, "containers") {
        requests_from_limits(container);
    }
    for container in items_mut(spec, "initContainers") {
        requests_from_limits(container);
    }
}

/// The fields that pods and templates share.
pub(super) fn pod_spec(spec: &mut Value) {
    let name = str_at(spec, "/serviceAccountName").to_owned();
    let deprecated = str_at(spec, "/serviceAccount").to_owned();
    let account = if name.is_empty() { deprecated } else { name };
    if !account.is_empty() {
        spec["serviceAccountName"] = json!(account);
        spec["serviceAccount"] = json!(account);
    }
    default_to(spec, "restartPolicy", "Always");
    default_to(spec, "dnsPolicy", "ClusterFirst");
    default_to(spec, "schedulerName", "default-scheduler");
    default_to(spec, "securityContext", json!({}));
    default_to(spec, "terminationGracePeriodSeconds", 30);
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or(false);
    for key in ["containers", "initContainers"] {
        for container in items_mut(spec, key) {
            self::container(container, host_network);
        }
    }
    for volume in items_mut(spec, "volumes") {
        self::volume(volume);
    }
}

fn container(container: &mut Value, host_network: bool) {
    let image = str_at(container, "/image");
    let policy = if latest(image) { "Always" } else { "IfNotPresent" };
    default_to(container, "imagePullPolicy", policy);
    default_to(container, "terminationMessagePath", "/dev/termination-log");
    default_to(container, "terminationMessagePolicy", "File");
    default_to(container, "resources", json!({}));
    for port in items_mut(container, "ports") {
        default_to(port, "protocol", "TCP");
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            default_to(port, "hostPort", number);
        }
    }
    for variable in items_mut(container, "env") {
        if let Some(field) = variable.get_mut("valueFrom").and_then(|source| source.get_mut("fieldRef")) {
            default_to(field, "apiVersion", "v1");
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(key) {
            default_to(probe, "timeoutSeconds", 1);
            default_to(probe, "periodSeconds", 10);
            default_to(probe, "successThreshold", 1);
            default_to(probe, "failureThreshold", 3);
            handler(probe);
        }
    }
    if let Some(lifecycle) = container.get_mut("lifecycle") {
        for key in ["postStart", "preStop"] {
            if let Some(hook) = lifecycle.get_mut(key) {
                handler(hook);
            }
        }
    }
}

fn handler(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet") {
        default_to(get, "path", "/");
        default_to(get, "scheme", "HTTP");
    }
    if let Some(grpc) = handler.get_mut("grpc")
        && grpc.get("service").is_none()
    {
        grpc["service"] = json!("");
    }
}

/// Whether an image reference means the tag `latest`: no tag and no digest, or that tag.
fn latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn volume(volume: &mut Value) {
    let has_source = volume.as_object().is_some_and(|map| map.keys().any(|key| key != "name"));
    if !has_source && volume.is_object() {
        volume["emptyDir"] = json!({});
    }
    for key in ["secret", "configMap", "projected", "downwardAPI"] {
        if let Some(source) = volume.get_mut(key) {
            default_to(source, "defaultMode", DEFAULT_MODE);
            field_refs(source);
        }
    }
    if let Some(projected) = volume.get_mut("projected") {
        for source in items_mut(projected, "sources") {
            if let Some(token) = source.get_mut("serviceAccountToken") {
                default_to(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = source.get_mut("downwardAPI") {
                field_refs(downward);
            }
        }
    }
    if let Some(path) = volume.get_mut("hostPath")
        && path.get("type").is_none()
    {
        path["type"] = json!("");
    }
}

fn field_refs(source: &mut Value) {
    for item in items_mut(source, "items") {
        if let Some(field) = item.get_mut("fieldRef") {
            default_to(field, "apiVersion", "v1");
        }
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = container.pointer("/resources/limits").and_then(Value::as_object).cloned() else { return };
    let Some(resources) = container.get_mut("resources") else { return };
    let Some(requests) = child_value(resources, "requests") else { return };
    for (name, quantity) in limits {
        default_to(requests, &name, quantity);
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, from the containers' requests and limits.
pub(super) fn qos_class(pod: &Value) -> &'static str {
    let containers = || items(pod, "/spec/containers").iter().chain(items(pod, "/spec/initContainers"));
    let list = |container: &Value, key: &str| container.pointer(&format!("/resources/{key}")).cloned();
    let empty = |value: &Option<Value>| value.as_ref().and_then(Value::as_object).is_none_or(serde_json::Map::is_empty);
    if containers().all(|container| empty(&list(container, "requests")) && empty(&list(container, "limits"))) {
        return "BestEffort";
    }
    let guaranteed = containers().all(|container| {
        let limits = list(container, "limits").unwrap_or_default();
        limits.get("cpu").is_some()
            && limits.get("memory").is_some()
            && list(container, "requests").is_none_or(|requests| requests == limits)
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

/// Mounts the API's token, certificate and namespace into every container that has nothing at that path, as the
/// `ServiceAccount` admission plugin does.
pub(crate) fn token_volume(spec: &mut Value, suffix: &str) {
    let mounted =
        |container: &Value| any(container, "/volumeMounts", |mount| str_at(mount, "/mountPath") == TOKEN_PATH);
    let wanted = ["/containers", "/initContainers"].iter().any(|key| any(spec, key, |container| !mounted(container)));
    if !wanted {
        return;
    }
    let prefix = "kube-api-access-";
    // A pod to which a webhook has added containers has the volume already.
    let present =
        items(spec, "/volumes").iter().map(|volume| str_at(volume, "/name")).find(|name| name.starts_with(prefix));
    let present = present.map(str::to_owned);
    let name = present.clone().unwrap_or_else(|| format!("{prefix}{suffix}"));
    for key in ["containers", "initContainers"] {
        for container in items_mut(spec, key) {
            if mounted(container) {
                continue;
            }
            let mount = json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH});
            push(container, "volumeMounts", mount);
        }
    }
    if present.is_some() {
        return;
    }
    let volume = json!({"name": name, "projected": {"defaultMode": DEFAULT_MODE, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}});
    push(spec, "volumes", volume);
}

fn push(value: &mut Value, key: &str, item: Value) {
    if unset(value, key) {
        value[key] = json!([]);
    }
    if let Some(list) = value.get_mut(key).and_then(Value::as_array_mut) {
        list.push(item);
    }
}
