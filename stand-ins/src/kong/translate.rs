//! From objects to the model: which Ingress is taken, which path wins, where it leads.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::sync::Arc;

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

use super::model::{ANY, Match, Model, Route, RouteOptions, Server, ServiceOptions, Targets, Upstream};
use super::plugins::{GROUP, Plugins, TRANSLATION_FAILED};
use crate::names;
use crate::objects::{INGRESS_CLASSES, INGRESSES, Kind, Object, Objects, SECRETS, SERVICES, annotation, items, text};
use crate::secrets::{self, Fault};
use crate::services::{PortRef, service_port};
use crate::status::Complaint;

/// What an IngressClass of this controller says.
const CONTROLLER: &str = "ingress-controllers.konghq.com/kong";

/// What an IngressClass may name for all its Ingresses.
pub(crate) const PARAMETERS: Kind = Kind::new(GROUP, "v1alpha1", "IngressClassParameters", "ingressclassparameterses");

/// The Ingresses that count, oldest first: of two that want the same path the older one has it.
pub(crate) fn ingresses(objects: &Objects, class: &str) -> Vec<Object> {
    let ours = objects.all(INGRESSES).filter(|ingress| is_ours(objects, class, ingress));
    let mut taken: Vec<Object> = ours.map(Arc::clone).collect();
    taken.sort_by_key(|it| (it.metadata.creation_timestamp.clone(), it.namespace(), it.name_any()));
    taken
}

/// By the class's name; an object of that name may still say that it is another controller's.
fn is_ours(objects: &Objects, class: &str, ingress: &Object) -> bool {
    let object = objects.get(INGRESS_CLASSES, "", class);
    if object.is_some_and(|object| text(&object.data, "/spec/controller") != CONTROLLER) {
        return false;
    }
    let named = annotation(ingress, "kubernetes.io/ingress.class")
        .or_else(|| Some(text(&ingress.data, "/spec/ingressClassName")).filter(|name| !name.is_empty()));
    match named {
        Some(name) => name == class,
        None => object
            .is_some_and(|object| annotation(object, "ingressclass.kubernetes.io/is-default-class") == Some("true")),
    }
}

/// Whether every Service is as if it were annotated with `service-upstream`: by the parameters that the class names. What names none of this
/// kind in a namespace names none (`GetIngressClassParametersV1Alpha1` in `store.go`).
fn all_whole(objects: &Objects, class: &str) -> bool {
    let Some(class) = objects.get(INGRESS_CLASSES, "", class) else { return false };
    let named = |field: &str| text(&class.data, &format!("/spec/parameters/{field}"));
    let is_one = (named("apiGroup"), named("kind"), named("scope")) == (PARAMETERS.group, PARAMETERS.kind, "Namespace");
    let parameters = objects.get(PARAMETERS, named("namespace"), named("name")).filter(|_| is_one);
    parameters.is_some_and(|parameters| parameters.data["spec"]["serviceUpstream"] == true)
}

/// The model of the Ingresses of this class.
pub(crate) fn model(objects: &Objects, class: &str, taken: &[Object], complaints: &mut BTreeSet<Complaint>) -> Model {
    let mut model = Model::default();
    model.servers.insert(ANY.to_owned(), Server::default());
    let global = Plugins::global(objects, complaints);
    let mut translation = Translation { objects, all_whole: all_whole(objects, class), global, model, complaints };
    for ingress in taken {
        translation.rules(ingress);
    }
    // One route for everything that no other takes, of the oldest Ingress that has one.
    if let Some((ingress, backend)) =
        taken.iter().find_map(|ingress| Some((ingress, ingress.data["spec"].get("defaultBackend")?)))
        && let Some(route) = translation.route(ingress, backend)
    {
        translation.insert(ANY, Match::Prefix("/".to_owned()), route);
    }
    let mut model = translation.model;
    share_hostless(&mut model);
    model
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

struct Translation<'a> {
    objects: &'a Objects,
    all_whole: bool,
    global: Plugins,
    model: Model,
    complaints: &'a mut BTreeSet<Complaint>,
}

