//! The mesh proxy that runs beside an application: wire-compatible with Linkerd's proxy, so that either can stand behind
//! the same injector, the same control plane and the same assertions.
//!
//! What comes from the control plane flows down, what comes from clients flows across:
//!
//! ```text
//!   control: GetProfile, OutboundPolicies.Watch, Get  (gRPC streams that reconnect)
//!      |
//!      v
//!   outbound::plan: one answer of each becomes a Plan: routes, split, balancers, or a plain forward
//!      |
//!      v
//!   client -> detect -> [ingress mode: dialect, per request] -> Plan -> split -> balance -> pool -> endpoint
//!   peer   -> detect -> inbound ----------------------------------------------> pool -> application
//! ```
//!
//! In a proxy that is its cluster's gateway, what a peer sends for a Service by name goes from inbound to that Service's Plan.
//!
//! [`Config`] is the environment that Linkerd's injector writes (`LINKERD2_PROXY_*`) plus a few `MESHGATE_PROXY_*`
//! variables, [`Proxy`] is the running proxy, [`main_from_env`] the role `meshgate proxy`, and [`init`] the role
//! `meshgate proxy-init`, which redirects a pod's traffic.
//!
//! A proxy with an identity serves once it has the certificate that its pod's token entitles it to, and speaks TLS with the proxies
//! that have one as well ([`tls`]), and with a control plane whose name it is told ([`ControlAddr`]).

mod admin;
mod balance;
mod cache;
mod classify;
mod config;
mod connect;
mod control;
mod detect;
pub mod dialect;
mod filters;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod http;
mod identity;
mod inbound;
pub mod init;
mod io;
mod log;
mod loop_guard;
mod matches;
mod metrics;
mod names;
mod orig_dst;
mod outbound;
mod places;
mod policy;
mod process;
mod profile;
mod retry;
mod split;
mod tcp;
mod tls;
mod transport_header;
mod window;
mod within;

pub use config::{
    Config, ConfigError, ConfigErrors, ControlAddr, Cores, DefaultPolicy, IdentityConfig, KeepAlive, PoolLimits,
    ProcessEnvironment, StreamLimits, Strings, Windows,
};
pub use identity::IdentityError;
pub use log::{LogFormat, LogLevel};
pub use names::{NameAddr, Target};
pub use orig_dst::{FixedDst, OriginalDst};
pub use process::{Addresses, Proxy, StartError, main_from_env, main_with};
