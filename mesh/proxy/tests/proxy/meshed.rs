//! Between two proxies: which TLS it is, by which names they know each other, and what each request goes over.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use linkerd2_proxy_api::destination::{
    DestinationProfile, ProtocolHint, TlsIdentity,
    protocol_hint::{H2, OpaqueTransport, Protocol},
    tls_identity::{DnsLikeIdentity, Strategy, UriLikeIdentity},
};
use rustls::{
    AlertDescription, ClientConfig, ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use crate::{
    support::{App, Authority, Mesh, Setup, endpoint, h2, served_by, text, with_http2, with_identity},
    wire::Wire,
};

const CLIENT: &str = "client.ns.serviceaccount.identity.linkerd.cluster.local";
const SERVER: &str = "server.ns.serviceaccount.identity.linkerd.cluster.local";
const URI: &str = "spiffe://cluster.local/ns/ns/sa/web";

/// What proxies dial from, here.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const HOUR: Duration = Duration::from_secs(3600);

/// A client of a proxy's inbound side that is none of ours.
async fn shake(
    mesh: &Mesh,
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
    own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.anchor().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let config = config.with_root_certificates(roots);
    let config = match own {
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let stream = mesh.connect_inbound(1).await.stream;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(SERVER).unwrap(), stream).await
}

#[tokio::test]
async fn a_client_without_tls_1_3_is_refused() {
    let (authority, app) = (Authority::start(HOUR).await, App::named("app").await);
    let mesh = Setup::new().identified(SERVER, &authority).original(1, app.address).start().await;
    let error = shake(&mesh, &authority, &[&TLS12], None).await.unwrap_err();
    let reason = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    assert_eq!(reason, Some(&rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)), "{error}");
    mesh.wait_for_sum(&["inbound_tcp_errors_total", "error=\"tls\""], 1).await;
    // The control: the same client with the version that is spoken, and with both.
    for versions in [&[&TLS13][..], &[&TLS12, &TLS13]] {
        let stream = shake(&mesh, &authority, versions, None).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    }
    assert_eq!(mesh.sum(&["inbound_tcp_errors_total", "error=\"tls\""]).await, 1);
}

#[tokio::test]
async fn a_connection_to_the_inbound_port_itself_needs_a_transport_header() {
    let authority = Authority::start(HOUR).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let setup = Setup::new().identified(SERVER, &authority);
    let setup = setup.with("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", &free.to_string());
    let mesh = setup.original(1, ([127, 0, 4, 1], free.port()).into()).start().await;
    for own in [Some(authority.certify_uri(URI)), None] {
        let mut stream = shake(&mesh, &authority, &[&TLS13], own).await.unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(answer, b"");
    }
    mesh.wait_for_sum(&["inbound_tcp_errors_total", "error=\"gateway identity required\""], 2).await;
}

#[tokio::test]
async fn a_server_may_have_a_uri_as_its_name() {
    let authority = Authority::start(HOUR).await;
    let (certificate, key) = authority.certify_uri(URI);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let app = App::tcp(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let (mut from, mut to) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
    })
    .await;
    // The second is the control: somebody else is expected there.
    for (uri, reached) in [(URI, true), ("spiffe://cluster.local/ns/ns/sa/other", false)] {
        let client = Setup::new().identified(CLIENT, &authority).original(1, app.address).start().await;
        let mut found = DestinationProfile { opaque_protocol: true, ..endpoint(app.address) };
        found.endpoint.as_mut().unwrap().tls_identity = Some(TlsIdentity {
            server_name: Some(DnsLikeIdentity { name: SERVER.to_owned() }),
            strategy: Some(Strategy::UriLikeIdentity(UriLikeIdentity { uri: uri.to_owned() })),
        });
        client.control.set_profile(&app.address.to_string(), Ok(found));
        let mut connection = client.connect(1).await;
        connection.send("hello").await;
        let expected: &[u8] = if reached { b"hello" } else { b"" };
        assert_eq!(connection.read(5).await, expected, "{uri}");
        let server_id = format!("tls=\"true\",server_id=\"{uri}\"");
        let opened = client.sum(&["tcp_open_total", "peer=\"dst\"", &server_id]).await;
        assert_eq!(opened, u64::from(reached), "{uri}");
    }
}

