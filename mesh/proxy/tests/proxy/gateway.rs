//! Services of other clusters, and the gateway that they are reached through.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use linkerd2_proxy_api::destination::{AuthorityOverride, DestinationProfile};
use tokio::net::TcpListener;

use crate::support::{App, Authority, Mesh, Setup, endpoint, h2, profile, route, served_by, with_http2, with_identity};

const CLIENT: &str = "client.ns.serviceaccount.identity.linkerd.cluster.local";
const GATEWAY: &str = "gateway.ns.serviceaccount.identity.linkerd.cluster.local";
const WEB: &str = "web.ns.svc.cluster.local";

/// What proxies dial from, here.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// And from where they seem to come, for the pod's own may do as they like.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));

const HOUR: Duration = Duration::from_secs(3600);

fn named(mut profile: DestinationProfile, authority: &str) -> DestinationProfile {
    let authority = AuthorityOverride { authority_override: authority.to_owned() };
    profile.endpoint.as_mut().unwrap().authority_override = Some(authority);
    profile
}

/// The proxy of a gateway to its cluster's Services, and where it listens.
async fn gateway(setup: Setup, authority: &Authority) -> (Mesh, SocketAddr) {
    let own = TcpListener::bind("0.0.0.0:0").await.unwrap().local_addr().unwrap().port();
    let address = SocketAddr::new(LOOPBACK, own);
    let setup = setup
        .identified(GATEWAY, authority)
        .with("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", &format!("0.0.0.0:{own}"))
        .original_seen(LOOPBACK, ELSEWHERE, address);
    (setup.start().await, address)
}

/// One that is for whoever says who it is.
fn serving() -> Setup {
    Setup::new()
        .with("LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES", "svc.cluster.local.")
        .with("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", "all-authenticated")
}

/// A proxy whose application dials a Service that is `found` behind a gateway.
async fn client(name: &str, authority: &Authority, gateway: SocketAddr, found: DestinationProfile) -> Mesh {
    let mesh = Setup::new().identified(name, authority).original(1, gateway).start().await;
    mesh.control.set_profile(&gateway.to_string(), Ok(with_identity(found, GATEWAY)));
    mesh
}

fn opaque(profile: DestinationProfile) -> DestinationProfile {
    DestinationProfile { opaque_protocol: true, ..profile }
}

