//! The network of the embedded cluster: namespaces, pod links, Services, DNS, load balancers.
//!
//! [`namespaces::enter`] makes the process the first of fresh user, network, mount and PID namespaces; its network
//! namespace is the *node*. [`Network::start`] gives the node its addresses, an outside world to be reached from, one nft
//! table for [`Service`]s and a [`Dns`] server. Each pod gets a namespace of its own with one address
//! ([`Network::add_pod`]); [`Dialer`] connects from any of these places.
//!
//! ```text
//! outside 198.51.100.10 ──veth── node 172.18.0.2 ──veth── pod 10.244.0.2   (one /32 and one veth per pod)
//!                                  │ lo: 169.254.1.1, 10.96.0.1, 10.96.0.10
//!                                  └ nft table `svc`: 10.96/16 and 203.0.113/24 -> pods
//! ```
//!
//! Everything works without root. What it was measured against is in the design's notes on namespaces.

pub mod addresses;
pub mod namespaces;

mod dialer;
mod dns;
mod links;
mod netns;
mod network;
mod nft;
mod services;
mod sysctl;

pub use addresses::{CLIENTS, NODE};
pub use dialer::Dialer;
pub use dns::{Dns, DnsError};
pub use netns::Netns;
pub use network::{Network, NetworkConfig, NetworkError, PodNet};
pub use nft::NftError;
pub use services::{LoadBalancer, Policy, Port, Protocol, Service};
