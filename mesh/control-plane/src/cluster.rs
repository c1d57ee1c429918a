//! What is the same for every answer: the cluster's names and networks.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::PortSet;

/// Facts about the cluster that no object tells.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The DNS domain, without a dot at its end.
    pub domain: String,
    /// Networks that belong to the cluster; an address outside of them is the world's.
    pub networks: Vec<IpNet>,
    /// The namespace whose EgressNetworks are for clients of every namespace that has none of its own.
    pub egress_namespace: String,
    /// Ports without HTTP, where neither Service nor pod says otherwise.
    pub opaque_ports: PortSet,
    /// Where the pods of this control plane have identities: what is said of them ends with it.
    pub identity: Option<IdentityDomain>,
    /// Whether requests may say themselves how long they may take and when they are sent again (`l5d-timeout`, `l5d-retry-http`, ...).
    pub allow_l5d_request_headers: bool,
}

/// How identities are named: `ACCOUNT.NAMESPACE.serviceaccount.identity.CONTROL-PLANE-NAMESPACE.DOMAIN`.
#[derive(Debug, Clone)]
pub struct IdentityDomain {
    /// The control plane's own namespace. Pods of another one are strangers.
    pub control_plane_namespace: String,
    /// The domain of the trust anchors.
    pub trust_domain: String,
}

impl IdentityDomain {
    /// What follows `ACCOUNT.NAMESPACE.` in every name.
    pub fn suffix(&self) -> String {
        format!("serviceaccount.identity.{}.{}", self.control_plane_namespace, self.trust_domain)
    }
}

impl Cluster {
    /// Whether the address belongs to the cluster.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&ip))
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            domain: "cluster.local".into(),
            // These, the namespace and the ports are the defaults of Linkerd's Helm chart.
            networks: ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8"]
                .into_iter()
                .filter_map(|network| network.parse().ok())
                .collect(),
            egress_namespace: "linkerd-egress".into(),
            opaque_ports: PortSet::parse("25,587,3306,4444,5432,6379,9300,11211"),
            identity: None,
            allow_l5d_request_headers: false,
        }
    }
}
