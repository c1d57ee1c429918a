//! What is known about names.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

/// The cluster's domain.
pub(super) const DOMAIN: &str = "cluster.local";

/// All names, in lower case, without a final dot.
#[derive(Default)]
pub(super) struct Zone {
    addresses: HashMap<String, Vec<Ipv4Addr>>,
    ports: HashMap<String, Vec<(u16, String)>>,
    external: HashMap<String, Vec<Ipv4Addr>>,
    /// Names that exist only because others exist below them; they have no records but are no error (RFC 8020).
    branches: HashSet<String>,
    /// Counts changes, for the zone's serial number.
    serial: u32,
}

/// What there is at a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Addresses, and nothing else.
    Addresses(Vec<Ipv4Addr>),
    /// Ports and targets, and nothing else.
    Ports(Vec<(u16, String)>),
    /// The name exists, without records.
    Nothing,
    /// There is no such name.
    Missing,
}

impl Zone {
    pub(super) fn set_cluster(&mut self, names: HashMap<String, Vec<Ipv4Addr>>) {
        self.addresses = names.into_iter().map(|(name, addresses)| (name.to_lowercase(), addresses)).collect();
        self.grow();
    }

    pub(super) fn set_cluster_ports(&mut self, names: HashMap<String, Vec<(u16, String)>>) {
        self.ports = names.into_iter().map(|(name, ports)| (name.to_lowercase(), ports)).collect();
        self.grow();
    }

    pub(super) fn set_external(&mut self, name: &str, addresses: &[Ipv4Addr]) {
        let name = name.trim_end_matches('.').to_lowercase();
        if addresses.is_empty() {
            self.external.remove(&name);
        } else {
            self.external.insert(name, addresses.to_vec());
        }
        self.grow();
    }

    fn grow(&mut self) {
        self.serial += 1;
        let names = self.addresses.keys().chain(self.ports.keys()).chain(self.external.keys());
        self.branches = names.flat_map(|name| parents(name)).map(str::to_owned).collect();
    }

    pub(super) fn serial(&self) -> u32 {
        self.serial
    }

    /// Looks up a name in lower case without a final dot.
    pub(super) fn find(&self, name: &str) -> Found {
        if let Some(addresses) = self.addresses.get(name).or_else(|| self.external.get(name)) {
            return Found::Addresses(addresses.clone());
        }
        if let Some(ports) = self.ports.get(name) {
            return Found::Ports(ports.clone());
        }
        if let Some(address) = pod(name) {
            return Found::Addresses(vec![address]);
        }
        if name == DOMAIN || self.branches.contains(name) { Found::Nothing } else { Found::Missing }
    }
}

/// `a.b.c` has `b.c` and `c` above it.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, parent)| parent)).skip(1)
}

/// `10-244-0-2.ns.pod.cluster.local` is 10.244.0.2 whether there is such a pod or not, as with CoreDNS' `pods insecure`,
/// which kubeadm sets up.
fn pod(name: &str) -> Option<Ipv4Addr> {
    let (address, namespace) = name.strip_suffix(DOMAIN)?.strip_suffix(".pod.")?.split_once('.')?;
    if namespace.contains('.') { None } else { address.replace('-', ".").parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let mut zone = Zone::default();
        zone.set_cluster([("web.shop.svc.cluster.local".to_owned(), vec![Ipv4Addr::new(10, 96, 1, 1)])].into());
        zone.set_cluster_ports(
            [("_http._tcp.web.shop.svc.cluster.local".to_owned(), vec![(80, "web".to_owned())])].into(),
        );
        zone.set_external("Shop.Example.", &[Ipv4Addr::new(203, 0, 113, 10)]);
        zone
    }

    #[test]
    fn names_branches_and_nothing_are_told_apart() {
        let zone = zone();
        assert_eq!(zone.find("web.shop.svc.cluster.local"), Found::Addresses(vec![Ipv4Addr::new(10, 96, 1, 1)]));
        assert!(matches!(zone.find("_http._tcp.web.shop.svc.cluster.local"), Found::Ports(_)));
        for branch in
            ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "_tcp.web.shop.svc.cluster.local"]
        {
            assert_eq!(zone.find(branch), Found::Nothing, "{branch}");
        }
        for missing in ["api.shop.svc.cluster.local", "web", "web.shop", "x.web.shop.svc.cluster.local"] {
            assert_eq!(zone.find(missing), Found::Missing, "{missing}");
        }
    }

    #[test]
    fn external_names_come_and_go() {
        let mut zone = zone();
        assert_eq!(zone.find("shop.example"), Found::Addresses(vec![Ipv4Addr::new(203, 0, 113, 10)]));
        zone.set_external("shop.example", &[]);
        assert_eq!(zone.find("shop.example"), Found::Missing);
        assert_eq!(zone.find("example"), Found::Missing);
    }

    #[test]
    fn pods_are_named_by_their_address() {
        let zone = zone();
        assert_eq!(
            zone.find("10-244-0-2.shop.pod.cluster.local"),
            Found::Addresses(vec![Ipv4Addr::new(10, 244, 0, 2)])
        );
        assert_eq!(zone.find("ten.shop.pod.cluster.local"), Found::Missing);
        assert_eq!(zone.find("10-244-0-2.pod.cluster.local"), Found::Missing);
    }
}
