use serde_json::{Value, json};

use super::super::tests::Good;
use super::updates::of_stateful_set;
use crate::invalid::FieldErrors;

fn good(plural: &str, more: Value) -> Good {
    let mut spec = json!({
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": "main:1"}]},
        },
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key.as_str()] = value.clone();
    }
    Good::new("apps", plural, json!({"metadata": {"name": "web"}, "spec": spec}))
}

const LABELS: &str = "spec.template.metadata.labels";
const MISMATCH: &str = "`selector` does not match template `labels`";

#[test]
fn selectors_and_templates() {
    let requirement = |operator: &str, values: Value| {
        let requirement = json!({"key": "app", "operator": operator, "values": values});
        json!({"matchLabels": {"app": "web"}, "matchExpressions": [requirement]})
    };
    for (plural, kind) in [("deployments", "Deployment"), ("statefulsets", "StatefulSet"), ("daemonsets", "DaemonSet")]
    {
        let good = good(plural, json!({}));
        good.takes(&[
            ("/spec/selector", requirement("In", json!(["web", "other"]))),
            ("/spec/selector", requirement("Exists", Value::Null)),
            ("/spec/template/metadata/annotations", json!({"A/b": "c"})),
        ]);
        good.refuses(&[
            ("/spec/selector", Value::Null, LABELS, MISMATCH),
            ("/spec/selector/matchLabels/app", json!("other"), LABELS, MISMATCH),
            ("/spec/selector/matchLabels/app", json!("/"), "spec.selector.matchLabels", "a valid label must be"),
            (
                "/spec/selector",
                json!({}),
                "spec.selector",
                &format!("empty selector is invalid for {}", kind.to_lowercase()),
            ),
            (
                "/spec/selector",
                requirement("Equals", json!(["web"])),
                "spec.selector.matchExpressions[0].operator",
                "Invalid value: \"Equals\": not a valid selector operator",
            ),
            (
                "/spec/selector",
                requirement("In", json!([])),
                "spec.selector.matchExpressions[0].values",
                "must be specified when `operator` is 'In' or 'NotIn'",
            ),
            (
                "/spec/selector",
                requirement("Exists", json!(["web"])),
                "spec.selector.matchExpressions[0].values",
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            (
                "/spec/selector",
                requirement("In", json!(["/"])),
                "spec.selector.matchExpressions[0].values[0]",
                "a valid label must be",
            ),
            ("/spec/template", Value::Null, "spec.template.spec.containers", "Required value"),
            ("/spec/template/metadata/labels/b", json!("/"), "spec.template.labels", "a valid label must be"),
            ("/spec/template/metadata/annotations", json!({"a b": ""}), "spec.template.annotations", "name part must"),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                "spec.template.spec.restartPolicy",
                "supported values: \"Always\"",
            ),
            (
                "/spec/template/spec/activeDeadlineSeconds",
                json!(1),
                "spec.template.spec.activeDeadlineSeconds",
                "Forbidden: activeDeadlineSeconds in",
            ),
            ("/spec/revisionHistoryLimit", json!(-1), "spec.revisionHistoryLimit", "greater than or equal to 0"),
            ("/spec/minReadySeconds", json!(-1), "spec.minReadySeconds", "greater than or equal to 0"),
        ]);
    }
    let required = ("/spec/selector", Value::Null, "spec.selector", "Required value");
    let other = ("/spec/selector/matchLabels/app", json!("/"), "spec.selector", "invalid label selector");
    good("replicasets", json!({"replicas": 0})).refuses(&[
        required,
        other,
        ("/spec/replicas", json!(-1), "spec.replicas", "must be greater than or equal to 0"),
        ("/spec/selector", json!({}), "spec.selector", "empty selector is invalid for deployment"),
    ]);
}

