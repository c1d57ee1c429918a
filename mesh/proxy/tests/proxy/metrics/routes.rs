//! Requests on the routes of policies, and at their backends.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use linkerd2_proxy_api::{
    http_route::Timeouts,
    outbound::{
        OutboundPolicy,
        grpc_route::{self, distribution},
        http_route::{Retry, retry},
        proxy_protocol::{Grpc, Kind},
    },
};
use tokio::sync::Semaphore;

use super::{Scrape, WEB, cluster_ip, service};
use crate::support::{App, Mesh, Setup, client, h2, policy, text};

/// The labels of the default route of a Service's policy.
fn route(name: &str) -> String {
    let parent = service("parent", "web");
    format!("{parent},route_group=\"\",route_kind=\"default\",route_namespace=\"\",route_name=\"{name}\"")
}

/// A mesh in which the connections of the first client are for a Service with this policy.
async fn mesh(app: &App, policy: OutboundPolicy) -> Mesh {
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address]);
    mesh.control.set_policy(&cluster_ip().to_string(), policy);
    mesh
}

fn plain() -> OutboundPolicy {
    policy("web", &[(&format!("{WEB}:80"), 1)])
}

/// The rule of a policy for HTTP/1.
fn change(policy: &mut OutboundPolicy, change: impl Fn(&mut linkerd2_proxy_api::outbound::http_route::Rule)) {
    let Some(Kind::Detect(detect)) = &mut policy.protocol.as_mut().unwrap().kind else { panic!("{policy:?}") };
    change(&mut detect.http1.as_mut().unwrap().routes[0].rules[0]);
}

/// The same policy for gRPC.
fn grpc() -> OutboundPolicy {
    let mut policy = plain();
    let Some(Kind::Detect(detect)) = policy.protocol.take().unwrap().kind else { panic!("{policy:?}") };
    let http = detect.http2.unwrap().routes.remove(0);
    let backends = http.rules[0].backends.clone().unwrap().kind.unwrap();
    let linkerd2_proxy_api::outbound::http_route::distribution::Kind::RandomAvailable(random) = backends else {
        panic!("{backends:?}")
    };
    let backend =
        grpc_route::RouteBackend { backend: random.backends[0].backend.clone().unwrap().backend, ..Default::default() };
    let first = distribution::FirstAvailable { backends: vec![backend] };
    let rule = grpc_route::Rule {
        backends: Some(grpc_route::Distribution { kind: Some(distribution::Kind::FirstAvailable(first)) }),
        ..Default::default()
    };
    let metadata = Some(linkerd2_proxy_api::meta::Metadata {
        kind: Some(linkerd2_proxy_api::meta::metadata::Kind::Default("grpc".to_owned())),
    });
    let routes = vec![linkerd2_proxy_api::outbound::GrpcRoute { metadata, hosts: vec![], rules: vec![rule] }];
    policy.protocol = Some(linkerd2_proxy_api::outbound::ProxyProtocol {
        kind: Some(Kind::Grpc(Grpc { routes, failure_accrual: None })),
    });
    policy
}

