//! The proxy between real sockets: real clients, real applications, and a control plane that answers as a test says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod admin;
mod classes;
mod control_tls;
mod discovery;
mod eras;
mod failures;
mod gateway;
mod grpc;
mod http;
mod hygiene;
mod identity;
mod inbound;
mod lifecycle;
mod meshed;
mod metrics;
mod opaque;
mod policies;
mod ports;
mod process;
mod profiles;
mod routes;
mod routing;
mod support;
mod terms;
mod unreachable;
mod wire;
