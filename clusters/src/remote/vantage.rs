//! The pods that connections start from.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{NAMESPACE, OWNED, PORT};

/// The pods, in the order of [`super::index`].
pub(super) const NAMES: [&str; 3] = ["client-0", "client-1", "node"];

/// The label by which each is told from the others.
pub(super) const LABEL: &str = "meshgate.dev/vantage";

/// Their ServiceAccount.
pub(super) const ACCOUNT: &str = "vantage";

/// The ServiceAccount; it has no rights, and none of them a token.
pub(super) fn account() -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": ACCOUNT, "namespace": NAMESPACE, "labels": {OWNED: "true"}},
        "automountServiceAccountToken": false,
    })
}

/// One of them, fit for a namespace that enforces the restricted Pod Security Standard.
pub(super) fn pod(name: &str, image: &str, placement: &BTreeMap<String, String>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "labels": {OWNED: "true", LABEL: name},
            // A mesh that injects by namespace or by default has nothing to do here.
            "annotations": {"linkerd.io/inject": "disabled"},
        },
        "spec": {
            "serviceAccountName": ACCOUNT,
            "nodeSelector": placement,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "vantage", "image": image, "imagePullPolicy": "IfNotPresent", "args": ["app", "vantage"],
                "ports": [{"name": "tunnels", "containerPort": PORT}],
                "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

/// The address of one that is ready.
pub(super) fn address(pod: &Pod) -> Option<Ipv4Addr> {
    let status = pod.status.as_ref()?;
    let ready =
        status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    if ready { status.pod_ip.as_ref()?.parse().ok() } else { None }
}

/// The address of one that has none of IPv4, as where IPv6 is the cluster's first family.
pub(super) fn other_address(pod: &Pod) -> Option<String> {
    let address = pod.status.as_ref()?.pod_ip.as_ref().filter(|address| !address.is_empty())?;
    address.parse::<Ipv4Addr>().is_err().then(|| address.clone())
}

/// Why one is not ready, in a few words.
pub(super) fn trouble(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or("?");
    let Some(status) = &pod.status else { return format!("{name}: nothing is known of it") };
    let container = status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        Some(format!("{reason} {}", waiting.message.as_deref().unwrap_or_default()))
    });
    let unscheduled = || {
        let condition = status.conditions.iter().flatten().find(|condition| condition.status == "False")?;
        Some(format!("{} {}", condition.type_, condition.message.as_deref().unwrap_or("is false")))
    };
    let phase = || status.phase.clone().unwrap_or_else(|| "no phase".to_owned());
    format!("{name}: {}", container.or_else(unscheduled).unwrap_or_else(phase).trim_end())
}

/// Whether its image cannot be had: waiting longer will hardly help.
pub(super) fn has_no_image(pod: &Pod) -> bool {
    const HOPELESS: [&str; 4] = ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"];
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut reasons = statuses.filter_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    reasons.any(|reason| HOPELESS.contains(&reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_another_family_is_told_and_not_waited_for() {
        let pod = |address: &str| -> Pod { serde_json::from_value(json!({"status": {"podIP": address}})).unwrap() };
        assert_eq!(other_address(&pod("fd00:10:244::7")).as_deref(), Some("fd00:10:244::7"));
        assert_eq!((other_address(&pod("10.244.0.7")), other_address(&pod(""))), (None, None));
    }
}