#[test]
fn replication_controllers() {
    let spec = json!({"selector": {"app": "web"}, "template": {
        "metadata": {"labels": {"app": "web", "more": "yes"}},
        "spec": {"containers": [{"name": "main", "image": "main:1"}]},
    }});
    let good = Good::new("", "replicationcontrollers", json!({"metadata": {"name": "web"}, "spec": spec}));
    good.takes(&[("/spec/selector", Value::Null)]);
    good.refuses(&[
        ("/spec/template", Value::Null, "spec.template", "Required value"),
        ("/spec/template/metadata/labels/app", json!("other"), LABELS, MISMATCH),
        ("/spec/template/spec/containers", json!([]), "spec.template.spec.containers", "Required value"),
    ]);
}

#[test]
fn deployments() {
    let good = good("deployments", json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}));
    good.takes(&[
        ("/spec/strategy", json!({"type": "Recreate"})),
        ("/spec/strategy/rollingUpdate", json!({"maxSurge": "150%", "maxUnavailable": "100%"})),
        ("/spec/strategy/rollingUpdate/maxUnavailable", json!(0)),
    ]);
    let unavailable = "spec.strategy.rollingUpdate.maxUnavailable";
    good.refuses(&[
        ("/spec/strategy/type", json!("a.b"), "spec.strategy", "supported values: \"Recreate\", \"RollingUpdate\""),
        ("/spec/strategy/type", json!("Recreate"), "spec.strategy.rollingUpdate", "may not be specified when"),
        (
            "/spec/strategy/rollingUpdate/maxSurge",
            json!("1"),
            "spec.strategy.rollingUpdate.maxSurge",
            "a valid percent",
        ),
        ("/spec/strategy/rollingUpdate/maxSurge", json!(-1), "spec.strategy.rollingUpdate.maxSurge", "or equal to 0"),
        ("/spec/strategy/rollingUpdate/maxUnavailable", json!("101%"), unavailable, "not be greater than 100%"),
        (
            "/spec/strategy/rollingUpdate",
            json!({"maxSurge": "0%", "maxUnavailable": 0}),
            unavailable,
            "may not be 0 when `maxSurge` is 0",
        ),
        ("/spec/progressDeadlineSeconds", json!(0), "spec.progressDeadlineSeconds", "greater than minReadySeconds"),
        ("/spec/minReadySeconds", json!(600), "spec.progressDeadlineSeconds", "greater than minReadySeconds"),
    ]);
}

#[test]
fn daemon_sets() {
    let good = good("daemonsets", json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {}}}));
    good.takes(&[
        ("/spec/updateStrategy", json!({"type": "OnDelete"})),
        ("/spec/updateStrategy/rollingUpdate", json!({"maxSurge": "10%", "maxUnavailable": 0})),
    ]);
    let path = "spec.updateStrategy.rollingUpdate";
    let (surge, unavailable) = (format!("{path}.maxSurge"), format!("{path}.maxUnavailable"));
    let pointer = "/spec/updateStrategy/rollingUpdate";
    good.refuses(&[
        ("/spec/updateStrategy/type", json!("a.b"), "spec.updateStrategy", "values: \"RollingUpdate\", \"OnDelete\""),
        (pointer, json!({"maxSurge": 1}), &surge, "may not be set when maxUnavailable is non-zero"),
        (pointer, json!({"maxUnavailable": 0}), &unavailable, "cannot be 0 when maxSurge is 0"),
        (pointer, json!({"maxUnavailable": "110%"}), &unavailable, "must not be greater than 100%"),
    ]);
}

