//! Charts, rendered by the real Helm.

use meshgate_clusters::helm::{Chart, Helm, HelmError};
use serde_json::{Value, json};

use crate::bench::{Bench, holds};
use crate::charts::Repository;

/// A repository, Helm, and the bench that both are in.
fn helm() -> (Bench, Repository, Helm) {
    let bench = Bench::new();
    let repository = Repository::serve(&bench);
    let helm = Helm::new(repository.environment());
    (bench, repository, helm)
}

fn traefik(repository: &str, version: &str, values: Value) -> Chart {
    serde_json::from_value(json!({"chart": "traefik", "repository": repository, "version": version, "values": values}))
        .unwrap()
}

/// `Kind namespace/name` of each.
fn names(objects: &[Value]) -> Vec<String> {
    let name = |object: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        format!("{} {}/{}", text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
    };
    objects.iter().map(name).collect()
}

#[tokio::test]
async fn a_chart_becomes_objects_with_its_values_and_in_its_namespace() {
    let (_bench, repository, helm) = helm();
    let chart = traefik(&repository.url, "41.1.0", json!({"service": {"type": "NodePort"}}));
    let objects = helm.template(&chart, "main", "ingress").await.unwrap();
    let definitions = objects.iter().take_while(|object| object["kind"] == "CustomResourceDefinition").count();
    assert_eq!(definitions, 10, "they come first");
    assert_eq!(
        names(&objects[definitions..]),
        [
            "ServiceAccount ingress/main",
            "ConfigMap ingress/main-scripts",
            "ClusterRole /main-ingress",
            "ClusterRoleBinding /main-ingress",
            "Service ingress/main",
            "Deployment ingress/main",
            "IngressClass /main",
            "ConfigMap ingress/main-pre-install",
        ]
    );
    let of = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    assert_eq!(of("Service")["spec"]["type"], "NodePort");
    let pod = &of("Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "docker.io/traefik:v3.7.9");
    assert_eq!(pod["volumes"][1]["configMap"]["defaultMode"], 420);
}

#[tokio::test]
async fn a_chart_describes_itself() {
    let (_bench, repository, helm) = helm();
    let description = helm.describe(&traefik(&repository.url, "40.1.0", json!({}))).await.unwrap();
    assert_eq!((description.name.as_str(), description.version.as_str()), ("traefik", "40.1.0"));
    assert_eq!(description.app_version.as_deref(), Some("v3.7.0"));
}

#[tokio::test]
async fn a_version_that_is_not_there_is_told_with_the_command_that_shows_those_that_are() {
    let (_bench, repository, helm) = helm();
    let url = &repository.url;
    let error = helm.describe(&traefik(url, "99.0.0", json!({}))).await.unwrap_err();
    assert!(matches!(error, HelmError::NotFound { .. }), "{error}");
    holds(
        &error.to_string(),
        &[
            &format!("there is no chart \"traefik\" at version 99.0.0 in {url}"),
            "helm search repo traefik/traefik --versions",
            &format!("helm says: Error: chart \"traefik\" version \"99.0.0\" not found in {url} repository"),
        ],
    );
    let mut chart = traefik(url, "41.1.0", json!({}));
    chart.chart = "traefk".to_owned();
    let error = helm.template(&chart, "main", "ingress").await.unwrap_err();
    assert!(matches!(error, HelmError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn what_else_goes_wrong_is_helms_to_say() {
    let (bench, repository, helm) = helm();
    for (values, says) in [
        (json!({"sevice": {}}), "additional properties 'sevice' not allowed"),
        (json!({"service": {"type": "NodePorts"}}), "value must be one of 'LoadBalancer', 'NodePort', 'ClusterIP'"),
    ] {
        let chart = traefik(&repository.url, "41.1.0", values);
        let error = helm.template(&chart, "main", "ingress").await.unwrap_err().to_string();
        holds(&error, &["`helm template main traefik --repo", says]);
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (repository, says) in [
        (format!("http://{nobody}"), "connection refused"),
        (format!("{}/elsewhere", repository.url), "404 Not Found"),
        (format!("oci://{nobody}/charts"), "connection refused"),
    ] {
        let error = helm.describe(&traefik(&repository, "41.1.0", json!({}))).await.unwrap_err();
        assert!(matches!(error, HelmError::Command(_)), "not that there is no such chart: {error}");
        holds(&error.to_string(), &[says]);
    }
    let chart = traefik(&repository.url, "41.1.0", json!({}));
    let error =
        Helm::new(vec![("PATH".into(), bench.join("nowhere").into())]).describe(&chart).await.unwrap_err().to_string();
    holds(&error, &["helm is not there", "install Helm (https://"]);
}
