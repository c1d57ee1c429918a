use linkerd2_proxy_api::{
    meta::{Resource, metadata},
    outbound::{ExponentialBackoff, GrpcRoute, failure_accrual, grpc_route, http_route},
};
use serde_json::{Value, json};

use super::*;
use crate::{examples, names::Target, objects::match_everything};

async fn ask(objects: Vec<Value>, target: &str) -> Option<OutboundPolicy> {
    ask_from(Some("default"), objects, target).await
}

/// What clients of a namespace are told.
pub(super) async fn ask_from(client: Option<&str>, objects: Vec<Value>, target: &str) -> Option<OutboundPolicy> {
    let index = examples::index(objects);
    index
        .answer(|state, cluster| match Target::parse(target, &cluster.domain) {
            Some(Target::Service(name, port)) => by_service(state, cluster, &name.service, port, client),
            Some(Target::Address(address)) => by_address(state, cluster, address, client),
            other => panic!("{other:?}"),
        })
        .await
}

pub(super) fn web() -> Value {
    examples::service("web", "10.96.0.5")
}

pub(super) fn kind(policy: OutboundPolicy) -> proxy_protocol::Kind {
    policy.protocol.unwrap().kind.unwrap()
}

pub(super) fn http_routes(policy: OutboundPolicy) -> Vec<HttpRoute> {
    let proxy_protocol::Kind::Detect(detect) = kind(policy) else { panic!() };
    let (http1, http2) = (detect.http1.unwrap().routes, detect.http2.unwrap().routes);
    assert_eq!(http1, http2);
    http1
}

/// Where a backend leads: the balancer's path, or the address.
pub(super) fn leads_to(backend: &Backend) -> String {
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
async fn a_service_that_penalizes_failures_does_so_at_its_own_endpoints_and_at_those_of_its_routes() {
    let mut parent = web();
    parent["metadata"]["annotations"] = json!({
        "balancer.alpha.linkerd.io/penalize-failures": "true",
        "balancer.alpha.linkerd.io/load-biaser-penalty": "2s",
    });
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "default"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "rules": [{"backendRefs": [{"name": "api", "port": 80}]}, {}],
        },
    });
    let objects = vec![parent, examples::service("api", "10.96.0.6"), route];
    let routes = http_routes(ask(objects.clone(), "10.96.0.5:80").await.unwrap());
    let penalties = |rule: &http_route::Rule| -> Vec<_> {
        use http_route::distribution::Kind;
        let backends: Vec<_> = match rule.backends.clone().unwrap().kind.unwrap() {
            Kind::FirstAvailable(first) => first.backends,
            Kind::RandomAvailable(random) => random.backends.into_iter().filter_map(|one| one.backend).collect(),
            Kind::Empty(_) => Vec::new(),
        };
        let loads = backends.into_iter().map(|one| match one.backend.unwrap().kind.unwrap() {
            backend::Kind::Balancer(BalanceP2c { load: Some(balance_p2c::Load::PenaltyPeakEwma(load)), .. }) => {
                assert_eq!((load.default_rtt, load.decay), (duration(DEFAULT_RTT), duration(EWMA_DECAY)));
                [load.penalty, load.max_retry_after, load.penalty_decay].map(|time| time.unwrap().seconds)
            }
            other => panic!("{other:?}"),
        });
        loads.collect()
    };
    assert_eq!(routes[0].rules.iter().map(penalties).collect::<Vec<_>>(), [[[2, 300, 10]], [[2, 300, 10]]]);
    // Not where it is a backend only: who sends says.
    let of_api = http_routes(ask(objects, "10.96.0.6:80").await.unwrap());
    assert_eq!(first_backend(&of_api[0].rules[0]), "api.default.svc.cluster.local:80");
}

#[tokio::test]
async fn what_has_no_policy() {
    let objects = vec![web(), examples::pod("p", "10.244.0.7")];
    for target in ["no.default.svc.cluster.local:80", "10.244.0.7:8080", "10.244.9.9:80"] {
        assert_eq!(ask(objects.clone(), target).await, None, "{target}");
    }
}

