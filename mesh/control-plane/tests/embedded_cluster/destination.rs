//! What a proxy is told of Services, endpoints and addresses.

use kube::api::{Patch, PatchParams};
use linkerd2_proxy_api::destination::{
    DestinationProfile, GetDestination, destination_client::DestinationClient, update,
};
use meshgate_control_plane::{Cluster, Index, Server, watch};
use serde_json::{Value, json};
use tonic::Streaming;

use crate::{apply, cluster::api_of, installed, listening, next};

async fn profile_where(stream: &mut Streaming<DestinationProfile>, wanted: impl Fn(&DestinationProfile) -> bool) {
    while !wanted(&next(stream).await) {}
}

#[tokio::test]
async fn objects_become_answers_with_the_rights_of_the_manifests() {
    let (_server, admin, own) = installed().await;
    let index = Index::new(Cluster::default());
    let _watches = watch(&own, &index);
    let (listener, uri) = listening().await;
    tokio::spawn(Server::new(index.clone()).serve_destination(listener));
    let mut destination = DestinationClient::connect(uri).await.unwrap();
    let ask = || GetDestination {
        path: "web.default.svc.cluster.local:80".into(),
        context_token: r#"{"ns":"default"}"#.into(),
        ..Default::default()
    };
    let mut profiles = destination.get_profile(ask()).await.unwrap().into_inner();
    let mut updates = destination.get(ask()).await.unwrap().into_inner();
    assert_eq!(next(&mut profiles).await, DestinationProfile::default());
    assert!(matches!(next(&mut updates).await.update, Some(update::Update::NoEndpoints(none)) if !none.exists));

    let metadata = |name: &str| json!({"name": name, "namespace": "default"});
    apply(
        &admin,
        &json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata("web"),
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        }),
    )
    .await;
    profile_where(&mut profiles, |profile| profile.fully_qualified_name == "web.default.svc.cluster.local").await;
    assert!(matches!(next(&mut updates).await.update, Some(update::Update::NoEndpoints(none)) if none.exists));

    apply(&admin, &slice(&json!([{"addresses": ["10.244.0.7"], "conditions": {"ready": true}}]))).await;
    assert!(matches!(next(&mut updates).await.update, Some(update::Update::Add(set)) if set.addrs.len() == 1));

    for (version, weights) in [("v1alpha2", json!([80, 20])), ("v1alpha1", json!(["500m", "1500m"]))] {
        apply(
            &admin,
            &json!({
                "apiVersion": format!("split.smi-spec.io/{version}"), "kind": "TrafficSplit", "metadata": metadata("split"),
                "spec": {"service": "web", "backends": [
                    {"service": "v1", "weight": weights[0]}, {"service": "v2", "weight": weights[1]},
                ]},
            }),
        )
        .await;
        let want = if version == "v1alpha2" { [800_000, 200_000] } else { [5000, 15_000] };
        profile_where(&mut profiles, |profile| {
            profile.dst_overrides.iter().map(|dst| dst.weight).collect::<Vec<_>>() == want
        })
        .await;
    }

    apply(
        &admin,
        &json!({
            "apiVersion": "linkerd.io/v1alpha2", "kind": "ServiceProfile", "metadata": metadata("web.default.svc.cluster.local"),
            "spec": {"routes": [{"name": "GET /", "condition": {"method": "GET", "pathRegex": "/"}, "timeout": "250ms"}]},
        }),
    )
    .await;
    profile_where(&mut profiles, |profile| profile.routes.len() == 1 && profile.routes[0].timeout.is_some()).await;
}

#[tokio::test]
async fn a_proxy_is_told_of_its_zones_endpoints_and_of_a_host_port_with_the_rights_of_the_manifests() {
    let (_server, admin, own) = installed().await;
    let node = |zone: &str| {
        let labels = json!({"topology.kubernetes.io/zone": zone});
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}})
    };
    apply(&admin, &node("a")).await;
    let metadata = json!({"name": "web", "namespace": "default"});
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    apply(&admin, &json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}}))
        .await;
    let endpoint = |ip: &str, zone: &str| {
        json!({
            "addresses": [ip], "conditions": {"ready": true}, "zone": zone, "hints": {"forZones": [{"name": zone}]},
        })
    };
    apply(&admin, &slice(&json!([endpoint("10.244.0.7", "a"), endpoint("10.244.0.8", "b")]))).await;
    apply(
        &admin,
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}}),
    )
    .await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "web", "image": "web", "ports": [{"containerPort": 8080, "hostPort": 80}]}]},
    });
    apply(&admin, &pod).await;

    let index = Index::new(Cluster::default());
    let _watches = watch(&own, &index);
    let (listener, uri) = listening().await;
    tokio::spawn(Server::new(index).serve_destination(listener));
    let mut destination = DestinationClient::connect(uri).await.unwrap();
    let ask = |path: &str| GetDestination {
        path: path.into(),
        context_token: r#"{"ns":"default","nodeName":"n1","pod":"client"}"#.into(),
        ..Default::default()
    };
    let mut updates = destination.get(ask("web.default.svc.cluster.local:80")).await.unwrap().into_inner();
    for zone in ["a", "b"] {
        apply(&admin, &node(zone)).await;
        let Some(update::Update::Add(set)) = next(&mut updates).await.update else { panic!("expected endpoints") };
        let labels: Vec<_> = set.addrs.iter().map(|one| &one.metric_labels).collect();
        assert_eq!(labels.len(), 1, "{labels:?}");
        assert_eq!((labels[0]["zone"].as_str(), labels[0]["zone_locality"].as_str()), (zone, "local"));
        if zone == "b" {
            assert!(
                matches!(next(&mut updates).await.update, Some(update::Update::Remove(set)) if set.addrs.len() == 1)
            );
        }
    }

    let mut profiles = destination.get_profile(ask("172.18.0.2:80")).await.unwrap().into_inner();
    assert!(next(&mut profiles).await.endpoint.unwrap().metric_labels.is_empty());
    let status = json!({"status": {"phase": "Running", "podIP": "10.244.0.9", "hostIP": "172.18.0.2"}});
    let patch = Patch::Merge(&status);
    api_of(&admin, &pod).patch_status("p", &PatchParams::default(), &patch).await.unwrap();
    profile_where(&mut profiles, |profile| {
        profile
            .endpoint
            .as_ref()
            .is_some_and(|endpoint| endpoint.metric_labels.get("pod").is_some_and(|pod| pod == "p"))
    })
    .await;
}

/// The EndpointSlice of Service `web`.
fn slice(endpoints: &Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}
