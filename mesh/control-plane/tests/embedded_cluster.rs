//! The control plane against the embedded cluster's API server, with the objects and the rights it is installed with.
#![allow(clippy::unwrap_used)] // all of this file is test code, its helpers too

mod cluster;

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use cluster::{api_of, api_server, client, kubeconfig};
use futures::StreamExt;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    runtime::WatchStreamExt,
};
use linkerd2_proxy_api::{
    destination::{DestinationProfile, GetDestination, Update, destination_client::DestinationClient, update},
    identity::{CertifyRequest, identity_client::IdentityClient},
    inbound::{self, PortSpec, inbound_server_policies_client::InboundServerPoliciesClient},
    outbound::{self, TrafficSpec, outbound_policies_client::OutboundPoliciesClient, proxy_protocol, traffic_spec},
};
use meshgate_api::Running;
use meshgate_control_plane::{
    Authority, Cluster, IdentityDomain, Index, Server, Tls, Validity, serve_identity, watch, write_slices,
    write_statuses,
};
use meshgate_store::Store;
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};
use tonic::{Code, Streaming};

/// Long enough for a loaded machine; a test that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(20);

async fn apply(client: &Client, object: &Value) {
    let name = object["metadata"]["name"].as_str().unwrap();
    let patch = Patch::Apply(object);
    api_of(client, object).patch(name, &PatchParams::apply("test").force(), &patch).await.unwrap();
}

/// An API server with the control plane's manifests: who may everything there, and who may what they say. It ends when it is dropped.
async fn installed() -> (Running, Client, Client) {
    let server = api_server(Store::new()).await;
    let admin = client(kubeconfig(&server, None)).await;
    let options = meshgate_inject::Options { gateway_api: true, ..meshgate_inject::Options::default() };
    for manifest in meshgate_inject::control_plane_manifests(&options) {
        apply(&admin, &manifest).await;
    }
    let token = server.tokens().issue("linkerd", "linkerd-destination", &[], Duration::from_secs(3600)).unwrap().token;
    let own = client(kubeconfig(&server, Some(token))).await;
    (server, admin, own)
}

async fn next<T>(stream: &mut Streaming<T>) -> T {
    timeout(DEADLINE, stream.message()).await.expect("an answer in time").unwrap().expect("an open stream")
}

async fn profile_where(stream: &mut Streaming<DestinationProfile>, wanted: impl Fn(&DestinationProfile) -> bool) {
    while !wanted(&next(stream).await) {}
}

#[tokio::test]
async fn objects_become_answers_with_the_rights_of_the_manifests() {
    let (_server, admin, own) = installed().await;
    let index = Index::new(Cluster::default());
    let _watches = watch(&own, &index);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(Server::new(index.clone()).serve_destination(listener));
    let mut destination = DestinationClient::connect(uri).await.unwrap();
    let ask = || GetDestination {
        path: "web.default.svc.cluster.local:80".into(),
        context_token: r#"{"ns":"default"}"#.into(),
        ..Default::default()
    };
    let mut profiles = destination.get_profile(ask()).await.unwrap().into_inner();
    let mut updates = destination.get(ask()).await.unwrap().into_inner();
    assert_eq!(next(&mut profiles).await, DestinationProfile::default());
    assert!(matches!(next(&mut updates).await.update, Some(update::Update::NoEndpoints(none)) if !none.exists));

    let metadata = |name: &str| json!({"name": name, "namespace": "default"});
    apply(
        &admin,
        &json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata("web"),
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        }),
    )
    .await;
    profile_where(&mut profiles, |profile| profile.fully_qualified_name == "web.default.svc.cluster.local").await;
    assert!(matches!(next(&mut updates).await.update, Some(update::Update::NoEndpoints(none)) if none.exists));

    apply(
        &admin,
        &json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.244.0.7"], "conditions": {"ready": true}}],
        }),
    )
    .await;
    assert!(matches!(next(&mut updates).await.update, Some(update::Update::Add(set)) if set.addrs.len() == 1));

    for (version, weights) in [("v1alpha2", json!([80, 20])), ("v1alpha1", json!(["500m", "1500m"]))] {
        apply(
            &admin,
            &json!({
                "apiVersion": format!("split.smi-spec.io/{version}"), "kind": "TrafficSplit", "metadata": metadata("split"),
                "spec": {"service": "web", "backends": [
                    {"service": "v1", "weight": weights[0]}, {"service": "v2", "weight": weights[1]},
                ]},
            }),
        )
        .await;
        let want = if version == "v1alpha2" { [800_000, 200_000] } else { [5000, 15_000] };
        profile_where(&mut profiles, |profile| {
            profile.dst_overrides.iter().map(|dst| dst.weight).collect::<Vec<_>>() == want
        })
        .await;
    }

    apply(
        &admin,
        &json!({
            "apiVersion": "linkerd.io/v1alpha2", "kind": "ServiceProfile", "metadata": metadata("web.default.svc.cluster.local"),
            "spec": {"routes": [{"name": "GET /", "condition": {"method": "GET", "pathRegex": "/"}, "timeout": "250ms"}]},
        }),
    )
    .await;
    profile_where(&mut profiles, |profile| profile.routes.len() == 1 && profile.routes[0].timeout.is_some()).await;
}

