//! Installing a real Linkerd by its command line.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use meshgate_clusters::kind::KindCluster;
use meshgate_clusters::linkerd::{Authority, Linkerd, LinkerdError};
use meshgate_clusters::remote::{By, Reach};
use meshgate_clusters::{IMAGE, Kind};
use serde_json::{Value, json};

use crate::bench::{Bench, holds};
use crate::kind::{client, down, options, up};

async fn cluster(bench: &Bench) -> (KindCluster, Api<CustomResourceDefinition>) {
    let cluster = up(bench, &options(bench, "meshgate-a", "")).await.unwrap();
    let definitions = Api::all(client(cluster.provisioned()).await);
    (cluster, definitions)
}

async fn define(api: &Api<CustomResourceDefinition>, object: Value) {
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

fn http_routes() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "httproutes.gateway.networking.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/3328"},
        },
        "spec": {
            "group": "gateway.networking.k8s.io",
            "scope": "Namespaced",
            "names": {"plural": "httproutes", "singular": "httproute", "kind": "HTTPRoute"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
        },
    })
}

#[tokio::test]
async fn definitions_then_control_plane_then_checks() {
    let bench = Bench::new();
    let (mut cluster, definitions) = cluster(&bench).await;
    let linkerd = Linkerd::new(&reach(&cluster.provisioned().kubeconfig), bench.environment(""));

    let error = linkerd.crds(false).await.unwrap_err();
    assert!(matches!(error, LinkerdError::GatewayApi { .. }), "{error}");
    holds(
        &error.to_string(),
        &["Linkerd needs the CustomResourceDefinitions of the Gateway API", "kubectl apply --server-side -f https://"],
    );
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
    let brought: Vec<_> = linkerd.crds(true).await.unwrap().iter().map(name).collect();
    define(&definitions, http_routes()).await;

    let authority = Authority::generate("cluster.local", Duration::from_secs(3600)).unwrap();
    let crds: Vec<_> = linkerd.crds(false).await.unwrap().iter().map(name).collect();
    assert_eq!(crds[0], "serviceprofiles.linkerd.io");
    let routes = ["httproutes.gateway.networking.k8s.io", "grpcroutes.gateway.networking.k8s.io"].map(str::to_owned);
    assert_eq!(brought, [&routes[..], &crds[..]].concat(), "for a cluster that nobody else put them on");
    let objects = linkerd.control_plane(&authority, &["proxyInit.runAsRoot=true".to_owned()]).await.unwrap();
    assert!(objects.iter().all(|object| object["kind"] != "CustomResourceDefinition"), "they came before");
    assert_eq!(objects.last().unwrap()["kind"], "MutatingWebhookConfiguration");
    let named = |wanted: &str| objects.iter().find(|object| object["metadata"]["name"] == wanted).unwrap();
    assert_eq!(named("linkerd-identity-issuer")["stringData"]["tls.crt"], authority.issuer);
    assert_eq!(named("linkerd-identity-issuer")["stringData"]["tls.key"], authority.issuer_key);
    let injector = named("linkerd-proxy-injector-options")["data"]["options.json"].as_str().unwrap();
    let injector: Value = serde_json::from_str(injector).unwrap();
    assert_eq!(injector["identity"]["trustAnchors"], authority.trust_anchor, "what it gives proxies");
    let arguments = bench.calls("linkerd").pop().unwrap()["arguments"].clone();
    let arguments: Vec<_> = arguments.as_array().unwrap().iter().map(|argument| argument.as_str().unwrap()).collect();
    assert!(arguments.contains(&"--ignore-cluster"), "its definitions are not there yet: {arguments:?}");
    assert!(arguments.windows(2).any(|pair| pair == ["--set", "proxyInit.runAsRoot=true"]), "{arguments:?}");
    assert!(
        !arguments.iter().any(|argument| argument.contains("PRIVATE")),
        "keys are no arguments: everybody sees those"
    );

    let smi: Vec<_> = linkerd.smi().await.unwrap().iter().map(name).collect();
    assert_eq!(smi, ["linkerd-smi", "trafficsplits.split.smi-spec.io", "smi-adaptor"], "though no control plane runs");
    let namespaces: Api<Namespace> = Api::all(client(cluster.provisioned()).await);
    assert!(namespaces.get_opt("linkerd").await.unwrap().is_none(), "the control");
    let warnings = linkerd.check(Duration::from_secs(1)).await.unwrap();
    assert_eq!(warnings.len(), 1);
    holds(&warnings[0].to_string(), &["linkerd-version: cli is up-to-date: is running version 26.10.1"]);
    down(&bench, &mut cluster).await.unwrap();
}

/// A cluster that is not there, for what does not ask it.
fn nowhere() -> Reach {
    reach(Path::new("/nonexistent/kubeconfig"))
}

fn reach(kubeconfig: &Path) -> Reach {
    let (kubeconfig, context) = (kubeconfig.to_owned(), "kind-meshgate-a".to_owned());
    let (image, entrance) = (IMAGE.to_owned(), By::default());
    Reach { kind: Kind::Kind, kubeconfig, context, image, entrance, publishes: false, merged: None }
}

#[tokio::test]
async fn what_the_checks_find_is_told_in_full() {
    let bench = Bench::new();
    let linkerd = Linkerd::new(&nowhere(), bench.environment("linkerd-check:fails"));
    let error = linkerd.check(Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(&error, LinkerdError::Unhealthy(problems) if problems.len() == 1), "warnings are none: {error}");
    holds(
        &error.to_string(),
        &[
            "linkerd-existence: control plane pods are ready: pod/linkerd-destination-",
            "see https://linkerd.io/2/checks/#l5d-api-control-ready",
        ],
    );
}

#[tokio::test]
async fn what_is_not_installed_is_named() {
    let bench = Bench::new();
    let error = Linkerd::new(&nowhere(), bench.environment("linkerd:no-smi")).smi().await.unwrap_err();
    assert!(matches!(error, LinkerdError::NoSmi { .. }), "{error}");
    let nothing = vec![("PATH".into(), bench.join("").into())];
    let error = Linkerd::new(&nowhere(), nothing).crds(false).await.unwrap_err().to_string();
    holds(&error, &["linkerd is not there", "install Linkerd's command line (https://"]);
}
