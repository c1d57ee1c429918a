use std::net::SocketAddr;

use linkerd2_proxy_api::destination::DestinationProfile;
use serde_json::{Value, json};

use super::*;
use crate::examples;

async fn ask(objects: Vec<Value>, target: &str, client: Option<&str>) -> DestinationProfile {
    let index = examples::index(objects);
    index
        .answer(|state, cluster| match Target::parse(target, &cluster.domain) {
            Some(Target::Service(name, port)) => by_name(state, cluster, &name, port, client),
            Some(Target::Address(address)) => by_address(state, cluster, address, client),
            other => panic!("{other:?}"),
        })
        .await
}

fn overrides(profile: &DestinationProfile) -> Vec<(&str, u32)> {
    profile.dst_overrides.iter().map(|dst| (dst.authority.as_str(), dst.weight)).collect()
}

const WEB: &str = "web.default.svc.cluster.local:80";

fn web() -> Value {
    examples::service("web", "10.96.0.5")
}

#[tokio::test]
async fn a_service_has_its_name_and_the_default_budget() {
    for target in [WEB, "10.96.0.5:80"] {
        let profile = ask(vec![web()], target, None).await;
        assert_eq!(profile.fully_qualified_name, "web.default.svc.cluster.local", "{target}");
        assert_eq!(profile.retry_budget, Some(default_retry_budget()));
        assert!(profile.endpoint.is_none() && profile.routes.is_empty() && !profile.opaque_protocol);
        assert_eq!(profile.parent_ref, Some(service_ref(&Key::new("default", "web"), 80)));
    }
}

#[tokio::test]
async fn what_is_no_service_has_no_name() {
    let external = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "ext", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "example.com"},
    });
    let objects = vec![web(), external];
    for target in ["no.default.svc.cluster.local:80", "ext.default.svc.cluster.local:80", "10.96.0.5:81"] {
        assert_eq!(ask(objects.clone(), target, None).await, DestinationProfile::default(), "{target}");
    }
}

#[tokio::test]
async fn the_name_of_an_endpoint_is_that_endpoint() {
    let pods = [("web-0", "10.244.0.7", true), ("web-1", "10.244.0.8", true), ("web-2", "10.244.0.9", false)];
    let routes = json!({"routes": [{"name": "r", "condition": {"pathRegex": "/"}}]});
    for ip in ["None", "10.96.0.5"] {
        let profile = examples::profile("web", "default", routes.clone());
        let pod = examples::pod("web-0", "10.244.0.7");
        let objects = vec![examples::service("web", ip), examples::slice("web", &pods), profile, pod];
        for (target, address, pod, is_opaque) in [
            ("web-0.web.default.svc.cluster.local:8080", "10.244.0.7:8080", Some("web-0"), false),
            // A port of the pod, not one that the Service would lead elsewhere.
            ("web-0.web.default.svc.cluster.local:80", "10.244.0.7:80", Some("web-0"), false),
            ("web-0.web.default.svc.cluster.local:6379", "10.244.0.7:6379", Some("web-0"), true),
            // Of its pod nothing is known yet.
            ("web-1.web.default.svc.cluster.local:8080", "10.244.0.8:8080", None, false),
        ] {
            let profile = ask(objects.clone(), target, None).await;
            assert_eq!((&*profile.fully_qualified_name, profile.routes.len()), ("", 0), "{target}");
            assert_eq!(profile.opaque_protocol, is_opaque, "{target}");
            let endpoint = profile.endpoint.unwrap();
            assert_eq!(SocketAddr::try_from(endpoint.addr.unwrap()).unwrap(), address.parse().unwrap(), "{target}");
            assert_eq!(endpoint.metric_labels.get("pod").map(String::as_str), pod, "{target}");
        }
        for target in ["web-2.web.default.svc.cluster.local:80", "web-0.no.default.svc.cluster.local:80"] {
            assert_eq!(ask(objects.clone(), target, None).await, DestinationProfile::default(), "{target}");
        }
        // The control: the Service itself has its routes.
        let profile = ask(objects, WEB, None).await;
        assert_eq!((profile.routes.len(), profile.endpoint), (1, None));
    }
}

