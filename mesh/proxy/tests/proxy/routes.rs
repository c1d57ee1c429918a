//! Policies' routes: filters, retries and timeouts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use linkerd2_proxy_api::{
    http_route::{HttpFailureInjector, RequestRedirect, ResponseHeaderModifier, Timeouts},
    http_types::{Headers, headers::Header},
    outbound::{
        ExponentialBackoff, OutboundPolicy,
        http_route::{Filter, Retry, Rule, distribution, filter::Kind, retry},
        opaque_route, proxy_protocol,
    },
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{App, Mesh, Setup, client, h2, policy, served_by, text};

const WEB: &str = "web.ns.svc.cluster.local";

fn cluster_ip() -> std::net::SocketAddr {
    ([10, 96, 0, 1], 80).into()
}

/// A mesh in which the connections of the first client are for a Service whose only rule is changed like this.
pub async fn mesh(app: &App, change: impl Fn(&mut Rule)) -> Mesh {
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address]);
    let mut policy = policy("web", &[(&format!("{WEB}:80"), 1)]);
    each_rule(&mut policy, change);
    mesh.control.set_policy(&cluster_ip().to_string(), policy);
    mesh
}

/// Changes the only rule of a policy, for either version of HTTP.
fn each_rule(policy: &mut OutboundPolicy, change: impl Fn(&mut Rule)) {
    let detect = detect(policy);
    let (http1, http2) = (detect.http1.as_mut().unwrap(), detect.http2.as_mut().unwrap());
    [http1.routes.first_mut(), http2.routes.first_mut()]
        .into_iter()
        .flatten()
        .for_each(|route| change(&mut route.rules[0]));
}

fn detect(policy: &mut OutboundPolicy) -> &mut proxy_protocol::Detect {
    match &mut policy.protocol.as_mut().unwrap().kind {
        Some(proxy_protocol::Kind::Detect(detect)) => detect,
        other => panic!("{other:?}"),
    }
}

/// How an error begins that comes up on the only route of a policy.
pub const ROUTE: &str = "logical service 10.96.0.1:80: route default.http: ";
/// How it goes on if it comes up with the backend.
pub const BACKEND: &str = "backend Service.ns.web:80: ";

fn filter(kind: Kind) -> Filter {
    Filter { kind: Some(kind) }
}

pub fn millis(millis: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: i64::from(millis / 1000), nanos: millis % 1000 * 1_000_000 })
}

pub fn retries(max_retries: u32, max_request_bytes: u32) -> Option<Retry> {
    let ranges = vec![retry::conditions::StatusRange { start: 500, end: 599 }];
    Some(Retry {
        max_retries,
        max_request_bytes,
        conditions: Some(retry::Conditions { status_ranges: ranges }),
        timeout: None,
        backoff: Some(ExponentialBackoff { min_backoff: millis(1), max_backoff: millis(2), ..Default::default() }),
    })
}

/// An application that says 500 to the first requests, and what it was sent to the others.
pub async fn failing(first: usize) -> App {
    let asked = Arc::new(AtomicUsize::new(0));
    App::http(move |request| {
        let asked = Arc::clone(&asked);
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            if asked.fetch_add(1, Ordering::Relaxed) < first { text(500, "not yet") } else { text(200, body) }
        }
    })
    .await
}

const POST: &str = "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\nbody";

#[tokio::test]
async fn failures_are_tried_again_with_their_body() {
    for (failures, limit, status, asked) in [(2, 2, 200, 3), (3, 2, 500, 3), (1, 0, 500, 1)] {
        let app = failing(failures).await;
        let mesh = mesh(&app, |rule| rule.retry = retries(limit, 1024)).await;
        let mut connection = mesh.connect(1).await;
        connection.send(POST).await;
        let reply = connection.reply().await;
        assert_eq!((reply.status.as_u16(), app.requests()), (status, asked), "{failures} {limit}");
        assert_eq!(reply.body == "body", status == 200);
        let count = |name: &'static str| {
            let mesh = &mesh;
            async move { mesh.sum(&[name]).await }
        };
        assert_eq!(count("outbound_http_route_retry_requests_total").await, asked as u64 - 1);
        assert_eq!(count("outbound_http_route_retry_successes_total").await, u64::from(status == 200));
        assert_eq!(count("outbound_http_route_retry_limit_exceeded_total").await, u64::from(status == 500));
        // The route sees one request, the backend each attempt.
        assert_eq!(count("outbound_http_route_request_statuses_total").await, 1);
        assert_eq!(count("outbound_http_route_backend_requests_total").await, asked as u64);
    }
}

