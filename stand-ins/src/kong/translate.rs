//! From objects to Kong's declarative configuration: which Ingress is taken, and which services, routes and upstreams it leads to, under
//! the names that KIC gives them (`internal/dataplane/translator/subtranslator/ingress.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::plugins::{self, GROUP, TRANSLATION_FAILED};
use super::tags;
use crate::names;
use crate::objects::{INGRESS_CLASSES, INGRESSES, Kind, Object, Objects, SECRETS, SERVICES, annotation, items, text};
use crate::secrets::{self, Fault};
use crate::services::{PortRef, service_port};
use crate::status::Complaint;

/// What an IngressClass of this controller says.
const CONTROLLER: &str = "ingress-controllers.konghq.com/kong";

/// What an IngressClass may name for all its Ingresses.
pub(super) const PARAMETERS: Kind = Kind::new(GROUP, "v1alpha1", "IngressClassParameters", "ingressclassparameterses");

/// The Ingresses that count, oldest first: of two that want the same path the older one has it.
pub(super) fn ingresses(objects: &Objects, class: &str) -> Vec<Object> {
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

/// The configuration for the Ingresses of this class. Services and their routes are in the order of the Ingresses: of two routes that take
/// the same requests the gateway prefers the first.
pub(super) fn declarative(
    objects: &Objects,
    class: &str,
    taken: &[Object],
    complaints: &mut BTreeSet<Complaint>,
) -> Value {
    let all_whole = all_whole(objects, class);
    let mut translation = Translation {
        objects,
        all_whole,
        services: Vec::new(),
        upstreams: Vec::new(),
        plugins: plugins::global(objects).collect(),
        certificates: BTreeMap::new(),
        certified: BTreeSet::new(),
        complaints,
    };
    for ingress in taken {
        translation.rules(ingress);
    }
    // One route for everything that no other takes, of the oldest Ingress that has one.
    if let Some((ingress, backend)) =
        taken.iter().find_map(|ingress| Some((ingress, ingress.data["spec"].get("defaultBackend")?)))
    {
        translation.route(ingress, backend, None, &["/".to_owned()]);
    }
    let Translation { services, upstreams, plugins, certificates, .. } = translation;
    let services: Vec<Value> = services.into_iter().map(Service::entity).collect();
    json!({
        "_format_version": "3.0",
        "services": services,
        "upstreams": upstreams,
        "plugins": plugins,
        "certificates": certificates.into_values().collect::<Vec<Value>>(),
    })
}

struct Translation<'a> {
    objects: &'a Objects,
    all_whole: bool,
    services: Vec<Service>,
    upstreams: Vec<Value>,
    plugins: Vec<Value>,
    /// By the namespace and name of the Secret.
    certificates: BTreeMap<(String, String), Value>,
    /// The hosts that have one.
    certified: BTreeSet<String>,
    complaints: &'a mut BTreeSet<Complaint>,
}

/// One of Kong's: a Service's port.
struct Service {
    name: String,
    entity: Value,
    /// By name, but in order.
    routes: Vec<(String, Value)>,
}

impl Service {
    fn entity(self) -> Value {
        let mut entity = self.entity;
        entity["routes"] = self.routes.into_iter().map(|(_, route)| route).collect();
        entity
    }
}

