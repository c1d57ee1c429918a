//! The EndpointSlices of Services whose selectors match ExternalWorkloads.
//!
//! Kubernetes makes those of pods and leaves alone what others manage. What stands in one, and which is kept, was
//! taken from Linkerd's destination controller
//! (`controller/api/destination/external-workload/endpoints_reconciler.go`). As there, a Service without a selector
//! keeps the slices that it had with one, as it does those of pods, and those of one that is gone go with it.
//!
//! Different from there: a Service selects in its own namespace only, a label that it has no more goes from its slices
//! as well, and a workload whose name is no single label of DNS has no hostname, with which the API server would
//! refuse the whole slice.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use crate::{
    Cluster, Key, Kind,
    index::State,
    objects::{
        ExternalWorkload, Family, MANAGED_BY, MANAGER, Pod, SERVICE_NAME, SelectedPort, Selection, TargetPort, ZONE,
        wire,
    },
};

/// Marks slices of headless Services.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Endpoints in one slice at most, as Linkerd and Kubernetes have it.
const MOST: usize = 100;

/// The longest label of DNS.
const LONGEST_LABEL: usize = 63;

/// What there should be of the slices. It changes as well with every version of those that there are, so that they are
/// looked at then.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Picture {
    services: Vec<Wanted>,
    written: Vec<(Key, Box<str>)>,
}

/// What there should be of the slices of one Service.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    service: Key,
    selection: Selection,
    groups: BTreeMap<Group, Vec<Endpoint>>,
}

/// What all endpoints of a slice have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    family: Family,
    ports: BTreeSet<Port>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    /// The name of the Service's port.
    name: String,
    /// The number of the endpoint's.
    number: i32,
    protocol: String,
}

/// A slice that has to be written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    pub(crate) verb: Verb,
    /// As it is to be, or as it is before it goes.
    pub(crate) slice: EndpointSlice,
}

/// How a slice is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Create,
    Replace,
    Delete,
}

/// What there should be, of Services that select an ExternalWorkload or have slices of such.
pub(crate) fn picture(state: &State, _: &Cluster) -> Picture {
    let slices = state.written_slices().filter_map(|slice| Some((slice, slice.written.clone()?)));
    let written: Vec<_> = slices.map(|(slice, version)| (slice.key.clone(), version)).collect();
    if written.is_empty() && state.count(Kind::ExternalWorkload) == 0 {
        return Picture::default();
    }
    let have_slices: HashSet<_> = state.written_slices().map(|slice| &slice.service).collect();
    let mut workloads: HashMap<&str, Vec<&Pod>> = HashMap::new();
    for workload in state.external_workloads() {
        workloads.entry(&*workload.key.namespace).or_default().push(workload);
    }
    let selecting = state.services().filter_map(|service| Some((&service.key, service.selection.as_deref()?)));
    let wanted = selecting.filter_map(|(service, selection)| {
        let workloads = workloads.get(&*service.namespace).map(Vec::as_slice).unwrap_or_default();
        let groups = groups(selection, workloads);
        let is_concerned = !groups.is_empty() || have_slices.contains(service);
        is_concerned.then(|| Wanted { service: service.clone(), selection: selection.clone(), groups })
    });
    let mut services: Vec<_> = wanted.collect();
    services.sort_by_cached_key(|wanted| wanted.service.clone());
    Picture { services, written }
}

/// The endpoints of a Service among the workloads of its namespace, by what they have in common.
fn groups(selection: &Selection, workloads: &[&Pod]) -> BTreeMap<Group, Vec<Endpoint>> {
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    for workload in workloads {
        let selected = selection.selector.iter().all(|(name, value)| workload.labels.get(name) == Some(value));
        let Some(external) = workload.external.as_deref().filter(|_| selected) else { continue };
        let ports: BTreeSet<_> = selection.ports.iter().filter_map(|port| Port::of(port, external)).collect();
        for &family in &selection.families {
            if let Some(endpoint) = endpoint(selection, workload, external, family) {
                groups.entry(Group { family, ports: ports.clone() }).or_default().push(endpoint);
            }
        }
    }
    groups
}

