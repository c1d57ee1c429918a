//! What the gateway is to serve, before it is text.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::transform::Transformer;

/// The whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    /// By the name of the `upstream` block.
    pub(super) upstreams: BTreeMap<String, Upstream>,
    /// By host; [`ANY`] for requests that no other host takes.
    pub(super) servers: BTreeMap<String, Server>,
    /// Certificate chain and key, as PEM, by file name.
    pub(super) certificates: BTreeMap<String, String>,
}

impl Model {
    /// The names that its targets are looked up by.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let targets = self.upstreams.values().flat_map(|upstream| &upstream.targets);
        targets.filter_map(|target| match &target.host {
            Host::Name(name) => Some(name.as_str()),
            Host::Address(_) => None,
        })
    }

    /// The same with these routes alone, by where they come from.
    pub(super) fn with_routes(&self, wanted: impl Fn(usize) -> bool) -> Self {
        let mut part = self.clone();
        for server in part.servers.values_mut() {
            server.routes.retain(|_, route| wanted(route.origin));
        }
        part
    }
}

/// Routes without a host.
pub(super) const ANY: &str = "_";

/// Where requests go.
#[derive(Clone, Debug, Default)]
pub(super) struct Upstream {
    pub(super) targets: Vec<Target>,
    /// How often a request is sent at most.
    pub(super) attempts: u32,
}

/// The addresses of names, as they were found.
pub(super) type Found = BTreeMap<String, Vec<Ipv4Addr>>;

impl Upstream {
    /// None at all is answered with 503.
    pub(super) fn addresses(&self, found: &Found) -> Vec<SocketAddrV4> {
        let of = |target: &Target| {
            let hosts = match &target.host {
                Host::Address(address) => vec![*address],
                Host::Name(name) => found.get(name).cloned().unwrap_or_default(),
            };
            hosts.into_iter().map(|host| SocketAddrV4::new(host, target.port)).collect::<Vec<_>>()
        };
        self.targets.iter().flat_map(of).collect()
    }

    /// Its address, if that stays: the one that names have is a Service's, others are pods', which come and go.
    pub(super) fn fixed(&self, found: &Found) -> Option<SocketAddrV4> {
        let named = self.targets.iter().all(|target| matches!(target.host, Host::Name(_)));
        match self.addresses(found).as_slice() {
            [address] if named => Some(*address),
            _ => None,
        }
    }
}

/// One of the places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: Host,
    pub(super) port: u16,
}

/// An address, or a name that is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Address(Ipv4Addr),
    Name(String),
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// A host.
#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    /// File name of its certificate; Kong's own otherwise.
    pub(super) certificate: Option<String>,
    pub(super) routes: BTreeMap<Match, Route>,
}

/// What of a path is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    Exact(String),
    /// From the path's begin.
    Regex(String),
    Prefix(String),
}

/// A path of a host.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// Which of the configuration's routes it is.
    pub(super) origin: usize,
    pub(super) upstream: String,
    pub(super) service: ServiceOptions,
    pub(super) options: RouteOptions,
    pub(super) transformer: Option<Transformer>,
}

/// What a route says of its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteOptions {
    pub(super) strip_path: bool,
    pub(super) preserve_host: bool,
    pub(super) request_buffering: bool,
    pub(super) response_buffering: bool,
    /// `http`, `https`, `grpc`, `grpcs`.
    pub(super) protocols: Vec<String>,
    /// What a request without TLS is answered where the protocols want it: 426, or a redirect.
    pub(super) https_status: u16,
    /// Of patterns, the higher first.
    pub(super) regex_priority: i64,
}

/// What a service says of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceOptions {
    /// `http`, `https`, `grpc`, `grpcs`.
    pub(super) protocol: String,
    /// The Host that is sent when the client's is not preserved.
    pub(super) host: String,
    /// Milliseconds to connect, send and read.
    pub(super) timeouts: [u32; 3],
    /// How often a request is sent at most.
    pub(super) attempts: u32,
}
