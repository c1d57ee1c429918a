//! Envoy, for the controllers that drive one: what it is to serve, as a [`model`], in its own words, and the process.
//!
//! ```text
//! model::Config ─ render ─> bootstrap, listeners, routes, clusters (JSON) ─ files that Envoy watches ─> Envoy
//! ```
//!
//! The real controllers speak xDS over gRPC. Here Envoy reads the same resources from files, and takes each file anew when another
//! one is moved to its place. It is a child process, or in another container of the pod, with which the files' folder is shared.

mod kept;
pub(crate) mod model;
mod plane;
mod refusal;
mod render;

pub(crate) use kept::{keep_hosts, keep_plain, keep_tls};
pub(crate) use plane::{Envoy, bootstrap};
pub(crate) use refusal::refusal;
pub(crate) use render::files;

#[cfg(test)]
pub(crate) use render::{CLUSTERS, LISTENERS, ROUTES};
