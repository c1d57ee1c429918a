//! What Kong is to serve, before it is text.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use super::transform::Transformer;

/// The whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// By the name of the `upstream` block.
    pub(crate) upstreams: BTreeMap<String, Upstream>,
    /// By host; [`ANY`] for requests that no other host takes.
    pub(crate) servers: BTreeMap<String, Server>,
    /// Certificate chain and key, as PEM, by file name.
    pub(crate) certificates: BTreeMap<String, String>,
    /// The request transformers of routes, by the plugin's `NAMESPACE/NAME`.
    pub(crate) transformers: BTreeMap<String, Transformer>,
}

/// Routes without a host.
pub(crate) const ANY: &str = "_";

/// Where requests go.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) targets: Targets,
    /// How often a request is sent at most.
    pub(crate) attempts: u32,
}

/// The addresses of an upstream.
#[derive(Clone, Debug)]
pub(crate) enum Targets {
    /// The one address of a Service.
    Service(SocketAddrV4),
    /// Those of pods, which come and go; none at all is answered with 503.
    Pods(Vec<SocketAddrV4>),
}

/// A host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    /// File name of its certificate; Kong's own otherwise.
    pub(crate) certificate: Option<String>,
    pub(crate) routes: BTreeMap<Match, Route>,
}

/// What of a path is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Match {
    Exact(String),
    /// From the path's begin.
    Regex(String),
    Prefix(String),
}

/// A path of a host.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) upstream: String,
    pub(crate) service: ServiceOptions,
    pub(crate) options: RouteOptions,
    /// The key of its request transformer.
    pub(crate) transformer: Option<String>,
    /// A plugin that this stand-in cannot play, and the answer 500 instead of it: what it guards must not stand open.
    pub(crate) unplayable: bool,
}

/// What the annotations of an Ingress say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteOptions {
    pub(crate) strip_path: bool,
    pub(crate) preserve_host: bool,
    pub(crate) request_buffering: bool,
    pub(crate) response_buffering: bool,
    /// `http`, `https`, `grpc`, `grpcs`.
    pub(crate) protocols: Vec<String>,
    /// What a request without TLS is answered where the protocols want it: 426, or a redirect.
    pub(crate) https_status: u16,
}

/// What the annotations of a Service say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceOptions {
    /// `http`, `https`, `grpc`, `grpcs`.
    pub(crate) protocol: String,
    /// The Host that is sent when the client's is not preserved.
    pub(crate) host: String,
    /// Milliseconds to connect, send and read.
    pub(crate) timeouts: [u32; 3],
    /// How often a request is sent at most.
    pub(crate) attempts: u32,
}
