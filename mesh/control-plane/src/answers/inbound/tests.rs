use serde_json::{Value, json};

use super::*;
use crate::{IdentityDomain, Index, examples};

async fn ask(annotations: serde_json::Value, port: u16) -> Server {
    let mut pod = examples::pod("p", "10.244.0.7");
    pod["metadata"]["annotations"] = annotations;
    let index = examples::index([pod]);
    look(&index, port).await
}

#[tokio::test]
async fn everybody_may_connect_unless_the_pod_says_otherwise() {
    for (policy, networks, authenticated) in [
        (None, Some(2), false),
        (Some("all-authenticated"), Some(2), true),
        (Some("cluster-unauthenticated"), Some(5), false),
        (Some("deny"), None, false),
    ] {
        let annotations = policy.map(|policy| json!({"config.linkerd.io/default-inbound-policy": policy}));
        let server = ask(annotations.unwrap_or_default(), 8080).await;
        assert_eq!(server.labels["name"], policy.unwrap_or("all-unauthenticated"));
        assert_eq!(server.authorizations.first().map(|authz| authz.networks.len()), networks, "{policy:?}");
        for authz in server.authorizations {
            let permit = authz.authentication.unwrap().permit.unwrap();
            assert_eq!(matches!(permit, authn::Permit::MeshTls(_)), authenticated, "{policy:?}");
        }
    }
}

#[tokio::test]
async fn ports_that_want_an_identity_do_so_whatever_the_pods_policy() {
    let ports = "9000-9001,8080";
    for (policy, port, want) in [
        ("all-unauthenticated", 8080, "all-authenticated"),
        ("all-unauthenticated", 8081, "all-unauthenticated"),
        ("cluster-unauthenticated", 9001, "cluster-authenticated"),
        ("cluster-authenticated", 8080, "cluster-authenticated"),
        ("deny", 8080, "deny"),
        ("audit", 8080, "audit"),
    ] {
        let annotations = json!({
            "config.linkerd.io/default-inbound-policy": policy,
            "config.linkerd.io/proxy-require-identity-inbound-ports": ports,
        });
        let server = ask(annotations, port).await;
        assert_eq!(server.labels["name"], want, "{policy} {port}");
        for authz in server.authorizations {
            let identified = matches!(authz.authentication.unwrap().permit.unwrap(), authn::Permit::MeshTls(_));
            assert_eq!(identified, want.ends_with("-authenticated"), "{policy} {port}");
        }
    }
}

#[tokio::test]
async fn opaque_ports_skip_detection() {
    let kind = |server: Server| server.protocol.unwrap().kind.unwrap();
    let opaque = json!({"config.linkerd.io/opaque-ports": "web"});
    assert!(matches!(kind(ask(json!({}), 8080).await), Kind::Detect(Detect { timeout: Some(_), .. })));
    assert!(matches!(kind(ask(opaque.clone(), 8080).await), Kind::Opaque(_)));
    assert!(matches!(kind(ask(opaque, 6379).await), Kind::Detect(_)));
    assert!(matches!(kind(ask(json!({}), 6379).await), Kind::Opaque(_)));
}

#[tokio::test]
async fn of_a_pod_that_is_not_known_yet_nothing_is_said() {
    let index = examples::index([examples::pod("p", "10.244.0.7")]);
    for (name, known) in [("q", false), ("p", true)] {
        let id = (crate::Kind::Pod, Key::new("default", name));
        let found = index.answer(|state, cluster| server(state, cluster, &id, 80)).await;
        assert_eq!(found.is_some(), known, "{name}");
    }
}

/// An object of `policy.linkerd.io`.
fn object(version: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("policy.linkerd.io/{version}"),
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    })
}

/// Pod `default/p`, labelled `app: web`, with a port 8080 named `web`, and these.
fn index(objects: impl IntoIterator<Item = Value>) -> Index {
    let cluster = Cluster {
        identity: Some(IdentityDomain { control_plane_namespace: "linkerd".into(), trust_domain: "example".into() }),
        ..Cluster::default()
    };
    let index = Index::new(cluster);
    let mut pod = examples::pod("p", "10.244.0.7");
    pod["metadata"]["labels"]["app"] = json!("web");
    pod["spec"]["containers"][0]["readinessProbe"] = json!({"httpGet": {"path": "/ready?full=1", "port": "web"}});
    // A proxy as a native sidecar.
    pod["spec"]["initContainers"] = json!([{"livenessProbe": {"httpGet": {"path": "/live", "port": 4191}}}]);
    for object in [pod].into_iter().chain(objects) {
        index.apply(&object).unwrap();
    }
    index.mark_synced();
    index
}

