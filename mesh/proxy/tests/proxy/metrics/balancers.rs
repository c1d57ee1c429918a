//! The endpoints of a backend, and the requests that wait for one.

use linkerd2_proxy_api::outbound::{
    ExponentialBackoff, FailureAccrual,
    failure_accrual::{ConsecutiveFailures, Kind},
    proxy_protocol,
};
use tokio::net::TcpListener;

use super::{Scrape, WEB, cluster_ip, service};
use crate::support::{App, Setup, policy, profile, text};

/// The labels of the balancer of `backend`, as the Service `web` uses it.
fn labels(backend: &str) -> String {
    format!("{},{}", service("parent", "web"), service("backend", backend))
}

fn endpoints(scrape: &Scrape) -> [f64; 3] {
    let of = |state: &str| format!("outbound_http_balancer_endpoints{{endpoint_state=\"{state}\",{}}}", labels("web"));
    let all = format!("outbound_http_balancer_p2c_endpoints{{{}}}", labels("web"));
    [scrape.value(&of("ready")), scrape.value(&of("pending")), scrape.value(&all)]
}

#[tokio::test]
async fn endpoints_are_counted_by_state_and_changes_by_kind() {
    let (one, two) = (App::named("one").await, App::named("two").await);
    let name = format!("{WEB}:80");
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[one.address]);
    let mut connection = mesh.connect(1).await;
    assert_eq!(connection.get("/", &[]).await.status, 200);
    assert_eq!(endpoints(&Scrape::of(&mesh).await), [1.0, 0.0, 1.0]);
    let updates = |op: &str| format!("outbound_http_balancer_p2c_updates_total{{op=\"{op}\",{}}}", labels("web"));

    mesh.control.set_endpoints(&name, &[one.address, two.address]);
    let scrape = Scrape::once(&mesh, &updates("Add"), 1.0).await;
    assert_eq!(endpoints(&scrape), [2.0, 0.0, 2.0]);
    mesh.control.set_endpoints(&name, &[two.address]);
    let scrape = Scrape::once(&mesh, &updates("Remove"), 1.0).await;
    assert_eq!(endpoints(&scrape), [1.0, 0.0, 1.0]);
    // The first answer, and that there is nobody any more.
    assert_eq!(scrape.value(&updates("Reset")), 1.0);
    mesh.control.set_endpoints(&name, &[]);
    let scrape = Scrape::once(&mesh, &updates("Reset"), 2.0).await;
    assert_eq!(endpoints(&scrape), [0.0; 3]);
}

#[tokio::test]
async fn who_is_set_aside_is_pending() {
    let failing = App::http(|_| async { text(500, "") }).await;
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[failing.address]);
    let mut policy = policy("web", &[(&format!("{WEB}:80"), 1)]);
    if let Some(proxy_protocol::Kind::Detect(detect)) = &mut policy.protocol.as_mut().unwrap().kind {
        let hour = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
        let backoff = Some(ExponentialBackoff { min_backoff: hour, max_backoff: hour, ..Default::default() });
        let kind = Some(Kind::ConsecutiveFailures(ConsecutiveFailures { max_failures: 2, backoff }));
        detect.http1.as_mut().unwrap().failure_accrual = Some(FailureAccrual { kind, ..Default::default() });
    }
    mesh.control.set_policy(&cluster_ip().to_string(), policy);
    let mut connection = mesh.connect(1).await;
    assert_eq!(connection.get("/", &[]).await.status, 500);
    assert_eq!(endpoints(&Scrape::of(&mesh).await), [1.0, 0.0, 1.0]);
    assert_eq!(connection.get("/", &[]).await.status, 500);
    assert_eq!(endpoints(&Scrape::of(&mesh).await), [0.0, 1.0, 1.0]);
}

