//! Connections that are not HTTP: the routes that carry them, and the balancers that they ask for an endpoint.

use std::{net::SocketAddr, time::Duration};

use linkerd2_proxy_api::{
    opaque_route::{Forbidden, Invalid},
    outbound::{
        OutboundPolicy,
        opaque_route::{Filter, distribution, filter::Kind},
        proxy_protocol,
    },
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{Scrape, WEB, cluster_ip, service};
use crate::support::{App, Connection, Mesh, Setup, endpoint, leg, policy, profile};

pub(super) async fn echo() -> App {
    App::tcp(|mut stream| async move {
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            if stream.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// An address that refuses connections.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.2.1:0").await.unwrap().local_addr().unwrap()
}

/// A connection on which something has come back.
async fn carried(mesh: &Mesh, client: u8) -> Connection {
    let mut connection = mesh.connect(client).await;
    connection.send("not HTTP\r\n\r\n").await;
    assert_eq!(connection.read(12).await, b"not HTTP\r\n\r\n");
    connection
}

/// A connection that is closed without an answer.
async fn closed(mesh: &Mesh, client: u8) {
    let mut connection = mesh.connect(client).await;
    connection.send("not HTTP\r\n\r\n").await;
    assert_eq!(connection.read_to_end().await, b"");
}

/// Labels of what no object stands for.
fn default(prefix: &str, name: &str) -> String {
    format!("{prefix}_group=\"\",{prefix}_kind=\"default\",{prefix}_namespace=\"\",{prefix}_name=\"{name}\"")
}

/// The labels of a route of the Service `web`, by the address.
fn route(name: &str) -> String {
    format!("{},{},target_ip=\"10.96.0.1\",target_port=\"80\"", service("parent", "web"), default("route", name))
}

fn open(labels: &str) -> String {
    format!("outbound_tcp_route_open_total{{{labels}}}")
}

fn close(labels: &str, error: &str) -> String {
    format!("outbound_tcp_route_close_total{{{labels},error=\"{error}\"}}")
}

#[tokio::test]
async fn connections_are_counted_by_the_route_that_carries_them() {
    let app = echo().await;
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address]);
    let labels = route("opaq");
    let first = carried(&mesh, 1).await;
    let scrape = Scrape::of(&mesh).await;
    assert_eq!((scrape.value(&open(&labels)), scrape.value(&close(&labels, ""))), (1.0, 0.0));
    drop(first);
    let scrape = Scrape::once(&mesh, &close(&labels, ""), 1.0).await;
    assert_eq!(scrape.value(&close(&labels, "unexpected")), 0.0);

    let second = carried(&mesh, 1).await;
    SockRef::from(&second.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(second);
    let scrape = Scrape::once(&mesh, &close(&labels, "unexpected"), 1.0).await;
    assert_eq!((scrape.value(&open(&labels)), scrape.value(&close(&labels, ""))), (2.0, 1.0));
    assert_eq!(scrape.series("outbound_tcp_route_open_total").len(), 1);
}

#[tokio::test]
async fn connections_that_nobody_takes_end_unexpectedly() {
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[nobody().await]);
    closed(&mesh, 1).await;
    let scrape = Scrape::once(&mesh, &close(&route("opaq"), "unexpected"), 1.0).await;
    assert_eq!(scrape.value(&open(&route("opaq"))), 1.0);
    assert_eq!(scrape.value(&close(&route("opaq"), "")), 0.0);
}

/// A policy whose only rule for connections, or that one's only backend, has this filter.
fn refusing(kind: Kind, backend: bool) -> OutboundPolicy {
    let mut policy = policy("web", &[(&format!("{WEB}:80"), 1)]);
    let Some(proxy_protocol::Kind::Detect(detect)) = &mut policy.protocol.as_mut().unwrap().kind else { panic!() };
    let rule = &mut detect.opaque.as_mut().unwrap().routes[0].rules[0];
    let filters = match &mut rule.backends.as_mut().unwrap().kind {
        Some(distribution::Kind::RandomAvailable(random)) if backend => {
            &mut random.backends[0].backend.as_mut().unwrap().filters
        }
        _ => &mut rule.filters,
    };
    filters.push(Filter { kind: Some(kind) });
    policy
}

#[tokio::test]
async fn a_route_says_why_it_refuses_connections() {
    let app = echo().await;
    let invalid = || Kind::Invalid(Invalid { message: "no such thing".to_owned() });
    for (kind, backend, error, told) in [
        (Kind::Forbidden(Forbidden {}), false, "forbidden", "forbidden TCP route"),
        (Kind::Forbidden(Forbidden {}), true, "forbidden", "forbidden TCP route"),
        (invalid(), false, "invalid_backend", "unexpected"),
        (invalid(), true, "invalid_backend", "unexpected"),
    ] {
        let mesh = Setup::new().original(1, cluster_ip()).start().await;
        mesh.control.service("web", cluster_ip(), &[app.address]);
        mesh.control.set_policy(&cluster_ip().to_string(), refusing(kind, backend));
        closed(&mesh, 1).await;
        let scrape = Scrape::once(&mesh, &close(&route("opaq"), error), 1.0).await;
        assert_eq!(scrape.value(&open(&route("opaq"))), 1.0);
        assert_eq!(scrape.value(&close(&route("opaq"), "unexpected")), 0.0);
        assert_eq!(mesh.sum(&["outbound_tcp_errors_total", &format!("error=\"{told}\"")]).await, 1);
    }
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn a_policy_that_says_nothing_refuses_connections() {
    let app = echo().await;
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address]);
    let nothing = OutboundPolicy { protocol: None, ..policy("web", &[]) };
    mesh.control.set_policy(&cluster_ip().to_string(), nothing);
    closed(&mesh, 1).await;
    Scrape::once(&mesh, &close(&route("invalid"), "invalid_policy"), 1.0).await;
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn without_a_policy_the_route_says_how_the_address_was_found() {
    let app = echo().await;
    let target = format!("target_ip=\"{}\",target_port=\"{}\"", app.address.ip(), app.address.port());
    for (found, name) in [(true, "endpoint"), (false, "fallback")] {
        let mesh = Setup::new().original(1, app.address).start().await;
        if found {
            mesh.control.set_profile(&app.address.to_string(), Ok(endpoint(app.address)));
        }
        drop(carried(&mesh, 1).await);
        let parent = format!("{},parent_port=\"\",parent_section_name=\"\"", default("parent", name));
        let labels = format!("{parent},{},{target}", default("route", name));
        let scrape = Scrape::once(&mesh, &close(&labels, ""), 1.0).await;
        assert_eq!(scrape.value(&open(&labels)), 1.0);
        assert_eq!(scrape.series("outbound_tcp_balancer_endpoints"), Vec::<&str>::new(), "nothing was balanced");
    }
}

#[tokio::test]
async fn in_ingress_mode_a_profile_is_enough_to_balance() {
    let app = echo().await;
    let mesh = Setup::ingress().original(1, cluster_ip()).start().await;
    mesh.control.set_profile(&cluster_ip().to_string(), Ok(profile(WEB)));
    mesh.control.set_endpoints(&format!("{WEB}:80"), &[app.address]);
    drop(carried(&mesh, 1).await);
    Scrape::once(&mesh, &close(&route("profile"), ""), 1.0).await;
}

#[tokio::test]
async fn a_split_counts_each_leg_under_its_service() {
    let app = echo().await;
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    let mut split = profile(WEB);
    split.dst_overrides = vec![leg("v1.ns.svc.cluster.local:80", 1)];
    mesh.control.set_profile(&cluster_ip().to_string(), Ok(split));
    mesh.control.set_endpoints("v1.ns.svc.cluster.local:80", &[app.address]);
    drop(carried(&mesh, 1).await);
    let parent = service("parent", "web");
    let labels = format!("{parent},{},target_ip=\"\",target_port=\"80\"", default("route", "serviceprofile"));
    let scrape = Scrape::once(&mesh, &close(&labels, ""), 1.0).await;
    let balancer =
        format!("{parent},{},logical=\"{WEB}:80\",concrete=\"v1.ns.svc.cluster.local:80\"", service("backend", "v1"));
    assert_eq!(scrape.value(&format!("outbound_tcp_balancer_queue_requests_total{{{balancer}}}")), 1.0);
}

/// The labels of the balancer of the Service `web`, by the address.
fn balancer() -> String {
    let services = format!("{},{}", service("parent", "web"), service("backend", "web"));
    format!("{services},logical=\"{}\",concrete=\"{WEB}:80\"", cluster_ip())
}

#[tokio::test]
async fn requests_have_no_series_of_connections() {
    let app = App::named("web").await;
    let mesh =
        Setup::new().with("LINKERD2_PROXY_OUTBOUND_DETECT_TIMEOUT", "50ms").original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address]);
    // One that stays silent at first: it is connected, and then not carried.
    let mut connection = mesh.connect(1).await;
    mesh.wait_for_sum(&["outbound_tcp_detect_http_results_total", "read_timeout"], 1).await;
    assert_eq!(connection.get("/", &[]).await.status, 200);
    let scrape = Scrape::of(&mesh).await;
    assert_eq!(scrape.series("outbound_tcp_route_open_total"), Vec::<&str>::new());
    assert_eq!(scrape.series("outbound_http_balancer_p2c_endpoints").len(), 1, "the control");
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address]);
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.status, 200);
    assert_eq!(Scrape::of(&mesh).await.series("outbound_tcp_balancer_p2c_endpoints"), Vec::<&str>::new());
}

