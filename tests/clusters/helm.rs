//! Charts.

use meshgate_clusters::helm::{Chart, Helm, HelmError};
use serde_json::{Value, json};

use crate::bench::{Bench, holds};

fn traefik(version: &str, values: Value) -> Chart {
    let repository = "https://traefik.github.io/charts";
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
    let bench = Bench::new();
    let helm = Helm::new(bench.environment(""));
    let chart = traefik("39.0.1", json!({"service": {"type": "NodePort"}}));
    let objects = helm.template(&chart, "traefik", "ingress").await.unwrap();
    assert_eq!(
        names(&objects),
        [
            "CustomResourceDefinition /ingressroutes.traefik.io",
            "ServiceAccount ingress/traefik",
            "ClusterRole /traefik-ingress",
            "Deployment ingress/traefik",
            "Service ingress/traefik",
            "Job ingress/traefik-pre-install",
        ]
    );
    assert_eq!(objects[4]["spec"]["type"], "NodePort");
    assert_eq!(objects[3]["spec"]["template"]["spec"]["volumes"][0]["configMap"]["defaultMode"], 420);
    assert_eq!(bench.calls("helm")[0]["environment"]["KUBECONFIG"], json!(null));
}

#[tokio::test]
async fn a_chart_describes_itself() {
    let bench = Bench::new();
    let description = Helm::new(bench.environment("")).describe(&traefik("38.0.0", json!({}))).await.unwrap();
    assert_eq!((description.name.as_str(), description.version.as_str()), ("traefik", "38.0.0"));
    assert_eq!(description.app_version.as_deref(), Some("v3.6.15"));
}

#[tokio::test]
async fn a_version_that_is_not_there_is_told_with_the_command_that_shows_those_that_are() {
    let bench = Bench::new();
    let helm = Helm::new(bench.environment(""));
    let error = helm.describe(&traefik("99.0.0", json!({}))).await.unwrap_err();
    assert!(matches!(error, HelmError::NotFound { .. }));
    holds(
        &error.to_string(),
        &[
            "there is no chart \"traefik\" at version 99.0.0 in https://traefik.github.io/charts",
            "helm search repo traefik/traefik --versions",
            "helm says: Error: chart \"traefik\" version \"99.0.0\" not found in https://traefik.github.io/charts repository",
        ],
    );
    let mut chart = traefik("99.0.0", json!({}));
    chart.repository = "oci://registry.example/charts".to_owned();
    let error = helm.template(&chart, "traefik", "ingress").await.unwrap_err();
    assert!(matches!(error, HelmError::NotFound { .. }));
    holds(&error.to_string(), &["look: helm show chart oci://registry.example/charts/traefik"]);
    chart.version = "39.0.1".to_owned();
    helm.template(&chart, "traefik", "ingress").await.unwrap();
}

#[tokio::test]
async fn what_else_goes_wrong_is_helms_to_say() {
    let bench = Bench::new();
    let chart = traefik("39.0.1", json!({"sevice": {}}));
    let error = Helm::new(bench.environment("")).template(&chart, "traefik", "ingress").await.unwrap_err().to_string();
    holds(&error, &["`helm template traefik traefik --repo", "Additional property sevice is not allowed"]);
    let error = Helm::new(bench.environment("helm:unreachable")).describe(&chart).await.unwrap_err();
    assert!(matches!(error, HelmError::Command(_)), "not that there is no such chart");
    holds(&error.to_string(), &["cannot be reached", "no such host"]);
    let error = Helm::new(vec![("PATH".into(), bench.join("").into())]).describe(&chart).await.unwrap_err().to_string();
    holds(&error, &["helm is not there", "install Helm (https://"]);
}
