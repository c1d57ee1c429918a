use linkerd2_proxy_api::destination;
use serde_json::json;

use super::*;
use crate::{Key, answers::profile, examples, names::Target};

async fn ask(objects: Vec<serde_json::Value>, authority: &str) -> Endpoints {
    ask_on(None, objects, authority).await
}

/// What a client on a node is told.
async fn ask_on(node: Option<&str>, objects: Vec<serde_json::Value>, authority: &str) -> Endpoints {
    let index = examples::index(objects);
    index
        .answer(|state, cluster| match Target::parse(authority, &cluster.domain) {
            Some(Target::Service(name, port)) => {
                let place = Place::of(state, &name.service, node);
                endpoints(state, cluster, &name, port, &place)
            }
            other => panic!("{other:?}"),
        })
        .await
}

fn addresses(endpoints: &Endpoints) -> Vec<String> {
    match endpoints {
        Endpoints::Ready(ready) => ready.keys().map(ToString::to_string).collect(),
        Endpoints::Missing => panic!("missing"),
    }
}

#[tokio::test]
async fn only_ready_endpoints_at_the_ports_of_their_slice() {
    let mut second = examples::slice("web", &[("c", "10.244.0.9", true)]);
    second["metadata"]["name"] = json!("web-x2");
    second["ports"][0]["port"] = json!(9090);
    let objects = vec![
        examples::service("web", "10.96.0.5"),
        examples::slice("web", &[("a", "10.244.0.7", true), ("b", "10.244.0.8", false)]),
        second,
    ];
    for (authority, want) in [
        ("web.default.svc.cluster.local:80", vec!["10.244.0.7:8080", "10.244.0.9:9090"]),
        ("web.default.svc.cluster.local:3306", vec!["10.244.0.7:3306", "10.244.0.9:3306"]),
        ("web.default.svc.cluster.local:1234", vec!["10.244.0.7:1234", "10.244.0.9:1234"]),
        ("c.web.default.svc.cluster.local:80", vec!["10.244.0.9:9090"]),
        ("nobody.web.default.svc.cluster.local:80", vec![]),
    ] {
        assert_eq!(addresses(&ask(objects.clone(), authority).await), want, "{authority}");
    }
    assert_eq!(ask(objects, "no.default.svc.cluster.local:80").await, Endpoints::Missing);
}

#[tokio::test]
async fn endpoints_carry_their_pods_labels() {
    let objects = vec![
        examples::service("web", "10.96.0.5"),
        examples::slice("web", &[("web-5d4f-abc", "10.244.0.7", true)]),
        examples::pod("web-5d4f-abc", "10.244.0.7"),
    ];
    let Endpoints::Ready(ready) = ask(objects, "web.default.svc.cluster.local:80").await else { panic!() };
    let endpoint = ready.values().next().unwrap();
    assert_eq!(endpoint.weight, 10_000);
    for (label, value) in
        [("pod", "web-5d4f-abc"), ("deployment", "web"), ("zone", "z1"), ("control_plane_ns", "linkerd")]
    {
        assert_eq!(endpoint.metric_labels.get(label).map(String::as_str), Some(value), "{label}");
    }
    // These are the set's.
    assert!(!endpoint.metric_labels.contains_key("namespace"));
}