#[tokio::test]
async fn requests_are_counted_by_route_and_by_backend() {
    let app = App::http(|request| async move {
        let status = if request.uri().path() == "/no" { 503 } else { 200 };
        text(status, request.into_body().collect().await.unwrap().to_bytes())
    })
    .await;
    let mesh = mesh(&app, plain()).await;
    let mut connection = mesh.connect(1).await;
    connection.send("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 1\r\n\r\nx").await;
    assert_eq!(connection.reply().await.body, "x");
    assert_eq!(connection.get("/no", &[]).await.status, 503);

    let scrape = Scrape::of(&mesh).await;
    let of_route = format!("{},hostname=\"\"", route("http"));
    let of_backend = format!("{},{}", route("http"), service("backend", "web"));
    assert_eq!(scrape.value(&format!("outbound_http_route_backend_requests_total{{{of_backend}}}")), 2.0);
    for status in ["200", "503"] {
        let end = format!("http_status=\"{status}\",error=\"\"");
        assert_eq!(scrape.value(&format!("outbound_http_route_request_statuses_total{{{of_route},{end}}}")), 1.0);
        let of_backend = format!("outbound_http_route_backend_response_statuses_total{{{of_backend},{end}}}");
        assert_eq!(scrape.value(&of_backend), 1.0);
    }
    let bounds = scrape.bounds("outbound_http_route_request_duration_seconds", &of_route, 2.0);
    assert_eq!(bounds, ["0.05", "0.5", "1.0", "10.0", "+Inf"]);
    let bounds = scrape.bounds("outbound_http_route_backend_response_duration_seconds", &of_backend, 2.0);
    assert_eq!(bounds, ["0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "10.0", "+Inf"]);
    // One of a byte each way: a response without a body has no frame.
    for (name, labels) in [
        ("outbound_http_route_request_frame_size_bytes", &of_route),
        ("outbound_http_route_backend_response_frame_size_bytes", &of_backend),
    ] {
        assert_eq!(scrape.bounds(name, labels, 1.0), ["128.0", "1024.0", "10240.0", "+Inf"]);
        assert_eq!(scrape.value(&format!("{name}_sum{{{labels}}}")), 1.0);
    }
    for name in ["outbound_grpc_route_request_statuses_total", "inbound_http_requests_total"] {
        assert_eq!(scrape.series(name), Vec::<&str>::new());
    }
}

#[tokio::test]
async fn requests_are_told_apart_by_host_where_that_is_wanted() {
    let app = App::http(|request| async move {
        let status = if request.uri().path() == "/no" { 500 } else { 200 };
        text(status, "")
    })
    .await;
    let mut policy = plain();
    change(&mut policy, |rule| {
        let conditions =
            retry::Conditions { status_ranges: vec![retry::conditions::StatusRange { start: 500, end: 599 }] };
        rule.retry =
            Some(Retry { max_retries: 1, max_request_bytes: 1, conditions: Some(conditions), ..Default::default() });
    });
    for (wanted, [web, other]) in [("true", ["web.example.com", "other.example.com"]), ("false", ["", ""])] {
        let setup = Setup::new().with("LINKERD2_PROXY_OUTBOUND_METRICS_HOSTNAME_LABELS", wanted);
        let mesh = setup.original(1, cluster_ip()).start().await;
        mesh.control.service("web", cluster_ip(), &[app.address]);
        mesh.control.set_policy(&cluster_ip().to_string(), policy.clone());
        let mut connection = mesh.connect(1).await;
        let requests =
            [("/", "Web.Example.com:8080"), ("/", "web.example.com."), ("/no", "other.example.com"), ("/", "10.1.2.3")];
        for (path, host) in requests {
            connection.send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
            connection.reply().await;
        }
        let scrape = Scrape::of(&mesh).await;
        let of = |host: &str, status: &str| {
            let labels = format!("{},hostname=\"{host}\",http_status=\"{status}\",error=\"\"", route("http"));
            scrape.value(&format!("outbound_http_route_request_statuses_total{{{labels}}}"))
        };
        let retries = |host: &str| {
            let labels = format!("{},hostname=\"{host}\"", route("http"));
            scrape.value(&format!("outbound_http_route_retry_requests_total{{{labels}}}"))
        };
        let all = wanted == "false";
        assert_eq!(
            (of(web, "200"), of(other, "500"), of("", "200")),
            if all { (3.0, 1.0, 3.0) } else { (2.0, 1.0, 1.0) }
        );
        assert_eq!(retries(other), 1.0);
        let durations = format!("{},hostname=\"{web}\"", route("http"));
        scrape.bounds("outbound_http_route_request_duration_seconds", &durations, if all { 4.0 } else { 2.0 });
        // Where they go is no matter of names.
        let backend = format!("{},{}", route("http"), service("backend", "web"));
        assert_eq!(scrape.value(&format!("outbound_http_route_backend_requests_total{{{backend}}}")), 5.0);
    }
}

#[tokio::test]
async fn a_response_takes_as_long_as_it_takes_after_its_request() {
    const UPLOAD: Duration = Duration::from_millis(200);
    let began = Arc::new(Semaphore::new(0));
    let seen = Arc::clone(&began);
    let app = App::http(move |request| {
        let seen = Arc::clone(&seen);
        async move {
            let mut body = request.into_body();
            body.frame().await.unwrap().unwrap();
            seen.add_permits(1);
            body.collect().await.unwrap();
            text(200, "")
        }
    })
    .await;
    let mesh = mesh(&app, plain()).await;
    let mut connection = mesh.connect(1).await;
    connection.send("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\na").await;
    began.acquire().await.unwrap().forget();
    tokio::time::sleep(UPLOAD).await;
    connection.send("b").await;
    assert_eq!(connection.reply().await.status, 200);

    let scrape = Scrape::of(&mesh).await;
    let sum = |name: &str, labels: &str| scrape.value(&format!("{name}_sum{{{labels}}}"));
    let of_route = format!("{},hostname=\"\"", route("http"));
    let of_backend = format!("{},{}", route("http"), service("backend", "web"));
    let request = sum("outbound_http_route_request_duration_seconds", &of_route);
    let response = sum("outbound_http_route_backend_response_duration_seconds", &of_backend);
    // Neither of them knows more than microseconds.
    assert!(request - response > UPLOAD.as_secs_f64() - 0.001, "{request} {response}");
    assert_eq!(sum("outbound_http_route_request_frame_size_bytes", &of_route), 2.0);
}

#[tokio::test]
async fn what_is_sent_again_is_the_route_s_once_and_the_backend_s_each_time() {
    let app = App::http(|request| async move {
        request.into_body().collect().await.unwrap();
        text(500, "not wanted unless it is the last")
    })
    .await;
    let mut policy = plain();
    change(&mut policy, |rule| {
        let ranges = vec![retry::conditions::StatusRange { start: 500, end: 599 }];
        let conditions = Some(retry::Conditions { status_ranges: ranges });
        rule.retry = Some(Retry { max_retries: 2, max_request_bytes: 100, conditions, ..Default::default() });
    });
    let mesh = mesh(&app, policy).await;
    let mut connection = mesh.connect(1).await;
    connection.send("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\nbody").await;
    assert_eq!((connection.reply().await.status.as_u16(), app.requests()), (500, 3));

    let scrape = Scrape::of(&mesh).await;
    let of_route = format!("{},hostname=\"\"", route("http"));
    let of_backend = format!("{},{}", route("http"), service("backend", "web"));
    let end = "http_status=\"500\",error=\"\"";
    assert_eq!(scrape.value(&format!("outbound_http_route_request_statuses_total{{{of_route},{end}}}")), 1.0);
    let of_backend = format!("outbound_http_route_backend_response_statuses_total{{{of_backend},{end}}}");
    assert_eq!(scrape.value(&of_backend), 3.0);
    assert_eq!(scrape.value(&format!("outbound_http_route_request_frame_size_bytes_sum{{{of_route}}}")), 4.0);
    assert_eq!(scrape.value(&format!("outbound_http_route_retry_requests_total{{{of_route}}}")), 2.0);
}

#[tokio::test]
async fn a_client_that_goes_away_is_counted_if_it_had_an_answer() {
    let app = App::http(|request| async move {
        if request.uri().path() == "/never" {
            std::future::pending::<()>().await;
        }
        let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"first")))]);
        Response::new(StreamBody::new(futures::StreamExt::chain(first, stream::pending())).boxed_unsync())
    })
    .await;
    let mesh = mesh(&app, plain()).await;
    let mut never = mesh.connect(1).await;
    never.send("GET /never HTTP/1.1\r\nhost: web\r\n\r\n").await;
    mesh.wait_for_sum(&["outbound_http_route_backend_requests_total"], 1).await;
    drop(never);
    let mut halfway = mesh.connect(1).await;
    halfway.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
    halfway.head().await;
    drop(halfway);

    let of_route = format!("{},hostname=\"\"", route("http"));
    let end = "http_status=\"200\",error=\"CANCEL\"";
    let series = format!("outbound_http_route_request_statuses_total{{{of_route},{end}}}");
    let scrape = Scrape::once(&mesh, &series, 1.0).await;
    // Both are gone: of the other one there is nothing to tell.
    mesh.wait_for_sum(&["tcp_open_connections{direction=\"outbound\",peer=\"src\""], 0).await;
    assert_eq!(scrape.series("outbound_http_route_request_statuses_total").len(), 1);
}