async fn look(index: &Index, port: u16) -> Server {
    let id = (crate::Kind::Pod, Key::new("default", "p"));
    index.answer(|state, cluster| server(state, cluster, &id, port)).await.unwrap()
}

/// Who is let in, by the names of the authorizations: `name: networks, clients`.
fn let_in(authorizations: &[Authz]) -> Vec<String> {
    let net = |net: &linkerd2_proxy_api::net::IpNetwork| IpNet::try_from(*net).unwrap().to_string();
    let each = authorizations.iter().map(|authz| {
        let networks = authz.networks.iter().map(|one| {
            let except: String = one.except.iter().map(|one| format!("-{}", net(one))).collect();
            net(one.net.as_ref().unwrap()) + &except
        });
        let clients = match authz.authentication.as_ref().unwrap().permit.as_ref().unwrap() {
            authn::Permit::Unauthenticated(_) => "anybody".to_owned(),
            authn::Permit::MeshTls(mesh) => match mesh.clients.as_ref().unwrap() {
                Clients::Unauthenticated(_) => "mesh".to_owned(),
                Clients::Identities(list) => {
                    let names = list.identities.iter().map(|one| one.name.clone());
                    let ends = list.suffixes.iter().map(|one| format!("*.{}", one.parts.join(".")));
                    names.chain(ends).collect::<Vec<_>>().join(" ")
                }
            },
        };
        format!("{}: {}, {clients}", authz.labels["name"], networks.collect::<Vec<_>>().join(" "))
    });
    each.collect()
}

fn web_server() -> Value {
    object(
        "v1beta3",
        "Server",
        "web",
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "port": "web", "proxyProtocol": "HTTP/1"}),
    )
}

#[tokio::test]
async fn a_server_is_closed_but_for_whom_authorizations_name() {
    let everywhere = "0.0.0.0/0 ::/0";
    let target = json!({"group": "policy.linkerd.io", "kind": "Server", "name": "web"});
    let reference = |kind: &str, name: &str| json!({"group": "policy.linkerd.io", "kind": kind, "name": name});
    let policy = |name: &str, target: &Value, required: &[Value]| {
        let spec = json!({"targetRef": target, "requiredAuthenticationRefs": required});
        object("v1alpha1", "AuthorizationPolicy", name, spec)
    };
    let index = index([
        web_server(),
        object(
            "v1alpha1",
            "MeshTLSAuthentication",
            "friends",
            json!({
                "identities": ["*", "*.ns.example", "somebody.example"],
                "identityRefs": [{"kind": "ServiceAccount", "name": "bot"}, {"kind": "Namespace", "name": "vote"}],
            }),
        ),
        object(
            "v1alpha1",
            "NetworkAuthentication",
            "office",
            json!({
                "networks": [{"cidr": "192.0.2.0/24", "except": ["192.0.2.1"]}, {"cidr": "not one"}],
            }),
        ),
        policy(
            "all-of-them",
            &target,
            &[reference("MeshTLSAuthentication", "friends"), reference("NetworkAuthentication", "office")],
        ),
        policy("anybody", &json!({"kind": "Namespace", "name": "default"}), &[]),
        policy("account", &target, &[json!({"kind": "ServiceAccount", "name": "bot", "namespace": "vote"})]),
        policy("missing", &target, &[reference("MeshTLSAuthentication", "nowhere")]),
        policy(
            "twice",
            &target,
            &[reference("NetworkAuthentication", "office"), reference("NetworkAuthentication", "office")],
        ),
        policy("other", &json!({"group": "policy.linkerd.io", "kind": "Server", "name": "other"}), &[]),
        object(
            "v1beta1",
            "ServerAuthorization",
            "older",
            json!({
                "server": {"selector": {"matchLabels": {}}},
                "client": {"networks": [{"cidr": "10.0.0.0/8"}], "meshTLS": {"unauthenticatedTLS": true}},
            }),
        ),
        object(
            "v1beta1",
            "ServerAuthorization",
            "open",
            json!({
                "server": {"name": "web"}, "client": {"unauthenticated": true},
            }),
        ),
    ]);
    let server = look(&index, 8080).await;
    assert_eq!(server.labels, labels("policy.linkerd.io", "server", "web"));
    assert_eq!(
        let_in(&server.authorizations),
        [
            "older: 10.0.0.0/8, mesh".to_owned(),
            format!("open: {everywhere}, anybody"),
            format!("account: {everywhere}, bot.vote.serviceaccount.identity.linkerd.example"),
            "all-of-them: 192.0.2.0/24-192.0.2.1/32, somebody.example \
             bot.default.serviceaccount.identity.linkerd.example *. *.ns.example \
             *.vote.serviceaccount.identity.linkerd.example"
                .to_owned(),
            format!("anybody: {everywhere}, anybody"),
        ]
    );
    // Control: a port that the Server is not for has the default, and so has it once the Server is gone.
    for port in [8081, 8080] {
        assert_eq!(look(&index, port).await.labels["kind"] == "default", port == 8081);
    }
    index.delete(crate::Kind::Server, &Key::new("default", "web"));
    assert_eq!(
        let_in(&look(&index, 8080).await.authorizations),
        [format!("all-unauthenticated: {everywhere}, anybody")]
    );
}

