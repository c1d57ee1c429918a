//! EndpointSlices.

use std::net::IpAddr;

use crate::{Key, Kind, objects::wire};

/// The label of the Service whose endpoints a slice has.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The label of who writes a slice: each leaves alone what others write.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Who writes the slices of ExternalWorkloads: Linkerd's destination controller, and this control plane as well.
pub(crate) const MANAGER: &str = "linkerd-external-workloads-controller";

/// What is kept of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    pub(crate) key: Key,
    /// The Service whose endpoints these are.
    pub(crate) service: Key,
    /// TCP ports by the name of the Service's port.
    pub(crate) ports: Vec<(String, u16)>,
    /// The ready endpoints.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Its version, if it is one of those that are made here: whatever becomes of one is looked at.
    pub(crate) written: Option<Box<str>>,
}

/// A ready endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) ip: IpAddr,
    pub(crate) hostname: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) node: Option<String>,
    /// The zones whose clients it is meant for; empty if that is left open.
    pub(crate) for_zones: Vec<String>,
    /// The pod or the ExternalWorkload.
    pub(crate) pod: Option<(Kind, Key)>,
}

impl From<wire::EndpointSlice> for EndpointSlice {
    fn from(slice: wire::EndpointSlice) -> Self {
        let wire::EndpointSlice { metadata, ports, endpoints } = slice;
        let key = wire::key(&metadata);
        let label = |name: &str| wire::labels(&metadata).get(name).map_or("", String::as_str);
        let service = label(SERVICE_NAME);
        let ports =
            ports.unwrap_or_default().into_iter().filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")));
        // The API says that a missing `ready` counts as ready.
        let ready = endpoints
            .unwrap_or_default()
            .into_iter()
            .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true));
        Self {
            service: Key::new(&key.namespace, service),
            ports: ports.filter_map(|port| Some((port.name.unwrap_or_default(), port.port?))).collect(),
            endpoints: ready.filter_map(|endpoint| read(endpoint, &key)).collect(),
            written: (label(MANAGED_BY) == MANAGER)
                .then(|| metadata.resource_version.as_deref().unwrap_or_default().into()),
            key,
        }
    }
}

/// Only the first address: the API leaves the meaning of further ones open, and no consumer uses them.
fn read(endpoint: wire::SliceEndpoint, slice: &Key) -> Option<Endpoint> {
    let zones = endpoint.hints.and_then(|hints| hints.for_zones).unwrap_or_default();
    Some(Endpoint {
        ip: endpoint.addresses.first()?.parse().ok()?,
        hostname: endpoint.hostname,
        zone: endpoint.zone,
        node: endpoint.node_name,
        for_zones: zones.into_iter().map(|zone| zone.name).collect(),
        pod: endpoint.target_ref.and_then(|target| {
            let kind = match target.kind.as_str() {
                "Pod" => Kind::Pod,
                "ExternalWorkload" => Kind::ExternalWorkload,
                _ => return None,
            };
            let namespace = if target.namespace.is_empty() { &slice.namespace } else { target.namespace.as_str() };
            Some((kind, Key::new(namespace, &target.name)))
        }),
    })
}
