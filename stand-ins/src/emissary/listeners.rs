//! Listeners: which ports are open, for which Hosts, and what is served on them.

use std::collections::BTreeSet;

use super::groups::Group;
use super::hosts::{Host, Insecure};
use super::{Resource, selects};
use crate::envoy::model::{Action, Config, HeaderOps, Redirect, Route, Tls, VirtualHost};
use crate::objects::text;
use crate::status::Complaint;

/// `securityModel`: by what a request counts as secure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Model {
    /// By `X-Forwarded-Proto`, which Envoy as the edge sets by the connection itself.
    Connection,
    Secure,
    Insecure,
}

/// A Listener that is in order.
struct Listener<'a> {
    resource: &'a Resource,
    port: u16,
    model: Model,
    /// `*` for all.
    namespace: String,
}

/// The Listeners of the two protocols; without one nothing is taken.
pub(super) struct Listeners<'a> {
    http: Option<Listener<'a>>,
    https: Option<Listener<'a>>,
}

impl<'a> Listeners<'a> {
    pub(super) fn read(resources: &'a [Resource], complaints: &mut BTreeSet<Complaint>) -> Self {
        let mut found = Self { http: None, https: None };
        for resource in resources {
            let protocol = text(&resource.spec, "/protocol");
            let of_protocol = match protocol {
                "HTTP" => &mut found.http,
                "HTTPS" => &mut found.https,
                "" => {
                    let why = "one of protocol and protocolStack must be specified";
                    complaints.insert(resource.complaint(why));
                    continue;
                }
                other => {
                    complaints.insert(resource.complaint(format!("protocol {other} is not valid")));
                    continue;
                }
            };
            match Listener::read(resource) {
                Err(why) => _ = complaints.insert(resource.complaint(why)),
                Ok(_) if of_protocol.is_some() => {
                    let why = format!("a second Listener for {protocol} is not supported by this stand-in");
                    complaints.insert(resource.complaint(why));
                }
                Ok(listener) => *of_protocol = Some(listener),
            }
        }
        found
    }

    /// Opens the ports, and puts the routes of every Host behind them.
    pub(super) fn serve(
        &self,
        hosts: &[Host],
        groups: &[Group<'_>],
        config: &mut Config,
        complaints: &mut BTreeSet<Complaint>,
    ) {
        if let Some(listener) = &self.http {
            config.http_port = listener.open(hosts, complaints);
            // Of two Hosts for one name the later one counts.
            for host in hosts.iter().filter(|host| listener.takes(host)) {
                if let Some(routes) = routes(host, groups, listener.model, false) {
                    let found = VirtualHost { routes, ..VirtualHost::default() };
                    config.hosts.insert(host.hostname.clone(), found);
                }
            }
        }
        if let Some(listener) = &self.https {
            config.https_port = listener.open(hosts, complaints);
            for host in hosts.iter().filter(|host| listener.takes(host)) {
                // One that has no certificate would answer TLS with plain HTTP.
                let Some((certificate, key)) = host.certificate.clone() else { continue };
                if let Some(routes) = routes(host, groups, listener.model, true) {
                    let found = VirtualHost { routes, ..VirtualHost::default() };
                    let tls = Tls::Terminated { certificate, key, host: found };
                    config.tls.insert(host.hostname.clone(), tls);
                }
            }
        }
    }
}

impl<'a> Listener<'a> {
    fn read(resource: &'a Resource) -> Result<Self, String> {
        let spec = &resource.spec;
        let binding = &spec["hostBinding"];
        if !binding["namespace"].is_object() && !binding["selector"].is_object() {
            return Err("hostBinding must have at least one of namespace or selector".to_owned());
        }
        let namespace = match text(binding, "/namespace/from") {
            "ALL" => "*",
            "SELF" | "" => &resource.namespace,
            _ => return Err("hostBinding.namespace.from=selector is not yet supported".to_owned()),
        };
        let port = spec["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        Ok(Self {
            resource,
            port: port.filter(|port| *port != 0).ok_or("port is required")?,
            model: match text(spec, "/securityModel") {
                "XFP" => Model::Connection,
                "SECURE" => Model::Secure,
                "INSECURE" => Model::Insecure,
                _ => return Err("securityModel is required".to_owned()),
            },
            namespace: namespace.to_owned(),
        })
    }

    fn takes(&self, host: &Host) -> bool {
        let by_namespace = self.namespace == "*" || host.namespace.as_ref() == Some(&self.namespace);
        by_namespace && selects(&self.resource.spec["hostBinding"]["selector"], &host.labels)
    }

    /// Its port; 0 when there is no Host for it.
    fn open(&self, hosts: &[Host], complaints: &mut BTreeSet<Complaint>) -> u16 {
        if hosts.iter().any(|host| self.takes(host)) {
            return self.port;
        }
        complaints.insert(self.resource.complaint("No matching Hosts found, disabling!"));
        0
    }
}

/// The routes of a Host on a Listener; `None` when it is not there at all.
fn routes(host: &Host, groups: &[Group<'_>], model: Model, tls: bool) -> Option<Vec<Route>> {
    let secure = match model {
        Model::Connection => tls,
        Model::Secure => true,
        Model::Insecure => false,
    };
    let all = groups.iter().filter(|group| group.is_of(host)).flat_map(Group::routes);
    match host.insecure {
        _ if secure => Some(all.collect()),
        Insecure::Route => Some(all.collect()),
        Insecure::Redirect => Some(all.map(to_https).collect()),
        Insecure::Reject if model == Model::Insecure => None,
        Insecure::Reject => Some(Vec::new()),
    }
}

/// The same match, and the client sent to the same place over HTTPS.
fn to_https(route: Route) -> Route {
    let action = Action::Redirect(Redirect { https: true, ..Redirect::default() });
    Route { action, request_headers: HeaderOps::default(), ..route }
}