#[tokio::test]
async fn a_headless_service_has_a_policy_by_its_name_and_an_external_name_has_none() {
    let mut service = examples::service("web", "None");
    let slice = examples::slice("web", &[("web-0", "10.244.0.7", true)]);
    let objects = vec![service.clone(), slice, examples::pod("web-0", "10.244.0.7")];
    let name = "web.default.svc.cluster.local:80";
    let routes = http_routes(ask(objects.clone(), name).await.unwrap());
    assert_eq!(first_backend(&routes[0].rules[0]), name);
    // What the name leads to in DNS is pods, of which the profile says everything.
    assert_eq!(ask(objects, "10.244.0.7:80").await, None);
    service["spec"] = json!({"type": "ExternalName", "externalName": "example.com"});
    assert_eq!(ask(vec![service], name).await, None);
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

#[tokio::test]
async fn a_port_that_says_what_is_spoken_is_not_looked_into_for_that() {
    use proxy_protocol::Kind;
    let spoken = |protocol: &'static str, routes: Vec<Value>| async move {
        let mut web = web();
        web["spec"]["ports"][0]["appProtocol"] = json!(protocol);
        match kind(ask([vec![web], routes].concat(), "10.96.0.5:80").await.unwrap()) {
            Kind::Detect(_) => "detect",
            Kind::Http1(http) if http.routes[0].metadata == Some(default_ref("http")) => "http/1, any",
            Kind::Http1(_) => "http/1",
            Kind::Http2(_) => "http/2",
            Kind::Grpc(_) => "gRPC",
            Kind::Opaque(_) => "opaque",
            Kind::Tls(_) => "TLS",
        }
    };
    let (http, grpc) = (|| route(json!([{}])), || grpc_route(json!([{}])));
    assert_eq!(spoken("", vec![]).await, "detect");
    assert_eq!(spoken("HTTP", vec![]).await, "http/1, any");
    assert_eq!(spoken("http", vec![http(), grpc()]).await, "http/1");
    assert_eq!(spoken("kubernetes.io/h2c", vec![http()]).await, "http/2");
    assert_eq!(spoken("kubernetes.io/h2c", vec![http(), grpc()]).await, "gRPC");
    for protocol in ["linkerd.io/opaque", "linkerd.io/tcp", "https"] {
        assert_eq!(spoken(protocol, vec![http(), grpc()]).await, "opaque", "{protocol}");
    }
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

/// A rule that is told but not understood would take every other one with it.
#[tokio::test]
async fn a_rule_that_cannot_be_told_is_left_out() {
    let matching = |one: Value| json!({"matches": [{"path": {"type": "Exact", "value": "/a"}}, one]});
    let filtered = |type_: &str, key: &str, value: Value| json!({"filters": [{"type": type_, key: value}]});
    let set = |name: &str, value: &str| json!({"set": [{"name": name, "value": value}]});
    for (bad, good) in [
        (
            matching(json!({"path": {"type": "RegularExpression", "value": "("}})),
            json!({"type": "RegularExpression", "value": "/a(b|c)"}),
        ),
        (matching(json!({"headers": [{"type": "RegularExpression", "name": "x", "value": "["}]})), json!(null)),
        (matching(json!({"headers": [{"name": "x y", "value": "1"}]})), json!(null)),
        (matching(json!({"headers": [{"name": "x", "value": "a\nb"}]})), json!(null)),
        (matching(json!({"queryParams": [{"type": "RegularExpression", "name": "x", "value": "*"}]})), json!(null)),
        (matching(json!({"method": "GET IT"})), json!(null)),
        (filtered("RequestHeaderModifier", "requestHeaderModifier", set("x:", "1")), json!(null)),
        (filtered("ResponseHeaderModifier", "responseHeaderModifier", set("x", "a\nb")), json!(null)),
        (filtered("RequestHeaderModifier", "requestHeaderModifier", json!({"remove": [""]})), json!(null)),
        (filtered("RequestRedirect", "requestRedirect", json!({"scheme": "no scheme"})), json!(null)),
        (filtered("RequestRedirect", "requestRedirect", json!({"statusCode": 7})), json!(null)),
        (
            json!({"backendRefs": [{"name": "web", "port": 80, "filters": [
                {"type": "RequestHeaderModifier", "requestHeaderModifier": set(" ", "1")},
            ]}]}),
            json!(null),
        ),
    ] {
        let good = match good {
            Value::Null => json!({"type": "Exact", "value": "/good"}),
            path => path,
        };
        let rules = json!([bad.clone(), {"matches": [{"path": good}]}]);
        let routes = http_routes(ask(vec![web(), route(rules)], "10.96.0.5:80").await.unwrap());
        assert_eq!(routes[0].rules.len(), 1, "{bad}");
        assert_eq!(routes[0].rules[0].matches.len(), 1, "{bad}");
        // With no rule left it is as if the route were not there.
        let routes = http_routes(ask(vec![web(), route(json!([bad]))], "10.96.0.5:80").await.unwrap());
        assert_eq!(routes[0].metadata, Some(default_ref("http")), "{bad}");
    }
}

#[tokio::test]
async fn a_rule_whose_backends_all_have_the_weight_0_fails() {
    let rules =
        json!([{"backendRefs": [{"name": "web", "port": 80, "weight": 0}, {"name": "gone", "port": 80, "weight": 0}]}]);
    let routes = http_routes(ask(vec![web(), route(rules.clone())], "10.96.0.5:80").await.unwrap());
    let distribution = routes[0].rules[0].backends.clone().unwrap().kind;
    let Some(http_route::distribution::Kind::FirstAvailable(first)) = distribution else { panic!("{distribution:?}") };
    let [only] = first.backends.as_slice() else { panic!("{first:?}") };
    let Some(http_route::filter::Kind::FailureInjector(fail)) = &only.filters[0].kind else { panic!("{only:?}") };
    assert_eq!((fail.status, &*fail.message), (500, NO_WEIGHT));

    let routes = grpc_routes(ask(vec![web(), grpc_route(rules)], "10.96.0.5:80").await.unwrap());
    let distribution = routes[0].rules[0].backends.clone().unwrap().kind;
    let Some(grpc_route::distribution::Kind::FirstAvailable(first)) = distribution else { panic!("{distribution:?}") };
    assert!(matches!(first.backends[0].filters[0].kind, Some(grpc_route::filter::Kind::FailureInjector(_))));
}

#[tokio::test]
async fn a_match_without_a_path_is_no_less_specific_than_none() {
    let rules = json!([{"matches": [{"headers": [{"name": "x", "value": "1"}]}]}, {}]);
    let routes = http_routes(ask(vec![web(), route(rules)], "10.96.0.5:80").await.unwrap());
    let [by_header, rest] = routes[0].rules.as_slice() else { panic!() };
    assert_eq!(by_header.matches[0].path, match_everything().path);
    assert_eq!((by_header.matches[0].headers.len(), rest.matches[0].headers.len()), (1, 0));
}

#[tokio::test]
async fn of_two_routes_the_older_comes_first() {
    let named = |name: &str, created: Option<&str>| {
        let mut route = route(json!([{}]));
        route["metadata"]["name"] = json!(name);
        if let Some(created) = created {
            route["metadata"]["creationTimestamp"] = json!(created);
        }
        route
    };
    let (early, late) = (Some("2024-01-01T00:00:00Z"), Some("2024-01-02T00:00:00Z"));
    let objects =
        vec![web(), named("a", None), named("b", late), named("d", early), named("c", early), named("e", early)];
    let routes = http_routes(ask(objects, "10.96.0.5:80").await.unwrap());
    let names: Vec<_> = routes.iter().map(|route| resource_of(&route.metadata).name).collect();
    assert_eq!(names, ["c", "d", "e", "b", "a"]);
}

#[tokio::test]
async fn a_route_of_another_namespace_is_for_the_clients_there() {
    let at = |mut route: Value, namespace: &str, name: &str, created: &str| {
        route["metadata"] = json!({"name": name, "namespace": namespace, "creationTimestamp": created});
        route["spec"]["parentRefs"][0]["namespace"] = json!("default");
        route
    };
    let http = |namespace, name, created| at(route(json!([{}])), namespace, name, created);
    let objects = vec![
        web(),
        http("default", "producer", "2024-01-02T00:00:00Z"),
        http("client", "older", "2024-01-01T00:00:00Z"),
        http("client", "younger", "2024-01-03T00:00:00Z"),
    ];
    for target in ["10.96.0.5:80", "web.default.svc.cluster.local:80"] {
        for (client, want) in [
            // Its own are among the others by age.
            (Some("client"), vec!["older", "producer", "younger"]),
            (Some("default"), vec!["producer"]),
            (Some("other"), vec!["producer"]),
            (None, vec!["producer"]),
        ] {
            let routes = http_routes(ask_from(client, objects.clone(), target).await.unwrap());
            let names: Vec<_> = routes.iter().map(|route| resource_of(&route.metadata).name).collect();
            assert_eq!(names, want, "{target} {client:?}");
        }
    }
    let grpc = at(grpc_route(json!([{}])), "client", "g", "2024-01-01T00:00:00Z");
    for (client, is_grpc) in [("client", true), ("other", false)] {
        let policy = ask_from(Some(client), vec![web(), grpc.clone()], "10.96.0.5:80").await.unwrap();
        assert_eq!(matches!(kind(policy), proxy_protocol::Kind::Grpc(_)), is_grpc, "{client}");
    }
}

#[tokio::test]
async fn a_route_that_says_nothing_of_retries_has_those_of_its_service() {
    let annotated = |mut object: Value, annotations: Value| {
        object["metadata"]["annotations"] = annotations;
        object
    };
    let web = annotated(web(), json!({"retry.linkerd.io/http": "5xx", "timeout.linkerd.io/request": "9s"}));
    let own = json!({"retry.linkerd.io/limit": "4", "timeout.linkerd.io/response": "2s"});
    for (annotations, limit, request) in [(json!({}), 1, Some(9)), (own, 4, None)] {
        let objects = vec![web.clone(), annotated(route(json!([{}])), annotations)];
        let routes = http_routes(ask(objects, "10.96.0.5:80").await.unwrap());
        let rule = &routes[0].rules[0];
        assert_eq!(rule.retry.as_ref().unwrap().max_retries, limit);
        assert_eq!(rule.timeouts.unwrap().request.map(|it| it.seconds), request);
    }
}

pub(super) fn resource_of(metadata: &Option<Metadata>) -> Resource {
    match metadata.as_ref().unwrap().kind.clone().unwrap() {
        metadata::Kind::Resource(resource) => resource,
        metadata::Kind::Default(name) => panic!("{name}"),
    }
}

fn grpc_route(rules: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute",
        "metadata": {"name": "g", "namespace": "default"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": rules},
    })
}

