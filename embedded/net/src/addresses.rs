//! The address plan, the same in every cluster: clusters never meet, each has a network namespace of its own.

use std::net::Ipv4Addr;

/// The node's `InternalIP`, and the source of connections it rewrites.
pub const NODE: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
/// The gateway every pod and every outside client sees.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Where DNS answers, and the ClusterIP of the DNS Service.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The ClusterIP of the Service `kubernetes`, an address of the node itself.
pub const API_SERVER: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The first load balancer address.
pub const FIRST_LOAD_BALANCER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The two clients in the outside namespace.
pub const CLIENTS: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 51, 100, 10), Ipv4Addr::new(198, 51, 100, 11)];

/// Pod addresses, one /32 each.
pub const PODS: Block = Block { network: Ipv4Addr::new(10, 244, 0, 0), prefix: 16 };
/// ClusterIPs.
pub const SERVICES: Block = Block { network: Ipv4Addr::new(10, 96, 0, 0), prefix: 16 };
/// Load balancer addresses.
pub const LOAD_BALANCERS: Block = Block { network: Ipv4Addr::new(203, 0, 113, 0), prefix: 24 };
/// The outside world.
pub const OUTSIDE: Block = Block { network: Ipv4Addr::new(198, 51, 100, 0), prefix: 24 };

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The first address.
    pub network: Ipv4Addr,
    /// The length of the common prefix, in bits.
    pub prefix: u8,
}

impl Block {
    /// Whether an address is in the block.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        address.to_bits() & mask == self.network.to_bits() & mask
    }
}

impl std::fmt::Display for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_contains_its_addresses_only() {
        assert!(PODS.contains(Ipv4Addr::new(10, 244, 255, 255)));
        assert!(!PODS.contains(Ipv4Addr::new(10, 245, 0, 0)));
        assert!(SERVICES.contains(DNS) && SERVICES.contains(API_SERVER));
        assert!(LOAD_BALANCERS.contains(FIRST_LOAD_BALANCER));
        assert_eq!(PODS.to_string(), "10.244.0.0/16");
    }
}