impl Translation<'_> {
    fn complain(&mut self, ingress: &Object, message: impl Into<String>) {
        self.complaints.insert(Complaint::new(INGRESSES, ingress, TRANSLATION_FAILED, message));
    }

    fn insert(&mut self, host: &str, found: Match, route: Route) {
        let server = self.model.servers.entry(host.to_owned()).or_default();
        server.routes.entry(found).or_insert(route);
    }

    fn rules(&mut self, ingress: &Object) {
        let spec = &ingress.data["spec"];
        for tls in items(spec, "/tls") {
            self.certificate(ingress, tls);
        }
        for rule in items(spec, "/rules") {
            let host = Some(text(rule, "/host")).filter(|host| !host.is_empty()).unwrap_or(ANY);
            if host != ANY && !names::is_host(host) {
                self.complain(ingress, format!("the host {host:?} is not a DNS name; it is left out"));
                continue;
            }
            for path in items(rule, "/http/paths") {
                let Some(route) = self.route(ingress, &path["backend"]) else { continue };
                for found in matches(path) {
                    self.insert(host, found, route.clone());
                }
            }
        }
    }

    fn route(&mut self, ingress: &Object, backend: &Value) -> Option<Route> {
        let namespace = ingress.namespace().unwrap_or_default();
        let name = text(backend, "/service/name");
        let Some(port) = PortRef::of_ingress(&backend["service"]["port"]).filter(|_| !name.is_empty()) else {
            self.complain(ingress, "failed to get backend for ingress path: expected a Service with a port");
            return None;
        };
        if !names::is_plain(name) || !names::is_plain(&port.to_string()) {
            self.complain(ingress, format!("{name:?} with port {:?} is no Service's name and port", port.to_string()));
            return None;
        }
        let service = self.objects.get(SERVICES, &namespace, name);
        let mut plugins = Plugins::of(self.objects, INGRESSES, ingress, self.complaints);
        if let Some(service) = service {
            plugins = plugins.or(&Plugins::of(self.objects, SERVICES, service, self.complaints));
        }
        let plugins = plugins.or(&self.global);
        if plugins.invalid {
            // The real one keeps the whole former configuration, or, with the feature gate FallbackConfiguration, leaves out what depends
            // on the broken object. This is the latter, which the installation asks for: the rest has to go on.
            self.complain(
                ingress,
                format!("the route to {namespace}/{name} is left out, as one of its plugins is invalid"),
            );
            return None;
        }
        let service = self.upstream(ingress, &namespace, name, &port);
        let transformer = plugins.transformer.map(|(key, transformer)| {
            self.model.transformers.insert(key.clone(), transformer);
            key
        });
        Some(Route {
            upstream: key(&namespace, name, &port),
            service,
            options: route_options(ingress),
            transformer,
            unplayable: plugins.unplayable,
        })
    }

    /// The `upstream` block for a Service's port: its pods, or with `service-upstream` the Service itself, and what else its annotations
    /// say (`getServiceEndpoints` in `translate_upstreams.go`).
    ///
    /// With `service-upstream` the target is the Service's name, which Kong looks up. Here it is what the cluster's DNS says of that name:
    /// its address, or where it has none those of its pods, at the Service's own port.
    fn upstream(&mut self, ingress: &Object, namespace: &str, name: &str, port: &PortRef) -> ServiceOptions {
        let service = self.objects.get(SERVICES, namespace, name);
        let found = service_port(self.objects, namespace, name, port);
        let whole = self.all_whole
            || service.is_some_and(|it| annotation(it, "ingress.kubernetes.io/service-upstream") == Some("true"));
        let mut target = None;
        let targets = match found {
            None if service.is_none() => {
                self.complain(ingress, format!("can't add target for backend {name}: no kubernetes service found"));
                Targets::Pods(Vec::new())
            }
            None => {
                self.complain(
                    ingress,
                    format!("can't find port for backend kubernetes service: {name} has no port {port}"),
                );
                Targets::Pods(Vec::new())
            }
            Some(found) if whole => {
                target = Some((format!("{name}.{namespace}.svc"), found.number));
                let of_pod = |pod: SocketAddrV4| SocketAddrV4::new(*pod.ip(), found.number);
                let pods = || found.endpoints(self.objects).into_iter().map(of_pod).collect();
                found.cluster_address().map_or_else(|| Targets::Pods(pods()), Targets::Service)
            }
            Some(found) => {
                let pods = found.endpoints(self.objects);
                // nginx chooses when it has made the request, so of several this is the first one's.
                target = pods.first().map(|pod| (pod.ip().to_string(), pod.port()));
                Targets::Pods(pods)
            }
        };
        let key = key(namespace, name, port);
        let options = service_options(service.map(|service| &**service), target, &key);
        self.model.upstreams.insert(key, Upstream { targets, attempts: options.attempts });
        options
    }

    fn certificate(&mut self, ingress: &Object, tls: &Value) {
        let (namespace, name) = (ingress.namespace().unwrap_or_default(), text(tls, "/secretName"));
        if name.is_empty() {
            return;
        }
        let file = format!("{namespace}-{name}.pem");
        let Some(secret) = self.objects.get(SECRETS, &namespace, name) else {
            let message =
                format!("failed to fetch the secret ({namespace}/{name}); its hosts show another certificate");
            self.complain(ingress, message);
            return;
        };
        let (chain, key) = match secrets::pair(secret) {
            Ok(pair) => pair,
            Err(fault) => {
                let why = match fault {
                    Fault::Lacks(field) => format!("it has no {field}"),
                    Fault::Unusable(why) => why,
                };
                self.complain(
                    ingress,
                    format!(
                        "failed to construct certificate from secret ({namespace}/{name}): not a valid TLS key pair: {why}; its hosts \
                         show another certificate"
                    ),
                );
                return;
            }
        };
        self.model.certificates.insert(file.clone(), chain + &key);
        for host in items(tls, "/hosts").filter_map(Value::as_str) {
            if !names::is_host(host) {
                self.complain(ingress, format!("the TLS host {host:?} is not a DNS name; it is left out"));
                continue;
            }
            let server = self.model.servers.entry(host.to_owned()).or_default();
            server.certificate.get_or_insert_with(|| file.clone());
        }
    }
}

