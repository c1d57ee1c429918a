use serde_json::{Value, json};

use super::pod;

#[test]
fn volumes() {
    let pod = pod();
    let taken = [
        json!({"configMap": {"name": "a", "items": [{"key": "b", "path": "c/d", "mode": 256}]}}),
        json!({"secret": {"secretName": "a", "optional": true}}),
        json!({"hostPath": {"path": "/var/log", "type": "Directory"}}),
        json!({"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}),
        json!({"projected": {"sources": [
            {"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "a"}}, {"secret": {"name": "b"}},
        ]}}),
        json!({"persistentVolumeClaim": {"claimName": "a"}}),
        json!({"nfs": {"server": "a", "path": "/b"}}),
        json!({"csi": {"driver": "a.b"}}),
        json!({}),
    ];
    for mut volume in taken {
        volume["name"] = json!("more");
        pod.takes(&[("/spec/volumes/1", volume)]);
    }
    let file = |file: Value| json!({"downwardAPI": {"items": [file]}});
    let item = |item: Value| json!({"configMap": {"name": "a", "items": [item]}});
    let token = |token: Value| json!({"projected": {"sources": [{"serviceAccountToken": token}]}});
    let pair = json!({"secret": {"name": "a"}, "configMap": {"name": "a"}});
    let once = json!({"configMap": {"name": "a", "items": [{"key": "a", "path": "p"}]}});
    let cpu = json!({"resource": "limits.cpu"});
    let refused = [
        (json!({"emptyDir": {}, "secret": {"secretName": "a"}}), "secret", "may not specify more than 1 volume type"),
        (json!({"emptyDir": {}, "downwardAPI": {}}), "downwarAPI", "may not specify more than 1 volume type"),
        (json!({"emptyDir": {"sizeLimit": "-1"}}), "emptyDir.sizeLimit", "must be a valid resource quantity"),
        (json!({"secret": {}}), "secret.secretName", "Required value"),
        (
            json!({"secret": {"secretName": "a", "defaultMode": 512}}),
            "secret.defaultMode",
            "between 0 and 0777 (octal)",
        ),
        (json!({"configMap": {}}), "configMap.name", "Required value"),
        (item(json!({"path": "b"})), "configMap.items[0].key", "Required value"),
        (item(json!({"key": "a"})), "configMap.items[0].path", "Required value"),
        (item(json!({"key": "a", "path": "/b"})), "configMap.items[0].path", "must be a relative path"),
        (item(json!({"key": "a", "path": "a/../b"})), "configMap.items[0].path", "must not contain '..'"),
        (item(json!({"key": "a", "path": "..b"})), "configMap.items[0].path", "must not start with '..'"),
        (item(json!({"key": "a", "path": "b", "mode": -1})), "configMap.items[0].mode", "between 0 and 0777 (octal)"),
        (json!({"hostPath": {}}), "hostPath.path", "Required value"),
        (json!({"hostPath": {"path": "/a/.."}}), "hostPath.path", "must not contain '..'"),
        (json!({"hostPath": {"path": "/a", "type": "Link"}}), "hostPath.type", "\"\", \"BlockDevice\""),
        (json!({"persistentVolumeClaim": {}}), "persistentVolumeClaim.claimName", "Required value"),
        (json!({"nfs": {"server": "a", "path": "b"}}), "nfs.path", "must be an absolute path"),
        (file(json!({"path": "a"})), "downwardAPI", "one of fieldRef and resourceFieldRef is required"),
        (
            file(json!({"path": "a", "fieldRef": {"fieldPath": "spec.nodeName"}})),
            "downwardAPI.fieldRef.fieldPath",
            "supported values: \"metadata.annotations\"",
        ),
        (
            file(json!({"path": "a", "resourceFieldRef": cpu})),
            "downwardAPI.resourceFieldRef.containerName",
            "Required value",
        ),
        (token(json!({})), "projected.path", "Required value"),
        (
            token(json!({"path": "a", "expirationSeconds": 599})),
            "projected.sources[0].serviceAccountToken.expirationSeconds",
            "may not specify a duration less than 10 minutes",
        ),
        (json!({"projected": {"sources": [pair]}}), "projected.sources[0]", "more than 1 volume type per source"),
        (json!({"projected": {"sources": [once, once]}}), "projected", "conflicting duplicate paths"),
    ];
    for (mut volume, field, part) in refused {
        volume["name"] = json!("more");
        pod.refuses(&[("/spec/volumes/1", volume, &format!("spec.volumes[1].{field}"), part)]);
    }
    pod.refuses(&[
        ("/spec/volumes/0/name", json!(""), "spec.volumes[0].name", "Required value"),
        ("/spec/volumes/0/name", json!("a.b"), "spec.volumes[0].name", "must not contain dots"),
        ("/spec/volumes/1", json!({"name": "data"}), "spec.volumes[1].name", "Duplicate value: \"data\""),
        (
            "/spec/volumes/0/emptyDir/sizeLimit",
            json!("-1"),
            "spec.containers[0].volumeMounts[0].name",
            "Not found: \"data\"",
        ),
    ]);
}

#[test]
fn where_pods_run() {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let pod = pod();
    let on_nodes = |term: Value| json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [term]}}});
    let nodes = |requirement: Value| on_nodes(json!({"matchExpressions": [requirement]}));
    let fields = |requirement: Value| on_nodes(json!({"matchFields": [requirement]}));
    let pods = |weight: u8, term: Value| {
        let preferred = json!({"weight": weight, "podAffinityTerm": term});
        json!({"podAntiAffinity": {PREFERRED: [preferred]}})
    };
    let zone = "topology.kubernetes.io/zone";
    let term = json!({"topologyKey": zone, "labelSelector": {"matchLabels": {"a": "b"}}, "matchLabelKeys": ["c"]});
    pod.takes(&[
        ("/spec/affinity", nodes(json!({"key": zone, "operator": "In", "values": ["a"]}))),
        ("/spec/affinity", nodes(json!({"key": zone, "operator": "Gt", "values": ["1"]}))),
        ("/spec/affinity", fields(json!({"key": "metadata.name", "operator": "In", "values": ["n1.example"]}))),
        ("/spec/affinity", json!({"nodeAffinity": {PREFERRED: [{"weight": 1, "preference": {}}]}})),
        ("/spec/affinity", pods(100, term.clone())),
        ("/spec/affinity", json!({"podAffinity": {REQUIRED: [term]}})),
        ("/spec/nodeSelector", json!({zone: "a"})),
    ]);
    let of_nodes = format!("spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms");
    let (expression, field) = (format!("{of_nodes}[0].matchExpressions[0]"), format!("{of_nodes}[0].matchFields[0]"));
    let preferred = format!("spec.affinity.podAntiAffinity.{PREFERRED}[0]");
    let at = |path: &str, key: &str| format!("{path}.{key}");
    let of_term = |key: &str| format!("{preferred}.podAffinityTerm.{key}");
    let wrong = json!({"matchExpressions": [{"key": "a", "operator": "1h"}]});
    pod.refuses(&[
        ("/spec/affinity", json!({"nodeAffinity": {REQUIRED: {}}}), &of_nodes, "at least one node selector term"),
        (
            "/spec/affinity",
            nodes(json!({"key": zone, "operator": "In"})),
            &at(&expression, "values"),
            "must be specified when",
        ),
        (
            "/spec/affinity",
            nodes(json!({"key": zone, "operator": "Lt"})),
            &at(&expression, "values"),
            "single value when",
        ),
        ("/spec/affinity", nodes(json!({"key": zone})), &at(&expression, "operator"), "not a valid selector operator"),
        (
            "/spec/affinity",
            nodes(json!({"key": "::1", "operator": "Exists"})),
            &at(&expression, "key"),
            "name part must",
        ),
        (
            "/spec/affinity",
            nodes(json!({"key": zone, "operator": "In", "values": ["/"]})),
            &at(&expression, "values[0]"),
            "a valid label must be",
        ),
        (
            "/spec/affinity",
            fields(json!({"key": "spec.name", "operator": "In", "values": ["a"]})),
            &at(&field, "key"),
            "not a valid field selector key",
        ),
        (
            "/spec/affinity",
            fields(json!({"key": "metadata.name", "operator": "In", "values": ["a", "b"]})),
            &at(&field, "values"),
            "must be only one value",
        ),
        (
            "/spec/affinity",
            pods(0, json!({"topologyKey": zone})),
            &at(&preferred, "weight"),
            "must be in the range 1-100",
        ),
        ("/spec/affinity", pods(1, json!({})), &of_term("topologyKey"), "Required value: can not be empty"),
        (
            "/spec/affinity",
            pods(1, json!({})),
            &of_term("topologyKey"),
            "Invalid value: \"\": name part must be non-empty",
        ),
        (
            "/spec/affinity",
            pods(1, json!({"topologyKey": zone, "labelSelector": wrong})),
            &of_term("labelSelector.matchExpressions[0].operator"),
            "not a valid selector operator",
        ),
        (
            "/spec/affinity",
            pods(1, json!({"topologyKey": zone, "namespaces": ["a.b"]})),
            &of_term("namespace"),
            "must not contain dots",
        ),
        (
            "/spec/affinity",
            pods(1, json!({"topologyKey": zone, "matchLabelKeys": ["a"]})),
            &of_term("matchLabelKeys"),
            "must not be specified when labelSelector is not set",
        ),
        ("/spec/nodeSelector", json!({zone: "::1"}), "spec.nodeSelector", "a valid label must be"),
    ]);
}

