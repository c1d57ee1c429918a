use linkerd2_proxy_api::{
    meta::metadata,
    outbound::{OpaqueRoute, OutboundPolicy, grpc_route, http_route, opaque_route, proxy_protocol::Kind},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    answers::outbound::tests::{ask_from, grpc_routes, http_routes, kind, leads_to, resource_of, web},
    examples,
};

const ADDRESS: &str = "203.0.113.10:80";

fn network(namespace: &str, name: &str, spec: Value) -> Value {
    let metadata = json!({"name": name, "namespace": namespace});
    json!({"apiVersion": "policy.linkerd.io/v1alpha1", "kind": "EgressNetwork", "metadata": metadata, "spec": spec})
}

/// EgressNetwork `default/all`, which is everything outside of the cluster.
fn all(traffic_policy: &str) -> Value {
    network("default", "all", json!({"trafficPolicy": traffic_policy}))
}

fn route(kind: &str, parent: Value, rules: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": {"name": "r", "namespace": "default"},
        "spec": {"parentRefs": [parent], "rules": rules},
    })
}

/// `default/all` as a parent.
fn at(port: u16) -> Value {
    json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "all", "port": port})
}

async fn ask(objects: Vec<Value>, address: &str) -> OutboundPolicy {
    ask_from(Some("default"), objects, address).await.unwrap()
}

/// What a policy is for: `namespace/name:port` of a network, or the name of a default.
fn subject(policy: &OutboundPolicy) -> String {
    match policy.metadata.clone().unwrap().kind.unwrap() {
        metadata::Kind::Default(name) => name,
        metadata::Kind::Resource(of) => {
            assert_eq!((&*of.group, &*of.kind), ("policy.linkerd.io", "EgressNetwork"));
            format!("{}/{}:{}", of.namespace, of.name, of.port)
        }
    }
}

/// The names of routes, with `default` for those that no object is.
fn names<'a>(routes: impl IntoIterator<Item = &'a Option<Metadata>>) -> Vec<String> {
    let each = routes.into_iter().map(|metadata| match metadata.clone().unwrap().kind.unwrap() {
        metadata::Kind::Default(name) => name,
        metadata::Kind::Resource(resource) => resource.name,
    });
    each.collect()
}

/// Where each backend of a rule leads, and why it leads nowhere.
fn legs(rule: &http_route::Rule) -> Vec<(String, Option<String>)> {
    use http_route::distribution::Kind;
    let backends: Vec<_> = match rule.backends.clone().unwrap().kind.unwrap() {
        Kind::FirstAvailable(first) => first.backends,
        Kind::RandomAvailable(random) => random.backends.into_iter().filter_map(|one| one.backend).collect(),
        Kind::Empty(_) => Vec::new(),
    };
    let each = backends.into_iter().map(|one| {
        let failure = one.filters.into_iter().find_map(|filter| match filter.kind {
            Some(http_route::filter::Kind::FailureInjector(failure)) => Some(failure.message),
            _ => None,
        });
        (leads_to(&one.backend.unwrap()), failure)
    });
    each.collect()
}

fn is_forbidden(route: &OpaqueRoute) -> bool {
    let filters = &route.rules[0].filters;
    filters.iter().any(|filter| matches!(filter.kind, Some(opaque_route::filter::Kind::Forbidden(_))))
}

#[tokio::test]
async fn an_address_is_in_the_smallest_network_of_the_clients_namespace_or_of_everybodys() {
    let cidr = |namespace: &str, name: &str, networks: Value| {
        network(namespace, name, json!({"trafficPolicy": "Allow", "networks": networks}))
    };
    let aged = |mut network: Value, created: &str| {
        network["metadata"]["creationTimestamp"] = json!(created);
        network
    };
    let (wide, narrow) =
        (json!([{"cidr": "203.0.0.0/8"}]), json!([{"cidr": "10.9.0.0/16"}, {"cidr": "203.0.113.0/24"}]));
    let without = json!([{"cidr": "203.0.113.0/24", "except": ["203.0.113.10", "203.0.113.16/28"]}]);
    let for_all = || network("linkerd-egress", "all", json!({"trafficPolicy": "Allow"}));
    let elsewhere = "egress-fallback";
    for (what, networks, want) in [
        ("none", vec![], elsewhere),
        ("everybody's", vec![for_all()], "linkerd-egress/all:80"),
        ("the own namespace's first", vec![for_all(), cidr("default", "own", wide.clone())], "default/own:80"),
        ("no other namespace's", vec![cidr("other", "own", wide.clone())], elsewhere),
        (
            "an own one of something else",
            vec![for_all(), cidr("default", "own", json!([{"cidr": "198.51.100.0/24"}]))],
            elsewhere,
        ),
        (
            "the smallest",
            vec![cidr("default", "a", wide.clone()), cidr("default", "b", narrow.clone())],
            "default/b:80",
        ),
        (
            "without the exceptions",
            vec![cidr("default", "a", wide.clone()), cidr("default", "b", without)],
            "default/a:80",
        ),
        (
            "a part is smaller than the whole",
            vec![
                cidr("default", "a", json!([{"cidr": "0.0.0.0/0"}])),
                network("default", "b", json!({"trafficPolicy": "Deny"})),
            ],
            "default/b:80",
        ),
        ("an address alone", vec![cidr("default", "a", json!([{"cidr": "203.0.113.10"}]))], "default/a:80"),
        ("no network at all", vec![cidr("default", "a", json!([]))], elsewhere),
        (
            "of equals the oldest",
            vec![
                aged(cidr("default", "a", wide.clone()), "2026-01-02T00:00:00Z"),
                aged(cidr("default", "b", wide.clone()), "2026-01-01T00:00:00Z"),
            ],
            "default/b:80",
        ),
        ("then by name", vec![cidr("default", "b", wide.clone()), cidr("default", "a", wide)], "default/a:80"),
    ] {
        assert_eq!(subject(&ask(networks, ADDRESS).await), want, "{what}");
    }
    // Who does not say where it is has what everybody has.
    let policy = ask_from(None, vec![for_all(), cidr("default", "own", narrow)], ADDRESS).await.unwrap();
    assert_eq!(subject(&policy), "linkerd-egress/all:80");
    let policy = ask(vec![for_all()], "[2001:db8::1]:443").await;
    assert_eq!(subject(&policy), "linkerd-egress/all:443");
}

