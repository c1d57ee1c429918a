//! From the declarative configuration to the model. What Kong's schemas refuse is refused; so is what Kong would take and this gateway
//! does not play, where requests would otherwise go elsewhere than with Kong or pass where they must not. The rest is passed over.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::declarative::{Certificate, Declarative, Others, Plugin, Route, Service, Upstream};
use super::model::{self, ANY, Host, Match, Model, RouteOptions, Server, ServiceOptions, Target};
use super::transform::{self, Transformer};
use crate::names;

/// A field of an entity, and why it is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    /// `route`, `plugin`, ...
    pub(super) entity: &'static str,
    pub(super) name: String,
    pub(super) tags: Vec<String>,
    pub(super) field: String,
    pub(super) message: String,
}

/// The plugin that is played.
pub(super) const REQUEST_TRANSFORMER: &str = "request-transformer";

/// Where requests come and go.
const PROTOCOLS: &[&str] = &["http", "https", "grpc", "grpcs"];

/// Fields that choose requests or guard them otherwise than is played. With these values they say nothing.
const SILENT: &[(&str, &[(&str, &str)])] = &[
    ("service", &[("ca_certificates", ""), ("client_certificate", ""), ("tls_verify", "")]),
    (
        "route",
        &[("destinations", ""), ("expression", ""), ("headers", ""), ("methods", ""), ("snis", ""), ("sources", "")],
    ),
    ("plugin", &[("consumer", ""), ("consumer_group", ""), ("ordering", "")]),
    ("upstream", &[("algorithm", "round-robin"), ("hash_on", "none")]),
    ("target", &[("weight", "100")]),
];

/// The model, unless something is wrong.
pub(super) fn model(declarative: &Declarative) -> Result<Model, Vec<Flaw>> {
    let mut reader = Reader { declarative, model: Model::default(), flaws: Vec::new() };
    reader.model.servers.insert(ANY.to_owned(), Server::default());
    let plugins = reader.plugins();
    let mut origin = 0;
    for service in &declarative.services {
        reader.service(service, &plugins, &mut origin);
    }
    for certificate in &declarative.certificates {
        reader.certificate(certificate);
    }
    let Reader { mut model, flaws, .. } = reader;
    share_hostless(&mut model);
    if flaws.is_empty() { Ok(model) } else { Err(flaws) }
}

/// The transformers by what they are of: `None` is every request.
type Plugins = BTreeMap<Option<Of>, Transformer>;

/// A service or a route, by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Service(String),
    Route(String),
}

struct Reader<'a> {
    declarative: &'a Declarative,
    model: Model,
    flaws: Vec<Flaw>,
}

