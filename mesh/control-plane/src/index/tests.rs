use std::net::IpAddr;

use futures::FutureExt;
use serde_json::json;

use super::*;
use crate::examples;

fn web() -> Topic {
    Topic::Service(Key::new("default", "web"))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Which of these topics the change wakes.
fn wakes(index: &Index, change: impl FnOnce(&Index)) -> Vec<&'static str> {
    let watched = [
        ("web", web()),
        ("api", Topic::Service(Key::new("default", "api"))),
        ("web ip", Topic::Address(ip("10.96.0.5"))),
        ("pod ip", Topic::Address(ip("10.244.0.7"))),
        ("pod", Topic::Pod((Kind::Pod, Key::new("default", "p")))),
        ("statuses", Topic::Statuses),
        ("slices", Topic::Slices),
    ];
    let receivers: Vec<_> = watched
        .into_iter()
        .map(|(name, topic)| {
            let mut receiver = index.0.topics.subscribe(topic);
            receiver.mark_unchanged();
            (name, receiver)
        })
        .collect();
    change(index);
    receivers.into_iter().filter(|(_, receiver)| receiver.has_changed().unwrap()).map(|(name, _)| name).collect()
}

#[test]
fn a_change_wakes_those_it_concerns_and_no_others() {
    let index =
        examples::index([examples::service("web", "10.96.0.5"), examples::slice("web", &[("p", "10.244.0.7", true)])]);
    let apply = |object: Value| wakes(&index, |index| index.apply(&object).unwrap());
    let pod = examples::pod("p", "10.244.0.7");
    assert_eq!(apply(pod.clone()), ["web", "pod ip", "pod"]);
    assert_eq!(apply(pod), [""; 0], "the same object again changes nothing");
    assert_eq!(apply(examples::slice("web", &[])), ["web"]);
    assert_eq!(apply(examples::profile("web", "elsewhere", json!({}))), ["web", "web ip"]);
    assert_eq!(apply(examples::split("s", "v1alpha2", "web", json!([]))), ["web", "web ip"]);
    assert_eq!(apply(examples::split("s", "v1alpha2", "api", json!([]))), ["web", "api", "web ip"]);
    assert_eq!(apply(examples::service("api", "10.96.0.6")), ["api"]);
    let gone = wakes(&index, |index| index.delete(Kind::Service, &Key::new("default", "web")));
    assert_eq!(gone, ["web", "web ip"]);
    assert_eq!(wakes(&index, |index| index.delete(Kind::Service, &Key::new("default", "web"))), [""; 0]);
}

#[test]
fn a_pods_status_that_no_answer_shows_wakes_nobody() {
    let mut pod = examples::pod("p", "10.244.0.7");
    let index = examples::index([pod.clone()]);
    pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    pod["metadata"]["resourceVersion"] = json!("2");
    assert_eq!(wakes(&index, |index| index.apply(&pod).unwrap()), [""; 0]);
}

#[test]
fn routes_hear_of_their_backends() {
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "default"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "rules": [{"backendRefs": [{"name": "api", "port": 80}]}],
        },
    });
    let index = examples::index([examples::service("web", "10.96.0.5"), route]);
    let woken = wakes(&index, |index| index.apply(&examples::service("api", "10.96.0.6")).unwrap());
    assert_eq!(woken, ["web", "api", "web ip", "statuses"]);
}

#[test]
fn egress_networks_and_their_routes_wake_every_address() {
    let network = json!({
        "apiVersion": "policy.linkerd.io/v1alpha1", "kind": "EgressNetwork",
        "metadata": {"name": "all", "namespace": "default"}, "spec": {"trafficPolicy": "Allow"},
    });
    let parent = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "all", "port": 80});
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "default"},
        "spec": {"parentRefs": [parent], "rules": [{"backendRefs": [{"name": "api", "port": 80}]}]},
    });
    let index = examples::index([]);
    let apply = |object: &Value| wakes(&index, |index| index.apply(object).unwrap());
    let all = ["web ip", "pod ip", "statuses"];
    assert_eq!(apply(&network), all);
    assert_eq!(apply(&network), [""; 0]);
    assert_eq!(apply(&route), all);
    assert_eq!(apply(&examples::service("api", "10.96.0.6")), ["api", "web ip", "pod ip", "statuses"]);
    assert_eq!(wakes(&index, |index| index.delete(Kind::EgressNetwork, &Key::new("default", "all"))), all);
}

