//! EgressNetworks: which of them an address is in, and what becomes of what none of their routes is for.
//!
//! Taken from Linkerd's policy controller (`policy-controller/k8s/index/src/outbound/index/egress_network.rs`,
//! `policy-controller/grpc/src/outbound`).

use std::net::{IpAddr, SocketAddr};

use linkerd2_proxy_api::meta::Metadata;

use super::Destination;
use crate::{
    Cluster, Key,
    answers::{default_ref, resource},
    index::State,
    objects::{EgressNetwork, Referent},
};

/// What requests are told that may not leave.
pub(super) const FORBIDDEN: &str = "traffic not allowed";

/// An address outside of the cluster, and the network that it is in.
#[derive(Clone, Copy)]
pub(super) struct Egress<'a> {
    pub(super) network: &'a EgressNetwork,
    pub(super) address: SocketAddr,
}

impl<'a> Egress<'a> {
    /// The network of an address for clients in a namespace: of those that it is in the smallest, then the oldest.
    ///
    /// Where the clients' own namespace has networks, whichever these are, those for everybody count for nothing.
    pub(super) fn find(
        state: &'a State,
        cluster: &Cluster,
        address: SocketAddr,
        client_namespace: Option<&str>,
    ) -> Option<Self> {
        let of = |namespace: &str| {
            state.egress_networks().filter(|network| *network.key.namespace == *namespace).collect::<Vec<_>>()
        };
        let own = client_namespace.map(of).filter(|own| !own.is_empty());
        let networks = own.unwrap_or_else(|| of(&cluster.egress_namespace));
        let ip: IpAddr = address.ip();
        let around = networks.into_iter().filter_map(|network| Some((network.size_around(cluster, ip)?, network)));
        let network = around.min_by_key(|(size, network)| (*size, network.precedence())).map(|(_, network)| network)?;
        Some(Self { network, address })
    }

    pub(super) fn parent(&self) -> Referent {
        Referent::EgressNetwork(self.network.key.clone())
    }

    pub(super) fn metadata(&self) -> Metadata {
        network_ref(&self.network.key, self.address.port())
    }

    /// The metadata of the route that is for all that no other is for.
    pub(super) fn default_route(&self, protocol: &str) -> Metadata {
        default_ref(&format!("{protocol}-egress-{}", if self.network.allows { "allow" } else { "deny" }))
    }
}

fn network_ref(network: &Key, port: u16) -> Metadata {
    resource("policy.linkerd.io", "EgressNetwork", network, port)
}

impl Destination<'_> {
    /// What a network is as a backend, and why it cannot be one if it cannot: it leads to where the client wanted to go, in that network.
    ///
    /// As for a Service that is not there, a failure comes before a backend that is valid and stands for nothing.
    pub(super) fn network(&self, network: &Key, port: Option<u16>) -> (super::Backend, Option<String>) {
        let is_own = self.egress.is_some_and(|egress| egress.network.key == *network);
        let problem = match self.state.egress_network(network) {
            Some(_) if is_own => None,
            Some(_) => Some(format!("EgressNetwork {network} is a backend of none but its own routes")),
            None => Some(format!("EgressNetwork {network} does not exist")),
        };
        let port = port.or(self.egress.map(|egress| egress.address.port())).unwrap_or_default();
        (super::Backend { metadata: Some(network_ref(network, port)), ..self.own.clone() }, problem)
    }
}

#[cfg(test)]
mod tests;
