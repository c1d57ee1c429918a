//! Rules of Services, EndpointSlices and Ingresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::names;
use super::pods::{one_of, port_number};
use crate::invalid::FieldErrors;
use crate::json::{int_at, items, str_at};

/// A Service.
pub(super) fn service(old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    one_of(spec, "type", "spec", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errors);
    one_of(spec, "sessionAffinity", "spec", &["ClientIP", "None"], errors);
    one_of(spec, "internalTrafficPolicy", "spec", &["Cluster", "Local"], errors);
    one_of(spec, "externalTrafficPolicy", "spec", &["Cluster", "Local"], errors);
    let kind = str_at(spec, "/type");
    let headless = str_at(spec, "/clusterIP") == "None";
    if kind == "ExternalName" && str_at(spec, "/externalName").is_empty() {
        errors.required("spec.externalName", "");
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        errors.invalid("spec.clusterIPs[0]", &json!("None"), "may not be set to 'None' for LoadBalancer services");
    }
    if items(spec, "/ports").is_empty() && !headless && kind != "ExternalName" {
        errors.required("spec.ports", "");
    }
    if kind == "ClusterIP"
        && !str_at(spec, "/externalTrafficPolicy").is_empty()
        && items(spec, "/externalIPs").is_empty()
    {
        let value = &spec["externalTrafficPolicy"];
        errors.invalid("spec.externalTrafficPolicy", value, "may only be set for externally-accessible services");
    }
    service_ports(spec, errors);
    if let Some(selector) = spec.get("selector").and_then(Value::as_object) {
        names::labels("spec.selector", selector, errors);
    }
    if let Some(old) = old
        && str_at(old, "/spec/clusterIP") == "None"
        && !headless
        && kind != "ExternalName"
    {
        errors.invalid("spec.clusterIPs[0]", &spec["clusterIP"], "may not change once set");
    }
}

fn service_ports(spec: &Value, errors: &mut FieldErrors) {
    let ports = items(spec, "/ports");
    let (mut seen, mut seen_names) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        let name = str_at(port, "/name");
        if name.is_empty() && ports.len() > 1 {
            errors.required(format!("{path}.name"), "");
        } else if !name.is_empty() {
            if let Some(problem) = names::dns_label(name) {
                errors.invalid(format!("{path}.name"), &json!(name), &problem);
            }
            if !seen_names.insert(name) {
                errors.duplicate(format!("{path}.name"), &json!(name));
            }
        }
        let number = int_at(port, "/port");
        if number.is_none_or(|number| !(1..=65535).contains(&number)) {
            errors.invalid(
                format!("{path}.port"),
                &json!(number.unwrap_or(0)),
                "must be between 1 and 65535, inclusive",
            );
        }
        one_of(port, "protocol", &path, &["SCTP", "TCP", "UDP"], errors);
        target_port(&format!("{path}.targetPort"), &port["targetPort"], errors);
        if !seen.insert((number, str_at(port, "/protocol"))) {
            errors.duplicate(path, &json!({"port": number, "protocol": str_at(port, "/protocol")}));
        }
    }
}

fn target_port(field: &str, target: &Value, errors: &mut FieldErrors) {
    match target {
        Value::Number(_) => port_number(field, target.as_i64(), errors),
        Value::String(name) => {
            let good = name.len() <= 15
                && names::dns_label(name).is_none()
                && name.chars().any(|c| c.is_ascii_lowercase())
                && !name.contains("--");
            if !good {
                errors.invalid(field, target, "must be an IANA service name: at most 15 lower case alphanumeric characters or '-', with at least one letter");
            }
        }
        _ => {}
    }
}

/// An EndpointSlice.
pub(super) fn endpoint_slice(old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    let family = str_at(object, "/addressType");
    if family.is_empty() {
        errors.required("addressType", "");
    }
    one_of(object, "addressType", "", &["FQDN", "IPv4", "IPv6"], errors);
    for (index, endpoint) in items(object, "/endpoints").iter().enumerate() {
        let field = format!("endpoints[{index}].addresses");
        if items(endpoint, "/addresses").is_empty() {
            errors.required(&field, "must contain at least 1 address");
        }
        for (at, address) in items(endpoint, "/addresses").iter().enumerate() {
            let text = address.as_str().unwrap_or_default();
            let good = match (family, text.parse::<IpAddr>()) {
                ("IPv4", Ok(address)) => address.is_ipv4(),
                ("IPv6", Ok(address)) => address.is_ipv6(),
                ("IPv4" | "IPv6", Err(_)) => false,
                _ => true,
            };
            if !good {
                errors.invalid(format!("{field}[{at}]"), address, &format!("must be a valid {family} address"));
            }
        }
    }
    let mut seen = BTreeSet::new();
    for (index, port) in items(object, "/ports").iter().enumerate() {
        let name = str_at(port, "/name");
        if !seen.insert(name) {
            errors.duplicate(format!("ports[{index}].name"), &json!(name));
        }
    }
    if let Some(old) = old {
        errors.immutable("addressType", old.get("addressType"), object.get("addressType"));
    }
}

