use std::{net::SocketAddr, time::Duration};

use linkerd2_proxy_api::{
    destination::{
        DestinationProfile, GetDestination, NoEndpoints, Update, destination_client::DestinationClient, update,
    },
    inbound::{PortSpec, inbound_server_policies_client::InboundServerPoliciesClient},
    outbound::{OutboundPolicy, TrafficSpec, outbound_policies_client::OutboundPoliciesClient, traffic_spec},
};
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::{Code, Streaming, transport::Channel};

use super::*;
use crate::examples;

/// Long enough for a loaded machine; a test that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(10);

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    (listener, uri)
}

async fn destination(index: &Index) -> DestinationClient<Channel> {
    let (listener, uri) = listen().await;
    tokio::spawn(Server::new(index.clone()).serve_destination(listener));
    DestinationClient::connect(uri).await.unwrap()
}

async fn policy_channel(index: &Index) -> Channel {
    let (listener, uri) = listen().await;
    tokio::spawn(Server::new(index.clone()).serve_policy(listener));
    tonic::transport::Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
}

fn dst(path: &str) -> GetDestination {
    GetDestination { path: path.into(), context_token: r#"{"ns":"default","pod":"p"}"#.into(), ..Default::default() }
}

async fn next<T>(stream: &mut Streaming<T>) -> T {
    timeout(DEADLINE, stream.message()).await.expect("an answer in time").unwrap().expect("an open stream")
}

fn describe(update: Update) -> String {
    let list = |addresses: Vec<SocketAddr>| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    match update.update.unwrap() {
        update::Update::Add(set) => {
            format!("add {}", list(set.addrs.into_iter().map(|addr| addr.addr.unwrap().try_into().unwrap()).collect()))
        }
        update::Update::Remove(set) => {
            format!("remove {}", list(set.addrs.into_iter().map(|addr| addr.try_into().unwrap()).collect()))
        }
        update::Update::NoEndpoints(NoEndpoints { exists }) => format!("none, exists: {exists}"),
    }
}

#[tokio::test]
async fn endpoints_follow_the_service() {
    let index = examples::index([]);
    let mut client = destination(&index).await;
    let mut updates = client.get(dst("web.default.svc.cluster.local:80")).await.unwrap().into_inner();
    let apply = |object: Value| index.apply(&object).unwrap();

    assert_eq!(describe(next(&mut updates).await), "none, exists: false");
    apply(examples::service("web", "10.96.0.5"));
    assert_eq!(describe(next(&mut updates).await), "none, exists: true");
    apply(examples::slice("web", &[("a", "10.244.0.7", true), ("b", "10.244.0.8", false)]));
    assert_eq!(describe(next(&mut updates).await), "add 10.244.0.7:8080");
    apply(examples::slice("web", &[("a", "10.244.0.7", false), ("b", "10.244.0.8", true)]));
    assert_eq!(describe(next(&mut updates).await), "add 10.244.0.8:8080");
    assert_eq!(describe(next(&mut updates).await), "remove 10.244.0.7:8080");
    // Another Service's endpoints and the same ones again are no news: the next message is the deletion's.
    apply(examples::slice("other", &[("c", "10.244.0.9", true)]));
    apply(examples::slice("web", &[("a", "10.244.0.7", false), ("b", "10.244.0.8", true)]));
    index.delete(Kind::Service, &Key::new("default", "web"));
    assert_eq!(describe(next(&mut updates).await), "none, exists: false");
}

#[tokio::test]
async fn a_profile_follows_service_profile_and_split() {
    let index = examples::index([]);
    let mut client = destination(&index).await;
    let mut by_name = client.get_profile(dst("web.default.svc.cluster.local:80")).await.unwrap().into_inner();
    let mut by_ip = client.get_profile(dst("10.96.0.5:80")).await.unwrap().into_inner();
    let apply = |object: Value| index.apply(&object).unwrap();

    assert_eq!(next(&mut by_name).await, DestinationProfile::default());
    assert!(next(&mut by_ip).await.endpoint.is_some());
    apply(examples::service("web", "10.96.0.5"));
    for profiles in [&mut by_name, &mut by_ip] {
        assert_eq!(next(profiles).await.fully_qualified_name, "web.default.svc.cluster.local");
    }
    apply(examples::split("s", "v1alpha2", "web", json!([{"service": "v1", "weight": 1}])));
    for profiles in [&mut by_name, &mut by_ip] {
        assert_eq!(next(profiles).await.dst_overrides[0].authority, "v1.default.svc.cluster.local:80");
    }
    apply(examples::profile("web", "default", json!({"routes": [{"name": "r", "condition": {"pathRegex": "/"}}]})));
    for profiles in [&mut by_name, &mut by_ip] {
        let profile = next(profiles).await;
        assert_eq!((profile.routes.len(), profile.dst_overrides.len()), (1, 1));
    }
    index.delete(Kind::TrafficSplit, &Key::new("default", "s"));
    for profiles in [&mut by_name, &mut by_ip] {
        assert!(next(profiles).await.dst_overrides.is_empty());
    }
}

#[tokio::test]
async fn an_address_that_several_have_is_refused_for_good() {
    let on_host = |name: &str, ip: &str| {
        let mut pod = examples::pod(name, ip);
        pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 8080, "hostPort": 80}]);
        pod["status"]["hostIP"] = json!("172.18.0.2");
        pod
    };
    let index = examples::index([
        examples::service("a", "10.96.0.5"),
        examples::service("b", "10.96.0.5"),
        examples::service("c", "10.96.0.6"),
        on_host("p", "10.244.0.7"),
        on_host("q", "10.244.0.7"),
        on_host("r", "10.244.0.8"),
    ]);
    let mut client = destination(&index).await;
    for (address, names) in [
        ("10.96.0.5:80", "default/a, default/b"),
        ("10.244.0.7:80", "default/p, default/q"),
        ("172.18.0.2:80", "default/r"),
    ] {
        let refused = client.get_profile(dst(address)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{address}");
        assert!(refused.message().contains(names), "{refused}");
    }
    for address in ["10.96.0.6:80", "10.244.0.8:80", "172.18.0.2:8080"] {
        next(&mut client.get_profile(dst(address)).await.unwrap().into_inner()).await;
    }
}

