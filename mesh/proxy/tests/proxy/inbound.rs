//! Connections to the pod, and requests that come back.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::support::{App, Connection, Setup, client, profile, route, served_by, text};

#[tokio::test]
async fn requests_reach_the_application_and_are_counted() {
    let app = App::named("app").await;
    let mesh = Setup::new().original(1, app.address).start().await;
    mesh.control.set_profile(
        "web.ns.svc.cluster.local:80",
        Ok(linkerd2_proxy_api::destination::DestinationProfile {
            routes: vec![route("a", "/a")],
            ..profile("web.ns.svc.cluster.local")
        }),
    );
    let mut connection = mesh.connect_inbound(1).await;
    let reply = connection.get("/a", &[("l5d-dst-override", "kept"), ("host", "web.ns.svc.cluster.local")]).await;
    assert!(reply.body.contains("l5d-dst-override: kept\n") && reply.body.starts_with("app GET /a "), "{}", reply.body);
    connection.get("/b", &[("l5d-dst-canonical", "web.ns.svc.cluster.local:80")]).await;
    connection.get("/c", &[]).await;

    let (ip, port) = (app.address.ip(), app.address.port());
    let labels = format!(
        "direction=\"inbound\",target_addr=\"{ip}:{port}\",target_ip=\"{ip}\",target_port=\"{port}\",\
         tls=\"no_identity\",no_tls_reason=\"no_tls_from_remote\",srv_group=\"\",srv_kind=\"default\",\
         srv_name=\"all-unauthenticated\",srv_port=\"{port}\",route_group=\"\",route_kind=\"default\",\
         route_name=\"default\",authz_group=\"\",authz_kind=\"default\",authz_name=\"all-unauthenticated\""
    );
    assert_eq!(mesh.metric(&format!("request_total{{{labels}}}")).await, Some(3));
    let outcome = "status_code=\"200\",classification=\"success\",grpc_status=\"\",error=\"\"";
    assert_eq!(mesh.metric(&format!("response_total{{{labels},{outcome}}}")).await, Some(3));
    let dst = "direction=\"inbound\",dst=\"web.ns.svc.cluster.local:80\"";
    assert_eq!(mesh.metric(&format!("route_response_total{{{dst},rt_route=\"a\",{outcome}}}")).await, Some(1));
    assert_eq!(mesh.metric(&format!("route_response_total{{{dst},{outcome}}}")).await, Some(1));
}

#[tokio::test]
async fn only_the_pods_own_addresses_are_served() {
    let app = App::named("app").await;
    let own = app.address.ip().to_string();
    let mesh = Setup::new()
        .with("LINKERD2_PROXY_INBOUND_IPS", &own)
        .original(1, app.address)
        .original(2, ([127, 0, 3, 1], app.address.port()).into())
        .start()
        .await;
    assert_eq!(mesh.connect_inbound(1).await.get("/", &[]).await.status, 200);
    assert_eq!(mesh.connect_inbound(2).await.read_to_end().await, b"");
}

#[tokio::test]
async fn opaque_ports_are_not_looked_into() {
    let app = App::named("app").await;
    let mesh = Setup::new()
        .with("LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", &app.address.port().to_string())
        .original(1, app.address)
        .start()
        .await;
    assert_eq!(served_by(&mesh.connect_inbound(1).await.get("/", &[]).await.body), "app");
    assert_eq!(mesh.sum(&["request_total"]).await, 0);
    assert_eq!(mesh.sum(&["tcp_open_total", "direction=\"inbound\",peer=\"dst\""]).await, 1);
}

#[tokio::test]
async fn the_inbound_port_is_no_application() {
    // The listener's port is known only after it was opened, so a free one is found first.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let setup = Setup::new().with("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", &free.to_string());
    let mesh = setup.original(1, ([127, 0, 4, 1], free.port()).into()).start().await;
    // Requests get no answer either, as with Linkerd's proxy.
    for sent in ["not http at all", "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut connection = mesh.connect_inbound(1).await;
        connection.send(sent).await;
        assert_eq!(connection.read_to_end().await, b"", "{sent}");
    }
    mesh.wait_for_sum(&["inbound_tcp_errors_total", "error=\"gateway identity required\""], 3).await;
}

/// As Linkerd's chart has it unless IPv6 is off. Clients of IPv4 are seen as `::ffff:127.9.0.1` there.
#[tokio::test]
async fn a_listener_of_both_families_serves_ipv4_as_such() {
    if let Err(error) = std::net::TcpListener::bind("[::]:0") {
        return eprintln!("skipped: this machine has no IPv6: {error}");
    }
    let app = App::named("app").await;
    let names = ["INBOUND_LISTEN_ADDR", "OUTBOUND_LISTEN_ADDRS", "ADMIN_LISTEN_ADDR"];
    let setup = names.iter().fold(Setup::new(), |setup, name| setup.with(&format!("LINKERD2_PROXY_{name}"), "[::]:0"));
    let mapped = format!("[::ffff:{}]:{}", app.address.ip(), app.address.port()).parse().unwrap();
    let setup = setup.with("LINKERD2_PROXY_INBOUND_IPS", &app.address.ip().to_string());
    let mesh = setup.original_from(1, "10.1.2.3", app.address).original(2, mapped).start().await;
    let addresses = mesh.proxy.addresses().clone();
    let at = |address: SocketAddr| SocketAddr::from(([127, 0, 0, 1], address.port()));
    for (n, address) in [(1, addresses.inbound), (2, addresses.inbound), (1, addresses.outbound[0])] {
        let reply = Connection::open(client(n), at(address)).await.get("/", &[]).await;
        assert_eq!((reply.status.as_u16(), served_by(&reply.body)), (200, "app"), "{n} at {address}");
    }
    let admin = Connection::open(client(250), at(addresses.admin)).await.get("/metrics", &[]).await;
    let target = format!("request_total{{direction=\"inbound\",target_addr=\"{}\"", app.address);
    let counted: Vec<_> = admin.body.lines().filter(|line| line.starts_with(&target)).collect();
    assert!(matches!(counted[..], [one] if one.ends_with("} 2")), "by one address: {counted:?}");
    let log = Connection::open(client(250), at(addresses.admin)).await.get("/proxy-log-level", &[]).await;
    assert_eq!(log.status, 404, "the client is on loopback, and there is no log to change");
}

