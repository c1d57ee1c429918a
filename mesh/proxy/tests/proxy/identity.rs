//! Proxies that prove to each other who they are.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    support::{
        App, Authority, Connection, Mesh, Setup, endpoint, h2, served_by, text, with_http2, with_identity,
        with_opaque_transport,
    },
    wire::Wire,
};

const CLIENT: &str = "client.ns.serviceaccount.identity.linkerd.cluster.local";
const SERVER: &str = "server.ns.serviceaccount.identity.linkerd.cluster.local";

/// What proxies dial from, here.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const HOUR: Duration = Duration::from_secs(3600);

/// A client's proxy and a server's proxy before an application, with what passes between them.
struct Pair {
    client: Mesh,
    server: Mesh,
    wire: Wire,
    app: App,
    address: SocketAddr,
}

impl Pair {
    /// `found` is who the control plane says is at the server's address; nobody it says anything of when `None`.
    async fn start(client: Setup, server: Setup, found: Option<&str>) -> Self {
        let app = App::named("app").await;
        let server = server.original(1, app.address).original_of(LOOPBACK, app.address).start().await;
        let wire = Wire::default();
        let address = wire.tap(server.proxy.addresses().inbound).await;
        let client = client.original(1, address).start().await;
        let plain = endpoint(address);
        let profile = found.map_or(plain.clone(), |name| with_identity(plain, name));
        client.control.set_profile(&address.to_string(), Ok(profile));
        Self { client, server, wire, app, address }
    }

    async fn identified(authority: &Authority) -> Self {
        let client = Setup::new().identified(CLIENT, authority);
        Self::start(client, Setup::new().identified(SERVER, authority), Some(SERVER)).await
    }
}

#[tokio::test]
async fn both_sides_know_each_other_and_nobody_reads_along() {
    let authority = Authority::start(HOUR).await;
    let pair = Pair::identified(&authority).await;
    let reply = pair.client.connect(1).await.get("/secret-path", &[("l5d-client-id", "somebody-else")]).await;
    assert_eq!((reply.status.as_u16(), served_by(&reply.body)), (200, "app"));
    assert!(reply.body.contains(&format!("l5d-client-id: {CLIENT}\n")), "{}", reply.body);
    assert!(!reply.body.contains("somebody-else"), "{}", reply.body);
    assert!(!pair.wire.has("secret-path"));
    assert!(pair.wire.begins_with_tls());

    for family in ["request_total", "response_total", "tcp_open_total"] {
        let server_id = format!("tls=\"true\",server_id=\"{SERVER}\"");
        pair.client.wait_for_sum(&[family, "direction=\"outbound\"", &server_id], 1).await;
        let client_id = format!("tls=\"true\",client_id=\"{CLIENT}\"");
        pair.server.wait_for_sum(&[family, "direction=\"inbound\"", &client_id], 1).await;
    }
}

/// The control of the test above: the same without identities.
#[tokio::test]
async fn without_identities_the_wire_is_readable() {
    let pair = Pair::start(Setup::new(), Setup::new(), None).await;
    let reply = pair.client.connect(1).await.get("/secret-path", &[("l5d-client-id", "somebody-else")]).await;
    assert_eq!(served_by(&reply.body), "app");
    assert!(!reply.body.contains("l5d-client-id"), "{}", reply.body);
    assert!(pair.wire.has("secret-path"));
    let no = "tls=\"no_identity\",no_tls_reason=";
    pair.client.wait_for_sum(&["request_total", &format!("{no}\"not_provided_by_service_discovery\"")], 1).await;
    pair.server.wait_for_sum(&["request_total", &format!("{no}\"no_tls_from_remote\"")], 1).await;
}

#[tokio::test]
async fn an_endpoint_that_is_somebody_else_gets_nothing() {
    let (authority, stranger) = (Authority::start(HOUR).await, Authority::start(HOUR).await);
    let client = || Setup::new().identified(CLIENT, &authority);
    for (server, found) in [
        // Its certificate says another name than the control plane.
        (Setup::new().identified(SERVER, &authority), CLIENT),
        // Nobody here trusts who signed its certificate.
        (Setup::new().identified(SERVER, &stranger), SERVER),
        // It has no identity at all.
        (Setup::new(), SERVER),
    ] {
        let pair = Pair::start(client(), server, Some(found)).await;
        let reply = pair.client.connect(1).await.get("/secret-path", &[]).await;
        assert_eq!(reply.status, 502, "{reply:?}");
        assert!(reply.header("l5d-proxy-error").unwrap().contains("TLS with "), "{reply:?}");
        assert_eq!(pair.app.requests(), 0);
        assert!(!pair.wire.has("secret-path"));
    }
}

