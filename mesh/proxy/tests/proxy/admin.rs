//! The admin server: what it answers, what it refuses, and what it changes.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::Request;
use http_body_util::{BodyExt, Empty};
use linkerd2_proxy_api::inbound::proxy_protocol::{Detect, Kind};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    support::{
        Authority, Connection, Mesh, Setup, Who, authz, client, endpoint, h2, server, with_http2, with_identity,
    },
    wire::Wire,
};

const CLIENT: &str = "prometheus.ns.serviceaccount.identity.linkerd.cluster.local";
const SERVER: &str = "server.ns.serviceaccount.identity.linkerd.cluster.local";

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

/// The sum over the series of the admin server itself whose text contains all of `parts`, the first of which is the name.
async fn own_sum(mesh: &Mesh, parts: &[&str]) -> u64 {
    let (own, all) = (mesh.own_target(), mesh.all_metrics().await);
    let has =
        |line: &&str| line.starts_with(parts[0]) && line.contains(&own) && parts.iter().all(|part| line.contains(part));
    all.lines().filter(has).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// As a Prometheus in the mesh, whose proxy is told that the port is a meshed pod's.
#[tokio::test]
async fn another_proxy_reads_over_tls_and_http2() {
    let (authority, wire) = (Authority::start(Duration::from_secs(3600)).await, Wire::default());
    let mesh = Setup::new().identified(SERVER, &authority).start().await;
    let address = wire.tap(mesh.proxy.addresses().admin).await;
    let prometheus = Setup::new().identified(CLIENT, &authority).original(1, address).start().await;
    prometheus.control.set_profile(&address.to_string(), Ok(with_http2(with_identity(endpoint(address), SERVER))));
    // Two connections of the application on one between the proxies, as only HTTP/2 can carry them.
    let (mut one, mut two) = (prometheus.connect(1).await, prometheus.connect(1).await);
    for connection in [&mut one, &mut two] {
        let reply = connection.get("/metrics?name[]=proxy_build_info", &[]).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.body.contains("proxy_build_info{"), "{}", reply.body);
    }
    // The pod's own are on no connection between proxies.
    assert_eq!(one.get("/proxy-log-level", &[]).await.status, 404, "this client is on loopback");
    assert!(wire.begins_with_tls() && !wire.has("proxy_build_info"));
    let by = format!("tls=\"true\",client_id=\"{CLIENT}\"");
    let labels = "direction=\"inbound\"";
    assert_eq!(own_sum(&mesh, &["request_total", labels, &by, "authz_name=\"all-unauthenticated\""]).await, 3);
    assert_eq!(own_sum(&mesh, &["response_total", labels, &by, "status_code=\"200\""]).await, 2);
    assert_eq!(own_sum(&mesh, &["inbound_http_authz_allow_total", &by]).await, 3);
    assert_eq!(own_sum(&mesh, &["tcp_open_total", "peer=\"src\"", &by]).await, 1);
}

#[tokio::test]
async fn clients_without_tls_speak_either_version_and_nothing_else() {
    let mesh = Setup::new().start().await;
    let mut http2 = h2(client(250), mesh.proxy.addresses().admin).await;
    let request = Request::get("http://a/live").body(Empty::<Bytes>::new().boxed_unsync()).unwrap();
    let response = http2.send_request(request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers().get("l5d-orig-proto")), (200, None));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "live\n");

    let mut other = mesh.admin().await;
    other.send("hello\r\n").await;
    assert_eq!(other.read_to_end().await, b"");
    let no = "tls=\"no_identity\",no_tls_reason=\"no_tls_from_remote\"";
    assert_eq!(own_sum(&mesh, &["request_total", no, "authz_name=\"all-unauthenticated\""]).await, 2, "and this one");
}

#[tokio::test]
async fn its_port_has_a_policy_that_is_followed_from_the_start() {
    let elsewhere = ([127, 0, 0, 1], 1).into();
    let mesh = Setup::new().original_from(1, "10.1.2.3", elsewhere).start().await;
    let address = mesh.proxy.addresses().admin;
    let deadline = Instant::now() + Duration::from_secs(30);
    let asked = format!("WatchPort {}", address.port());
    while !mesh.control.calls().contains(&asked) {
        assert!(Instant::now() < deadline, "{:?}", mesh.control.calls());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut connection = Connection::open(client(1), address).await;
    assert_eq!(connection.get("/live", &[]).await.status, 200, "until something is said");

    let detect = || Kind::Detect(Detect { timeout: None, http_routes: vec![], http_local_rate_limit: None });
    mesh.control.set_server(address.port(), server(detect(), vec![]));
    let mut refused = 0;
    for (status, next) in [(403, Some(vec![authz("all", Who::Anybody)])), (200, None)] {
        loop {
            let reply = connection.get("/live", &[]).await;
            refused += u64::from(reply.status == 403);
            if reply.status == status {
                break;
            }
            assert!(Instant::now() < deadline, "{reply:?}");
        }
        if let Some(next) = next {
            // The control: the pod itself may.
            assert_eq!(mesh.admin().await.get("/live", &[]).await.status, 200);
            mesh.control.set_server(address.port(), server(detect(), next));
        }
    }
    let denied = own_sum(&mesh, &["inbound_http_authz_deny_total", "srv_name=\"web\""]).await;
    assert_eq!(denied, refused);
    assert!(own_sum(&mesh, &["inbound_http_authz_allow_total", "authz_name=\"localhost\""]).await >= 1);
    // What changes the proxy is not for who is let in.
    assert_eq!(connection.get("/proxy-log-level", &[]).await.status, 403);
}