#[tokio::test]
async fn errors_have_linkerds_names() {
    let reset = App::tcp(|stream| async move {
        let mut server = ::h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = server.accept().await {
            let reason = match request.uri().path() {
                "/cancel" => ::h2::Reason::CANCEL,
                "/calm" => ::h2::Reason::ENHANCE_YOUR_CALM,
                _ => ::h2::Reason::INTERNAL_ERROR,
            };
            respond.send_reset(reason);
        }
    })
    .await;
    let mesh_ = mesh(&reset, plain()).await;
    let mut sender = h2(client(1), mesh_.proxy.addresses().outbound[0]).await;
    for path in ["cancel", "calm", "internal"] {
        let request = Request::get(format!("http://web/{path}")).body(Empty::new().boxed_unsync()).unwrap();
        sender.send_request(request).await.unwrap_err();
    }
    let ends = |scrape: &Scrape, name: &str| -> Vec<String> {
        let ends = scrape.series(name).into_iter().map(|line| line[line.find("http_status").unwrap()..].to_owned());
        ends.collect()
    };
    let scrape = Scrape::of(&mesh_).await;
    let each = ["CANCEL", "ENHANCE_YOUR_CALM", "RESET"].map(|error| format!("http_status=\"\",error=\"{error}\"}} 1"));
    assert_eq!(ends(&scrape, "outbound_http_route_request_statuses_total"), each);
    assert_eq!(ends(&scrape, "outbound_http_route_backend_response_statuses_total"), each);

    let silent = App::http(|_| std::future::pending()).await;
    let mut policy = plain();
    let soon = Some(prost_types::Duration { seconds: 0, nanos: 50_000_000 });
    change(&mut policy, |rule| rule.timeouts = Some(Timeouts { request: soon, ..Default::default() }));
    let mesh_ = mesh(&silent, policy).await;
    assert_eq!(mesh_.connect(1).await.get("/", &[]).await.status, 504);
    let scrape = Scrape::of(&mesh_).await;
    let end = ["http_status=\"\",error=\"REQUEST_TIMEOUT\"} 1"];
    assert_eq!(ends(&scrape, "outbound_http_route_request_statuses_total"), end);
}