fn konghq<'a>(object: &'a DynamicObject, name: &str) -> Option<&'a str> {
    annotation(object, &format!("konghq.com/{name}"))
}

fn route_options(ingress: &DynamicObject) -> RouteOptions {
    let flag = |name: &str, default: bool| konghq(ingress, name).and_then(|it| it.parse().ok()).unwrap_or(default);
    RouteOptions {
        strip_path: flag("strip-path", false),
        preserve_host: flag("preserve-host", true),
        request_buffering: flag("request-buffering", true),
        response_buffering: flag("response-buffering", true),
        protocols: protocols(ingress).unwrap_or_else(|| vec!["http", "https"]).into_iter().map(str::to_owned).collect(),
        https_status: konghq(ingress, "https-redirect-status-code")
            .and_then(|it| it.parse().ok())
            .filter(|code| [301, 302, 307, 308].contains(code))
            .unwrap_or(426),
    }
}

/// The protocols that an Ingress names. Where one of them is none, the annotation is as if it were not there, and nothing is said
/// (`overrideProtocols` of `kongstate/route.go`).
fn protocols(ingress: &DynamicObject) -> Option<Vec<&str>> {
    let said = konghq(ingress, "protocols").or_else(|| konghq(ingress, "protocol"))?;
    let named: Vec<&str> = said.split(',').map(str::trim).collect();
    let known = |protocol: &&str| ["http", "https", "grpc", "grpcs", "tcp", "tls"].contains(protocol);
    named.iter().all(known).then_some(named)
}

/// The name of a Service's port in Kong: of its Service and of its Upstream.
fn key(namespace: &str, name: &str, port: &PortRef) -> String {
    format!("{name}.{namespace}.{port}.svc")
}

/// `target` is the name and the port of where requests go, `key` what is sent as Host where they go nowhere.
fn service_options(service: Option<&DynamicObject>, target: Option<(String, u16)>, key: &str) -> ServiceOptions {
    let get = |name: &str| service.and_then(|service| konghq(service, name));
    let number = |name: &str, default: u32| get(name).and_then(|it| it.parse().ok()).unwrap_or(default);
    let protocol = get("protocol").unwrap_or("http").to_owned();
    let host = target.map(|(target, port)| {
        let name = get("host-header").unwrap_or(&target);
        // `set_host_header` in Kong's `balancer/init.lua`: another name's port is the target's, too.
        match (protocol.as_str(), port) {
            ("http" | "grpc", 80) | ("https" | "grpcs", 443) => name.to_owned(),
            _ => format!("{name}:{port}"),
        }
    });
    ServiceOptions {
        protocol,
        host: host.unwrap_or_else(|| key.to_owned()),
        timeouts: ["connect-timeout", "write-timeout", "read-timeout"].map(|name| number(name, 60_000)),
        attempts: number("retries", 5).saturating_add(1),
    }
}

/// The paths of a route. `Prefix` compares whole elements; `/~` begins a pattern in any type.
fn matches(path: &Value) -> Vec<Match> {
    let mut whole = text(path, "/path").to_owned();
    while whole.contains("//") {
        whole = whole.replace("//", "/");
    }
    if let Some(pattern) = whole.strip_prefix("/~") {
        return vec![Match::Regex(pattern.to_owned())];
    }
    let bare = whole.trim_matches('/');
    match text(path, "/pathType") {
        "Exact" => vec![Match::Exact(format!("/{}", whole.trim_start_matches('/')))],
        "Prefix" if !bare.is_empty() => vec![Match::Prefix(format!("/{bare}/")), Match::Exact(format!("/{bare}"))],
        "Prefix" => vec![Match::Prefix("/".to_owned())],
        _ if whole.is_empty() => vec![Match::Prefix("/".to_owned())],
        _ => vec![Match::Prefix(whole)],
    }
}
