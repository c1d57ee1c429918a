//! What a proxy is told of routes, and of who may ask its pod how often.

use linkerd2_proxy_api::{
    inbound::{self, PortSpec, inbound_server_policies_client::InboundServerPoliciesClient},
    outbound::{TrafficSpec, outbound_policies_client::OutboundPoliciesClient, proxy_protocol, traffic_spec},
};
use meshgate_control_plane::{Cluster, Index, Server, watch};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{DEADLINE, apply, installed, listening, next};

#[tokio::test]
async fn routes_and_limits_become_policies_with_the_rights_of_the_manifests() {
    let (_server, admin, own) = installed().await;
    let index = Index::new(Cluster::default());
    let _watches = watch(&own, &index);
    let (listener, uri) = listening().await;
    tokio::spawn(Server::new(index.clone()).serve_policy(listener));
    let mut policies = OutboundPoliciesClient::connect(uri.clone()).await.unwrap();
    let mut pods = InboundServerPoliciesClient::connect(uri).await.unwrap();

    let metadata = json!({"name": "web", "namespace": "default"});
    let ports = json!([{"name": "grpc", "port": 80, "targetPort": 8080}]);
    let web = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}});
    apply(&admin, &web).await;
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute", "metadata": metadata,
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "rules": [{"matches": [{"method": {"service": "shop.Cart"}}]}],
        },
    });
    apply(&admin, &route).await;
    let target = traffic_spec::Target::Authority("web.default.svc.cluster.local:80".into());
    let spec = TrafficSpec { source_workload: "default:p".into(), target: Some(target) };
    let policy = timeout(DEADLINE, async {
        loop {
            // The Service may not be known yet, and then the route may not.
            if let Ok(policies) = policies.watch(spec.clone()).await {
                let mut policies = policies.into_inner();
                while let Some(policy) = policies.message().await.unwrap() {
                    if let Some(proxy_protocol::Kind::Grpc(grpc)) = policy.protocol.unwrap().kind {
                        return grpc;
                    }
                }
            }
        }
    });
    let grpc = policy.await.expect("the route in time");
    assert_eq!(grpc.routes[0].rules[0].matches[0].rpc.as_ref().unwrap().service, "shop.Cart");

    let account = json!({"name": "default", "namespace": "default"});
    apply(&admin, &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})).await;
    apply(
        &admin,
        &json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "web", "ports": [{"containerPort": 8080}]}]},
        }),
    )
    .await;
    let policy = |version: &str, kind: &str, spec: Value| json!({"apiVersion": format!("policy.linkerd.io/{version}"), "kind": kind, "metadata": metadata, "spec": spec});
    let selector = json!({"matchLabels": {"app": "web"}});
    apply(&admin, &policy("v1beta3", "Server", json!({"podSelector": selector, "port": 8080}))).await;
    let target = json!({"group": "policy.linkerd.io", "kind": "Server", "name": "web"});
    let limit = json!({"targetRef": target, "total": {"requestsPerSecond": 7}});
    apply(&admin, &policy("v1alpha1", "HTTPLocalRateLimitPolicy", limit)).await;
    let mut servers =
        pods.watch_port(PortSpec { workload: "default:p".into(), port: 8080 }).await.unwrap().into_inner();
    loop {
        let server = next(&mut servers).await;
        if let Some(inbound::proxy_protocol::Kind::Detect(detect)) = server.protocol.unwrap().kind
            && let Some(limit) = detect.http_local_rate_limit
        {
            assert_eq!(limit.total.unwrap().requests_per_second, 7);
            break;
        }
    }
}