#[tokio::test]
async fn an_access_policy_stands_beside_authorizations() {
    let mut server = web_server();
    server["spec"]["accessPolicy"] = json!("cluster-authenticated");
    let found = let_in(&look(&index([server.clone()]), 8080).await.authorizations);
    assert!(matches!(found.as_slice(), [one] if one.starts_with("cluster-authenticated: 10.0.0.0/8 ")), "{found:?}");
    server["spec"]["accessPolicy"] = json!("deny");
    assert!(look(&index([server]), 8080).await.authorizations.is_empty());
}

#[tokio::test]
async fn a_server_says_what_is_spoken() {
    for (protocol, expected) in [
        ("unknown", "Detect"),
        ("HTTP/1", "Http1"),
        ("HTTP/2", "Http2"),
        ("gRPC", "Grpc"),
        ("opaque", "Opaque"),
        ("TLS", "Tls"),
    ] {
        let mut server = web_server();
        server["spec"]["proxyProtocol"] = json!(protocol);
        let kind = look(&index([server]), 8080).await.protocol.unwrap().kind.unwrap();
        assert!(format!("{kind:?}").starts_with(expected), "{protocol}: {kind:?}");
    }
}

fn routes(server: Server) -> Vec<HttpRoute> {
    match server.protocol.unwrap().kind.unwrap() {
        Kind::Http1(http) => http.routes,
        Kind::Detect(detect) => detect.http_routes,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn probes_are_open_until_there_are_routes() {
    let route = object(
        "v1beta3",
        "HTTPRoute",
        "data",
        json!({
            "parentRefs": [{"group": "policy.linkerd.io", "kind": "Server", "name": "web"}],
            "rules": [{"matches": [{"path": {"type": "Exact", "value": "/data"}}]}],
        }),
    );
    let reader = object(
        "v1alpha1",
        "AuthorizationPolicy",
        "reader",
        json!({
            "targetRef": {"group": "policy.linkerd.io", "kind": "HTTPRoute", "name": "data"},
            "requiredAuthenticationRefs": [],
        }),
    );
    let index = index([web_server()]);
    let found = routes(look(&index, 8080).await);
    let [all, probe] = found.as_slice() else { panic!("{found:?}") };
    assert!(all.authorizations.is_empty());
    assert_eq!(let_in(&probe.authorizations), ["probe: 0.0.0.0/0 ::/0, anybody"]);
    let path = probe.rules[0].matches[0].path.clone().unwrap().kind;
    assert_eq!(path, Some(matches::path_match::Kind::Exact("/ready".into())));
    assert_eq!(routes(look(&index, 8081).await).len(), 1, "a probe is open where it asks");
    assert_eq!(routes(look(&index, 4191).await)[1].authorizations, probe.authorizations, "a sidecar's as well");

    for object in [route, reader] {
        index.apply(&object).unwrap();
    }
    let found = routes(look(&index, 8080).await);
    let [data] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(let_in(&data.authorizations), ["reader: 0.0.0.0/0 ::/0, anybody"]);
    assert!(let_in(&look(&index, 8080).await.authorizations).is_empty(), "a route's is not the Server's");
}

/// With native sidecars the proxy is an init container, whose admin port the kubelet asks.
#[tokio::test]
async fn an_init_containers_probes_are_open_and_its_ports_have_names() {
    let mut pod = examples::pod("p", "10.244.0.7");
    pod["metadata"]["annotations"] = json!({"config.linkerd.io/default-inbound-policy": "deny"});
    pod["spec"]["initContainers"] = json!([{
        "name": "linkerd-proxy",
        "restartPolicy": "Always",
        "ports": [{"name": "linkerd-admin", "containerPort": 4191}],
        "livenessProbe": {"httpGet": {"path": "/live", "port": 4191}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "linkerd-admin"}},
    }]);
    let admin = object("v1beta3", "Server", "admin", json!({"podSelector": {}, "port": "linkerd-admin"}));
    let open = |server: Server| -> Vec<String> {
        let routes = routes(server);
        let matches = routes.iter().flat_map(|route| &route.rules).flat_map(|rule| &rule.matches);
        let exact = matches.filter_map(|it| match it.path.as_ref()?.kind.as_ref()? {
            matches::path_match::Kind::Exact(path) => Some(path.clone()),
            _ => None,
        });
        exact.collect()
    };
    let index = examples::index([pod]);
    assert_eq!(open(look(&index, 4191).await), ["/live", "/ready"]);
    index.apply(&admin).unwrap();
    let server = look(&index, 4191).await;
    assert_eq!(server.labels["name"], "admin");
    assert_eq!(open(server), ["/live", "/ready"]);
}

#[tokio::test]
async fn where_grpc_is_said_grpc_routes_count_and_elsewhere_http_routes() {
    let route = |kind: &str, rule: Value| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": "data", "namespace": "default"},
            "spec": {
                "parentRefs": [{"group": "policy.linkerd.io", "kind": "Server", "name": "web"}],
                "rules": [rule],
            },
        })
    };
    let authorize = |kind: &str| {
        let target = json!({"group": "gateway.networking.k8s.io", "kind": kind, "name": "data"});
        let spec = json!({"targetRef": target, "requiredAuthenticationRefs": []});
        object("v1alpha1", "AuthorizationPolicy", &kind.to_lowercase(), spec)
    };
    let index = index([
        route("HTTPRoute", json!({"matches": [{"path": {"type": "Exact", "value": "/data"}}]})),
        route("GRPCRoute", json!({"matches": [{"method": {"service": "Data"}}]})),
        authorize("HTTPRoute"),
        authorize("GRPCRoute"),
    ]);
    let speak = |protocol: &str| {
        let mut server = web_server();
        server["spec"]["proxyProtocol"] = json!(protocol);
        index.apply(&server).unwrap();
    };
    speak("gRPC");
    let Kind::Grpc(grpc) = look(&index, 8080).await.protocol.unwrap().kind.unwrap() else { panic!() };
    let [found] = grpc.routes.as_slice() else { panic!("{grpc:?}") };
    assert_eq!(found.rules[0].matches[0].rpc.as_ref().unwrap().service, "Data");
    // Routes of two kinds may have one name; an authorization is for one of them.
    assert_eq!(let_in(&found.authorizations), ["grpcroute: 0.0.0.0/0 ::/0, anybody"]);
    speak("HTTP/1");
    let found = routes(look(&index, 8080).await);
    let [found] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(let_in(&found.authorizations), ["httproute: 0.0.0.0/0 ::/0, anybody"]);
    speak("gRPC");
    index.delete(crate::Kind::GatewayGrpcRoute, &Key::new("default", "data"));
    let Kind::Grpc(grpc) = look(&index, 8080).await.protocol.unwrap().kind.unwrap() else { panic!() };
    assert_eq!(grpc.routes[0].metadata, Some(default_ref("default")));
}

