//! Policies' routes for gRPC: by service and method, and by codes wherever a response has them.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use linkerd2_proxy_api::{
    grpc_route::{GrpcFailureInjector, GrpcRouteMatch, GrpcRpcMatch},
    outbound::{
        ExponentialBackoff, FailureAccrual,
        failure_accrual::{ConsecutiveFailures, Kind as Accrual, Unified},
        grpc_route::{Filter, Retry, Rule, filter::Kind, retry::Conditions},
    },
};

use crate::support::{App, Mesh, Setup, client, grpc_policy, grpc_rule, h2};

const WEB: &str = "web.ns.svc.cluster.local:80";

fn cluster_ip() -> std::net::SocketAddr {
    ([10, 96, 0, 1], 80).into()
}

/// A mesh in which the connections of the first client are for a Service with these rules.
async fn mesh(app: &App, rules: Vec<Rule>) -> Mesh {
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address]);
    mesh.control.set_policy(&cluster_ip().to_string(), grpc_policy("web", rules, None));
    mesh
}

/// What a client gets for a message that it sends, to its end.
async fn call(mesh: &Mesh, method: &str) -> Reply {
    ask(mesh, request(method)).await
}

pub async fn ask(mesh: &Mesh, request: Request<crate::support::H2Body>) -> Reply {
    let mut connection = h2(client(1), mesh.proxy.addresses().outbound[0]).await;
    let response = connection.send_request(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    let code = head.headers.get("grpc-status").or(trailers.get("grpc-status"));
    let code = code.map(|code| code.to_str().unwrap().to_owned());
    Reply { status: head.status.as_u16(), code, body: body.to_bytes() }
}

#[derive(Debug)]
pub struct Reply {
    status: u16,
    pub code: Option<String>,
    pub body: Bytes,
}

pub fn request(method: &str) -> Request<crate::support::H2Body> {
    Request::post(format!("http://web/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from("message")).boxed_unsync())
        .unwrap()
}

/// Where a response has its code.
#[derive(Debug, Clone, Copy)]
pub enum In {
    /// There is nothing else.
    Head,
    /// Nothing comes before but a head.
    Trailers,
    /// After a message.
    TrailersOfMessage,
}

pub fn answer(code: &'static str, place: In) -> Response<crate::support::Body> {
    let response = Response::builder().header("content-type", "application/grpc");
    let trailers = || HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static(code))]);
    let frames = match place {
        In::Head => return response.header("grpc-status", code).body(Full::default().boxed_unsync()).unwrap(),
        In::Trailers => vec![Frame::trailers(trailers())],
        In::TrailersOfMessage => vec![Frame::data(Bytes::from("answer")), Frame::trailers(trailers())],
    };
    let frames = stream::iter(frames.into_iter().map(Ok::<_, Infallible>));
    response.body(BodyExt::boxed_unsync(StreamBody::new(frames))).unwrap()
}

/// An application that gives this code to the first request, and OK to those after it.
pub async fn failing_once(code: &'static str, place: In) -> App {
    let asked = Arc::new(AtomicUsize::new(0));
    App::http(move |request: Request<Incoming>| {
        let asked = Arc::clone(&asked);
        async move {
            assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "message");
            match asked.fetch_add(1, Ordering::Relaxed) {
                0 => answer(code, place),
                _ => answer("0", In::TrailersOfMessage),
            }
        }
    })
    .await
}

fn retries(max_retries: u32) -> Option<Retry> {
    let millisecond = Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 });
    Some(Retry {
        max_retries,
        max_request_bytes: 1024,
        conditions: Some(Conditions { unavailable: true, ..Default::default() }),
        timeout: None,
        backoff: Some(ExponentialBackoff { min_backoff: millisecond, max_backoff: millisecond, ..Default::default() }),
    })
}

