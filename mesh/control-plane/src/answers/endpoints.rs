//! `Destination.Get`: the endpoints of a Service.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use linkerd2_proxy_api::destination::{AddrSet, NoEndpoints, Update, WeightedAddr, WeightedAddrSet, update};

use crate::{
    Cluster,
    answers::{self, OpaqueServers, place::Place},
    index::State,
    names::ServiceName,
    objects::Endpoint,
};

/// The endpoints of a Service at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Endpoints {
    /// There is no such Service, or it is an ExternalName, which has none by its nature.
    Missing,
    /// The ready ones; possibly none.
    Ready(BTreeMap<SocketAddr, WeightedAddr>),
}

/// The endpoints behind a port of a Service, or the one whose hostname is asked for, of which a client is told at its place.
///
/// A port that the Service does not declare is that port of its pods, as in Linkerd's destination controller.
pub(crate) fn endpoints(state: &State, cluster: &Cluster, name: &ServiceName, port: u16, place: &Place) -> Endpoints {
    let Some(service) = state.service(&name.service).filter(|service| !service.external) else {
        return Endpoints::Missing;
    };
    let declared = service.port(port);
    let mut candidates = Vec::new();
    for slice in state.slices(&name.service) {
        let target = match declared {
            Some(declared) => slice.ports.iter().find(|(name, _)| *name == declared.name).map(|(_, number)| *number),
            None => Some(port),
        };
        let Some(target) = target else { continue };
        let named = slice.endpoints.iter().filter(|one| name.hostname.is_none() || name.hostname == one.hostname);
        candidates.extend(named.map(|endpoint| (endpoint, SocketAddr::new(endpoint.ip, target))));
    }
    retain_near(&mut candidates, place);
    // Most often all are at one port.
    let mut servers = HashMap::new();
    let ready = candidates.into_iter().map(|(endpoint, address)| {
        let pod = endpoint.pod.as_ref().and_then(|key| state.pod(key));
        let port = address.port();
        let of_port = servers.entry(port).or_insert_with(|| OpaqueServers::of(state, &name.service.namespace, port));
        let opaque = answers::is_opaque_at(port, pod, of_port, cluster);
        let mut answer = answers::endpoint(address, pod, opaque, cluster);
        if let Some(zone) = &endpoint.zone {
            answer.metric_labels.insert("zone".into(), zone.clone());
        }
        let locality = place.locality(endpoint.zone.as_deref());
        answer.metric_labels.insert("zone_locality".into(), locality.into());
        (address, answer)
    });
    Endpoints::Ready(ready.collect())
}

/// Leaves the endpoints that are meant for a client at this place, as kube-proxy and Linkerd's destination controller do: those
/// of its node if the Service says so, else those whose hints name its zone. Hints count if every endpoint has one, and some
/// endpoint is for this zone: they are made so that each zone has its share, and are out of date otherwise.
fn retain_near(candidates: &mut Vec<(&Endpoint, SocketAddr)>, place: &Place) {
    if let Some(node) = &place.node {
        candidates.retain(|(endpoint, _)| endpoint.node.as_ref() == Some(node));
        return;
    }
    let Some(zone) = &place.zone else { return };
    let here = |endpoint: &Endpoint| endpoint.for_zones.contains(zone);
    let all_have_hints = candidates.iter().all(|(endpoint, _)| !endpoint.for_zones.is_empty());
    if all_have_hints && candidates.iter().any(|(endpoint, _)| here(endpoint)) {
        candidates.retain(|(endpoint, _)| here(endpoint));
    }
}

/// The messages that bring a proxy from one moment to the next; the first moment has none before it.
///
/// New endpoints come before old ones go, so that a balancer is not empty in between.
pub(crate) fn updates(service: &ServiceName, before: Option<&Endpoints>, now: &Endpoints) -> Vec<Update> {
    let none = BTreeMap::new();
    let before = match before {
        Some(Endpoints::Ready(before)) => before,
        Some(Endpoints::Missing) | None => &none,
    };
    let now = match now {
        Endpoints::Ready(now) if !now.is_empty() => now,
        Endpoints::Ready(_) => return vec![update(update::Update::NoEndpoints(NoEndpoints { exists: true }))],
        Endpoints::Missing => return vec![update(update::Update::NoEndpoints(NoEndpoints { exists: false }))],
    };
    let changed: Vec<_> = now
        .iter()
        .filter(|(address, endpoint)| before.get(address) != Some(*endpoint))
        .map(|(_, new)| new.clone())
        .collect();
    let gone: Vec<_> =
        before.keys().filter(|address| !now.contains_key(address)).map(|address| (*address).into()).collect();
    let mut updates = Vec::new();
    if !changed.is_empty() {
        updates.push(update(update::Update::Add(WeightedAddrSet { addrs: changed, metric_labels: labels(service) })));
    }
    if !gone.is_empty() {
        updates.push(update(update::Update::Remove(AddrSet { addrs: gone })));
    }
    updates
}

fn update(update: update::Update) -> Update {
    Update { update: Some(update) }
}

/// The labels all endpoints of a Service share.
fn labels(name: &ServiceName) -> HashMap<String, String> {
    let key = &name.service;
    [("namespace".to_owned(), key.namespace.to_string()), ("service".to_owned(), key.name.to_string())].into()
}

#[cfg(test)]
mod tests;