#[tokio::test]
async fn a_server_has_its_oldest_rate_limit() {
    let target = |name: &str| json!({"group": "policy.linkerd.io", "kind": "Server", "name": name});
    let limit = |name: &str, created: &str, spec: Value| {
        let mut limit = object("v1alpha1", "HTTPLocalRateLimitPolicy", name, spec);
        limit["metadata"]["creationTimestamp"] = json!(created);
        limit
    };
    let index = index([
        web_server(),
        limit("a", "2024-01-02T00:00:00Z", json!({"targetRef": target("web"), "total": {"requestsPerSecond": 1}})),
        limit(
            "z",
            "2024-01-01T00:00:00Z",
            json!({
                "targetRef": target("web"),
                "total": {"requestsPerSecond": 100},
                "identity": {"requestsPerSecond": 10},
                "overrides": [{"requestsPerSecond": 50, "clientRefs": [
                    {"kind": "ServiceAccount", "name": "bot"},
                    {"kind": "ServiceAccount", "name": "bot", "namespace": "vote"},
                    {"kind": "Namespace", "name": "vote"},
                ]}],
            }),
        ),
        limit(
            "other",
            "2023-01-01T00:00:00Z",
            json!({"targetRef": target("other"), "total": {"requestsPerSecond": 1}}),
        ),
    ]);
    let limit_of = |server: Server| match server.protocol.unwrap().kind.unwrap() {
        Kind::Http1(http) => http.local_rate_limit,
        Kind::Http2(http) => http.local_rate_limit,
        Kind::Detect(detect) => detect.http_local_rate_limit,
        other => panic!("{other:?}"),
    };
    for protocol in ["HTTP/1", "HTTP/2", "unknown"] {
        let mut server = web_server();
        server["spec"]["proxyProtocol"] = json!(protocol);
        index.apply(&server).unwrap();
        let found = limit_of(look(&index, 8080).await).unwrap();
        let key = Key::new("default", "z");
        assert_eq!(found.metadata, Some(resource("policy.linkerd.io", "HTTPLocalRateLimitPolicy", &key, 0)));
        assert_eq!((found.total.unwrap().requests_per_second, found.identity.unwrap().requests_per_second), (100, 10));
        let [one] = found.overrides.as_slice() else { panic!("{found:?}") };
        assert_eq!(one.limit.unwrap().requests_per_second, 50);
        let names: Vec<_> = one.clients.as_ref().unwrap().identities.iter().map(|one| &*one.name).collect();
        let suffix = "serviceaccount.identity.linkerd.example";
        assert_eq!(names, [format!("bot.default.{suffix}"), format!("bot.vote.{suffix}")]);
    }
    // Control: a port without a Server has none, and the next oldest holds when the oldest is gone.
    assert_eq!(limit_of(look(&index, 8081).await), None);
    index.delete(crate::Kind::HttpLocalRateLimitPolicy, &Key::new("default", "z"));
    assert_eq!(limit_of(look(&index, 8080).await).unwrap().total.unwrap().requests_per_second, 1);
}

