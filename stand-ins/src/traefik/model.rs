//! What 1.7 calls its configuration: frontends, which match requests, and backends, which answer them.

use std::collections::{BTreeMap, BTreeSet};

/// The whole of it.
#[derive(Debug, Default)]
pub(crate) struct Configuration {
    pub(crate) frontends: BTreeMap<String, Frontend>,
    /// By the name of their frontend. One may have lost it, or never got one.
    pub(crate) backends: BTreeMap<String, Backend>,
    /// Chains and keys, as PEM.
    pub(crate) certificates: BTreeSet<(String, String)>,
}

/// What is done with requests of one host and path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frontend {
    /// `""` for every host; may begin with `*`.
    pub(crate) host: String,
    pub(crate) path: Option<PathRule>,
    /// 0: the longer rule goes first.
    pub(crate) priority: u32,
    /// Those of `--defaultentrypoints` when empty.
    pub(crate) entry_points: Vec<String>,
    /// Whether the backend is sent the client's Host, or else its own address.
    pub(crate) pass_host_header: bool,
    /// Set on the request; `""` removes.
    pub(crate) request_headers: BTreeMap<String, String>,
    pub(crate) response_headers: BTreeMap<String, String>,
}

/// `ingress.kubernetes.io/rule-type` with a path, and what becomes of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathRule {
    /// `Path` or `PathPrefix`, compared character by character.
    pub(crate) matcher: &'static str,
    pub(crate) path: String,
    /// Whether the path is taken off.
    pub(crate) strip: bool,
    /// What takes its place.
    pub(crate) rewrite: Option<String>,
}

/// The servers of a frontend, by pod: of two ports of one pod the later one stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) servers: BTreeMap<String, Server>,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) url: String,
    /// 0: it gets nothing.
    pub(crate) weight: u64,
}
