//! The control plane: Kubernetes objects in, Linkerd's gRPC API out.
//!
//! Data flows one way: **watches → [`Object`] → [`Index`] → answers → streams**.
//!
//! * [`watch`] lists and watches Services, EndpointSlices, Pods, ExternalWorkloads, Nodes, ServiceProfiles, TrafficSplits, HTTPRoutes,
//!   GRPCRoutes, TLSRoutes, TCPRoutes, EgressNetworks and other policies, and keeps of each object only what an answer needs ([`Object`]).
//! * The [`Index`] holds those objects and who is asking about them. A change wakes the streams that ask about the
//!   Service, address or pod that changed, and no others. Nothing polls.
//! * `answers` are pure functions from the index's state to messages of `linkerd2-proxy-api`.
//! * [`Server`] has the gRPC services. A stream computes its answer when woken and sends it if it differs from the last.
//! * [`write_statuses`] writes what became of a route or an EgressNetwork into its status, which is computed as an answer is.
//! * [`write_slices`] makes EndpointSlices of Services whose selectors match ExternalWorkloads, and likewise keeps them as they
//!   should be.
//! * [`Authority`] stands beside all that: it gives a proxy the certificate that its token entitles it to, and the control plane its own,
//!   with which it speaks [`Tls`] on the ports on which it takes plaintext.
//!
//! Answers are Linkerd's but for two choices. About a Service that does not exist, Linkerd's destination controller answers
//! with an error that its proxy retries for as long as the client waits. Here `GetProfile` answers with a profile without a
//! name, `OutboundPolicies` with `NotFound`, and `Get` with `NoEndpoints{exists: false}`: Linkerd's proxy and the bundled
//! one turn that into an answer to the client at once, and the same stream has the Service when it appears. About a pod that is not
//! known, Linkerd's policy controller answers with `NotFound`, and its proxy asks again. Here `WatchPort` says nothing until the pod
//! is known: either proxy keeps to the policy that it was started with.
//!
//! The role `meshgate proxy-injector` (`injector`) is a program of its own beside it: the webhook that adds proxies to new pods.
//!
//! Tests and other processes can embed it: fill an [`Index`] with [`Index::apply`], call [`Index::mark_synced`], and serve
//! it with [`Server`] on any listener.

mod admin;
mod answers;
mod cluster;
mod config;
#[cfg(test)]
mod examples;
mod grpc;
mod identity;
mod index;
mod injector;
mod lease;
mod metrics;
mod names;
mod objects;
mod ports;
mod run;
mod slices;
mod statuses;
mod tls;
mod watches;

pub use cluster::{Cluster, IdentityDomain};
pub use config::Config;
pub use grpc::{Server, serve_identity};
pub use identity::{Authority, Validity};
pub use index::Index;
pub use injector::main_from_env as injector_main_from_env;
pub use names::Key;
pub use objects::{Kind, Object, ParseError};
pub use ports::PortSet;
pub use run::{RunError, main_from_env, run};
pub use slices::write_slices;
pub use statuses::write_statuses;
pub use tls::Tls;
pub use watches::watch;