#[tokio::test]
async fn an_external_workload_has_policies_of_its_own() {
    let server = |name: &str, selector: &str, protocol: &str| {
        object("v1beta3", "Server", name, json!({selector: {}, "port": 8080, "proxyProtocol": protocol}))
    };
    let mut workload = examples::external_workload("p", "192.0.2.7");
    workload["metadata"]["annotations"] = json!({
        "config.linkerd.io/default-inbound-policy": "all-authenticated",
        "config.linkerd.io/opaque-ports": "9090",
    });
    let index = index([
        workload,
        server("of-pods", "podSelector", "HTTP/1"),
        server("of-workloads", "externalWorkloadSelector", "gRPC"),
    ]);
    let id = (crate::Kind::ExternalWorkload, Key::new("default", "p"));
    let ask = async |port: u16| index.answer(|state, cluster| super::server(state, cluster, &id, port)).await.unwrap();
    let kind = |server: &Server| server.protocol.clone().unwrap().kind.unwrap();
    let found = ask(8080).await;
    assert!(matches!(kind(&found), Kind::Grpc(_)));
    assert_eq!(found.labels["name"], "of-workloads");
    // The pod of the same name has the other.
    assert_eq!(look(&index, 8080).await.labels["name"], "of-pods");
    let found = ask(9090).await;
    assert!(matches!(kind(&found), Kind::Opaque(_)));
    assert_eq!((&*found.labels["name"], found.server_ips.len()), ("all-authenticated", 1));
}
