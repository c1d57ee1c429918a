//! Modes: who chooses the pod, and what chooses the Service.
//!
//! In default mode the address that a connection was made to decides; a pod's stands for that pod, a Service's for its
//! ServiceProfile and balancing. In ingress mode each request says which Service it is for. Of a load balancer outside the mesh no proxy
//! sees a request before it has arrived.

use meshgate_harness::case::Case;

mod balancing;
mod inject_flag;
mod not_http;
mod outside;
mod override_header;
mod per_request;
mod target;
mod token;

/// The cases of this area.
pub const CASES: &[&[Case]] = &[
    balancing::CASES,
    per_request::CASES,
    override_header::CASES,
    not_http::CASES,
    outside::CASES,
    token::CASES,
    inject_flag::CASES,
];