#[test]
fn stateful_sets() {
    let claim = json!({"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
    }});
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    let good = good(
        "statefulsets",
        json!({"serviceName": "web", "volumeClaimTemplates": [claim], "updateStrategy": strategy}),
    );
    let mounts = "/spec/template/spec/containers/0/volumeMounts";
    good.takes(&[
        (mounts, json!([{"name": "data", "mountPath": "/data"}])),
        ("/spec/podManagementPolicy", json!("Parallel")),
        ("/spec/updateStrategy", json!({"type": "OnDelete"})),
        ("/spec/ordinals", json!({"start": 0})),
    ]);
    let path = "spec.updateStrategy";
    good.refuses(&[
        ("/metadata/name", json!("a.b"), "metadata.name", "must not contain dots"),
        (
            mounts,
            json!([{"name": "log", "mountPath": "/log"}]),
            "spec.template.spec.containers[0].volumeMounts[0].name",
            "Not found: \"log\"",
        ),
        ("/spec/podManagementPolicy", json!("1h"), "spec.podManagementPolicy", "must be 'OrderedReady' or 'Parallel'"),
        ("/spec/updateStrategy/type", json!("1"), path, "must be 'RollingUpdate' or 'OnDelete'"),
        ("/spec/updateStrategy/type", json!("OnDelete"), &format!("{path}.rollingUpdate"), "only allowed for"),
        (
            "/spec/updateStrategy/rollingUpdate/partition",
            json!(-1),
            &format!("{path}.rollingUpdate.partition"),
            "must be greater than or equal to 0",
        ),
        (
            "/spec/persistentVolumeClaimRetentionPolicy",
            json!({"whenScaled": "Drop"}),
            "spec.persistentVolumeClaimRetentionPolicy.whenScaled",
            "supported values: \"Retain\", \"Delete\"",
        ),
        ("/spec/ordinals", json!({"start": -1}), "spec.ordinals.start", "must be greater than or equal to 0"),
    ]);
}

#[test]
fn what_may_change_of_a_stateful_set() {
    let old = json!({"replicas": 1, "serviceName": "web", "volumeClaimTemplates": [{
        "metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1024Mi"}}},
    }]});
    let is_refused = |pointer: &str, value: Value| {
        let mut new = old.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        new.pointer_mut(parent).unwrap()[key] = value;
        let mut errors = FieldErrors::default();
        of_stateful_set(&old, &new, &mut errors);
        !errors.is_empty()
    };
    let claim = "/volumeClaimTemplates/0";
    for (pointer, value) in [
        ("/replicas", json!(2)),
        ("/template", json!({"spec": {}})),
        ("/revisionHistoryLimit", json!(1)),
        // As a client writes back what it has read.
        (format!("{claim}/status").as_str(), json!({})),
        (format!("{claim}/metadata/creationTimestamp").as_str(), Value::Null),
        (format!("{claim}/spec/resources/requests/storage").as_str(), json!("1Gi")),
    ] {
        assert!(!is_refused(pointer, value), "{pointer}");
    }
    for (pointer, value) in [
        ("/serviceName", json!("other")),
        ("/podManagementPolicy", json!("Parallel")),
        ("/volumeClaimTemplates", json!([])),
        (format!("{claim}/spec/resources/requests/storage").as_str(), json!("2Gi")),
    ] {
        assert!(is_refused(pointer, value), "{pointer}");
    }
}

#[test]
fn disruption_budgets() {
    let good = Good::new(
        "policy",
        "poddisruptionbudgets",
        json!({"metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
    );
    good.takes(&[
        ("/spec/minAvailable", json!("100%")),
        ("/spec", json!({"maxUnavailable": 0})),
        ("/spec/unhealthyPodEvictionPolicy", json!("AlwaysAllow")),
    ]);
    good.refuses(&[
        ("/spec/maxUnavailable", json!(1), "spec", "minAvailable and maxUnavailable cannot be both set"),
        ("/spec/minAvailable", json!(-1), "spec.minAvailable", "must be greater than or equal to 0"),
        ("/spec/minAvailable", json!("half"), "spec.minAvailable", "a valid percent string"),
        ("/spec/minAvailable", json!("101%"), "spec.minAvailable", "must not be greater than 100%"),
        ("/spec/selector/matchLabels/app", json!("/"), "spec.selector.matchLabels", "a valid label must be"),
        (
            "/spec/unhealthyPodEvictionPolicy",
            json!("Never"),
            "spec.unhealthyPodEvictionPolicy",
            "supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
        ),
    ]);
}