#[tokio::test]
async fn a_balancer_tells_of_its_endpoints_to_connections_as_well() {
    let (one, two) = (echo().await, echo().await);
    let name = format!("{WEB}:80");
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[one.address]);
    let first = carried(&mesh, 1).await;
    let endpoints = |scrape: &Scrape| {
        let of = |state: &str| format!("outbound_tcp_balancer_endpoints{{endpoint_state=\"{state}\",{}}}", balancer());
        let all = format!("outbound_tcp_balancer_p2c_endpoints{{{}}}", balancer());
        [scrape.value(&of("ready")), scrape.value(&of("pending")), scrape.value(&all)]
    };
    let updates = |op: &str| format!("outbound_tcp_balancer_p2c_updates_total{{op=\"{op}\",{}}}", balancer());
    let scrape = Scrape::of(&mesh).await;
    assert_eq!(endpoints(&scrape), [1.0, 0.0, 1.0]);
    assert_eq!(scrape.value(&updates("Reset")), 1.0, "the first answer came before the first connection");

    mesh.control.set_endpoints(&name, &[one.address, two.address]);
    assert_eq!(endpoints(&Scrape::once(&mesh, &updates("Add"), 1.0).await), [2.0, 0.0, 2.0]);
    mesh.control.set_endpoints(&name, &[two.address]);
    assert_eq!(endpoints(&Scrape::once(&mesh, &updates("Remove"), 1.0).await), [1.0, 0.0, 1.0]);
    // The other connection is no series more.
    drop((first, carried(&mesh, 1).await));
    let requests = format!("outbound_tcp_balancer_queue_requests_total{{{}}}", balancer());
    let scrape = Scrape::of(&mesh).await;
    assert_eq!(scrape.value(&requests), 2.0);
    assert_eq!(scrape.series("outbound_tcp_balancer_queue_requests_total").len(), 1);
}