#[tokio::test]
async fn a_client_may_have_a_uri_as_its_name() {
    let (authority, app) = (Authority::start(HOUR).await, App::named("app").await);
    let mesh = Setup::new().identified(SERVER, &authority).original(1, app.address).start().await;
    // The second is the control: without a certificate it is nobody.
    for (own, name) in [(Some(authority.certify_uri(URI)), Some(URI)), (None, None)] {
        let mut stream = shake(&mesh, &authority, &[&TLS13], own).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut reply = Vec::new();
        // The connection may end without a goodbye; what came before is what counts.
        let _ = stream.read_to_end(&mut reply).await;
        let reply = String::from_utf8(reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
        let told = reply.lines().find_map(|line| line.strip_prefix("l5d-client-id: "));
        assert_eq!(told, name, "{reply}");
    }
    mesh.wait_for_sum(&["request_total", &format!("tls=\"true\",client_id=\"{URI}\"")], 1).await;
}

/// An application that does what it is asked to on the connection itself.
async fn upgrading() -> App {
    App::http(|mut request| async move {
        let connect = request.method() == Method::CONNECT;
        let upgrade = request.headers().get("upgrade").is_some_and(|value| value == "websocket");
        if !connect && !upgrade {
            return text(200, "plain");
        }
        tokio::spawn(async move {
            let stream = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
            let (mut from, mut to) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        let mut response = text(if connect { 200 } else { 101 }, "");
        if upgrade {
            response.headers_mut().insert("upgrade", HeaderValue::from_static("websocket"));
            response.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
        }
        response
    })
    .await
}

#[tokio::test]
async fn what_becomes_another_protocol_has_a_connection_of_its_own_between_proxies() {
    let (authority, app) = (Authority::start(HOUR).await, upgrading().await);
    let upgrade = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let connect = "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n";
    for identified in [true, false] {
        let setup = |name| if identified { Setup::new().identified(name, &authority) } else { Setup::new() };
        let server = setup(SERVER).original_of(LOOPBACK, app.address).start().await;
        let wire = Wire::default();
        let address = wire.tap(server.proxy.addresses().inbound).await;
        let client = setup(CLIENT).original(1, address).start().await;
        let found = with_http2(endpoint(address));
        let found = if identified { with_identity(found, SERVER) } else { found };
        client.control.set_profile(&address.to_string(), Ok(found));
        let connections = || server.sum(&["tcp_open_total", "direction=\"inbound\"", "peer=\"src\""]);

        // The control: requests share one connection, of HTTP/2.
        for _ in 0..2 {
            assert_eq!(client.connect(1).await.get("/", &[]).await.body, "plain");
        }
        assert_eq!(connections().await, 1, "{identified}");
        assert_eq!(wire.has("PRI * HTTP/2.0"), !identified);
        for (request, status, expected) in [(upgrade, 101, 2), (connect, 200, 3)] {
            let mut connection = client.connect(1).await;
            connection.send(request).await;
            assert_eq!(connection.head().await.0, status, "{request}");
            for message in ["hello", "again"] {
                connection.send(message).await;
                assert_eq!(connection.read(5).await, message.as_bytes(), "{request}");
            }
            assert_eq!(connections().await, expected, "{request}");
            let line = request.lines().next().unwrap();
            assert_eq!(wire.has(line), !identified, "{request}");
        }
    }
}

/// With the header a client says which HTTP it speaks, and nobody looks for it.
#[tokio::test]
async fn a_header_says_which_http_is_spoken() {
    let (authority, app) = (Authority::start(HOUR).await, App::named("app").await);
    for (protocol, session) in [(Some(Protocol::H2(H2 {})), "http/2"), (None, "http/1")] {
        let own = TcpListener::bind("0.0.0.0:0").await.unwrap().local_addr().unwrap().port();
        let server = Setup::new()
            .identified(SERVER, &authority)
            .with("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", &format!("0.0.0.0:{own}"))
            .original_of(LOOPBACK, SocketAddr::new(app.address.ip(), own))
            .start()
            .await;
        let client = Setup::new().identified(CLIENT, &authority).original(1, app.address).start().await;
        let mut found = with_identity(endpoint(app.address), SERVER);
        found.endpoint.as_mut().unwrap().protocol_hint =
            Some(ProtocolHint { protocol, opaque_transport: Some(OpaqueTransport { inbound_port: own.into() }) });
        client.control.set_profile(&app.address.to_string(), Ok(found));

        let reply = client.connect(1).await.get("/path", &[]).await;
        assert_eq!((reply.status.as_u16(), served_by(&reply.body)), (200, "app"), "{reply:?}");
        assert!(reply.body.starts_with("app GET /path HTTP/1.1\n"), "{}", reply.body);
        assert!(reply.body.contains(&format!("l5d-client-id: {CLIENT}\n")), "{}", reply.body);
        let port = app.address.port();
        let labels =
            format!("session_protocol=\"{session}\",target_port=\"{port}\",target_name=\"\",client_id=\"{CLIENT}\"");
        let headers = format!("inbound_tcp_transport_header_connections_total{{{labels}}}");
        assert_eq!(server.metric(&headers).await, Some(1), "{session}");
        assert_eq!(server.sum(&["inbound_tcp_detect_http_results_total"]).await, 0, "{session}");
        let target = format!("target_addr=\"{}\"", app.address);
        server.wait_for_sum(&["request_total", "direction=\"inbound\"", &target], 1).await;
    }
}

/// An application that hangs up on whoever asks it something.
async fn failing() -> App {
    App::tcp(|mut stream| async move {
        let _ = stream.read_u8().await;
    })
    .await
}

/// As with Linkerd's proxy, where a client goes to one endpoint only: what has become of its connection there has become of it here.
#[tokio::test]
async fn a_clients_connection_ends_with_the_one_behind_the_other_proxy() {
    let authority = Authority::start(HOUR).await;
    let gone = TcpListener::bind("127.0.2.9:0").await.unwrap().local_addr().unwrap();
    let failing = failing().await;
    for (address, forwarded) in [(failing.address, true), (gone, true), (failing.address, false), (gone, false)] {
        let server = Setup::new().identified(SERVER, &authority).original_of(LOOPBACK, address).start().await;
        let own = server.proxy.addresses().inbound;
        let dialled = if forwarded { own } else { ([10, 96, 0, 1], 80).into() };
        let client = Setup::new().identified(CLIENT, &authority).original(1, dialled).start().await;
        client.control.identify(own, SERVER);
        if forwarded {
            client.control.set_profile(&own.to_string(), Ok(with_identity(endpoint(own), SERVER)));
        } else {
            client.control.service("web", dialled, &[own]);
        }
        let mut connection = client.connect(1).await;
        let reply = connection.get("/", &[]).await;
        assert_eq!(reply.status, 502, "{reply:?}");
        assert_eq!(reply.header("l5d-proxy-connection"), None, "{reply:?}");
        assert_eq!(reply.header("connection"), forwarded.then_some("close"), "{address}: {reply:?}");
        if forwarded {
            assert_eq!(connection.read_to_end().await, b"");
        } else {
            assert_eq!(connection.get("/", &[]).await.status, 502);
        }

        // What breaks in HTTP/2 is passed on as it is.
        if address != gone {
            continue;
        }
        let mut sender = h2(crate::support::client(1), client.proxy.addresses().outbound[0]).await;
        let ask = || http::Request::get("http://web/").body(Empty::<Bytes>::new().boxed_unsync()).unwrap();
        assert_eq!(sender.send_request(ask()).await.unwrap().status(), 502);
        if forwarded {
            let ended = async {
                while sender.ready().await.is_ok() {
                    tokio::task::yield_now().await
                }
            };
            tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the connection stays");
        } else {
            assert_eq!(sender.send_request(ask()).await.unwrap().status(), 502);
        }
    }
}

/// The control of the test above: an application may say what it likes.
#[tokio::test]
async fn only_a_proxy_ends_connections() {
    let app = App::http(|_| async {
        let mut response = text(200, "answered");
        response.headers_mut().insert("l5d-proxy-connection", HeaderValue::from_static("close"));
        response
    })
    .await;
    let mesh = Setup::new().original(1, app.address).start().await;
    let mut connection = mesh.connect(1).await;
    for _ in 0..2 {
        let reply = connection.get("/", &[]).await;
        assert_eq!((&*reply.body, reply.header("connection")), ("answered", None), "{reply:?}");
    }
}
