//! The applications behind the ingress: emojivoto, books, kuard, the echo backend and the probe pod.
//!
//! ```text
//! vote-bot ──> web ──gRPC──> emoji        probe (in a pod, or the harness itself)
//!                └───gRPC──> voting         └──> ingress ──> proxy ──> echo, which says what it saw
//! traffic ──> webapp ──JSON──> books, authors
//! ```
//!
//! [`emojivoto`], [`books`] and [`kuard`] are the page's demo applications on the wire: the same ports, paths, messages and
//! failures, and the same every time when asked to be. [`echo`] answers every request with what it received, and breaks on
//! demand. [`probe`] is the client that sends requests exactly as written and records what came back; the harness drives it
//! with sockets of its own choice, the role `probe` from inside a pod, the role [`vantage`] carries its connections into a cluster
//! whose addresses it cannot dial.
//!
//! All roles are started by [`main`] (`meshgate app ROLE`), each on one thread, and finish what is in flight on SIGTERM.

pub mod books;
mod chance;
mod delay;
pub mod echo;
pub mod emojivoto;
mod grpc;
pub mod kuard;
pub mod probe;
mod roles;
mod serve;
pub mod vantage;

pub use roles::main;
