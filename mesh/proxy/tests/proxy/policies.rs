//! Who may connect to a port of the pod.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use linkerd2_proxy_api::{
    http_route::{HeaderMatch, HttpRouteMatch, PathMatch, RequestRedirect, header_match, path_match},
    inbound::{
        HttpLocalRateLimit, HttpRoute, Identity, Server,
        http_local_rate_limit::{Limit, Override, r#override::ClientIdentities},
        http_route,
        proxy_protocol::{Detect, Http1, Kind, Opaque},
    },
    meta::{Metadata, Resource, metadata},
};
use tokio::io::AsyncWriteExt;

use crate::support::{
    App, Authority, Connection, Reply, Setup, Who, authz, endpoint, served_by, server, with_identity,
};

const CLIENT: &str = "client.ns.serviceaccount.identity.linkerd.cluster.local";
const SERVER: &str = "server.ns.serviceaccount.identity.linkerd.cluster.local";

/// Where a client is that is not in the pod.
const ELSEWHERE: &str = "10.1.2.3";

fn detect(http_routes: Vec<HttpRoute>) -> Kind {
    let timeout = Some(prost_types::Duration { seconds: 10, nanos: 0 });
    Kind::Detect(Detect { timeout, http_routes, http_local_rate_limit: None })
}

fn open() -> Server {
    server(detect(vec![]), vec![authz("all", Who::Anybody)])
}

fn closed() -> Server {
    server(detect(vec![]), vec![])
}