/// An Ingress.
pub(super) fn ingress(object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    let default = spec.get("defaultBackend").filter(|backend| !backend.is_null());
    if items(spec, "/rules").is_empty() && default.is_none() {
        errors.invalid("spec", &Value::Null, "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(backend) = default {
        ingress_backend("spec.defaultBackend", backend, errors);
    }
    for (index, rule) in items(spec, "/rules").iter().enumerate() {
        let path = format!("spec.rules[{index}]");
        host(&format!("{path}.host"), str_at(rule, "/host"), errors);
        let Some(http) = rule.get("http").filter(|http| !http.is_null()) else { continue };
        if items(http, "/paths").is_empty() {
            errors.required(format!("{path}.http.paths"), "");
        }
        for (index, entry) in items(http, "/paths").iter().enumerate() {
            let path = format!("{path}.http.paths[{index}]");
            ingress_path(&path, entry, errors);
            ingress_backend(&format!("{path}.backend"), &entry["backend"], errors);
        }
    }
}

fn host(field: &str, host: &str, errors: &mut FieldErrors) {
    if host.is_empty() {
        return;
    }
    if host.parse::<IpAddr>().is_ok() {
        errors.invalid(field, &json!(host), "must be a DNS name, not an IP address");
    } else if let Some(problem) = names::dns_subdomain(host.strip_prefix("*.").unwrap_or(host)) {
        errors.invalid(field, &json!(host), &problem);
    }
}

fn ingress_path(path: &str, entry: &Value, errors: &mut FieldErrors) {
    const TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
    let text = str_at(entry, "/path");
    let kind = str_at(entry, "/pathType");
    if kind.is_empty() {
        errors.required(format!("{path}.pathType"), "pathType must be specified");
        return;
    }
    if !TYPES.contains(&kind) {
        errors.unsupported(format!("{path}.pathType"), &json!(kind), &TYPES);
        return;
    }
    let must_be_absolute = kind != "ImplementationSpecific" || !text.is_empty();
    if must_be_absolute && !text.starts_with('/') {
        errors.invalid(format!("{path}.path"), &json!(text), "must be an absolute path");
    }
    let forbidden = ["//", "/./", "/../", "%2f", "%2F"].iter().find(|part| text.contains(**part));
    if let Some(part) = forbidden.filter(|_| kind != "ImplementationSpecific") {
        errors.invalid(format!("{path}.path"), &json!(text), &format!("must not contain '{part}'"));
    }
}

fn ingress_backend(path: &str, backend: &Value, errors: &mut FieldErrors) {
    let service = backend.get("service").filter(|service| !service.is_null());
    let resource = backend.get("resource").filter(|resource| !resource.is_null());
    match (service, resource) {
        (None, None) => errors.required(path, "resource or service backend is required"),
        (Some(_), Some(_)) => errors.invalid(path, &Value::Null, "cannot set both resource and service backends"),
        (None, Some(_)) => {}
        (Some(service), None) => {
            let name = str_at(service, "/name");
            if name.is_empty() {
                errors.required(format!("{path}.service.name"), "");
            } else if let Some(problem) = names::dns_label_1035(name) {
                errors.invalid(format!("{path}.service.name"), &json!(name), &problem);
            }
            let has_name = !str_at(service, "/port/name").is_empty();
            let number = int_at(service, "/port/number").filter(|number| *number != 0);
            match (has_name, number) {
                (true, Some(_)) => errors.invalid(path, &Value::Null, "cannot set both port name & port number"),
                (false, None) => errors.required(path, "port name or number is required"),
                (_, Some(number)) => port_number(&format!("{path}.service.port.number"), Some(number), errors),
                (true, None) => {}
            }
        }
    }
}

/// An IngressClass.
pub(super) fn ingress_class(old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    let Some(old) = old else {
        if str_at(object, "/spec/controller").is_empty() {
            errors.required("spec.controller", "");
        }
        return;
    };
    errors.immutable("spec.controller", old.pointer("/spec/controller"), object.pointer("/spec/controller"));
}
