//! Which application a request reaches: default mode by connection, ingress mode by request.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use tonic::Code;

use crate::support::{App, Setup, client, endpoint, h2, profile, served_by};

const WEB: &str = "web.ns.svc.cluster.local";

fn cluster_ip(last: u8) -> std::net::SocketAddr {
    ([10, 96, 0, last], 80).into()
}

#[tokio::test]
async fn default_mode_follows_the_connection_and_nothing_else() {
    let (web, alt) = (App::named("web").await, App::named("alt").await);
    let mesh = Setup::new().original(1, cluster_ip(1)).original(2, alt.address).start().await;
    mesh.control.service("web", cluster_ip(1), &[web.address]);
    mesh.control.service("alt", cluster_ip(2), &[alt.address]);
    mesh.control.set_profile(&alt.address.to_string(), Ok(endpoint(alt.address)));

    let mut connection = mesh.connect(1).await;
    let lines = [
        ("l5d-dst-override", "alt.ns.svc.cluster.local"),
        ("host", "alt.ns.svc.cluster.local"),
        ("x-forwarded-for", "1.2.3.4"),
    ];
    let reply = connection.get("/a?b=c", &lines).await;
    assert_eq!(served_by(&reply.body), "web");
    for line in [
        "web GET /a?b=c HTTP/1.1",
        "host: alt.ns.svc.cluster.local",
        "l5d-dst-override: alt.ns.svc.cluster.local",
        "x-forwarded-for: 1.2.3.4",
    ] {
        assert!(reply.body.contains(line), "{line} is not in {}", reply.body);
    }
    // A pod's address leads to that pod.
    assert_eq!(served_by(&mesh.connect(2).await.get("/", &[]).await.body), "alt");

    let web_ip = web.address.ip();
    let labels = format!(
        "target_addr=\"{}\",target_ip=\"{web_ip}\",target_port=\"{}\",tls=\"no_identity\",\
         no_tls_reason=\"not_provided_by_service_discovery\",dst_namespace=\"ns\",dst_pod=\"pod-{web_ip}\"",
        web.address,
        web.address.port(),
    );
    let base = format!("direction=\"outbound\",authority=\"{WEB}\",{labels}");
    assert_eq!(mesh.metric(&format!("request_total{{{base}}}")).await, Some(1));
    let outcome = "status_code=\"200\",classification=\"success\",grpc_status=\"\",error=\"\"";
    assert_eq!(mesh.metric(&format!("response_total{{{base},{outcome}}}")).await, Some(1));
    assert_eq!(mesh.metric(&format!("response_latency_ms_count{{{base},status_code=\"200\"}}")).await, Some(1));
    let tcp = format!("direction=\"outbound\",peer=\"dst\",authority=\"{WEB}\",{labels}");
    assert_eq!(mesh.metric(&format!("tcp_open_total{{{tcp}}}")).await, Some(1));
    // A pod that was dialled by its address has no authority.
    let alt_labels = format!("target_addr=\"{}\"", alt.address);
    assert_eq!(mesh.sum(&["request_total{direction=\"outbound\",target_addr", &alt_labels]).await, 1);
    assert_eq!(mesh.sum(&["request_total", "authority", &alt_labels]).await, 0);
    let policy_route = "outbound_http_route_backend_requests_total{parent_group=\"core\",parent_kind=\"Service\",\
                        parent_namespace=\"ns\",parent_name=\"web\"";
    assert_eq!(mesh.sum(&[policy_route, "route_name=\"http\"", "backend_name=\"web\""]).await, 1);
    assert_eq!(mesh.sum(&["route_request_total"]).await, 0);
    assert_eq!(mesh.sum(&["outbound_http_balancer_endpoints", "ready"]).await, 1);
}

#[tokio::test]
async fn default_mode_without_a_policy_forwards_to_the_address() {
    let (web, pod) = (App::named("web").await, App::named("pod").await);
    let mesh = Setup::new().original(1, web.address).start().await;
    // As Linkerd does: without policy, a profile that has only a name does not balance.
    mesh.control.set_profile(&web.address.to_string(), Ok(profile(WEB)));
    mesh.control.set_endpoints(&format!("{WEB}:{}", web.address.port()), &[pod.address]);
    assert_eq!(served_by(&mesh.connect(1).await.get("/", &[]).await.body), "web");
    assert!(!mesh.control.calls().iter().any(|call| call.starts_with("Get ")));
}

/// <https://github.com/linkerd/linkerd2/issues/5975>: the first request's target must not be the second's.
#[tokio::test]
async fn each_request_of_a_connection_goes_to_its_own_target() {
    let (web, alt, original) = (App::named("web").await, App::named("alt").await, App::named("original").await);
    let mesh = Setup::ingress().original(1, original.address).start().await;
    mesh.control.service("web", cluster_ip(1), &[web.address]);
    mesh.control.service("alt", cluster_ip(2), &[alt.address]);

    let mut connection = mesh.connect(1).await;
    for _ in 0..20 {
        for name in ["web", "alt", "", "WEB"] {
            let value = format!("{name}.ns.svc.cluster.local.:80");
            let reply = match name {
                "" => connection.get("/", &[]).await,
                _ => connection.get("/", &[("l5d-dst-override", &value)]).await,
            };
            let expected = if name.is_empty() { "original".to_owned() } else { name.to_lowercase() };
            assert_eq!(served_by(&reply.body), expected);
            assert!(!reply.body.contains("l5d-dst-override"), "{}", reply.body);
            assert!(reply.body.contains("host: example.com"));
        }
    }
    let calls = mesh.control.calls();
    let count = |call: &str| calls.iter().filter(|made| *made == call).count();
    assert_eq!(count(&format!("GetProfile {WEB}:80")), 1, "{calls:?}");
    assert_eq!(count(&format!("Get {WEB}:80")), 1, "{calls:?}");
}