/// The endpoint that a workload is; `None` if it has no address of the family.
///
/// One that does not say that it is ready is not, and none is ever on its way out: workloads come and go at once.
fn endpoint(selection: &Selection, workload: &Pod, external: &ExternalWorkload, family: Family) -> Option<Endpoint> {
    let addresses = workload.ips.iter().filter(|ip| family.has(**ip));
    let addresses: Vec<_> = addresses.map(IpAddr::to_string).collect();
    let name = workload.key.name.to_string();
    let is_label = name.len() <= LONGEST_LABEL && !name.contains('.');
    (!addresses.is_empty()).then(|| Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(external.is_ready),
            serving: Some(external.is_ready),
            terminating: Some(false),
        }),
        hostname: (selection.is_headless && is_label).then(|| name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("ExternalWorkload".into()),
            name: Some(name),
            namespace: Some(workload.key.namespace.to_string()),
            uid: Some(external.uid.clone()),
            ..ObjectReference::default()
        }),
        zone: workload.labels.get(ZONE).filter(|zone| !zone.is_empty()).cloned(),
        ..Endpoint::default()
    })
}

/// What has to be written for these slices, which are all that are made here, to be what there should be: nothing where
/// they are that.
pub(crate) fn changes(picture: &Picture, existing: Vec<EndpointSlice>) -> Vec<Change> {
    let mut by_service: HashMap<Key, Vec<EndpointSlice>> = HashMap::new();
    for slice in existing.into_iter().filter(|slice| slice.metadata.deletion_timestamp.is_none()) {
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        let service = wire::labels(&slice.metadata).get(SERVICE_NAME).map_or("", String::as_str);
        by_service.entry(Key::new(namespace, service)).or_default().push(slice);
    }
    let services = picture.services.iter();
    services.flat_map(|wanted| wanted.changes(by_service.remove(&wanted.service).unwrap_or_default())).collect()
}

impl Picture {
    /// Whether nothing can have to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }
}

impl Wanted {
    fn changes(&self, existing: Vec<EndpointSlice>) -> Vec<Change> {
        // What is left of another Service of the name is on its way out with that.
        let (own, others): (Vec<_>, Vec<_>) = existing.into_iter().partition(|slice| self.owns(slice));
        let mut present: BTreeMap<Group, Vec<EndpointSlice>> = BTreeMap::new();
        let mut spare = Vec::new();
        for slice in own {
            match Group::of(&slice).filter(|group| self.groups.contains_key(group)) {
                Some(group) => present.entry(group).or_default().push(slice),
                None => spare.push(slice),
            }
        }
        let mut changes = Vec::new();
        let mut further = Vec::new();
        for (group, endpoints) in &self.groups {
            let slices = present.remove(group).unwrap_or_default();
            let (shares, left) = share_out(&slices, endpoints);
            for (slice, endpoints) in slices.into_iter().zip(shares) {
                match endpoints.is_empty() {
                    true => spare.push(slice),
                    false => changes.extend(self.replaced(slice, group, endpoints)),
                }
            }
            further.extend(left.chunks(MOST).map(|endpoints| (group, endpoints.to_vec())));
        }
        // A slice that has nothing to say any more says something new: no endpoint is missing in between.
        for (group, endpoints) in further {
            let place = spare.iter().position(|slice| slice.address_type == group.family.name());
            match place.map(|place| spare.remove(place)) {
                Some(slice) => changes.extend(self.replaced(slice, group, endpoints)),
                None if self.selection.is_going => {}
                None => changes.push(Change { verb: Verb::Create, slice: self.created(group, endpoints) }),
            }
        }
        changes.extend(spare.into_iter().chain(others).map(|slice| Change { verb: Verb::Delete, slice }));
        changes
    }

    fn owns(&self, slice: &EndpointSlice) -> bool {
        let mut owners = slice.metadata.owner_references.iter().flatten();
        owners.any(|owner| (&*owner.api_version, &*owner.kind, &owner.uid) == ("v1", "Service", &self.selection.uid))
    }

