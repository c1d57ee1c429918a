use serde_json::{Value, json};

use crate::{GroupResource, Store, WriteOptions};

fn create(store: &Store, group: &str, plural: &str, object: Value) -> Value {
    let created = store.create(&GroupResource::new(group, plural), "default", object, &WriteOptions::default());
    (*created.unwrap()).clone()
}

fn store_with_account() -> Store {
    let store = Store::new();
    create(&store, "", "serviceaccounts", json!({"metadata": {"name": "default"}}));
    store
}

#[test]
fn a_pod_gets_what_the_kubelet_relies_on() {
    let store = store_with_account();
    let pod = create(
        &store,
        "",
        "pods",
        json!({
            "metadata": {"name": "web"},
            "spec": {"containers": [{
                "name": "web", "image": "registry:5000/web", "ports": [{"containerPort": 80}],
                "readinessProbe": {"httpGet": {"port": 80}},
            }]},
        }),
    );
    let spec = &pod["spec"];
    assert_eq!(spec["restartPolicy"], "Always");
    assert_eq!(spec["dnsPolicy"], "ClusterFirst");
    assert_eq!(spec["terminationGracePeriodSeconds"], 30);
    assert_eq!(spec["serviceAccountName"], "default");
    let container = &spec["containers"][0];
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(container["ports"][0]["protocol"], "TCP");
    assert_eq!(container["readinessProbe"]["periodSeconds"], 10);
    assert_eq!(container["readinessProbe"]["httpGet"]["scheme"], "HTTP");
    assert_eq!(container["volumeMounts"][0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(spec["volumes"][0]["name"], container["volumeMounts"][0]["name"]);
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
}

#[test]
fn no_token_when_it_is_not_wanted() {
    let store = store_with_account();
    let pod = create(
        &store,
        "",
        "pods",
        json!({
            "metadata": {"name": "web"},
            "spec": {"automountServiceAccountToken": false, "containers": [{"name": "web", "image": "web:1"}]},
        }),
    );
    assert_eq!(pod["spec"]["volumes"], Value::Null);
    assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
}

#[test]
fn a_deployment_gets_its_strategy() {
    let deployment = create(
        &Store::new(),
        "apps",
        "deployments",
        json!({
            "metadata": {"name": "web"},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}},
            },
        }),
    );
    let spec = &deployment["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
    assert_eq!(spec["template"]["spec"]["volumes"], Value::Null, "the token belongs to pods, not to templates");
}

#[test]
fn secrets_take_plain_text_and_keep_base64() {
    let object = json!({"metadata": {"name": "s"}, "data": {"a": "b2xk"}, "stringData": {"a": "new", "b": "x"}});
    let secret = create(&Store::new(), "", "secrets", object);
    assert_eq!(secret["data"], json!({"a": "bmV3", "b": "eA=="}));
    assert_eq!(secret.get("stringData"), None);
    assert_eq!(secret["type"], "Opaque");
}

#[test]
fn a_job_selects_its_pods_by_its_uid() {
    let job = create(
        &Store::new(),
        "batch",
        "jobs",
        json!({
            "metadata": {"name": "once"},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "c:1"}]}}},
        }),
    );
    let uid = &job["metadata"]["uid"];
    assert_eq!(&job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], uid);
    assert_eq!(&job["spec"]["template"]["metadata"]["labels"]["controller-uid"], uid);
    assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "once");
    assert_eq!(job["spec"]["completions"], 1);
}

#[test]
fn nulls_mean_unset() {
    let object = json!({"metadata": {"name": "web", "creationTimestamp": null}, "spec": {
        "selector": null, "ports": [{"port": 80, "targetPort": null}],
    }});
    let service = create(&Store::new(), "", "services", object);
    assert!(service["metadata"]["creationTimestamp"].is_string());
    assert_eq!(service["spec"].get("selector"), None);
    assert_eq!(service["spec"]["ports"][0]["targetPort"], 80);
}
