//! The EndpointSlices that are made of ExternalWorkloads.

use std::{future::pending, time::Duration};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use linkerd2_proxy_api::destination::{GetDestination, Update, destination_client::DestinationClient, update};
use meshgate_control_plane::{Cluster, Index, Server, watch, write_slices};
use serde_json::{Value, json};
use tokio::{sync::oneshot, time::timeout};

use crate::{DEADLINE, apply, cluster::api_of, installed, listening, next};

fn metadata(name: &str) -> Value {
    json!({"name": name, "namespace": "default", "labels": {"app": "vm"}})
}

/// A Service that selects the workloads.
fn web() -> Value {
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata("web"),
        "spec": {"selector": {"app": "vm"}, "ports": ports},
    })
}

fn workload(name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "workload.linkerd.io/v1beta1", "kind": "ExternalWorkload", "metadata": metadata(name),
        "spec": {
            "meshTLS": {"identity": format!("spiffe://example/{name}"), "serverName": name},
            "ports": [{"name": "http", "port": 8080}], "workloadIPs": [{"ip": ip}],
        },
    })
}

#[tokio::test]
async fn external_workloads_become_endpoints_of_services_with_the_rights_of_the_manifests() {
    let (_server, admin, own) = installed().await;
    apply(&admin, &web()).await;
    let services: Api<Service> = Api::namespaced(admin.clone(), "default");
    let uid = services.get("web").await.unwrap().metadata.uid;
    // Two replicas, of which one writes.
    let index = Index::new(Cluster::default());
    let _watches = watch(&own, &index);
    let other = Index::new(Cluster::default());
    let _more_watches = watch(&own, &other);
    tokio::spawn(write_slices(own.clone(), index.clone(), "linkerd", "one", pending()));
    tokio::spawn(write_slices(own, other, "linkerd", "another", pending()));
    let (listener, uri) = listening().await;
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

#[tokio::test]
async fn who_is_told_to_end_gives_the_lease_back_with_the_rights_of_the_manifests() {
    let (_server, admin, own) = installed().await;
    apply(&admin, &web()).await;
    apply(&admin, &workload("vm", "192.0.2.7")).await;
    let index = Index::new(Cluster::default());
    let _watches = watch(&own, &index);
    let leases: Api<Lease> = Api::namespaced(admin.clone(), "linkerd");
    let lease = async || leases.get(meshgate_inject::SLICES_LEASE).await.unwrap().spec.unwrap();

    let (tell, told) = oneshot::channel::<()>();
    let shutdown = async { told.await.unwrap() };
    let one = tokio::spawn(write_slices(own.clone(), index.clone(), "linkerd", "one", shutdown));
    slices_where(&admin, |slices| sizes(slices) == [(1, 0)]).await;
    assert_eq!(lease().await.holder_identity.as_deref(), Some("one"), "it keeps what it took");
    tell.send(()).unwrap();
    timeout(DEADLINE, one).await.expect("its end in time").unwrap();
    assert_eq!(lease().await.holder_identity, None);

    // Sooner than after the 30 s that it was taken for.
    tokio::spawn(write_slices(own, index, "linkerd", "another", pending()));
    apply(&admin, &workload("vm-2", "192.0.2.8")).await;
    slices_where(&admin, |slices| sizes(slices) == [(2, 0)]).await;
    let lease = lease().await;
    assert_eq!((lease.holder_identity.as_deref(), lease.lease_transitions), (Some("another"), Some(2)));
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