#[tokio::test]
async fn a_host_port_is_the_endpoint_of_its_pod() {
    let pod = |name: &str, port: Value| {
        let mut pod = examples::pod(name, "10.244.0.7");
        pod["spec"]["containers"][0]["ports"] = json!([port]);
        pod["status"]["hostIP"] = json!("172.18.0.2");
        pod["status"]["hostIPs"] = json!([{"ip": "172.18.0.2"}, {"ip": "fd00::2"}]);
        pod
    };
    let with_port = pod("p", json!({"containerPort": 8080, "hostPort": 80, "protocol": "TCP"}));
    let mut opaque = with_port.clone();
    opaque["metadata"]["annotations"] = json!({"config.linkerd.io/opaque-ports": "8080"});
    let mut on_host = pod("p", json!({"containerPort": 80, "hostPort": 80}));
    on_host["spec"]["hostNetwork"] = json!(true);
    on_host["status"]["podIP"] = json!("172.18.0.2");
    on_host["status"]["podIPs"] = json!([{"ip": "172.18.0.2"}]);
    let mut ended = with_port.clone();
    ended["status"]["phase"] = json!("Succeeded");
    let loopback = pod("p", json!({"containerPort": 8080, "hostPort": 80, "hostIP": "127.0.0.1"}));
    let udp = pod("p", json!({"containerPort": 8080, "hostPort": 80, "protocol": "UDP"}));
    for (what, object, asked, address, found, is_opaque) in [
        ("a port", &with_port, "172.18.0.2:80", "10.244.0.7:8080", true, false),
        ("another port", &with_port, "172.18.0.2:8080", "172.18.0.2:8080", false, false),
        ("an opaque port", &opaque, "172.18.0.2:80", "10.244.0.7:8080", true, true),
        ("a pod on the node's network", &on_host, "172.18.0.2:80", "172.18.0.2:80", true, false),
        ("a pod that has ended", &ended, "172.18.0.2:80", "172.18.0.2:80", false, false),
        ("a port of another address", &loopback, "172.18.0.2:80", "172.18.0.2:80", false, false),
        ("an address of a family that the pod has not", &with_port, "[fd00::2]:80", "[fd00::2]:80", false, false),
        ("another protocol", &udp, "172.18.0.2:80", "172.18.0.2:80", false, false),
    ] {
        let profile = ask(vec![object.clone()], asked, None).await;
        let endpoint = profile.endpoint.unwrap();
        assert_eq!(SocketAddr::try_from(endpoint.addr.unwrap()).unwrap(), address.parse().unwrap(), "{what}");
        assert_eq!(endpoint.metric_labels.get("pod").map(String::as_str), found.then_some("p"), "{what}");
        assert_eq!(profile.opaque_protocol, is_opaque, "{what}");
    }
}

#[tokio::test]
async fn a_pod_is_an_endpoint_with_its_labels() {
    let profile = ask(vec![examples::pod("web-5d4f-abc", "10.244.0.7")], "10.244.0.7:8080", None).await;
    let endpoint = profile.endpoint.unwrap();
    assert_eq!(SocketAddr::try_from(endpoint.addr.unwrap()).unwrap(), "10.244.0.7:8080".parse().unwrap());
    let mut labels: Vec<_> = endpoint.metric_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort();
    assert_eq!(
        labels,
        [
            "control_plane_ns=linkerd",
            "deployment=web",
            "namespace=default",
            "pod=web-5d4f-abc",
            "pod_template_hash=5d4f",
            "serviceaccount=web",
        ]
    );
    assert_eq!(profile.fully_qualified_name, "");
}

#[tokio::test]
async fn an_unknown_address_is_an_endpoint_without_labels() {
    let endpoint = ask(vec![web()], "10.244.9.9:80", None).await.endpoint.unwrap();
    assert_eq!(SocketAddr::try_from(endpoint.addr.unwrap()).unwrap(), "10.244.9.9:80".parse().unwrap());
    assert!(endpoint.metric_labels.is_empty());
}

#[tokio::test]
async fn pods_that_share_or_have_left_their_address_are_not_its_owner() {
    let mut host = examples::pod("host", "172.18.0.2");
    host["spec"]["hostNetwork"] = json!(true);
    let mut done = examples::pod("done", "10.244.0.8");
    done["status"]["phase"] = json!("Succeeded");
    for target in ["172.18.0.2:80", "10.244.0.8:80"] {
        let endpoint = ask(vec![host.clone(), done.clone()], target, None).await.endpoint.unwrap();
        assert!(endpoint.metric_labels.is_empty(), "{target}");
    }
}

