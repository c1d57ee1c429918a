//! Connections that are not HTTP.

use std::time::{Duration, Instant};

use linkerd2_proxy_api::destination::DestinationProfile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{App, Setup, endpoint, leg, profile, served_by};

async fn echo() -> App {
    App::tcp(|mut stream| async move {
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            stream.write_all(&buffer[..read]).await.unwrap();
        }
    })
    .await
}

fn cluster_ip() -> std::net::SocketAddr {
    ([10, 96, 0, 1], 80).into()
}

#[tokio::test]
async fn bytes_that_are_not_http_pass_at_once() {
    let app = echo().await;
    for setup in [Setup::new(), Setup::ingress()] {
        let mesh = setup.original(1, app.address).original(2, cluster_ip()).start().await;
        mesh.control.service("web", cluster_ip(), &[app.address]);
        let start = Instant::now();
        for client in [1, 2] {
            for bytes in [&b"hello"[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 client hello", &[0; 300]] {
                let mut connection = mesh.connect(client).await;
                connection.send(bytes).await;
                assert_eq!(connection.read(bytes.len()).await, bytes);
                connection.stream.shutdown().await.unwrap();
                assert_eq!(connection.read_to_end().await, b"");
            }
        }
        assert!(start.elapsed() < Duration::from_secs(5), "detection waited");
        let target = format!("target_addr=\"{}\"", app.address);
        mesh.wait_for_sum(&["tcp_close_total", "peer=\"dst\"", &target, "errno=\"\""], 6).await;
        let bytes = 2 * (5 + 24 + 300);
        assert_eq!(mesh.sum(&["tcp_write_bytes_total", "peer=\"dst\"", &target]).await, bytes);
        assert_eq!(mesh.sum(&["tcp_read_bytes_total", "peer=\"src\"", "no_tls_reason=\"loopback\""]).await, bytes);
        assert_eq!(mesh.sum(&["tcp_open_connections"]).await, 0);
        assert_eq!(mesh.sum(&["request_total"]).await, 0);
        assert_eq!(mesh.sum(&["outbound_tcp_detect_http_results_total", "result=\"not_http\""]).await, 6);
    }
}

#[tokio::test]
async fn a_server_may_speak_first() {
    let app = App::tcp(|mut stream| async move { stream.write_all(b"220 ready\r\n").await.unwrap() }).await;
    let mesh =
        Setup::new().with("LINKERD2_PROXY_OUTBOUND_DETECT_TIMEOUT", "100ms").original(1, app.address).start().await;
    assert_eq!(mesh.connect(1).await.read_to_end().await, b"220 ready\r\n");
    assert_eq!(mesh.sum(&["outbound_tcp_detect_http_results_total", "result=\"read_timeout\""]).await, 1);
}

#[tokio::test]
async fn an_opaque_profile_needs_no_detection() {
    let app = App::tcp(|mut stream| async move { stream.write_all(b"220 ready\r\n").await.unwrap() }).await;
    let mesh = Setup::new().original(1, app.address).start().await;
    let opaque = DestinationProfile { opaque_protocol: true, ..endpoint(app.address) };
    mesh.control.set_profile(&app.address.to_string(), Ok(opaque));
    // Detection would take ten seconds, the client's patience is less.
    let start = Instant::now();
    assert_eq!(mesh.connect(1).await.read_to_end().await, b"220 ready\r\n");
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(mesh.sum(&["outbound_tcp_detect_http_results_total"]).await, 0);
}

#[tokio::test]
async fn a_split_holds_for_connections_too() {
    let (dead, live) = (echo().await, echo().await);
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    let mut apex = profile("web.ns.svc.cluster.local");
    apex.dst_overrides = vec![leg("live.ns.svc.cluster.local:80", 1), leg("dead.ns.svc.cluster.local:80", 0)];
    mesh.control.set_profile(&cluster_ip().to_string(), Ok(apex));
    mesh.control.set_endpoints("live.ns.svc.cluster.local:80", &[live.address]);
    mesh.control.set_endpoints("dead.ns.svc.cluster.local:80", &[dead.address]);
    for _ in 0..10 {
        let mut connection = mesh.connect(1).await;
        connection.send("ping!").await;
        assert_eq!(connection.read(5).await, b"ping!");
    }
    assert_eq!((live.requests(), dead.requests()), (10, 0));
}

#[tokio::test]
async fn a_client_silent_for_longer_than_detection_waits_still_speaks_http() {
    let (dialled, chosen) = (App::named("dialled").await, App::named("chosen").await);
    let mesh = Setup::ingress()
        .with("LINKERD2_PROXY_OUTBOUND_DETECT_TIMEOUT", "50ms")
        .original(1, dialled.address)
        .start()
        .await;
    mesh.control.service("chosen", cluster_ip(), &[chosen.address]);
    let mut spare = mesh.connect(1).await;
    mesh.wait_for_sum(&["outbound_tcp_detect_http_results_total", "read_timeout"], 1).await;
    let reply = spare.get("/", &[("l5d-dst-override", "chosen.ns.svc.cluster.local")]).await;
    assert_eq!(served_by(&reply.body), "chosen", "a spare connection goes past no routing");
}
