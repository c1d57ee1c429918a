//! Kong's declarative configuration as it is read. What a field is when it is not there is what Kong's schemas say
//! (`kong/db/schema/entities/`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The whole.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Declarative {
    /// Which every configuration names, and which says how it is to be read.
    #[serde(rename = "_format_version")]
    pub(super) format: String,
    #[serde(default)]
    pub(super) services: Vec<Service>,
    #[serde(default)]
    pub(super) upstreams: Vec<Upstream>,
    #[serde(default)]
    pub(super) plugins: Vec<Plugin>,
    #[serde(default)]
    pub(super) certificates: Vec<Certificate>,
    /// Entities of other kinds.
    #[serde(flatten)]
    pub(super) others: Others,
}

impl Declarative {
    /// The routes of all services.
    pub(super) fn routes(&self) -> impl Iterator<Item = &Route> {
        self.services.iter().flat_map(|service| &service.routes)
    }
}

/// The fields of an entity that have no place of their own here.
pub(super) type Others = BTreeMap<String, Value>;

/// What routes lead to.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Service {
    pub(super) id: Option<String>,
    pub(super) name: String,
    /// The name of an upstream, or one that is looked up.
    pub(super) host: String,
    pub(super) port: u16,
    /// `http`, `https`, `grpc`, `grpcs`.
    pub(super) protocol: String,
    /// What is put before the path of a request.
    pub(super) path: Option<String>,
    /// Milliseconds.
    pub(super) connect_timeout: u32,
    pub(super) write_timeout: u32,
    pub(super) read_timeout: u32,
    /// How often a request is sent again at most.
    pub(super) retries: u32,
    pub(super) tags: Vec<String>,
    pub(super) routes: Vec<Route>,
    pub(super) plugins: Vec<Plugin>,
    #[serde(flatten)]
    pub(super) others: Others,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            id: None,
            name: String::new(),
            host: String::new(),
            port: 80,
            protocol: "http".to_owned(),
            path: None,
            connect_timeout: 60_000,
            write_timeout: 60_000,
            read_timeout: 60_000,
            retries: 5,
            tags: Vec::new(),
            routes: Vec::new(),
            plugins: Vec::new(),
            others: Others::new(),
        }
    }
}

/// Which requests go there.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Route {
    pub(super) id: Option<String>,
    pub(super) name: String,
    /// None is every host.
    pub(super) hosts: Vec<String>,
    /// Beginnings of paths; with `~` before them patterns, from the path's begin. None is every path.
    pub(super) paths: Vec<String>,
    /// `http`, `https`, `grpc`, `grpcs`.
    pub(super) protocols: Vec<String>,
    /// What a request without TLS is answered where the protocols want it: 426, or a redirect.
    pub(super) https_redirect_status_code: u16,
    /// Of patterns, the higher first.
    pub(super) regex_priority: i64,
    pub(super) strip_path: bool,
    pub(super) preserve_host: bool,
    pub(super) request_buffering: bool,
    pub(super) response_buffering: bool,
    pub(super) tags: Vec<String>,
    pub(super) plugins: Vec<Plugin>,
    #[serde(flatten)]
    pub(super) others: Others,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            id: None,
            name: String::new(),
            hosts: Vec::new(),
            paths: Vec::new(),
            protocols: vec!["http".to_owned(), "https".to_owned()],
            https_redirect_status_code: 426,
            regex_priority: 0,
            strip_path: true,
            preserve_host: false,
            request_buffering: true,
            response_buffering: true,
            tags: Vec::new(),
            plugins: Vec::new(),
            others: Others::new(),
        }
    }
}

/// The addresses behind a name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Upstream {
    pub(super) name: String,
    /// The Host that is sent when the client's is not preserved, in the place of the target's.
    pub(super) host_header: Option<String>,
    pub(super) targets: Vec<Target>,
    pub(super) tags: Vec<String>,
    #[serde(flatten)]
    pub(super) others: Others,
}

/// One of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Target {
    /// `ADDRESS:PORT` or `NAME:PORT`.
    pub(super) target: String,
    #[serde(flatten)]
    pub(super) others: Others,
}

/// What else is done with requests: of the route or the service that it is of or names, otherwise with all of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Plugin {
    pub(super) name: String,
    pub(super) config: Value,
    pub(super) enabled: bool,
    /// A name or an identity, or an object with either.
    pub(super) route: Value,
    pub(super) service: Value,
    pub(super) tags: Vec<String>,
    #[serde(flatten)]
    pub(super) others: Others,
}

impl Default for Plugin {
    fn default() -> Self {
        Self {
            name: String::new(),
            config: Value::Null,
            enabled: true,
            route: Value::Null,
            service: Value::Null,
            tags: Vec::new(),
            others: Others::new(),
        }
    }
}

/// A certificate chain and its key, as PEM.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Certificate {
    pub(super) id: Option<String>,
    pub(super) cert: String,
    pub(super) key: String,
    pub(super) snis: Vec<Sni>,
    pub(super) tags: Vec<String>,
}

/// A host that has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Sni {
    pub(super) name: String,
}
