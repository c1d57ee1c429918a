//! TLS that the policy has routes for: it is passed on as it is, by the name that its client asks for.

use std::net::SocketAddr;

use linkerd2_proxy_api::{
    meta::{Metadata, metadata},
    opaque_route::{Forbidden, Invalid},
    outbound::{
        Backend, OutboundPolicy, ProxyProtocol, TlsRoute, opaque_route,
        proxy_protocol::{self, Tls},
        tls_route::{Distribution, Filter, RouteBackend, Rule, distribution, filter::Kind},
    },
    tls_route::{SniMatch, sni_match::Match},
};

use super::{Scrape, cluster_ip, connections::echo, service};
use crate::{
    identity::client_hello,
    support::{Connection, Mesh, Setup, policy, profile},
};

const ONE: &str = "one.example.com";
const TWO: &str = "two.example.com";

/// The balancer of a `name:port`.
fn backend(path: &str) -> Backend {
    let Some(proxy_protocol::Kind::Detect(detect)) = policy("web", &[(path, 1)]).protocol.unwrap().kind else {
        panic!()
    };
    let distribution = detect.opaque.unwrap().routes.remove(0).rules.remove(0).backends.unwrap();
    let Some(opaque_route::distribution::Kind::RandomAvailable(mut random)) = distribution.kind else { panic!() };
    random.backends.remove(0).backend.unwrap().backend.unwrap()
}