async fn echo() -> App {
    App::tcp(|mut stream| async move {
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await
}

/// Asks until the policy that answers like this is in force; the reply, and how many were asked before.
async fn until(connection: &mut Connection, path: &str, status: u16) -> (Reply, usize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    for before in 0.. {
        let reply = connection.get(path, &[]).await;
        if reply.status == status {
            return (reply, before);
        }
        assert!(Instant::now() < deadline, "{path} is answered {}, not {status}", reply.status);
    }
    unreachable!()
}

#[tokio::test]
async fn each_request_is_judged_by_the_policy_as_it_is_then() {
    let app = App::named("app").await;
    let port = app.address.port();
    let setup = Setup::new().with("LINKERD2_PROXY_INBOUND_PORTS", &port.to_string());
    let mesh = setup.original_from(1, ELSEWHERE, app.address).original(2, app.address).start().await;
    let mut connection = mesh.connect_inbound(1).await;
    // Nobody has said anything yet: the default.
    assert_eq!(connection.get("/", &[]).await.status, 200);

    mesh.control.set_server(port, closed());
    let (refused, before) = until(&mut connection, "/", 403).await;
    assert_eq!((&*refused.body, refused.header("l5d-proxy-error")), ("", None));
    assert_eq!(app.requests(), 1 + before, "a request that is refused goes nowhere");
    // Control: the pod itself may.
    assert_eq!(mesh.connect_inbound(2).await.get("/", &[]).await.status, 200);

    mesh.control.set_server(port, open());
    let (_, refused) = until(&mut connection, "/", 200).await;

    let target = format!("target_addr=\"{}\"", app.address);
    let server = format!("srv_group=\"policy.linkerd.io\",srv_kind=\"server\",srv_name=\"web\",srv_port=\"{port}\"");
    let route = "route_group=\"\",route_kind=\"default\",route_name=\"default\"";
    let by = |name: &str| format!("{server},{route},authz_group=\"\",authz_kind=\"default\",authz_name=\"{name}\"");
    for name in ["localhost", "all"] {
        assert_eq!(mesh.sum(&["inbound_http_authz_allow_total", &target, &by(name)]).await, 1, "{name}");
        assert_eq!(mesh.sum(&["request_total", &by(name)]).await, 1, "{name}");
    }
    let denied = mesh.sum(&["inbound_http_authz_deny_total", &target, &format!("{server},{route}")]).await;
    assert_eq!(denied, 1 + refused as u64);
    assert_eq!(mesh.metric("inbound_http_errors_total{error=\"unauthorized\"}").await, Some(denied));
}

#[tokio::test]
async fn only_the_client_that_is_named_may() {
    let authority = Authority::start(Duration::from_secs(3600)).await;
    let app = App::named("app").await;
    let (port, own) = (app.address.port(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    let server_side =
        Setup::new().identified(SERVER, &authority).with("LINKERD2_PROXY_INBOUND_PORTS", &port.to_string());
    let seen = ELSEWHERE.parse().unwrap();
    let server_side = server_side.original_from(1, ELSEWHERE, app.address).original_seen(own, seen, app.address);
    let server_side = server_side.start().await;
    let address = server_side.proxy.addresses().inbound;
    let found = with_identity(endpoint(address), SERVER);
    let client_side = |name| {
        let (setup, found) = (Setup::new().identified(name, &authority).original(1, address), found.clone());
        async move {
            let mesh = setup.start().await;
            mesh.control.set_profile(&address.to_string(), Ok(found));
            mesh
        }
    };
    let (named, other) =
        (client_side(CLIENT).await, client_side("other.ns.serviceaccount.identity.linkerd.cluster.local").await);
    server_side.control.set_server(port, server(detect(vec![]), vec![authz("friends", Who::Identity(CLIENT))]));

    let mut plaintext = server_side.connect_inbound(1).await;
    until(&mut plaintext, "/", 403).await;
    assert_eq!(served_by(&named.connect(1).await.get("/", &[]).await.body), "app");
    let refused = other.connect(1).await.get("/", &[]).await;
    assert_eq!(refused.status, 403);
    let client_id = format!("tls=\"true\",client_id=\"{CLIENT}\"");
    server_side.wait_for_sum(&["inbound_http_authz_allow_total", "authz_name=\"friends\"", &client_id], 1).await;
    assert_eq!(server_side.sum(&["inbound_http_authz_deny_total", "client_id=\"other.ns"]).await, 1);
}

#[tokio::test]
async fn routes_may_be_open_where_the_server_is_not() {
    let app = App::named("app").await;
    let port = app.address.port();
    let mesh = Setup::new().original_from(1, ELSEWHERE, app.address).start().await;
    let route = |path: &str, filters, authorizations| HttpRoute {
        rules: vec![http_route::Rule {
            matches: vec![HttpRouteMatch {
                path: Some(PathMatch { kind: Some(path_match::Kind::Exact(path.to_owned())) }),
                ..Default::default()
            }],
            filters,
        }],
        authorizations,
        ..Default::default()
    };
    let away = RequestRedirect { host: "elsewhere.example".to_owned(), status: 301, ..Default::default() };
    let away = http_route::Filter { kind: Some(http_route::filter::Kind::Redirect(away)) };
    let anybody = || vec![authz("probe", Who::Anybody)];
    let routes =
        vec![route("/ready", vec![], anybody()), route("/away", vec![away], anybody()), route("/data", vec![], vec![])];
    mesh.control.set_server(port, server(detect(routes), vec![]));
    let mut connection = mesh.connect_inbound(1).await;
    until(&mut connection, "/data", 403).await;
    assert_eq!(connection.get("/ready", &[]).await.status, 200);
    assert_eq!(connection.get("/other", &[]).await.status, 404);
    let away = connection.get("/away?a=b", &[]).await;
    assert_eq!((away.status.as_u16(), away.header("location")), (301, Some("http://elsewhere.example/away?a=b")));
    assert_eq!(mesh.sum(&["inbound_http_route_not_found_total", "srv_name=\"web\""]).await, 1);
}

#[tokio::test]
async fn a_client_that_asks_too_much_is_told_so() {
    let authority = Authority::start(Duration::from_secs(3600)).await;
    let app = App::named("app").await;
    let (port, own) = (app.address.port(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    let setup = Setup::new().identified(SERVER, &authority).original_seen(own, own, app.address);
    let server_side = setup.original_from(1, ELSEWHERE, app.address).start().await;
    let address = server_side.proxy.addresses().inbound;
    let client_side = Setup::new().identified(CLIENT, &authority).original(1, address).start().await;
    client_side.control.set_profile(&address.to_string(), Ok(with_identity(endpoint(address), SERVER)));
    let favoured = Override {
        limit: Some(Limit { requests_per_second: 1 }),
        clients: Some(ClientIdentities { identities: vec![Identity { name: CLIENT.to_owned() }] }),
    };
    let resource = Resource {
        group: "policy.linkerd.io".to_owned(),
        kind: "HTTPLocalRateLimitPolicy".to_owned(),
        name: "calm".to_owned(),
        ..Default::default()
    };
    let limits = HttpLocalRateLimit {
        metadata: Some(Metadata { kind: Some(metadata::Kind::Resource(resource)) }),
        overrides: vec![favoured],
        ..Default::default()
    };
    let timeout = Some(prost_types::Duration { seconds: 10, nanos: 0 });
    let kind = Kind::Detect(Detect { timeout, http_routes: vec![], http_local_rate_limit: Some(limits) });
    server_side.control.set_server(port, server(kind, vec![authz("all", Who::Anybody)]));

    // Requests that come faster than one in a second, however slow the machine is: one of them is too many.
    let deadline = Instant::now() + Duration::from_secs(60);
    let refused = loop {
        let replies =
            futures::future::join_all((0..20).map(|_| async { client_side.connect(1).await.get("/", &[]).await }));
        let refused = replies.await.into_iter().find(|reply| reply.status == 429);
        if let Some(refused) = refused {
            break refused;
        }
        assert!(Instant::now() < deadline, "no request was too many");
    };
    // The reason is between the proxies.
    assert_eq!((&*refused.body, refused.header("l5d-proxy-error")), ("", None));
    assert_eq!(refused.header("connection"), None, "the connection stays open");
    let counted = "srv_name=\"web\"";
    let by = "ratelimit_group=\"policy.linkerd.io\",ratelimit_kind=\"HTTPLocalRateLimitPolicy\",ratelimit_name=\"calm\",\
              ratelimit_scope=\"override\"";
    let client = format!("client_id=\"{CLIENT}\"");
    assert!(server_side.sum(&["inbound_http_local_ratelimit_total", counted, by, &client]).await >= 1);
    // Control: whom no limit is for is not limited.
    let mut other = server_side.connect_inbound(1).await;
    for _ in 0..20 {
        assert_eq!(other.get("/", &[]).await.status, 200);
    }
}

#[tokio::test]
async fn a_route_for_an_identity_is_not_for_whoever_claims_it() {
    let app = App::named("app").await;
    let port = app.address.port();
    let mesh = Setup::new().original_from(1, ELSEWHERE, app.address).start().await;
    let header = HeaderMatch {
        name: "l5d-client-id".to_owned(),
        value: Some(header_match::Value::Exact(CLIENT.as_bytes().to_vec())),
    };
    let one = HttpRouteMatch { headers: vec![header], ..Default::default() };
    let route = HttpRoute {
        rules: vec![http_route::Rule { matches: vec![one], filters: vec![] }],
        authorizations: vec![authz("all", Who::Anybody)],
        ..Default::default()
    };
    mesh.control.set_server(port, server(detect(vec![route]), vec![]));
    let mut connection = mesh.connect_inbound(1).await;
    until(&mut connection, "/", 404).await;
    assert_eq!(connection.get("/", &[("l5d-client-id", CLIENT)]).await.status, 404);
}

#[tokio::test]
async fn a_connection_ends_when_it_may_be_no_longer() {
    let app = echo().await;
    let port = app.address.port();
    let mesh = Setup::new().original_from(1, ELSEWHERE, app.address).original(2, app.address).start().await;
    mesh.control.set_server(port, server(Kind::Opaque(Opaque {}), vec![authz("all", Who::Anybody)]));
    let mut one = mesh.connect_inbound(1).await;
    one.send("not looked into").await;
    assert_eq!(one.read(15).await, b"not looked into");
    mesh.wait_for_sum(&["inbound_tcp_authz_allow_total"], 1).await;

    mesh.control.set_server(port, server(Kind::Opaque(Opaque {}), vec![]));
    assert_eq!(one.read_to_end().await, b"");
    mesh.wait_for_sum(&["inbound_tcp_authz_terminate_total"], 1).await;
    assert_eq!(mesh.connect_inbound(1).await.read_to_end().await, b"");
    mesh.wait_for_sum(&["inbound_tcp_authz_deny_total", "srv_name=\"web\""], 1).await;
    // Control: the pod's own connections go on.
    let mut own = mesh.connect_inbound(2).await;
    own.send("own").await;
    assert_eq!(own.read(3).await, b"own");
    assert_eq!(app.requests(), 2, "a connection that is refused goes nowhere");
}

#[tokio::test]
async fn the_default_holds_where_nobody_answers() {
    let app = App::named("app").await;
    for (policy, status) in [("all-unauthenticated", 200), ("all-authenticated", 403), ("deny", 403)] {
        let setup = Setup::new().with("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", policy);
        let mesh = setup.original_from(1, ELSEWHERE, app.address).original(2, app.address).start().await;
        assert_eq!(mesh.connect_inbound(1).await.get("/", &[]).await.status, status, "{policy}");
        assert_eq!(mesh.connect_inbound(2).await.get("/", &[]).await.status, 200, "{policy}");
    }
}

#[tokio::test]
async fn where_http1_is_said_http1_is_spoken() {
    let app = App::named("app").await;
    let port = app.address.port();
    let mesh = Setup::new().original_from(1, ELSEWHERE, app.address).start().await;
    let kind = Kind::Http1(Http1 { routes: vec![], local_rate_limit: None });
    mesh.control.set_server(port, server(kind, vec![authz("all", Who::Anybody)]));
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        // By detection these bytes are no HTTP, and would be passed on.
        let mut connection = mesh.connect_inbound(1).await;
        connection.send("this is not a request of any kind\r\n\r\n").await;
        connection.stream.shutdown().await.unwrap();
        let answer = connection.read_to_end().await;
        if answer.starts_with(b"HTTP/1.1 400 ") && mesh.sum(&["tcp_open_total", "srv_name=\"web\""]).await > 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{}", String::from_utf8_lossy(&answer));
    }
}
