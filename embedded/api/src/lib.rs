//! The API server of the embedded cluster: what kubectl, kube-rs and controllers talk to.
//!
//! The objects and their rules live in [`meshgate_store::Store`], patches and schemas in
//! `meshgate_machinery`, pods in whatever implements [`meshgate_store::PodAccess`]. This crate is what
//! lies between them and a socket.
//!
//! A request flows through the files in this order:
//!
//! 1. [`Server`] accepts a connection, speaks TLS, HTTP/1.1 and HTTP/2 (`server`, `tls`);
//! 2. `authn` finds out who asks ([`Tokens`], impersonation) and `route` what is asked for;
//! 3. `rbac` decides whether they may;
//! 4. `verbs` (with `options`, and `watch`, `scale`, `reviews`, `streaming`, `discovery`, `openapi`, `health`) answer;
//! 5. `negotiate` and `table` put the answer into the form that the client accepts.
//!
//! Everything that can go wrong is a [`meshgate_store::Status`], so every error leaves in the words of
//! Kubernetes.

mod authn;
mod body;
mod bootstrap;
mod credentials;
mod discovery;
mod handler;
mod health;
mod negotiate;
mod openapi;
mod options;
mod patch;
mod query;
mod rbac;
mod reply;
mod reviews;
mod route;
mod scale;
mod server;
mod streaming;
mod subresources;
mod table;
mod tls;
mod tokens;
mod verbs;
mod virtual_kinds;
mod watch;

pub use authn::User;
pub use credentials::Credentials;
pub use server::{Error, Listener, Running, Server, ServerConfig};
pub use tokens::{IssuedToken, Tokens};