#[tokio::test]
async fn codes_are_tried_again_in_heads_and_in_trailers() {
    for place in [In::Head, In::Trailers] {
        for (code, limit, seen, asked) in [("14", 1, "0", 2), ("14", 0, "14", 1), ("13", 1, "13", 1)] {
            let app = failing_once(code, place).await;
            let rule = Rule { retry: retries(limit), ..grpc_rule(vec![], WEB) };
            let mesh = mesh(&app, vec![rule]).await;
            let reply = call(&mesh, "shop.Cart/Add").await;
            let case = format!("{code} {limit} {place:?}: {reply:?}");
            assert_eq!((reply.status, reply.code.as_deref(), app.requests()), (200, Some(seen), asked), "{case}");
            assert_eq!(reply.body, if seen == "0" { "answer" } else { "" }, "{case}");
            for (name, expected) in [
                ("requests", asked == 2),
                ("successes", asked == 2),
                ("limit_exceeded", limit == 0),
                ("overflow", false),
            ] {
                let name = format!("outbound_grpc_route_retry_{name}_total");
                assert_eq!(mesh.sum(&[&name, "route_name=\"r\""]).await, u64::from(expected), "{name}: {case}");
            }
            // The route sees one request, the backend each attempt; and no HTTP route sees any.
            let text = |code: &str| match code {
                "0" => "grpc_status=\"OK\",error=\"\"}",
                "13" => "grpc_status=\"INTERNAL\",error=\"\"}",
                _ => "grpc_status=\"UNAVAILABLE\",error=\"\"}",
            };
            mesh.wait_for_sum(&["outbound_grpc_route_request_statuses_total", text(seen)], 1).await;
            assert_eq!(mesh.sum(&["outbound_grpc_route_request_statuses_total"]).await, 1, "{case}");
            mesh.wait_for_sum(&["outbound_grpc_route_backend_response_statuses_total"], asked as u64).await;
            assert_eq!(
                mesh.sum(&["outbound_grpc_route_backend_response_statuses_total", text(code)]).await,
                1,
                "{case}"
            );
            assert_eq!(mesh.sum(&["outbound_grpc_route_backend_requests_total"]).await, asked as u64, "{case}");
            assert_eq!(mesh.sum(&["outbound_http_route_"]).await, 0, "{case}");
        }
    }
}

#[tokio::test]
async fn a_request_says_by_which_codes_it_is_sent_again_where_it_may() {
    for (codes, allowed, seen, asked) in [
        ("internal,unavailable", true, "0", 2),
        ("internal,unavailable", false, "14", 1),
        ("internal,unknown", true, "14", 1),
    ] {
        for place in [In::Head, In::Trailers] {
            let app = failing_once("14", place).await;
            let rule = Rule { allow_l5d_request_headers: allowed, ..grpc_rule(vec![], WEB) };
            let mesh = mesh(&app, vec![rule]).await;
            let mut request = request("shop.Cart/Add");
            request.headers_mut().insert("l5d-retry-grpc", HeaderValue::from_static(codes));
            let reply = ask(&mesh, request).await;
            assert_eq!((reply.code.as_deref(), app.requests()), (Some(seen), asked), "{codes} {allowed} {place:?}");
        }
    }
}

/// Whether the trailers are there when the message is depends on who is faster, so nothing is said of retries here.
#[tokio::test]
async fn what_was_looked_at_is_passed_on() {
    let app = App::http(|_| async { answer("13", In::TrailersOfMessage) }).await;
    let rule = Rule { retry: retries(3), ..grpc_rule(vec![], WEB) };
    let reply = call(&mesh(&app, vec![rule]).await, "shop.Cart/Add").await;
    assert_eq!((&*reply.body, reply.code.as_deref()), (&b"answer"[..], Some("13")));
}

#[tokio::test]
async fn a_stream_is_not_held_until_its_code_comes() {
    let app = App::http(|_| async {
        let first = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from("first")))]);
        let body = BodyExt::boxed_unsync(StreamBody::new(first.chain(stream::pending())));
        Response::builder().header("content-type", "application/grpc").body(body).unwrap()
    })
    .await;
    let mesh = mesh(&app, vec![Rule { retry: retries(3), ..grpc_rule(vec![], WEB) }]).await;
    let mut connection = h2(client(1), mesh.proxy.addresses().outbound[0]).await;
    let mut body = connection.send_request(request("shop.Cart/Watch")).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    // It ends when the client goes away, and counts then.
    let statuses = "outbound_grpc_route_request_statuses_total";
    assert_eq!(mesh.sum(&[statuses]).await, 0);
    drop((body, connection));
    mesh.wait_for_sum(&[statuses, "grpc_status=\"UNKNOWN\",error=\"CANCEL\"}"], 1).await;
}

