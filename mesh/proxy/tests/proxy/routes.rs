//! Policies' routes: filters, retries and timeouts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::BodyExt;
use linkerd2_proxy_api::{
    http_route::{HttpFailureInjector, RequestRedirect, ResponseHeaderModifier, Timeouts},
    http_types::{Headers, headers::Header},
    outbound::{
        ExponentialBackoff,
        http_route::{Filter, Retry, Rule, distribution, filter::Kind, retry},
        proxy_protocol,
    },
};

use crate::support::{App, Mesh, Setup, policy, served_by, text};

const WEB: &str = "web.ns.svc.cluster.local";

fn cluster_ip() -> std::net::SocketAddr {
    ([10, 96, 0, 1], 80).into()
}

/// A mesh in which the connections of the first client are for a Service whose only rule is changed like this.
async fn mesh(app: &App, change: impl Fn(&mut Rule)) -> Mesh {
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address]);
    let mut policy = policy("web", &[(&format!("{WEB}:80"), 1)]);
    if let Some(proxy_protocol::Kind::Detect(detect)) = &mut policy.protocol.as_mut().unwrap().kind {
        let (http1, http2) = (detect.http1.as_mut().unwrap(), detect.http2.as_mut().unwrap());
        [http1.routes.first_mut(), http2.routes.first_mut()]
            .into_iter()
            .flatten()
            .for_each(|route| change(&mut route.rules[0]));
    }
    mesh.control.set_policy(&cluster_ip().to_string(), policy);
    mesh
}

fn filter(kind: Kind) -> Filter {
    Filter { kind: Some(kind) }
}

fn millis(millis: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 })
}

fn retries(max_retries: u32, max_request_bytes: u32) -> Option<Retry> {
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
async fn failing(first: usize) -> App {
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
    let asked = Arc::new(AtomicUsize::new(0));
    let app = App::http(move |_| {
        let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            text(200, "second")
        }
    })
    .await;
    let mesh = mesh(&app, |rule| {
        rule.retry = retries(1, 1024);
        rule.timeouts = Some(Timeouts { response: millis(100), ..Default::default() });
    })
    .await;
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
