//! Envoy, for the controllers that drive one: what it is to serve, as a [`model`], in its own words, and the process.
//!
//! ```text
//! model::Config ─ render ─> bootstrap, listeners, routes, clusters (JSON) ─ files that Envoy watches ─> Envoy
//! ```
//!
//! The real controllers speak xDS over gRPC. Here Envoy reads the same resources from files, and takes each file anew when another
//! one is moved to its place. It is a child process, or in another container of the pod, with which the files' folder is shared.

pub(crate) mod model;
mod plane;
mod render;

pub(crate) use plane::{Envoy, bootstrap};
pub(crate) use render::files;

#[cfg(test)]
pub(crate) use render::{CLUSTERS, LISTENERS, ROUTES};