/// A route for TLS to `sni`, to the Service `name`.
fn tls_route(name: &str, sni: &str) -> TlsRoute {
    let backend = Some(backend(&format!("{name}.ns.svc.cluster.local:80")));
    let first = distribution::FirstAvailable { backends: vec![RouteBackend { backend, ..Default::default() }] };
    let backends = Some(Distribution { kind: Some(distribution::Kind::FirstAvailable(first)) });
    TlsRoute {
        metadata: Some(Metadata { kind: Some(metadata::Kind::Default(name.to_owned())) }),
        snis: vec![SniMatch { r#match: Some(Match::Exact(sni.to_owned())) }],
        rules: vec![Rule { backends, filters: Vec::new() }],
    }
}

/// The policy of the Service `web`, at which TLS is spoken.
fn tls_policy(routes: Vec<TlsRoute>) -> OutboundPolicy {
    let kind = Some(proxy_protocol::Kind::Tls(Tls { routes }));
    OutboundPolicy { protocol: Some(ProxyProtocol { kind }), ..policy("web", &[]) }
}

/// A mesh in which the connections of the first client are for that Service.
async fn mesh(setup: Setup, routes: Vec<TlsRoute>, endpoints: &[(&str, SocketAddr)]) -> Mesh {
    let mesh = setup.original(1, cluster_ip()).start().await;
    mesh.control.set_profile(&cluster_ip().to_string(), Ok(profile("web.ns.svc.cluster.local")));
    mesh.control.set_policy(&cluster_ip().to_string(), tls_policy(routes));
    for (name, address) in endpoints {
        mesh.control.set_endpoints(&format!("{name}.ns.svc.cluster.local:80"), &[*address]);
    }
    mesh
}

/// A connection on which the first bytes of a TLS client have come back.
async fn carried(mesh: &Mesh, sni: &str) -> Connection {
    let hello = client_hello(sni);
    let mut connection = mesh.connect(1).await;
    connection.send(&hello[..]).await;
    assert_eq!(connection.read(hello.len()).await, hello);
    connection
}

/// A connection that is closed without an answer.
async fn closed(mesh: &Mesh, bytes: &[u8]) {
    let mut connection = mesh.connect(1).await;
    connection.send(bytes).await;
    assert_eq!(connection.read_to_end().await, b"");
}

fn route(name: &str, hostname: &str) -> String {
    let route = format!("route_group=\"\",route_kind=\"default\",route_namespace=\"\",route_name=\"{name}\"");
    format!("{},{route},hostname=\"{hostname}\"", service("parent", "web"))
}

fn open(labels: &str) -> String {
    format!("outbound_tls_route_open_total{{{labels}}}")
}

fn close(labels: &str, error: &str) -> String {
    format!("outbound_tls_route_close_total{{{labels},error=\"{error}\"}}")
}

#[tokio::test]
async fn tls_goes_by_the_name_that_is_asked_for() {
    let (one, two) = (echo().await, echo().await);
    for (setup, known) in [(Setup::new(), true), (Setup::ingress(), false)] {
        let before = (one.requests(), two.requests());
        let routes = vec![tls_route("one", ONE), tls_route("two", TWO)];
        let mesh = mesh(setup, routes, &[("one", one.address), ("two", two.address)]).await;
        let first = carried(&mesh, ONE).await;
        drop((carried(&mesh, TWO).await, carried(&mesh, TWO).await));
        assert_eq!((one.requests() - before.0, two.requests() - before.1), (1, 2));
        let scrape = Scrape::once(&mesh, &close(&route("two", ""), ""), 2.0).await;
        assert_eq!((scrape.value(&open(&route("two", ""))), scrape.value(&open(&route("one", "")))), (2.0, 1.0));
        assert_eq!(scrape.value(&close(&route("one", ""), "")), 0.0);
        drop(first);
        Scrape::once(&mesh, &close(&route("one", ""), ""), 1.0).await;

        let balancer = "concrete=\"two.ns.svc.cluster.local:80\"";
        let of = |name: &str| scrape.value(&format!("outbound_tls_balancer_{name}{{{balancer}}}"));
        assert_eq!((of("p2c_endpoints"), of("queue_requests_total")), (1.0, 2.0));
        for other in ["outbound_tcp_route_open_total", "outbound_tcp_balancer_p2c_endpoints"] {
            assert_eq!(scrape.series(other), Vec::<&str>::new());
        }
        let protocol = "outbound_tcp_protocol_connections_total";
        let tls = format!("{protocol}{{protocol=\"tls\",{}}}", service("parent", "web"));
        assert_eq!(scrape.find(&tls), known.then_some(3.0));
        // Where the policy says that nothing is known, TLS is what any bytes are.
        let detect = policy("web", &[("one.ns.svc.cluster.local:80", 1)]);
        mesh.control.set_policy(&cluster_ip().to_string(), detect);
        mesh.wait_for_sum(&["outbound_tls_balancer_p2c_endpoints"], 0).await;
        drop(carried(&mesh, TWO).await);
        mesh.wait_for_sum(&["outbound_tcp_route_open_total"], 1).await;
        assert_eq!(mesh.sum(&["outbound_tls_route_open_total"]).await, 3);
    }
}

#[tokio::test]
async fn names_are_labels_where_that_is_wanted() {
    let one = echo().await;
    let setup = Setup::new().with("LINKERD2_PROXY_OUTBOUND_METRICS_HOSTNAME_LABELS", "true");
    let mesh = mesh(setup, vec![tls_route("one", ONE)], &[("one", one.address)]).await;
    drop(carried(&mesh, "ONE.example.com").await);
    let scrape = Scrape::once(&mesh, &close(&route("one", ONE), ""), 1.0).await;
    assert_eq!(scrape.series("outbound_tls_route_open_total").len(), 1);
}

#[tokio::test]
async fn who_asks_for_nobody_known_gets_nowhere() {
    let one = echo().await;
    let setup = Setup::new().with("LINKERD2_PROXY_OUTBOUND_DETECT_TIMEOUT", "1s");
    let mesh = mesh(setup, vec![tls_route("one", ONE)], &[("one", one.address)]).await;
    let mut count = 0;
    for bytes in
        [&client_hello(TWO)[..], b"GET / HTTP/1.1\r\nhost: one.example.com\r\n\r\n", &client_hello(ONE)[..20], b""]
    {
        closed(&mesh, bytes).await;
        count += 1;
        mesh.wait_for_sum(&["outbound_tcp_errors_total", "error=\"unexpected\""], count).await;
    }
    assert_eq!(Scrape::of(&mesh).await.series("outbound_tls_route_open_total"), Vec::<&str>::new());
    assert_eq!(one.requests(), 0);
    // The control.
    drop(carried(&mesh, ONE).await);
    assert_eq!(one.requests(), 1);
}

#[tokio::test]
async fn a_route_of_tls_says_why_it_refuses_connections() {
    let one = echo().await;
    let invalid = || Kind::Invalid(Invalid { message: "no such thing".to_owned() });
    for (kind, of_backend, error, told) in [
        (Kind::Forbidden(Forbidden {}), false, "forbidden", "forbidden TLS route"),
        (invalid(), false, "invalid_backend", "unexpected"),
        (invalid(), true, "invalid_backend", "unexpected"),
    ] {
        let mut refused = tls_route("one", ONE);
        let rule = &mut refused.rules[0];
        let filters = match &mut rule.backends.as_mut().unwrap().kind {
            Some(distribution::Kind::FirstAvailable(first)) if of_backend => &mut first.backends[0].filters,
            _ => &mut rule.filters,
        };
        filters.push(Filter { kind: Some(kind) });
        let mesh = mesh(Setup::new(), vec![refused], &[("one", one.address)]).await;
        closed(&mesh, &client_hello(ONE)).await;
        let scrape = Scrape::once(&mesh, &close(&route("one", ""), error), 1.0).await;
        assert_eq!(scrape.value(&open(&route("one", ""))), 1.0);
        assert_eq!(mesh.sum(&["outbound_tcp_errors_total", &format!("error=\"{told}\"")]).await, 1);
    }
    assert_eq!(one.requests(), 0);
}