#[test]
fn policies_wake_the_pods_of_their_namespace() {
    let index = examples::index([examples::pod("p", "10.244.0.7")]);
    let change = |kind: &str, namespace: &str| {
        let metadata = json!({"name": "a", "namespace": namespace});
        let object = json!({"apiVersion": "policy.linkerd.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": {
            "podSelector": {}, "port": 80, "targetRef": {"kind": "Server", "name": "a"}, "requiredAuthenticationRefs": [],
        }});
        wakes(&index, |index| index.apply(&object).unwrap())
    };
    assert_eq!((change("Server", "default"), change("Server", "elsewhere")), (vec!["pod ip", "pod"], vec![]));
    assert_eq!(change("AuthorizationPolicy", "default"), ["pod"]);
    assert_eq!(change("AuthorizationPolicy", "elsewhere"), [""; 0]);
    assert_eq!(change("NetworkAuthentication", "elsewhere"), ["pod"], "which policies of any namespace refer to");
}

#[test]
fn a_server_wakes_those_who_send_to_its_pods() {
    let slice = examples::slice("web", &[("p", "10.244.0.7", true)]);
    let index = examples::index([examples::service("web", "10.96.0.5"), slice, examples::pod("p", "10.244.0.7")]);
    let server = |name: &str, hash: &str| {
        let pods = json!({"matchLabels": {"pod-template-hash": hash}});
        json!({
            "apiVersion": "policy.linkerd.io/v1beta3", "kind": "Server", "metadata": {"name": name, "namespace": "default"},
            "spec": {"podSelector": pods, "port": 8080, "proxyProtocol": "opaque"},
        })
    };
    assert_eq!(wakes(&index, |index| index.apply(&server("its", "5d4f")).unwrap()), ["web", "pod ip", "pod"]);
    assert_eq!(wakes(&index, |index| index.apply(&server("other", "other")).unwrap()), [""; 0]);
    let gone = wakes(&index, |index| index.delete(Kind::Server, &Key::new("default", "its")));
    assert_eq!(gone, ["web", "pod ip", "pod"]);
}

#[test]
fn who_makes_slices_hears_of_workloads_selectors_and_the_slices_themselves() {
    let index = examples::index([]);
    let apply = |object: &Value| wakes(&index, |index| index.apply(object).unwrap());
    let mut workload = examples::external_workload("vm", "192.0.2.7");
    assert_eq!(apply(&workload), ["slices"]);
    workload["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    assert_eq!(apply(&workload), ["slices"]);
    workload["metadata"]["resourceVersion"] = json!("2");
    assert_eq!(apply(&workload), [""; 0], "nothing that is in a slice");
    let mut service = examples::service("web", "10.96.0.5");
    assert_eq!(apply(&service), ["web", "web ip"]);
    for (field, value) in [("selector", json!({"app": "vm"})), ("ports", json!([{"port": 80, "targetPort": 8080}]))] {
        service["spec"][field] = value;
        assert_eq!(apply(&service), ["web", "web ip", "slices"], "{field}");
    }
    let mut slice = examples::slice_of("ExternalWorkload", "web", &[("vm", "192.0.2.7", false)]);
    assert_eq!(apply(&slice), ["web"], "somebody else's");
    slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] =
        json!("linkerd-external-workloads-controller");
    for version in ["1", "2"] {
        slice["metadata"]["resourceVersion"] = json!(version);
        assert_eq!(apply(&slice), ["web", "slices"]);
    }
    let gone = |kind, name| wakes(&index, |index| index.delete(kind, &Key::new("default", name)));
    assert_eq!(gone(Kind::EndpointSlice, "web-x1"), ["web", "slices"]);
    assert_eq!(gone(Kind::ExternalWorkload, "vm"), ["slices"]);
    assert_eq!(gone(Kind::Service, "web"), ["web", "web ip", "slices"]);
}

