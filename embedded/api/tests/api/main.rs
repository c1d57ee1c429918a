//! The API server and real clients: kube-rs, kubectl, and a raw socket for the edges of the protocol.
//!
//! kubectl comes from the catalogue of images: `MESHGATE_KUBECTL_BIN`, or a pinned wheel. Without it the tests that need
//! it fail and say so; a test that passes because its client is missing proves nothing.

#![allow(clippy::unwrap_used)]

mod access;
mod cluster;
mod kube_rs;
mod kubectl;
mod pods;
mod protocol;
mod scale;
mod streams;
mod webhook;
mod webhooks;
mod yaml;