#[tokio::test]
async fn each_stream_of_an_http2_connection_goes_to_its_own_target() {
    let (web, alt) = (App::named("web").await, App::named("alt").await);
    let mesh = Setup::ingress().original(1, cluster_ip(9)).start().await;
    mesh.control.service("web", cluster_ip(1), &[web.address]);
    mesh.control.service("alt", cluster_ip(2), &[alt.address]);

    let connection = h2(client(1), mesh.proxy.addresses().outbound[0]).await;
    let requests = (0..40).map(|index| {
        let name = if index % 2 == 0 { "web" } else { "alt" };
        let request = Request::get("http://example.com/x")
            .header("l5d-dst-override", format!("{name}.ns.svc.cluster.local"))
            .body(Empty::<Bytes>::new().boxed_unsync())
            .unwrap();
        let mut connection = connection.clone();
        async move {
            let response = connection.send_request(request).await.unwrap();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert!(body.starts_with(&format!("{name} GET http://example.com/x HTTP/2.0")), "{body}");
            assert!(!body.contains("l5d-dst-override"));
        }
    });
    futures::future::join_all(requests).await;
    // One connection per endpoint, however many streams came at once.
    assert_eq!(mesh.sum(&["tcp_open_total", "peer=\"dst\""]).await, 2);
}

#[tokio::test]
async fn a_wrong_override_is_answered_with_a_reason() {
    let web = App::named("web").await;
    let mesh = Setup::ingress().original(1, web.address).start().await;
    mesh.control.set_profile("gone.ns.svc.cluster.local:80", Err(Code::NotFound));
    mesh.control.set_profile("empty.ns.svc.cluster.local:80", Ok(Default::default()));
    let table = [
        ("10.9.0.13:8080", 400, "expected the DNS name of a Service, found `10.9.0.13:8080`"),
        (":80", 400, "expected the DNS name"),
        ("a,b", 400, "expected the DNS name"),
        ("example.com", 502, "`example.com:80`, which is not in `svc.cluster.local`"),
        ("gone.ns.svc.cluster.local", 404, "there is no Service `gone.ns.svc.cluster.local:80`"),
        ("empty.ns.svc.cluster.local", 404, "there is no Service"),
        // The control plane has an error for every name it was not told of.
        ("unknown.ns.svc.cluster.local", 503, "discovery of unknown.ns.svc.cluster.local:80 failed"),
    ];
    let mut connection = mesh.connect(1).await;
    for (value, status, reason) in table {
        let reply = connection.get("/", &[("l5d-dst-override", value)]).await;
        assert_eq!(reply.status.as_u16(), status, "{value}: {reply:?}");
        assert!(reply.header("l5d-proxy-error").unwrap().contains(reason), "{value}: {reply:?}");
        if status == 503 {
            connection = mesh.connect(1).await;
        }
    }
    // What is no authority at all counts as absent, and the connection has survived the rest.
    assert_eq!(served_by(&connection.get("/", &[("l5d-dst-override", "not a name")]).await.body), "web");
    assert_eq!(web.requests(), 1);
}

#[tokio::test]
async fn a_service_that_comes_later_is_found() {
    let web = App::named("web").await;
    let mesh = Setup::ingress().original(1, cluster_ip(9)).start().await;
    let target = format!("{WEB}:80");
    mesh.control.set_profile(&target, Ok(Default::default()));
    let mut connection = mesh.connect(1).await;
    assert_eq!(connection.get("/", &[("l5d-dst-override", WEB)]).await.status, 404);

    mesh.control.set_endpoints(&target, &[web.address]);
    mesh.control.set_profile(&target, Ok(profile(WEB)));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while connection.get("/", &[("l5d-dst-override", WEB)]).await.status != 200 {
        assert!(std::time::Instant::now() < deadline);
    }
}

#[tokio::test]
async fn the_documented_dialect_goes_by_host() {
    let (web, alt) = (App::named("web").await, App::named("alt").await);
    let mesh = Setup::ingress().with("MESHGATE_PROXY_DIALECT", "documented").original(1, cluster_ip(9)).start().await;
    mesh.control.service("web", cluster_ip(1), &[web.address]);

    let mut connection = mesh.connect(1).await;
    assert_eq!(served_by(&connection.get("/", &[("host", WEB)]).await.body), "web");
    // An address is dialled as it is, and a name of no Service is where DNS says.
    let address = alt.address.to_string();
    assert_eq!(served_by(&connection.get("/", &[("host", &address)]).await.body), "alt");
    let reply = connection.get("/", &[("host", "no-such-host.invalid")]).await;
    assert_eq!(reply.status, 502);
    assert!(reply.header("l5d-proxy-error").unwrap().contains("`no-such-host.invalid:80` has no address"), "{reply:?}");

    // The control: the modern dialect does not look at Host.
    let modern = Setup::ingress().original(1, alt.address).start().await;
    modern.control.service("web", cluster_ip(1), &[web.address]);
    assert_eq!(served_by(&modern.connect(1).await.get("/", &[("host", WEB)]).await.body), "alt");
}