#[test]
fn replace_removes_what_is_not_listed() {
    let index = examples::index([examples::service("web", "10.96.0.5"), examples::service("api", "10.96.0.6")]);
    let api = Object::parse(&examples::service("api", "10.96.0.6")).unwrap();
    assert_eq!(wakes(&index, |index| index.replace(Kind::Service, vec![api])), ["web", "web ip"]);
    assert_eq!(index.count(Kind::Service), 1);
}

#[test]
fn an_address_that_moves_belongs_to_the_new_pod() {
    let index = examples::index([examples::pod("old", "10.244.0.7")]);
    index.apply(&examples::pod("old", "10.244.0.8")).unwrap();
    index.apply(&examples::pod("new", "10.244.0.7")).unwrap();
    let owner = index.look(|state, _| state.pod_by_ip(ip("10.244.0.7")).unwrap().key.clone());
    assert_eq!(owner, Key::new("default", "new"));
}

#[test]
fn other_kinds_are_refused_by_name() {
    let index = Index::new(Cluster::default());
    let error = index.apply(&json!({"apiVersion": "apps/v1", "kind": "Deployment"})).unwrap_err();
    assert!(error.to_string().contains("found apiVersion `apps/v1`, kind `Deployment`"), "{error}");
    let error =
        index.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": 1}}));
    assert!(error.unwrap_err().to_string().starts_with("Service x: expected"));
}

#[tokio::test]
async fn nobody_is_answered_before_everything_is_listed() {
    let index = Index::new(Cluster::default());
    let mut answers = Box::pin(index.follow(web(), |state, _| state.service(&Key::new("default", "web")).is_some()));
    let mut first = futures::StreamExt::next(&mut answers);
    assert_eq!((&mut first).now_or_never(), None);
    index.apply(&examples::service("web", "10.96.0.5")).unwrap();
    assert_eq!((&mut first).now_or_never(), None);
    index.mark_synced();
    assert_eq!(first.await, Some(true));
}

mod property {
    use std::net::SocketAddr;

