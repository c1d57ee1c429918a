//! What Envoy is to serve, before it is JSON.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

/// The whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    /// Where plain HTTP is taken; with 0 nowhere.
    pub(crate) http_port: u16,
    /// Where TLS is taken; with 0 nowhere.
    pub(crate) https_port: u16,
    /// Where probes are answered, on `/ready`; with 0 nowhere.
    pub(crate) ready_port: u16,
    /// The folder in which Envoy finds the files, where that is not the one that it runs in.
    pub(crate) folder: Option<String>,
    /// Hosts of plain HTTP, by name: `shop.test`, `*.shop.test`, or `*` for what no other takes.
    pub(crate) hosts: BTreeMap<String, VirtualHost>,
    /// Hosts behind TLS, by the name that the client asks for.
    pub(crate) tls: BTreeMap<String, Tls>,
    /// Where requests go, by name.
    pub(crate) clusters: BTreeMap<String, Cluster>,
    /// The status in the place of a backend that is not there, refuses, breaks off or is too slow. `None` is Envoy's own choice, 503
    /// or 504.
    pub(crate) failure_status: Option<u16>,
    /// Whether `//` in a path stays.
    pub(crate) keep_slashes: bool,
    /// Whether a client's `x-request-id` stays. Otherwise each request that comes from outside gets one of Envoy's.
    pub(crate) keep_request_id: bool,
    /// Whether hosts are compared without the port that a client may write after them.
    pub(crate) any_host_port: bool,
    /// Done after what routes and clusters say.
    pub(crate) request_headers: HeaderOps,
}

/// What becomes of TLS for a name.
#[derive(Clone, Debug)]
pub(crate) enum Tls {
    /// It ends here.
    Terminated {
        /// Chain, PEM.
        certificate: String,
        /// PEM.
        key: String,
        /// What is served behind it.
        host: VirtualHost,
    },
    /// It is passed on as it is.
    Passthrough(Vec<Weighted>),
}

/// A host's routes; the first that matches is taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct VirtualHost {
    /// Whose it is, where that is asked of what is served ([`super::keep_hosts`]); `""` otherwise.
    pub(crate) origin: String,
    pub(crate) routes: Vec<Route>,
}

impl VirtualHost {
    /// Orders the routes as control planes do that promise the most specific match: exact paths, regular expressions, prefixes, each
    /// the longest first, and of the same path the one with more conditions.
    pub(crate) fn sort(&mut self) {
        self.routes.sort_by_cached_key(|route| {
            let (kind, path) = match &route.path {
                PathMatch::Exact(path) => (0, path),
                PathMatch::Regex(path) => (1, path),
                PathMatch::Segments(path) | PathMatch::Prefix(path) => (2, path),
            };
            (kind, Reverse(path.len()), path.clone(), Reverse(route.headers.len()))
        });
    }
}

/// One rule of a host.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) path: PathMatch,
    /// All of them have to hold.
    pub(crate) headers: Vec<HeaderMatch>,
    /// Of 100 requests that match only so many are taken. A request draws once, so that shares of routes one after the other add up
    /// when each counts those before it. `None` is all.
    pub(crate) percent: Option<u32>,
    pub(crate) action: Action,
    /// Done after those of the cluster, so that where both set a header this one's value stays.
    pub(crate) request_headers: HeaderOps,
    pub(crate) response_headers: HeaderOps,
}

/// What of a path is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathMatch {
    Exact(String),
    /// The text, wherever it ends: `/a` takes `/ab`.
    Prefix(String),
    /// Whole elements: `/a` takes `/a` and `/a/b`, not `/ab`.
    Segments(String),
    /// The whole path.
    Regex(String),
}

/// A condition on a header.
#[derive(Clone, Debug)]
pub(crate) struct HeaderMatch {
    pub(crate) name: String,
    pub(crate) value: HeaderValue,
    /// The condition is that this does not hold.
    pub(crate) not: bool,
}

/// What of a header is compared.
#[derive(Clone, Debug)]
pub(crate) enum HeaderValue {
    Present,
    Exact(String),
    Contains(String),
    Regex(String),
}

/// What a route does.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Forward(Box<Forward>),
    Redirect(Redirect),
    /// A status and a body.
    Respond(u16, String),
}

/// To clusters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forward {
    /// Never empty.
    pub(crate) clusters: Vec<Weighted>,
    /// For the whole answer. `None` is Envoy's own 15 s, zero is none.
    pub(crate) timeout: Option<Duration>,
    /// For a stream on which nothing moves. `None` is the listener's, zero is none.
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) host_rewrite: Option<String>,
    /// What takes the place of the prefix that matched.
    pub(crate) prefix_rewrite: Option<String>,
    pub(crate) websocket: bool,
}

/// A cluster and its share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weighted {
    pub(crate) cluster: String,
    pub(crate) weight: u32,
    pub(crate) request_headers: HeaderOps,
    pub(crate) response_headers: HeaderOps,
    pub(crate) host_rewrite: Option<String>,
}

/// What is done to headers. Values may have Envoy's `%...%` in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeaderOps {
    pub(crate) remove: Vec<String>,
    /// In place of all that there are.
    pub(crate) set: BTreeMap<String, String>,
    /// After those that there are.
    pub(crate) append: BTreeMap<String, String>,
}

impl HeaderOps {
    pub(crate) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.append.is_empty()
    }
}

/// An answer that sends the client elsewhere. What is not given stays.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redirect {
    pub(crate) https: bool,
    pub(crate) scheme: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) path: Option<String>,
    pub(crate) prefix: Option<String>,
    /// 302 in place of 301.
    pub(crate) found: bool,
}

/// Where requests go.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) endpoints: Endpoints,
    /// HTTP/2 with prior knowledge.
    pub(crate) http2: bool,
    pub(crate) connect_timeout: Duration,
}

/// The addresses of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoints {
    /// These; without any the answer is 503.
    Known(Vec<SocketAddrV4>),
    /// Those that DNS says of a name, all of them, asked again and again.
    Dns(String, u16),
}