    fn created(&self, group: &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
        // Linkerd's also keeps a Service that is deleted in the foreground until the slice is gone, for which some
        // clusters want rights over the Service.
        let owner = OwnerReference {
            api_version: "v1".into(),
            kind: "Service".into(),
            name: self.service.name.to_string(),
            uid: self.selection.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        EndpointSlice {
            metadata: ObjectMeta {
                generate_name: Some(format!("linkerd-external-{}-", self.service.name)),
                namespace: Some(self.service.namespace.to_string()),
                labels: Some(self.labels()),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            address_type: group.family.name().into(),
            ports: Some(group.ports()),
            endpoints: Some(endpoints),
        }
    }

    /// The slice with these endpoints; `None` if it is that already.
    fn replaced(&self, slice: EndpointSlice, group: &Group, endpoints: Vec<Endpoint>) -> Option<Change> {
        let labels = Some(self.labels());
        let is_same = has(&slice, &endpoints)
            && slice.metadata.labels == labels
            && Group::of(&slice).is_some_and(|own| own == *group);
        if is_same {
            return None;
        }
        let metadata = ObjectMeta { labels, ..slice.metadata };
        let (ports, endpoints) = (Some(group.ports()), Some(endpoints));
        Some(Change { verb: Verb::Replace, slice: EndpointSlice { metadata, ports, endpoints, ..slice } })
    }

    /// The Service's, and those that say what the slice is.
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.selection.labels.clone();
        labels.remove(HEADLESS);
        labels.insert(SERVICE_NAME.into(), self.service.name.to_string());
        labels.insert(MANAGED_BY.into(), MANAGER.into());
        if self.selection.is_headless {
            labels.insert(HEADLESS.into(), String::new());
        }
        labels
    }
}

impl Group {
    /// `None` if the slice has no IP addresses.
    fn of(slice: &EndpointSlice) -> Option<Self> {
        let ports = slice.ports.iter().flatten().map(|port| Port {
            name: port.name.clone().unwrap_or_default(),
            number: port.port.unwrap_or_default(),
            protocol: wire::protocol(port.protocol.as_deref().unwrap_or_default()).into(),
        });
        Some(Self { family: Family::parse(&slice.address_type)?, ports: ports.collect() })
    }

    fn ports(&self) -> Vec<EndpointPort> {
        let ports = self.ports.iter().map(|port| EndpointPort {
            name: Some(port.name.clone()),
            port: Some(port.number),
            protocol: Some(port.protocol.clone()),
            app_protocol: None,
        });
        ports.collect()
    }
}

impl Port {
    /// A workload has to name all of its ports, so that one that it does not have leads nowhere.
    fn of(port: &SelectedPort, external: &ExternalWorkload) -> Option<Self> {
        let mut ports = external.ports.iter().filter(|own| own.protocol == port.protocol);
        let own = ports.find(|own| match &port.target {
            TargetPort::Number(number) => own.number == *number,
            TargetPort::Name(name) => own.name == *name,
        })?;
        Some(Self { name: port.name.clone(), number: own.number.into(), protocol: port.protocol.clone() })
    }
}

/// The endpoints that each slice should have, and those that there is no room for in any.
///
/// Each keeps the workloads that it has. Further ones go where something changes anyway, then wherever there is room.
fn share_out(slices: &[EndpointSlice], wanted: &[Endpoint]) -> (Vec<Vec<Endpoint>>, Vec<Endpoint>) {
    let mut left: BTreeMap<&str, &Endpoint> = wanted.iter().map(|endpoint| (target(endpoint), endpoint)).collect();
    let mut shares = Vec::new();
    for slice in slices {
        let endpoints = slice.endpoints.iter().flatten();
        let kept: Vec<Endpoint> = endpoints.filter_map(|endpoint| left.remove(target(endpoint)).cloned()).collect();
        shares.push(kept);
    }
    let mut order: Vec<usize> = (0..slices.len()).collect();
    order.sort_by_key(|&place| has(&slices[place], &shares[place]));
    for place in order {
        while shares[place].len() < MOST
            && let Some((_, endpoint)) = left.pop_first()
        {
            shares[place].push(endpoint.clone());
        }
    }
    (shares, left.into_values().cloned().collect())
}

/// Whether these are the endpoints of the slice.
fn has(slice: &EndpointSlice, endpoints: &[Endpoint]) -> bool {
    slice.endpoints.as_deref().unwrap_or_default() == endpoints
}

/// The workload that an endpoint is; empty if it is none.
fn target(endpoint: &Endpoint) -> &str {
    endpoint.target_ref.as_ref().and_then(|target| target.name.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