async fn echo() -> App {
    App::tcp(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

#[tokio::test]
async fn requests_go_on_to_the_service_that_they_are_for() {
    let (authority, app) = (Authority::start(HOUR).await, App::named("app").await);
    let forwarded = format!("forwarded: by={GATEWAY};for={CLIENT};host={WEB};proto=https\n");
    for (carried, session) in [(true, "http/2"), (false, "http/1")] {
        let (gateway, address) = gateway(serving(), &authority).await;
        gateway.control.service("web", ([10, 96, 0, 1], 80).into(), &[app.address]);
        let found = named(endpoint(address), &format!("{WEB}:80"));
        let found = if carried { with_http2(found) } else { found };
        let client = client(CLIENT, &authority, address, found).await;

        let reply = client.connect(1).await.get("/path", &[("host", "web-east"), ("x-own", "kept")]).await;
        assert_eq!((reply.status.as_u16(), served_by(&reply.body)), (200, "app"), "{reply:?}");
        assert!(reply.body.starts_with("app GET /path HTTP/1.1\n"), "{}", reply.body);
        for line in [&format!("host: {WEB}\n"), &forwarded, "x-own: kept\n"] {
            assert!(reply.body.contains(line), "{line} in {}", reply.body);
        }
        assert!(!reply.body.contains("web-east"), "{}", reply.body);

        let mut sender = h2(crate::support::client(1), client.proxy.addresses().outbound[0]).await;
        let request =
            http::Request::post("http://web-east/h2").body(Full::<Bytes>::from("body").boxed_unsync()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let body = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap();
        assert!(body.starts_with(&format!("app POST http://{WEB}:80/h2 HTTP/2.0\n")), "{body}");
        assert!(body.contains(&forwarded) && body.ends_with("\nbody") && !body.contains("web-east"), "{body}");

        let header = format!(
            "inbound_tcp_transport_header_connections_total{{session_protocol=\"{session}\",target_port=\"80\",\
             target_name=\"{WEB}\",client_id=\"{CLIENT}\"}}"
        );
        assert_eq!(gateway.metric(&header).await, Some(1), "{session}");
        let allowed = format!("target_addr=\"{address}\"");
        assert_eq!(gateway.sum(&["inbound_http_authz_allow_total", &allowed]).await, 2);
        let authority = format!("authority=\"{WEB}\"");
        gateway.wait_for_sum(&["response_total", "direction=\"outbound\"", &authority], 2).await;
    }
}

#[tokio::test]
async fn other_bytes_go_on_as_well() {
    let (authority, app) = (Authority::start(HOUR).await, echo().await);
    let (gateway, address) = gateway(serving(), &authority).await;
    gateway.control.service("db", ([10, 96, 0, 2], 5432).into(), &[app.address]);
    let found = opaque(named(endpoint(address), "db.ns.svc.cluster.local:5432"));
    let client = client(CLIENT, &authority, address, found).await;
    let mut connection = client.connect(1).await;
    connection.send("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(connection.read(18).await, b"GET / HTTP/1.1\r\n\r\n");
    let header = ["inbound_tcp_transport_header_connections_total", "target_name=\"db.ns.svc.cluster.local\""];
    assert_eq!(gateway.sum(&header).await, 1);
    assert_eq!(gateway.sum(&["inbound_tcp_authz_allow_total"]).await, 1);
}

#[tokio::test]
async fn a_gateway_is_one_for_some_clients_and_some_names() {
    let (authority, app) = (Authority::start(HOUR).await, App::named("app").await);
    let nobody = || serving().with("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", "deny");
    let elsewhere = "web.ns.svc.elsewhere.example";
    for (setup, who, name, status, error) in [
        (serving(), CLIENT, elsewhere, 404, "gateway domain invalid"),
        (Setup::new(), CLIENT, WEB, 404, "gateway domain invalid"),
        (nobody(), CLIENT, WEB, 403, "unauthorized"),
        (serving(), GATEWAY, WEB, 508, "gateway loop"),
        (serving(), CLIENT, "nothing.ns.svc.cluster.local", 404, "unexpected"),
        // The control.
        (serving(), CLIENT, WEB, 200, ""),
    ] {
        let (gateway, address) = gateway(setup, &authority).await;
        gateway.control.service("web", ([10, 96, 0, 1], 80).into(), &[app.address]);
        let nothing = "nothing.ns.svc.cluster.local:80";
        gateway.control.set_profile(nothing, Err(tonic::Code::NotFound));
        let before = app.requests();
        let found = named(endpoint(address), &format!("{name}:80"));
        let http = client(who, &authority, address, found.clone()).await;
        let reply = http.connect(1).await.get("/", &[]).await;
        assert_eq!(reply.status, status, "{error}: {reply:?}");
        let served = usize::from(status == 200);
        assert_eq!(app.requests() - before, served, "{error}");
        let errors = format!("error=\"{error}\"");
        assert_eq!(gateway.sum(&["inbound_http_errors_total", &errors]).await, 1 - served as u64, "{error}");

        let bytes = client(who, &authority, address, opaque(found)).await;
        let mut connection = bytes.connect(1).await;
        connection.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert_eq!(connection.read_to_end().await.is_empty(), served == 0, "{error}");
        assert_eq!(app.requests() - before, 2 * served, "{error}");
    }
}

#[tokio::test]
async fn what_a_gateway_has_forwarded_comes_back_in_vain() {
    let (authority, app) = (Authority::start(HOUR).await, App::named("app").await);
    let (gateway, address) = gateway(serving(), &authority).await;
    gateway.control.service("web", ([10, 96, 0, 1], 80).into(), &[app.address]);
    let found = named(with_http2(endpoint(address)), &format!("{WEB}:80"));
    let client = client(CLIENT, &authority, address, found).await;
    let mut connection = client.connect(1).await;
    for (by, status) in [(GATEWAY, 508), ("other.ns.serviceaccount.identity.linkerd.cluster.local", 200)] {
        let reply = connection.get("/", &[("forwarded", &format!("for=a;by={by}"))]).await;
        assert_eq!(reply.status, status, "{by}: {reply:?}");
        assert_eq!(reply.header("l5d-proxy-error").is_some(), status == 508, "{reply:?}");
    }
    assert_eq!(app.requests(), 1);
}

/// Without TLS, and so without a header.
#[tokio::test]
async fn requests_have_the_name_that_the_control_plane_says() {
    let app = App::named("app").await;
    let mesh = Setup::new().original(1, ([10, 96, 0, 1], 80).into()).start().await;
    let mut apex = profile("web-east.ns.svc.cluster.local");
    apex.routes = vec![route("any", "/.*")];
    mesh.control.set_profile("10.96.0.1:80", Ok(apex));
    mesh.control.rename(app.address, &format!("{WEB}:8080"));
    mesh.control.set_endpoints("web-east.ns.svc.cluster.local:80", &[app.address]);
    let reply = mesh.connect(1).await.get("/path", &[("host", "web-east")]).await;
    assert!(reply.body.starts_with("app GET /path HTTP/1.1\n"), "{}", reply.body);
    assert!(reply.body.contains(&format!("host: {WEB}:8080\n")), "{}", reply.body);
    assert!(!reply.body.contains("web-east") && !reply.body.contains("l5d-dst-canonical"), "{}", reply.body);
}

#[tokio::test]
async fn a_name_is_for_one_endpoint_and_not_for_the_next() {
    let app = App::named("app").await;
    let mesh = Setup::ingress().original(1, app.address).start().await;
    let gone = [1, 2, 3].map(|last| SocketAddr::from(([127, 0, 9, last], 1)));
    gone.iter().for_each(|address| mesh.control.rename(*address, &format!("{WEB}:80")));
    let endpoints = [&gone[..], &[app.address]].concat();
    // Which endpoint comes first is chance, so that is tried with several balancers.
    for n in 1..=10 {
        mesh.control.service(&format!("s{n}"), ([10, 96, 0, n], 80).into(), &endpoints);
        let name = format!("s{n}.ns.svc.cluster.local:80");
        let reply = mesh.connect(1).await.get("/", &[("l5d-dst-override", &name), ("host", "own")]).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.body.contains("host: own\n"), "{}", reply.body);
    }
}

/// Behind a port that takes no header none is written.
#[tokio::test]
async fn who_does_not_know_of_headers_gets_none() {
    let (authority, app) = (Authority::start(HOUR).await, App::named("app").await);
    let server = Setup::new().identified(GATEWAY, &authority).original_of(LOOPBACK, app.address).start().await;
    let address = server.proxy.addresses().inbound;
    let client = client(CLIENT, &authority, address, named(endpoint(address), &format!("{WEB}:80"))).await;
    let reply = client.connect(1).await.get("/", &[("host", "web-east")]).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.body.contains(&format!("host: {WEB}:80\n")), "{}", reply.body);
    assert_eq!(server.sum(&["inbound_tcp_transport_header_connections_total"]).await, 0);
}
