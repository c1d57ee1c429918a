//! What nginx is to serve, before it is text.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::Arc;

use super::annotations::{Annotations, Canary};

/// The whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// By the name of the `upstream` block.
    pub(crate) upstreams: BTreeMap<String, Upstream>,
    /// By host; `_` for requests that no other host takes.
    pub(crate) servers: BTreeMap<String, Server>,
    /// Certificate chain and key, as PEM, by file name.
    pub(crate) certificates: BTreeMap<String, String>,
    /// Users and what their passwords are compared with, a line for each, by file name.
    pub(crate) users: BTreeMap<String, String>,
    /// The upstream of `--default-backend-service`; without one the answer is nginx' own 404.
    pub(crate) default_upstream: Option<String>,
}

/// Where requests go.
#[derive(Clone, Debug)]
pub(crate) enum Upstream {
    /// The one address of a Service.
    Service(SocketAddrV4),
    /// The ready endpoints; without any the answer is 503.
    Endpoints(Vec<SocketAddrV4>),
}

/// A host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    /// File name of its certificate; the default one otherwise.
    pub(crate) certificate: Option<String>,
    /// Longest paths first.
    pub(crate) locations: BTreeMap<Match, Location>,
}

/// What of a path is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Match {
    Exact(String),
    Prefix(String),
    Regex(String),
}

impl Match {
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Prefix(path) | Self::Regex(path) => path,
        }
    }
}

/// A path of a host.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    pub(crate) namespace: String,
    pub(crate) ingress: String,
    pub(crate) service: String,
    /// The port as the Ingress names it.
    pub(crate) port: String,
    pub(crate) upstream: String,
    pub(crate) annotations: Arc<Annotations>,
    /// Alternatives to `upstream`.
    pub(crate) canary: Option<(String, Canary)>,
    /// Headers of the ConfigMap that `auth-proxy-set-headers` names.
    pub(crate) auth_headers: Vec<(String, String)>,
    /// The file of those who may pass, and what they are asked as.
    pub(crate) users: Option<(String, String)>,
    /// Everybody is answered 503.
    pub(crate) denied: bool,
    /// The upstream that answers errors, where errors are answered by one.
    pub(crate) error_upstream: Option<String>,
}
