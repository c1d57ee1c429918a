//! The node of the embedded cluster: pods as processes.
//!
//! Two of Kubernetes' programs in one. The *kubelet* part turns every Pod bound to the node `meshgate` into a network
//! namespace with processes and writes back what became of it; the *kube-proxy* part keeps the network's Service rules
//! and names in step with Services and EndpointSlices.
//!
//! Data flow of a pod: the watch in [`node`](Node) hands it to a task (`pod`), which asks the network for a namespace, fills
//! `volumes`, and lets one task per container (`container`) find the image, build the environment (`env`) and start the
//! process (`runtime`). The process is first this program again, in the role `pod-exec` ([`pod_exec_main`]): single-threaded, it
//! builds the container's root (`rootfs`) and then becomes the container's program. `probes` and exits change what is
//! known about the container (`slot`); from that follows the pod's `status`, written when something changed.
//!
//! Data flow of a Service: `services` takes a picture of all Services and EndpointSlices after each burst of changes and
//! applies it to the network; [`Node::synced`] tells when the network shows a revision of the store.
//!
//! The API server reaches logs, commands and ports of containers through [`meshgate_store::PodAccess`] (`access`).

mod access;
mod container;
mod env;
mod events;
mod handlers;
mod images;
mod kinds;
mod launch;
mod logs;
mod network;
mod node;
mod pod;
mod pod_exec;
mod probes;
mod process;
mod rootfs;
mod runtime;
mod services;
mod slot;
mod status;
mod volumes;

pub use images::{Image, ImageSource};
pub use node::{Node, NodeConfig, NodeError, Own};
pub use pod_exec::pod_exec_main;
pub use volumes::{TokenRequest, TokenSource};
