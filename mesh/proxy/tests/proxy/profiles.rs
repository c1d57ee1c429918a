//! ServiceProfiles: routes, their metrics, timeouts, retries, and splits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::BodyExt;
use linkerd2_proxy_api::destination::{
    DestinationProfile, HttpStatusRange, ResponseClass, ResponseMatch, RetryBudget, Route, response_match,
};

use crate::support::{App, Mesh, Setup, leg, profile, route, served_by, text};

const WEB: &str = "web.ns.svc.cluster.local";
const OK: &str = "status_code=\"200\",classification=\"success\",grpc_status=\"\",error=\"\"";

fn cluster_ip() -> std::net::SocketAddr {
    ([10, 96, 0, 1], 80).into()
}

fn with_routes(routes: Vec<Route>) -> DestinationProfile {
    DestinationProfile { routes, ..profile(WEB) }
}

/// A mesh in which the connections of the first client are for a Service with this profile.
async fn mesh(profile: DestinationProfile, app: &App) -> Mesh {
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address]);
    mesh.control.set_profile(&cluster_ip().to_string(), Ok(profile));
    mesh
}

fn series(name: &str, route: Option<&str>, rest: &str) -> String {
    let route = route.map(|route| format!(",rt_route=\"{route}\"")).unwrap_or_default();
    let rest = if rest.is_empty() { String::new() } else { format!(",{rest}") };
    format!("{name}{{direction=\"outbound\",dst=\"{WEB}:80\"{route}{rest}}}")
}

#[tokio::test]
async fn requests_are_counted_by_route() {
    let app = App::named("web").await;
    let mesh = mesh(with_routes(vec![route("GET /a", "/a"), route("votes", "/vote/[^/]*")]), &app).await;
    let mut connection = mesh.connect(1).await;
    for (path, times) in [("/a?x=y", 10), ("/vote/1", 3), ("/vote/2", 4), ("/other", 2)] {
        for _ in 0..times {
            let reply = connection.get(path, &[("l5d-dst-canonical", "spoofed")]).await;
            assert!(reply.body.contains(&format!("l5d-dst-canonical: {WEB}:80\n")), "{}", reply.body);
        }
    }
    for (route, count) in [(Some("GET /a"), 10), (Some("votes"), 7), (None, 2)] {
        for name in ["route_request_total", "route_actual_request_total"] {
            assert_eq!(mesh.metric(&series(name, route, "")).await, Some(count), "{name} {route:?}");
        }
        for name in ["route_response_total", "route_actual_response_total"] {
            assert_eq!(mesh.metric(&series(name, route, OK)).await, Some(count), "{name} {route:?}");
        }
        let latency = series("route_response_latency_ms_count", route, "status_code=\"200\"");
        assert_eq!(mesh.metric(&latency).await, Some(count));
        assert_eq!(mesh.metric(&series("route_retryable_total", route, "")).await, Some(0));
    }
    assert_eq!(mesh.sum(&["request_total{direction=\"outbound\",authority=\"web.ns.svc.cluster.local\","]).await, 19);
    // A ServiceProfile's requests are not counted under the policy's routes.
    assert_eq!(mesh.sum(&["outbound_http_route_"]).await, 0);
}

