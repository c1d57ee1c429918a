//! The resources the node reads and writes, and what it says of itself.

use std::net::Ipv4Addr;

use meshgate_store::GroupResource;

/// The node's name.
pub(crate) const NODE: &str = "meshgate";
/// The node's `InternalIP`.
pub(crate) const NODE_IP: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
/// CPUs the Node object offers. Nothing is enforced; a cell is small.
pub(crate) const CAPACITY_CPU: &str = "8";
/// Memory the Node object offers.
pub(crate) const CAPACITY_MEMORY: &str = "16Gi";
/// Disk space the Node object offers.
pub(crate) const CAPACITY_STORAGE: &str = "64Gi";

pub(crate) fn pods() -> GroupResource {
    GroupResource::new("", "pods")
}

pub(crate) fn nodes() -> GroupResource {
    GroupResource::new("", "nodes")
}

pub(crate) fn services() -> GroupResource {
    GroupResource::new("", "services")
}

pub(crate) fn endpoint_slices() -> GroupResource {
    GroupResource::new("discovery.k8s.io", "endpointslices")
}

pub(crate) fn config_maps() -> GroupResource {
    GroupResource::new("", "configmaps")
}

pub(crate) fn secrets() -> GroupResource {
    GroupResource::new("", "secrets")
}

pub(crate) fn events() -> GroupResource {
    GroupResource::new("", "events")
}