#[tokio::test]
async fn hints_are_followed_where_every_endpoint_has_one_unless_the_node_counts() {
    /// Address, node, and the zones that the endpoint is meant for.
    type Hinted<'a> = (&'a str, &'a str, &'a [&'a str]);
    const THREE: [Hinted<'_>; 3] =
        [("10.244.0.1", "n1", &["a"]), ("10.244.0.2", "n2", &["b", "a"]), ("10.244.0.3", "n3", &["b"])];
    let one_without = [THREE[0], THREE[1], ("10.244.0.3", "n3", &[])];
    let all: &[u8] = &[1, 2, 3];
    for (node, policy, endpoints, want) in [
        (Some("n1"), "Cluster", THREE, [1, 2].as_slice()),
        (Some("n2"), "Cluster", THREE, &[2, 3]),
        // A zone that no endpoint is for, a node that is not known, and a client that does not say.
        (Some("n3"), "Cluster", THREE, all),
        (Some("n4"), "Cluster", THREE, all),
        (None, "Cluster", THREE, all),
        (Some("n1"), "Cluster", one_without, all),
        (Some("n2"), "Local", THREE, &[2]),
        (Some("n4"), "Local", THREE, &[]),
        (None, "Local", THREE, all),
    ] {
        let mut service = examples::service("web", "10.96.0.5");
        service["spec"]["internalTrafficPolicy"] = json!(policy);
        let mut objects =
            vec![service, examples::node("n1", "a"), examples::node("n2", "b"), examples::node("n3", "c")];
        // Each in a slice of its own: hints of one are nothing without those of the others.
        for (ip, node, zones) in endpoints {
            let mut slice = examples::slice("web", &[(ip, ip, true)]);
            slice["metadata"]["name"] = json!(ip);
            slice["endpoints"][0]["nodeName"] = json!(node);
            if !zones.is_empty() {
                let zones: Vec<_> = zones.iter().map(|zone| json!({"name": zone})).collect();
                slice["endpoints"][0]["hints"] = json!({"forZones": zones});
            }
            objects.push(slice);
        }
        let told = ask_on(node, objects, "web.default.svc.cluster.local:80").await;
        let want: Vec<_> = want.iter().map(|last| format!("10.244.0.{last}:8080")).collect();
        assert_eq!(addresses(&told), want, "{node:?} {policy}");
    }
}

#[tokio::test]
async fn endpoints_are_local_remote_or_of_unknown_locality() {
    let mut slice = examples::slice("web", &[("p", "10.244.0.7", true)]);
    for (node, zone, want) in [
        (Some("n1"), json!("z1"), "local"),
        (Some("n2"), json!("z1"), "remote"),
        (Some("n3"), json!("z1"), "unknown"),
        (None, json!("z1"), "unknown"),
        (Some("n1"), json!(null), "unknown"),
    ] {
        slice["endpoints"][0]["zone"] = zone.clone();
        let objects = [examples::service("web", "10.96.0.5"), examples::node("n1", "z1"), examples::node("n2", "z2")];
        let objects = objects.into_iter().chain([slice.clone()]).collect();
        let told = ask_on(node, objects, "web.default.svc.cluster.local:80").await;
        let Endpoints::Ready(ready) = told else { panic!("missing") };
        let labels = &ready.values().next().unwrap().metric_labels;
        assert_eq!(labels["zone_locality"], want, "{node:?} {zone}");
        assert_eq!(labels.get("zone").map(String::as_str), zone.as_str());
    }
}

#[tokio::test]
async fn what_a_server_says_is_opaque_is_so_to_those_who_send_there() {
    use destination::protocol_hint::Protocol;
    let server = |name: &str, hash: &str, port: serde_json::Value, protocol: &str| {
        let pods = json!({"matchLabels": {"pod-template-hash": hash}});
        json!({
            "apiVersion": "policy.linkerd.io/v1beta3", "kind": "Server", "metadata": {"name": name, "namespace": "default"},
            "spec": {"podSelector": pods, "port": port, "proxyProtocol": protocol},
        })
    };
    let its = |name: &str, port: serde_json::Value, protocol: &str| server(name, "5d4f", port, protocol);
    let mut elsewhere = its("web", json!(8080), "opaque");
    elsewhere["metadata"]["namespace"] = json!("elsewhere");
    let mut pod = examples::pod("web-5d4f-abc", "10.244.0.7");
    pod["spec"]["initContainers"] = json!([{"ports": [{"name": "linkerd-proxy", "containerPort": 4143}]}]);
    // Another one of the same Service, which none of them selects.
    let mut unlike = pod.clone();
    unlike["metadata"]["name"] = json!("web-6e5f-def");
    unlike["metadata"]["labels"]["pod-template-hash"] = json!("6e5f");
    unlike["status"] = json!({"phase": "Running", "podIP": "10.244.0.8"});
    let identity =
        crate::IdentityDomain { control_plane_namespace: "linkerd".into(), trust_domain: "cluster.local".into() };
    for (what, servers, opaque) in [
        ("none", vec![], false),
        ("by number", vec![its("web", json!(8080), "opaque")], true),
        ("by name", vec![its("web", json!("web"), "opaque")], true),
        ("of another port", vec![its("web", json!(9090), "opaque")], false),
        ("of another name", vec![its("web", json!("db"), "opaque")], false),
        ("of other pods", vec![server("web", "other", json!(8080), "opaque")], false),
        ("of another namespace", vec![elsewhere], false),
        ("of HTTP", vec![its("web", json!(8080), "HTTP/1")], false),
        ("of TLS, which that of proxies may be around", vec![its("web", json!(8080), "TLS")], false),
        ("after HTTP", vec![its("b", json!("web"), "opaque"), its("a", json!(8080), "HTTP/2")], false),
        ("before HTTP", vec![its("a", json!("web"), "opaque"), its("b", json!(8080), "HTTP/2")], true),
    ] {
        let index = crate::Index::new(Cluster { identity: Some(identity.clone()), ..Cluster::default() });
        let pods = [("web-5d4f-abc", "10.244.0.7", true), ("web-6e5f-def", "10.244.0.8", true)];
        let objects =
            [examples::service("web", "10.96.0.5"), examples::slice("web", &pods), pod.clone(), unlike.clone()];
        for object in objects.into_iter().chain(servers) {
            index.apply(&object).unwrap();
        }
        index.mark_synced();
        let name = ServiceName { service: Key::new("default", "web"), hostname: None };
        let place = Place::default();
        let found = index.answer(|state, cluster| endpoints(state, cluster, &name, 80, &place)).await;
        let Endpoints::Ready(ready) = found else { panic!("missing") };
        let address = "10.244.0.7:8080".parse().unwrap();
        let profile = index.answer(|state, cluster| profile::by_address(state, cluster, address, None)).await;
        assert_eq!(profile.opaque_protocol, opaque, "{what}");
        for endpoint in [ready[&address].clone(), profile.endpoint.unwrap()] {
            let hint = endpoint.protocol_hint.unwrap();
            assert_eq!(matches!(hint.protocol, Some(Protocol::Opaque(_))), opaque, "{what}");
            assert_eq!(matches!(hint.protocol, Some(Protocol::H2(_))), !opaque, "{what}");
            // The proxy there ends no TLS but at its own port.
            assert_eq!(hint.opaque_transport.map(|it| it.inbound_port), opaque.then_some(4143), "{what}");
            assert!(endpoint.tls_identity.is_some(), "{what}");
        }
        let unlike = ready[&SocketAddr::from(([10, 244, 0, 8], 8080))].protocol_hint.unwrap();
        assert!(matches!(unlike.protocol, Some(Protocol::H2(_))), "{what}");
    }
}

#[tokio::test]
async fn a_headless_service_has_endpoints_and_an_external_name_has_none() {
    let mut headless = examples::service("web", "None");
    let slice = examples::slice("web", &[("web-0", "10.244.0.7", true), ("web-1", "10.244.0.8", true)]);
    let objects = vec![headless.clone(), slice.clone()];
    for (authority, want) in [
        ("web.default.svc.cluster.local:80", vec!["10.244.0.7:8080", "10.244.0.8:8080"]),
        ("web-1.web.default.svc.cluster.local:80", vec!["10.244.0.8:8080"]),
        ("web-2.web.default.svc.cluster.local:80", vec![]),
    ] {
        assert_eq!(addresses(&ask(objects.clone(), authority).await), want, "{authority}");
    }
    // What was a headless Service before may have a slice left.
    headless["spec"] = json!({"type": "ExternalName", "externalName": "example.com"});
    for authority in ["web.default.svc.cluster.local:80", "web-1.web.default.svc.cluster.local:80"] {
        let told = ask(vec![headless.clone(), slice.clone()], authority).await;
        assert_eq!(told, Endpoints::Missing, "{authority}");
    }
}

#[test]
fn updates_are_the_difference() {
    let name = ServiceName { service: Key::new("default", "web"), hostname: None };
    let moment = |ports: &[(u16, u32)]| {
        let ready = ports.iter().map(|(port, weight)| {
            let address = SocketAddr::from(([10, 0, 0, 1], *port));
            (address, WeightedAddr { addr: Some(address.into()), weight: *weight, ..Default::default() })
        });
        Endpoints::Ready(ready.collect())
    };
    let describe = |before: Option<&Endpoints>, now: &Endpoints| -> Vec<String> {
        let ports = |addresses: Vec<u32>| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let updates = updates(&name, before, now).into_iter().map(|update| match update.update.unwrap() {
            update::Update::Add(set) => {
                assert_eq!(set.metric_labels["service"], "web");
                format!("add {}", ports(set.addrs.into_iter().map(|addr| addr.addr.unwrap().port).collect()))
            }
            update::Update::Remove(set) => {
                format!("remove {}", ports(set.addrs.into_iter().map(|addr| addr.port).collect()))
            }
            update::Update::NoEndpoints(none) => format!("none, exists: {}", none.exists),
        });
        updates.collect()
    };
    assert_eq!(describe(None, &moment(&[(1, 1), (2, 1)])), ["add 1,2"]);
    assert_eq!(describe(Some(&moment(&[(1, 1), (2, 1)])), &moment(&[(2, 1), (3, 1)])), ["add 3", "remove 1"]);
    assert_eq!(describe(Some(&moment(&[(1, 1)])), &moment(&[(1, 2)])), ["add 1"]);
    assert_eq!(describe(Some(&moment(&[(1, 1)])), &moment(&[])), ["none, exists: true"]);
    assert_eq!(describe(None, &moment(&[])), ["none, exists: true"]);
    assert_eq!(describe(None, &Endpoints::Missing), ["none, exists: false"]);
    assert_eq!(describe(Some(&Endpoints::Missing), &moment(&[(1, 1)])), ["add 1"]);
    assert_eq!(describe(Some(&moment(&[])), &moment(&[(1, 1)])), ["add 1"]);
}

#[tokio::test]
async fn endpoints_with_a_proxy_of_this_control_plane_have_its_identity() {
    let suffix = "serviceaccount.identity.linkerd.cluster.local";
    let identity = crate::IdentityDomain {
        control_plane_namespace: "linkerd".to_owned(),
        trust_domain: "cluster.local".to_owned(),
    };
    let with = |cluster: &Cluster| Cluster { identity: Some(identity.clone()), ..cluster.clone() };
    let without = Cluster::default();
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut pod = examples::pod("web-5d4f-abc", "10.244.0.7");
        change(&mut pod);
        pod
    };
    let web = Some(format!("web.default.{suffix}"));
    for (pod, cluster, want) in [
        (changed(&|_| {}), with(&without), web.clone()),
        (changed(&|_| {}), without.clone(), None),
        (
            changed(&|pod| pod["spec"] = json!({"containers": []})),
            with(&without),
            Some(format!("default.default.{suffix}")),
        ),
        (
            changed(&|pod| pod["metadata"]["labels"]["linkerd.io/control-plane-ns"] = json!("other")),
            with(&without),
            None,
        ),
        (changed(&|pod| pod["metadata"]["labels"] = json!({})), with(&without), None),
        // Without a proxy, or around it, nothing is said to anybody's proxy of what is spoken.
        (
            changed(&|pod| {
                pod["metadata"] = json!({
                    "name": "web-5d4f-abc", "namespace": "default",
                    "annotations": {"config.linkerd.io/opaque-ports": "8080"},
                });
            }),
            with(&without),
            None,
        ),
        (
            changed(&|pod| {
                pod["metadata"]["annotations"] = json!({
                    "config.linkerd.io/opaque-ports": "8080", "config.linkerd.io/skip-inbound-ports": "8080",
                });
                pod["spec"]["initContainers"] = json!([{"ports": [{"name": "linkerd-proxy", "containerPort": 4143}]}]);
            }),
            with(&without),
            None,
        ),
        (
            changed(&|pod| {
                pod["metadata"]["annotations"] = json!({"config.linkerd.io/skip-inbound-ports": "25,8000-8100"})
            }),
            with(&without),
            None,
        ),
        // An opaque port's proxy has to have a port of its own, to be told what a connection is for.
        (
            changed(&|pod| pod["metadata"]["annotations"] = json!({"config.linkerd.io/opaque-ports": "8080"})),
            with(&without),
            None,
        ),
        (
            changed(&|pod| {
                pod["metadata"]["annotations"] = json!({"config.linkerd.io/opaque-ports": "8080"});
                pod["spec"]["initContainers"] = json!([{"ports": [{"name": "linkerd-proxy", "containerPort": 4143}]}]);
            }),
            with(&without),
            web.clone(),
        ),
    ] {
        let index = crate::Index::new(cluster);
        let slice = examples::slice("web", &[("web-5d4f-abc", "10.244.0.7", true)]);
        for object in [examples::service("web", "10.96.0.5"), slice, pod.clone()] {
            index.apply(&object).unwrap();
        }
        index.mark_synced();
        let found = index
            .answer(|state, cluster| match Target::parse("web.default.svc.cluster.local:80", &cluster.domain) {
                Some(Target::Service(name, port)) => endpoints(state, cluster, &name, port, &Place::default()),
                other => panic!("{other:?}"),
            })
            .await;
        let Endpoints::Ready(ready) = found else { panic!("missing") };
        let endpoint = ready.into_values().next().unwrap();
        let is_hinted = endpoint.protocol_hint.is_some();
        let keep_alive = endpoint.http2.and_then(|http2| http2.keep_alive);
        let seconds = keep_alive.map(|it| (it.interval.unwrap().seconds, it.timeout.unwrap().seconds, it.while_idle));
        let (hint, identity) = (endpoint.protocol_hint.unwrap_or_default(), endpoint.tls_identity);
        let opaque = matches!(hint.protocol, Some(destination::protocol_hint::Protocol::Opaque(_)));
        // Any proxy that a connection passes takes HTTP/1 over HTTP/2, whether it has an identity or not.
        let http2 = matches!(hint.protocol, Some(destination::protocol_hint::Protocol::H2(_)));
        let (labels, annotations) = (&pod["metadata"]["labels"], &pod["metadata"]["annotations"]);
        let passed = labels["linkerd.io/control-plane-ns"].is_string()
            && annotations["config.linkerd.io/skip-inbound-ports"].is_null();
        assert_eq!((is_hinted, http2), (passed, passed && !opaque), "{pod}");
        assert_eq!(seconds, passed.then_some((10, 3, true)), "{pod}");
        let inbound_port = hint.opaque_transport.map(|transport| transport.inbound_port);
        assert_eq!(inbound_port, (opaque && want.is_some()).then_some(4143), "{pod}");
        assert_eq!(identity.and_then(|identity| identity.server_name).map(|name| name.name), want, "{pod}");
    }
}

#[tokio::test]
async fn a_proxy_answers_at_its_admin_port_as_itself() {
    let identity =
        crate::IdentityDomain { control_plane_namespace: "linkerd".into(), trust_domain: "cluster.local".into() };
    let mut pod = examples::pod("web", "10.244.0.7");
    pod["spec"]["initContainers"] = json!([{"ports": [
        {"name": "linkerd-proxy", "containerPort": 4143}, {"name": "linkerd-admin", "containerPort": 4191},
    ]}]);
    for opaque in [false, true] {
        pod["metadata"]["annotations"] = match opaque {
            true => json!({"config.linkerd.io/opaque-ports": "4191"}),
            false => json!({}),
        };
        let index = crate::Index::new(Cluster { identity: Some(identity.clone()), ..Cluster::default() });
        index.apply(&pod).unwrap();
        index.mark_synced();
        let address = "10.244.0.7:4191".parse().unwrap();
        let profile = index.answer(|state, cluster| profile::by_address(state, cluster, address, None)).await;
        let endpoint = profile.endpoint.unwrap();
        let hint = endpoint.protocol_hint.unwrap();
        assert!(endpoint.tls_identity.is_some() && hint.opaque_transport.is_none(), "{opaque}");
        assert_eq!(matches!(hint.protocol, Some(destination::protocol_hint::Protocol::H2(_))), !opaque);
    }
}

#[tokio::test]
async fn an_external_workload_is_an_endpoint_that_says_itself_who_it_is() {
    use destination::{protocol_hint::Protocol, tls_identity::Strategy};
    let identity =
        crate::IdentityDomain { control_plane_namespace: "linkerd".into(), trust_domain: "cluster.local".into() };
    let server = |selector: &str| {
        json!({
            "apiVersion": "policy.linkerd.io/v1beta3", "kind": "Server", "metadata": {"name": "s", "namespace": "default"},
            "spec": {selector: {}, "port": "http", "proxyProtocol": "opaque"},
        })
    };
    let annotated = json!({"config.linkerd.io/opaque-ports": "http"});
    let ports = json!([{"name": "http", "port": 8080}, {"name": "linkerd-proxy", "port": 5143}]);
    for (what, annotations, ports, servers, inbound_port) in [
        ("as it is", json!({}), None, vec![], None),
        ("an opaque port", annotated.clone(), None, vec![], Some(4143)),
        ("a proxy at another port", annotated, Some(ports), vec![], Some(5143)),
        ("an opaque Server", json!({}), None, vec![server("externalWorkloadSelector")], Some(4143)),
        ("a Server of pods", json!({}), None, vec![server("podSelector")], None),
    ] {
        let mut workload = examples::external_workload("vm", "192.0.2.7");
        workload["metadata"]["annotations"] = annotations;
        if let Some(ports) = ports {
            workload["spec"]["ports"] = ports;
        }
        let index = crate::Index::new(Cluster { identity: Some(identity.clone()), ..Cluster::default() });
        // A pod may have the same name, and is something else.
        let pod = examples::pod("vm", "10.244.0.7");
        let slice = examples::slice_of("ExternalWorkload", "web", &[("vm", "192.0.2.7", true)]);
        for object in [examples::service("web", "10.96.0.5"), slice, pod, workload].into_iter().chain(servers) {
            index.apply(&object).unwrap();
        }
        index.mark_synced();
        let name = ServiceName { service: Key::new("default", "web"), hostname: None };
        let place = Place::default();
        let found = index.answer(|state, cluster| endpoints(state, cluster, &name, 80, &place)).await;
        let Endpoints::Ready(ready) = found else { panic!("missing") };
        let address = "192.0.2.7:8080".parse().unwrap();
        let profile = index.answer(|state, cluster| profile::by_address(state, cluster, address, None)).await;
        for endpoint in [ready[&address].clone(), profile.endpoint.unwrap()] {
            let labels = ["external_workload", "workloadgroup", "pod"].map(|label| endpoint.metric_labels.get(label));
            assert_eq!(labels, [Some(&"vm".to_owned()), Some(&"vms".to_owned()), None], "{what}");
            let hint = endpoint.protocol_hint.unwrap();
            assert_eq!(matches!(hint.protocol, Some(Protocol::Opaque(_))), inbound_port.is_some(), "{what}");
            assert_eq!(hint.opaque_transport.map(|it| it.inbound_port), inbound_port, "{what}");
            let identity = endpoint.tls_identity.unwrap();
            assert_eq!(identity.server_name.unwrap().name, "vm.cluster.local");
            let Some(Strategy::UriLikeIdentity(uri)) = identity.strategy else { panic!("{what}") };
            assert_eq!(uri.uri, "spiffe://root.linkerd.cluster.local/vm");
        }
    }
}
