//! Emissary-ingress 4.1 in front of Envoy.
//!
//! ```text
//! Listeners, Hosts ─────────────────────────┐
//! Mappings ─ mappings ─ groups ─> routes ───┴─> envoy::model ─> Envoy
//! Services, EndpointSlices ─ backends ─> clusters
//! ```
//!
//! How Mappings become routes follows `python/ambassador/ir/irhttpmapping.py` and `irhttpmappinggroup.py`, what a Host and a Listener
//! are for `irhost.py` and `irlistener.py`, how a `service` is read `irservice` and `irserviceresolver.py`. The real one watches
//! Endpoints, this one their slices. Left out: Ingresses and Knative, Consul, TLS to backends, filters (authentication, rate limits),
//! retries, Mappings by method or by query, the certificate that it falls back on.

mod backends;
mod hosts;
mod mappings;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::envoy::model::{Action, Config, HeaderMatch, HeaderOps, HeaderValue, PathMatch, Redirect, Route, Tls};
use crate::envoy::model::{VirtualHost, Weighted};
use crate::envoy::{self, Envoy};
use crate::flags::Flags;
use crate::objects::{ENDPOINT_SLICES, Kind, Object, Objects, SECRETS, SERVICES, items, text};
use crate::run::{Controller, Translation, run};
use crate::status::StatusUpdate;
use backends::Backends;
use hosts::{Host, Insecure};

const GROUP: &str = "getambassador.io";
const VERSION: &str = "v3alpha1";
const MAPPINGS: Kind = Kind::new(GROUP, VERSION, "Mapping", "mappings");
const TCP_MAPPINGS: Kind = Kind::new(GROUP, VERSION, "TCPMapping", "tcpmappings");
const HOSTS: Kind = Kind::new(GROUP, VERSION, "Host", "hosts");
const LISTENERS: Kind = Kind::new(GROUP, VERSION, "Listener", "listeners");
const RESOLVERS: Kind = Kind::new(GROUP, VERSION, "KubernetesEndpointResolver", "kubernetesendpointresolvers");

/// The role.
pub(crate) async fn main(flags: Flags) -> anyhow::Result<()> {
    let id = std::env::var("AMBASSADOR_ID").unwrap_or_else(|_| "default".to_owned());
    run("emissary", Emissary { id }, Envoy::new()?, flags.number("health-port", 8877), None).await
}

struct Emissary {
    /// Objects that name other ids than this one are another instance's.
    id: String,
}

impl Emissary {
    fn ours<'a>(&'a self, objects: &'a Objects, kind: Kind) -> impl Iterator<Item = &'a Object> {
        objects.all(kind).filter(|object| {
            let ids = object.data["spec"]["ambassador_id"].as_array();
            ids.map_or(self.id == "default", |ids| ids.iter().any(|id| *id == self.id.as_str()))
        })
    }

    /// The ports of the first Listener of each protocol; without one nothing is taken.
    fn ports(&self, objects: &Objects) -> (u16, u16) {
        let port = |protocols: &[&str]| {
            let mut listeners = self.ours(objects, LISTENERS);
            let found = listeners.find(|object| protocols.contains(&text(&object.data, "/spec/protocol")));
            let port = found.and_then(|listener| listener.data["spec"]["port"].as_u64());
            port.and_then(|port| u16::try_from(port).ok()).unwrap_or_default()
        };
        (port(&["HTTP"]), port(&["HTTPS", "TLS"]))
    }
}

impl Controller for Emissary {
    fn kinds(&self) -> Vec<Kind> {
        vec![ENDPOINT_SLICES, HOSTS, LISTENERS, MAPPINGS, RESOLVERS, SECRETS, SERVICES, TCP_MAPPINGS]
    }

