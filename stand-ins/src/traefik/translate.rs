//! From objects to frontends and backends, as `loadIngresses` of 1.7 goes about it.

use std::collections::BTreeSet;

use kube::ResourceExt;
use serde_json::{Value, json};

use super::annotations;
use super::model::{Backend, Configuration, Frontend, PathRule, Server};
use super::render::{HTTP, HTTPS};
use super::weights::Weights;
use crate::objects::{INGRESSES, Object, Objects, SECRETS, SERVICES, annotation, items, text};
use crate::secrets;
use crate::services::{PortRef, service_port};
use crate::status::Complaint;

/// The frontend of `spec.defaultBackend`, of which there can be one.
pub(crate) const DEFAULT: &str = "global-default-frontend";

/// One path of an Ingress' rules.
#[derive(Debug)]
pub(crate) struct Path<'a> {
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) service: &'a str,
    pub(crate) port: Option<PortRef>,
}

/// The paths of all rules.
pub(crate) fn paths(ingress: &Value) -> impl Iterator<Item = Path<'_>> {
    items(ingress, "/spec/rules").flat_map(|rule| {
        items(rule, "/http/paths").map(|path| Path {
            host: text(rule, "/host"),
            path: text(path, "/path"),
            service: text(path, "/backend/service/name"),
            port: PortRef::of_ingress(&path["backend"]["service"]["port"]),
        })
    })
}

/// The configuration of all Ingresses, and those of them whose status is written.
pub(crate) fn configuration<'a>(
    objects: &'a Objects,
    class: &str,
    complaints: &mut BTreeSet<Complaint>,
) -> (Configuration, Vec<&'a Object>) {
    let mut translator = Translator { objects, configuration: Configuration::default(), complaints };
    let mut taken = Vec::new();
    for ingress in objects.all(INGRESSES).filter(|ingress| is_ours(ingress, class)) {
        match translator.add(ingress) {
            Ok(()) => taken.push(ingress),
            Err(why) => translator.complain(ingress, why),
        }
    }
    (translator.configuration, taken)
}

/// Without a class of its own Traefik takes what has none and what has `traefik`.
fn is_ours(ingress: &Object, class: &str) -> bool {
    let named = annotation(ingress, "kubernetes.io/ingress.class").unwrap_or_default();
    if class.is_empty() { named.is_empty() || named == "traefik" } else { named == class }
}

struct Translator<'a, 'b> {
    objects: &'a Objects,
    configuration: Configuration,
    complaints: &'b mut BTreeSet<Complaint>,
}

impl Translator<'_, '_> {
    fn complain(&mut self, ingress: &Object, message: impl Into<String>) {
        self.complaints.insert(Complaint::logged(INGRESSES, ingress, message));
    }

    /// Adds what an Ingress says. One that cannot be taken as a whole may have added a part before that is found out.
    fn add(&mut self, ingress: &Object) -> Result<(), String> {
        self.certificates(ingress).map_err(|why| format!("Error configuring TLS: {why}"))?;
        if let Some(kind) = annotations::get(ingress, "auth-type") {
            return Err(format!("auth-type {kind:?}: authentication is not played here, so the Ingress is not served"));
        }
        if let Some(backend) = ingress.data["spec"].get("defaultBackend") {
            self.global(ingress, backend).map_err(|why| format!("Error creating global backend: {why}"))?;
        }
        let weights = Weights::read(self.objects, ingress)
            .map_err(|why| format!("failed to create fractional weight allocator: {why}"))?;
        for path in paths(&ingress.data) {
            if let Err(why) = self.path(ingress, &path, &weights) {
                self.complain(ingress, why);
            }
        }
        Ok(())
    }

