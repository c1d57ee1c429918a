//! Which responses are failures: what a route counts and what it sends again.

use http::Request;
use http_body_util::BodyExt;
use linkerd2_proxy_api::destination::{HttpStatusRange, ResponseClass, ResponseMatch, Route, response_match};

use crate::{
    grpc::{In, Reply, answer, ask, failing_once, request},
    support::{App, H2Body, Mesh, Setup, profile, route},
};

const WEB: &str = "web.ns.svc.cluster.local";

fn cluster_ip() -> std::net::SocketAddr {
    ([10, 96, 0, 1], 80).into()
}

/// A mesh in which the connections of the first client are for a Service whose profile has this route.
async fn mesh(app: &App, route: Route) -> Mesh {
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address]);
    let mut profile = profile(WEB);
    profile.routes = vec![route];
    mesh.control.set_profile(&cluster_ip().to_string(), Ok(profile));
    mesh
}

fn class(status: u32, is_failure: bool) -> ResponseClass {
    let range = HttpStatusRange { min: status, max: status };
    let condition = Some(ResponseMatch { r#match: Some(response_match::Match::Status(range)) });
    ResponseClass { condition, is_failure }
}

async fn counted(mesh: &Mesh, name: &str, class: &str, code: &str) {
    let end = format!("classification=\"{class}\",grpc_status=\"{code}\",error=\"\"}}");
    mesh.wait_for_sum(&[name, &end], 1).await;
    assert_eq!(mesh.sum(&[name]).await, 1, "{name} {end}");
}

/// The same, of a request that does not say that it is gRPC.
fn plain() -> Request<H2Body> {
    let mut request = request("s/m");
    request.headers_mut().remove("content-type");
    request
}

#[tokio::test]
async fn codes_are_failures_or_answers_unless_a_class_says_what_they_are() {
    for place in [In::Head, In::TrailersOfMessage] {
        for (code, classes, request, class, seen) in [
            ("5", vec![], request("s/m"), "success", "5"),
            ("7", vec![], request("s/m"), "failure", "7"),
            ("13", vec![], request("s/m"), "failure", "13"),
            ("13", vec![class(200, false)], request("s/m"), "success", ""),
            ("0", vec![class(200, true)], request("s/m"), "failure", ""),
            ("13", vec![class(418, true)], request("s/m"), "failure", "13"),
            // It is the request that says what it is.
            ("13", vec![], plain(), "success", ""),
        ] {
            let app = App::http(move |_| async move { answer(code, place) }).await;
            let mesh = mesh(&app, Route { response_classes: classes, ..route("all", "/.*") }).await;
            assert_eq!(ask(&mesh, request).await.code.as_deref(), Some(code));
            for name in ["route_response_total", "route_actual_response_total", "response_total"] {
                counted(&mesh, name, class, seen).await;
            }
        }
    }
}

#[tokio::test]
async fn what_fails_is_sent_again_wherever_its_code_is() {
    for place in [In::Head, In::Trailers] {
        for (code, classes, request, seen, asked) in [
            ("14", vec![], request("s/m"), "0", 2),
            // The rest are answers.
            ("5", vec![], request("s/m"), "5", 1),
            ("14", vec![class(200, false)], request("s/m"), "14", 1),
            ("14", vec![], plain(), "14", 1),
        ] {
            let app = failing_once(code, place).await;
            let flaky = Route { is_retryable: true, response_classes: classes, ..route("all", "/.*") };
            let mesh = mesh(&app, flaky).await;
            let reply: Reply = ask(&mesh, request).await;
            assert_eq!((reply.code.as_deref(), app.requests()), (Some(seen), asked), "{code} {place:?}");
            let failed = format!("classification=\"failure\",grpc_status=\"{code}\"");
            mesh.wait_for_sum(&["route_actual_response_total", &failed], u64::from(asked == 2)).await;
        }
    }
}

/// Whether the trailers are there when the message is depends on who is faster, so nothing is said of retries here.
#[tokio::test]
async fn what_was_looked_at_is_passed_on() {
    let app = App::http(|request| async move {
        request.into_body().collect().await.unwrap();
        answer("0", In::TrailersOfMessage)
    })
    .await;
    let mesh = mesh(&app, Route { is_retryable: true, ..route("all", "/.*") }).await;
    let reply = ask(&mesh, request("s/m")).await;
    assert_eq!((&*reply.body, reply.code.as_deref()), (&b"answer"[..], Some("0")));
}
