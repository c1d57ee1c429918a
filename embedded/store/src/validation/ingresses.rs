//! Rules of Ingresses and their classes.

use serde_json::{Value, json};

use super::{addresses, names, one_of, port_number, reference};
use crate::invalid::FieldErrors;
use crate::json::{given, int_at, items, str_at};

/// Names the class of an Ingress, as before there was a field for it.
const CLASS: &str = "kubernetes.io/ingress.class";

/// Longest name of a controller, in bytes.
const MAX_CONTROLLER: usize = 250;

/// An Ingress.
pub(super) fn ingress(old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    let default = given(spec, "defaultBackend");
    if items(spec, "/rules").is_empty() && default.is_none() {
        errors.invalid("spec", &Value::Null, "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(backend) = default {
        self::backend("spec.defaultBackend", backend, errors);
    }
    for (index, rule) in items(spec, "/rules").iter().enumerate() {
        self::rule(&format!("spec.rules[{index}]"), rule, errors);
    }
    for (index, tls) in items(spec, "/tls").iter().enumerate() {
        self::tls(&format!("spec.tls[{index}]"), tls, errors);
    }
    let class = given(spec, "ingressClassName").and_then(Value::as_str);
    if let Some(class) = class {
        errors.each("spec.ingressClassName", &json!(class), names::dns_subdomain(class));
    }
    let annotations = object.pointer("/metadata/annotations");
    let annotated = annotations.and_then(|annotations| annotations.get(CLASS)).and_then(Value::as_str);
    if let (None, Some(class), Some(annotated)) = (old, class, annotated)
        && class != annotated
    {
        let problem = "must match `ingressClassName` when both are specified";
        errors.invalid(format!("annotations.{CLASS}"), &json!(annotated), problem);
    }
}

fn rule(path: &str, rule: &Value, errors: &mut FieldErrors) {
    let host = str_at(rule, "/host");
    if !host.is_empty() {
        let field = format!("{path}.host");
        if addresses::parse(host).is_some() {
            errors.invalid(field.as_str(), &json!(host), "must be a DNS name, not an IP address");
        }
        errors.each(field, &json!(host), names::host(host));
    }
    let Some(http) = given(rule, "http") else { return };
    if items(http, "/paths").is_empty() {
        errors.required(format!("{path}.http.paths"), "");
    }
    for (index, entry) in items(http, "/paths").iter().enumerate() {
        http_path(&format!("{path}.http.paths[{index}]"), entry, errors);
    }
}

fn http_path(path: &str, entry: &Value, errors: &mut FieldErrors) {
    const TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
    let Some(kind) = given(entry, "pathType") else {
        errors.required(format!("{path}.pathType"), "pathType must be specified");
        return;
    };
    let text = str_at(entry, "/path");
    let (field, value) = (format!("{path}.path"), json!(text));
    let is_portable = match kind.as_str().unwrap_or_default() {
        "Exact" | "Prefix" => true,
        "ImplementationSpecific" => false,
        _ => {
            errors.unsupported(format!("{path}.pathType"), kind, &TYPES);
            backend(&format!("{path}.backend"), &entry["backend"], errors);
            return;
        }
    };
    if !text.starts_with('/') && (is_portable || !text.is_empty()) {
        errors.invalid(field.as_str(), &value, "must be an absolute path");
    }
    if is_portable {
        for part in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|part| text.contains(**part)) {
            errors.invalid(field.as_str(), &value, &format!("must not contain '{part}'"));
        }
        for end in ["/..", "/."].iter().filter(|end| text.ends_with(**end)) {
            errors.invalid(field.as_str(), &value, &format!("cannot end with '{end}'"));
        }
    }
    backend(&format!("{path}.backend"), &entry["backend"], errors);
}

fn backend(path: &str, backend: &Value, errors: &mut FieldErrors) {
    match (given(backend, "service"), given(backend, "resource")) {
        (None, None) => errors.invalid(path, &json!(""), "resource or service backend is required"),
        (Some(_), Some(_)) => errors.invalid(path, &json!(""), "cannot set both resource and service backends"),
        (None, Some(resource)) => typed_reference(&format!("{path}.resource"), resource, errors),
        (Some(service), None) => self::service(path, service, errors),
    }
}

fn service(path: &str, service: &Value, errors: &mut FieldErrors) {
    reference(&format!("{path}.service"), service, "name", names::dns_label_1035, errors);
    let name = str_at(service, "/port/name");
    let number = int_at(service, "/port/number").filter(|number| *number != 0);
    match (name, number) {
        ("", None) => errors.required(path, "port name or number is required"),
        ("", number) => port_number(&format!("{path}.service.port.number"), number, errors),
        (name, None) => errors.each(format!("{path}.service.port.name"), &json!(name), names::port_name(name)),
        (_, Some(_)) => errors.invalid(path, &json!(""), "cannot set both port name & port number"),
    }
}