    /// The certificates of `spec.tls`; whose they are is told by what they certify.
    fn certificates(&mut self, ingress: &Object) -> Result<(), String> {
        let namespace = ingress.namespace().unwrap_or_default();
        for name in
            items(&ingress.data, "/spec/tls").map(|tls| text(tls, "/secretName")).filter(|name| !name.is_empty())
        {
            let secret = self.objects.get(SECRETS, &namespace, name);
            let secret = secret.ok_or_else(|| format!("secret {namespace}/{name} does not exist"))?;
            let part = |key: &str| {
                let part = secrets::field(secret, key).filter(|part| !part.is_empty());
                part.ok_or_else(|| {
                    format!("secret {namespace}/{name} is missing the following TLS data entries: {key}")
                })
            };
            self.configuration.certificates.insert((part("tls.crt")?, part("tls.key")?));
        }
        Ok(())
    }

    /// Adds a frontend, unless an Ingress names entry points and none of them is there.
    fn frontend(&mut self, ingress: &Object, name: &str, host: &str, path: Option<PathRule>) {
        let (entry_points, undefined): (Vec<String>, Vec<String>) =
            annotations::list(ingress, "frontend-entry-points").into_iter().partition(|it| is_entry_point(it));
        if !undefined.is_empty() {
            let mut message = format!("Undefined entry point(s) '{}' for frontend {name}", undefined.join(","));
            if entry_points.is_empty() {
                message += "; no entrypoint defined. Skipping frontend";
            }
            self.complain(ingress, message);
            if entry_points.is_empty() {
                return;
            }
        }
        let mut left_out = Vec::new();
        let mut request_headers = annotations::headers(ingress, "custom-request-headers", &mut left_out);
        // Setting it among the headers changes nothing of what Go sends as Host.
        request_headers.remove("host");
        let response_headers = annotations::headers(ingress, "custom-response-headers", &mut left_out);
        left_out.into_iter().for_each(|message| self.complain(ingress, message));
        let frontend = Frontend {
            host: host.to_owned(),
            path,
            priority: priority(ingress),
            entry_points,
            pass_host_header: annotations::flag(ingress, "preserve-host", true),
            request_headers,
            response_headers,
        };
        self.configuration.frontends.insert(name.to_owned(), frontend);
    }

    /// `spec.defaultBackend`. 1.7 takes every port of the Service, each pod ending up with the last one, whichever the Ingress names.
    fn global(&mut self, ingress: &Object, backend: &Value) -> Result<(), String> {
        if self.configuration.backends.contains_key(DEFAULT) {
            return Err(format!("duplicate frontend: {DEFAULT}"));
        }
        self.configuration.backends.insert(DEFAULT.to_owned(), Backend::default());
        let (namespace, name) = (ingress.namespace().unwrap_or_default(), text(backend, "/service/name"));
        let service = self.objects.get(SERVICES, &namespace, name);
        let service = service.ok_or_else(|| format!("service not found for {namespace}/{name}"))?;
        let mut servers = Backend::default();
        for port in items(&service.data, "/spec/ports") {
            let Some(port) = PortRef::of_ingress(&json!({"number": port["port"]})) else { continue };
            self.servers(&mut servers, &namespace, name, &port, "http", 1);
        }
        if servers.servers.is_empty() {
            return Err(format!("endpoints not available for {namespace}/{name}"));
        }
        self.configuration.backends.insert(DEFAULT.to_owned(), servers);
        let every = PathRule { matcher: "PathPrefix", path: "/".to_owned(), strip: false, rewrite: None };
        self.frontend(ingress, DEFAULT, "", Some(every));
        Ok(())
    }

