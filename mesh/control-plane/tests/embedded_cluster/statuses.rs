//! What routes and EgressNetworks say of themselves.

use std::{net::SocketAddr, pin::pin, time::Duration};

use futures::StreamExt;
use kube::{
    Client,
    api::{Patch, PatchParams},
    runtime::WatchStreamExt,
};
use linkerd2_proxy_api::outbound::{
    self, TrafficSpec, outbound_policies_client::OutboundPoliciesClient, proxy_protocol, traffic_spec,
};
use meshgate_control_plane::{Cluster, Index, Server, watch, write_statuses};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{DEADLINE, apply, cluster::api_of, installed, listening, next};

#[tokio::test]
async fn routes_say_what_became_of_them_with_the_rights_of_the_manifests() {
    let (_server, admin, own) = installed().await;
    let index = Index::new(Cluster::default());
    let _watches = watch(&own, &index);
    tokio::spawn(write_statuses(own, index));

    let service = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"ports": [{"port": 80}]},
        })
    };
    for (api_version, kind) in [
        ("policy.linkerd.io/v1beta3", "HTTPRoute"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        ("gateway.networking.k8s.io/v1", "GRPCRoute"),
        ("gateway.networking.k8s.io/v1", "TLSRoute"),
        ("gateway.networking.k8s.io/v1alpha2", "TCPRoute"),
    ] {
        let backend = format!("{}-{}", kind.to_lowercase(), api_version.len());
        // One of its own: of several types for the same the first counts.
        let name = format!("web-{backend}");
        apply(&admin, &service(&name)).await;
        let parent = json!({"group": "", "kind": "Service", "name": name, "port": 80});
        let route = json!({
            "apiVersion": api_version, "kind": kind, "metadata": {"name": "r", "namespace": "default"},
            "spec": {
                "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"}, parent],
                "rules": [{"backendRefs": [{"name": backend, "port": 80}]}],
            },
        });
        apply(&admin, &route).await;
        let found = status_where(&admin, &route, |parents| parents.len() == 1).await;
        assert_eq!(found[0]["controllerName"], "linkerd.io/policy-controller");
        assert_eq!(found[0]["parentRef"], parent);
        assert_eq!(verdicts(&found[0]), ["Accepted True Accepted 1", "ResolvedRefs False BackendNotFound 1"]);
        let since = found[0]["conditions"][0]["lastTransitionTime"].clone();
        assert!(since.is_string(), "{found:?}");

        // Somebody else's verdict stays when ours changes.
        let other = json!({
            "parentRef": {"name": "g"}, "controllerName": "example.com/gateways", "conditions": [],
        });
        let both = json!({"status": {"parents": [found[0], other]}});
        let patch = Patch::Merge(&both);
        api_of(&admin, &route).patch_status("r", &PatchParams::default(), &patch).await.unwrap();
        apply(&admin, &service(&backend)).await;
        let resolved = |parents: &[Value]| {
            let ours = parents.iter().find(|parent| parent["controllerName"] == "linkerd.io/policy-controller");
            ours.is_some_and(|ours| verdicts(ours)[1] == "ResolvedRefs True ResolvedRefs 1")
        };
        let found = status_where(&admin, &route, resolved).await;
        assert_eq!(found[0], other);
        assert_eq!(found[1]["conditions"][0]["lastTransitionTime"], since);
    }
}

#[tokio::test]
async fn networks_become_policies_and_say_whether_they_are_accepted_with_the_rights_of_the_manifests() {
    let (_server, admin, own) = installed().await;
    let index = Index::new(Cluster::default());
    let _watches = watch(&own, &index);
    let (listener, uri) = listening().await;
    tokio::spawn(Server::new(index.clone()).serve_policy(listener));
    tokio::spawn(write_statuses(own, index));
    let target = traffic_spec::Target::Addr("203.0.113.10:80".parse::<SocketAddr>().unwrap().into());
    let spec = TrafficSpec { source_workload: "default:p".into(), target: Some(target) };
    let mut client = OutboundPoliciesClient::connect(uri).await.unwrap();
    let mut policies = client.watch(spec).await.unwrap().into_inner();

    let metadata = |name: &str| json!({"name": name, "namespace": "default"});
    let network = |name: &str, networks: Value| {
        json!({
            "apiVersion": "policy.linkerd.io/v1alpha1", "kind": "EgressNetwork", "metadata": metadata(name),
            "spec": {"trafficPolicy": "Deny", "networks": networks},
        })
    };
    apply(&admin, &network("out", json!([{"cidr": "203.0.113.0/24"}]))).await;
    apply(&admin, &network("in", json!([{"cidr": "10.96.0.0/16"}]))).await;
    let route = json!({
        "apiVersion": "policy.linkerd.io/v1beta3", "kind": "HTTPRoute", "metadata": metadata("r"),
        "spec": {
            "parentRefs": [{"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out", "port": 80}],
            "rules": [{}],
        },
    });
    apply(&admin, &route).await;
    // A route, and what becomes of the rest.
    let has_both = |policy: outbound::OutboundPolicy| match policy.protocol.unwrap().kind {
        Some(proxy_protocol::Kind::Detect(detect)) => detect.http1.unwrap().routes.len() == 2,
        _ => false,
    };
    while !has_both(next(&mut policies).await) {}
    let parents = status_where(&admin, &route, |parents| {
        parents.len() == 1 && verdicts(&parents[0])[0] == "Accepted True Accepted 1"
    });
    parents.await;
    for (name, verdict) in
        [("out", "Accepted True Accepted null"), ("in", "Accepted False EgressReasonNetworkOverlap null")]
    {
        let api = api_of(&admin, &network(name, json!([])));
        let told = timeout(DEADLINE, async {
            loop {
                let status = api.get(name).await.unwrap().data["status"].clone();
                if status["conditions"].is_array() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert_eq!(verdicts(&told.await.expect("the status in time")), [verdict]);
    }
}

/// The conditions that a status has of a parent, or of an object itself, as `Type Status Reason Generation`.
fn verdicts(parent: &Value) -> Vec<String> {
    let conditions = parent["conditions"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let each = conditions.map(|one| {
        let words = [&one["type"], &one["status"], &one["reason"]].map(text);
        format!("{} {}", words.join(" "), one["observedGeneration"])
    });
    each.collect()
}

/// What the route's status says of its parents, once it is what is wanted.
async fn status_where(client: &Client, route: &Value, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let api = api_of(client, route);
    let config = kube::runtime::watcher::Config::default();
    let mut routes = pin!(kube::runtime::watcher(api, config).applied_objects());
    let found = timeout(DEADLINE, async {
        loop {
            let route = routes.next().await.expect("an open watch").unwrap();
            let parents = route.data["status"]["parents"].as_array().cloned().unwrap_or_default();
            if wanted(&parents) {
                return parents;
            }
        }
    });
    found.await.expect("the status in time")
}
