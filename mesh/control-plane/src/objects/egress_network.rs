//! EgressNetworks: what is outside of the cluster, and whether it may be reached.

use std::{borrow::Cow, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use linkerd2_proxy_api::outbound::FailureAccrual;

use crate::{
    Cluster, Key, PortSet,
    objects::{
        Condition, Extras, Networks,
        failure_accrual::failure_accrual,
        policy::networks,
        wire::{self, annotation, policy as api},
    },
};

/// The type of the one condition that is ours in an EgressNetwork's status.
pub(crate) const ACCEPTED: &str = "Accepted";

/// What is kept of an EgressNetwork.
#[derive(Debug, Clone, PartialEq)]
pub struct EgressNetwork {
    pub(crate) key: Key,
    created: Option<Time>,
    /// `None` is everything but the cluster's own networks.
    networks: Networks,
    /// Whether what no route is for may leave: `trafficPolicy: Allow`.
    pub(crate) allows: bool,
    /// The ports its annotation declares opaque; `None` if it has none, and the cluster's default holds.
    pub(crate) opaque_ports: Option<PortSet>,
    /// When endpoints that fail are set aside, where a route leads to a Service; `None` is never.
    pub(crate) failure_accrual: Option<FailureAccrual>,
    /// Retries and timeouts of requests that no route is for.
    pub(crate) extras: Box<Extras>,
    /// What its status says of whether it is accepted.
    pub(crate) told: Option<Condition>,
}

impl EgressNetwork {
    /// How many addresses the smallest of its networks has that this one is in; `None` if it is in none.
    pub(crate) fn size_around(&self, cluster: &Cluster, ip: IpAddr) -> Option<u128> {
        let networks = self.networks(cluster);
        let around = networks
            .iter()
            .filter(|(network, except)| network.contains(&ip) && !except.iter().any(|except| except.contains(&ip)));
        around.map(|(network, except)| except.iter().map(size).fold(size(network), u128::saturating_sub)).min()
    }

    /// Whether addresses of the cluster are in it. Such a network is not accepted, as with Linkerd.
    pub(crate) fn overlaps(&self, cluster: &Cluster) -> bool {
        self.networks(cluster).iter().any(|(network, except)| {
            let mut own = cluster.networks.iter().filter(|own| !except.iter().any(|except| except.contains(*own)));
            own.any(|own| own.contains(network) || network.contains(own))
        })
    }

    /// Where it stands among networks of the same size: the oldest first, then by name. One without a time comes after all that have one.
    pub(crate) fn precedence(&self) -> impl Ord + use<> {
        (self.created.is_none(), self.created.clone(), self.key.clone())
    }

    fn networks(&self, cluster: &Cluster) -> Cow<'_, [(IpNet, Vec<IpNet>)]> {
        match &self.networks {
            Some(networks) => Cow::Borrowed(networks.as_slice()),
            None => {
                let own = cluster.networks.iter().copied();
                let (v4, v6): (Vec<_>, Vec<_>) = own.partition(|network| matches!(network, IpNet::V4(_)));
                Cow::Owned(vec![(IpNet::V4(Ipv4Net::default()), v4), (IpNet::V6(Ipv6Net::default()), v6)])
            }
        }
    }
}

/// How many addresses a network has; of every address of IPv6, one fewer.
fn size(network: &IpNet) -> u128 {
    let bits = network.max_prefix_len() - network.prefix_len();
    1_u128.checked_shl(bits.into()).unwrap_or(u128::MAX)
}

impl From<api::EgressNetwork> for EgressNetwork {
    fn from(network: api::EgressNetwork) -> Self {
        let api::EgressNetwork { metadata, spec, status } = network;
        let key = wire::key(&metadata);
        Self {
            networks: spec.networks.map(|list| networks(&key, &list)),
            allows: spec.traffic_policy == api::TrafficPolicy::Allow,
            opaque_ports: annotation(&metadata, super::OPAQUE_PORTS).map(PortSet::parse),
            failure_accrual: failure_accrual(&metadata),
            extras: Box::new(Extras::of(&metadata)),
            told: status.conditions.into_iter().find(|condition| condition.type_ == ACCEPTED),
            created: metadata.creation_timestamp,
            key,
        }
    }
}