#[tokio::test]
async fn what_is_no_service_name_is_refused_for_good() {
    let index = examples::index([]);
    let mut client = destination(&index).await;
    for path in ["example.com:80", "web.default:80", "10.0.0.1:80", "http://x", ""] {
        assert_eq!(client.get(dst(path)).await.unwrap_err().code(), Code::InvalidArgument, "{path}");
    }
    for path in ["example.com:80", ""] {
        assert_eq!(client.get_profile(dst(path)).await.unwrap_err().code(), Code::InvalidArgument, "{path}");
    }
}

#[tokio::test]
async fn policies_are_watched_by_name_and_address() {
    let index = examples::index([examples::service("web", "10.96.0.5")]);
    let mut client = OutboundPoliciesClient::new(policy_channel(&index).await);
    let spec = |target| TrafficSpec { source_workload: "default:p".into(), target: Some(target) };
    let name = |authority: &str| spec(traffic_spec::Target::Authority(authority.into()));
    let address = |address: &str| spec(traffic_spec::Target::Addr(address.parse::<SocketAddr>().unwrap().into()));

    for known in [name("web.default.svc.cluster.local:80"), address("10.96.0.5:80"), address("1.1.1.1:443")] {
        let mut policies = client.watch(known.clone()).await.unwrap().into_inner();
        let policy = next(&mut policies).await;
        assert!(policy.protocol.is_some() && policy.metadata.is_some());
        assert_eq!(client.get(known).await.unwrap().into_inner(), policy);
    }
    for unknown in [
        name("no.default.svc.cluster.local:80"),
        name("example.com:80"),
        name("a.web.default.svc.cluster.local"),
        address("10.244.0.7:80"),
    ] {
        assert_eq!(client.watch(unknown.clone()).await.unwrap_err().code(), Code::NotFound, "{unknown:?}");
        assert_eq!(client.get(unknown).await.unwrap_err().code(), Code::NotFound);
    }
    let none = TrafficSpec { source_workload: String::new(), target: None };
    assert_eq!(client.watch(none).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_address_outside_follows_the_networks_around_it() {
    let index = examples::index([]);
    let mut client = OutboundPoliciesClient::new(policy_channel(&index).await);
    let target = traffic_spec::Target::Addr("203.0.113.10:443".parse::<SocketAddr>().unwrap().into());
    let spec = TrafficSpec { source_workload: "default:p".into(), target: Some(target) };
    let mut policies = client.watch(spec).await.unwrap().into_inner();
    let about = |policy: OutboundPolicy| format!("{:?}", policy.metadata);
    assert!(about(next(&mut policies).await).contains("egress-fallback"));
    let network = |namespace: &str, spec: Value| {
        let metadata = json!({"name": "all", "namespace": namespace});
        json!({"apiVersion": "policy.linkerd.io/v1alpha1", "kind": "EgressNetwork", "metadata": metadata, "spec": spec})
    };
    for namespace in ["linkerd-egress", "default"] {
        index.apply(&network(namespace, json!({"trafficPolicy": "Deny"}))).unwrap();
        let about = about(next(&mut policies).await);
        assert!(about.contains("EgressNetwork") && about.contains(namespace), "{about}");
    }
    for (namespace, left) in [("default", "linkerd-egress"), ("linkerd-egress", "egress-fallback")] {
        index.delete(Kind::EgressNetwork, &Key::new(namespace, "all"));
        assert!(about(next(&mut policies).await).contains(left), "{left}");
    }
}

#[tokio::test]
async fn routes_of_the_clients_namespace_are_told_to_it() {
    let route = json!({
        "apiVersion": "policy.linkerd.io/v1beta3", "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "client"},
        "spec": {
            "parentRefs": [{"group": "core", "kind": "Service", "name": "web", "namespace": "default"}],
            "rules": [{"timeouts": {"request": "2s"}}],
        },
    });
    let index = examples::index([examples::service("web", "10.96.0.5"), route]);
    let mut client = OutboundPoliciesClient::new(policy_channel(&index).await);
    for (workload, told) in [
        ("client:p", true),
        (r#"{"ns":"client","pod":"p"}"#, true),
        ("default:p", false),
        (r#"{"ns":"default","pod":"p"}"#, false),
        ("", false),
    ] {
        let target = traffic_spec::Target::Authority("web.default.svc.cluster.local:80".into());
        let spec = TrafficSpec { source_workload: workload.into(), target: Some(target) };
        let watched = next(&mut client.watch(spec.clone()).await.unwrap().into_inner()).await;
        for policy in [watched, client.get(spec).await.unwrap().into_inner()] {
            assert_eq!(format!("{policy:?}").contains("seconds: 2,"), told, "{workload}");
        }
    }
}

#[tokio::test]
async fn a_headless_service_is_told_of_and_an_external_name_is_not() {
    let mut service = examples::service("web", "None");
    let index = examples::index([service.clone(), examples::slice("web", &[("web-0", "10.244.0.7", true)])]);
    let mut destinations = destination(&index).await;
    let mut policies = OutboundPoliciesClient::new(policy_channel(&index).await);
    let name = "web.default.svc.cluster.local:80";
    let spec = || TrafficSpec {
        source_workload: "default:p".into(),
        target: Some(traffic_spec::Target::Authority(name.into())),
    };
    let mut updates = destinations.get(dst(name)).await.unwrap().into_inner();
    assert_eq!(describe(next(&mut updates).await), "add 10.244.0.7:8080");
    let mut watched = policies.watch(spec()).await.unwrap().into_inner();
    assert!(next(&mut watched).await.protocol.is_some());
    service["spec"] = json!({"type": "ExternalName", "externalName": "example.com"});
    index.apply(&service).unwrap();
    assert_eq!(describe(next(&mut updates).await), "none, exists: false");
    assert_eq!(policies.watch(spec()).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(
        next(&mut destinations.get_profile(dst(name)).await.unwrap().into_inner()).await,
        DestinationProfile::default()
    );
}

#[tokio::test]
async fn a_pod_that_is_not_known_yet_is_told_of_once_it_is() {
    let index = examples::index([examples::pod("known", "10.244.0.8")]);
    let mut client = InboundServerPoliciesClient::new(policy_channel(&index).await);
    let spec = |workload: &str| PortSpec { workload: workload.into(), port: 8080 };
    assert_eq!(client.get_port(spec("default:p")).await.unwrap_err().code(), Code::NotFound);
    let mut servers = client.watch_port(spec("default:p")).await.unwrap().into_inner();
    // By the time that somebody else has an answer, the first would have had one.
    let mut known = client.watch_port(spec("default:known")).await.unwrap().into_inner();
    next(&mut known).await;
    let mut pod = examples::pod("p", "10.244.0.7");
    for policy in ["deny", "all-authenticated"] {
        pod["metadata"]["annotations"] = json!({"config.linkerd.io/default-inbound-policy": policy});
        index.apply(&pod).unwrap();
        assert_eq!(next(&mut servers).await.labels["name"], policy);
        // What was said last holds while it is gone.
        index.delete(Kind::Pod, &Key::new("default", "p"));
    }
    assert_eq!(client.get_port(spec("default:p")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_pods_port_follows_its_annotation() {
    let mut pod = examples::pod("p", "10.244.0.7");
    let index = examples::index([pod.clone()]);
    let mut client = InboundServerPoliciesClient::new(policy_channel(&index).await);
    let spec = |workload: &str| PortSpec { workload: workload.into(), port: 8080 };
    let mut servers = client.watch_port(spec("default:p")).await.unwrap().into_inner();
    assert_eq!(next(&mut servers).await.labels["name"], "all-unauthenticated");
    pod["metadata"]["annotations"] = json!({"config.linkerd.io/default-inbound-policy": "deny"});
    index.apply(&pod).unwrap();
    assert_eq!(next(&mut servers).await.labels["name"], "deny");
    let json = client.get_port(spec(r#"{"ns":"default","pod":"p"}"#)).await.unwrap().into_inner();
    assert_eq!(json.labels["name"], "deny");
    assert_eq!(client.get_port(spec("p")).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_external_workload_is_told_of_its_ports() {
    let mut workload = examples::external_workload("p", "192.0.2.7");
    workload["metadata"]["annotations"] = json!({"config.linkerd.io/default-inbound-policy": "deny"});
    let index = examples::index([examples::pod("p", "10.244.0.7")]);
    let mut client = InboundServerPoliciesClient::new(policy_channel(&index).await);
    let spec = || PortSpec { workload: r#"{"ns":"default","external_workload":"p"}"#.into(), port: 8080 };
    assert_eq!(client.get_port(spec()).await.unwrap_err().code(), Code::NotFound, "the pod is another");
    let mut servers = client.watch_port(spec()).await.unwrap().into_inner();
    index.apply(&workload).unwrap();
    assert_eq!(next(&mut servers).await.labels["name"], "deny");
    assert_eq!(client.get_port(spec()).await.unwrap().into_inner().labels["name"], "deny");
}

#[tokio::test]
async fn streams_are_counted_while_they_are_open() {
    let index = examples::index([]);
    let mut client = destination(&index).await;
    let mut updates = client.get(dst("web.default.svc.cluster.local:80")).await.unwrap().into_inner();
    next(&mut updates).await;
    let open = "meshgate_control_plane_streams{rpc=\"Get\"} 1\n";
    assert!(crate::metrics::exposition(&index).contains(open));
    drop(updates);
    timeout(DEADLINE, async {
        while crate::metrics::exposition(&index).contains(open) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the stream to be gone");
}

#[test]
fn context_tokens_of_old_and_new_proxies() {
    for (token, namespace, node) in [
        (r#"{"ns":"emojivoto","nodeName":"n","pod":"p"}"#, Some("emojivoto"), Some("n")),
        (r#"{"ns":"emojivoto"}"#, Some("emojivoto"), None),
        ("ns:emojivoto", Some("emojivoto"), None),
        ("", None, None),
        ("{}", None, None),
        ("{", None, None),
    ] {
        let client = Client { namespace: namespace.map(str::to_owned), node: node.map(str::to_owned) };
        assert_eq!(Client::parse(token), client, "{token}");
    }
}
