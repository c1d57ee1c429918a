//! `Destination.GetProfile`: what a name or an address is, and how its requests are routed.

use std::net::SocketAddr;

use linkerd2_proxy_api::{
    destination::{DestinationProfile, WeightedDst},
    meta,
};

use crate::{
    Cluster, Key,
    answers::{self, OpaqueServers, is_opaque, service_ref},
    index::State,
    names::{ServiceName, Target},
    objects::{Override, Pod, Service, ServiceProfile, TrafficSplit, default_retry_budget},
};

/// The profile of a name: of its Service, of the one endpoint that it names, or one without a name if there is no such thing.
///
/// As with Linkerd, an endpoint by name is what its address is: at the port that is asked about, which is that of the pod. In DNS
/// the name is the pod's, and no Service stands between.
///
/// Linkerd answers about a missing Service with an error, which its proxy retries while the client waits. A profile
/// without name and endpoint lets either proxy answer the client at once, and leaves the stream open for the Service.
pub(crate) fn by_name(
    state: &State,
    cluster: &Cluster,
    name: &ServiceName,
    port: u16,
    client_namespace: Option<&str>,
) -> DestinationProfile {
    let Some(service) = state.service(&name.service).filter(|service| !service.external) else {
        return DestinationProfile::default();
    };
    if name.hostname.is_none() {
        return of_service(state, cluster, service, port, client_namespace);
    }
    let named = state.slices(&service.key).flat_map(|slice| &slice.endpoints).find(|one| one.hostname == name.hostname);
    let Some(endpoint) = named else { return DestinationProfile::default() };
    let pod = endpoint.pod.as_ref().and_then(|key| state.pod(key));
    of_endpoint(state, cluster, SocketAddr::new(endpoint.ip, port), pod)
}

/// The profile of an address: of the Service whose cluster IP it is, or the endpoint that it is. A `hostPort` is the endpoint of
/// its pod, at the pod's own address: at the node's the pod's proxy could not be told which port a connection is for.
///
/// A port that the Service does not declare has an empty profile; the policy for it forbids the connection.
pub(crate) fn by_address(
    state: &State,
    cluster: &Cluster,
    address: SocketAddr,
    client_namespace: Option<&str>,
) -> DestinationProfile {
    if let Some(service) = state.service_by_ip(address.ip()) {
        if service.port(address.port()).is_none() {
            return DestinationProfile::default();
        }
        return of_service(state, cluster, service, address.port(), client_namespace);
    }
    let own = state.pod_by_ip(address.ip()).map(|pod| (pod, address));
    match own.or_else(|| state.pod_by_host_port(address)) {
        Some((pod, address)) => of_endpoint(state, cluster, address, Some(pod)),
        None => of_endpoint(state, cluster, address, None),
    }
}

fn of_endpoint(state: &State, cluster: &Cluster, address: SocketAddr, pod: Option<&Pod>) -> DestinationProfile {
    let port = address.port();
    let mut servers = pod.map(|pod| OpaqueServers::of(state, &pod.key.namespace, port)).unwrap_or_default();
    let opaque = answers::is_opaque_at(port, pod, &mut servers, cluster);
    let mut endpoint = answers::endpoint(address, pod, opaque, cluster);
    if let Some(pod) = pod {
        endpoint.metric_labels.insert("namespace".into(), pod.key.namespace.to_string());
    }
    DestinationProfile {
        opaque_protocol: opaque,
        retry_budget: Some(default_retry_budget()),
        endpoint: Some(endpoint),
        ..Default::default()
    }
}

fn of_service(
    state: &State,
    cluster: &Cluster,
    service: &Service,
    port: u16,
    client_namespace: Option<&str>,
) -> DestinationProfile {
    let fqdn = service.key.fqdn(&cluster.domain);
    // The client's namespace first: it may know better what it wants of the Service than the Service's owner does.
    let namespaces = client_namespace.into_iter().chain([&*service.key.namespace]);
    let profile = namespaces.into_iter().find_map(|namespace| state.profile(namespace, &fqdn));
    let mut overrides = profile.map(|profile| from_overrides(cluster, &profile.overrides, port)).unwrap_or_default();
    if overrides.is_empty() {
        overrides = state.split(&service.key).map(|split| from_split(cluster, split, port)).unwrap_or_default();
    }
    DestinationProfile {
        opaque_protocol: is_opaque(service, port, cluster)
            || profile.is_some_and(|profile| profile.opaque_ports.contains(port)),
        routes: profile.map(|profile| profile.routes.clone()).unwrap_or_default(),
        retry_budget: Some(profile.map_or_else(default_retry_budget, |profile| profile.retry_budget)),
        dst_overrides: overrides,
        endpoint: None,
        parent_ref: Some(service_ref(&service.key, port)),
        profile_ref: profile.map(profile_ref),
        fully_qualified_name: fqdn,
    }
}

fn profile_ref(profile: &ServiceProfile) -> meta::Metadata {
    answers::resource("linkerd.io", "ServiceProfile", &profile.key, 0)
}

/// Authorities without a port are meant at the port asked about.
fn from_overrides(cluster: &Cluster, overrides: &[Override], port: u16) -> Vec<WeightedDst> {
    let named = overrides.iter().map(|entry| {
        let (host, port) = match entry.authority.rsplit_once(':') {
            Some((host, own)) => (host, own.parse().unwrap_or(port)),
            None => (entry.authority.as_str(), port),
        };
        let authority = format!("{}:{port}", host.trim_end_matches('.'));
        let service = match Target::parse(&authority, &cluster.domain) {
            Some(Target::Service(name, _)) => Some(name.service),
            _ => None,
        };
        (authority, service, port, entry.weight)
    });
    weighted(named.collect())
}

fn from_split(cluster: &Cluster, split: &TrafficSplit, port: u16) -> Vec<WeightedDst> {
    let named = split.backends.iter().map(|(service, weight)| {
        (format!("{}:{port}", service.fqdn(&cluster.domain)), Some(service.clone()), port, *weight)
    });
    weighted(named.collect())
}

/// Weights become ten-thousandths, as Linkerd has them (`500m` is 5000). If they do not fit together into 32 bits, which is
/// where proxies add them up, all are scaled down.
fn weighted(entries: Vec<(String, Option<Key>, u16, u64)>) -> Vec<WeightedDst> {
    let total: u64 = entries.iter().map(|(.., millis)| millis.saturating_mul(10)).fold(0, u64::saturating_add);
    let divisor = total / u64::from(u32::MAX) + 1;
    let weighted = entries.into_iter().map(|(authority, service, port, millis)| WeightedDst {
        authority,
        weight: u32::try_from((millis.saturating_mul(10) / divisor).max(1)).unwrap_or(u32::MAX),
        backend_ref: service.map(|service| service_ref(&service, port)),
    });
    weighted.collect()
}

#[cfg(test)]
mod tests;