#[tokio::test]
async fn connections_that_wait_are_counted_and_so_is_when_others_do_not() {
    let setup = Setup::new().with("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "100ms");
    let mesh = setup.original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[]);
    let queue = |name: &str| format!("outbound_tcp_balancer_queue_{name}{{{}}}", balancer());
    closed(&mesh, 1).await;
    closed(&mesh, 1).await;
    let scrape = Scrape::of(&mesh).await;
    let values = ["requests_total", "length", "gate_open_total", "gate_shut_total", "gate_open_time_seconds"]
        .map(|name| scrape.value(&queue(name)));
    assert_eq!(values, [1.0, 0.0, 1.0, 1.0, 0.0], "the other one has not even begun to wait");
    assert_eq!(scrape.value(&queue("gate_timeout_seconds")), 0.1);
    assert!(scrape.value(&queue("gate_shut_time_seconds")) >= scrape.value("process_start_time_seconds"));
    let bounds = scrape.bounds("outbound_tcp_balancer_queue_latency_seconds", &balancer(), 1.0);
    assert_eq!(bounds, ["0.0005", "0.005", "0.05", "0.5", "1.0", "3.0", "+Inf"]);
    // It is one balancer, which refuses requests as well.
    assert_eq!(
        scrape.value(&format!(
            "outbound_http_balancer_queue_gate_shut_total{{{},{}}}",
            service("parent", "web"),
            service("backend", "web")
        )),
        1.0
    );

    let app = echo().await;
    mesh.control.set_endpoints(&format!("{WEB}:80"), &[app.address]);
    Scrape::once(&mesh, &queue("gate_open_total"), 2.0).await;
    drop(carried(&mesh, 1).await);
    assert_eq!(Scrape::of(&mesh).await.value(&queue("requests_total")), 2.0);
}