#[tokio::test]
async fn a_longer_body_is_sent_once() {
    let app = failing(1).await;
    let mesh = mesh(&app, |rule| rule.retry = retries(5, 3)).await;
    let mut connection = mesh.connect(1).await;
    connection.send(POST).await;
    assert_eq!((connection.reply().await.status.as_u16(), app.requests()), (500, 1));
    assert_eq!(mesh.sum(&["outbound_http_route_retry_overflow_total"]).await, 1);
}

#[tokio::test]
async fn an_attempt_without_an_answer_is_given_up_for_the_next() {
    let app = App::silent_at_first().await;
    let retry = Retry { timeout: millis(100), ..retries(1, 1024).unwrap() };
    let mesh = mesh(&app, |rule| rule.retry = Some(retry.clone())).await;
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.body, "second");
    let timed_out = ["outbound_http_route_backend_response_statuses_total", "error=\"RESPONSE_HEADERS_TIMEOUT\""];
    assert_eq!(mesh.sum(&timed_out).await, 1);
}

#[tokio::test]
async fn all_attempts_have_one_time_together() {
    let app = App::http(|_| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        text(500, "slowly")
    })
    .await;
    let mesh = mesh(&app, |rule| {
        rule.retry = retries(1000, 1024);
        rule.timeouts = Some(Timeouts { request: millis(300), ..Default::default() });
    })
    .await;
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.status, 504);
    let asked = app.requests();
    assert!((2..=7).contains(&asked), "{asked}");
}

#[tokio::test]
async fn filters_of_routes_and_of_backends_apply() {
    let app = App::named("web").await;
    let add = |name: &str| {
        let header = Header { name: name.to_owned(), value: b"1".to_vec() };
        Kind::ResponseHeaderModifier(ResponseHeaderModifier {
            add: Some(Headers { headers: vec![header] }),
            remove: vec!["content-type".to_owned()],
            ..Default::default()
        })
    };
    let of_backend = |rule: &mut Rule, kind: Kind| {
        if let Some(distribution::Kind::RandomAvailable(random)) = &mut rule.backends.as_mut().unwrap().kind {
            random.backends[0].backend.as_mut().unwrap().filters = vec![filter(kind)];
        }
    };
    let mesh_ = mesh(&app, |rule| {
        rule.filters = vec![filter(add("x-route"))];
        of_backend(rule, add("x-backend"));
    })
    .await;
    let reply = mesh_.connect(1).await.get("/", &[]).await;
    assert_eq!(
        (served_by(&reply.body), reply.header("x-route"), reply.header("x-backend")),
        ("web", Some("1"), Some("1"))
    );

    // As the control plane says that a backend's Service does not exist.
    let missing =
        HttpFailureInjector { status: 500, message: "Service ns/gone does not exist".to_owned(), ratio: None };
    let mesh_ = mesh(&app, |rule| of_backend(rule, Kind::FailureInjector(missing.clone()))).await;
    let reply = mesh_.connect(1).await.get("/", &[]).await;
    assert_eq!((reply.status.as_u16(), reply.header("l5d-proxy-error")), (500, Some("Service ns/gone does not exist")));

    let away = RequestRedirect { host: "elsewhere.example".to_owned(), status: 308, ..Default::default() };
    let mesh_ = mesh(&app, |rule| rule.filters = vec![filter(Kind::Redirect(away.clone()))]).await;
    let reply = mesh_.connect(1).await.get("/a", &[]).await;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (308, Some("http://elsewhere.example/a")));
    assert_eq!(app.requests(), 1);
}

