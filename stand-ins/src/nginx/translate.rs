//! From objects to the model: which Ingress is taken, which path wins, where it leads.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::sync::Arc;

use kube::ResourceExt;
use serde_json::Value;

use super::annotations::{Annotations, Basic};
use super::model::{Location, Match, Model, Server, Upstream};
use super::settings::{Settings, lines};
use crate::flags::Flags;
use crate::names;
use crate::objects::{
    CONFIG_MAPS, INGRESS_CLASSES, INGRESSES, Object, Objects, SECRETS, SERVICES, annotation, items, text,
};
use crate::secrets::{self, Fault};
use crate::services::{PortRef, cluster_ip, service_port};
use crate::status::Complaint;

/// An Ingress of this controller's class with annotations that can be read.
pub(crate) struct Taken {
    pub(crate) object: Object,
    pub(super) annotations: Arc<Annotations>,
}

impl Taken {
    pub(super) fn namespace(&self) -> String {
        self.object.namespace().unwrap_or_default()
    }

    fn complain(&self, reason: &'static str, message: impl Into<String>) -> Complaint {
        Complaint::new(INGRESSES, &self.object, reason, message)
    }

    /// What the real one writes to its log only.
    fn log(&self, message: impl Into<String>) -> Complaint {
        Complaint::logged(INGRESSES, &self.object, message)
    }
}

/// The Ingresses that count, oldest first: of two that want the same path the older one has it, and of two of the same second the one
/// whose name comes last (`sortIngressSlice` in `store.go`).
pub(crate) fn ingresses(
    objects: &Objects,
    flags: &Flags,
    settings: &Settings,
    complaints: &mut BTreeSet<Complaint>,
) -> Vec<Taken> {
    let mut taken = Vec::new();
    for object in objects.all(INGRESSES).filter(|object| is_ours(objects, flags, object)) {
        let mut notes = Vec::new();
        match Annotations::read(object, settings, &mut notes) {
            Ok(annotations) => {
                if let Some(why) = &annotations.denied {
                    let message = format!("{why}; its paths answer 503");
                    complaints.insert(Complaint::logged(INGRESSES, object, message));
                }
                taken.push(Taken { object: Arc::clone(object), annotations: Arc::new(annotations) });
            }
            Err(message) => {
                complaints.insert(Complaint::new(INGRESSES, object, "Rejected", message));
            }
        }
        // The real one writes these to its log.
        let ignored = |note: String| Complaint::logged(INGRESSES, object, format!("{note}; it is taken for not set"));
        complaints.extend(notes.into_iter().map(ignored));
    }
    taken.sort_by_key(|ingress| {
        let name = format!("{}/{}", ingress.namespace(), ingress.object.name_any());
        (ingress.object.metadata.creation_timestamp.clone(), Reverse(name))
    });
    taken
}

pub(super) fn is_ours(objects: &Objects, flags: &Flags, ingress: &Object) -> bool {
    let controller = flags.or("controller-class", "k8s.io/ingress-nginx");
    // The annotation wins, as it is the older way (`store.go`).
    if let Some(class) = annotation(ingress, "kubernetes.io/ingress.class") {
        return class == flags.or("ingress-class", "nginx");
    }
    match text(&ingress.data, "/spec/ingressClassName") {
        "" => flags.get("watch-ingress-without-class") == Some("true"),
        class => objects
            .get(INGRESS_CLASSES, "", class)
            .is_some_and(|class| text(&class.data, "/spec/controller") == controller),
    }
}

/// The model of these Ingresses.
pub(crate) fn model(objects: &Objects, flags: &Flags, taken: &[Taken], complaints: &mut BTreeSet<Complaint>) -> Model {
    let mut model = Model::default();
    model.servers.insert("_".to_owned(), Server::default());
    if let Some((namespace, service)) = flags.object("default-backend-service")
        && let Some(port) = service_port(objects, namespace, service, &PortRef::Number(80))
    {
        let name = "upstream-default-backend".to_owned();
        model.upstreams.insert(name.clone(), Upstream::Endpoints(port.endpoints(objects)));
        model.default_upstream = Some(name);
    }
    let (canaries, primaries): (Vec<&Taken>, Vec<&Taken>) =
        taken.iter().partition(|ingress| ingress.annotations.canary.is_some());
    let context = Context { objects };
    for ingress in primaries {
        context.add(&mut model, ingress, complaints);
    }
    for ingress in canaries {
        context.add_canary(&mut model, ingress, complaints);
    }
    model
}

