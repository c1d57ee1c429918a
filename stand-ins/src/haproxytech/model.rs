//! What HAProxy is to serve, before it is text.

use std::collections::{BTreeMap, BTreeSet};

use super::slots::Servers;

/// The whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// `VALUE` by key, in each of the maps that a request is looked up in. Of two values HAProxy would take the lower one.
    pub(crate) maps: BTreeMap<Map, BTreeMap<String, String>>,
    /// Rules by id, in the order in which the frontends have them.
    pub(crate) rules: Vec<(String, Rule)>,
    /// Rules for every request.
    pub(crate) global_rules: Vec<Rule>,
    /// `use_backend` rules of Services with a condition of their own: the backend and the condition. They come before the maps.
    pub(crate) custom_routes: BTreeSet<(String, String)>,
    /// By name.
    pub(crate) backends: BTreeMap<String, Backend>,
    /// What requests that no map knows lead to; the controller's own 404 otherwise.
    pub(crate) default_backend: Option<String>,
    /// Key and certificate chain, as PEM, by file name. A name's order decides: the first is shown where no other fits.
    pub(crate) certificates: BTreeMap<String, String>,
    /// `global` and `defaults`, which the ConfigMap has a say in.
    pub(crate) globals: Globals,
}

/// A map of the frontends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Map {
    /// Hosts that there are routes for.
    Host,
    /// Host and path of `Exact` routes.
    PathExact,
    /// Host and path of `Prefix` routes, without the slash at the end.
    PathPrefixExact,
    /// Host and begin of the path.
    PathPrefix,
}

impl Map {
    pub(crate) const ALL: [Self; 4] = [Self::Host, Self::PathExact, Self::PathPrefixExact, Self::PathPrefix];

    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Host => "maps/host.map",
            Self::PathExact => "maps/path-exact.map",
            Self::PathPrefixExact => "maps/path-prefix-exact.map",
            Self::PathPrefix => "maps/path-prefix.map",
        }
    }
}

/// Something that a frontend does to the requests of the Ingresses that ask for it. The order is HAProxy's: redirects first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rule {
    /// To the same address by HTTPS.
    Redirect { port: u16, code: u16 },
    /// `value` is a format with variables, in double quotes where it came from a header's annotation.
    SetHeader { name: String, value: String },
}

/// A Service's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    /// The ready endpoints, and the room that there is for more.
    pub(crate) servers: Servers,
    /// `balance`.
    pub(crate) balance: String,
    /// `option forwardfor`.
    pub(crate) forwarded_for: bool,
    /// What is true of every server: `check`, `proto h2`.
    pub(crate) default_server: Vec<String>,
    /// What its Service and its Ingresses add.
    pub(crate) snippets: BTreeSet<Snippet>,
}

/// Further lines of a backend. Those of its Service come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Snippet {
    /// Whose they are.
    pub(crate) of_ingress: bool,
    /// `NAMESPACE/NAME`.
    pub(crate) origin: String,
    pub(crate) lines: Vec<String>,
}

/// The sections that are not about one route.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Globals {
    /// `log` lines.
    pub(crate) logs: Vec<String>,
    /// Further lines of `global`: `maxconn 100`.
    pub(crate) global: Vec<String>,
    /// `timeout` lines of `defaults`, by name.
    pub(crate) timeouts: BTreeMap<String, String>,
}