#[tokio::test]
async fn a_limit_of_a_policy_leaves_the_connection_open() {
    let app = App::http(|request| async move {
        if request.uri().path() == "/never" {
            std::future::pending::<()>().await;
        }
        text(200, "at once")
    })
    .await;
    let limits = [
        (Timeouts { request: millis(500), ..Default::default() }, "", "request timeout: 500ms"),
        (Timeouts { response: millis(500), ..Default::default() }, BACKEND, "response stream timeout: 500ms"),
    ];
    for (timeouts, backend, limit) in limits {
        let mesh = mesh(&app, |rule| rule.timeouts = Some(timeouts)).await;
        let mut connection = mesh.connect(1).await;
        let reply = connection.get("/never", &[]).await;
        assert_eq!(reply.status, 504);
        let message = format!("{ROUTE}{backend}timed out waiting for response headers: {limit}");
        assert_eq!(reply.header("l5d-proxy-error"), Some(&*message));
        assert_eq!((reply.header("connection"), reply.header("l5d-proxy-connection")), (None, None));
        assert_eq!(connection.get("/", &[]).await.body, "at once");
        assert_eq!(mesh.metric("outbound_http_errors_total{error=\"response timeout\"}").await, Some(1));
    }
}

/// An application whose answers have no end: more and more comes of `/drip`, of others nothing but the first.
async fn endless() -> App {
    App::http(|request| async move {
        let frame = || Ok(Frame::data(Bytes::from_static(b"drop")));
        let rest = if request.uri().path() == "/drip" {
            let next = move |()| async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((frame(), ()))
            };
            stream::unfold((), next).left_stream()
        } else {
            stream::pending().right_stream()
        };
        Response::new(StreamBody::new(stream::iter([frame()]).chain(rest)).boxed_unsync())
    })
    .await
}

#[tokio::test]
async fn an_answer_without_an_end_ends_by_its_limit() {
    const PATIENCE: Duration = Duration::from_secs(15);
    let app = endless().await;
    let limits = [
        ("/drip", Timeouts { response: millis(1500), ..Default::default() }, "RESPONSE_STREAM_TIMEOUT"),
        ("/drip", Timeouts { request: millis(1500), idle: millis(60_000), ..Default::default() }, "REQUEST_TIMEOUT"),
        ("/silence", Timeouts { idle: millis(200), ..Default::default() }, "IDLE_TIMEOUT"),
    ];
    for (path, timeouts, error) in limits {
        let mesh = mesh(&app, |rule| rule.timeouts = Some(timeouts)).await;
        let mut connection = mesh.connect(1).await;
        connection.send(format!("GET {path} HTTP/1.1\r\nhost: web\r\n\r\n")).await;
        assert_eq!(connection.head().await.0, 200);
        let body = tokio::time::timeout(PATIENCE, connection.read_to_end()).await.unwrap();
        let body = String::from_utf8(body).unwrap();
        assert!(body.contains("drop") && !body.ends_with("0\r\n\r\n"), "{body:?} is not broken off");

        let mut sender = h2(client(1), mesh.proxy.addresses().outbound[0]).await;
        let request = Request::get(format!("http://web{path}")).body(Empty::<Bytes>::new().boxed_unsync()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        tokio::time::timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap_err();
        assert!(!sender.is_closed(), "only the stream ends");

        let end = format!("http_status=\"200\",error=\"{error}\"}}");
        for name in
            ["outbound_http_route_request_statuses_total", "outbound_http_route_backend_response_statuses_total"]
        {
            mesh.wait_for_sum(&[name, &end], 2).await;
            assert_eq!(mesh.sum(&[name]).await, 2);
        }
        mesh.wait_for_sum(&["response_total", "classification=\"failure\",grpc_status=\"\",error=\"timeout\""], 2)
            .await;
        // The application's connection ends as well, but for that of HTTP/2.
        mesh.wait_for_sum(&["tcp_open_connections", "direction=\"outbound\"", "peer=\"dst\""], 1).await;
    }
}

#[tokio::test]
async fn an_answer_within_its_limits_is_whole() {
    let app = App::http(|_| async {
        let drops = stream::iter(0..5).then(|_| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(Frame::data(Bytes::from_static(b"drop")))
        });
        Response::new(StreamBody::new(drops).boxed_unsync())
    })
    .await;
    let minute = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let mesh = mesh(&app, |rule| {
        rule.timeouts = Some(Timeouts { request: minute, response: minute, idle: minute });
    })
    .await;
    let mut connection = mesh.connect(1).await;
    for _ in 0..2 {
        assert_eq!(connection.get("/", &[]).await.body, "drop".repeat(5));
    }
    let end = "http_status=\"200\",error=\"\"}";
    mesh.wait_for_sum(&["outbound_http_route_request_statuses_total", end], 2).await;
}

const SPARE: &str = "spare.ns.svc.cluster.local:80";