    fn translate(&self, objects: &Objects) -> Translation {
        let (http_port, https_port) = self.ports(objects);
        let mut config = Config { http_port, https_port, ..Config::default() };
        let mut backends = Backends::new(objects, self.ours(objects, RESOLVERS));
        let mut hosts: Vec<Host> = self.ours(objects, HOSTS).map(|host| Host::read(objects, host)).collect();
        let mut statuses: Vec<StatusUpdate> = hosts.iter().filter_map(Host::status).collect();
        hosts.retain(|host| host.fault.is_none());
        if hosts.is_empty() {
            hosts.push(Host::fallback());
        }

        let mut read = Vec::new();
        for object in self.ours(objects, MAPPINGS) {
            let found = mappings::Mapping::read(object, &mut backends);
            let found = found.and_then(|mapping| {
                let associated = hosts.iter().any(|host| host.takes(&mapping.hostname));
                if associated { Ok(mapping) } else { Err("No Host matches the Mapping's hostname".to_owned()) }
            });
            let status = match &found {
                Ok(_) => json!({"state": "Running"}),
                Err(reason) => json!({"state": "Inactive", "reason": reason}),
            };
            statuses.extend(StatusUpdate::unless_there(MAPPINGS, object, status));
            read.extend(found.ok());
        }
        for (hostname, routes) in mappings::by_hostname(&read) {
            let insecure = hosts::of(&hosts, &hostname).map_or(Insecure::Reject, |host| host.insecure);
            let mut host = VirtualHost { routes };
            if insecure != Insecure::Route {
                host.routes = vec![turned_away(insecure)];
            }
            config.hosts.insert(hostname, host);
        }
        self.add_tls(objects, &hosts, &read, &mut config, &mut backends);
        config.clusters = backends.clusters;
        Translation { files: envoy::files(&config), statuses, complaints: std::collections::BTreeSet::new() }
    }
}

impl Emissary {
    fn add_tls(
        &self,
        objects: &Objects,
        hosts: &[Host],
        mappings: &[mappings::Mapping],
        config: &mut Config,
        backends: &mut Backends<'_>,
    ) {
        let by_hostname: BTreeMap<String, Vec<Route>> = mappings::by_hostname(mappings);
        for host in hosts {
            if let Some((certificate, key)) = &host.certificate {
                // The Host's own name, or what it stands for.
                let routes = by_hostname.get(&host.hostname).or_else(|| by_hostname.get("*"));
                let host_routes = VirtualHost { routes: routes.cloned().unwrap_or_default() };
                let (certificate, key) = (certificate.clone(), key.clone());
                let tls = Tls::Terminated { certificate, key, host: host_routes };
                config.tls.insert(host.hostname.clone(), tls);
            }
        }
        for object in self.ours(objects, TCP_MAPPINGS) {
            let name = text(&object.data, "/spec/host");
            if let (false, Ok(cluster)) = (name.is_empty(), backends.of_mapping(object, false)) {
                let whole = Weighted { cluster: cluster.name, weight: 100, ..Weighted::default() };
                config.tls.insert(name.to_owned(), Tls::Passthrough(vec![whole]));
            }
        }
    }
}

/// What a Host that takes no plain HTTP answers to it.
fn turned_away(insecure: Insecure) -> Route {
    let action = match insecure {
        Insecure::Redirect => Action::Redirect(Redirect { https: true, ..Redirect::default() }),
        _ => Action::Respond(404, String::new()),
    };
    Route {
        path: PathMatch::Prefix("/".to_owned()),
        headers: Vec::new(),
        action,
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
    }
}

/// `headers` of a Mapping: exact values, or `true` for any.
fn header_matches(spec: &Value) -> Vec<HeaderMatch> {
    let fields = spec["headers"].as_object().into_iter().flatten();
    let value = |value: &Value| value.as_str().map_or(HeaderValue::Present, |text| HeaderValue::Exact(text.to_owned()));
    fields.map(|(name, found)| HeaderMatch { name: name.clone(), value: value(found), not: false }).collect()
}

/// The strings of a list, or a string by itself.
fn strings(value: &Value, pointer: &str) -> Vec<String> {
    let one = Some(text(value, pointer)).filter(|text| !text.is_empty());
    one.into_iter().chain(items(value, pointer).filter_map(Value::as_str)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