#[tokio::test]
async fn opaque_ports_come_from_annotations_or_the_default() {
    let annotated = |mut object: Value, ports: &str| {
        object["metadata"]["annotations"] = json!({"config.linkerd.io/opaque-ports": ports});
        object
    };
    let pod = || examples::pod("p", "10.244.0.7");
    for (object, target, opaque) in [
        (web(), WEB, false),
        (web(), "web.default.svc.cluster.local:3306", true),
        (annotated(web(), "http"), WEB, true),
        (annotated(web(), "80"), "10.96.0.5:3306", false),
        (pod(), "10.244.0.7:8080", false),
        (annotated(pod(), "web"), "10.244.0.7:8080", true),
        (pod(), "10.244.0.7:6379", true),
    ] {
        assert_eq!(ask(vec![object.clone()], target, None).await.opaque_protocol, opaque, "{target} {object}");
    }
    let profile = examples::profile("web", "default", json!({"opaquePorts": ["80"]}));
    assert!(ask(vec![web(), profile], WEB, None).await.opaque_protocol);
}

#[tokio::test]
async fn the_clients_profile_wins_over_the_services() {
    let route = |name: &str| json!({"routes": [{"name": name, "condition": {"pathRegex": "/"}}]});
    let objects = vec![
        web(),
        examples::profile("web", "default", route("owner")),
        examples::profile("web", "emojivoto", route("client")),
    ];
    for (client, want) in [(Some("emojivoto"), "client"), (Some("other"), "owner"), (None, "owner")] {
        let profile = ask(objects.clone(), WEB, client).await;
        assert_eq!(profile.routes[0].metrics_labels["route"], want, "{client:?}");
        assert!(profile.profile_ref.is_some());
    }
}

#[tokio::test]
async fn splits_become_overrides() {
    let v1 = "web-v1.default.svc.cluster.local:80";
    let v2 = "web-v2.default.svc.cluster.local:80";
    let weights =
        |one: Value, two: Value| json!([{"service": "web-v1", "weight": one}, {"service": "web-v2", "weight": two}]);
    for (version, backends, want) in [
        ("v1alpha1", weights(json!("500m"), json!("1500m")), vec![(v1, 5000), (v2, 15000)]),
        ("v1alpha1", weights(json!("1"), json!("3")), vec![(v1, 10_000), (v2, 30_000)]),
        ("v1alpha2", weights(json!(80), json!(20)), vec![(v1, 800_000), (v2, 200_000)]),
        ("v1alpha2", weights(json!(0), json!(100)), vec![(v2, 1_000_000)]),
        ("v1alpha2", weights(json!(0), json!(0)), vec![]),
    ] {
        let split = examples::split("split", version, "web", backends.clone());
        let profile = ask(vec![web(), split], WEB, None).await;
        assert_eq!(overrides(&profile), want, "{version} {backends}");
    }
}

#[tokio::test]
async fn a_profiles_own_overrides_win_over_a_split() {
    let split = examples::split("split", "v1alpha2", "web", json!([{"service": "web-v1", "weight": 1}]));
    let own = json!({"dstOverrides": [
        {"authority": "web-v2.default.svc.cluster.local", "weight": 1},
        {"authority": "web-v3.default.svc.cluster.local.:8080", "weight": "500m"},
    ]});
    let profile = ask(vec![web(), split.clone(), examples::profile("web", "default", own)], WEB, None).await;
    assert_eq!(
        overrides(&profile),
        [("web-v2.default.svc.cluster.local:80", 10_000), ("web-v3.default.svc.cluster.local:8080", 5000)]
    );
    let routes_only = examples::profile("web", "default", json!({"routes": []}));
    let profile = ask(vec![web(), split, routes_only], WEB, None).await;
    assert_eq!(overrides(&profile), [("web-v1.default.svc.cluster.local:80", 10_000)]);
}

#[test]
fn huge_weights_keep_their_ratio_and_fit_together() {
    let entry = |name: &str, millis| (name.to_owned(), None, 80, millis);
    let weighted = weighted(vec![entry("a", 3_000_000_000_000), entry("b", 1_000_000_000_000)]);
    let total: u64 = weighted.iter().map(|dst| u64::from(dst.weight)).sum();
    assert!(total <= u64::from(u32::MAX), "{total}");
    let ratio = f64::from(weighted[0].weight) / f64::from(weighted[1].weight);
    assert!((ratio - 3.0).abs() < 1e-6, "{ratio}");
}
