//! What clients see when there is nobody to answer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use linkerd2_proxy_api::{
    destination::DestinationProfile,
    outbound::{
        ExponentialBackoff, FailureAccrual, OutboundPolicy,
        backend::{self, balance_p2c},
        failure_accrual::{ConsecutiveFailures, Kind},
        http_route::distribution,
        proxy_protocol,
    },
};
use tokio::net::TcpListener;

use crate::support::{App, ControlPlane, Setup, client, endpoint, h2, leg, policy, profile, served_by, text};

const WEB: &str = "web.ns.svc.cluster.local";

fn cluster_ip() -> std::net::SocketAddr {
    ([10, 96, 0, 1], 80).into()
}

/// What is said when it is known already that there are no endpoints, or too many wait for one.
const SHED: &str = "logical service 10.96.0.1:80: route default.http: service unavailable";

/// An address at which nobody listens.
async fn refusing() -> std::net::SocketAddr {
    TcpListener::bind("127.0.2.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn without_endpoints_the_first_request_waits_and_the_next_do_not() {
    let setup = Setup::new().with("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "100ms");
    let mesh = setup.original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[]);

    let start = Instant::now();
    let reply = mesh.connect(1).await.get("/", &[]).await;
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert_eq!(reply.status, 504);
    assert_eq!(
        reply.header("l5d-proxy-error"),
        Some(
            "logical service 10.96.0.1:80: route default.http: backend Service.ns.web:80: Service.ns.web:80: \
             service in fail-fast"
        )
    );
    assert_eq!(reply.header("l5d-proxy-connection"), Some("close"));
    assert_eq!(reply.header("connection"), Some("close"));
    let shed = mesh.connect(1).await.get("/", &[]).await;
    assert_eq!((shed.status.as_u16(), shed.header("l5d-proxy-error")), (503, Some(SHED)));
    assert_eq!(mesh.metric("outbound_http_errors_total{error=\"failfast\"}").await, Some(1));
    assert_eq!(mesh.metric("outbound_http_errors_total{error=\"loadshed\"}").await, Some(1));
    for error in ["FAIL_FAST", "LOAD_SHED"] {
        let end = format!("http_status=\"\",error=\"{error}\"}}");
        assert_eq!(mesh.sum(&["outbound_http_route_request_statuses_total", &end]).await, 1);
    }

    let app = App::named("web").await;
    mesh.control.set_endpoints(&format!("{WEB}:80"), &[app.address]);
    mesh.wait_for_sum(&["outbound_http_balancer_endpoints"], 1).await;
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.status, 200);
}

#[tokio::test]
async fn as_many_requests_wait_as_the_queue_has_places() {
    let setup = Setup::new()
        .with("LINKERD2_PROXY_OUTBOUND_HTTP_QUEUE_CAPACITY", "2")
        .with("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "60s");
    let mesh = setup.original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[]);
    let mut waiting = [mesh.connect(1).await, mesh.connect(1).await];
    for connection in &mut waiting {
        connection.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
    }
    mesh.wait_for_sum(&["outbound_http_balancer_queue_length"], 2).await;
    let refused = mesh.connect(1).await.get("/", &[]).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("l5d-proxy-error"), Some(SHED));
    assert_eq!(mesh.metric("outbound_http_errors_total{error=\"loadshed\"}").await, Some(1));

    let app = App::named("web").await;
    mesh.control.set_endpoints(&format!("{WEB}:80"), &[app.address]);
    for connection in &mut waiting {
        assert_eq!(served_by(&connection.reply().await.body), "web");
    }
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.status, 200);
}