#[tokio::test]
async fn requests_that_wait_are_counted_and_so_is_when_others_do_not() {
    let setup = Setup::new().with("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "100ms");
    let mesh = setup.original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[]);
    let queue = |name: &str| format!("outbound_http_balancer_queue_{name}{{{}}}", labels("web"));
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.status, 504);
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.status, 503);

    let scrape = Scrape::of(&mesh).await;
    let values = |scrape: &Scrape| {
        ["requests_total", "length", "gate_open_total", "gate_shut_total"].map(|name| scrape.value(&queue(name)))
    };
    assert_eq!(values(&scrape), [1.0, 0.0, 1.0, 1.0], "the other one has not even begun to wait");
    assert_eq!(scrape.value(&queue("gate_timeout_seconds")), 0.1);
    assert_eq!(scrape.value(&queue("gate_open_time_seconds")), 0.0);
    let started = scrape.value("process_start_time_seconds");
    assert!(scrape.value(&queue("gate_shut_time_seconds")) >= started);
    let bounds = scrape.bounds("outbound_http_balancer_queue_latency_seconds", &labels("web"), 1.0);
    assert_eq!(bounds, ["0.0005", "0.005", "0.05", "0.5", "1.0", "3.0", "+Inf"]);
    assert!(scrape.value(&queue("latency_seconds_sum")) >= 0.1);

    let app = App::named("web").await;
    mesh.control.set_endpoints(&format!("{WEB}:80"), &[app.address]);
    let scrape = Scrape::once(&mesh, &queue("gate_open_total"), 2.0).await;
    assert_eq!(scrape.value(&queue("gate_shut_time_seconds")), 0.0);
    assert!(scrape.value(&queue("gate_open_time_seconds")) >= started);
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.status, 200);
    assert_eq!(values(&Scrape::of(&mesh).await), [2.0, 0.0, 2.0, 1.0]);
}

#[tokio::test]
async fn a_request_that_waits_is_in_the_queue() {
    let mesh = Setup::new()
        .with("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "1h")
        .original(1, cluster_ip())
        .start()
        .await;
    mesh.control.service("web", cluster_ip(), &[]);
    let length = format!("outbound_http_balancer_queue_length{{{}}}", labels("web"));
    let mut waits = mesh.connect(1).await;
    waits.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
    Scrape::once(&mesh, &length, 1.0).await;
    let app = App::named("web").await;
    mesh.control.set_endpoints(&format!("{WEB}:80"), &[app.address]);
    assert_eq!(waits.reply().await.status, 200);
    assert_eq!(Scrape::of(&mesh).await.value(&length), 0.0);
    // One that is given up waits no longer either.
    mesh.control.set_endpoints(&format!("{WEB}:80"), &[]);
    mesh.wait_for_sum(&["outbound_http_balancer_p2c_endpoints"], 0).await;
    let mut waits = mesh.connect(1).await;
    waits.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
    Scrape::once(&mesh, &length, 1.0).await;
    drop(waits);
    Scrape::once(&mesh, &length, 0.0).await;
}

#[tokio::test]
async fn without_a_policy_the_names_say_which_service_it_is() {
    let (v1, v2) = (App::named("v1").await, App::named("v2").await);
    let mesh = Setup::ingress().original(1, cluster_ip()).start().await;
    let mut split = profile(WEB);
    split.dst_overrides =
        ["v1", "v2"].map(|leg| crate::support::leg(&format!("{leg}.ns.svc.cluster.local:80"), 1)).into();
    mesh.control.set_profile(&format!("{WEB}:80"), Ok(split));
    for (name, app) in [("v1", &v1), ("v2", &v2)] {
        mesh.control.set_endpoints(&format!("{name}.ns.svc.cluster.local:80"), &[app.address]);
    }
    assert_eq!(mesh.connect(1).await.get("/", &[("l5d-dst-override", WEB)]).await.status, 200);
    for name in ["v1", "v2"] {
        Scrape::once(&mesh, &format!("outbound_http_balancer_p2c_endpoints{{{}}}", labels(name)), 1.0).await;
    }
}

#[tokio::test]
async fn connections_that_nobody_takes_are_no_requests() {
    let nobody = TcpListener::bind("127.0.2.1:0").await.unwrap().local_addr().unwrap();
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[nobody]);
    let mut connection = mesh.connect(1).await;
    connection.send("not HTTP\r\n\r\n").await;
    assert_eq!(connection.read_to_end().await, b"");
    let requests = format!("outbound_http_balancer_queue_requests_total{{{}}}", labels("web"));
    assert_eq!(Scrape::of(&mesh).await.value(&requests), 0.0);
    // The control: a request that nobody takes has asked for an endpoint.
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.status, 502);
    assert_eq!(Scrape::of(&mesh).await.value(&requests), 1.0);
}