#[tokio::test]
async fn a_balancer_that_refuses_already_says_so() {
    let setup = Setup::new().with("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "100ms");
    let mesh = setup.original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[]);
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.status, 504);
    closed(&mesh, 1).await;
    let queue = |name: &str| format!("outbound_tcp_balancer_queue_{name}{{{}}}", balancer());
    let scrape = Scrape::of(&mesh).await;
    assert_eq!(["requests_total", "gate_shut_total"].map(|name| scrape.value(&queue(name))), [0.0, 1.0]);
}

#[tokio::test]
async fn what_only_connections_use_is_no_balancer_of_requests() {
    let app = echo().await;
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address]);
    let mut opaque = policy("web", &[(&format!("{WEB}:80"), 1)]);
    let protocol = opaque.protocol.as_mut().unwrap();
    let Some(proxy_protocol::Kind::Detect(detect)) = protocol.kind.take() else { panic!() };
    protocol.kind = detect.opaque.map(proxy_protocol::Kind::Opaque);
    mesh.control.set_policy(&cluster_ip().to_string(), opaque);
    drop(carried(&mesh, 1).await);
    let scrape = Scrape::of(&mesh).await;
    assert_eq!(scrape.value(&format!("outbound_tcp_balancer_p2c_endpoints{{{}}}", balancer())), 1.0);
    assert_eq!(scrape.series("outbound_http_balancer_p2c_endpoints"), Vec::<&str>::new());
}

/// How many connections there were, by the labels of what they are for.
fn protocol(name: &str, parent: &str) -> String {
    format!("outbound_tcp_protocol_connections_total{{protocol=\"{name}\",{parent}}}")
}

#[tokio::test]
async fn connections_are_counted_by_what_is_known_of_their_protocol() {
    let app = App::named("web").await;
    let known = policy("web", &[(&format!("{WEB}:80"), 1)]);
    let Some(proxy_protocol::Kind::Detect(detect)) = known.protocol.clone().unwrap().kind else { panic!() };
    for (kind, name) in [
        (proxy_protocol::Kind::Detect(detect.clone()), "detect"),
        (proxy_protocol::Kind::Http1(detect.http1.unwrap()), "http/1"),
        (proxy_protocol::Kind::Http2(detect.http2.unwrap()), "http/2"),
        (proxy_protocol::Kind::Opaque(detect.opaque.unwrap()), "opaq"),
    ] {
        let mesh = Setup::new().original(1, cluster_ip()).start().await;
        mesh.control.service("web", cluster_ip(), &[app.address]);
        let mut policy = known.clone();
        policy.protocol.as_mut().unwrap().kind = Some(kind);
        mesh.control.set_policy(&cluster_ip().to_string(), policy);
        let mut connection = mesh.connect(1).await;
        assert_eq!(connection.get("/", &[]).await.status, 200);
        assert_eq!(connection.get("/", &[]).await.status, 200);
        let scrape = Scrape::of(&mesh).await;
        assert_eq!(scrape.value(&protocol(name, &service("parent", "web"))), 1.0);
        assert_eq!(scrape.series("outbound_tcp_protocol_connections_total").len(), 1);
    }
}