#[tokio::test]
async fn the_cluster_is_in_no_network_that_does_not_say_so() {
    let objects = || vec![all("Allow"), web(), examples::pod("p", "10.244.0.7")];
    assert_eq!(ask_from(Some("default"), objects(), "10.244.0.7:80").await, None);
    let policy = ask(objects(), "10.96.0.5:80").await;
    assert_eq!(resource_of(&policy.metadata).kind, "Service");
    // One that does has no routes, and is not accepted.
    let own = network("default", "all", json!({"trafficPolicy": "Allow", "networks": [{"cidr": "10.244.0.0/16"}]}));
    let policy = ask(vec![own, route("HTTPRoute", at(80), json!([{}]))], "10.244.0.7:80").await;
    assert_eq!(subject(&policy), "default/all:80");
    assert_eq!(names(http_routes(policy).iter().map(|route| &route.metadata)), ["http-egress-allow"]);
}

#[tokio::test]
async fn what_no_route_is_for_leaves_or_does_not() {
    for (traffic_policy, suffix) in [("Allow", "allow"), ("Deny", "deny")] {
        let policy = ask(vec![all(traffic_policy)], ADDRESS).await;
        assert_eq!(subject(&policy), "default/all:80");
        let Kind::Detect(detect) = kind(policy.clone()) else { panic!("{policy:?}") };
        let opaque = detect.opaque.unwrap().routes;
        let [route] = &opaque[..] else { panic!("{opaque:?}") };
        assert_eq!(names([&route.metadata]), [format!("tcp-egress-{suffix}")]);
        assert_eq!(is_forbidden(route), suffix == "deny");
        let routes = http_routes(policy);
        let [route] = &routes[..] else { panic!("{routes:?}") };
        assert_eq!(names([&route.metadata]), [format!("http-egress-{suffix}")]);
        assert_eq!(legs(&route.rules[0]), [(ADDRESS.to_owned(), None)]);
        let failures: Vec<_> = route.rules[0].filters.iter().map(|filter| filter.kind.clone().unwrap()).collect();
        match &failures[..] {
            [] => assert_eq!(suffix, "allow"),
            [http_route::filter::Kind::FailureInjector(failure)] => {
                assert_eq!((failure.status, &*failure.message, suffix), (403, FORBIDDEN, "deny"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn opaque_ports_are_those_of_the_network_or_the_clusters() {
    let is_opaque = |objects: Vec<Value>, address: &'static str| async move {
        match kind(ask(objects, address).await) {
            Kind::Opaque(opaque) => {
                assert_eq!(names([&opaque.routes[0].metadata]), ["tcp-egress-deny"]);
                assert!(is_forbidden(&opaque.routes[0]));
                true
            }
            _ => false,
        }
    };
    let mut annotated = all("Deny");
    annotated["metadata"]["annotations"] = json!({"config.linkerd.io/opaque-ports": "80,9000-9010"});
    assert!(is_opaque(vec![all("Deny")], "203.0.113.10:3306").await);
    assert!(!is_opaque(vec![all("Deny")], ADDRESS).await);
    assert!(is_opaque(vec![annotated.clone()], ADDRESS).await);
    assert!(!is_opaque(vec![annotated], "203.0.113.10:3306").await);
}

#[tokio::test]
async fn routes_of_a_network_come_before_what_becomes_of_the_rest() {
    let own = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "all", "port": 80});
    let other = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "other", "port": 80});
    let gone = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "gone"});
    let rules = json!([{}, {"backendRefs": [own, other, gone, {"name": "web", "port": 80}]}]);
    let objects = |port: u16| {
        let other =
            network("default", "other", json!({"trafficPolicy": "Allow", "networks": [{"cidr": "198.51.100.0/24"}]}));
        vec![all("Deny"), other, web(), route("HTTPRoute", at(port), rules.clone())]
    };
    let routes = http_routes(ask(objects(80), ADDRESS).await);
    assert_eq!(names(routes.iter().map(|route| &route.metadata)), ["r", "http-egress-deny"]);
    assert_eq!(legs(&routes[0].rules[0]), [(ADDRESS.to_owned(), None)], "without backends it is the address");
    let legs = legs(&routes[0].rules[1]);
    assert_eq!(legs[0], (ADDRESS.to_owned(), None));
    assert_eq!(legs[1].1.as_deref(), Some("EgressNetwork default/other is a backend of none but its own routes"));
    assert_eq!(legs[2].1.as_deref(), Some("EgressNetwork default/gone does not exist"));
    assert_eq!(legs[3], ("web.default.svc.cluster.local:80".to_owned(), None));
    // A Service has no address of a network that its clients wanted.
    let of_service =
        route("HTTPRoute", json!({"group": "", "kind": "Service", "name": "web"}), json!([{"backendRefs": [own]}]));
    let routes = http_routes(ask(vec![all("Allow"), web(), of_service], "10.96.0.5:80").await);
    let failures: Vec<_> = self::legs(&routes[0].rules[0]).into_iter().map(|(_, failure)| failure.is_some()).collect();
    assert_eq!(failures, [true]);

    let elsewhere = http_routes(ask(objects(81), ADDRESS).await);
    assert_eq!(names(elsewhere.iter().map(|route| &route.metadata)), ["http-egress-deny"]);
    // Unlike a Service, a network is named with a port.
    let without_port = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "all"});
    let objects = vec![all("Deny"), route("HTTPRoute", without_port, json!([{}]))];
    let routes = http_routes(ask(objects, ADDRESS).await);
    assert_eq!(names(routes.iter().map(|route| &route.metadata)), ["http-egress-deny"]);
}

