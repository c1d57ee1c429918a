//! Services as nft rules in the node's namespace: what kube-proxy does.
//!
//! One table, a chain per Service port, a map from address and port to chain. A change replaces the chains that differ in one
//! transaction of `nft -f -`. ClusterIPs are rewritten before routing, so a mesh proxy that redirects inside the pod's own
//! namespace still sees them as the original destination. What belongs to no Service is refused at once.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::nft::{Nft, NftError};
use rules::Rules;

mod rules;

/// A Service, as far as the network is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `namespace/name`, for comments in the rules.
    pub name: String,
    /// Its ClusterIP; `None` for headless ones.
    pub cluster_ip: Option<Ipv4Addr>,
    /// Its external addresses.
    pub external: Vec<LoadBalancer>,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// An external address of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// The address.
    pub ip: Ipv4Addr,
    /// What happens to the client's address.
    pub policy: Policy,
}

/// `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The source becomes the node's address.
    Cluster,
    /// The source stays the client's.
    Local,
}

/// `protocol` of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As nft writes it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of a Service. UDP packets between the same two ports keep the endpoint they began with, as long as they flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The Service's port.
    pub port: u16,
    /// The port on the node's own address.
    pub node_port: Option<u16>,
    /// Where connections go; none refuses them.
    pub endpoints: Vec<SocketAddrV4>,
}

/// Brings the rules from what they are to what they should be.
pub(crate) struct ServiceRules {
    nft: Nft,
    /// What the kernel has; `None` when that is not known.
    applied: Option<Rules>,
}

impl ServiceRules {
    pub(crate) fn new(nft: Nft) -> Self {
        Self { nft, applied: None }
    }

    /// Applies the difference, atomically but for very large ones.
    pub(crate) async fn set(&mut self, services: &[Service]) -> Result<(), NftError> {
        let wanted = Rules::new(services);
        // Unknown until all of it is in: after a failure or a cancelled call the next one starts afresh.
        let scripts = match self.applied.take() {
            Some(applied) => rules::difference(&applied, &wanted),
            None => {
                let mut scripts = vec![rules::base()];
                scripts.extend(rules::difference(&Rules::default(), &wanted));
                scripts
            }
        };
        for script in &scripts {
            self.nft.apply(script).await?;
        }
        self.applied = Some(wanted);
        Ok(())
    }
}