/// A mesh in which the connections of the first client are for a Service whose policy names itself first, and then a spare one. Itself
/// it has no endpoints.
async fn mesh_with_spare(spare: &App) -> Mesh {
    let setup = Setup::new().with("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "1s");
    let mesh = setup.original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[]);
    mesh.control.set_endpoints(SPARE, &[spare.address]);
    let mut policy = policy("web", &[(&format!("{WEB}:80"), 1), (SPARE, 1)]);
    each_rule(&mut policy, |rule| {
        let kind = &mut rule.backends.as_mut().unwrap().kind;
        let Some(distribution::Kind::RandomAvailable(random)) = kind.take() else { panic!("no backends") };
        let backends = random.backends.into_iter().filter_map(|weighted| weighted.backend).collect();
        *kind = Some(distribution::Kind::FirstAvailable(distribution::FirstAvailable { backends }));
    });
    let opaque = detect(&mut policy).opaque.as_mut().unwrap();
    let kind = &mut opaque.routes[0].rules[0].backends.as_mut().unwrap().kind;
    let Some(opaque_route::distribution::Kind::RandomAvailable(random)) = kind.take() else { panic!("no backends") };
    let backends = random.backends.into_iter().filter_map(|weighted| weighted.backend).collect();
    let first = opaque_route::distribution::FirstAvailable { backends };
    *kind = Some(opaque_route::distribution::Kind::FirstAvailable(first));
    mesh.control.set_policy(&cluster_ip().to_string(), policy);
    mesh
}

#[tokio::test]
async fn requests_go_to_the_first_backend_that_is_there() {
    let (web, spare) = (App::named("web").await, App::named("spare").await);
    let mesh = mesh_with_spare(&spare).await;
    let mut connection = mesh.connect(1).await;
    // The very first as well, for which nothing is known of either.
    for _ in 0..20 {
        assert_eq!(served_by(&connection.get("/", &[]).await.body), "spare");
    }
    mesh.control.set_endpoints(&format!("{WEB}:80"), &[web.address]);
    mesh.wait_for_sum(&["outbound_http_balancer_p2c_endpoints", "backend_name=\"web\""], 1).await;
    for _ in 0..20 {
        assert_eq!(served_by(&connection.get("/", &[]).await.body), "web");
    }
    assert_eq!((web.requests(), spare.requests()), (20, 20));
}

#[tokio::test]
async fn connections_go_to_the_first_backend_that_is_there() {
    let named = |name: &'static [u8]| {
        App::tcp(move |mut stream| async move {
            // All that was sent is read, so that the connection ends without a reset.
            let _ = stream.read_exact(&mut [0; 20]).await;
            let _ = stream.write_all(name).await;
        })
    };
    let (web, spare) = (named(b"web").await, named(b"spare").await);
    let mesh = mesh_with_spare(&spare).await;
    let answer = async || {
        let mut connection = mesh.connect(1).await;
        connection.send([0_u8; 20]).await;
        connection.read_to_end().await
    };
    assert_eq!(answer().await, b"spare");
    mesh.control.set_endpoints(&format!("{WEB}:80"), &[web.address]);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while answer().await != b"web" {
        assert!(std::time::Instant::now() < deadline, "the first one is not used");
    }
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_is_no_leave_to_go_past_it() {
    let app = App::named("web").await;
    let name = format!("{WEB}:80");
    let nothing = OutboundPolicy { protocol: None, ..policy("web", &[(&name, 1)]) };
    let silent = Setup::new().original(1, cluster_ip()).start().await;
    silent.control.service("web", cluster_ip(), &[app.address]);
    silent.control.set_policy(&cluster_ip().to_string(), nothing.clone());
    let reply = silent.connect(1).await.get("/", &[]).await;
    let error = "invalid client policy: it has no protocol";
    assert_eq!((reply.status.as_u16(), reply.header("l5d-proxy-error")), (500, Some(error)));
    let mut bytes = silent.connect(1).await;
    bytes.send([0_u8; 20]).await;
    assert_eq!(bytes.read_to_end().await, b"");
    let refused = ["outbound_tcp_route_close_total", "route_name=\"invalid\"", "error=\"invalid_policy\""];
    silent.wait_for_sum(&refused, 1).await;

    let ingress = Setup::ingress().original(1, cluster_ip()).start().await;
    ingress.control.service("web", cluster_ip(), &[app.address]);
    ingress.control.set_policy(&name, nothing);
    let mut connection = ingress.connect(1).await;
    assert_eq!(connection.get("/", &[("l5d-dst-override", WEB)]).await.status, 500);
    assert_eq!(app.requests(), 0);
    // Control: by the other target, whose policy can be read, it is there.
    assert_eq!(served_by(&ingress.connect(1).await.get("/", &[]).await.body), "web");
}

