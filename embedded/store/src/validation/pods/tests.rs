mod specs;

use serde_json::{Value, json};

use super::super::tests::Good;

/// The first container, as pointers and complaints call it.
const POINTER: &str = "/spec/containers/0";
const FIELD: &str = "spec.containers[0]";

fn pod() -> Good {
    let main = json!({
        "name": "main", "image": "main:1",
        "ports": [{"name": "http", "containerPort": 80}],
        "env": [{"name": "A", "value": "b"}],
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "settings"}}],
        "livenessProbe": {"httpGet": {"port": "http", "httpHeaders": [{"name": "X-A", "value": "b"}]}},
        "readinessProbe": {"tcpSocket": {"port": 80}},
        "lifecycle": {"preStop": {"exec": {"command": ["true"]}}},
        "resources": {"requests": {"cpu": "100m", "memory": "20Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "securityContext": {"runAsUser": 1000},
    });
    Good::new(
        "",
        "pods",
        json!({"metadata": {"name": "web"}, "spec": {
            "automountServiceAccountToken": false, "volumes": [{"name": "data", "emptyDir": {}}],
            "initContainers": [{"name": "init", "image": "init:1"}], "containers": [main],
            "securityContext": {"fsGroup": 1000, "sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "0"}]},
            "tolerations": [{"key": "a", "operator": "Exists"}],
        }}),
    )
}

/// Takes and refuses values of the fields of the first container.
fn container(taken: &[(&str, Value)], refused: &[(&str, Value, &str, &str)]) {
    let pod = pod();
    for (key, value) in taken {
        pod.takes(&[(&format!("{POINTER}/{key}"), value.clone())]);
    }
    for (key, value, field, part) in refused {
        pod.refuses(&[(&format!("{POINTER}/{key}"), value.clone(), &format!("{FIELD}.{field}"), part)]);
    }
}

#[test]
fn containers() {
    container(
        &[
            ("ports", Value::Null),
            ("ports", json!([{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 81}])),
            ("terminationMessagePolicy", json!("FallbackToLogsOnError")),
        ],
        &[
            ("name", json!("A"), "name", "a lowercase RFC 1123 label"),
            ("name", json!("a.b"), "name", "must not contain dots"),
            ("name", Value::Null, "name", "Required value"),
            ("image", Value::Null, "image", "Required value"),
            ("image", json!(" main"), "image", "must not have leading or trailing whitespace"),
            ("ports/0/name", json!("X"), "ports[0].name", "must contain only alpha-numeric characters"),
            ("ports/0/name", json!("8080"), "ports[0].name", "must contain at least one letter"),
            ("ports/0/containerPort", Value::Null, "ports[0].containerPort", "Required value"),
            ("ports/0/containerPort", json!(70000), "ports[0].containerPort", "must be between 1 and 65535"),
            ("ports/0/protocol", json!("tcp"), "ports[0].protocol", "\"SCTP\", \"TCP\", \"UDP\""),
            ("ports/1", json!({"name": "http", "containerPort": 81}), "ports[1].name", "Duplicate value: \"http\""),
            (
                "ports",
                json!([{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}]),
                "ports[1].hostPort",
                "Duplicate value: \"TCP//80\"",
            ),
            (
                "terminationMessagePolicy",
                json!("Log"),
                "terminationMessagePolicy",
                "\"File\", \"FallbackToLogsOnError\"",
            ),
            ("imagePullPolicy", json!("Often"), "imagePullPolicy", "\"Always\", \"IfNotPresent\", \"Never\""),
        ],
    );
    let probe = json!({"tcpSocket": {"port": 80}});
    let pod = pod();
    pod.takes(&[
        (
            "/spec/initContainers/0",
            json!({"name": "a", "image": "b", "restartPolicy": "Always", "startupProbe": probe}),
        ),
        ("/spec/hostNetwork", json!(true)),
    ]);
    pod.refuses(&[
        ("/spec/containers", json!([]), "spec.containers", "Required value"),
        ("/spec/initContainers/0/name", json!("main"), "spec.initContainers[0].name", "Duplicate value: \"main\""),
        (
            "/spec/initContainers/0/startupProbe",
            probe,
            "spec.initContainers[0].startupProbe",
            "may not be set for init containers without restartPolicy=Always",
        ),
        (
            "/spec",
            json!({"hostNetwork": true, "containers": [{
                "name": "a", "image": "b", "ports": [{"containerPort": 80, "hostPort": 81}],
            }]}),
            "spec.containers[0].ports[0].hostPort",
            "must match `containerPort` when `hostNetwork` is true",
        ),
    ]);
}