/// A reference to an object of any kind.
fn typed_reference(path: &str, object: &Value, errors: &mut FieldErrors) {
    if let Some(group) = given(object, "apiGroup") {
        errors.each(format!("{path}.apiGroup"), group, names::dns_subdomain(group.as_str().unwrap_or_default()));
    }
    for key in ["kind", "name"] {
        let (field, text) = (format!("{path}.{key}"), str_at(object, &format!("/{key}")));
        if text.is_empty() {
            errors.required(field, &format!("{key} is required"));
        } else {
            errors.each(field, &json!(text), names::path_segment(text));
        }
    }
}

fn tls(path: &str, tls: &Value, errors: &mut FieldErrors) {
    for (index, host) in items(tls, "/hosts").iter().enumerate() {
        errors.each(format!("{path}.hosts[{index}]"), host, names::host(host.as_str().unwrap_or_default()));
    }
    let secret = str_at(tls, "/secretName");
    if !secret.is_empty() {
        errors.each(format!("{path}.secretName"), &json!(secret), names::dns_subdomain(secret));
    }
}

/// An IngressClass.
pub(super) fn class(old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    if let Some(old) = old {
        errors.immutable("spec.controller", old.pointer("/spec/controller"), spec.get("controller"));
    }
    controller(str_at(spec, "/controller"), errors);
    let Some(parameters) = given(spec, "parameters") else { return };
    let path = "spec.parameters";
    typed_reference(path, parameters, errors);
    one_of(parameters, "scope", path, &["Cluster", "Namespace"], errors);
    let field = format!("{path}.namespace");
    // The scope is that of the cluster unless it is said.
    match (str_at(parameters, "/scope"), given(parameters, "namespace")) {
        ("Namespace", None) => errors.required(field, "`parameters.scope` is set to 'Namespace'"),
        ("Namespace", Some(namespace)) => {
            errors.each(field, namespace, names::dns_label(namespace.as_str().unwrap_or_default()));
        }
        ("Cluster" | "", Some(_)) => errors.forbidden(field, "`parameters.scope` is set to 'Cluster'"),
        _ => {}
    }
}