#[tokio::test]
async fn no_more_requests_to_the_pod_are_without_an_answer_than_may_be() {
    let (app, answers) = App::held().await;
    let setup = Setup::new().with("LINKERD2_PROXY_INBOUND_MAX_IN_FLIGHT", "2");
    let mesh = setup.original(1, app.address).start().await;
    let mut waiting = [mesh.connect_inbound(1).await, mesh.connect_inbound(1).await];
    for connection in &mut waiting {
        connection.send("GET /later HTTP/1.1\r\nhost: web\r\n\r\n").await;
    }
    mesh.wait_for_sum(&["request_total", "direction=\"inbound\""], 2).await;
    let refused = mesh.connect_inbound(1).await.get("/", &[]).await;
    // The reason is between proxies.
    assert_eq!((refused.status.as_u16(), refused.header("l5d-proxy-error")), (503, None));
    assert_eq!(refused.header("connection"), Some("close"));
    assert_eq!(mesh.metric("inbound_http_errors_total{error=\"loadshed\"}").await, Some(1));
    assert_eq!(app.requests(), 2);

    // Control: the other side of the proxy has places of its own, and these are free again.
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.body, "answered");
    answers.add_permits(2);
    for connection in &mut waiting {
        assert_eq!(connection.reply().await.body, "answered");
    }
    assert_eq!(mesh.connect_inbound(1).await.get("/", &[]).await.body, "answered");
}

/// An ingress that sends each request through its own outbound proxy, to wherever the request says.
struct Ingress {
    app: App,
    outbound: Arc<OnceLock<SocketAddr>>,
    seen: Arc<AtomicUsize>,
}

/// After this many times, the ingress gives up by itself.
const ENOUGH: usize = 20;

impl Ingress {
    async fn start() -> Self {
        let outbound = Arc::<OnceLock<SocketAddr>>::default();
        let seen = Arc::<AtomicUsize>::default();
        let (to, counter) = (Arc::clone(&outbound), Arc::clone(&seen));
        let app = App::http(move |request| {
            let to = *to.get().unwrap();
            let times = counter.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                if times >= ENOUGH {
                    return text(200, "enough");
                }
                let mut connection = Connection::open(client(2), to).await;
                let headers: Vec<_> =
                    request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
                let reply = connection.get(request.uri().path(), &headers).await;
                let mut response = text(reply.status.as_u16(), reply.body);
                if let Some(reason) = reply.headers.get("l5d-proxy-error") {
                    response.headers_mut().insert("l5d-proxy-error", reason.clone());
                }
                response
            }
        })
        .await;
        Self { app, outbound, seen }
    }

    /// What a client from outside gets, and how often the ingress has seen its request.
    async fn ask(self, guard: &str, backend: Option<SocketAddr>) -> (crate::support::Reply, usize, u64) {
        // Whatever leaves the pod comes back to it: the outbound proxy dials from 127.0.0.1, and what arrives from
        // there is for the ingress.
        let inbound = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mesh = Setup::ingress()
            .with("MESHGATE_PROXY_LOOP_GUARD", guard)
            .with("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", &inbound.to_string())
            .original(1, self.app.address)
            .original(2, backend.unwrap_or(inbound))
            .original_of("127.0.0.1".parse().unwrap(), self.app.address)
            .start()
            .await;
        self.outbound.set(mesh.proxy.addresses().outbound[0]).unwrap();
        let reply = mesh.connect_inbound(1).await.get("/", &[]).await;
        let refused = mesh.metric("meshgate_loop_refused_total{direction=\"inbound\"}").await.unwrap();
        (reply, self.seen.load(Ordering::Relaxed), refused)
    }
}

#[tokio::test]
async fn a_request_that_comes_back_is_refused() {
    let (reply, seen, refused) = Ingress::start().await.ask("on", None).await;
    assert_eq!(reply.status, 508);
    assert!(reply.header("l5d-proxy-error").unwrap().starts_with("loop: this proxy ("), "{reply:?}");
    assert_eq!((seen, refused), (1, 1), "the application must not see the request a second time");
}

#[tokio::test]
async fn without_the_guard_it_goes_round_until_somebody_gives_up() {
    let (reply, seen, refused) = Ingress::start().await.ask("off", None).await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (200, "enough"));
    assert_eq!((seen, refused), (ENOUGH, 0));
}

#[tokio::test]
async fn a_request_that_goes_on_is_not_refused() {
    let backend = App::named("backend").await;
    let (reply, seen, refused) = Ingress::start().await.ask("on", Some(backend.address)).await;
    assert_eq!((served_by(&reply.body), seen, refused), ("backend", 1, 0));
    assert!(reply.body.contains("l5d-hops: "), "{}", reply.body);
}