#[tokio::test]
async fn classes_and_timeouts_decide_what_is_a_failure() {
    let app = App::http(|request| async move {
        match request.uri().path() {
            "/teapot" => text(418, ""),
            _ => std::future::pending().await,
        }
    })
    .await;
    let teapot = ResponseClass {
        condition: Some(ResponseMatch {
            r#match: Some(response_match::Match::Status(HttpStatusRange { min: 418, max: 418 })),
        }),
        is_failure: true,
    };
    let timeout = prost_types::Duration { seconds: 0, nanos: 50_000_000 };
    let mesh = mesh(
        with_routes(vec![
            Route { response_classes: vec![teapot], ..route("teapot", "/teapot") },
            Route { timeout: Some(timeout), ..route("slow", "/slow") },
        ]),
        &app,
    )
    .await;
    assert_eq!(mesh.connect(1).await.get("/teapot", &[]).await.status, 418);
    let reply = mesh.connect(1).await.get("/slow", &[]).await;
    assert_eq!(reply.status, 504);
    assert_eq!(reply.header("connection"), Some("close"));
    let error = format!("logical service {WEB}:80: HTTP response timeout after 50ms");
    assert_eq!(reply.header("l5d-proxy-error"), Some(&*error));

    let failure = "classification=\"failure\",grpc_status=\"\"";
    let teapot = series("route_response_total", Some("teapot"), &format!("status_code=\"418\",{failure},error=\"\""));
    assert_eq!(mesh.metric(&teapot).await, Some(1));
    let slow = series("route_response_total", Some("slow"), &format!("{failure},error=\"timeout\""));
    assert_eq!(mesh.metric(&slow).await, Some(1));
    assert_eq!(mesh.metric("outbound_http_errors_total{error=\"response timeout\"}").await, Some(1));
}

#[tokio::test]
async fn failures_on_a_retryable_route_are_tried_again_with_their_body() {
    let calls = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&calls);
    let app = App::http(move |request| {
        let call = counter.fetch_add(1, Ordering::Relaxed);
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            text(if call % 2 == 0 { 503 } else { 200 }, body)
        }
    })
    .await;
    let flaky = Route { is_retryable: true, ..route("flaky", "/flaky") };
    let mesh = mesh(with_routes(vec![flaky, route("once", "/once")]), &app).await;
    let mut connection = mesh.connect(1).await;
    connection.send("POST /flaky HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello").await;
    let reply = connection.reply().await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (200, "hello"));
    assert_eq!(calls.load(Ordering::Relaxed), 2);

    // The control: without `isRetryable` the failure is passed on.
    assert_eq!(connection.get("/once", &[]).await.status, 503);
    assert_eq!(calls.load(Ordering::Relaxed), 3);

    let failed = "status_code=\"503\",classification=\"failure\",grpc_status=\"\",error=\"\"";
    for (name, outcome) in
        [("route_response_total", OK), ("route_actual_response_total", OK), ("route_actual_response_total", failed)]
    {
        assert_eq!(mesh.metric(&series(name, Some("flaky"), outcome)).await, Some(1), "{name} {outcome}");
    }
    assert_eq!(mesh.metric(&series("route_request_total", Some("flaky"), "")).await, Some(1));
    assert_eq!(mesh.metric(&series("route_actual_request_total", Some("flaky"), "")).await, Some(2));
    assert_eq!(mesh.metric(&series("route_retryable_total", Some("flaky"), "")).await, Some(1));
    let skipped = series("route_retryable_total", Some("flaky"), "skipped=\"no_budget\"");
    assert_eq!(mesh.metric(&skipped).await, Some(0));
    assert_eq!(mesh.sum(&["request_total{direction=\"outbound\",authority"]).await, 3);
}

