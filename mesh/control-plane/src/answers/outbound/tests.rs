use linkerd2_proxy_api::meta::{Resource, metadata};
use serde_json::{Value, json};

use super::*;
use crate::{examples, names::Target};

async fn ask(objects: Vec<Value>, target: &str) -> Option<OutboundPolicy> {
    let index = examples::index(objects);
    index
        .answer(|state, cluster| match Target::parse(target, &cluster.domain) {
            Some(Target::Service(name, port)) => by_service(state, cluster, &name.service, port),
            Some(Target::Address(address)) => by_address(state, cluster, address),
            other => panic!("{other:?}"),
        })
        .await
}

fn web() -> Value {
    examples::service("web", "10.96.0.5")
}

fn kind(policy: OutboundPolicy) -> proxy_protocol::Kind {
    policy.protocol.unwrap().kind.unwrap()
}

fn http_routes(policy: OutboundPolicy) -> Vec<ApiHttpRoute> {
    let proxy_protocol::Kind::Detect(detect) = kind(policy) else { panic!() };
    let (http1, http2) = (detect.http1.unwrap().routes, detect.http2.unwrap().routes);
    assert_eq!(http1, http2);
    http1
}

/// Where a backend leads: the balancer's path, or the address.
fn leads_to(backend: &Backend) -> String {
    assert!(backend.metadata.is_some() && backend.queue.is_some());
    match backend.kind.as_ref().unwrap() {
        backend::Kind::Forward(address) => SocketAddr::try_from(address.addr.unwrap()).unwrap().to_string(),
        backend::Kind::Balancer(balancer) => {
            assert!(matches!(balancer.load, Some(balance_p2c::Load::PeakEwma(_))));
            let Some(endpoint_discovery::Kind::Dst(get)) = &balancer.discovery.as_ref().unwrap().kind else { panic!() };
            get.path.clone()
        }
    }
}

fn first_backend(rule: &http_route::Rule) -> String {
    let Some(http_route::distribution::Kind::FirstAvailable(first)) = &rule.backends.as_ref().unwrap().kind else {
        panic!()
    };
    leads_to(first.backends[0].backend.as_ref().unwrap())
}

#[tokio::test]
async fn a_service_is_detected_and_balanced() {
    for target in ["web.default.svc.cluster.local:80", "10.96.0.5:80"] {
        let policy = ask(vec![web()], target).await.unwrap();
        assert_eq!(policy.metadata, Some(service_ref(&Key::new("default", "web"), 80)));
        let routes = http_routes(policy);
        assert_eq!(routes[0].metadata, Some(default_ref("http")));
        assert_eq!(first_backend(&routes[0].rules[0]), "web.default.svc.cluster.local:80");
    }
}

#[tokio::test]
async fn what_has_no_policy() {
    let objects = vec![web(), examples::pod("p", "10.244.0.7")];
    for target in ["no.default.svc.cluster.local:80", "10.244.0.7:8080", "10.244.9.9:80"] {
        assert_eq!(ask(objects.clone(), target).await, None, "{target}");
    }
}

#[tokio::test]
async fn undeclared_ports_are_forbidden() {
    let proxy_protocol::Kind::Opaque(opaque) = kind(ask(vec![web()], "10.96.0.5:81").await.unwrap()) else { panic!() };
    let filter = opaque.routes[0].rules[0].filters[0].kind.as_ref().unwrap();
    assert!(matches!(filter, opaque_route::filter::Kind::Forbidden(_)));
}

#[tokio::test]
async fn opaque_ports_are_opaque() {
    let policy = ask(vec![web()], "10.96.0.5:3306").await.unwrap();
    let proxy_protocol::Kind::Opaque(opaque) = kind(policy) else { panic!() };
    assert!(opaque.routes[0].rules[0].filters.is_empty());
}

#[tokio::test]
async fn the_world_is_dialled_as_it_is() {
    let policy = ask(vec![web()], "203.0.113.10:443").await.unwrap();
    assert_eq!(policy.metadata, Some(default_ref("egress-fallback")));
    assert_eq!(first_backend(&http_routes(policy)[0].rules[0]), "203.0.113.10:443");
}

fn route(rules: Value) -> Value {
    json!({
        "apiVersion": "policy.linkerd.io/v1beta3",
        "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "default"},
        "spec": {
            "parentRefs": [{"group": "core", "kind": "Service", "name": "web", "port": 80}],
            "hostnames": ["*.example.com"],
            "rules": rules,
        },
    })
}