impl Reader<'_> {
    fn flaw(&mut self, entity: (&'static str, &str, &[String]), field: &str, message: impl Into<String>) {
        let (entity, name, tags) = entity;
        let (name, tags) = (name.to_owned(), tags.to_vec());
        self.flaws.push(Flaw { entity, name, tags, field: field.to_owned(), message: message.into() });
    }

    /// Whether none of an entity's other fields says what is not played.
    fn silent(&mut self, entity: (&'static str, &str, &[String]), others: &Others) {
        let silent = SILENT.iter().find(|(kind, _)| *kind == entity.0).map(|(_, fields)| *fields).unwrap_or_default();
        for (field, value) in others {
            if let Some((_, nothing)) = silent.iter().find(|(known, _)| known == field)
                && says(value)
                && value.to_string().trim_matches('"') != *nothing
            {
                self.flaw(entity, field, format!("{value} is not played by this gateway"));
            }
        }
    }

    fn plugins(&mut self) -> Plugins {
        let declarative = self.declarative;
        let mut plugins = Plugins::new();
        for plugin in &declarative.plugins {
            let of = match (reference(&plugin.route), reference(&plugin.service)) {
                (Some(route), _) => declarative
                    .routes()
                    .find(|it| is(&it.name, &it.id, route))
                    .map(|it| Some(Of::Route(it.name.clone()))),
                (None, Some(service)) => declarative
                    .services
                    .iter()
                    .find(|it| is(&it.name, &it.id, service))
                    .map(|it| Some(Of::Service(it.name.clone()))),
                (None, None) => Some(None),
            };
            match of {
                Some(of) => self.plugin(plugin, of, &mut plugins),
                None => {
                    let entity = ("plugin", plugin.name.as_str(), plugin.tags.as_slice());
                    self.flaw(entity, "route", "invalid reference: no such route or service");
                }
            }
        }
        for service in &declarative.services {
            for plugin in &service.plugins {
                self.plugin(plugin, Some(Of::Service(service.name.clone())), &mut plugins);
            }
            for route in &service.routes {
                for plugin in &route.plugins {
                    self.plugin(plugin, Some(Of::Route(route.name.clone())), &mut plugins);
                }
            }
        }
        plugins
    }

    fn plugin(&mut self, plugin: &Plugin, of: Option<Of>, plugins: &mut Plugins) {
        if !plugin.enabled {
            return;
        }
        let entity = ("plugin", plugin.name.as_str(), plugin.tags.as_slice());
        self.silent(entity, &plugin.others);
        if plugin.name != REQUEST_TRANSFORMER {
            let message =
                format!("the plugin {:?} is not played by this gateway, only {REQUEST_TRANSFORMER} is", plugin.name);
            self.flaw(entity, "name", message);
            return;
        }
        match Transformer::read(&plugin.config) {
            // Kong allows one instance for each.
            Ok(_) if plugins.contains_key(&of) => {
                self.flaw(
                    entity,
                    "name",
                    format!("uniqueness violation: a second {REQUEST_TRANSFORMER} for one entity"),
                );
            }
            Ok(transformer) => {
                plugins.insert(of, transformer);
            }
            Err(transform::Refused { field, message }) => self.flaw(entity, &field, message),
        }
    }

    fn service(&mut self, service: &Service, plugins: &Plugins, origin: &mut usize) {
        let entity = ("service", service.name.as_str(), service.tags.as_slice());
        self.silent(entity, &service.others);
        if !is_name(&service.host) {
            self.flaw(entity, "host", format!("invalid value: {:?}", service.host));
        }
        if !PROTOCOLS.contains(&service.protocol.as_str()) {
            self.flaw(entity, "protocol", format!("expected one of: {}", PROTOCOLS.join(", ")));
        }
        if let Some(path) = service.path.as_deref().filter(|path| !["", "/"].contains(path)) {
            self.flaw(entity, "path", format!("{path:?} is not played by this gateway, only / is"));
        }
        let options = self.upstream(service);
        for route in &service.routes {
            let transformer = [Some(Of::Route(route.name.clone())), Some(Of::Service(service.name.clone())), None];
            let route_of = model::Route {
                origin: *origin,
                upstream: service.host.clone(),
                service: options.clone(),
                options: self.options(route),
                // Of several instances the most specific runs.
                transformer: transformer.iter().find_map(|of| plugins.get(of)).cloned(),
            };
            *origin += 1;
            self.route(route, &route_of);
        }
    }

    /// The `upstream` block that a service leads to, and what else it says.
    fn upstream(&mut self, service: &Service) -> ServiceOptions {
        let found = self.declarative.upstreams.iter().find(|upstream| upstream.name == service.host);
        let own = Target { host: host(&service.host), port: service.port };
        let targets = found.map_or_else(|| vec![own], |upstream| self.targets(upstream));
        let attempts = service.retries.saturating_add(1);
        // `set_host_header` in Kong's `balancer/init.lua`: another name's port is the target's, too. nginx chooses the target when it has
        // made the request, so of several this is the first one's.
        let host = targets.first().map(|target| {
            let own = target.host.to_string();
            let name = found.and_then(|upstream| upstream.host_header.as_deref()).unwrap_or(&own);
            match (service.protocol.as_str(), target.port) {
                ("http" | "grpc", 80) | ("https" | "grpcs", 443) => name.to_owned(),
                (_, port) => format!("{name}:{port}"),
            }
        });
        let upstream = self.model.upstreams.entry(service.host.clone()).or_default();
        upstream.targets = targets;
        upstream.attempts = upstream.attempts.max(attempts);
        ServiceOptions {
            protocol: service.protocol.clone(),
            host: host.unwrap_or_else(|| service.host.clone()),
            timeouts: [service.connect_timeout, service.write_timeout, service.read_timeout],
            attempts,
        }
    }

    fn targets(&mut self, upstream: &Upstream) -> Vec<Target> {
        let entity = ("upstream", upstream.name.as_str(), upstream.tags.as_slice());
        self.silent(entity, &upstream.others);
        if let Some(header) = upstream.host_header.as_deref().filter(|header| !is_name(header)) {
            self.flaw(entity, "host_header", format!("invalid value: {header:?}"));
        }
        let mut targets = Vec::new();
        for target in &upstream.targets {
            let entity = ("target", target.target.as_str(), upstream.tags.as_slice());
            self.silent(entity, &target.others);
            let read = target.target.rsplit_once(':').filter(|(host, _)| is_name(host));
            match read.and_then(|(name, port)| Some(Target { host: host(name), port: port.parse().ok()? })) {
                Some(target) => targets.push(target),
                None => self.flaw(entity, "target", "expected an IPv4 address or a name, and a port"),
            }
        }
        targets
    }

    fn options(&mut self, route: &Route) -> RouteOptions {
        let entity = ("route", route.name.as_str(), route.tags.as_slice());
        self.silent(entity, &route.others);
        if route.protocols.is_empty() || !route.protocols.iter().all(|it| PROTOCOLS.contains(&it.as_str())) {
            self.flaw(entity, "protocols", format!("expected some of: {}", PROTOCOLS.join(", ")));
        }
        let https_status = route.https_redirect_status_code;
        if ![426, 301, 302, 307, 308].contains(&https_status) {
            self.flaw(entity, "https_redirect_status_code", "expected one of: 426, 301, 302, 307, 308");
        }
        RouteOptions {
            strip_path: route.strip_path,
            preserve_host: route.preserve_host,
            request_buffering: route.request_buffering,
            response_buffering: route.response_buffering,
            protocols: route.protocols.clone(),
            https_status,
            regex_priority: route.regex_priority,
        }
    }

    fn route(&mut self, route: &Route, route_of: &model::Route) {
        let entity = ("route", route.name.as_str(), route.tags.as_slice());
        if let Some(host) = route.hosts.iter().find(|host| !names::is_host(host)) {
            self.flaw(entity, "hosts", format!("invalid hostname: {host:?}"));
            return;
        }
        let wrong = |path: &&String| !path.strip_prefix('~').unwrap_or(path).starts_with('/');
        if route.paths.iter().any(|path| wrong(&path)) {
            self.flaw(entity, "paths", "should start with: / (fixed path) or ~/ (regexed path)");
            return;
        }
        let any = [ANY.to_owned()];
        let hosts = if route.hosts.is_empty() { any.as_slice() } else { &route.hosts };
        let every = ["/".to_owned()];
        let paths = if route.paths.is_empty() { every.as_slice() } else { &route.paths };
        for host in hosts {
            let routes = &mut self.model.servers.entry(host.clone()).or_default().routes;
            for path in paths {
                routes.entry(found(path)).or_insert_with(|| route_of.clone());
            }
        }
    }

    fn certificate(&mut self, certificate: &Certificate) {
        let pem = format!("{}\n{}", certificate.cert.trim_end(), certificate.key);
        let file = match certificate.id.as_deref().filter(|id| names::is_plain(id)) {
            Some(id) => format!("{id}.pem"),
            None => {
                let mut hasher = DefaultHasher::new();
                pem.hash(&mut hasher);
                format!("{:016x}.pem", hasher.finish())
            }
        };
        self.model.certificates.insert(file.clone(), pem);
        for sni in &certificate.snis {
            if !names::is_host(&sni.name) {
                let entity = ("certificate", "", certificate.tags.as_slice());
                self.flaw(entity, "snis", format!("invalid hostname: {:?}", sni.name));
                continue;
            }
            let server = self.model.servers.entry(sni.name.clone()).or_default();
            server.certificate.get_or_insert_with(|| file.clone());
        }
    }
}

/// A host's requests that none of its own routes takes go on to the routes without a host.
fn share_hostless(model: &mut Model) {
    let hostless = model.servers.get(ANY).map(|server| server.routes.clone()).unwrap_or_default();
    for (_, server) in model.servers.iter_mut().filter(|(host, _)| *host != ANY) {
        let own: Vec<String> = server
            .routes
            .keys()
            .filter_map(|found| match found {
                Match::Prefix(path) => Some(path.clone()),
                _ => None,
            })
            .collect();
        for (found, route) in &hostless {
            let (Match::Exact(path) | Match::Regex(path) | Match::Prefix(path)) = found;
            if !own.iter().any(|prefix| path.starts_with(prefix)) {
                server.routes.entry(found.clone()).or_insert_with(|| route.clone());
            }
        }
    }
}

/// A pattern for one path alone, as a controller makes it of an `Exact` one, is that path: nginx finds it at once.
fn found(path: &str) -> Match {
    let Some(pattern) = path.strip_prefix('~') else { return Match::Prefix(path.to_owned()) };
    let plain = |path: &&str| path.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.~%".contains(c));
    match pattern.strip_suffix('$').filter(plain) {
        Some(exact) => Match::Exact(exact.to_owned()),
        None => Match::Regex(pattern.to_owned()),
    }
}

/// The name or the identity of another entity.
fn reference(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["id"].as_str()).or_else(|| value["name"].as_str())
}

fn is(name: &str, id: &Option<String>, wanted: &str) -> bool {
    name == wanted || id.as_deref() == Some(wanted)
}

/// Whether a field is there and says anything.
fn says(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

/// A name or an IPv4 address.
fn is_name(name: &str) -> bool {
    !name.starts_with('*') && names::is_host(&name.to_ascii_lowercase())
}

fn host(name: &str) -> Host {
    name.parse().map_or_else(|_| Host::Name(name.to_owned()), Host::Address)
}