#[tokio::test]
async fn no_more_requests_are_without_an_answer_than_may_be() {
    let (app, answers) = App::held().await;
    let setup = Setup::new().with("LINKERD2_PROXY_OUTBOUND_MAX_IN_FLIGHT", "2");
    let mesh = setup.original(1, app.address).start().await;
    let mut waiting = [mesh.connect(1).await, mesh.connect(1).await];
    for connection in &mut waiting {
        connection.send("GET /later HTTP/1.1\r\nhost: web\r\n\r\n").await;
    }
    mesh.wait_for_sum(&["request_total", "direction=\"outbound\""], 2).await;
    let refused = mesh.connect(1).await.get("/", &[]).await;
    assert_eq!((refused.status.as_u16(), refused.header("l5d-proxy-error")), (503, Some("service unavailable")));
    assert_eq!(refused.header("connection"), Some("close"));
    assert_eq!(mesh.metric("outbound_http_errors_total{error=\"loadshed\"}").await, Some(1));
    assert_eq!(app.requests(), 2);

    answers.add_permits(2);
    for connection in &mut waiting {
        assert_eq!(connection.reply().await.body, "answered");
    }
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.body, "answered");
}

#[tokio::test]
async fn a_refused_connection_is_a_bad_gateway() {
    let refusing = refusing().await;
    let mesh = Setup::new().original(1, cluster_ip()).original(2, refusing).start().await;
    mesh.control.service("web", cluster_ip(), &[refusing]);
    mesh.control.set_profile(&refusing.to_string(), Ok(endpoint(refusing)));
    for attempt in 1..=3 {
        for client in [1, 2] {
            let reply = mesh.connect(client).await.get("/", &[]).await;
            assert_eq!(reply.status, 502, "{reply:?}");
            let explained = format!("endpoint {refusing}: client error (Connect)");
            assert_eq!(reply.header("l5d-proxy-error"), Some(&*explained), "{reply:?}");
        }
        assert_eq!(mesh.sum(&["response_total", "status_code=\"502\"", "authority"]).await, attempt);
        assert_eq!(mesh.sum(&["request_total", "authority"]).await, attempt);
    }
    assert_eq!(mesh.sum(&["outbound_http_errors_total"]).await, 0);
}

/// Linkerd's proxy fails 129 to 149 of these 200 requests.
#[tokio::test]
async fn one_refusing_endpoint_of_two_costs_no_request() {
    let app = App::named("web").await;
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address, refusing().await]);
    let mut connection = mesh.connect(1).await;
    for _ in 0..200 {
        assert_eq!(served_by(&connection.get("/", &[]).await.body), "web");
    }
    assert_eq!(mesh.sum(&["request_total", "authority"]).await, 200);
}

#[tokio::test]
async fn an_application_that_hangs_up_is_a_bad_gateway() {
    let app = App::tcp(|stream| async move { drop(stream) }).await;
    let mesh = Setup::new().original(1, app.address).start().await;
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.status, 502);
}

#[tokio::test]
async fn an_answer_of_the_application_is_passed_on_whatever_it_is() {
    let app = App::http(|_| async { text(503, "overloaded") }).await;
    let mesh = Setup::new().original(1, app.address).start().await;
    let mut connection = mesh.connect(1).await;
    for _ in 0..2 {
        let reply = connection.get("/", &[]).await;
        assert_eq!((reply.status.as_u16(), &*reply.body), (503, "overloaded"));
        assert_eq!(reply.header("l5d-proxy-error"), None);
    }
}

#[tokio::test]
async fn grpc_clients_are_answered_in_grpc() {
    let setup = Setup::new().with("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "50ms");
    let refusing = refusing().await;
    let mesh = setup.original(1, cluster_ip()).original(2, refusing).start().await;
    mesh.control.service("web", cluster_ip(), &[]);
    for (number, code) in [(1, "4"), (2, "14")] {
        let mut connection = h2(client(number), mesh.proxy.addresses().outbound[0]).await;
        let request = Request::post("http://web/Service/Method")
            .header("content-type", "application/grpc")
            .body(Empty::<Bytes>::new().boxed_unsync())
            .unwrap();
        let response = connection.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], code);
        assert!(response.headers().contains_key("grpc-message"));
        // Over HTTP/1 it is a request like any other.
        let reply = mesh.connect(number).await.get("/", &[("content-type", "application/grpc")]).await;
        assert_eq!(reply.status.as_u16(), if number == 1 { 503 } else { 502 });
        assert_eq!([reply.header("grpc-status"), reply.header("content-type")], [None, None]);
    }
}

