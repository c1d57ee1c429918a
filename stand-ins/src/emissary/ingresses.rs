//! Ingresses as the Mappings and Hosts that they stand for (`fetch/ingress.py`).

use std::collections::BTreeSet;

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::Resource;
use crate::objects::{INGRESS_CLASSES, INGRESSES, Object, Objects, annotation, items, text};
use crate::services::{PortRef, service_port};

/// The label by which the Host of an Ingress with TLS finds its Mappings.
const OF_INGRESS: &str = "a10r-k8s-ingress";

/// Those of a class of ours, which have either the annotation or a class that names the controller.
pub(super) fn taken(objects: &Objects) -> Vec<&Object> {
    let ours = |class: &&Object| {
        text(&class.data, "/spec/controller").eq_ignore_ascii_case("getambassador.io/ingress-controller")
    };
    let classes: BTreeSet<String> = objects.all(INGRESS_CLASSES).filter(ours).map(|class| class.name_any()).collect();
    let is_ours = |ingress: &&Object| {
        let annotated = annotation(ingress, "kubernetes.io/ingress.class");
        annotated.is_some_and(|class| class.eq_ignore_ascii_case("ambassador"))
            || classes.contains(text(&ingress.data, "/spec/ingressClassName"))
    };
    objects.all(INGRESSES).filter(is_ours).collect()
}

/// The name by which Hosts and Mappings of an Ingress with TLS know each other.
fn id(ingress: &Object) -> Option<String> {
    let has_tls = items(&ingress.data, "/spec/tls").next().is_some();
    has_tls.then(|| format!("a10r-ingress-{}-{}", ingress.name_any(), ingress.namespace().unwrap_or_default()))
}

fn resource(ingress: &Object, suffix: &str, spec: Value) -> Resource {
    let name = format!("{}-{suffix}", ingress.name_any());
    Resource { name, spec, ..Resource::of(INGRESSES, ingress) }
}

/// A Host for each name behind TLS, which takes plain HTTP, too.
pub(super) fn hosts(ingresses: &[&Object]) -> Vec<Resource> {
    let of_ingress = |ingress: &&Object| {
        let mut hosts = Vec::new();
        for (count, tls) in items(&ingress.data, "/spec/tls").enumerate() {
            let Some(secret) = tls["secretName"].as_str() else { continue };
            let everything = [json!("*")];
            let names = tls["hosts"].as_array().map_or(everything.as_slice(), Vec::as_slice);
            hosts.extend(names.iter().enumerate().map(|(host_count, name)| {
                let spec = json!({
                    "hostname": name,
                    "tlsSecret": {"name": secret},
                    "mappingSelector": {"matchLabels": {OF_INGRESS: id(ingress)}},
                    "requestPolicy": {"insecure": {"action": "Route"}},
                });
                resource(ingress, &format!("{count}-{host_count}"), spec)
            }));
        }
        hosts
    };
    ingresses.iter().flat_map(of_ingress).collect()
}

/// A Mapping for each path, and one for the default backend.
pub(super) fn mappings(objects: &Objects, ingresses: &[&Object]) -> Vec<Resource> {
    let mut found = Vec::new();
    for ingress in ingresses {
        let id = id(ingress);
        let mut add = |suffix: &str, spec: Value| {
            let mut mapping = resource(ingress, suffix, spec);
            mapping.labels.extend(id.clone().map(|id| (OF_INGRESS.to_owned(), id)));
            found.push(mapping);
        };
        let spec = &ingress.data["spec"];
        if let Some(service) = service(objects, ingress, &spec["defaultBackend"]) {
            add("default-backend", json!({"hostname": "*", "prefix": "/", "service": service}));
        }
        for (count, rule) in items(spec, "/rules").enumerate() {
            for (path_count, path) in items(rule, "/http/paths").enumerate() {
                let Some(service) = service(objects, ingress, &path["backend"]) else { continue };
                let exact = path["pathType"] == "Exact";
                let mut mapping = json!({
                    "prefix": path["path"].as_str().unwrap_or("/"),
                    "prefix_exact": exact,
                    // Exact paths are tried before all others.
                    "precedence": u8::from(exact),
                    "service": service,
                });
                match rule["host"].as_str() {
                    Some(host) if host.starts_with("*.") => {
                        let rest = host[1..].replace('.', "\\.");
                        mapping["host"] = format!("^[a-z0-9]([-a-z0-9]*[a-z0-9])?{rest}$").into();
                        mapping["host_regex"] = true.into();
                    }
                    Some(host) => mapping["hostname"] = host.into(),
                    None if id.is_none() => mapping["hostname"] = "*".into(),
                    // The selector of its Host finds it.
                    None => {}
                }
                add(&format!("{count}-{path_count}"), mapping);
            }
        }
    }
    found
}

/// `service.namespace:port` of a backend; a port's name becomes its number where there is one.
fn service(objects: &Objects, ingress: &Object, backend: &Value) -> Option<String> {
    let (name, namespace) = (text(backend, "/service/name"), ingress.namespace().unwrap_or_default());
    let port = PortRef::of_ingress(&backend["service"]["port"])?;
    let port = service_port(objects, &namespace, name, &port)
        .map_or_else(|| port.to_string(), |found| found.number.to_string());
    (!name.is_empty()).then(|| format!("{name}.{namespace}:{port}"))
}