#[test]
fn environment() {
    let field = |path: &str| json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}]);
    let resource = |name: &str, divisor: &str| {
        let reference = json!({"resource": name, "divisor": divisor});
        json!([{"name": "A", "valueFrom": {"resourceFieldRef": reference}}])
    };
    let secret =
        |name: &str, key: &str| json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}]);
    let both = json!([{"name": "A", "value": "b", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    let two = json!({"fieldRef": {"fieldPath": "metadata.name"}, "secretKeyRef": {"name": "a", "key": "b"}});
    let (of_field, of_resource) = ("env[0].valueFrom.fieldRef.fieldPath", "env[0].valueFrom.resourceFieldRef");
    container(
        &[
            ("env/0/name", json!("1st. name-of:a")),
            ("env", field("status.podIPs")),
            ("env", field("metadata.labels['a/b']")),
            ("env", resource("limits.cpu", "1m")),
            ("env", resource("requests.memory", "1Mi")),
            ("env", resource("limits.hugepages-2Mi", "0")),
            ("env", secret("a.b", "c_D")),
            ("envFrom/0/prefix", Value::Null),
            ("envFrom/0", json!({"secretRef": {"name": "a"}})),
        ],
        &[
            ("env/0/name", json!(""), "env[0].name", "Required value"),
            ("env/0/name", json!("a=b"), "env[0].name", "a valid environment variable name"),
            ("env/0", json!({"name": "A", "valueFrom": {}}), "env[0].valueFrom", "must specify one of: `fieldRef`"),
            ("env", both, "env[0].valueFrom", "may not be specified when `value` is not empty"),
            ("env", json!([{"name": "A", "valueFrom": two}]), "env[0].valueFrom", "more than one field specified"),
            ("env", field(""), of_field, "Required value"),
            ("env", field("a_b"), of_field, "error converting fieldPath: field label not supported: a_b"),
            ("env", field("spec.nodeName['a']"), of_field, "field label does not support subscript"),
            ("env", field("metadata.labels"), of_field, "Unsupported value: \"metadata.labels\": supported values"),
            ("env", field("metadata.labels['/']"), "env[0].valueFrom.fieldRef", "prefix part must be non-empty"),
            ("env", resource("", "1"), &format!("{of_resource}.resource"), "Required value"),
            ("env", resource("limits.gpu", "1"), &format!("{of_resource}.resource"), "values: \"limits.cpu\""),
            (
                "env",
                resource("limits.cpu", "2m"),
                &format!("{of_resource}.divisor"),
                "1m and 1 are supported with the cpu",
            ),
            ("env", secret("", "a"), "env[0].valueFrom.secretKeyRef.name", "a lowercase RFC 1123 subdomain"),
            ("env", secret("a", ""), "env[0].valueFrom.secretKeyRef.key", "Required value"),
            ("env", secret("a", ".."), "env[0].valueFrom.secretKeyRef.key", "must not be '..'"),
            ("envFrom/0/prefix", json!("a=b"), "envFrom[0].prefix", "a valid environment variable name"),
            ("envFrom/0/configMapRef", Value::Null, "envFrom", "must specify one of: `configMapRef` or `secretRef`"),
            ("envFrom/0/secretRef", json!({"name": "a"}), "envFrom", "may not have more than one field specified"),
            ("envFrom/0/configMapRef/name", Value::Null, "envFrom[0].configMapRef.name", "Required value"),
            ("envFrom/0/configMapRef/name", json!("A-B"), "envFrom[0].configMapRef.name", "RFC 1123 subdomain"),
        ],
    );
}

#[test]
fn probes_and_hooks() {
    container(
        &[
            ("livenessProbe/httpGet/scheme", json!("HTTPS")),
            ("livenessProbe", json!({"grpc": {"port": 80}})),
            ("livenessProbe/terminationGracePeriodSeconds", json!(5)),
            ("readinessProbe/successThreshold", json!(3)),
            ("lifecycle", json!({"preStop": {"sleep": {"seconds": 30}}})),
        ],
        &[
            ("livenessProbe/httpGet", Value::Null, "livenessProbe", "must specify a handler type"),
            ("livenessProbe/exec", json!({"command": ["a"]}), "livenessProbe.httpGet", "more than 1 handler type"),
            (
                "livenessProbe/httpGet/port",
                Value::Null,
                "livenessProbe.httpGet.port",
                "Invalid value: 0: must be between",
            ),
            ("livenessProbe/httpGet/port", json!("None"), "livenessProbe.httpGet.port", "only alpha-numeric"),
            ("livenessProbe/httpGet/scheme", json!("http"), "livenessProbe.httpGet.scheme", "\"HTTP\", \"HTTPS\""),
            (
                "livenessProbe/httpGet/httpHeaders/0/name",
                json!("a:b"),
                "livenessProbe.httpGet.httpHeaders",
                "a valid HTTP header",
            ),
            ("livenessProbe/successThreshold", json!(2), "livenessProbe.successThreshold", "must be 1"),
            (
                "livenessProbe/failureThreshold",
                json!(-1),
                "livenessProbe.failureThreshold",
                "greater than or equal to 0",
            ),
            (
                "livenessProbe/terminationGracePeriodSeconds",
                json!(0),
                "livenessProbe.terminationGracePeriodSeconds",
                "must be greater than 0",
            ),
            (
                "readinessProbe/terminationGracePeriodSeconds",
                json!(5),
                "readinessProbe.terminationGracePeriodSeconds",
                "must not be set for readinessProbes",
            ),
            ("readinessProbe/tcpSocket", json!({}), "readinessProbe.tcpSocket.port", "must be between 1 and 65535"),
            ("readinessProbe/tcpSocket/port", json!("A-B"), "readinessProbe.tcpSocket.port", "at least one letter"),
            ("lifecycle/preStop", json!({}), "lifecycle.preStop", "must specify a handler type"),
            ("lifecycle/preStop/exec", json!({}), "lifecycle.preStop.exec.command", "Required value"),
            (
                "lifecycle/preStop",
                json!({"sleep": {"seconds": 31}}),
                "lifecycle.preStop.sleep",
                "must be non-negative and",
            ),
        ],
    );
}

#[test]
fn resources() {
    let gpu = "example.com/gpu";
    let of = |limits: Value, requests: Value| json!({"limits": limits, "requests": requests});
    container(
        &[
            ("resources", json!({})),
            ("resources", of(json!({"cpu": 1}), json!({"cpu": "1000m", "ephemeral-storage": "1Gi"}))),
            ("resources", json!({"limits": {gpu: 1}})),
            ("resources", of(json!({"hugepages-2Mi": "2Mi", "cpu": 1}), json!({"hugepages-2Mi": "2Mi"}))),
        ],
        &[
            (
                "resources/limits/memory",
                json!(65536),
                "resources.requests",
                "less than or equal to memory limit of 65536",
            ),
            ("resources/limits/cpu", json!("-1"), "resources.limits[cpu]", "must be greater than or equal to 0"),
            (
                "resources/limits/unknownField",
                json!(1),
                "resources.limits[unknownField]",
                "must be a standard resource type or fully qualified",
            ),
            ("resources/limits/pods", json!(1), "resources.limits[pods]", "must be a standard resource for containers"),
            ("resources/requests/a~1b~1c", json!(1), "resources.requests[a/b/c]", "a qualified name must consist of"),
            (
                "resources/requests/requests.a.io~1b",
                json!(1),
                "resources.requests[requests.a.io/b]",
                "doesn't follow extended resource name standard",
            ),
            (
                "resources",
                of(json!({}), json!({gpu: 1})),
                "resources.limits",
                "Limit must be set for non overcommitable",
            ),
            (
                "resources",
                of(json!({gpu: 2}), json!({gpu: 1})),
                "resources.requests",
                "must be equal to example.com/gpu",
            ),
            ("resources", json!({"limits": {gpu: "100m"}}), "resources.limits[example.com/gpu]", "must be an integer"),
            ("resources", json!({"limits": {"hugepages-2Mi": "2Mi"}}), "resources", "HugePages require cpu or memory"),
        ],
    );
}

#[test]
fn mounts() {
    let mount = |key: &str, value: Value| {
        let mut mount = json!({"name": "data", "mountPath": "/data"});
        mount[key] = value;
        json!([mount])
    };
    container(
        &[
            ("volumeMounts", mount("subPath", json!("a/b"))),
            ("volumeMounts", mount("subPathExpr", json!("$(A)/b"))),
            ("volumeMounts", mount("mountPropagation", json!("HostToContainer"))),
        ],
        &[
            ("volumeMounts/1", json!({}), "volumeMounts[1].name", "Required value"),
            ("volumeMounts/1", json!({}), "volumeMounts[1].name", "Not found: \"\""),
            ("volumeMounts/1", json!({}), "volumeMounts[1].mountPath", "Required value"),
            ("volumeMounts/1", json!({"name": "data", "mountPath": "/data"}), "volumeMounts[1].mountPath", "be unique"),
            ("volumeMounts", mount("subPath", json!("//")), "volumeMounts.subPath", "must be a relative path"),
            ("volumeMounts", mount("subPath", json!("a/../b")), "volumeMounts.subPath", "must not contain '..'"),
            (
                "volumeMounts",
                json!([{"name": "data", "mountPath": "/a", "subPath": "b", "subPathExpr": "c"}]),
                "volumeMounts[0].subPathExpr",
                "subPathExpr and subPath are mutually exclusive",
            ),
            (
                "volumeMounts",
                mount("mountPropagation", json!("All")),
                "volumeMounts.mountPropagation",
                "\"Bidirectional\"",
            ),
            (
                "volumeMounts",
                mount("mountPropagation", json!("Bidirectional")),
                "volumeMounts.mountPropagation",
                "only to privileged containers",
            ),
        ],
    );
}

#[test]
fn security() {
    let context = "securityContext";
    let profile = |kind: &str, profile: Value| json!({kind: profile});
    let of = |key: &str| format!("{context}.{key}");
    container(
        &[
            ("securityContext/runAsUser", json!(4_294_967_295_u32)),
            (context, profile("seccompProfile", json!({"type": "RuntimeDefault"}))),
            (context, profile("seccompProfile", json!({"type": "Localhost", "localhostProfile": "a/b.json"}))),
            (context, profile("appArmorProfile", json!({"type": "Unconfined"}))),
            (context, json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}})),
        ],
        &[
            ("securityContext/runAsUser", json!(-1), &of("runAsUser"), "must be between 0 and 4294967295, inclusive"),
            ("securityContext/runAsGroup", json!(4_294_967_296_u64), &of("runAsGroup"), "must be between 0 and"),
            ("securityContext/procMount", json!("None"), &of("procMount"), "\"Default\", \"Unmasked\""),
            (context, profile("seccompProfile", json!({})), &of("seccompProfile.type"), "type is required when"),
            (
                context,
                profile("seccompProfile", json!({"type": "Off"})),
                &of("seccompProfile.type"),
                "\"Localhost\", \"RuntimeDefault\", \"Unconfined\"",
            ),
            (
                context,
                profile("seccompProfile", json!({"type": "Localhost"})),
                &of("seccompProfile.localhostProfile"),
                "must be set when seccomp type is Localhost",
            ),
            (
                context,
                profile("seccompProfile", json!({"type": "Localhost", "localhostProfile": "/a"})),
                &of("seccompProfile.localhostProfile"),
                "must be a relative path",
            ),
            (
                context,
                profile("appArmorProfile", json!({"type": "Unconfined", "localhostProfile": "a"})),
                &of("appArmorProfile.localhostProfile"),
                "can only be set when AppArmor type is Localhost",
            ),
            (context, json!({"allowPrivilegeEscalation": false, "privileged": true}), context, "`privileged` to true"),
            (
                context,
                json!({"allowPrivilegeEscalation": false, "capabilities": {"add": ["CAP_SYS_ADMIN"]}}),
                context,
                "`capabilities.Add` CAP_SYS_ADMIN",
            ),
        ],
    );
    let pod = pod();
    pod.takes(&[
        ("/spec/shareProcessNamespace", json!(true)),
        ("/spec/securityContext/sysctls/0/name", json!("net/ipv4/tcp_syncookies")),
        ("/spec/securityContext/supplementalGroups", json!([0, 65534])),
    ]);
    let sysctl = "spec.securityContext.sysctls[0].name";
    let twice = json!([{"name": "a.b", "value": "1"}, {"name": "a.b", "value": "2"}]);
    pod.refuses(&[
        ("/spec/securityContext/fsGroup", json!(-1), "spec.securityContext.fsGroup", "must be between 0 and"),
        (
            "/spec/securityContext/supplementalGroups",
            json!([-1]),
            "spec.securityContext.supplementalGroups[0]",
            "between 0",
        ),
        ("/spec/securityContext/sysctls/0/name", Value::Null, sysctl, "Required value"),
        (
            "/spec/securityContext/sysctls/0/name",
            json!("A-B"),
            sysctl,
            "must have at most 253 characters and match regex",
        ),
        ("/spec/securityContext/sysctls", twice, "spec.securityContext.sysctls[1].name", "Duplicate value: \"a.b\""),
        (
            "/spec/securityContext/fsGroupChangePolicy",
            json!("Once"),
            "spec.securityContext.fsGroupChangePolicy",
            "\"Always\", \"OnRootMismatch\"",
        ),
        (
            "/spec",
            json!({"hostPID": true, "shareProcessNamespace": true, "containers": [{"name": "a", "image": "b"}]}),
            "spec.securityContext.shareProcessNamespace",
            "ShareProcessNamespace and HostPID cannot both be enabled",
        ),
    ]);
}