impl Translation<'_> {
    fn complain(&mut self, ingress: &Object, message: impl Into<String>) {
        self.complaints.insert(Complaint::new(INGRESSES, ingress, TRANSLATION_FAILED, message));
    }

    fn rules(&mut self, ingress: &Object) {
        let spec = &ingress.data["spec"];
        for tls in items(spec, "/tls") {
            self.certificate(ingress, tls);
        }
        for rule in items(spec, "/rules") {
            let host = text(rule, "/host");
            if !host.is_empty() && !names::is_host(host) {
                self.complain(ingress, format!("the host {host:?} is not a DNS name; it is left out"));
                continue;
            }
            for path in items(rule, "/http/paths") {
                self.route(ingress, &path["backend"], Some(host), &paths(path));
            }
        }
    }

    /// Adds paths to the route of an Ingress, a host (`""` is every one), a Service and its port; without a host to that of its default
    /// backend.
    fn route(&mut self, ingress: &Object, backend: &Value, host: Option<&str>, paths: &[String]) {
        let service = text(backend, "/service/name");
        let Some(port) = PortRef::of_ingress(&backend["service"]["port"]).filter(|_| !service.is_empty()) else {
            self.complain(ingress, "failed to get backend for ingress path: expected a Service with a port");
            return;
        };
        if !names::is_plain(service) || !names::is_plain(&port.to_string()) {
            self.complain(
                ingress,
                format!("{service:?} with port {:?} is no Service's name and port", port.to_string()),
            );
            return;
        }
        let (namespace, name) = (ingress.namespace().unwrap_or_default(), ingress.name_any());
        let name = match host {
            Some(host) => format!("{namespace}.{name}.{service}.{}.{port}", host.replace('*', "_")),
            None => format!("{namespace}.{name}"),
        };
        let index = self.service(ingress, service, &port);
        let routes = &mut self.services[index].routes;
        if let Some((_, route)) = routes.iter_mut().find(|(known, _)| *known == name) {
            if let Some(known) = route["paths"].as_array_mut() {
                known.extend(paths.iter().map(|path| json!(path)));
            }
            return;
        }
        let mut route = route_options(ingress);
        route["name"] = json!(name);
        route["paths"] = json!(paths);
        route["tags"] = json!(tags(INGRESSES, ingress));
        if let Some(host) = host.filter(|host| !host.is_empty()) {
            route["hosts"] = json!([host]);
        }
        let plugins = plugins::named(self.objects, (INGRESSES, ingress), ("route", &name), self.complaints);
        self.plugins.extend(plugins);
        routes.push((name, route));
    }

    /// The service for a Service's port, and its upstream: the pods, or with `service-upstream` the Service itself
    /// (`getServiceEndpoints` in `translate_upstreams.go`).
    fn service(&mut self, ingress: &Object, service: &str, port: &PortRef) -> usize {
        let namespace = ingress.namespace().unwrap_or_default();
        let object = self.objects.get(SERVICES, &namespace, service);
        let found = service_port(self.objects, &namespace, service, port);
        if object.is_none() {
            self.complain(ingress, format!("can't add target for backend {service}: no kubernetes service found"));
        } else if found.is_none() {
            let message = format!("can't find port for backend kubernetes service: {service} has no port {port}");
            self.complain(ingress, message);
        }
        let name = format!("{namespace}.{service}.{port}");
        if let Some(index) = self.services.iter().position(|known| known.name == name) {
            return index;
        }
        let whole = self.all_whole
            || object.is_some_and(|it| annotation(it, "ingress.kubernetes.io/service-upstream") == Some("true"));
        let targets: Vec<String> = match found {
            None => Vec::new(),
            Some(found) if whole => vec![format!("{service}.{namespace}.svc:{}", found.number)],
            Some(found) => found.endpoints(self.objects).iter().map(ToString::to_string).collect(),
        };
        let host = format!("{service}.{namespace}.{port}.svc");
        let tags = object.map(|object| tags(SERVICES, object)).unwrap_or_default();
        let mut upstream = json!({
            "name": host,
            "algorithm": "round-robin",
            "targets": targets.iter().map(|target| json!({"target": target})).collect::<Vec<Value>>(),
            "tags": tags,
        });
        if let Some(header) = object.and_then(|object| konghq(object, "host-header")) {
            upstream["host_header"] = json!(header);
        }
        self.upstreams.push(upstream);
        if let Some(object) = object {
            let plugins = plugins::named(self.objects, (SERVICES, object), ("service", &name), self.complaints);
            self.plugins.extend(plugins);
        }
        let mut entity = service_options(object.map(|object| &**object));
        entity["name"] = json!(name);
        entity["host"] = json!(host);
        entity["port"] = json!(found.map_or(80, |found| found.number));
        entity["path"] = json!("/");
        entity["tags"] = json!(tags);
        self.services.push(Service { name, entity, routes: Vec::new() });
        self.services.len() - 1
    }

    fn certificate(&mut self, ingress: &Object, tls: &Value) {
        let (namespace, name) = (ingress.namespace().unwrap_or_default(), text(tls, "/secretName"));
        if name.is_empty() {
            return;
        }
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
        let id = secret.uid();
        let mut snis = Vec::new();
        for host in items(tls, "/hosts").filter_map(Value::as_str) {
            if !names::is_host(host) {
                self.complain(ingress, format!("the TLS host {host:?} is not a DNS name; it is left out"));
            } else if self.certified.insert(host.to_owned()) {
                // Kong 3.9 takes no nested name without the way back.
                snis.push(json!({"name": host, "certificate": {"id": id}}));
            }
        }
        let certificate = self
            .certificates
            .entry((namespace, name.to_owned()))
            .or_insert_with(|| json!({"id": id, "cert": chain, "key": key, "tags": tags(SECRETS, secret), "snis": []}));
        if let Some(known) = certificate["snis"].as_array_mut() {
            known.append(&mut snis);
        }
    }
}