struct Context<'a> {
    objects: &'a Objects,
}

impl Context<'_> {
    fn add(&self, model: &mut Model, ingress: &Taken, complaints: &mut BTreeSet<Complaint>) {
        let spec = &ingress.object.data["spec"];
        for tls in items(spec, "/tls") {
            self.add_certificate(model, ingress, tls, complaints);
        }
        let has_rules = items(spec, "/rules").next().is_some();
        if let Some(backend) = spec.get("defaultBackend").filter(|_| !has_rules)
            && let Some(location) = self.location(model, ingress, backend, complaints)
        {
            let server = model.servers.entry("_".to_owned()).or_default();
            server.locations.entry(Match::Prefix("/".to_owned())).or_insert(location);
        }
        for (host, path) in rules(spec) {
            if host != "_" && !names::is_host(host) {
                complaints.insert(ingress.complain("Rejected", format!("the host {host:?} is not a DNS name")));
                continue;
            }
            let Some(location) = self.location(model, ingress, &path["backend"], complaints) else { continue };
            let locations = &mut model.servers.entry(host.to_owned()).or_default().locations;
            for found in matches(path, &ingress.annotations) {
                // The real one says of a path that is taken already only what it says with `--v=3`.
                locations.entry(found).or_insert_with(|| location.clone());
            }
        }
    }

    /// A canary stands behind a path that another Ingress has; without one it does nothing.
    fn add_canary(&self, model: &mut Model, ingress: &Taken, complaints: &mut BTreeSet<Complaint>) {
        for (host, path) in rules(&ingress.object.data["spec"]) {
            let Some(alternative) = self.location(model, ingress, &path["backend"], complaints) else { continue };
            let Some(canary) = ingress.annotations.canary.clone() else { continue };
            for found in matches(path, &ingress.annotations) {
                let primary = model.servers.get_mut(host).and_then(|server| server.locations.get_mut(&found));
                match primary {
                    Some(primary) => primary.canary = Some((alternative.upstream.clone(), canary.clone())),
                    None => {
                        let message = format!("a canary for host {host:?} and {found:?}, which no other Ingress has");
                        complaints.insert(ingress.complain("Conflict", message));
                    }
                }
            }
        }
    }

    fn location(
        &self,
        model: &mut Model,
        ingress: &Taken,
        backend: &Value,
        complaints: &mut BTreeSet<Complaint>,
    ) -> Option<Location> {
        let service = text(backend, "/service/name");
        let Some(port) = PortRef::of_ingress(&backend["service"]["port"]).filter(|_| !service.is_empty()) else {
            let message =
                "a path whose backend is no Service with a port: resource backends are not supported".to_owned();
            complaints.insert(ingress.complain("Rejected", message));
            return None;
        };
        if !names::is_plain(service) || !names::is_plain(&port.to_string()) {
            let message = format!("{service:?} with port {:?} is no name of a Service and its port", port.to_string());
            complaints.insert(ingress.complain("Rejected", message));
            return None;
        }
        let annotations = &ingress.annotations;
        let upstream = self.upstream(model, ingress, service, &port, complaints);
        let own_errors = annotations.default_backend.as_deref();
        let error_upstream = own_errors
            .and_then(|service| self.error_upstream(model, &ingress.namespace(), service))
            .or_else(|| model.default_upstream.clone());
        let guards = self.auth_headers(ingress).and_then(|headers| Ok((headers, self.users(model, ingress)?)));
        let (auth_headers, users, denied) = match guards {
            Ok((headers, users)) => (headers, users, annotations.denied.is_some()),
            Err(message) => {
                complaints.insert(ingress.log(format!("{message}; its paths answer 503")));
                (Vec::new(), None, true)
            }
        };
        Some(Location {
            namespace: ingress.namespace(),
            ingress: ingress.object.name_any(),
            service: service.to_owned(),
            port: port.to_string(),
            upstream,
            annotations: Arc::clone(annotations),
            canary: None,
            auth_headers,
            users,
            denied,
            error_upstream,
        })
    }

    /// The headers of the ConfigMap that `auth-proxy-set-headers` names.
    ///
    /// # Errors
    /// Where they cannot be had nobody passes: they may be what makes the question a safe one.
    fn auth_headers(&self, ingress: &Taken) -> Result<Vec<(String, String)>, String> {
        let named = ingress.annotations.auth.as_ref().and_then(|auth| auth.set_headers.as_deref());
        let Some(named) = named else { return Ok(Vec::new()) };
        let own = ingress.namespace();
        let (namespace, name) = named.split_once('/').unwrap_or((&own, named));
        if self.objects.get(CONFIG_MAPS, namespace, name).is_none() {
            return Err(format!("unable to find configMap {named:?} of auth-proxy-set-headers"));
        }
        let headers = lines(self.objects, namespace, name);
        match headers.iter().find(|(name, _)| !names::is_header(name)) {
            Some((name, _)) => Err(format!("invalid proxy-set-headers in configmap {named:?}: {name:?}")),
            None => Ok(headers),
        }
    }

    /// The file of the users that `auth-secret` names, and the realm.
    ///
    /// # Errors
    /// Without them nobody passes.
    fn users(&self, model: &mut Model, ingress: &Taken) -> Result<Option<(String, String)>, String> {
        let Some(Basic { secret: (namespace, name), by_entry, realm }) = &ingress.annotations.basic else {
            return Ok(None);
        };
        let Some(secret) = self.objects.get(SECRETS, namespace, name) else {
            return Err(format!("unexpected error reading secret {namespace}/{name}: it is not there"));
        };
        let users: String = if *by_entry {
            let entries = secret.data["data"].as_object().into_iter().flatten();
            entries.filter_map(|(user, _)| Some(format!("{user}:{}\n", secrets::field(secret, user)?))).collect()
        } else {
            secrets::field(secret, "auth")
                .ok_or_else(|| format!("the secret {namespace}/{name} does not contain a key with value auth"))?
        };
        // No name of either has an underscore.
        let file = format!("{}_{}.passwd", ingress.namespace(), ingress.object.name_any());
        model.users.insert(file.clone(), users);
        Ok(Some((file, realm.clone())))
    }

    /// The endpoints behind the first port of the Service that `default-backend` names, whatever `service-upstream` says. Without any the
    /// annotation is as if it were not there (`getBackendServers` in `controller.go`).
    fn error_upstream(&self, model: &mut Model, namespace: &str, name: &str) -> Option<String> {
        let service = self.objects.get(SERVICES, namespace, name)?;
        let port = items(&service.data, "/spec/ports").next()?;
        let port = PortRef::of_ingress(&serde_json::json!({"number": port["port"]}))?;
        let endpoints = service_port(self.objects, namespace, name, &port)?.endpoints(self.objects);
        if endpoints.is_empty() {
            return None;
        }
        let upstream = format!("custom-default-backend-{namespace}-{name}");
        model.upstreams.insert(upstream.clone(), Upstream::Endpoints(endpoints));
        Some(upstream)
    }

    /// The `upstream` block for a Service's port: its endpoints, or its own address with `service-upstream`.
    ///
    /// What is missing the real one tells in its log, and of a Service's port that is not there nothing at all: that is a Service without
    /// endpoints, but for a line with `--v=3` (`createUpstreams` and `serviceEndpoints` in `controller.go`).
    fn upstream(
        &self,
        model: &mut Model,
        ingress: &Taken,
        service: &str,
        port: &PortRef,
        complaints: &mut BTreeSet<Complaint>,
    ) -> String {
        let namespace = ingress.namespace();
        let (key, mut name) = (format!("{namespace}/{service}"), format!("{namespace}-{service}-{port}"));
        let own = ingress.annotations.service_upstream.then(|| self.own_address(&namespace, service, port));
        if let Some(Err(why)) = &own {
            let message = format!("Failed to determine a suitable ClusterIP Endpoint for Service {key:?}: {why}");
            complaints.insert(ingress.log(message));
        }
        let upstream = match own {
            Some(Ok(address)) => {
                // Another Ingress may lead to the same Service's endpoints.
                name += "-service";
                Upstream::Service(address)
            }
            // As in the real one: a headless Service is sent to pod by pod.
            _ => {
                if self.objects.get(SERVICES, &namespace, service).is_none() {
                    let why = format!("no object matching key {key:?} in local store");
                    let message = format!("Error obtaining Endpoints for Service {key:?}: {why}; its paths answer 503");
                    complaints.insert(ingress.log(message));
                }
                let found = service_port(self.objects, &namespace, service, port);
                Upstream::Endpoints(found.map(|found| found.endpoints(self.objects)).unwrap_or_default())
            }
        };
        model.upstreams.insert(name.clone(), upstream);
        name
    }

    /// The address of a Service itself (`getServiceClusterEndpoint`). Nobody looks whether it has a port of this number.
    ///
    /// # Errors
    /// Why there is none.
    fn own_address(&self, namespace: &str, service: &str, port: &PortRef) -> Result<SocketAddrV4, String> {
        let key = format!("{namespace}/{service}");
        let found = self.objects.get(SERVICES, namespace, service);
        let found = found.ok_or_else(|| format!("service {key:?} does not exist"))?;
        let ip = cluster_ip(found).ok_or_else(|| format!("no ClusterIP found for Service {key:?}"))?;
        let number = match port {
            PortRef::Number(number) => Some(*number),
            PortRef::Name(_) => service_port(self.objects, namespace, service, port).map(|found| found.number),
        };
        let number =
            number.ok_or_else(|| format!("service {service:?} does not have a port named {:?}", port.to_string()))?;
        Ok(SocketAddrV4::new(ip, number))
    }

    /// Where a Secret cannot be used, and for hosts that its certificate does not cover, the default certificate is served. The real one
    /// says so in its log, and of a Secret that is not there in an event as well.
    fn add_certificate(&self, model: &mut Model, ingress: &Taken, tls: &Value, complaints: &mut BTreeSet<Complaint>) {
        let (namespace, name) = (ingress.namespace(), text(tls, "/secretName"));
        let file = format!("{namespace}-{name}.pem");
        let pair = match self.objects.get(SECRETS, &namespace, name).map(secrets::pair) {
            Some(Ok(pair)) => Some(pair),
            _ if name.is_empty() => None,
            None | Some(Err(Fault::Lacks(_))) => {
                let message = format!(
                    "Secret {namespace}/{name} with tls.crt and tls.key is not there; the default certificate is served"
                );
                complaints.insert(ingress.complain("MissingSecret", message));
                None
            }
            Some(Err(Fault::Unusable(why))) => {
                complaints.insert(ingress.log(format!(
                    "SSL certificate \"{namespace}/{name}\" is not valid: {why}; the default certificate is served"
                )));
                None
            }
        };
        for host in items(tls, "/hosts").filter_map(Value::as_str) {
            if !names::is_host(host) {
                complaints.insert(ingress.log(format!("the TLS host {host:?} is not a DNS name; it is left out")));
                continue;
            }
            let own = pair.as_ref().filter(|(chain, _)| {
                let covered = secrets::covers(chain, host);
                if !covered {
                    complaints.insert(ingress.log(format!(
                        "SSL certificate \"{namespace}/{name}\" does not contain a Common Name or Subject Alternative Name for \
                         server \"{host}\"; the default certificate is served, which is not valid for it either"
                    )));
                }
                covered
            });
            if let Some((chain, key)) = own {
                model.certificates.insert(file.clone(), format!("{chain}{key}"));
            }
            let server = model.servers.entry(host.to_owned()).or_default();
            server.certificate.get_or_insert_with(|| own.map(|_| file.clone()).unwrap_or_default());
        }
    }
}

/// Hosts and paths of an Ingress' rules.
pub(super) fn rules(spec: &Value) -> impl Iterator<Item = (&str, &Value)> {
    items(spec, "/rules").flat_map(|rule| {
        let host = match text(rule, "/host") {
            "" => "_",
            host => host,
        };
        items(rule, "/http/paths").map(move |path| (host, path))
    })
}

/// The locations of a path. `Prefix` compares whole elements: `/a` takes `/a` and `/a/b`, not `/ab`.
fn matches(path: &Value, annotations: &Annotations) -> Vec<Match> {
    let text_of = match text(path, "/path") {
        "" => "/",
        path => path,
    };
    if annotations.regex {
        return vec![Match::Regex(text_of.to_owned())];
    }
    match text(path, "/pathType") {
        "Exact" => vec![Match::Exact(text_of.to_owned())],
        "Prefix" if text_of != "/" => {
            let bare = text_of.trim_end_matches('/');
            vec![Match::Prefix(format!("{bare}/")), Match::Exact(bare.to_owned())]
        }
        _ => vec![Match::Prefix(text_of.to_owned())],
    }
}
