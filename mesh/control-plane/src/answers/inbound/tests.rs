use serde_json::json;

use super::*;
use crate::examples;

async fn ask(annotations: serde_json::Value, port: u16) -> Server {
    let mut pod = examples::pod("p", "10.244.0.7");
    pod["metadata"]["annotations"] = annotations;
    let index = examples::index([pod]);
    index.answer(|state, cluster| server(state, cluster, &Key::new("default", "p"), port)).await
}

#[tokio::test]
async fn everybody_may_connect_unless_the_pod_says_otherwise() {
    for (policy, networks, authenticated) in [
        (None, Some(2), false),
        (Some("all-authenticated"), Some(2), true),
        (Some("cluster-unauthenticated"), Some(5), false),
        (Some("deny"), None, false),
    ] {
        let annotations = policy.map(|policy| json!({"config.linkerd.io/default-inbound-policy": policy}));
        let server = ask(annotations.unwrap_or_default(), 8080).await;
        assert_eq!(server.labels["name"], policy.unwrap_or("all-unauthenticated"));
        assert_eq!(server.authorizations.first().map(|authz| authz.networks.len()), networks, "{policy:?}");
        for authz in server.authorizations {
            let permit = authz.authentication.unwrap().permit.unwrap();
            assert_eq!(matches!(permit, authn::Permit::MeshTls(_)), authenticated, "{policy:?}");
        }
    }
}

#[tokio::test]
async fn opaque_ports_skip_detection() {
    let kind = |server: Server| server.protocol.unwrap().kind.unwrap();
    let opaque = json!({"config.linkerd.io/opaque-ports": "web"});
    assert!(matches!(kind(ask(json!({}), 8080).await), Kind::Detect(Detect { timeout: Some(_), .. })));
    assert!(matches!(kind(ask(opaque.clone(), 8080).await), Kind::Opaque(_)));
    assert!(matches!(kind(ask(opaque, 6379).await), Kind::Detect(_)));
    assert!(matches!(kind(ask(json!({}), 6379).await), Kind::Opaque(_)));
}

#[tokio::test]
async fn a_pod_that_is_not_known_yet_has_the_default() {
    let index = examples::index([]);
    let server = index.answer(|state, cluster| server(state, cluster, &Key::new("a", "b"), 80)).await;
    assert_eq!(server.labels["name"], "all-unauthenticated");
}