#[tokio::test]
async fn a_leg_of_a_profile_without_endpoints_is_named() {
    let setup = Setup::new().with("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "50ms");
    let mesh = setup.original(1, cluster_ip()).start().await;
    let split = DestinationProfile { dst_overrides: vec![leg("v1.ns.svc.cluster.local:80", 1)], ..profile(WEB) };
    mesh.control.set_profile(&cluster_ip().to_string(), Ok(split));
    mesh.control.set_endpoints("v1.ns.svc.cluster.local:80", &[]);
    for (status, error) in [(504, "Service.ns.v1:80: service in fail-fast"), (503, "service unavailable")] {
        let reply = mesh.connect(1).await.get("/", &[]).await;
        let error = format!("logical service {WEB}:80: {error}");
        assert_eq!((reply.status.as_u16(), reply.header("l5d-proxy-error")), (status, Some(&*error)));
    }
}

#[tokio::test]
async fn a_stream_that_the_application_resets_is_reset() {
    let app = App::tcp(|stream| async move {
        let mut server = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = server.accept().await {
            respond.send_reset(h2::Reason::ENHANCE_YOUR_CALM);
        }
    })
    .await;
    let mesh = Setup::new().original(1, app.address).start().await;
    let mut connection = h2(client(1), mesh.proxy.addresses().outbound[0]).await;
    for _ in 0..2 {
        let request = Request::get("http://web/").body(Empty::<Bytes>::new().boxed_unsync()).unwrap();
        let error = connection.send_request(request).await.unwrap_err();
        let reason = std::error::Error::source(&error).unwrap().downcast_ref::<h2::Error>().unwrap().reason();
        assert_eq!(reason, Some(h2::Reason::ENHANCE_YOUR_CALM));
    }
    assert!(!connection.is_closed(), "only the streams end");
    let outcome = "classification=\"failure\",grpc_status=\"\",error=\"h2(ENHANCE_YOUR_CALM)\"}";
    mesh.wait_for_sum(&["response_total", outcome], 2).await;
    assert_eq!(mesh.sum(&["response_total", "status_code"]).await, 0);
}

#[tokio::test]
async fn http2_to_an_application_that_speaks_http1_is_a_bad_gateway() {
    let app = App::tcp(|mut stream| async move {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let mesh = Setup::new().original(1, app.address).start().await;
    let mut connection = h2(client(1), mesh.proxy.addresses().outbound[0]).await;
    for _ in 0..2 {
        let request = Request::get("http://web/").body(Empty::<Bytes>::new().boxed_unsync()).unwrap();
        // Whether the request had left already when the answer came is up to the scheduler.
        match connection.send_request(request).await {
            Ok(response) => assert_eq!(response.status(), 502),
            Err(error) => assert!(!error.is_closed()),
        }
    }
    assert!(!connection.is_closed());
}

#[tokio::test]
async fn a_silent_control_plane_does_not_hold_requests_forever() {
    let setup = Setup::ingress().with("MESHGATE_PROXY_DISCOVERY_TIMEOUT", "100ms").original(1, cluster_ip());
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let setup =
        setup.with("LINKERD2_PROXY_DESTINATION_SVC_ADDR", &address).with("LINKERD2_PROXY_POLICY_SVC_ADDR", &address);
    let mesh = setup.start_with(ControlPlane::start().await).await;
    let reply = mesh.connect(1).await.get("/", &[("l5d-dst-override", WEB)]).await;
    assert_eq!(reply.status, 504);
    assert!(reply.header("l5d-proxy-error").unwrap().contains("did not finish within 100ms"), "{reply:?}");
}

#[tokio::test]
async fn who_fails_too_often_in_a_row_is_set_aside() {
    const MAX_FAILURES: u32 = 3;
    // Slower than who fails at once, so that a balancer that looks at latencies alone prefers the failures.
    let good = App::http(|_| async {
        tokio::time::sleep(Duration::from_millis(2)).await;
        text(200, "good")
    })
    .await;
    let bad = App::http(|_| async { text(500, "bad") }).await;
    for accrual in [false, true] {
        let mesh = Setup::new().original(1, cluster_ip()).start().await;
        mesh.control.service("web", cluster_ip(), &[good.address, bad.address]);
        let mut policy = policy("web", &[(&format!("{WEB}:80"), 1)]);
        if accrual {
            accrue(&mut policy, MAX_FAILURES);
        }
        mesh.control.set_policy(&cluster_ip().to_string(), policy);
        let mut connection = mesh.connect(1).await;
        // How often who fails is asked depends on how fast either answered, so nothing is said of how soon.
        let mut failed = 0;
        while failed < MAX_FAILURES {
            failed += u32::from(connection.get("/", &[]).await.status == 500);
        }
        if accrual {
            for _ in 0..50 {
                assert_eq!(connection.get("/", &[]).await.status, 200, "the penalty is longer than the test");
            }
        } else {
            while connection.get("/", &[]).await.status != 500 {}
        }
    }
}

/// Sets endpoints aside for an hour after some failures in a row.
fn accrue(policy: &mut OutboundPolicy, max_failures: u32) {
    let hour = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    let backoff = Some(ExponentialBackoff { min_backoff: hour, max_backoff: hour, ..Default::default() });
    let kind = Kind::ConsecutiveFailures(ConsecutiveFailures { max_failures, backoff });
    let accrual = Some(FailureAccrual { kind: Some(kind), ..Default::default() });
    if let Some(proxy_protocol::Kind::Detect(detect)) = &mut policy.protocol.as_mut().unwrap().kind {
        detect.http1.as_mut().unwrap().failure_accrual = accrual;
        detect.http2.as_mut().unwrap().failure_accrual = accrual;
    }
}

#[tokio::test]
async fn who_fails_is_asked_less_where_failures_count() {
    // Slower than who fails at once, so that a balancer that looks at latencies alone prefers the failures.
    let good = App::http(|_| async {
        tokio::time::sleep(Duration::from_millis(2)).await;
        text(200, "good")
    })
    .await;
    for status in [429, 503, 500] {
        let bad = App::http(move |_| async move { text(status, "not now") }).await;
        for counts in [true, false] {
            let mesh = Setup::new().original(1, cluster_ip()).start().await;
            mesh.control.service("web", cluster_ip(), &[good.address, bad.address]);
            let mut policy = policy("web", &[(&format!("{WEB}:80"), 1)]);
            if counts {
                penalize(&mut policy);
            }
            mesh.control.set_policy(&cluster_ip().to_string(), policy);
            let mut connection = mesh.connect(1).await;
            while connection.get("/", &[]).await.status != status {}
            if counts {
                for _ in 0..50 {
                    assert_eq!(connection.get("/", &[]).await.status, 200, "it counts as longer than the test takes");
                }
            } else {
                while connection.get("/", &[]).await.status != status {}
            }
        }
    }
}

/// Counts failures as answers that took an hour.
fn penalize(policy: &mut OutboundPolicy) {
    let hour = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    let load = balance_p2c::Load::PenaltyPeakEwma(balance_p2c::PenaltyPeakEwma { penalty: hour, ..Default::default() });
    let Some(proxy_protocol::Kind::Detect(detect)) = &mut policy.protocol.as_mut().unwrap().kind else {
        panic!("{policy:?}")
    };
    let routes = detect.http1.as_mut().unwrap().routes.iter_mut().chain(&mut detect.http2.as_mut().unwrap().routes);
    for rule in routes.flat_map(|route| &mut route.rules) {
        let Some(distribution::Kind::RandomAvailable(random)) = &mut rule.backends.as_mut().unwrap().kind else {
            panic!("{rule:?}")
        };
        for weighted in &mut random.backends {
            match &mut weighted.backend.as_mut().unwrap().backend.as_mut().unwrap().kind {
                Some(backend::Kind::Balancer(balancer)) => balancer.load = Some(load),
                other => panic!("{other:?}"),
            }
        }
    }
}