#[tokio::test]
async fn an_opaque_profile_says_what_is_known_as_well() {
    let (app, other) = (echo().await, echo().await);
    let mesh = Setup::new().original(1, app.address).original(2, other.address).start().await;
    let mut opaque = endpoint(app.address);
    opaque.opaque_protocol = true;
    mesh.control.set_profile(&app.address.to_string(), Ok(opaque));
    drop(carried(&mesh, 1).await);
    drop(carried(&mesh, 2).await);
    let scrape = Scrape::of(&mesh).await;
    let parent = |name| format!("{},parent_port=\"\",parent_section_name=\"\"", default("parent", name));
    assert_eq!(scrape.value(&protocol("opaq", &parent("endpoint"))), 1.0);
    assert_eq!(scrape.value(&protocol("detect", &parent("fallback"))), 1.0);
}

#[tokio::test]
async fn detection_is_counted_by_what_connections_are_for() {
    let app = App::named("web").await;
    let ingress = format!("{},parent_port=\"\",parent_section_name=\"\"", default("parent", "ingress"));
    for (setup, parent) in [(Setup::new(), service("parent", "web")), (Setup::ingress(), ingress)] {
        let mesh = setup.original(1, cluster_ip()).start().await;
        mesh.control.service("web", cluster_ip(), &[app.address]);
        assert_eq!(mesh.connect(1).await.get("/", &[]).await.status, 200);
        let results = |result: &str| format!("outbound_tcp_detect_http_results_total{{result=\"{result}\",{parent}}}");
        let scrape = Scrape::of(&mesh).await;
        assert_eq!(scrape.value(&results("http/1")), 1.0);
        let bounds = scrape.bounds("outbound_tcp_detect_http_duration_seconds", &parent, 1.0);
        assert_eq!(bounds, ["0.001", "0.1", "+Inf"]);

        // One that breaks before it is known what it speaks.
        let read = mesh.sum(&["tcp_read_bytes_total", "direction=\"outbound\",peer=\"src\""]).await;
        let mut broken = mesh.connect(1).await;
        broken.send("GE").await;
        mesh.wait_for_sum(&["tcp_read_bytes_total", "direction=\"outbound\",peer=\"src\""], read + 2).await;
        SockRef::from(&broken.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(broken);
        Scrape::once(&mesh, &results("error"), 1.0).await;
    }
}

#[tokio::test]
async fn in_ingress_mode_nothing_is_known_of_a_protocol() {
    let app = App::named("web").await;
    let mesh = Setup::ingress().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address]);
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.status, 200);
    assert_eq!(Scrape::of(&mesh).await.series("outbound_tcp_protocol_connections_total"), Vec::<&str>::new());
}

#[tokio::test]
async fn bytes_are_counted_by_where_they_go() {
    let app = echo().await;
    for (says, locality) in
        [(Some("local"), "Local"), (Some("remote"), "Remote"), (Some("unknown"), "Unknown"), (None, "Unknown")]
    {
        let mesh = Setup::new().original(1, app.address).start().await;
        let mut profile = endpoint(app.address);
        let labels = &mut profile.endpoint.as_mut().unwrap().metric_labels;
        labels.extend(says.map(|says| ("zone_locality".to_owned(), says.to_owned())));
        mesh.control.set_profile(&app.address.to_string(), Ok(profile));
        let mut connection = carried(&mesh, 1).await;
        connection.send("more").await;
        assert_eq!(connection.read(4).await, b"more");
        let scrape = Scrape::of(&mesh).await;
        for op in ["Send", "Recv"] {
            let labels = format!("op=\"{op}\",zone_locality=\"{locality}\"");
            assert_eq!(scrape.value(&format!("outbound_tcp_transfer_cost_bytes_total{{{labels}}}")), 16.0);
        }
        assert_eq!(scrape.series("outbound_tcp_transfer_cost_bytes_total").len(), 2);
    }
}
