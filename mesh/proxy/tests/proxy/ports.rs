//! The ports of the pod: what is spoken there, who may connect, and who says so.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use linkerd2_proxy_api::{
    destination::DestinationProfile,
    inbound::proxy_protocol::{Detect, Kind, Opaque, Tls},
};
use tokio::{io::AsyncWriteExt, net::TcpListener};
use tonic::Code;

use crate::support::{
    App, Authority, ControlPlane, Setup, Who, authz, endpoint, server as policy, with_identity, with_opaque_transport,
};

const CLIENT: &str = "client.ns.serviceaccount.identity.linkerd.cluster.local";
const SERVER: &str = "server.ns.serviceaccount.identity.linkerd.cluster.local";

/// What proxies dial from, here.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Where a client is that is not in the pod.
const ELSEWHERE: &str = "10.1.2.3";

const HOUR: Duration = Duration::from_secs(3600);

async fn echo() -> App {
    App::tcp(|mut stream| async move {
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_policy_that_is_not_there_at_first_holds_once_it_is() {
    let app = App::named("app").await;
    let port = app.address.port();
    let control = ControlPlane::start().await;
    // As a control plane that has not seen the pod yet.
    control.refuse_server(port, Code::NotFound);
    let setup = Setup::new().with("LINKERD2_PROXY_INBOUND_PORTS", &port.to_string());
    let mesh = setup.original_from(1, ELSEWHERE, app.address).start_with(control).await;
    let asked = format!("WatchPort {port}");
    let times = || mesh.control.calls().iter().filter(|call| **call == asked).count();
    until("it is not asked again", async || times() >= 2).await;
    // The default holds until then.
    assert_eq!(mesh.connect_inbound(1).await.get("/", &[]).await.status, 200);
    let detect = Detect { timeout: None, http_routes: vec![], http_local_rate_limit: None };
    mesh.control.set_server(port, policy(Kind::Detect(detect), vec![]));
    until("the policy does not hold", async || mesh.connect_inbound(1).await.get("/", &[]).await.status == 403).await;
}

#[tokio::test]
async fn where_tls_is_spoken_that_between_proxies_ends_and_the_rest_is_passed_on() {
    let (authority, app) = (Authority::start(HOUR).await, echo().await);
    let port = app.address.port();
    let setup = Setup::new().identified(SERVER, &authority).with("LINKERD2_PROXY_INBOUND_PORTS", &port.to_string());
    let server = setup.original(1, app.address).original_of(LOOPBACK, app.address).start().await;
    let address = server.proxy.addresses().inbound;
    let client = Setup::new().identified(CLIENT, &authority).original(1, address).start().await;
    let found = DestinationProfile { opaque_protocol: true, ..with_identity(endpoint(address), SERVER) };
    client.control.set_profile(&address.to_string(), Ok(found));
    server.control.set_server(port, policy(Kind::Tls(Tls {}), vec![authz("all", Who::Anybody)]));
    until("the policy does not hold", async || {
        server.connect_inbound(1).await.send("nothing that is known").await;
        server.sum(&["tcp_open_total", "srv_name=\"web\""]).await > 0
    })
    .await;

    // What would be a request if it were looked into.
    let spoken = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    for mut connection in [client.connect(1).await, server.connect_inbound(1).await] {
        connection.send(spoken).await;
        assert_eq!(connection.read(spoken.len()).await, spoken);
    }
    assert_eq!(server.sum(&["request_total"]).await, 0);
    let client_id = format!("tls=\"true\",client_id=\"{CLIENT}\"");
    server.wait_for_sum(&["tcp_open_total", "peer=\"src\"", &client_id, "srv_name=\"web\""], 1).await;
}

#[tokio::test]
async fn at_an_opaque_port_nobody_looks_for_tls() {
    let (authority, app) = (Authority::start(HOUR).await, echo().await);
    let hello = client_hello();
    // The second is the control: another port is opaque.
    for (opaque, reason, passes) in [(app.address.port(), "port_skipped", true), (1, "no_tls_from_remote", false)] {
        let setup = Setup::new().identified(SERVER, &authority).original(1, app.address);
        let setup = setup.with("LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", &opaque.to_string());
        let mesh = setup.start().await;
        let mut connection = mesh.connect_inbound(1).await;
        connection.send("hello").await;
        assert_eq!(connection.read(5).await, b"hello");
        let labels = format!("tls=\"no_identity\",no_tls_reason=\"{reason}\"");
        assert_eq!(
            mesh.sum(&["tcp_open_total", "direction=\"inbound\"", "peer=\"src\"", &labels]).await,
            1,
            "{reason}"
        );
        // Not even TLS that is for the proxy.
        let mut connection = mesh.connect_inbound(1).await;
        connection.send(&hello).await;
        assert_eq!(connection.read(hello.len()).await == hello, passes, "{reason}");
    }
}

/// The first bytes of a client of the proxy.
fn client_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), SERVER.try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn a_connection_with_a_header_has_the_policy_of_the_port_that_it_names() {
    let authority = Authority::start(HOUR).await;
    // It speaks first, so that whether a client is let in shows without a word of the client's.
    let app = App::tcp(|mut stream| async move {
        let _ = stream.write_all(b"hello").await;
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await;
    let port = app.address.port();
    let own = TcpListener::bind("0.0.0.0:0").await.unwrap().local_addr().unwrap().port();
    let direct = SocketAddr::new(app.address.ip(), own);
    let server = Setup::new()
        .identified(SERVER, &authority)
        .with("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", &format!("0.0.0.0:{own}"))
        .with("LINKERD2_PROXY_INBOUND_PORTS", &format!("{port},{own}"))
        .original_seen(LOOPBACK, ELSEWHERE.parse().unwrap(), direct)
        .start()
        .await;
    let client = Setup::new().identified(CLIENT, &authority).original(1, app.address).start().await;
    let found = with_opaque_transport(with_identity(endpoint(app.address), SERVER), own);
    client.control.set_profile(&app.address.to_string(), Ok(found));

    let open = || policy(Kind::Opaque(Opaque {}), vec![authz("friends", Who::Identity(CLIENT))]);
    let closed = || policy(Kind::Opaque(Opaque {}), vec![]);
    let let_in = async || client.connect(1).await.read(5).await == b"hello";
    let by = [format!("srv_name=\"web\",srv_port=\"{port}\""), format!("client_id=\"{CLIENT}\"")];

    server.control.set_server(own, open());
    server.control.set_server(port, closed());
    until("who is denied is let in", async || !let_in().await).await;
    assert!(server.sum(&["inbound_tcp_authz_deny_total", &by[0], &by[1]]).await >= 1);
    let before = app.requests();
    assert!(!let_in().await);
    assert_eq!(app.requests(), before, "a connection that is refused goes nowhere");

    // The control: the same the other way round.
    server.control.set_server(own, closed());
    server.control.set_server(port, open());
    until("who is allowed is not let in", let_in).await;
    assert!(server.sum(&["inbound_tcp_authz_allow_total", "authz_name=\"friends\"", &by[0], &by[1]]).await >= 1);
    assert_eq!(server.sum(&["inbound_tcp_authz_", &format!("srv_port=\"{own}\"")]).await, 0);
}