fn konghq<'a>(object: &'a DynamicObject, name: &str) -> Option<&'a str> {
    annotation(object, &format!("konghq.com/{name}"))
}

fn route_options(ingress: &DynamicObject) -> Value {
    let flag = |name: &str, default: bool| konghq(ingress, name).and_then(|it| it.parse().ok()).unwrap_or(default);
    let code = konghq(ingress, "https-redirect-status-code").and_then(|it| it.parse::<u16>().ok());
    json!({
        "strip_path": flag("strip-path", false),
        "preserve_host": flag("preserve-host", true),
        "request_buffering": flag("request-buffering", true),
        "response_buffering": flag("response-buffering", true),
        "protocols": protocols(ingress).unwrap_or_else(|| vec!["http", "https"]),
        "https_redirect_status_code": code.filter(|code| [301, 302, 307, 308].contains(code)).unwrap_or(426),
        "path_handling": "v0",
    })
}

/// The protocols that an Ingress names. Where one of them is none, the annotation is as if it were not there, and nothing is said
/// (`overrideProtocols` of `kongstate/route.go`).
fn protocols(ingress: &DynamicObject) -> Option<Vec<&str>> {
    let said = konghq(ingress, "protocols").or_else(|| konghq(ingress, "protocol"))?;
    let named: Vec<&str> = said.split(',').map(str::trim).collect();
    named.iter().all(|protocol| PROTOCOLS.contains(protocol)).then_some(named)
}

/// The protocols that KIC knows (`ValidateProtocol` of `util/validate.go`).
const PROTOCOLS: &[&str] = &["http", "https", "grpc", "grpcs", "tcp", "tls"];

fn service_options(service: Option<&DynamicObject>) -> Value {
    let get = |name: &str| service.and_then(|service| konghq(service, name));
    let number = |name: &str, default: u32| get(name).and_then(|it| it.parse().ok()).unwrap_or(default);
    json!({
        "protocol": get("protocol").filter(|protocol| PROTOCOLS.contains(protocol)).unwrap_or("http"),
        "connect_timeout": number("connect-timeout", 60_000),
        "write_timeout": number("write-timeout", 60_000),
        "read_timeout": number("read-timeout", 60_000),
        "retries": number("retries", 5),
    })
}

/// The paths of a route: beginnings, or patterns with `~` before them. `Prefix` compares whole elements; `/~` begins a pattern in any type.
fn paths(path: &Value) -> Vec<String> {
    let mut whole = text(path, "/path").to_owned();
    while whole.contains("//") {
        whole = whole.replace("//", "/");
    }
    if let Some(pattern) = whole.strip_prefix("/~") {
        return vec![format!("~{pattern}")];
    }
    let bare = whole.trim_matches('/');
    match text(path, "/pathType") {
        "Exact" => vec![format!("~/{}$", whole.trim_start_matches('/'))],
        "Prefix" if !bare.is_empty() => vec![format!("/{bare}/"), format!("~/{bare}$")],
        "Prefix" => vec!["/".to_owned()],
        _ if whole.is_empty() => vec!["/".to_owned()],
        _ => vec![whole],
    }
}