pub(super) fn grpc_routes(policy: OutboundPolicy) -> Vec<GrpcRoute> {
    let proxy_protocol::Kind::Grpc(grpc) = kind(policy) else { panic!() };
    grpc.routes
}

#[tokio::test]
async fn where_there_are_grpc_routes_grpc_is_spoken() {
    let rules = json!([{
        "matches": [
            {"method": {"service": "shop.Cart", "method": "Add"}, "headers": [{"name": "x", "value": "1"}]},
            {"method": {"type": "Exact", "service": "shop.Cart"}},
        ],
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "y", "value": "2"}]}},
            {"type": "RequestMirror", "requestMirror": {}},
        ],
        "backendRefs": [{"name": "web", "port": 80, "weight": 9}, {"name": "gone", "port": 80}],
    }]);
    let mut grpc = grpc_route(rules);
    grpc["metadata"]["annotations"] =
        json!({"retry.linkerd.io/grpc": "unavailable,internal", "timeout.linkerd.io/request": "3s"});
    // An HTTPRoute of the same Service counts for nothing then.
    let objects = vec![web(), route(json!([{}])), grpc.clone()];
    let routes = grpc_routes(ask(objects, "web.default.svc.cluster.local:80").await.unwrap());
    let [found] = routes.as_slice() else { panic!("{routes:?}") };
    let Resource { group, kind, name, namespace, .. } = resource_of(&found.metadata);
    assert_eq!((&*group, &*kind, &*namespace, &*name), ("gateway.networking.k8s.io", "GRPCRoute", "default", "g"));
    let [rule] = found.rules.as_slice() else { panic!("{found:?}") };
    let rpcs: Vec<_> = rule.matches.iter().map(|one| one.rpc.clone().unwrap()).collect();
    let rpcs: Vec<_> = rpcs.iter().map(|rpc| (&*rpc.service, &*rpc.method)).collect();
    assert_eq!(rpcs, [("shop.Cart", "Add"), ("shop.Cart", "")]);
    assert_eq!(rule.matches[0].headers[0].name, "x");
    assert!(
        matches!(rule.filters.as_slice(), [one] if matches!(one.kind, Some(grpc_route::filter::Kind::RequestHeaderModifier(_))))
    );
    let retry = rule.retry.unwrap();
    let conditions = grpc_route::retry::Conditions { unavailable: true, internal: true, ..Default::default() };
    assert_eq!((retry.max_retries, retry.conditions), (1, Some(conditions)));
    assert_eq!(rule.timeouts.unwrap().request.map(|it| it.seconds), Some(3));
    let Some(grpc_route::distribution::Kind::RandomAvailable(random)) = &rule.backends.as_ref().unwrap().kind else {
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
    // Control: an opaque port stays opaque, and without the GRPCRoute there is the HTTPRoute.
    let opaque = ask(vec![web(), grpc], "10.96.0.5:3306").await.unwrap();
    assert!(matches!(self::kind(opaque), proxy_protocol::Kind::Opaque(_)));
    let http = http_routes(ask(vec![web(), route(json!([{}]))], "10.96.0.5:80").await.unwrap());
    assert_eq!(resource_of(&http[0].metadata).name, "r");
}