#[tokio::test]
async fn when_the_budget_is_spent_a_failure_is_passed_on() {
    // As many seconds as retries: a machine that is slower than that has other troubles.
    const RETRIES: u64 = 10;
    let app = App::http(|_| async { text(503, "never") }).await;
    let ttl = Some(prost_types::Duration { seconds: RETRIES.cast_signed(), nanos: 0 });
    let budget = RetryBudget { retry_ratio: 0.0, min_retries_per_second: 1, ttl };
    let flaky = Route { is_retryable: true, ..route("flaky", "/.*") };
    let mesh = mesh(DestinationProfile { retry_budget: Some(budget), ..with_routes(vec![flaky]) }, &app).await;
    let skipped = series("route_retryable_total", Some("flaky"), "skipped=\"no_budget\"");
    let mut connection = mesh.connect(1).await;
    for requests in 1..=2 {
        let reply = connection.get("/", &[]).await;
        assert_eq!((reply.status.as_u16(), &*reply.body), (503, "never"));
        // The first request has all the retries, the second none.
        assert_eq!(app.requests() as u64, RETRIES + requests);
        assert_eq!(mesh.metric(&series("route_retryable_total", Some("flaky"), "")).await, Some(RETRIES));
        assert_eq!(mesh.metric(&skipped).await, Some(requests));
        assert_eq!(mesh.metric(&series("route_request_total", Some("flaky"), "")).await, Some(requests));
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_sent_once() {
    let app = App::http(|request| async move {
        let length = request.into_body().collect().await.unwrap().to_bytes().len();
        text(503, length.to_string())
    })
    .await;
    let mesh = mesh(with_routes(vec![Route { is_retryable: true, ..route("all", "/.*") }]), &app).await;
    let mut connection = mesh.connect(1).await;
    let body = "x".repeat(100_000);
    connection.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    assert_eq!(connection.reply().await.body, "100000");
    assert_eq!(app.requests(), 1);
    // The same in chunks, whose sum is not known beforehand.
    connection.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    for _ in 0..10 {
        connection.send(format!("2710\r\n{}\r\n", "x".repeat(10_000))).await;
    }
    connection.send("0\r\n\r\n").await;
    assert_eq!(connection.reply().await.body, "100000");
    assert_eq!(app.requests(), 2);
}

#[tokio::test]
async fn a_split_is_by_weight_and_per_request() {
    const REQUESTS: usize = 2000;
    let (v1, v2) = (App::named("v1").await, App::named("v2").await);
    let mesh = Setup::ingress().original(1, cluster_ip()).start().await;
    let legs = [("v1", 800, v1.address), ("v2", 200, v2.address)];
    let mut apex = with_routes(vec![route("all", "/.*")]);
    for (name, weight, address) in legs {
        let authority = format!("{name}.ns.svc.cluster.local:80");
        mesh.control.set_endpoints(&authority, &[address]);
        apex.dst_overrides.push(leg(&authority, weight));
    }
    mesh.control.set_profile(&format!("{WEB}:80"), Ok(apex.clone()));

    let mut connection = mesh.connect(1).await;
    for _ in 0..REQUESTS {
        assert_eq!(connection.get("/", &[("l5d-dst-override", WEB)]).await.status, 200);
    }
    // 17.9 is one standard deviation; six of them are exceeded once in 500 million runs.
    assert!(v2.requests().abs_diff(400) < 108, "{} of {REQUESTS} went to the leg of 20 %", v2.requests());
    assert_eq!(v1.requests() + v2.requests(), REQUESTS);
    assert_eq!(mesh.metric(&series("route_response_total", Some("all"), OK)).await, Some(REQUESTS as u64));
    let leg = "request_total{direction=\"outbound\",authority=\"v2.ns.svc.cluster.local\"";
    assert_eq!(mesh.sum(&[leg]).await as usize, v2.requests());
    let calls = mesh.control.calls();
    assert!(!calls.contains(&format!("Get {WEB}:80")), "the apex has no endpoints of its own: {calls:?}");

    // A leg that loses its endpoints loses its share, and no request is lost over it.
    let endpoints = ["outbound_http_balancer_endpoints", "backend_namespace=\"ns\",backend_name=\"v2\""];
    mesh.wait_for_sum(&endpoints, 1).await;
    mesh.control.set_endpoints("v2.ns.svc.cluster.local:80", &[]);
    mesh.wait_for_sum(&endpoints, 0).await;
    for _ in 0..100 {
        assert_eq!(served_by(&connection.get("/", &[("l5d-dst-override", WEB)]).await.body), "v1");
    }

    // New weights are for the next request, on the same connection.
    mesh.control.set_endpoints("v2.ns.svc.cluster.local:80", &[v2.address]);
    apex.dst_overrides.remove(0);
    mesh.control.set_profile(&format!("{WEB}:80"), Ok(apex));
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let mut in_a_row = 0;
    while in_a_row < 50 {
        let reply = connection.get("/", &[("l5d-dst-override", WEB)]).await;
        in_a_row = if served_by(&reply.body) == "v2" { in_a_row + 1 } else { 0 };
        assert!(std::time::Instant::now() < deadline);
    }
}