#[tokio::test]
async fn routes_of_everybodys_network_are_for_everybody_and_a_clients_own_for_its_namespace() {
    let everybodys = |namespace: &str, name: &str| {
        let mut parent = at(80);
        parent["namespace"] = json!("linkerd-egress");
        let mut route = route("HTTPRoute", parent, json!([{}]));
        route["metadata"] = json!({"name": name, "namespace": namespace});
        route
    };
    let objects = vec![
        network("linkerd-egress", "all", json!({"trafficPolicy": "Deny"})),
        everybodys("linkerd-egress", "a"),
        everybodys("client", "b"),
    ];
    for (client, want) in [("client", &["a", "b", "http-egress-deny"][..]), ("other", &["a", "http-egress-deny"])] {
        let mut told = names(
            http_routes(ask_from(Some(client), objects.clone(), ADDRESS).await.unwrap())
                .iter()
                .map(|one| &one.metadata),
        );
        let default = told.pop();
        told.sort();
        assert_eq!(told.into_iter().chain(default).collect::<Vec<_>>(), want, "{client}");
    }
}

#[tokio::test]
async fn grpc_routes_of_a_network_have_its_terms_and_the_rest_is_denied() {
    let mut network = all("Deny");
    network["metadata"]["annotations"] = json!({
        "timeout.linkerd.io/request": "9s", "retry.linkerd.io/grpc": "internal",
        "balancer.linkerd.io/failure-accrual": "consecutive",
    });
    let rules = json!([{"matches": [{"method": {"service": "shop.Cart"}}]}]);
    let policy = ask(vec![network, route("GRPCRoute", at(80), rules)], ADDRESS).await;
    let Kind::Grpc(grpc) = kind(policy.clone()) else { panic!("{policy:?}") };
    assert!(grpc.failure_accrual.is_some());
    let routes = grpc_routes(policy);
    let [own, rest] = &routes[..] else { panic!("{routes:?}") };
    assert_eq!(names([&own.metadata, &rest.metadata]), ["r", "grpc-egress-deny"]);
    for route in [own, rest] {
        let rule = &route.rules[0];
        assert_eq!(rule.timeouts.unwrap().request.map(|it| it.seconds), Some(9));
        assert!(rule.retry.is_some());
        let Some(grpc_route::distribution::Kind::FirstAvailable(first)) = &rule.backends.as_ref().unwrap().kind else {
            panic!("{rule:?}")
        };
        assert_eq!(leads_to(first.backends[0].backend.as_ref().unwrap()), ADDRESS);
    }
    assert!(own.rules[0].filters.is_empty());
    let Some(grpc_route::filter::Kind::FailureInjector(failure)) = &rest.rules[0].filters[0].kind else {
        panic!("{rest:?}")
    };
    assert_eq!((failure.code, &*failure.message), (7, FORBIDDEN));
}