    fn path(&mut self, ingress: &Object, path: &Path<'_>, weights: &Weights) -> Result<(), String> {
        let namespace = ingress.namespace().unwrap_or_default();
        let name = base_name(ingress, path);
        self.configuration.backends.entry(name.clone()).or_default();
        let service = self.objects.get(SERVICES, &namespace, path.service);
        let service = service.ok_or_else(|| format!("Service not found for {namespace}/{}", path.service))?;
        let rule = rule(ingress, path.path).map_err(|why| format!("Failed to get rule: {why}"))?;
        // Braces hold a pattern, and one that is none makes a route that no request matches. Nothing is said of it.
        if !has_balanced_braces(path.path) {
            return Ok(());
        }
        // The first to want a host and path decides what is done with them; what the others lead to is added to its servers.
        if !self.configuration.frontends.contains_key(&name) {
            self.frontend(ingress, &name, path.host, rule);
        }
        let Some(port) = &path.port else { return Ok(()) };
        let Some(found) = service_port(self.objects, &namespace, path.service, port) else { return Ok(()) };
        let https = found.number == 443 || found.name.starts_with("https");
        let protocol = annotations::get(ingress, "protocol").unwrap_or(if https { "https" } else { "http" });
        if !["http", "https", "h2c"].contains(&protocol) {
            return Err(format!("Invalid protocol {protocol:?} specified - skipping"));
        }
        let mut backend = self.configuration.backends.remove(&name).unwrap_or_default();
        let weight = weights.of(path);
        if text(&service.data, "/spec/type") == "ExternalName" {
            let port = if [80, 443].contains(&found.number) { String::new() } else { format!(":{}", found.number) };
            let url = format!("{protocol}://{}{port}", text(&service.data, "/spec/externalName"));
            backend.servers.insert(url.clone(), Server { url, weight });
        } else {
            self.servers(&mut backend, &namespace, path.service, port, protocol, weight);
        }
        self.configuration.backends.insert(name, backend);
        Ok(())
    }

    fn servers(
        &self,
        backend: &mut Backend,
        namespace: &str,
        service: &str,
        port: &PortRef,
        protocol: &str,
        weight: u64,
    ) {
        let found = service_port(self.objects, namespace, service, port);
        for address in found.into_iter().flat_map(|port| port.endpoints(self.objects)) {
            let server = Server { url: format!("{protocol}://{address}"), weight };
            backend.servers.insert(address.ip().to_string(), server);
        }
    }
}

/// Those that the flags can name, and that of the dashboard.
fn is_entry_point(name: &str) -> bool {
    [HTTP, HTTPS, "traefik"].contains(&name)
}

/// Whether braces are closed where they are opened, as the router of 1.7 wants it (`braceIndices` of gorilla/mux).
fn has_balanced_braces(path: &str) -> bool {
    let mut open = 0_usize;
    for c in path.chars() {
        match c {
            '{' => open += 1,
            '}' if open == 0 => return false,
            '}' => open -= 1,
            _ => {}
        }
    }
    open == 0
}

/// What is no number is as if it were not there; the line in the real one's log quotes it and names no Ingress.
fn priority(ingress: &Object) -> u32 {
    annotations::get(ingress, "priority").and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The name of a path's frontend and backend: what two paths have to share to be one.
fn base_name(ingress: &Object, path: &Path<'_>) -> String {
    let mut name = format!("{}{}", path.host, path.path);
    if name.is_empty() {
        path.service.clone_into(&mut name);
    }
    let entry_points = annotations::list(ingress, "frontend-entry-points");
    if !entry_points.is_empty() {
        name = format!("{}_{name}", entry_points.join("-"));
    }
    match priority(ingress) {
        0 => name,
        priority => format!("{priority}-{name}"),
    }
}

fn rule(ingress: &Object, path: &str) -> Result<Option<PathRule>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    let kind = annotations::get(ingress, "rule-type").unwrap_or("PathPrefix");
    let (matcher, strip) = match kind {
        "Path" => ("Path", false),
        "PathPrefix" => ("PathPrefix", false),
        "PathStrip" => ("Path", true),
        "PathPrefixStrip" => ("PathPrefix", true),
        _ => return Err(format!("cannot use non-matcher rule: {kind:?}")),
    };
    let rewrite = annotations::get(ingress, "rewrite-target").map(|target| target.trim_end_matches('/').to_owned());
    Ok(Some(PathRule { matcher, path: path.to_owned(), strip, rewrite }))
}