#[test]
fn spread_gates_and_tolerations() {
    let pod = pod();
    let spread = |key: &str, value: Value| {
        let mut constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"});
        constraint[key] = value;
        json!([constraint])
    };
    let (spreads, constraint) = ("/spec/topologySpreadConstraints", "spec.topologySpreadConstraints[0]");
    let of = |key: &str| format!("{constraint}.{key}");
    pod.takes(&[
        (spreads, spread("minDomains", json!(2))),
        (spreads, spread("labelSelector", json!({"matchLabels": {"a": "b"}}))),
        ("/spec/readinessGates", json!([{"conditionType": "e.io/ready"}])),
        ("/spec/schedulingGates", json!([{"name": "e.io/a"}, {"name": "e.io/b"}])),
        ("/spec/tolerations/0", json!({"operator": "Exists"})),
        ("/spec/tolerations/0", json!({"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 1})),
    ]);
    let twice = json!([spread("maxSkew", json!(1))[0], spread("maxSkew", json!(2))[0]]);
    let toleration = |key: &str| format!("spec.tolerations[0].{key}");
    pod.refuses(&[
        (spreads, json!([{}]), &of("maxSkew"), "Invalid value: 0: must be greater than zero"),
        (spreads, json!([{}]), &of("topologyKey"), "can not be empty"),
        (
            spreads,
            json!([{}]),
            &of("whenUnsatisfiable"),
            "\"\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
        ),
        (spreads, twice, &of("{topologyKey, whenUnsatisfiable}"), "Duplicate value: \"{zone, DoNotSchedule}\""),
        (spreads, spread("minDomains", json!(0)), &of("minDomains"), "must be greater than zero"),
        (spreads, spread("nodeTaintsPolicy", json!("Obey")), &of("nodeTaintsPolicy"), "\"Honor\", \"Ignore\""),
        (spreads, spread("matchLabelKeys", json!(["a"])), &of("matchLabelKeys"), "when labelSelector is not set"),
        (
            spreads,
            spread("labelSelector", json!({"matchLabels": {"a": "/"}})),
            &of("labelSelector.matchLabels"),
            "a valid label must be",
        ),
        ("/spec/readinessGates", json!([{}]), "spec.readinessGates[0].conditionType", "name part must be non-empty"),
        ("/spec/schedulingGates", json!([{"name": "a"}, {"name": "a"}]), "spec.schedulingGates[1]", "Duplicate value"),
        ("/spec/tolerations/0/key", json!("-a"), &toleration("key"), "name part must consist of"),
        (
            "/spec/tolerations/0",
            json!({"operator": "Equal"}),
            &toleration("operator"),
            "operator must be Exists when `key`",
        ),
        ("/spec/tolerations/0/operator", json!("http://x"), &toleration("operator"), "\"Equal\", \"Exists\""),
        ("/spec/tolerations/0/value", json!("b"), &toleration("operator"), "value must be empty when `operator` is"),
        ("/spec/tolerations/0", json!({"key": "a", "value": "/"}), &toleration("operator"), "a valid label must be"),
        ("/spec/tolerations/0/tolerationSeconds", json!(1), &toleration("effect"), "effect must be 'NoExecute' when"),
        ("/spec/tolerations/0/effect", json!("a/../b"), &toleration("effect"), "\"NoSchedule\", \"PreferNoSchedule\""),
    ]);
}

#[test]
fn names_hosts_and_dns() {
    let pod = pod();
    let own =
        json!({"nameservers": ["10.0.0.10"], "searches": ["a.b.", "_tcp.a", "."], "options": [{"name": "ndots"}]});
    pod.takes(&[
        ("/spec/dnsConfig", own.clone()),
        ("/spec/hostAliases", json!([{"ip": "10.0.0.1", "hostnames": ["a.b"]}])),
        ("/spec/hostname", json!("web-0")),
        ("/spec/priorityClassName", json!("system-node-critical")),
    ]);
    let mut none = json!({"dnsPolicy": "None", "dnsConfig": own, "containers": [{"name": "a", "image": "b"}]});
    pod.takes(&[("/spec", none.clone())]);
    none["dnsConfig"]["nameservers"] = json!([]);
    let servers = "spec.dnsConfig.nameservers";
    pod.refuses(&[
        ("/spec/dnsPolicy", json!("None"), "spec.dnsConfig", "must provide `dnsConfig` when `dnsPolicy` is None"),
        ("/spec", none, servers, "must provide at least one DNS nameserver when `dnsPolicy` is None"),
        ("/spec/dnsPolicy", json!("Host"), "spec.dnsPolicy", "\"ClusterFirstWithHostNet\", \"ClusterFirst\""),
        (
            "/spec/dnsConfig",
            json!({"nameservers": ["a"]}),
            "spec.dnsConfig.nameservers[0]",
            "must be a valid IP address",
        ),
        ("/spec/dnsConfig", json!({"nameservers": ["1.1.1.1", "::1", "1.1.1.2", "::2"]}), servers, "more than 3"),
        ("/spec/dnsConfig", json!({"searches": ["a b"]}), "spec.dnsConfig.searches[0]", "RFC 1123 subdomain"),
        ("/spec/dnsConfig", json!({"options": [{}]}), "spec.dnsConfig.options[0]", "must not be empty"),
        ("/spec/hostAliases", json!([{}]), "spec.hostAliases[0].ip", "must be a valid IP address"),
        (
            "/spec/hostAliases",
            json!([{"ip": "10.0.0.1", "hostnames": ["*"]}]),
            "spec.hostAliases[0].hostnames[0]",
            "a lowercase RFC 1123 subdomain",
        ),
        ("/spec/hostname", json!("a.b"), "spec.hostname", "must not contain dots"),
        ("/spec/nodeName", json!("/"), "spec.nodeName", "a lowercase RFC 1123 subdomain"),
        ("/spec/runtimeClassName", json!("A"), "spec.runtimeClassName", "a lowercase RFC 1123 subdomain"),
        ("/spec/activeDeadlineSeconds", json!(0), "spec.activeDeadlineSeconds", "must be between 1 and 2147483647"),
        ("/spec/restartPolicy", json!("Often"), "spec.restartPolicy", "\"Always\", \"OnFailure\", \"Never\""),
        ("/spec/preemptionPolicy", json!("Maybe"), "spec.preemptionPolicy", "\"PreemptLowerPriority\", \"Never\""),
        ("/spec/ephemeralContainers", json!([{"name": "a", "image": "b"}]), "spec.ephemeralContainers", "on create"),
    ]);
}