#[tokio::test]
async fn a_grpc_rule_without_backends_leads_to_its_parent() {
    let routes = grpc_routes(ask(vec![web(), grpc_route(json!([{}]))], "10.96.0.5:80").await.unwrap());
    let rule = &routes[0].rules[0];
    let Some(grpc_route::distribution::Kind::FirstAvailable(first)) = &rule.backends.as_ref().unwrap().kind else {
        panic!()
    };
    assert_eq!(leads_to(first.backends[0].backend.as_ref().unwrap()), "web.default.svc.cluster.local:80");
    assert!(rule.matches.is_empty(), "every request is the rule's");
}

#[tokio::test]
async fn a_grpc_rule_that_cannot_be_told_is_left_out() {
    let rules = json!([
        {"matches": [{"method": {"type": "RegularExpression", "service": "shop[.].*"}}]},
        {"matches": [{"method": {"method": "Add"}}]},
    ]);
    let routes = grpc_routes(ask(vec![web(), grpc_route(rules)], "10.96.0.5:80").await.unwrap());
    let methods: Vec<_> = routes[0].rules.iter().map(|rule| rule.matches[0].rpc.clone().unwrap().method).collect();
    assert_eq!(methods, ["Add"]);
}

async fn accrual_of(annotations: &[(&str, &str)]) -> Option<failure_accrual::Kind> {
    let mut web = web();
    let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value)));
    web["metadata"]["annotations"] = Value::Object(annotations.collect());
    let policy = ask(vec![web], "10.96.0.5:80").await.unwrap();
    let proxy_protocol::Kind::Detect(detect) = kind(policy) else { panic!() };
    let (http1, http2) = (detect.http1.unwrap().failure_accrual, detect.http2.unwrap().failure_accrual);
    assert_eq!(http1, http2);
    http1.map(|accrual| accrual.kind.unwrap())
}