const GONE: &str = "Service ns/gone does not exist";

/// A policy for `web` alone or beside a backend whose Service does not exist, of which the control plane says with a filter that requests
/// for it fail, or does not.
fn beside_missing(web: bool, told: bool) -> OutboundPolicy {
    let mut policy = policy("web", &[(&format!("{WEB}:80"), u32::from(web)), ("gone.ns.svc.cluster.local:80", 1)]);
    each_rule(&mut policy, |rule| {
        let Some(distribution::Kind::RandomAvailable(random)) = &mut rule.backends.as_mut().unwrap().kind else {
            panic!("no backends")
        };
        let missing = random.backends[1].backend.as_mut().unwrap();
        missing.backend.as_mut().unwrap().kind = None;
        if told {
            let fail = HttpFailureInjector { status: 500, message: GONE.to_owned(), ratio: None };
            missing.filters = vec![filter(Kind::FailureInjector(fail))];
        }
    });
    policy
}

#[tokio::test]
async fn a_backend_that_leads_nowhere_fails_its_share() {
    const REQUESTS: usize = 1000;
    let app = App::named("web").await;
    let mesh = mesh(&app, |_| {}).await;
    mesh.control.set_policy(&cluster_ip().to_string(), beside_missing(true, true));
    let mut connection = mesh.connect(1).await;
    for _ in 0..REQUESTS {
        let reply = connection.get("/", &[]).await;
        if reply.status != 200 {
            assert_eq!((reply.status.as_u16(), reply.header("l5d-proxy-error")), (500, Some(GONE)));
        }
    }
    // 15.8 is one standard deviation; six of them are exceeded once in 500 million runs.
    assert!(app.requests().abs_diff(REQUESTS / 2) < 95, "{} of {REQUESTS} were answered", app.requests());
}

#[tokio::test]
async fn a_backend_that_leads_nowhere_says_so() {
    let app = App::named("web").await;
    let nowhere = format!("{ROUTE}backend Service.ns.gone:80: backend for Service ns/gone has no dispatcher");
    for (told, status, code, error) in [(true, 500, "9", GONE), (false, 502, "14", &nowhere)] {
        let mesh = mesh(&app, |_| {}).await;
        mesh.control.set_policy(&cluster_ip().to_string(), beside_missing(false, told));
        let reply = mesh.connect(1).await.get("/", &[]).await;
        assert_eq!((reply.status.as_u16(), reply.header("l5d-proxy-error")), (status, Some(error)));
        let end = format!("http_status=\"{status}\",error=\"\"}}");
        assert_eq!(mesh.sum(&["outbound_http_route_request_statuses_total", &end]).await, 1);

        let mut sender = h2(client(1), mesh.proxy.addresses().outbound[0]).await;
        let request = Request::post("http://web/s/m").header("content-type", "application/grpc");
        let response = sender.send_request(request.body(Empty::<Bytes>::new().boxed_unsync()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], code);
        assert_eq!(response.headers()["grpc-message"], error);
    }
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn connections_for_a_backend_that_leads_nowhere_are_refused() {
    let app = App::named("web").await;
    let mesh = mesh(&app, |_| {}).await;
    let mut policy = policy("web", &[("gone.ns.svc.cluster.local:80", 1)]);
    let route = &mut detect(&mut policy).opaque.as_mut().unwrap().routes[0];
    let Some(opaque_route::distribution::Kind::RandomAvailable(random)) =
        &mut route.rules[0].backends.as_mut().unwrap().kind
    else {
        panic!("no backends")
    };
    random.backends[0].backend.as_mut().unwrap().backend.as_mut().unwrap().kind = None;
    mesh.control.set_policy(&cluster_ip().to_string(), policy);
    let mut bytes = mesh.connect(1).await;
    bytes.send([0_u8; 20]).await;
    assert_eq!(bytes.read_to_end().await, b"");
    mesh.wait_for_sum(&["outbound_tcp_route_close_total", "error=\"invalid_backend\""], 1).await;
}
