//! Requests that reach the application, by the route of the port's policy.

use std::time::{Duration, Instant};

use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use linkerd2_proxy_api::inbound::proxy_protocol::{Grpc, Kind};
use socket2::SockRef;
use tokio::net::TcpListener;

use super::Scrape;
use crate::support::{App, Setup, Who, authz, client, h2, server, text};

/// Where a client is that is not in the pod.
const ELSEWHERE: &str = "10.1.2.3";

const ROUTE: &str = "route_group=\"\",route_kind=\"default\",route_name=\"default\"";

#[tokio::test]
async fn requests_are_counted_by_the_route_that_let_them_in() {
    let app =
        App::http(|request| async move { text(418, request.into_body().collect().await.unwrap().to_bytes()) }).await;
    let port = app.address.port();
    let nobody = TcpListener::bind("127.0.2.1:0").await.unwrap().local_addr().unwrap();
    let mesh = Setup::new().original_from(1, ELSEWHERE, app.address).original(2, nobody).start().await;
    let mut connection = mesh.connect_inbound(1).await;
    connection.send("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 1\r\n\r\nx").await;
    assert_eq!(connection.reply().await.body, "x");
    assert_eq!(connection.get("/", &[]).await.status, 418);
    assert_eq!(mesh.connect_inbound(2).await.get("/", &[]).await.status, 502);

    let labels = |port: u16| {
        format!(
            "parent_group=\"\",parent_kind=\"default\",parent_name=\"all-unauthenticated\",parent_port=\"{port}\",{ROUTE}"
        )
    };
    let scrape = Scrape::of(&mesh).await;
    let of = labels(port);
    assert_eq!(scrape.value(&format!("inbound_http_requests_total{{{of}}}")), 2.0);
    assert_eq!(scrape.value(&format!("inbound_http_statuses_total{{{of},status=\"418\"}}")), 2.0);
    // An application that is not there is answered for.
    let refused = format!("inbound_http_statuses_total{{{},status=\"502\"}}", labels(nobody.port()));
    assert_eq!(scrape.value(&refused), 1.0);
    let bounds = scrape.bounds("inbound_http_request_duration_seconds", &of, 2.0);
    assert_eq!(bounds, ["0.05", "0.5", "1.0", "10.0", "+Inf"]);
    let bounds = scrape.bounds("inbound_http_response_duration_seconds", &of, 2.0);
    assert_eq!(bounds, ["0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "10.0", "+Inf"]);
    for name in ["inbound_http_request_frame_size_bytes", "inbound_http_response_frame_size_bytes"] {
        assert_eq!(scrape.bounds(name, &of, 1.0), ["128.0", "1024.0", "10240.0", "+Inf"]);
        assert_eq!(scrape.value(&format!("{name}_sum{{{of}}}")), 1.0);
    }
    assert_eq!(scrape.series("inbound_grpc_requests_total"), Vec::<&str>::new());
    let server = format!("srv_group=\"\",srv_kind=\"default\",srv_name=\"all-unauthenticated\",srv_port=\"{port}\"");
    assert_eq!(scrape.value(&format!("inbound_tcp_detect_http_results_total{{result=\"http/1\",{server}}}")), 1.0);
    assert_eq!(scrape.bounds("inbound_tcp_detect_http_duration_seconds", &server, 1.0), ["0.001", "0.1", "+Inf"]);
}

#[tokio::test]
async fn a_connection_that_breaks_while_it_is_looked_at_is_counted() {
    let app = App::http(|_| async { text(200, "") }).await;
    let mesh = Setup::new().original_from(1, ELSEWHERE, app.address).start().await;
    let mut broken = mesh.connect_inbound(1).await;
    broken.send("GE").await;
    mesh.wait_for_sum(&["tcp_read_bytes_total", "direction=\"inbound\",peer=\"src\""], 2).await;
    SockRef::from(&broken.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(broken);
    let server = format!(
        "srv_group=\"\",srv_kind=\"default\",srv_name=\"all-unauthenticated\",srv_port=\"{}\"",
        app.address.port()
    );
    let error = format!("inbound_tcp_detect_http_results_total{{result=\"error\",{server}}}");
    Scrape::once(&mesh, &error, 1.0).await;
}

#[tokio::test]
async fn a_port_of_grpc_has_families_of_its_own() {
    let app = App::http(|_| async {
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), "7".parse().unwrap())]);
        let response = Response::builder().header("content-type", "application/grpc");
        response.body(StreamBody::new(futures::stream::iter([Ok(Frame::trailers(trailers))])).boxed_unsync()).unwrap()
    })
    .await;
    let port = app.address.port();
    let setup = Setup::new().with("LINKERD2_PROXY_INBOUND_PORTS", &port.to_string());
    let mesh = setup.original_from(1, ELSEWHERE, app.address).start().await;
    mesh.control.set_server(port, server(Kind::Grpc(Grpc { routes: vec![] }), vec![authz("all", Who::Anybody)]));
    // The policy comes when it comes.
    let of = format!(
        "parent_group=\"policy.linkerd.io\",parent_kind=\"server\",parent_name=\"web\",parent_port=\"{port}\",{ROUTE}"
    );
    let requests = format!("inbound_grpc_requests_total{{{of}}}");
    let mut sender = h2(client(1), mesh.proxy.addresses().inbound).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    let scrape = loop {
        assert!(Instant::now() < deadline, "the policy does not come");
        let request = Request::post("http://web/s/m").header("content-type", "application/grpc");
        let response = sender.send_request(request.body(Empty::new().boxed_unsync()).unwrap()).await.unwrap();
        response.into_body().collect().await.unwrap();
        let scrape = Scrape::of(&mesh).await;
        if scrape.find(&requests).is_some() {
            break scrape;
        }
    };
    assert_eq!(scrape.value(&requests), 1.0);
    assert_eq!(scrape.value(&format!("inbound_grpc_statuses_total{{{of},status=\"7\"}}")), 1.0);
    scrape.bounds("inbound_grpc_request_duration_seconds", &of, 1.0);
    scrape.bounds("inbound_grpc_response_duration_seconds", &of, 1.0);
    scrape.bounds("inbound_grpc_request_frame_size_bytes", &of, 0.0);
    scrape.bounds("inbound_grpc_response_frame_size_bytes", &of, 0.0);
}