#[tokio::test]
async fn a_proxy_is_told_of_its_zones_endpoints_and_of_a_host_port_with_the_rights_of_the_manifests() {
    let (_server, admin, own) = installed().await;
    let node = |zone: &str| {
        let labels = json!({"topology.kubernetes.io/zone": zone});
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}})
    };
    apply(&admin, &node("a")).await;
    let metadata = json!({"name": "web", "namespace": "default"});
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    apply(&admin, &json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}}))
        .await;
    let endpoint = |ip: &str, zone: &str| {
        json!({
            "addresses": [ip], "conditions": {"ready": true}, "zone": zone, "hints": {"forZones": [{"name": zone}]},
        })
    };
    apply(
        &admin,
        &json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [endpoint("10.244.0.7", "a"), endpoint("10.244.0.8", "b")],
        }),
    )
    .await;
    apply(
        &admin,
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}}),
    )
    .await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "web", "image": "web", "ports": [{"containerPort": 8080, "hostPort": 80}]}]},
    });
    apply(&admin, &pod).await;

    let index = Index::new(Cluster::default());
    let _watches = watch(&own, &index);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(Server::new(index).serve_destination(listener));
    let mut destination = DestinationClient::connect(uri).await.unwrap();
    let ask = |path: &str| GetDestination {
        path: path.into(),
        context_token: r#"{"ns":"default","nodeName":"n1","pod":"client"}"#.into(),
        ..Default::default()
    };
    let mut updates = destination.get(ask("web.default.svc.cluster.local:80")).await.unwrap().into_inner();
    for zone in ["a", "b"] {
        apply(&admin, &node(zone)).await;
        let Some(update::Update::Add(set)) = next(&mut updates).await.update else { panic!("expected endpoints") };
        let labels: Vec<_> = set.addrs.iter().map(|one| &one.metric_labels).collect();
        assert_eq!(labels.len(), 1, "{labels:?}");
        assert_eq!((labels[0]["zone"].as_str(), labels[0]["zone_locality"].as_str()), (zone, "local"));
        if zone == "b" {
            assert!(
                matches!(next(&mut updates).await.update, Some(update::Update::Remove(set)) if set.addrs.len() == 1)
            );
        }
    }

    let mut profiles = destination.get_profile(ask("172.18.0.2:80")).await.unwrap().into_inner();
    assert!(next(&mut profiles).await.endpoint.unwrap().metric_labels.is_empty());
    let status = json!({"status": {"phase": "Running", "podIP": "10.244.0.9", "hostIP": "172.18.0.2"}});
    let patch = Patch::Merge(&status);
    api_of(&admin, &pod).patch_status("p", &PatchParams::default(), &patch).await.unwrap();
    profile_where(&mut profiles, |profile| {
        profile
            .endpoint
            .as_ref()
            .is_some_and(|endpoint| endpoint.metric_labels.get("pod").is_some_and(|pod| pod == "p"))
    })
    .await;
}