#[tokio::test]
async fn clients_without_tls_are_served_as_nobody() {
    let authority = Authority::start(HOUR).await;
    let pair = Pair::identified(&authority).await;
    let reply = pair.server.connect_inbound(1).await.get("/", &[("l5d-client-id", CLIENT)]).await;
    assert_eq!(served_by(&reply.body), "app");
    assert!(!reply.body.contains("l5d-client-id"), "{}", reply.body);
    let labels = "tls=\"no_identity\",no_tls_reason=\"no_tls_from_remote\"";
    pair.server.wait_for_sum(&["request_total", labels], 1).await;
}

#[tokio::test]
async fn tls_for_somebody_behind_the_proxy_passes_as_it_is() {
    let authority = Authority::start(HOUR).await;
    let echo = App::tcp(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let mesh = Setup::new().identified(SERVER, &authority).original(1, echo.address).start().await;
    for (sni, label) in [("shop.example.com", "shop.example.com"), (CLIENT, CLIENT)] {
        let hello = client_hello(sni);
        let mut connection = mesh.connect_inbound(1).await;
        connection.send(&hello).await;
        assert_eq!(connection.read(hello.len()).await, hello);
        let label = format!("tls=\"opaque\",sni=\"{label}\"");
        assert_eq!(mesh.sum(&["tcp_open_total", "peer=\"src\"", &label]).await, 1);
    }
    // What only looks like it at first.
    let mut connection = mesh.connect_inbound(1).await;
    connection.send([0x16, 0x03, 0x01, 0x00, 0x04, 1, 2, 3, 4]).await;
    assert_eq!(connection.read(9).await, [0x16, 0x03, 0x01, 0x00, 0x04, 1, 2, 3, 4]);
}

/// The first bytes of a TLS client.
pub fn client_hello(sni: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(sni.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn a_request_can_require_who_answers_it() {
    let authority = Authority::start(HOUR).await;
    let pair = Pair::identified(&authority).await;
    let mut connection = pair.client.connect(1).await;
    let reply = connection.get("/", &[("l5d-require-id", SERVER)]).await;
    assert_eq!(reply.status, 200);
    assert!(!reply.body.contains("l5d-require-id"), "{}", reply.body);
    let reply = connection.get("/", &[("l5d-require-id", CLIENT)]).await;
    assert_eq!(reply.status, 502);
    let reason = reply.header("l5d-proxy-error").unwrap();
    assert!(reason.contains(&format!("identity {CLIENT} is required, the endpoint's is {SERVER}")), "{reason}");
    assert_eq!(pair.client.sum(&["outbound_http_errors_total", "identity required"]).await, 1);

    let plain = Pair::start(Setup::new(), Setup::new(), None).await;
    assert_eq!(plain.client.connect(1).await.get("/", &[("l5d-require-id", SERVER)]).await.status, 502);
    assert_eq!((pair.app.requests(), plain.app.requests()), (1, 0));
}

/// Endpoints that refuse connections are passed over, and what is required is so of the next one as well.
#[tokio::test]
async fn what_a_request_requires_holds_for_every_endpoint_that_is_tried() {
    let authority = Authority::start(HOUR).await;
    let app = App::named("app").await;
    let server = Setup::new().identified(SERVER, &authority).original_of(LOOPBACK, app.address).start().await;
    let client = Setup::ingress().identified(CLIENT, &authority).original(1, app.address).start().await;
    let living = server.proxy.addresses().inbound;
    client.control.identify(living, SERVER);
    let dead = [1, 2, 3].map(|last| SocketAddr::from(([127, 0, 9, last], 1)));
    dead.iter().for_each(|address| client.control.identify(*address, CLIENT));
    let endpoints = [&dead[..], &[living]].concat();
    // Which endpoint comes first is chance, so that is tried with several balancers.
    for n in 1..=10 {
        client.control.service(&format!("s{n}"), ([10, 96, 0, n], 80).into(), &endpoints);
        let name = format!("s{n}.ns.svc.cluster.local:80");
        let mut connection = client.connect(1).await;
        let reply = connection.get("/", &[("l5d-dst-override", &name), ("l5d-require-id", CLIENT)]).await;
        assert_eq!((reply.status.as_u16(), app.requests()), (502, 0), "{reply:?}");
    }
    // The control: the living one's identity is found behind the dead ones.
    let mut connection = client.connect(1).await;
    let name = "s1.ns.svc.cluster.local:80";
    let reply = connection.get("/", &[("l5d-dst-override", name), ("l5d-require-id", SERVER)]).await;
    assert_eq!((reply.status.as_u16(), app.requests()), (200, 1), "{reply:?}");
}

/// An application that refuses connections behind its own proxy, beside one that serves.
#[tokio::test]
async fn what_has_not_reached_an_application_goes_to_another() {
    const REQUESTS: usize = 300;
    let authority = Authority::start(HOUR).await;
    let app = App::named("app").await;
    let refusing = TcpListener::bind("127.0.2.9:0").await.unwrap().local_addr().unwrap();
    let behind = |address| Setup::new().identified(SERVER, &authority).original_of(LOOPBACK, address).start();
    let (good, bad) = (behind(app.address).await, behind(refusing).await);
    let client = Setup::new().identified(CLIENT, &authority).original(1, ([10, 96, 0, 1], 80).into()).start().await;
    let endpoints = [&good, &bad].map(|mesh| mesh.proxy.addresses().inbound);
    endpoints.iter().for_each(|address| client.control.identify(*address, SERVER));
    client.control.service("web", ([10, 96, 0, 1], 80).into(), &endpoints);

    let mut http1 = client.connect(1).await;
    for _ in 0..REQUESTS {
        let reply = http1.get("/", &[]).await;
        assert_eq!((reply.status.as_u16(), served_by(&reply.body)), (200, "app"), "{reply:?}");
        assert_eq!(reply.header("meshgate-proxy-unsent"), None);
    }
    let mut http2 = h2(crate::support::client(1), client.proxy.addresses().outbound[0]).await;
    for _ in 0..REQUESTS {
        let request = http::Request::post("http://web/").body(Empty::<Bytes>::new().boxed_unsync()).unwrap();
        assert_eq!(http2.send_request(request).await.unwrap().status(), 200);
    }
    // What has a body is not kept; but who refuses is set aside, so that hardly any is lost.
    let mut lost = 0;
    for _ in 0..REQUESTS {
        http1.send("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\nbody").await;
        let reply = http1.reply().await;
        if reply.status == 502 {
            assert_eq!(reply.header("meshgate-proxy-unsent"), None);
            lost += 1;
        } else {
            assert_eq!(served_by(&reply.body), "app");
        }
    }
    assert!(lost <= REQUESTS / 50, "{lost} of {REQUESTS} were lost");
    // The control: there were requests for the one that refuses, each counted with the answer of its proxy.
    let target = format!("target_addr=\"{}\"", endpoints[1]);
    let sent = client.sum(&["request_total", "direction=\"outbound\"", &target]).await;
    client.wait_for_sum(&["response_total", &target, "status_code=\"502\""], sent).await;
    assert!(sent > 0);
    assert_eq!(app.requests(), 3 * REQUESTS - lost);
}

/// TLS that ends without a goodbye ends as an error of its own kind, on a connection that was kept as on one that is new.
#[tokio::test]
async fn a_connection_between_proxies_that_is_cut_costs_no_request() {
    let (authority, wire) = (Authority::start(HOUR).await, Wire::default());
    let (cut, asked) = (wire.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let app = App::http(move |request| {
        let slow = request.uri().path() == "/slow";
        let first = slow && count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        let cut = cut.clone();
        async move {
            if first {
                cut.cut();
                std::future::pending::<()>().await;
            }
            text(200, "answered")
        }
    })
    .await;
    let server = Setup::new().identified(SERVER, &authority).original_of(LOOPBACK, app.address).start().await;
    let address = wire.tap(server.proxy.addresses().inbound).await;
    let client = Setup::new().identified(CLIENT, &authority).original(1, address).start().await;
    client.control.set_profile(&address.to_string(), Ok(with_identity(endpoint(address), SERVER)));
    let mut connection = client.connect(1).await;
    for path in ["/slow", "/", "/slow"] {
        let reply = connection.get(path, &[]).await;
        assert_eq!((reply.status.as_u16(), &*reply.body), (200, "answered"), "{path}: {reply:?}");
    }
    // The same over HTTP/2, on a connection between the proxies that is new as well.
    let mut http2 = h2(crate::support::client(1), client.proxy.addresses().outbound[0]).await;
    let request = http::Request::get("http://web/slow").body(Empty::<Bytes>::new().boxed_unsync()).unwrap();
    assert_eq!(http2.send_request(request).await.unwrap().status(), 200);
    assert_eq!(asked.load(Ordering::Relaxed), 6);
}

/// Its connection is cut, and the application that it has been sent to is gone when it is sent again.
#[tokio::test]
async fn a_request_that_is_sent_again_in_vain_goes_to_another() {
    let (authority, wire, app) = (Authority::start(HOUR).await, Wire::default(), App::named("app").await);
    let (cut, asked) = (wire.clone(), Arc::new(AtomicUsize::new(0)));
    let listener = TcpListener::bind("127.0.2.8:0").await.unwrap();
    let going = listener.local_addr().unwrap();
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        drop(listener);
        stream.read_u8().await.unwrap();
        count.fetch_add(1, Ordering::Relaxed);
        cut.cut();
        std::future::pending::<()>().await;
    });
    let behind = |address| Setup::new().identified(SERVER, &authority).original_of(LOOPBACK, address).start();
    let (good, bad) = (behind(app.address).await, behind(going).await);
    let endpoints = [good.proxy.addresses().inbound, wire.tap(bad.proxy.addresses().inbound).await];
    let client = Setup::new().identified(CLIENT, &authority).original(1, ([10, 96, 0, 1], 80).into()).start().await;
    for address in endpoints {
        client.control.identify(address, SERVER);
        client.control.carry(address);
    }
    client.control.service("web", ([10, 96, 0, 1], 80).into(), &endpoints);
    let mut connection = client.connect(1).await;
    for _ in 0..200 {
        let reply = connection.get("/", &[]).await;
        assert_eq!((reply.status.as_u16(), served_by(&reply.body)), (200, "app"), "{reply:?}");
        if asked.load(Ordering::Relaxed) > 0 {
            return;
        }
    }
    panic!("the one that goes was never asked");
}

#[tokio::test]
async fn an_application_cannot_say_that_it_was_not_reached() {
    let authority = Authority::start(HOUR).await;
    let app = App::http(|_| async {
        let mut response = text(200, "answered");
        response.headers_mut().insert("meshgate-proxy-unsent", "application".parse().unwrap());
        response
    })
    .await;
    let server = Setup::new().identified(SERVER, &authority).original_of(LOOPBACK, app.address).start().await;
    let client = Setup::new().identified(CLIENT, &authority).original(1, ([10, 96, 0, 1], 80).into()).start().await;
    let address = server.proxy.addresses().inbound;
    client.control.identify(address, SERVER);
    client.control.service("web", ([10, 96, 0, 1], 80).into(), &[address]);
    let reply = client.connect(1).await.get("/", &[]).await;
    assert_eq!((reply.status.as_u16(), &*reply.body, app.requests()), (200, "answered", 1));
    let mut http2 = h2(crate::support::client(1), client.proxy.addresses().outbound[0]).await;
    let request = http::Request::get("http://web/").body(Empty::<Bytes>::new().boxed_unsync()).unwrap();
    let response = http2.send_request(request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers().get("meshgate-proxy-unsent")), (200, None));
    assert_eq!(
        (response.into_body().collect().await.unwrap().to_bytes().as_ref(), app.requests()),
        (&b"answered"[..], 2)
    );
}

#[tokio::test]
async fn a_new_certificate_costs_no_request() {
    let authority = Authority::start(Duration::from_millis(100)).await;
    let often = |name| Setup::new().identified(name, &authority).with("LINKERD2_PROXY_IDENTITY_MIN_REFRESH", "20ms");
    let pair = Pair::start(often(CLIENT), often(SERVER), Some(SERVER)).await;
    let mut kept = pair.client.connect(1).await;
    let refreshes = || pair.client.sum(&["control_identity_cert_refreshes_total", "result=\"ok\""]);
    let mut rounds = 0;
    while refreshes().await < 10 {
        let reply = kept.get("/", &[]).await;
        assert!(reply.status == 200 && reply.body.contains(CLIENT), "{reply:?}");
        // Takes the connection between the proxies with it, so that the next request shakes hands.
        let mut last = pair.client.connect(1).await;
        last.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n").await;
        let reply = last.reply().await;
        assert!(reply.status == 200 && reply.body.contains(CLIENT), "{reply:?}");
        rounds += 1;
    }
    let shaken = pair.server.sum(&["tcp_open_total", "peer=\"src\"", "tls=\"true\""]).await;
    assert!(shaken >= rounds && rounds >= 2, "{shaken} connections in {rounds} rounds");
}

#[tokio::test]
async fn how_long_a_certificate_is_to_be_valid_is_asked_for_by_who_was_told() {
    for (lifetime, asked) in [("", None), ("90s", Some("90")), ("100ms", Some("1"))] {
        let authority = Authority::start(HOUR).await;
        let setup = Setup::new().identified(CLIENT, &authority).with("MESHGATE_PROXY_IDENTITY_LIFETIME", lifetime);
        let mesh = setup.start().await;
        mesh.wait_for_sum(&["control_identity_cert_refreshes_total", "result=\"ok\""], 1).await;
        assert_eq!(authority.asked().as_deref(), asked, "{lifetime}");
    }
}

impl Pair {
    /// The server's proxy says that it takes HTTP/1 over HTTP/2.
    async fn carrying() -> Self {
        let pair = Self::start(Setup::new(), Setup::new(), None).await;
        pair.client.control.set_profile(&pair.address.to_string(), Ok(with_http2(endpoint(pair.address))));
        pair
    }

    /// The connections that the server's proxy has taken.
    async fn connections(&self) -> u64 {
        self.server.sum(&["tcp_open_total", "direction=\"inbound\"", "peer=\"src\""]).await
    }
}

/// A whole request as a client writes it, and the answer.
async fn raw(connection: &mut Connection, request: &str) -> crate::support::Reply {
    connection.send(request).await;
    connection.reply().await
}

#[tokio::test]
async fn http1_goes_over_one_http2_connection_and_arrives_as_it_was() {
    let pair = Pair::carrying().await;
    for (request, first_line) in [
        ("GET /a?b HTTP/1.1\r\nhost: shop.test\r\n\r\n", "app GET /a?b HTTP/1.1\n"),
        ("GET http://shop.test/a HTTP/1.1\r\nhost: shop.test\r\n\r\n", "app GET http://shop.test/a HTTP/1.1\n"),
        (
            "POST /p HTTP/1.1\r\nhost: shop.test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "app POST /p HTTP/1.1\n",
        ),
        ("GET /old HTTP/1.0\r\nhost: shop.test\r\n\r\n", "app GET /old HTTP/1.0\n"),
    ] {
        let mut connection = pair.client.connect(1).await;
        let reply = raw(&mut connection, request).await;
        assert_eq!(reply.status, 200, "{request:?}: {reply:?}");
        assert!(reply.body.starts_with(first_line), "{request:?}: {}", reply.body);
        assert!(reply.body.contains("host: shop.test\n"), "{}", reply.body);
        assert!(!reply.body.contains("l5d-orig-proto") && reply.header("l5d-orig-proto").is_none(), "{reply:?}");
        assert!(!request.contains("abc") || reply.body.ends_with("\nabc"), "{}", reply.body);
    }
    assert_eq!(pair.connections().await, 1);
    assert!(pair.wire.has("PRI * HTTP/2.0"));
}

/// The control of the test above: nobody says that HTTP/2 is understood.
#[tokio::test]
async fn without_the_hint_http1_stays_http1() {
    let pair = Pair::start(Setup::new(), Setup::new(), None).await;
    assert_eq!(pair.client.connect(1).await.get("/", &[]).await.status, 200);
    assert!(pair.wire.has("GET / HTTP/1.1") && !pair.wire.has("PRI * HTTP/2.0"));
}

#[tokio::test]
async fn what_http2_cannot_say_has_a_connection_of_its_own() {
    let pair = Pair::carrying().await;
    let mut connection = pair.client.connect(1).await;
    assert_eq!(connection.get("/", &[]).await.status, 200);
    let expecting = "PUT /e HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    connection.send(expecting).await;
    assert_eq!(connection.head().await.0, 100);
    let reply = raw(&mut connection, "abc").await;
    assert!(reply.body.ends_with("\nabc"), "{}", reply.body);
    assert_eq!(pair.connections().await, 2);
    assert!(pair.wire.has("PUT /e HTTP/1.1"));
}

#[tokio::test]
async fn http2_of_the_clients_own_stays_as_it_is() {
    let pair = Pair::carrying().await;
    let mut sender = h2(crate::support::client(1), pair.client.proxy.addresses().outbound[0]).await;
    let body = http_body_util::Empty::new();
    let request = http::Request::builder().uri("http://shop.test/h2").version(http::Version::HTTP_2);
    let request = request.body(http_body_util::BodyExt::boxed_unsync(body)).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    assert!(body.starts_with(b"app GET http://shop.test/h2 HTTP/2.0\n"), "{body:?}");
}

#[tokio::test]
async fn an_idle_http2_connection_that_went_away_costs_no_request() {
    let pair = Pair::carrying().await;
    let mut connection = pair.client.connect(1).await;
    assert_eq!(connection.get("/", &[]).await.status, 200);
    for _ in 0..3 {
        pair.wire.cut();
        assert_eq!(connection.get("/", &[]).await.status, 200);
    }
}

#[tokio::test]
async fn what_goes_wrong_behind_the_other_proxy_is_between_the_proxies() {
    let authority = Authority::start(HOUR).await;
    let pair = Pair::identified(&authority).await;
    drop(pair.app);
    let reply = pair.client.connect(1).await.get("/", &[]).await;
    assert_eq!(reply.status, 502);
    assert_eq!((reply.header("l5d-proxy-error"), reply.header("l5d-proxy-connection")), (None, None));
}

/// A server's proxy that is dialled at its own port, and says hello before its clients do.
async fn greeter() -> App {
    App::tcp(|mut stream| async move {
        stream.write_all(b"hello, ").await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

/// An address with a port that is free, at which all addresses of the machine can be dialled.
async fn free_port() -> u16 {
    TcpListener::bind("0.0.0.0:0").await.unwrap().local_addr().unwrap().port()
}

/// A proxy before `app` that takes connections to its own port from proxies.
async fn direct(authority: &Authority, app: &App) -> (Mesh, u16) {
    let port = free_port().await;
    let server = Setup::new()
        .identified(SERVER, authority)
        .with("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", &format!("0.0.0.0:{port}"))
        .original_of(LOOPBACK, (app.address.ip(), port).into())
        .original(1, (app.address.ip(), port).into());
    (server.start().await, port)
}

#[tokio::test]
async fn opaque_ports_are_reached_through_the_proxys_own() {
    let (authority, app) = (Authority::start(HOUR).await, greeter().await);
    let (server, port) = direct(&authority, &app).await;
    let client = Setup::new().identified(CLIENT, &authority).original(1, app.address).start().await;
    let profile = with_opaque_transport(with_identity(endpoint(app.address), SERVER), port);
    client.control.set_profile(&app.address.to_string(), Ok(profile));

    let mut connection = client.connect(1).await;
    // The server speaks first, and nobody waits for the client to show its protocol.
    assert_eq!(connection.read(7).await, b"hello, ");
    connection.send("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(connection.read(18).await, b"GET / HTTP/1.1\r\n\r\n");
    let server_id = format!("tls=\"true\",server_id=\"{SERVER}\"");
    assert_eq!(client.sum(&["tcp_open_total", "peer=\"dst\"", &server_id]).await, 1);
    let client_id = format!("tls=\"true\",client_id=\"{CLIENT}\"");
    let target = format!("target_addr=\"{}\"", app.address);
    assert_eq!(server.sum(&["tcp_open_total", "peer=\"src\"", &client_id, &target]).await, 1);
    assert_eq!(server.sum(&["request_total"]).await, 0);
    let header =
        format!("session_protocol=\"\",target_port=\"{}\",target_name=\"\",client_id=\"{CLIENT}\"", app.address.port());
    let headers = "inbound_tcp_transport_header_connections_total";
    assert_eq!(server.metric(&format!("{headers}{{{header}}}")).await, Some(1));
    // The one that wrote the header has read none.
    assert_eq!(client.sum(&[headers]).await, 0);
}

#[tokio::test]
async fn the_proxys_own_port_is_for_proxies_that_say_who_they_are() {
    let (authority, app) = (Authority::start(HOUR).await, greeter().await);
    let (server, port) = direct(&authority, &app).await;
    // TLS without the header's protocol, then with a header but nobody's.
    let client = Setup::new().identified(CLIENT, &authority).original(1, (app.address.ip(), port).into()).start().await;
    let profile = with_identity(endpoint((app.address.ip(), port).into()), SERVER);
    client.control.set_profile(&format!("{}:{port}", app.address.ip()), Ok(profile));
    let mut connection = client.connect(1).await;
    connection.send("something that is not HTTP").await;
    assert_eq!(connection.read_to_end().await, b"");

    let mut plain = server.connect_inbound(1).await;
    plain.send(b"transport.l5d.io/v1\r\n\r\n\0\0\0\x03\x08\xa8\x46").await;
    assert_eq!(plain.read_to_end().await, b"");
    assert_eq!(app.requests(), 0);
}
