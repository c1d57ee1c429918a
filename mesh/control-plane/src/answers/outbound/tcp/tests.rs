use linkerd2_proxy_api::{
    meta::metadata,
    outbound::{OutboundPolicy, opaque_route, proxy_protocol::Kind, tls_route},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    answers::outbound::tests::{ask_from, kind, leads_to, web},
    examples,
};

const NAME: &str = "web.default.svc.cluster.local:80";
const ADDRESS: &str = "203.0.113.10:80";

fn all(traffic_policy: &str) -> Value {
    json!({
        "apiVersion": "policy.linkerd.io/v1alpha1", "kind": "EgressNetwork",
        "metadata": {"name": "all", "namespace": "default"}, "spec": {"trafficPolicy": traffic_policy},
    })
}

fn of_service() -> Value {
    json!({"group": "", "kind": "Service", "name": "web", "port": 80})
}

fn of_network() -> Value {
    json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "all", "port": 80})
}

fn route(kind: &str, name: &str, parent: Value, rules: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"parentRefs": [parent], "rules": rules},
    })
}

fn to(backends: Value) -> Value {
    json!([{"backendRefs": backends}])
}

async fn ask(objects: Vec<Value>, target: &str) -> OutboundPolicy {
    ask_from(Some("default"), objects, target).await.unwrap()
}

async fn tls(objects: Vec<Value>, target: &str) -> Vec<TlsRoute> {
    match kind(ask(objects, target).await) {
        Kind::Tls(tls) => tls.routes,
        other => panic!("{other:?}"),
    }
}

async fn opaque(objects: Vec<Value>, target: &str) -> Vec<OpaqueRoute> {
    match kind(ask(objects, target).await) {
        Kind::Opaque(opaque) => opaque.routes,
        other => panic!("{other:?}"),
    }
}

/// What a route is: `Kind name` of an object, or the name of a default.
fn named(metadata: &Option<Metadata>) -> String {
    match metadata.clone().unwrap().kind.unwrap() {
        metadata::Kind::Default(name) => name,
        metadata::Kind::Resource(of) => format!("{} {}", of.kind, of.name),
    }
}

/// Where a leg leads, its weight, and why it leads nowhere.
type Leg = (String, u32, Option<String>);

/// The messages of both have the same shape, and are of different types.
macro_rules! legs {
    ($name:ident, $api:ident) => {
        fn $name(rule: &$api::Rule) -> Vec<Leg> {
            use $api::{distribution::Kind, filter};
            let backends = match rule.backends.clone().unwrap().kind.unwrap() {
                Kind::FirstAvailable(first) => first.backends.into_iter().map(|backend| (backend, 0)).collect(),
                Kind::RandomAvailable(random) => {
                    random.backends.into_iter().map(|one| (one.backend.unwrap(), one.weight)).collect::<Vec<_>>()
                }
                Kind::Empty(_) => Vec::new(),
            };
            let each = backends.into_iter().map(|(backend, weight)| {
                let problem = backend.filters.into_iter().find_map(|filter| match filter.kind {
                    Some(filter::Kind::Invalid(invalid)) => Some(invalid.message),
                    _ => None,
                });
                (leads_to(&backend.backend.unwrap()), weight, problem)
            });
            each.collect()
        }
    };
}

legs!(tls_legs, tls_route);
legs!(opaque_legs, opaque_route);

fn leg(to: &str, weight: u32, problem: Option<&str>) -> Leg {
    (to.to_owned(), weight, problem.map(str::to_owned))
}