#[tokio::test]
async fn routes_and_limits_become_policies_with_the_rights_of_the_manifests() {
    let (_server, admin, own) = installed().await;
    let index = Index::new(Cluster::default());
    let _watches = watch(&own, &index);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(Server::new(index.clone()).serve_policy(listener));
    let mut policies = OutboundPoliciesClient::connect(uri.clone()).await.unwrap();
    let mut pods = InboundServerPoliciesClient::connect(uri).await.unwrap();

    let metadata = json!({"name": "web", "namespace": "default"});
    let ports = json!([{"name": "grpc", "port": 80, "targetPort": 8080}]);
    let web = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}});
    apply(&admin, &web).await;
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute", "metadata": metadata,
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "rules": [{"matches": [{"method": {"service": "shop.Cart"}}]}],
        },
    });
    apply(&admin, &route).await;
    let target = traffic_spec::Target::Authority("web.default.svc.cluster.local:80".into());
    let spec = TrafficSpec { source_workload: "default:p".into(), target: Some(target) };
    let policy = timeout(DEADLINE, async {
        loop {
            // The Service may not be known yet, and then the route may not.
            if let Ok(policies) = policies.watch(spec.clone()).await {
                let mut policies = policies.into_inner();
                while let Some(policy) = policies.message().await.unwrap() {
                    if let Some(proxy_protocol::Kind::Grpc(grpc)) = policy.protocol.unwrap().kind {
                        return grpc;
                    }
                }
            }
        }
    });
    let grpc = policy.await.expect("the route in time");
    assert_eq!(grpc.routes[0].rules[0].matches[0].rpc.as_ref().unwrap().service, "shop.Cart");

    let account = json!({"name": "default", "namespace": "default"});
    apply(&admin, &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})).await;
    apply(
        &admin,
        &json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "web", "ports": [{"containerPort": 8080}]}]},
        }),
    )
    .await;
    let policy = |version: &str, kind: &str, spec: Value| json!({"apiVersion": format!("policy.linkerd.io/{version}"), "kind": kind, "metadata": metadata, "spec": spec});
    let selector = json!({"matchLabels": {"app": "web"}});
    apply(&admin, &policy("v1beta3", "Server", json!({"podSelector": selector, "port": 8080}))).await;
    let target = json!({"group": "policy.linkerd.io", "kind": "Server", "name": "web"});
    let limit = json!({"targetRef": target, "total": {"requestsPerSecond": 7}});
    apply(&admin, &policy("v1alpha1", "HTTPLocalRateLimitPolicy", limit)).await;
    let mut servers =
        pods.watch_port(PortSpec { workload: "default:p".into(), port: 8080 }).await.unwrap().into_inner();
    loop {
        let server = next(&mut servers).await;
        if let Some(inbound::proxy_protocol::Kind::Detect(detect)) = server.protocol.unwrap().kind
            && let Some(limit) = detect.http_local_rate_limit
        {
            assert_eq!(limit.total.unwrap().requests_per_second, 7);
            break;
        }
    }
}

#[tokio::test]
async fn routes_say_what_became_of_them_with_the_rights_of_the_manifests() {
    let (_server, admin, own) = installed().await;
    let index = Index::new(Cluster::default());
    let _watches = watch(&own, &index);
    tokio::spawn(write_statuses(own, index));

    let service = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"ports": [{"port": 80}]},
        })
    };
    for (api_version, kind) in [
        ("policy.linkerd.io/v1beta3", "HTTPRoute"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        ("gateway.networking.k8s.io/v1", "GRPCRoute"),
        ("gateway.networking.k8s.io/v1", "TLSRoute"),
        ("gateway.networking.k8s.io/v1alpha2", "TCPRoute"),
    ] {
        let backend = format!("{}-{}", kind.to_lowercase(), api_version.len());
        // One of its own: of several types for the same the first counts.
        let name = format!("web-{backend}");
        apply(&admin, &service(&name)).await;
        let parent = json!({"group": "", "kind": "Service", "name": name, "port": 80});
        let route = json!({
            "apiVersion": api_version, "kind": kind, "metadata": {"name": "r", "namespace": "default"},
            "spec": {
                "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"}, parent],
                "rules": [{"backendRefs": [{"name": backend, "port": 80}]}],
            },
        });
        apply(&admin, &route).await;
        let found = status_where(&admin, &route, |parents| parents.len() == 1).await;
        assert_eq!(found[0]["controllerName"], "linkerd.io/policy-controller");
        assert_eq!(found[0]["parentRef"], parent);
        assert_eq!(verdicts(&found[0]), ["Accepted True Accepted 1", "ResolvedRefs False BackendNotFound 1"]);
        let since = found[0]["conditions"][0]["lastTransitionTime"].clone();
        assert!(since.is_string(), "{found:?}");

        // Somebody else's verdict stays when ours changes.
        let other = json!({
            "parentRef": {"name": "g"}, "controllerName": "example.com/gateways", "conditions": [],
        });
        let both = json!({"status": {"parents": [found[0], other]}});
        let patch = Patch::Merge(&both);
        api_of(&admin, &route).patch_status("r", &PatchParams::default(), &patch).await.unwrap();
        apply(&admin, &service(&backend)).await;
        let resolved = |parents: &[Value]| {
            let ours = parents.iter().find(|parent| parent["controllerName"] == "linkerd.io/policy-controller");
            ours.is_some_and(|ours| verdicts(ours)[1] == "ResolvedRefs True ResolvedRefs 1")
        };
        let found = status_where(&admin, &route, resolved).await;
        assert_eq!(found[0], other);
        assert_eq!(found[1]["conditions"][0]["lastTransitionTime"], since);
    }
}

