//! Ingresses, as `ingress_processor.go` takes them.

use std::collections::BTreeSet;

use kube::ResourceExt;
use serde_json::{Value, json};

use super::backends::{Backends, regex};
use super::headers::{Policy, Variables, with_settings};
use super::settings::{Settings, duration};
use crate::envoy::model::{Action, Config, Forward, HeaderOps, PathMatch, Redirect, Route, Tls, VirtualHost, Weighted};
use crate::objects::{INGRESSES, Object, annotation, items, text};
use crate::services::{self, PortRef};
use crate::status::{Complaint, StatusUpdate};

/// Adds the hosts of the Ingresses, and returns the statuses that they should have.
pub(crate) fn add(
    taken: &[&Object],
    settings: &Settings,
    config: &mut Config,
    backends: &mut Backends<'_>,
    complaints: &mut BTreeSet<Complaint>,
    addresses: &[Value],
) -> Vec<StatusUpdate> {
    for ingress in taken {
        let mut adder = Adder { ingress, settings, backends, complaints };
        adder.secure_hosts(config);
        adder.rules(config);
    }
    let status = services::ingress_status(addresses);
    taken.iter().filter_map(|ingress| StatusUpdate::unless_there(INGRESSES, ingress, status.clone())).collect()
}

struct Adder<'a, 'b> {
    ingress: &'a Object,
    settings: &'a Settings,
    backends: &'a mut Backends<'b>,
    complaints: &'a mut BTreeSet<Complaint>,
}

impl Adder<'_, '_> {
    fn complain(&mut self, reason: &'static str, message: impl Into<String>) {
        self.complaints.insert(Complaint::new(INGRESSES, self.ingress, reason, message));
    }

    fn annotation(&self, name: &str) -> &str {
        annotation(self.ingress, name).unwrap_or_default()
    }

    /// The hosts with a certificate; one without it is served over plain HTTP only.
    fn secure_hosts(&mut self, config: &mut Config) {
        let namespace = self.ingress.namespace().unwrap_or_default();
        for tls in items(&self.ingress.data, "/spec/tls") {
            let name = text(tls, "/secretName");
            match self.backends.certificate(&namespace, name) {
                Ok((certificate, key)) => {
                    for host in items(tls, "/hosts").filter_map(Value::as_str) {
                        let (certificate, key) = (certificate.clone(), key.clone());
                        let tls = Tls::Terminated { certificate, key, host: VirtualHost::default() };
                        config.tls.entry(host.to_lowercase()).or_insert(tls);
                    }
                }
                Err(why) => self.complain("MissingSecret", format!("unresolved secret reference {name:?}: {why}")),
            }
        }
    }

    fn rules(&mut self, config: &mut Config) {
        let spec = &self.ingress.data["spec"];
        if let Some(backend) = spec.get("defaultBackend") {
            self.path(config, "*", &json!({"path": "/", "backend": backend}));
        }
        for rule in items(spec, "/rules") {
            let host = match text(rule, "/host") {
                "" => "*".to_owned(),
                host => host.to_lowercase(),
            };
            for path in items(rule, "/http/paths") {
                self.path(config, &host, path);
            }
        }
    }

    fn path(&mut self, config: &mut Config, host: &str, path: &Value) {
        let Some(route) = self.route(path) else { return };
        if let Some(Tls::Terminated { host, .. }) = config.tls.get_mut(host) {
            put(host, route.clone());
        }
        if self.annotation("kubernetes.io/ingress.allow-http") == "false" {
            return;
        }
        let https = Action::Redirect(Redirect { https: true, ..Redirect::default() });
        let plain = match self.annotation("ingress.kubernetes.io/force-ssl-redirect") {
            "true" => Route { action: https, ..route },
            _ => route,
        };
        put(config.hosts.entry(host.to_owned()).or_default(), plain);
    }

    fn route(&mut self, path: &Value) -> Option<Route> {
        let namespace = self.ingress.namespace().unwrap_or_default();
        let service = text(&path["backend"], "/service/name");
        let Some(port) = PortRef::of_ingress(&path["backend"]["service"]["port"]) else {
            self.complain("Rejected", "a path whose backend is no Service with a port");
            return None;
        };
        let backend = match self.backends.find(&namespace, service, &port, "") {
            Ok(backend) => backend,
            Err(missing) => {
                let message = missing.into_message();
                self.complain("MissingService", format!("unresolved service reference: {message}"));
                return None;
            }
        };
        let policy = if self.settings.apply_to_ingress {
            let variables = Variables::from([
                ("CONTOUR_NAMESPACE", namespace),
                ("CONTOUR_SERVICE_NAME", service.to_owned()),
                ("CONTOUR_SERVICE_PORT", backend.port.to_string()),
            ]);
            with_settings(Policy::default(), self.settings, &variables)
        } else {
            Policy::default()
        };
        let timeout = match self.annotation("projectcontour.io/response-timeout") {
            "" => self.annotation("projectcontour.io/request-timeout"),
            timeout => timeout,
        };
        let timeout = duration(timeout).unwrap_or_else(|message| {
            self.complain("Rejected", format!("response-timeout: {message}; the default is used"));
            None
        });
        let text_of = match text(path, "/path") {
            "" => "/",
            path => path,
        };
        let matches = path_match(text_of, text(path, "/pathType"));
        if let PathMatch::Regex(expression) = &matches
            && let Err(message) = regex(expression)
        {
            self.complain("Rejected", message);
            return None;
        }
        let sockets = self.annotation("projectcontour.io/websocket-routes");
        let forward = Forward {
            clusters: vec![Weighted {
                cluster: backend.cluster,
                weight: 1,
                request_headers: policy.ops,
                ..Weighted::default()
            }],
            timeout,
            websocket: sockets.split(',').any(|route| route.trim() == text_of),
            ..Forward::default()
        };
        Some(Route {
            path: matches,
            headers: Vec::new(),
            percent: None,
            action: Action::Forward(Box::new(forward)),
            request_headers: HeaderOps::default(),
            response_headers: HeaderOps::default(),
        })
    }
}

/// Of two routes for the same the later one stays.
pub(crate) fn put(host: &mut VirtualHost, route: Route) {
    let same = |other: &Route| other.path == route.path && other.headers.is_empty() && route.headers.is_empty();
    host.routes.retain(|other| !same(other));
    host.routes.push(route);
}

fn path_match(path: &str, kind: &str) -> PathMatch {
    match kind {
        "Exact" => PathMatch::Exact(path.to_owned()),
        "Prefix" => PathMatch::Segments(path.to_owned()),
        // A path of neither type is a regular expression when it looks like one.
        _ if path.contains(['^', '+', '*', '[', ']', '%']) => PathMatch::Regex(path.to_owned()),
        _ => PathMatch::Prefix(path.to_owned()),
    }
}
