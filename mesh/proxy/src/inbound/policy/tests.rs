use linkerd2_proxy_api::{
    http_route as matches,
    inbound::{
        Authn, Authz, Identity, IdentitySuffix, Network, ProxyProtocol, Server, authn::PermitUnauthenticated,
        authn::permit_mesh_tls as mesh, proxy_protocol as wire,
    },
    meta::Resource,
};

use super::*;

const WEB: &str = "web.emojivoto.serviceaccount.identity.linkerd.cluster.local";

fn client(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), 1234)
}

fn identified(name: &str) -> Peer {
    Peer::Mesh(Some(name.into()))
}

fn network(net: &str, except: &[&str]) -> Network {
    let parse = |net: &str| net.parse::<IpNet>().unwrap().into();
    Network { net: Some(parse(net)), except: except.iter().map(|net| parse(net)).collect() }
}

fn anybody() -> authn::Permit {
    authn::Permit::Unauthenticated(PermitUnauthenticated {})
}

fn meshed(clients: mesh::Clients) -> authn::Permit {
    authn::Permit::MeshTls(authn::PermitMeshTls { clients: Some(clients) })
}

fn identities(names: &[&str], ends: &[&[&str]]) -> authn::Permit {
    meshed(mesh::Clients::Identities(mesh::PermitClientIdentities {
        identities: names.iter().map(|name| Identity { name: (*name).into() }).collect(),
        suffixes: ends
            .iter()
            .map(|parts| IdentitySuffix { parts: parts.iter().map(|part| (*part).into()).collect() })
            .collect(),
    }))
}

fn resource(kind: &str, name: &str) -> Option<Metadata> {
    let resource = Resource {
        group: "policy.linkerd.io".into(),
        kind: kind.into(),
        name: name.into(),
        namespace: "ns".into(),
        ..Default::default()
    };
    Some(Metadata { kind: Some(metadata::Kind::Resource(resource)) })
}

fn authz(name: &str, networks: Vec<Network>, permit: authn::Permit) -> Authz {
    Authz {
        networks,
        authentication: Some(Authn { permit: Some(permit) }),
        labels: Default::default(),
        metadata: resource("authorizationpolicy", name),
    }
}

fn server(authorizations: Vec<Authz>, http_routes: Vec<api::HttpRoute>) -> ServerPolicy {
    let detect = wire::Detect { timeout: None, http_routes, http_local_rate_limit: None };
    let labels = [("group", "policy.linkerd.io"), ("kind", "server"), ("name", "web")];
    let server = Server {
        protocol: Some(ProxyProtocol { kind: Some(Kind::Detect(detect)) }),
        authorizations,
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..Default::default()
    };
    ServerPolicy::compile(&server, 8080)
}

/// The name of the authorization that lets a client in.
fn by(policy: &ServerPolicy, address: &str, peer: &Peer) -> Option<String> {
    let labels = policy.permit(client(address), peer)?.labels.as_str();
    let (_, name) = labels.rsplit_once("authz_name=").unwrap();
    Some(name.trim_matches('"').to_owned())
}

#[test]
fn named_policies_let_in_whom_they_say() {
    let cluster = ["10.0.0.0/8".parse().unwrap()];
    let plain = Peer::Plaintext;
    let (nameless, named) = (Peer::Mesh(None), identified(WEB));
    let elsewhere = Peer::Elsewhere(Some("other".into()));
    // Plaintext, TLS to somebody else, mesh TLS without a certificate and with one; inside the cluster and outside.
    for (policy, inside, outside) in [
        (DefaultPolicy::AllUnauthenticated, [true; 4], [true; 4]),
        (DefaultPolicy::Audit, [true; 4], [true; 4]),
        (DefaultPolicy::AllMtlsUnauthenticated, [false, false, true, true], [false, false, true, true]),
        (DefaultPolicy::AllAuthenticated, [false, false, false, true], [false, false, false, true]),
        (DefaultPolicy::ClusterUnauthenticated, [true; 4], [false; 4]),
        (DefaultPolicy::ClusterMtlsUnauthenticated, [false, false, true, true], [false; 4]),
        (DefaultPolicy::ClusterAuthenticated, [false, false, false, true], [false; 4]),
        (DefaultPolicy::Deny, [false; 4], [false; 4]),
    ] {
        let server = ServerPolicy::named(policy, &cluster, Protocol::Detect(None), 80);
        for (address, expected) in [("10.1.2.3", inside), ("192.0.2.1", outside)] {
            let found = [&plain, &elsewhere, &nameless, &named].map(|peer| by(&server, address, peer));
            let name = |let_in: bool| let_in.then(|| policy.name().to_owned());
            assert_eq!(found, expected.map(name), "{policy:?} {address}");
        }
        let local = by(&server, "127.0.0.1", &plain).unwrap();
        assert!(local == "localhost" || local == policy.name(), "{local}");
    }
}