const MODE: &str = "balancer.linkerd.io/failure-accrual";
const MAX_FAILURES: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-failures";
const MIN_PENALTY: &str = "balancer.linkerd.io/failure-accrual-consecutive-min-penalty";
const MAX_PENALTY: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-penalty";
const JITTER: &str = "balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio";
const THRESHOLD: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold";
const WINDOW: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-window";
const MIN_REQUESTS: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-min-requests";

#[tokio::test]
async fn failure_accrual_is_as_the_service_says() {
    use failure_accrual::{ConsecutiveFailures, Kind, Unified};
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let backoff = |min, max, jitter_ratio| {
        Some(ExponentialBackoff {
            min_backoff: seconds(min),
            max_backoff: seconds(max),
            jitter_ratio,
            ..Default::default()
        })
    };
    let consecutive =
        |max_failures, backoff| Some(Kind::ConsecutiveFailures(ConsecutiveFailures { max_failures, backoff }));
    assert_eq!(accrual_of(&[]).await, None);
    assert_eq!(accrual_of(&[(MODE, "consecutive"), (THRESHOLD, "0.9")]).await, consecutive(7, backoff(1, 60, 0.5)));
    let penalties = [(MAX_FAILURES, "3"), (MIN_PENALTY, "5s"), (MAX_PENALTY, "2m"), (JITTER, "0.25")];
    let with = |mode, more: &[(&'static str, &'static str)]| [&[(MODE, mode)], &penalties[..], more].concat();
    assert_eq!(accrual_of(&with("consecutive", &[])).await, consecutive(3, backoff(5, 120, 0.25)));
    let rate = |success_rate_threshold, window, min_requests, max_consecutive_failures, backoff| {
        let decay = seconds(window);
        Some(Kind::Unified(Unified { success_rate_threshold, decay, min_requests, max_consecutive_failures, backoff }))
    };
    assert_eq!(accrual_of(&[(MODE, "unified")]).await, rate(0.8, 10, 5, 7, backoff(1, 60, 0.5)));
    let all = with("unified", &[(THRESHOLD, "0.95"), (WINDOW, "30s"), (MIN_REQUESTS, "100")]);
    assert_eq!(accrual_of(&all).await, rate(0.95, 30, 100, 3, backoff(5, 120, 0.25)));
}

