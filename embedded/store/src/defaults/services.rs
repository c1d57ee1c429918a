//! Defaults of Services and of what describes their backends.

use serde_json::{Value, json};

use super::any;
use crate::json::{child_value, default_to, items_mut, str_at};

/// A Service. Addresses and node ports come from `admission`.
pub(super) fn service(object: &mut Value) {
    let Some(spec) = child_value(object, "spec") else { return };
    default_to(spec, "type", "ClusterIP");
    default_to(spec, "sessionAffinity", "None");
    let kind = str_at(spec, "/type").to_owned();
    if str_at(spec, "/sessionAffinity") == "ClientIP" {
        default_to(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10800}}));
    }
    for port in items_mut(spec, "ports") {
        default_to(port, "protocol", "TCP");
        if port.get("targetPort") == Some(&json!(0)) {
            port["targetPort"] = Value::Null;
        }
        if let Some(number) = port.get("port").cloned() {
            default_to(port, "targetPort", number);
        }
    }
    if kind != "ExternalName" {
        default_to(spec, "internalTrafficPolicy", "Cluster");
        default_to(spec, "ipFamilies", json!(["IPv4"]));
        default_to(spec, "ipFamilyPolicy", "SingleStack");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        default_to(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default_to(spec, "allocateLoadBalancerNodePorts", true);
    }
    default_to(object, "status", json!({"loadBalancer": {}}));
}

pub(super) fn endpoints(object: &mut Value) {
    for subset in items_mut(object, "subsets") {
        for port in items_mut(subset, "ports") {
            default_to(port, "protocol", "TCP");
        }
    }
}

pub(super) fn endpoint_slice(object: &mut Value) {
    for port in items_mut(object, "ports") {
        default_to(port, "protocol", "TCP");
        if port.get("name").is_none_or(Value::is_null) {
            port["name"] = json!("");
        }
    }
}

pub(super) fn network_policy(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else { return };
    let types = if any(spec, "/egress", |_| true) { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    default_to(spec, "policyTypes", types);
    for direction in ["ingress", "egress"] {
        for rule in items_mut(spec, direction) {
            for port in items_mut(rule, "ports") {
                default_to(port, "protocol", "TCP");
            }
        }
    }
}
