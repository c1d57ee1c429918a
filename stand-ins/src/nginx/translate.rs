//! From objects to the model: which Ingress is taken, which path wins, where it leads.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::ResourceExt;
use serde_json::Value;

use super::annotations::Annotations;
use super::model::{Location, Match, Model, Server, Upstream};
use super::settings::{Settings, lines};
use crate::flags::Flags;
use crate::objects::{INGRESS_CLASSES, INGRESSES, Object, Objects, SECRETS, annotation, items, text};
use crate::secrets;
use crate::services::{PortRef, service_port};
use crate::status::Complaint;

/// An Ingress of this controller's class with annotations that can be read.
pub(crate) struct Taken {
    pub(crate) object: Object,
    annotations: Arc<Annotations>,
}

impl Taken {
    fn namespace(&self) -> String {
        self.object.namespace().unwrap_or_default()
    }

    fn complain(&self, reason: &'static str, message: impl Into<String>) -> Complaint {
        Complaint::new(INGRESSES, &self.object, reason, message)
    }
}

/// The Ingresses that count, oldest first: of two that want the same path the older one has it.
pub(crate) fn ingresses(
    objects: &Objects,
    flags: &Flags,
    settings: &Settings,
    complaints: &mut BTreeSet<Complaint>,
) -> Vec<Taken> {
    let mut taken = Vec::new();
    for object in objects.all(INGRESSES).filter(|object| is_ours(objects, flags, object)) {
        let mut left_out = Vec::new();
        match Annotations::read(object, settings, &mut left_out) {
            Ok(annotations) => {
                taken.push(Taken { object: Arc::clone(object), annotations: Arc::new(annotations) });
            }
            Err(message) => {
                complaints.insert(Complaint::new(INGRESSES, object, "Rejected", message));
            }
        }
        for name in left_out {
            let message = format!(
                "{name} annotation cannot be used: snippets need allow-snippet-annotations \"true\" in the controller's ConfigMap; the \
                 Ingress is served without it"
            );
            complaints.insert(Complaint::new(INGRESSES, object, "Rejected", message));
        }
    }
    taken.sort_by_key(|ingress| {
        (ingress.object.metadata.creation_timestamp.clone(), ingress.namespace(), ingress.object.name_any())
    });
    taken
}

fn is_ours(objects: &Objects, flags: &Flags, ingress: &Object) -> bool {
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
            let Some(location) = self.location(model, ingress, &path["backend"], complaints) else { continue };
            let locations = &mut model.servers.entry(host.to_owned()).or_default().locations;
            for found in matches(path, &ingress.annotations) {
                if let Some(first) = locations.get(&found) {
                    let message = format!(
                        "path {found:?} of host {host:?} is already taken by {}/{}",
                        first.namespace, first.ingress
                    );
                    complaints.insert(ingress.complain("Conflict", message));
                } else {
                    locations.insert(found, location.clone());
                }
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
        let annotations = &ingress.annotations;
        let upstream = self.upstream(model, ingress, service, &port, complaints);
        let error_upstream = match &annotations.default_backend {
            Some(service) => self
                .first_port(&ingress.namespace(), service)
                .map(|port| self.upstream(model, ingress, service, &port, complaints)),
            None => model.default_upstream.clone(),
        };
        let auth_headers = annotations.auth.as_ref().and_then(|auth| auth.set_headers.as_deref()?.split_once('/'));
        Some(Location {
            namespace: ingress.namespace(),
            ingress: ingress.object.name_any(),
            service: service.to_owned(),
            port: port.to_string(),
            upstream,
            annotations: Arc::clone(annotations),
            canary: None,
            auth_headers: auth_headers
                .map(|(namespace, name)| lines(self.objects, namespace, name))
                .unwrap_or_default(),
            error_upstream,
        })
    }

    fn first_port(&self, namespace: &str, service: &str) -> Option<PortRef> {
        let service = self.objects.get(crate::objects::SERVICES, namespace, service)?;
        let port = items(&service.data, "/spec/ports").next()?;
        PortRef::of_ingress(&serde_json::json!({"number": port["port"]}))
    }

    /// The `upstream` block for a Service's port: its endpoints, or its own address with `service-upstream`.
    fn upstream(
        &self,
        model: &mut Model,
        ingress: &Taken,
        service: &str,
        port: &PortRef,
        complaints: &mut BTreeSet<Complaint>,
    ) -> String {
        let namespace = ingress.namespace();
        let mut name = format!("{namespace}-{service}-{port}");
        let found = service_port(self.objects, &namespace, service, port);
        let upstream = match &found {
            None => {
                let message =
                    format!("Service {namespace}/{service} with port {port} is not there; its paths answer 503");
                complaints.insert(ingress.complain("MissingService", message));
                Upstream::Endpoints(Vec::new())
            }
            Some(found) if ingress.annotations.service_upstream => match found.cluster_address() {
                Some(address) => {
                    // Another Ingress may lead to the same Service's endpoints.
                    name += "-service";
                    Upstream::Service(address)
                }
                // As in the real one: a headless Service is sent to pod by pod.
                None => Upstream::Endpoints(found.endpoints(self.objects)),
            },
            Some(found) => Upstream::Endpoints(found.endpoints(self.objects)),
        };
        model.upstreams.insert(name.clone(), upstream);
        name
    }

    fn add_certificate(&self, model: &mut Model, ingress: &Taken, tls: &Value, complaints: &mut BTreeSet<Complaint>) {
        let (namespace, name) = (ingress.namespace(), text(tls, "/secretName"));
        let file = format!("{namespace}-{name}.pem");
        if !name.is_empty() {
            let pem = self.objects.get(SECRETS, &namespace, name).and_then(|secret| {
                Some(
                    secrets::field(secret, "tls.crt")?
                        + "
" + &secrets::field(secret, "tls.key")?,
                )
            });
            match pem {
                Some(pem) => {
                    model.certificates.insert(file.clone(), pem);
                }
                None => {
                    let message = format!(
                        "Secret {namespace}/{name} with tls.crt and tls.key is not there; the default certificate is served"
                    );
                    complaints.insert(ingress.complain("MissingSecret", message));
                }
            }
        }
        for host in items(tls, "/hosts").filter_map(Value::as_str) {
            let there = model.certificates.contains_key(&file);
            let server = model.servers.entry(host.to_owned()).or_default();
            server.certificate.get_or_insert_with(|| if there { file.clone() } else { String::new() });
        }
    }
}

/// Hosts and paths of an Ingress' rules.
fn rules(spec: &Value) -> impl Iterator<Item = (&str, &Value)> {
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