#[tokio::test]
async fn networks_become_policies_and_say_whether_they_are_accepted_with_the_rights_of_the_manifests() {
    let (_server, admin, own) = installed().await;
    let index = Index::new(Cluster::default());
    let _watches = watch(&own, &index);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(Server::new(index.clone()).serve_policy(listener));
    tokio::spawn(write_statuses(own, index));
    let target = traffic_spec::Target::Addr("203.0.113.10:80".parse::<SocketAddr>().unwrap().into());
    let spec = TrafficSpec { source_workload: "default:p".into(), target: Some(target) };
    let mut client = OutboundPoliciesClient::connect(uri).await.unwrap();
    let mut policies = client.watch(spec).await.unwrap().into_inner();

    let metadata = |name: &str| json!({"name": name, "namespace": "default"});
    let network = |name: &str, networks: Value| {
        json!({
            "apiVersion": "policy.linkerd.io/v1alpha1", "kind": "EgressNetwork", "metadata": metadata(name),
            "spec": {"trafficPolicy": "Deny", "networks": networks},
        })
    };
    apply(&admin, &network("out", json!([{"cidr": "203.0.113.0/24"}]))).await;
    apply(&admin, &network("in", json!([{"cidr": "10.96.0.0/16"}]))).await;
    let route = json!({
        "apiVersion": "policy.linkerd.io/v1beta3", "kind": "HTTPRoute", "metadata": metadata("r"),
        "spec": {
            "parentRefs": [{"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out", "port": 80}],
            "rules": [{}],
        },
    });
    apply(&admin, &route).await;
    // A route, and what becomes of the rest.
    let has_both = |policy: outbound::OutboundPolicy| match policy.protocol.unwrap().kind {
        Some(proxy_protocol::Kind::Detect(detect)) => detect.http1.unwrap().routes.len() == 2,
        _ => false,
    };
    while !has_both(next(&mut policies).await) {}
    let parents = status_where(&admin, &route, |parents| {
        parents.len() == 1 && verdicts(&parents[0])[0] == "Accepted True Accepted 1"
    });
    parents.await;
    for (name, verdict) in
        [("out", "Accepted True Accepted null"), ("in", "Accepted False EgressReasonNetworkOverlap null")]
    {
        let api = api_of(&admin, &network(name, json!([])));
        let told = timeout(DEADLINE, async {
            loop {
                let status = api.get(name).await.unwrap().data["status"].clone();
                if status["conditions"].is_array() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert_eq!(verdicts(&told.await.expect("the status in time")), [verdict]);
    }
}

#[tokio::test]
async fn external_workloads_become_endpoints_of_services_with_the_rights_of_the_manifests() {
    let (_server, admin, own) = installed().await;
    let metadata = |name: &str| json!({"name": name, "namespace": "default", "labels": {"app": "vm"}});
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
    let web = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata("web"),
        "spec": {"selector": {"app": "vm"}, "ports": ports},
    });
    apply(&admin, &web).await;
    let services: Api<Service> = Api::namespaced(admin.clone(), "default");
    let uid = services.get("web").await.unwrap().metadata.uid;
    // Two replicas, of which one writes.
    let index = Index::new(Cluster::default());
    let _watches = watch(&own, &index);
    let other = Index::new(Cluster::default());
    let _more_watches = watch(&own, &other);
    tokio::spawn(write_slices(own.clone(), index.clone(), "linkerd", "one"));
    tokio::spawn(write_slices(own, other, "linkerd", "another"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(Server::new(index).serve_destination(listener));
    let mut destination = DestinationClient::connect(uri).await.unwrap();
    let ask = GetDestination {
        path: "web.default.svc.cluster.local:80".into(),
        context_token: r#"{"ns":"default"}"#.into(),
        ..Default::default()
    };
    let mut updates = destination.get(ask).await.unwrap().into_inner();
    assert!(matches!(next(&mut updates).await.update, Some(update::Update::NoEndpoints(none)) if none.exists));
    // Until there is something to write; afterwards there is one.
    let leases: Api<Lease> = Api::namespaced(admin.clone(), "linkerd");
    let too_early = leases.list(&ListParams::default()).await.unwrap().items;
    assert!(too_early.is_empty(), "{too_early:?}");

    let workload = |name: &str, ip: &str| {
        json!({
            "apiVersion": "workload.linkerd.io/v1beta1", "kind": "ExternalWorkload", "metadata": metadata(name),
            "spec": {
                "meshTLS": {"identity": format!("spiffe://example/{name}"), "serverName": name},
                "ports": [{"name": "http", "port": 8080}], "workloadIPs": [{"ip": ip}],
            },
        })
    };
    let (vm, second) = (workload("vm", "192.0.2.7"), workload("vm-2", "192.0.2.8"));
    apply(&admin, &vm).await;
    let slices = slices_where(&admin, |slices| sizes(slices) == [(1, 0)]).await;
    let slice = &slices[0];
    assert!(slice.metadata.name.as_ref().is_some_and(|name| name.starts_with("linkerd-external-web-")), "{slice:?}");
    let owner = &slice.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((Some(&owner.uid), &*owner.kind), (uid.as_ref(), "Service"));
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let patch = Patch::Merge(&ready);
    api_of(&admin, &vm).patch_status("vm", &PatchParams::default(), &patch).await.unwrap();
    let is_named = |update: &Update| match &update.update {
        Some(update::Update::Add(set)) => {
            set.addrs[0].metric_labels.get("external_workload").is_some_and(|vm| vm == "vm")
        }
        _ => false,
    };
    while !is_named(&next(&mut updates).await) {}
    let again = slices_where(&admin, |slices| sizes(slices) == [(1, 1)]).await;
    assert_eq!(again[0].metadata.name, slice.metadata.name, "the same slice says so");

    apply(&admin, &second).await;
    let again = slices_where(&admin, |slices| sizes(slices) == [(2, 1)]).await;
    assert_eq!(again[0].metadata.name, slice.metadata.name);
    let holder = leases.get(meshgate_inject::SLICES_LEASE).await.unwrap().spec.unwrap().holder_identity;
    assert!(matches!(holder.as_deref(), Some("one" | "another")), "{holder:?}");
    for name in ["vm", "vm-2"] {
        api_of(&admin, &vm).delete(name, &DeleteParams::default()).await.unwrap();
    }
    slices_where(&admin, <[_]>::is_empty).await;
    // The workload may be known to be gone before its slice is.
    while !matches!(next(&mut updates).await.update, Some(update::Update::NoEndpoints(none)) if none.exists) {}
}

/// Of each slice how many endpoints it has, and how many of them are ready.
fn sizes(slices: &[EndpointSlice]) -> Vec<(usize, usize)> {
    let each = slices.iter().map(|slice| {
        let endpoints = slice.endpoints.iter().flatten();
        let ready = endpoints.clone().filter(|one| one.conditions.as_ref().is_some_and(|is| is.ready == Some(true)));
        let ready = ready.count();
        (endpoints.count(), ready)
    });
    each.collect()
}

/// All EndpointSlices of ExternalWorkloads, once they are what is wanted.
async fn slices_where(client: &Client, wanted: impl Fn(&[EndpointSlice]) -> bool) -> Vec<EndpointSlice> {
    let ours = "endpointslice.kubernetes.io/managed-by=linkerd-external-workloads-controller";
    let api: Api<EndpointSlice> = Api::all(client.clone());
    let found = timeout(DEADLINE, async {
        loop {
            let slices = api.list(&ListParams::default().labels(ours)).await.unwrap().items;
            if wanted(&slices) {
                return slices;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.expect("the slices in time")
}

/// The conditions that a status has of a parent, or of an object itself, as `Type Status Reason Generation`.
fn verdicts(parent: &Value) -> Vec<String> {
    let conditions = parent["conditions"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let each = conditions.map(|one| {
        let words = [&one["type"], &one["status"], &one["reason"]].map(text);
        format!("{} {}", words.join(" "), one["observedGeneration"])
    });
    each.collect()
}

/// What the route's status says of its parents, once it is what is wanted.
async fn status_where(client: &Client, route: &Value, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let api = api_of(client, route);
    let config = kube::runtime::watcher::Config::default();
    let mut routes = pin!(kube::runtime::watcher(api, config).applied_objects());
    let found = timeout(DEADLINE, async {
        loop {
            let route = routes.next().await.expect("an open watch").unwrap();
            let parents = route.data["status"]["parents"].as_array().cloned().unwrap_or_default();
            if wanted(&parents) {
                return parents;
            }
        }
    });
    found.await.expect("the status in time")
}

#[tokio::test]
async fn a_token_entitles_to_a_certificate_for_its_service_account_and_no_other() {
    let server = api_server(Store::new()).await;
    let identity = meshgate_inject::Identity::generate("cluster.local").unwrap();
    let issuer = identity.issuer.clone().unwrap();
    let options = meshgate_inject::Options { identity: Some(identity), ..meshgate_inject::Options::default() };
    let admin = client(kubeconfig(&server, None)).await;
    for manifest in meshgate_inject::control_plane_manifests(&options) {
        apply(&admin, &manifest).await;
    }
    let issue = |namespace: &str, account: &str, audiences: &[String]| {
        server.tokens().issue(namespace, account, audiences, Duration::from_secs(3600)).unwrap().token
    };
    // With the rights of the manifests.
    let own = issue("linkerd", "linkerd-destination", &[]);
    let domain = "serviceaccount.identity.linkerd.cluster.local";
    let names = IdentityDomain { control_plane_namespace: "linkerd".into(), trust_domain: "cluster.local".into() };
    let day = Duration::from_secs(86_400);
    let client = client(kubeconfig(&server, Some(own))).await;
    let authority = Authority::new(&issuer.certificate, &issuer.key, names, Validity::default(), client).unwrap();
    let authority = Arc::new(authority);
    let tls = Tls::new(Arc::clone(&authority)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve_identity(authority, tls, listener));
    let mut service = IdentityClient::connect(uri).await.unwrap();

    apply(
        &admin,
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web", "namespace": "default"}}),
    )
    .await;
    let audience = [meshgate_inject::TOKEN_AUDIENCE.to_owned()];
    let name = format!("web.default.{domain}");
    let request = |identity: &str, token: &str, asked: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([asked.to_owned()]).unwrap();
        CertifyRequest {
            identity: identity.into(),
            token: token.into(),
            certificate_signing_request: params.serialize_request(&key).unwrap().der().to_vec(),
        }
    };
    // The token that is made for this, and the one that Kubernetes mounts.
    for audiences in [audience.as_slice(), &[]] {
        let token = issue("default", "web", audiences);
        let answer = service.certify(request(&name, &token, &name)).await.unwrap().into_inner();
        assert!(!answer.leaf_certificate.is_empty());
        let until = std::time::SystemTime::try_from(answer.valid_until.unwrap()).unwrap();
        let lifetime = until.duration_since(std::time::SystemTime::now()).unwrap();
        assert!(lifetime >= day - Duration::from_secs(60) && lifetime <= day + Duration::from_secs(60), "{lifetime:?}");
    }
    let token = issue("default", "web", &audience);
    // A shorter time is kept to, a longer one is not.
    for (asked, given) in [("60", 60), ("100000000", 86_400)] {
        let mut request = tonic::Request::new(request(&name, &token, &name));
        request.metadata_mut().insert("meshgate-certificate-seconds", asked.parse().unwrap());
        let before = std::time::SystemTime::now();
        let answer = service.certify(request).await.unwrap().into_inner();
        let until = std::time::SystemTime::try_from(answer.valid_until.unwrap()).unwrap();
        let (given, lifetime) = (Duration::from_secs(given), until.duration_since(before).unwrap());
        assert!(lifetime >= given && lifetime <= given + Duration::from_secs(60), "{asked}: {lifetime:?}");
    }
    let other = format!("other.default.{domain}");
    for (request, code, problem) in [
        (request(&other, &token, &other), Code::FailedPrecondition, "did not match"),
        (request(&name, &token, &other), Code::InvalidArgument, "expected the one DNS name"),
        (request(&name, "no token", &name), Code::FailedPrecondition, "proves nothing"),
        (request(&name, "", &name), Code::InvalidArgument, "a token"),
        (
            CertifyRequest { certificate_signing_request: vec![1, 2], ..request(&name, &token, &name) },
            Code::InvalidArgument,
            "signing request",
        ),
    ] {
        let status = service.certify(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(problem), "{status}");
    }
}