#[tokio::test]
async fn grpc_has_families_of_its_own() {
    let app = App::http(|request| async move {
        let code = request.uri().path().trim_start_matches("/s/").to_owned();
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), code.parse().unwrap())]);
        let frames = [Ok(Frame::data(Bytes::from_static(b"x"))), Ok(Frame::trailers(trailers))];
        let response = Response::builder().header("content-type", "application/grpc");
        response.body(StreamBody::new(stream::iter(frames)).boxed_unsync()).unwrap()
    })
    .await;
    let mesh = mesh(&app, grpc()).await;
    let mut sender = h2(client(1), mesh.proxy.addresses().outbound[0]).await;
    for code in ["0", "5", "5", "99"] {
        let request = Request::post(format!("http://web/s/{code}"))
            .header("content-type", "application/grpc")
            .body(Empty::new().boxed_unsync())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }

    let of_route = format!("{},hostname=\"\"", route("grpc"));
    let of_backend = format!("{},{}", route("grpc"), service("backend", "web"));
    let requests = format!("outbound_grpc_route_backend_requests_total{{{of_backend}}}");
    let scrape = Scrape::once(&mesh, &requests, 4.0).await;
    for (status, count) in [("OK", 1.0), ("NOT_FOUND", 2.0), ("UNKNOWN", 1.0)] {
        let end = format!("grpc_status=\"{status}\",error=\"\"");
        assert_eq!(scrape.value(&format!("outbound_grpc_route_request_statuses_total{{{of_route},{end}}}")), count);
        let of_backend = format!("outbound_grpc_route_backend_response_statuses_total{{{of_backend},{end}}}");
        assert_eq!(scrape.value(&of_backend), count);
    }
    scrape.bounds("outbound_grpc_route_request_duration_seconds", &of_route, 4.0);
    scrape.bounds("outbound_grpc_route_request_frame_size_bytes", &of_route, 0.0);
    scrape.bounds("outbound_grpc_route_backend_response_duration_seconds", &of_backend, 4.0);
    scrape.bounds("outbound_grpc_route_backend_response_frame_size_bytes", &of_backend, 4.0);
    assert_eq!(scrape.series("outbound_http_route_request_statuses_total"), Vec::<&str>::new());
}