#[tokio::test]
async fn the_service_decides_before_the_method_does() {
    let names = ["method", "service", "both", "any"];
    let mut apps = Vec::new();
    for name in names {
        apps.push(App::named(name).await);
    }
    let rpc = |service: &str, method: &str| {
        let rpc = GrpcRpcMatch { service: service.to_owned(), method: method.to_owned() };
        vec![GrpcRouteMatch { rpc: Some(rpc), ..Default::default() }]
    };
    let path = |name: &str| format!("{name}.ns.svc.cluster.local:80");
    let rules = vec![
        grpc_rule(rpc("", "Add"), &path("method")),
        grpc_rule(rpc("shop.Cart", ""), &path("service")),
        grpc_rule(rpc("shop.Cart", "Get"), &path("both")),
        grpc_rule(rpc("", "AddMany"), &path("any")),
    ];
    let mesh = mesh(&apps[0], rules).await;
    for (name, app) in names.iter().zip(&apps) {
        mesh.control.set_endpoints(&path(name), &[app.address]);
    }
    for (method, served) in [
        ("shop.Cart/Add", "service"),
        ("shop.Cart/Get", "both"),
        ("shop.Till/Add", "method"),
        ("shop.Till/AddMany", "any"),
    ] {
        let reply = call(&mesh, method).await;
        assert!(reply.body.starts_with(served.as_bytes()), "{method}: {reply:?}");
    }
    for method in ["shop.Till/Get", "shop.Cart", "shop.Carts/Get"] {
        assert_eq!(call(&mesh, method).await.code.as_deref(), Some("5"), "{method}");
    }
}

#[tokio::test]
async fn a_failure_on_purpose_has_its_code() {
    let app = App::named("web").await;
    for (code, seen, text) in [(9, "9", "FAILED_PRECONDITION"), (500, "2", "UNKNOWN")] {
        let fail = GrpcFailureInjector { code, message: "on purpose".to_owned(), ratio: None };
        let filters = vec![Filter { kind: Some(Kind::FailureInjector(fail)) }];
        let mesh = mesh(&app, vec![Rule { filters, ..grpc_rule(vec![], WEB) }]).await;
        let reply = call(&mesh, "shop.Cart/Add").await;
        assert_eq!((reply.status, reply.code.as_deref()), (200, Some(seen)));
        let counted = format!("grpc_status=\"{text}\",error=\"\"}}");
        assert_eq!(mesh.sum(&["outbound_grpc_route_request_statuses_total", &counted]).await, 1);
    }
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn codes_in_trailers_set_an_endpoint_aside() {
    const MAX_FAILURES: u32 = 3;
    let hour = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    let backoff = Some(ExponentialBackoff { min_backoff: hour, max_backoff: hour, ..Default::default() });
    let of = |kind| Some(FailureAccrual { kind: Some(kind), ..Default::default() });
    let in_a_row = || of(Accrual::ConsecutiveFailures(ConsecutiveFailures { max_failures: MAX_FAILURES, backoff }));
    let rate = || {
        of(Accrual::Unified(Unified {
            success_rate_threshold: 0.5,
            decay: hour,
            min_requests: MAX_FAILURES,
            max_consecutive_failures: 0,
            backoff,
        }))
    };
    let good = App::http(|_| async { answer("0", In::TrailersOfMessage) }).await;
    // INTERNAL says something about the endpoint, NOT_FOUND about what was asked, and RESOURCE_EXHAUSTED only to a success rate.
    for (code, accrual, set_aside) in [
        ("13", in_a_row(), true),
        ("5", in_a_row(), false),
        ("8", in_a_row(), false),
        ("8", rate(), true),
        ("13", None, false),
    ] {
        for place in [In::Trailers, In::TrailersOfMessage] {
            let bad = App::http(move |_| async move { answer(code, place) }).await;
            let mesh = Setup::new().original(1, cluster_ip()).start().await;
            mesh.control.service("web", cluster_ip(), &[good.address, bad.address]);
            let policy = grpc_policy("web", vec![grpc_rule(vec![], WEB)], accrual);
            mesh.control.set_policy(&cluster_ip().to_string(), policy);
            // Which of the two is asked is up to the balancer, so it is asked until the other one was asked often enough.
            let is_bad = |reply: Reply| u32::from(reply.code.as_deref() == Some(code));
            let mut failed = 0;
            while failed < MAX_FAILURES {
                failed += is_bad(call(&mesh, "shop.Cart/Add").await);
            }
            if set_aside {
                for _ in 0..30 {
                    assert_eq!(is_bad(call(&mesh, "shop.Cart/Add").await), 0, "{code} {place:?} {accrual:?}");
                }
            } else {
                while is_bad(call(&mesh, "shop.Cart/Add").await) == 0 {}
            }
        }
    }
}