/// The name of a controller: a domain and a path.
fn controller(name: &str, errors: &mut FieldErrors) {
    let field = "spec.controller";
    if name.is_empty() {
        errors.required(field, "");
        return;
    }
    if name.len() > MAX_CONTROLLER {
        errors.too_long(field, MAX_CONTROLLER);
    }
    let (domain, path) = match name.split_once('/') {
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => (domain, path),
        _ => {
            errors.invalid(field, &json!(name), "must be a domain-prefixed path (such as \"acme.io/foo\")");
            return;
        }
    };
    errors.each(field, &json!(domain), names::dns_subdomain(domain));
    if !path.bytes().all(|c| c.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&c)) {
        let problem = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        errors.invalid(field, &json!(path), problem);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Good;
    use super::*;

    const GROUP: &str = "networking.k8s.io";

    #[test]
    fn rules_and_backends() {
        let service = json!({"service": {"name": "web", "port": {"number": 80}}});
        let bucket = json!({"resource": {"apiGroup": "e.io", "kind": "Bucket", "name": "b"}});
        let paths = json!([
            {"path": "/", "pathType": "Prefix", "backend": service},
            {"path": "/b", "pathType": "Exact", "backend": bucket},
        ]);
        let good = Good::new(
            GROUP,
            "ingresses",
            json!({
                "metadata": {"name": "web"},
                "spec": {
                    "ingressClassName": "nginx", "rules": [{"host": "web.example", "http": {"paths": paths}}],
                    "tls": [{"hosts": ["web.example", "*.web.example"], "secretName": "web"}],
                },
            }),
        );
        let named = |name: &str| json!({"service": {"name": "web", "port": {"name": name}}});
        let (first, backend) = ("/spec/rules/0/http/paths/0", "/spec/rules/0/http/paths/0/backend");
        let resource = "/spec/rules/0/http/paths/1/backend/resource";
        let in_first = |key: &str| format!("{first}/{key}");
        let in_resource = |key: &str| format!("{resource}/{key}");
        good.takes(&[
            (backend, named("nobodys")),
            (&in_first("pathType"), json!("ImplementationSpecific")),
            (&in_resource("apiGroup"), Value::Null),
            ("/spec/rules/0/host", json!("*.web.example")),
            ("/spec/rules/0/host", Value::Null),
            ("/spec/rules", json!([{"host": "web.example"}])),
            ("/spec/tls", json!([{}])),
            ("/metadata/annotations", json!({CLASS: "nginx"})),
        ]);
        let path = "spec.rules[0].http.paths[0]";
        let at = |field: &str| format!("{path}.{field}");
        let of_bucket = |field: &str| format!("spec.rules[0].http.paths[1].backend.resource.{field}");
        let required = "resource or service backend is required";
        good.refuses(&[
            ("/spec", json!({}), "spec", "either `defaultBackend` or `rules` must be specified"),
            ("/spec/defaultBackend", json!({}), "spec.defaultBackend", required),
            ("/spec/rules/0/host", json!("10.0.0.1"), "spec.rules[0].host", "must be a DNS name, not an IP address"),
            ("/spec/rules/0/host", json!("a.*.b"), "spec.rules[0].host", "a wildcard DNS-1123 subdomain"),
            ("/spec/rules/0/http", json!({}), "spec.rules[0].http.paths", "Required value"),
            (first, json!({}), &at("pathType"), "pathType must be specified"),
            (&in_first("pathType"), json!(""), &at("pathType"), "Unsupported value: \"\": supported values: \"Exact\""),
            (&in_first("path"), json!("web"), &at("path"), "must be an absolute path"),
            (&in_first("path"), json!("/a//b"), &at("path"), "must not contain '//'"),
            (&in_first("path"), json!("/a/.."), &at("path"), "cannot end with '/..'"),
            (backend, json!({}), &at("backend"), &format!("Invalid value: \"\": {required}")),
            (backend, json!({"service": {}}), &at("backend.service.name"), "Required value"),
            (backend, json!({"service": {"name": "web"}}), &at("backend"), "port name or number is required"),
            (backend, named("8080"), &at("backend.service.port.name"), "must contain at least one letter"),
            (backend, named("http://x"), &at("backend.service.port.name"), "only alpha-numeric characters"),
            (backend, named("a-far-too-long-name"), &at("backend.service.port.name"), "no more than 15 characters"),
            (
                backend,
                json!({"service": {"name": "web", "port": {"number": 70000}}}),
                &at("backend.service.port.number"),
                "must be between 1 and 65535, inclusive",
            ),
            (&in_resource("apiGroup"), json!("-1"), &of_bucket("apiGroup"), "a lowercase RFC 1123 subdomain"),
            (&in_resource("kind"), json!("http://x"), &of_bucket("kind"), "may not contain '/'"),
            (&in_resource("name"), Value::Null, &of_bucket("name"), "name is required"),
            ("/spec/ingressClassName", json!("a b"), "spec.ingressClassName", "a lowercase RFC 1123 subdomain"),
            ("/spec/tls/0/hosts/0", json!("//"), "spec.tls[0].hosts[0]", "a lowercase RFC 1123 subdomain"),
            ("/spec/tls/0/secretName", json!("A-B"), "spec.tls[0].secretName", "a lowercase RFC 1123 subdomain"),
            (
                "/metadata/annotations",
                json!({CLASS: "other"}),
                "annotations.kubernetes.io/ingress.class",
                "must match `ingressClassName` when both are specified",
            ),
        ]);
    }

    #[test]
    fn classes() {
        let parameters = json!({"apiGroup": "e.io", "kind": "Settings", "name": "s"});
        let class = json!({"metadata": {"name": "web"}, "spec": {"controller": "e.io/a", "parameters": parameters}});
        let good = Good::new(GROUP, "ingressclasses", class);
        let own = json!({"kind": "ConfigMap", "name": "s", "scope": "Namespace", "namespace": "a"});
        good.takes(&[("/spec/parameters", Value::Null), ("/spec/parameters", own)]);
        good.refuses(&[
            ("/spec/controller", Value::Null, "spec.controller", "Required value"),
            ("/spec/controller", json!("Always"), "spec.controller", "must be a domain-prefixed path"),
            ("/spec/controller", json!("e.io/a b"), "spec.controller", "Invalid path"),
            ("/spec/parameters/apiGroup", json!("*"), "spec.parameters.apiGroup", "RFC 1123 subdomain"),
            ("/spec/parameters/kind", Value::Null, "spec.parameters.kind", "kind is required"),
            ("/spec/parameters/name", json!("a/b"), "spec.parameters.name", "may not contain '/'"),
            ("/spec/parameters/scope", json!("Pod"), "spec.parameters.scope", "\"Cluster\", \"Namespace\""),
            ("/spec/parameters/scope", json!("Namespace"), "spec.parameters.namespace", "is set to 'Namespace'"),
            ("/spec/parameters/namespace", json!("a"), "spec.parameters.namespace", "is set to 'Cluster'"),
        ]);
    }
}