#[tokio::test]
async fn tls_of_a_service_goes_by_its_name() {
    let mut named_hosts = route(
        "TLSRoute",
        "r",
        of_service(),
        to(
            json!([{"name": "web", "port": 80, "weight": 9}, {"name": "gone", "port": 80}, {"name": "web", "port": 80, "weight": 0}]),
        ),
    );
    named_hosts["spec"]["hostnames"] = json!(["a.example.com", "*.example.org"]);
    // Which endpoints refuse work is told by answers to requests, and nobody looks for these here.
    let mut web = web();
    web["metadata"]["annotations"] = json!({"balancer.alpha.linkerd.io/penalize-failures": "true"});
    let routes = tls(vec![web, named_hosts], NAME).await;
    let [route] = &routes[..] else { panic!("{routes:?}") };
    assert_eq!(named(&route.metadata), "TLSRoute r");
    let names: Vec<_> = route.snis.iter().map(|sni| sni.r#match.clone().unwrap()).collect();
    let suffix = sni_match::Suffix { reverse_labels: vec!["org".into(), "example".into()] };
    assert_eq!(names, [sni_match::Match::Exact("a.example.com".into()), sni_match::Match::Suffix(suffix)]);
    let gone = "gone.default.svc.cluster.local:80";
    assert_eq!(
        tls_legs(&route.rules[0]),
        [leg(NAME, 9, None), leg(gone, 1, Some("Service default/gone does not exist"))]
    );
}

#[tokio::test]
async fn connections_of_a_service_go_by_the_first_of_its_routes() {
    let aged = |name: &str, created: &str, backends: Value| {
        let mut route = route("TCPRoute", name, of_service(), to(backends));
        route["metadata"]["creationTimestamp"] = json!(created);
        route
    };
    let api = json!([{"name": "api", "port": 80}]);
    let services = || vec![web(), examples::service("api", "10.96.0.6")];
    let routes = vec![aged("a", "2026-01-02T00:00:00Z", json!([])), aged("b", "2026-01-01T00:00:00Z", api.clone())];
    let told = opaque([services(), routes].concat(), NAME).await;
    let [route] = &told[..] else { panic!("{told:?}") };
    assert_eq!(named(&route.metadata), "TCPRoute b");
    assert_eq!(opaque_legs(&route.rules[0]), [leg("api.default.svc.cluster.local:80", 1, None)]);
    // Without backends it is the Service; without a route, whatever it was before.
    let told = opaque(vec![web(), aged("a", "2026-01-02T00:00:00Z", json!([]))], NAME).await;
    assert_eq!(opaque_legs(&told[0].rules[0]), [leg(NAME, 0, None)]);
    assert!(matches!(kind(ask(services(), NAME).await), Kind::Detect(_)));
    // A port that is opaque anyhow has the route as well.
    let mut on_3306 = self::route("TCPRoute", "r", of_service(), to(api));
    on_3306["spec"]["parentRefs"][0]["port"] = json!(3306);
    for (routes, name) in [(vec![], "opaq"), (vec![on_3306], "TCPRoute r")] {
        let told = opaque([services(), routes].concat(), "10.96.0.5:3306").await;
        assert_eq!(named(&told[0].metadata), name);
    }
}

#[tokio::test]
async fn routes_of_a_network_are_for_connections_too() {
    for (traffic_policy, suffix) in [("Allow", "allow"), ("Deny", "deny")] {
        let objects = |kind: &str| vec![all(traffic_policy), route(kind, "r", of_network(), to(json!([of_network()])))];
        let told = tls(objects("TLSRoute"), ADDRESS).await;
        let [own, rest] = &told[..] else { panic!("{told:?}") };
        assert_eq!(
            [named(&own.metadata), named(&rest.metadata)],
            ["TLSRoute r".into(), format!("tls-egress-{suffix}")]
        );
        assert!(own.rules[0].filters.is_empty() && rest.snis.is_empty());
        assert_eq!(tls_legs(&own.rules[0]), [leg(ADDRESS, 1, None)]);
        assert_eq!(tls_legs(&rest.rules[0]), [leg(ADDRESS, 0, None)]);
        let refuses = |filter: &tls_route::Filter| matches!(filter.kind, Some(tls_route::filter::Kind::Forbidden(_)));
        assert_eq!(rest.rules[0].filters.iter().any(refuses), suffix == "deny");
        // Nothing tells one connection from another, so that nothing is left for the default.
        let told = opaque(objects("TCPRoute"), ADDRESS).await;
        let [route] = &told[..] else { panic!("{told:?}") };
        assert_eq!((&*named(&route.metadata), route.rules[0].filters.len()), ("TCPRoute r", 0));
        assert_eq!(opaque_legs(&route.rules[0]), [leg(ADDRESS, 1, None)]);
    }
}

#[tokio::test]
async fn the_type_that_tells_most_counts() {
    let any_port = || json!({"group": "", "kind": "Service", "name": "web"});
    let of = |kind: &str, parent: Value| route(kind, &kind.to_lowercase(), parent, json!([{}]));
    let spoken = |protocol: &'static str, routes: Vec<Value>| async move {
        let mut web = web();
        web["spec"]["ports"][0]["appProtocol"] = json!(protocol);
        match kind(ask([vec![web], routes].concat(), NAME).await) {
            Kind::Grpc(_) => "gRPC".to_owned(),
            Kind::Detect(detect) => named(&detect.http1.unwrap().routes[0].metadata),
            Kind::Http1(http) => named(&http.routes[0].metadata),
            Kind::Tls(_) => "TLS".to_owned(),
            Kind::Opaque(opaque) => named(&opaque.routes[0].metadata),
            Kind::Http2(_) => "HTTP/2".to_owned(),
        }
    };
    let [grpc, http, tls, tcp] =
        ["GRPCRoute", "HTTPRoute", "TLSRoute", "TCPRoute"].map(|kind| move || of(kind, of_service()));
    assert_eq!(spoken("", vec![tcp()]).await, "TCPRoute tcproute");
    assert_eq!(spoken("", vec![tcp(), tls()]).await, "TLS");
    assert_eq!(spoken("", vec![tcp(), tls(), http()]).await, "HTTPRoute httproute");
    assert_eq!(spoken("", vec![tcp(), tls(), http(), grpc()]).await, "gRPC");
    // A port that says what is spoken has the routes for that, unless they name the same parent as those that tell more.
    let opaque = "linkerd.io/opaque";
    assert_eq!(spoken(opaque, vec![tcp()]).await, "TCPRoute tcproute");
    assert_eq!(spoken(opaque, vec![tcp(), of("TLSRoute", any_port())]).await, "TCPRoute tcproute");
    assert_eq!(spoken(opaque, vec![tcp(), tls()]).await, "opaq");
    assert_eq!(spoken("http", vec![http(), of("GRPCRoute", any_port())]).await, "HTTPRoute httproute");
    assert_eq!(spoken("http", vec![http(), grpc()]).await, "http");
    // One that cannot be told is as if it were not there.
    let unusable = route("TLSRoute", "two", of_service(), json!([{}, {}]));
    assert_eq!(spoken(opaque, vec![tcp(), unusable]).await, "TCPRoute tcproute");
}

#[tokio::test]
async fn a_route_of_connections_has_one_rule_and_backends_with_a_weight() {
    for kind in ["TLSRoute", "TCPRoute"] {
        for rules in [json!([]), json!([{}, {}])] {
            let policy = ask(vec![web(), route(kind, "r", of_service(), rules)], NAME).await;
            assert!(matches!(self::kind(policy), Kind::Detect(_)), "{kind}");
        }
    }
    let weightless = to(json!([{"name": "web", "port": 80, "weight": 0}]));
    let routes = opaque(vec![web(), route("TCPRoute", "r", of_service(), weightless.clone())], NAME).await;
    assert!(matches!(routes[0].rules[0].filters[0].kind, Some(opaque_route::filter::Kind::Invalid(_))));
    let routes = tls(vec![web(), route("TLSRoute", "r", of_service(), weightless)], NAME).await;
    assert!(matches!(routes[0].rules[0].filters[0].kind, Some(tls_route::filter::Kind::Invalid(_))));
}