#[tokio::test]
async fn failure_accrual_that_cannot_be_is_off() {
    assert_eq!(accrual_of(&[(MODE, "sometimes")]).await, None);
    for (key, value) in [
        (MAX_FAILURES, "many"),
        (MIN_PENALTY, "2h"),
        (MAX_PENALTY, "0"),
        (JITTER, "-1"),
        (THRESHOLD, "1.5"),
        (WINDOW, "1ms"),
        (MIN_REQUESTS, "1000001"),
    ] {
        assert_eq!(accrual_of(&[(MODE, "unified"), (key, value)]).await, None, "{key} {value}");
    }
}

#[tokio::test]
async fn requests_say_their_own_terms_where_that_is_allowed() {
    let rules = json!([{"matches": [{"method": {"service": "shop.Cart"}}]}]);
    for routes in [None, Some(route(json!([{}]))), Some(grpc_route(rules))] {
        let is_grpc = routes.as_ref().is_some_and(|route| route["kind"] == "GRPCRoute");
        let index = examples::index([web()].into_iter().chain(routes));
        for allow_l5d_request_headers in [false, true] {
            let policies = index.answer(|state, cluster| {
                let cluster = Cluster { allow_l5d_request_headers, ..cluster.clone() };
                ["10.96.0.5:80", "203.0.113.1:80"]
                    .map(|address| by_address(state, &cluster, address.parse().unwrap(), None))
            });
            for (policy, is_grpc) in policies.await.into_iter().zip([is_grpc, false]) {
                let allowed: Vec<bool> = if is_grpc {
                    let routes = grpc_routes(policy.unwrap());
                    routes.iter().flat_map(|route| &route.rules).map(|rule| rule.allow_l5d_request_headers).collect()
                } else {
                    let routes = http_routes(policy.unwrap());
                    routes.iter().flat_map(|route| &route.rules).map(|rule| rule.allow_l5d_request_headers).collect()
                };
                assert_eq!(allowed, [allow_l5d_request_headers], "{is_grpc}");
            }
        }
    }
}
