//! The ClusterRoles and bindings that every cluster begins with.

use serde_json::{Value, json};

use super::GROUP;

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];

/// Namespaced things that may be looked at by whoever may look at anything: no secrets, no way into a pod.
const VISIBLE: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "bindings",
            "configmaps",
            "endpoints",
            "events",
            "limitranges",
            "namespaces",
            "namespaces/status",
            "persistentvolumeclaims",
            "persistentvolumeclaims/status",
            "pods",
            "pods/log",
            "pods/status",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "replicationcontrollers/status",
            "resourcequotas",
            "resourcequotas/status",
            "serviceaccounts",
            "services",
            "services/status",
        ],
    ),
    ("discovery.k8s.io", &["endpointslices"]),
    (
        "apps",
        &[
            "controllerrevisions",
            "daemonsets",
            "daemonsets/status",
            "deployments",
            "deployments/scale",
            "deployments/status",
            "replicasets",
            "replicasets/scale",
            "replicasets/status",
            "statefulsets",
            "statefulsets/scale",
            "statefulsets/status",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
    ("batch", &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
    ("policy", &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
    ("networking.k8s.io", &["ingresses", "ingresses/status", "networkpolicies"]),
];

/// What `edit` may look at beyond `view`.
const INSIDE: &[&str] = &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"];

/// What `edit` may change.
const EDITABLE: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "configmaps",
            "events",
            "persistentvolumeclaims",
            "pods",
            "pods/attach",
            "pods/exec",
            "pods/portforward",
            "pods/proxy",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "secrets",
            "serviceaccounts",
            "services",
            "services/proxy",
        ],
    ),
    (
        "apps",
        &[
            "daemonsets",
            "deployments",
            "deployments/rollback",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("policy", &["poddisruptionbudgets"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
];

const DISCOVERY: &[&str] = &[
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
];
const PUBLIC: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];

/// The default objects: plural (`clusterroles` or `clusterrolebindings`) and object.
pub(crate) fn default_objects() -> Vec<(&'static str, Value)> {
    let (authenticated, unauthenticated) = ("system:authenticated", "system:unauthenticated");
    let everything = vec![
        json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}),
        json!({"nonResourceURLs": ["*"], "verbs": ["*"]}),
    ];
    let reviews = vec![
        json!({"apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], "verbs": ["create"]}),
        json!({"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]}),
    ];
    let delegator = vec![
        json!({"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}),
        json!({"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]}),
    ];
    let paths = |paths: &[&str]| vec![json!({"nonResourceURLs": paths, "verbs": ["get"]})];
    vec![
        role("cluster-admin", everything),
        aggregate("admin", "admin"),
        aggregate("edit", "edit"),
        aggregate("view", "view"),
        part("system:aggregate-to-admin", &["admin"], admin()),
        part("system:aggregate-to-edit", &["admin", "edit"], edit()),
        part("system:aggregate-to-view", &["admin", "edit", "view"], view()),
        role("system:basic-user", reviews),
        role("system:discovery", paths(DISCOVERY)),
        role("system:public-info-viewer", paths(PUBLIC)),
        role("system:auth-delegator", delegator),
        binding("cluster-admin", "cluster-admin", &["system:masters"]),
        binding("system:basic-user", "system:basic-user", &[authenticated]),
        binding("system:discovery", "system:discovery", &[authenticated]),
        binding("system:public-info-viewer", "system:public-info-viewer", &[authenticated, unauthenticated]),
    ]
}

fn view() -> Vec<Value> {
    VISIBLE.iter().map(|(group, resources)| rule(group, resources, READ)).collect()
}

fn edit() -> Vec<Value> {
    let mut rules = vec![
        rule("", INSIDE, READ),
        rule("", &["serviceaccounts"], &["impersonate"]),
        rule("", &["pods/eviction", "serviceaccounts/token"], &["create"]),
        rule("coordination.k8s.io", &["leases"], &[READ, WRITE].concat()),
    ];
    rules.extend(EDITABLE.iter().map(|(group, resources)| rule(group, resources, WRITE)));
    rules
}

fn admin() -> Vec<Value> {
    vec![
        rule("authorization.k8s.io", &["localsubjectaccessreviews"], &["create"]),
        rule(GROUP, &["rolebindings", "roles"], &[READ, WRITE].concat()),
    ]
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

fn meta(name: &str) -> Value {
    json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    })
}

fn role(name: &str, rules: Vec<Value>) -> (&'static str, Value) {
    let object =
        json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": meta(name), "rules": rules});
    ("clusterroles", object)
}

/// A role made of the roles that are labelled to be part of it.
fn aggregate(name: &str, part: &str) -> (&'static str, Value) {
    let (plural, mut object) = role(name, Vec::new());
    let label = format!("{GROUP}/aggregate-to-{part}");
    object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
    (plural, object)
}

/// A role that is part of others.
fn part(name: &str, of: &[&str], rules: Vec<Value>) -> (&'static str, Value) {
    let (plural, mut object) = role(name, rules);
    for role in of {
        object["metadata"]["labels"][format!("{GROUP}/aggregate-to-{role}")] = json!("true");
    }
    (plural, object)
}

fn binding(name: &str, role: &str, groups: &[&str]) -> (&'static str, Value) {
    let subjects: Vec<Value> =
        groups.iter().map(|group| json!({"apiGroup": GROUP, "kind": "Group", "name": group})).collect();
    let object = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding", "metadata": meta(name),
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role}, "subjects": subjects,
    });
    ("clusterrolebindings", object)
}
