//! The admin server: what it answers, what it refuses, and what it changes.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use flate2::read::GzDecoder;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Authority, Setup};

#[tokio::test]
async fn each_path_has_its_methods() {
    let mesh = Setup::new().start().await;
    let mut connection = mesh.admin().await;
    for (path, status, body) in [("/ready", 200, "ready\n"), ("/live", 200, "live\n"), ("/other", 404, "")] {
        let reply = connection.get(path, &[]).await;
        assert_eq!((reply.status.as_u16(), &*reply.body), (status, body), "{path}");
    }
    let paths = [
        ("/metrics", "PUT", "GET"),
        ("/ready", "POST", "GET"),
        ("/live", "DELETE", "GET"),
        ("/env.json", "POST", "GET"),
        ("/proxy-log-level", "POST", "GET, PUT"),
        ("/shutdown", "GET", "POST"),
    ];
    for (path, wrong, allowed) in paths {
        let reply = mesh.ask_admin(wrong, path, "").await;
        assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, Some(allowed)), "{wrong} {path}");
    }
}

#[tokio::test]
async fn a_proxy_is_ready_once_it_has_its_certificate() {
    let authority = Authority::start(Duration::from_secs(3600)).await;
    // Connections wait here until somebody takes them.
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mesh = Setup::new()
        .identified("web.ns.serviceaccount.identity.linkerd.cluster.local", &authority)
        .with("LINKERD2_PROXY_IDENTITY_SVC_ADDR", &door.local_addr().unwrap().to_string())
        .start()
        .await;
    let ask = async |path| {
        let reply = mesh.admin().await.get(path, &[]).await;
        (reply.status.as_u16(), reply.body)
    };
    assert_eq!(ask("/ready").await, (503, "not ready: no certificate has been issued yet\n".to_owned()));
    assert_eq!(ask("/live").await, (200, "live\n".to_owned()));

    let to = authority.address();
    tokio::spawn(async move {
        loop {
            let (mut from, _) = door.accept().await.unwrap();
            tokio::spawn(async move {
                let mut to = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    while ask("/ready").await != (200, "ready\n".to_owned()) {
        assert!(Instant::now() < deadline, "the proxy is not certified");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn it_stops_the_proxy_if_it_may() {
    let mesh = Setup::new().with("LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED", "true").start().await;
    assert_eq!(mesh.ask_admin("POST", "/shutdown", "").await.body, "shutdown\n");
    tokio::time::timeout(Duration::from_secs(10), mesh.proxy.stopping()).await.expect("it was told to stop");

    let mesh = Setup::new().start().await;
    let refused = mesh.ask_admin("POST", "/shutdown", "").await;
    assert_eq!(refused.status, 404);
    assert!(refused.body.contains("LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED"), "{}", refused.body);
}

#[tokio::test]
async fn the_environment_is_shown_without_secrets() {
    let key = "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n";
    let setup = Setup::new()
        .with("LINKERD2_PROXY_LOG", "warn,linkerd=\"debug\"")
        .with("LINKERD2_PROXY_IDENTITY_KEY", key)
        .with("DATABASE_PASSWORD", "secret");
    let mesh = setup.start().await;
    let mut connection = mesh.admin().await;
    let reply = connection.get("/env.json", &[]).await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, Some("application/json")));
    let shown: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(shown["LINKERD2_PROXY_LOG"], "warn,linkerd=\"debug\"");
    assert_eq!(shown["LINKERD2_PROXY_DESTINATION_SVC_ADDR"], mesh.control.address().to_string());
    assert_eq!(shown["MESHGATE_PROXY_OUTBOUND_LOOPBACK"], "allow");
    assert_eq!(shown["LINKERD2_PROXY_IDENTITY_KEY"], "(not shown: a private key)");
    assert_eq!(shown.get("DATABASE_PASSWORD"), None, "it is not the proxy's");

    let some = connection.get("/env.json?MESHGATE_PROXY_OUTBOUND_LOOPBACK&LINKERD2_PROXY_CORES&DATABASE_PASSWORD", &[]);
    let expected =
        r#"{"DATABASE_PASSWORD":null,"LINKERD2_PROXY_CORES":null,"MESHGATE_PROXY_OUTBOUND_LOOPBACK":"allow"}"#;
    assert_eq!(some.await.body, expected);
    assert_eq!(connection.get("/env.json?LINKERD2_PROXY_LOG=1", &[]).await.status, 400);
    assert_eq!(connection.get("/env.json", &[("accept", "text/html")]).await.status, 406);
    assert_eq!(connection.get("/env.json", &[("accept", "text/html, */*;q=0.1")]).await.status, 200);
}

#[tokio::test]
async fn a_log_that_is_not_the_proxys_stays_as_it_is() {
    let mesh = Setup::new().start().await;
    assert_eq!(mesh.admin().await.get("/proxy-log-level", &[]).await.status, 404);
    assert_eq!(mesh.ask_admin("PUT", "/proxy-log-level", "debug").await.status, 404);
}

#[tokio::test]
async fn metrics_are_compressed_for_who_takes_it() {
    let mesh = Setup::new().start().await;
    let mut connection = mesh.admin().await;
    let plain = connection.get("/metrics?name[]=proxy_build_info", &[]).await;
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("accept-encoding")));
    assert!(plain.body.contains("proxy_build_info{"), "{}", plain.body);

    let request = "GET /metrics?name[]=proxy_build_info HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n";
    connection.send(request).await;
    let (status, headers) = connection.head().await;
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!((status.as_u16(), header("content-encoding")), (200, Some("gzip")));
    assert_eq!(header("content-type"), plain.header("content-type"));
    let body = connection.read(header("content-length").unwrap().parse().unwrap()).await;
    let mut text = String::new();
    GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, plain.body);
}