    use linkerd2_proxy_api::{destination::DestinationProfile, inbound, outbound::OutboundPolicy};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        answers::{
            endpoints, endpoints::Endpoints, inbound::server, outbound, place::Place, profile, slices, slices::Picture,
            status, status::Due,
        },
        names::ServiceName,
    };

    #[derive(Debug, Clone)]
    enum Change {
        Apply(Value),
        Delete(Kind, Key),
    }

    /// Few names and addresses, so that objects meet.
    fn any_change() -> impl Strategy<Value = Change> {
        let service = || proptest::sample::select(vec!["a", "b"]);
        let ip = || proptest::sample::select(vec!["10.96.0.1", "10.96.0.2", "10.244.0.1", "10.244.0.2"]);
        let pod = || proptest::sample::select(vec!["p", "q"]);
        let zone = || proptest::sample::select(vec!["z1", "z2"]);
        let namespace = || proptest::sample::select(vec!["default", "client"]);
        let annotated = |mut object: Value, opaque: bool| {
            if opaque {
                object["metadata"]["annotations"] = json!({"config.linkerd.io/opaque-ports": "80,8080"});
            }
            object
        };
        let object = prop_oneof![
            (service(), ip(), any::<bool>(), any::<bool>(), service()).prop_map(
                move |(name, ip, opaque, local, group)| {
                    let mut service = annotated(examples::service(name, ip), opaque);
                    service["spec"]["selector"] = json!({"app": group});
                    service["spec"]["internalTrafficPolicy"] = json!(if local { "Local" } else { "Cluster" });
                    service
                }
            ),
            (service(), proptest::collection::vec((pod(), ip(), any::<bool>()), 0..3), zone()).prop_map(
                |(service, pods, zone)| {
                    let mut slice = examples::slice(service, &pods);
                    for endpoint in slice["endpoints"].as_array_mut().unwrap() {
                        endpoint["hints"] = json!({"forZones": [{"name": zone}]});
                        endpoint["nodeName"] = json!("n");
                    }
                    slice
                }
            ),
            zone().prop_map(|zone| examples::node("n", zone)),
            (pod(), ip(), any::<bool>(), ip()).prop_map(move |(name, ip, opaque, host)| {
                let mut pod = annotated(examples::pod(name, ip), opaque);
                pod["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(80);
                pod["status"]["hostIP"] = json!(host);
                pod
            }),
            (pod(), ip(), any::<bool>(), service(), any::<bool>()).prop_map(move |(name, ip, opaque, group, ready)| {
                let mut workload = annotated(examples::external_workload(name, ip), opaque);
                workload["metadata"]["labels"]["app"] = json!(group);
                let status = if ready { "True" } else { "False" };
                workload["status"] = json!({"conditions": [{"type": "Ready", "status": status}]});
                workload
            }),
            (service(), proptest::collection::vec((pod(), ip(), any::<bool>()), 0..3), 0..3u32).prop_map(
                |(service, workloads, version)| {
                    let mut slice = examples::slice_of("ExternalWorkload", service, &workloads);
                    slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] =
                        json!("linkerd-external-workloads-controller");
                    slice["metadata"]["resourceVersion"] = json!(version.to_string());
                    slice
                }
            ),
            (service(), service()).prop_map(|(name, group)| {
                let workloads = json!({"matchLabels": {"app": group}});
                let spec = json!({"externalWorkloadSelector": workloads, "port": "http", "proxyProtocol": "opaque"});
                policy("v1beta3", "Server", "default", name, spec)
            }),
            (service(), namespace(), "[ab]").prop_map(|(service, namespace, route)| {
                let routes = json!({"routes": [{"name": route, "condition": {"pathRegex": "/"}}]});
                examples::profile(service, namespace, routes)
            }),
            (service(), service(), service(), 0..3u32).prop_map(|(name, apex, backend, weight)| {
                examples::split(name, "v1alpha2", apex, json!([{"service": backend, "weight": weight}]))
            }),
            (service(), namespace(), service(), service()).prop_map(|(name, namespace, parent, backend)| json!({
                "apiVersion": "policy.linkerd.io/v1beta3", "kind": "HTTPRoute",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "parentRefs": [{"group": "core", "kind": "Service", "name": parent, "namespace": "default"}],
                    "rules": [{"backendRefs": [{"name": backend, "port": 80}]}],
                },
            })),
            (service(), service(), service(), any::<bool>()).prop_map(|(name, parent, backend, arrival)| json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {
                    "parentRefs": [match arrival {
                        true => json!({"group": "policy.linkerd.io", "kind": "Server", "name": parent}),
                        false => json!({"group": "", "kind": "Service", "name": parent}),
                    }],
                    "rules": [{"backendRefs": [{"name": backend, "port": 80}]}],
                },
            })),
            (namespace(), service(), proptest::sample::select(vec!["opaque", "gRPC", "HTTP/1"])).prop_map(
                |(namespace, name, protocol)| {
                    let pods = json!({"matchLabels": {"pod-template-hash": "5d4f"}});
                    let spec = json!({"podSelector": pods, "port": 8080, "proxyProtocol": protocol});
                    policy("v1beta1", "Server", namespace, name, spec)
                }
            ),
            (namespace(), service(), service()).prop_map(|(namespace, name, server)| {
                let spec = json!({"server": {"name": server}, "client": {"unauthenticated": true}});
                policy("v1beta1", "ServerAuthorization", namespace, name, spec)
            }),
            (namespace(), service(), service(), namespace()).prop_map(|(namespace, name, server, required)| {
                let group = "policy.linkerd.io";
                let spec = json!({
                    "targetRef": {"group": group, "kind": "Server", "name": server},
                    "requiredAuthenticationRefs":
                        [{"group": group, "kind": "NetworkAuthentication", "name": "a", "namespace": required}],
                });
                policy("v1alpha1", "AuthorizationPolicy", namespace, name, spec)
            }),
            (service(), service(), 0..3u32).prop_map(|(name, server, requests)| {
                let target = json!({"group": "policy.linkerd.io", "kind": "Server", "name": server});
                let spec = json!({"targetRef": target, "total": {"requestsPerSecond": requests}});
                policy("v1alpha1", "HTTPLocalRateLimitPolicy", "default", name, spec)
            }),
            (namespace(), service(), 0..3u8).prop_map(|(namespace, name, net)| {
                let spec = json!({"networks": [{"cidr": format!("10.{net}.0.0/16")}]});
                policy("v1alpha1", "NetworkAuthentication", namespace, name, spec)
            }),
            (proptest::sample::select(vec!["client", "linkerd-egress"]), service(), 0..3u8).prop_map(
                |(namespace, name, net)| {
                    let spec = match net {
                        0 => json!({"trafficPolicy": "Deny"}),
                        1 => json!({"trafficPolicy": "Allow", "networks": [{"cidr": "10.244.0.0/16"}]}),
                        _ => json!({"trafficPolicy": "Allow", "networks": [{"cidr": "203.0.113.0/24"}]}),
                    };
                    policy("v1alpha1", "EgressNetwork", namespace, name, spec)
                }
            ),
            (namespace(), service(), service(), service(), any::<bool>()).prop_map(
                |(namespace, name, parent, backend, to_service)| {
                    let network = |name: &str| {
                        json!({
                            "group": "policy.linkerd.io", "kind": "EgressNetwork", "name": name, "namespace": "client",
                            "port": 80,
                        })
                    };
                    let backend = match to_service {
                        true => json!({"name": backend, "port": 80, "namespace": "default"}),
                        false => network(backend),
                    };
                    let spec = json!({"parentRefs": [network(parent)], "rules": [{"backendRefs": [backend]}]});
                    policy("v1beta3", "HTTPRoute", namespace, name, spec)
                }
            ),
            (
                proptest::sample::select(vec!["TLSRoute", "TCPRoute"]),
                service(),
                service(),
                service(),
                proptest::sample::select(vec![1, 1, 2]),
            )
                .prop_map(|(kind, name, parent, backend, rules)| json!({
                    "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
                    "metadata": {"name": name, "namespace": "default"},
                    "spec": {
                        "parentRefs": [{"group": "", "kind": "Service", "name": parent}],
                        "rules": vec![json!({"backendRefs": [{"name": backend, "port": 80}]}); rules],
                    },
                })),
        ];
        (object, proptest::bool::weighted(0.3)).prop_map(|(object, delete)| {
            let parsed = Object::parse(&object).unwrap();
            if delete { Change::Delete(parsed.kind(), parsed.key().clone()) } else { Change::Apply(object) }
        })
    }

    fn policy(version: &str, kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
        json!({
            "apiVersion": format!("policy.linkerd.io/{version}"), "kind": kind,
            "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        })
    }

    /// Every kind of answer.
    #[derive(Debug, PartialEq)]
    enum Answer {
        Endpoints(Endpoints),
        Profile(Box<DestinationProfile>),
        Policy(Option<OutboundPolicy>),
        Server(Option<inbound::Server>),
        Statuses(Vec<Due>),
        Slices(Picture),
    }

    fn answers(index: &Index) -> Vec<(Vec<Topic>, Answer)> {
        index.look(|state, cluster| {
            let mut answers = Vec::new();
            for service in ["a", "b"] {
                let name = ServiceName { service: Key::new("default", service), hostname: None };
                let topic = || Topic::Service(name.service.clone());
                for node in [None, Some("n")] {
                    let place = Place::of(state, &name.service, node);
                    let topics = node.map(|node| Topic::Node(node.into())).into_iter().chain([topic()]).collect();
                    let endpoints = endpoints::endpoints(state, cluster, &name, 80, &place);
                    answers.push((topics, Answer::Endpoints(endpoints)));
                }
                let profile = profile::by_name(state, cluster, &name, 80, Some("client"));
                answers.push((vec![topic()], Answer::Profile(Box::new(profile))));
                let policy = outbound::by_service(state, cluster, &name.service, 80, Some("client"));
                answers.push((vec![topic()], Answer::Policy(policy)));
                let named = ServiceName { hostname: Some("p".into()), ..name.clone() };
                let profile = profile::by_name(state, cluster, &named, 8080, None);
                answers.push((vec![topic()], Answer::Profile(Box::new(profile))));
            }
            for text in ["10.96.0.1", "10.96.0.2", "10.244.0.1", "10.244.0.2", "203.0.113.1"] {
                let address = SocketAddr::new(ip(text), 80);
                let topic = || Topic::Address(ip(text));
                let profile = profile::by_address(state, cluster, address, Some("client"));
                answers.push((vec![topic()], Answer::Profile(Box::new(profile))));
                let policy = outbound::by_address(state, cluster, address, Some("client"));
                answers.push((vec![topic()], Answer::Policy(policy)));
            }
            for pod in ["p", "q"] {
                for kind in [Kind::Pod, Kind::ExternalWorkload] {
                    let id = (kind, Key::new("default", pod));
                    let server = server(state, cluster, &id, 8080);
                    answers.push((vec![Topic::Pod(id)], Answer::Server(server)));
                }
            }
            let mut due = status::due(state, cluster);
            due.sort_by_cached_key(|due| (due.kind, due.key.clone()));
            answers.push((vec![Topic::Statuses], Answer::Statuses(due)));
            answers.push((vec![Topic::Slices], Answer::Slices(slices::picture(state, cluster))));
            answers
        })
    }

    fn make(index: &Index, change: &Change) {
        match change {
            Change::Apply(object) => index.apply(object).unwrap(),
            Change::Delete(kind, key) => index.delete(*kind, key),
        }
    }

    proptest! {
        /// Whatever changes an answer wakes those who asked; and what is left after many changes is what the objects
        /// that are left would have made of an empty index.
        #[test]
        fn no_change_of_an_answer_goes_unnoticed(changes in proptest::collection::vec(any_change(), 1..40)) {
            let index = examples::index([]);
            let mut left = std::collections::HashMap::new();
            for change in changes {
                let before = answers(&index);
                let subscribe = |topics: &Vec<Topic>| -> Vec<_> {
                    topics.iter().map(|topic| index.0.topics.subscribe(topic.clone())).collect()
                };
                let receivers: Vec<_> = before.iter().map(|(topics, _)| subscribe(topics)).collect();
                make(&index, &change);
                for (((topics, old), (_, new)), receivers) in before.iter().zip(answers(&index)).zip(receivers) {
                    let woken = receivers.iter().any(|receiver| receiver.has_changed().unwrap());
                    prop_assert!(*old == new || woken, "{topics:?} was not woken by {change:?}");
                }
                match change {
                    Change::Apply(object) => {
                        let parsed = Object::parse(&object).unwrap();
                        left.insert((parsed.kind(), parsed.key().clone()), object);
                    }
                    Change::Delete(kind, key) => drop(left.remove(&(kind, key))),
                }
            }
            let fresh = examples::index(left.into_values());
            prop_assert_eq!(answers(&index), answers(&fresh));
        }
    }
}