#[test]
fn networks_names_and_ends_decide() {
    let policy = server(
        vec![
            authz("office", vec![network("192.0.2.0/24", &["192.0.2.128/25"])], anybody()),
            authz("web", vec![network("10.0.0.0/8", &[])], identities(&[WEB], &[])),
            authz("ns", vec![network("0.0.0.0/0", &[])], identities(&[], &[&["vote", "serviceaccount", "example"]])),
        ],
        vec![],
    );
    let voter = identified("bot.vote.serviceaccount.example");
    for (address, peer, expected) in [
        ("192.0.2.1", &Peer::Plaintext, Some("office")),
        ("192.0.2.129", &Peer::Plaintext, None),
        ("::ffff:192.0.2.1", &Peer::Plaintext, Some("office")),
        ("10.1.1.1", &identified(WEB), Some("web")),
        ("11.1.1.1", &identified(WEB), None),
        ("10.1.1.1", &Peer::Mesh(None), None),
        ("11.1.1.1", &voter, Some("ns")),
        // An end is of whole labels.
        ("11.1.1.1", &identified("xvote.serviceaccount.example"), None),
        ("11.1.1.1", &identified("vote.serviceaccount.example"), None),
        ("127.0.0.1", &Peer::Plaintext, Some("localhost")),
        ("::1", &Peer::Plaintext, Some("localhost")),
    ] {
        assert_eq!(by(&policy, address, peer).as_deref(), expected, "{address} {peer:?}");
    }
}

#[test]
fn what_is_spoken_is_what_is_said() {
    for (kind, expected) in [
        (Kind::Detect(wire::Detect::default()), Protocol::Detect(None)),
        (Kind::Http1(wire::Http1::default()), Protocol::Http1),
        (Kind::Http2(wire::Http2::default()), Protocol::Http2),
        (Kind::Grpc(wire::Grpc::default()), Protocol::Http2),
        (Kind::Opaque(wire::Opaque {}), Protocol::Opaque),
        // Not opaque: TLS between proxies may be around it.
        (Kind::Tls(wire::Tls {}), Protocol::Tls),
    ] {
        let server = Server { protocol: Some(ProxyProtocol { kind: Some(kind) }), ..Default::default() };
        assert_eq!(ServerPolicy::compile(&server, 443).protocol, expected);
    }
}

#[test]
fn what_cannot_be_read_lets_nobody_in() {
    let broken = Network { net: Some(network("0.0.0.0/0", &[]).net.unwrap()), except: vec![Default::default()] };
    let none = Authz { authentication: None, ..authz("none", vec![network("0.0.0.0/0", &[])], anybody()) };
    let policy = server(vec![authz("except", vec![broken], anybody()), none], vec![]);
    assert_eq!(by(&policy, "10.0.0.1", &Peer::Plaintext), None);
}

#[test]
fn a_routes_authorizations_are_added_to_the_servers() {
    let everywhere = || vec![network("0.0.0.0/0", &[])];
    let path = |path: &str| matches::HttpRouteMatch {
        path: Some(matches::PathMatch { kind: Some(matches::path_match::Kind::Exact(path.into())) }),
        ..Default::default()
    };
    let route = |name: &str, at: &str, authorizations| api::HttpRoute {
        metadata: resource("HTTPRoute", name),
        hosts: vec![],
        authorizations,
        rules: vec![http_route_rule(path(at))],
    };
    let policy = server(
        vec![authz("owner", everywhere(), identities(&[WEB], &[]))],
        vec![route("ready", "/ready", vec![authz("probe", everywhere(), anybody())]), route("data", "/data", vec![])],
    );
    let ask = |at: &str, peer: &Peer| {
        let mut request = Request::get(at).body(()).unwrap();
        match policy.request(client("10.0.0.1"), peer, &mut request) {
            Ok(permit) => permit.labels.as_str().to_owned(),
            Err((_, error)) => error.to_string(),
        }
    };
    let labels = |route: &str, authz: &str| {
        format!(
            "srv_group=\"policy.linkerd.io\",srv_kind=\"server\",srv_name=\"web\",srv_port=\"8080\",\
             route_group=\"policy.linkerd.io\",route_kind=\"HTTPRoute\",route_name=\"{route}\",\
             authz_group=\"policy.linkerd.io\",authz_kind=\"authorizationpolicy\",authz_name=\"{authz}\""
        )
    };
    let refused = "client 10.0.0.1:1234: server web: unauthorized request on route";
    assert_eq!(ask("/ready", &Peer::Plaintext), labels("ready", "probe"));
    assert_eq!(ask("/data", &Peer::Plaintext), refused);
    assert_eq!(ask("/data", &identified(WEB)), labels("data", "owner"));
    assert_eq!(ask("/other", &identified(WEB)), "no route found for request");
    // A connection that is not looked into has no route.
    assert_eq!(by(&policy, "10.0.0.1", &Peer::Plaintext), None);
}

fn http_route_rule(one: matches::HttpRouteMatch) -> http_route::Rule {
    http_route::Rule { matches: vec![one], filters: vec![] }
}
