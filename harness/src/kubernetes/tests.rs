use serde_json::json;

use super::*;
use crate::fake;

#[test]
fn a_deployment_whose_pods_are_refused_says_why() {
    let said = "pods \"web-1\" is forbidden: violates PodSecurity \"baseline:latest\": non-default capabilities";
    let of = |conditions: Value| {
        let deployment = json!({
            "metadata": {"name": "web", "namespace": "n", "generation": 1},
            "spec": {"replicas": 1, "selector": {}, "template": {}},
            "status": {"observedGeneration": 1, "unavailableReplicas": 1, "conditions": conditions},
        });
        not_ready(&serde_json::from_value(deployment).unwrap()).unwrap()
    };
    let failure = |status: &str| json!([{"type": "Available", "status": "False", "message": "minimum"}, {"type": "ReplicaFailure", "status": status, "reason": "FailedCreate", "message": said}]);
    assert_eq!(of(json!([])), "n/web 0/1");
    assert_eq!(of(failure("True")), format!("n/web 0/1 ({said})"));
    assert_eq!(of(failure("False")), "n/web 0/1", "it is over");
}

#[tokio::test]
async fn what_is_listed_anew_is_awaited_as_before() {
    let lists = std::sync::Arc::new(Mutex::new(0));
    let counted = std::sync::Arc::clone(&lists);
    let client = fake::client(move |_, path| {
        if !path.contains("/deployments") {
            return (
                404,
                json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "no"}),
            );
        }
        if path.contains("watch=true") {
            let old =
                json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"});
            return (200, json!({"type": "ERROR", "object": old}));
        }
        let mut lists = counted.lock();
        *lists += 1;
        let ready = i32::from(*lists > 1);
        let deployment = json!({
            "metadata": {"name": "web", "namespace": "n", "generation": 1},
            "spec": {"replicas": 1, "selector": {}, "template": {}},
            "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": ready},
        });
        let list = json!({
            "apiVersion": "apps/v1", "kind": "DeploymentList", "metadata": {"resourceVersion": "1"}, "items": [deployment],
        });
        (200, list)
    });
    let kubernetes = Kubernetes::guest(client, Tenancy::new("image"));
    kubernetes.deployments_ready(Instant::now() + Duration::from_secs(30), |_| {}).await.unwrap();
    assert_eq!(*lists.lock(), 2);
}

#[tokio::test]
async fn a_kind_is_awaited_until_all_its_versions_are_served() {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": DEFINITION,
        "metadata": {"name": "routes.example.com", "resourceVersion": "1"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"kind": "Route", "plural": "routes"},
            "versions": [
                {"name": "v1", "served": true, "storage": true}, {"name": "v1beta1", "served": true, "storage": false},
                {"name": "v1alpha1", "served": false, "storage": false},
            ],
        },
        "status": {"conditions": [{"type": "Established", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    let asked = std::sync::Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
    let (counts, listed) = (std::sync::Arc::clone(&asked), definition.clone());
    let client = fake::client(move |_, path| {
        if path.contains("/customresourcedefinitions") {
            return (
                200,
                json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": [listed]}),
            );
        }
        let mut counts = counts.lock();
        let count = counts.entry(path.to_owned()).or_default();
        *count += 1;
        // The group is known before its last version is.
        if *count <= 2 {
            return (
                404,
                json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "no"}),
            );
        }
        let version = path.trim_start_matches("/apis/example.com/");
        let resource =
            json!({"name": "routes", "singularName": "route", "namespaced": true, "kind": "Route", "verbs": ["get"]});
        (
            200,
            json!({"kind": "APIResourceList", "groupVersion": format!("example.com/{version}"), "resources": [resource]}),
        )
    });
    Kubernetes::guest(client, Tenancy::new("image")).established(&definition).await.unwrap();
    let asked = asked.lock().clone();
    let expected = ["v1", "v1beta1"].map(|version| (format!("/apis/example.com/{version}"), 3));
    assert_eq!(asked, expected.into());
}

#[tokio::test]
async fn a_pod_that_goes_may_have_taken_its_log_along() {
    let read = async |going: &str| {
        let pods = ["old", "new"].map(|name| {
            let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "traefik"}]}});
            if name == going {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            pod
        });
        let client = fake::client(move |_, path| {
            let gone = json!({
                "kind": "Status", "status": "Failure", "code": 400, "reason": "BadRequest",
                "message": "container \"traefik\" in pod \"old\" is terminated",
            });
            match path {
                path if path.contains("/pods/old/log") => (400, gone),
                path if path.contains("/pods/new/log") => (200, json!("what it says")),
                _ => (200, json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": pods})),
            }
        });
        Kubernetes::guest(client, Tenancy::new("image")).logs_of("n", "app=traefik", |_| true).await
    };
    assert_eq!(read("old").await.unwrap(), "\"what it says\"");
    assert!(read("new").await.unwrap_err().to_string().contains("is terminated"), "it is to be there");
}