#[tokio::test]
async fn a_route_takes_the_place_of_the_default() {
    let rules = json!([{
        "matches": [{"path": {"type": "Exact", "value": "/a"}, "method": "GET", "headers": [{"name": "x", "value": "1"}]}],
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "y", "value": "2"}]}}],
        "backendRefs": [
            {"name": "web", "port": 80, "weight": 9},
            {"name": "gone", "port": 80},
            {"name": "web", "port": 80, "weight": 0},
        ],
        "timeouts": {"request": "2s"},
    }]);
    let routes = http_routes(ask(vec![web(), route(rules)], "10.96.0.5:80").await.unwrap());
    let Some(metadata::Kind::Resource(Resource { group, kind, name, .. })) = routes[0].metadata.clone().unwrap().kind
    else {
        panic!()
    };
    assert_eq!((group.as_str(), kind.as_str(), name.as_str()), ("policy.linkerd.io", "HTTPRoute", "r"));
    let rule = &routes[0].rules[0];
    assert_eq!(rule.matches[0].headers[0].name, "x");
    assert_eq!(rule.timeouts.unwrap().request, Some(prost_types::Duration { seconds: 2, nanos: 0 }));
    assert!(matches!(rule.filters[0].kind, Some(http_route::filter::Kind::RequestHeaderModifier(_))));
    let Some(http_route::distribution::Kind::RandomAvailable(random)) = &rule.backends.as_ref().unwrap().kind else {
        panic!()
    };
    let backends: Vec<_> = random
        .backends
        .iter()
        .map(|weighted| {
            let backend = weighted.backend.as_ref().unwrap();
            (leads_to(backend.backend.as_ref().unwrap()), weighted.weight, backend.filters.len())
        })
        .collect();
    assert_eq!(
        backends,
        [("web.default.svc.cluster.local:80".to_owned(), 9, 0), ("gone.default.svc.cluster.local:80".to_owned(), 1, 1)]
    );
}

#[tokio::test]
async fn a_route_of_another_port_leaves_the_default() {
    let mut service = web();
    service["spec"]["ports"][1]["port"] = json!(8081);
    let routes = http_routes(ask(vec![service, route(json!([{}]))], "10.96.0.5:8081").await.unwrap());
    assert_eq!(routes[0].metadata, Some(default_ref("http")));
}

#[tokio::test]
async fn a_rule_without_backends_leads_to_its_parent() {
    let routes = http_routes(ask(vec![web(), route(json!([{}]))], "10.96.0.5:80").await.unwrap());
    assert_eq!(first_backend(&routes[0].rules[0]), "web.default.svc.cluster.local:80");
    assert_eq!(routes[0].rules[0].matches, [match_everything()]);
}

#[tokio::test]
async fn failure_accrual_is_as_the_service_says() {
    use linkerd2_proxy_api::outbound::failure_accrual::Kind;
    let name = |rest: &str| format!("balancer.linkerd.io/failure-accrual{rest}");
    let ask_with = |annotations: Vec<(String, &'static str)>| async move {
        let mut web = web();
        let annotations = annotations.into_iter().map(|(key, value)| (key, json!(value)));
        web["metadata"]["annotations"] = Value::Object(annotations.collect());
        let policy = ask(vec![web], "10.96.0.5:80").await.unwrap();
        let proxy_protocol::Kind::Detect(detect) = kind(policy) else { panic!() };
        let (http1, http2) = (detect.http1.unwrap().failure_accrual, detect.http2.unwrap().failure_accrual);
        assert_eq!(http1, http2);
        http1.map(|accrual| match accrual.kind.unwrap() {
            Kind::ConsecutiveFailures(it) => {
                let backoff = it.backoff.unwrap();
                let seconds = |it: Option<prost_types::Duration>| it.unwrap().seconds;
                (it.max_failures, seconds(backoff.min_backoff), seconds(backoff.max_backoff), backoff.jitter_ratio)
            }
            Kind::Unified(it) => panic!("{it:?}"),
        })
    };
    assert_eq!(ask_with(vec![]).await, None);
    let consecutive = (name(""), "consecutive");
    assert_eq!(ask_with(vec![consecutive.clone()]).await, Some((7, 1, 60, 0.5)));
    let all = vec![
        consecutive.clone(),
        (name("-consecutive-max-failures"), "3"),
        (name("-consecutive-min-penalty"), "5s"),
        (name("-consecutive-max-penalty"), "2m"),
        (name("-consecutive-jitter-ratio"), "0.25"),
    ];
    assert_eq!(ask_with(all).await, Some((3, 5, 120, 0.25)));
    assert_eq!(ask_with(vec![consecutive, (name("-consecutive-max-failures"), "many")]).await, None);
    assert_eq!(ask_with(vec![(name(""), "sometimes")]).await, None);
}
