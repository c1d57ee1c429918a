//! Rules of EndpointSlices and Endpoints.
//!
//! Kubernetes takes no loopback addresses. Here they are taken, because the API server is at one itself.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::{addresses, names, one_of, port_number};
use crate::invalid::FieldErrors;
use crate::json::{given, int_at, items, str_at};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// Of a slice: endpoints, addresses of one of them, ports, and what else is told of the place of one.
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_TOPOLOGY: usize = 16;

/// An EndpointSlice.
pub(super) fn slice(old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    let family = str_at(object, "/addressType");
    if family.is_empty() {
        errors.required("addressType", "");
    } else {
        one_of(object, "addressType", "", &["FQDN", "IPv4", "IPv6"], errors);
    }
    let all = items(object, "/endpoints");
    if all.len() > MAX_ENDPOINTS {
        errors.too_many("endpoints", all.len(), MAX_ENDPOINTS);
    } else {
        for (index, endpoint) in all.iter().enumerate() {
            self::endpoint(&format!("endpoints[{index}]"), family, endpoint, errors);
        }
    }
    slice_ports(items(object, "/ports"), errors);
    if let Some(old) = old {
        errors.immutable("addressType", old.get("addressType"), object.get("addressType"));
    }
}

fn endpoint(path: &str, family: &str, endpoint: &Value, errors: &mut FieldErrors) {
    let field = format!("{path}.addresses");
    let addresses = items(endpoint, "/addresses");
    if addresses.is_empty() {
        errors.required(field.as_str(), "must contain at least 1 address");
    } else if addresses.len() > MAX_ADDRESSES {
        errors.too_many(field.as_str(), addresses.len(), MAX_ADDRESSES);
    }
    for (index, address) in addresses.iter().enumerate() {
        slice_address(&format!("{field}[{index}]"), family, address.as_str().unwrap_or_default(), errors);
    }
    if let Some(node) = given(endpoint, "nodeName") {
        errors.each(format!("{path}.nodeName"), node, names::dns_subdomain(node.as_str().unwrap_or_default()));
    }
    if let Some(labels) = endpoint.get("deprecatedTopology").and_then(Value::as_object) {
        let field = format!("{path}.deprecatedTopology");
        if labels.len() > MAX_TOPOLOGY {
            errors.too_many(field.as_str(), labels.len(), MAX_TOPOLOGY);
        }
        names::labels(&field, labels, errors);
    }
    hostname(path, endpoint, errors);
}

fn hostname(path: &str, endpoint: &Value, errors: &mut FieldErrors) {
    if let Some(name) = given(endpoint, "hostname") {
        errors.each(format!("{path}.hostname"), name, names::dns_label(name.as_str().unwrap_or_default()));
    }
}

fn slice_address(field: &str, family: &str, text: &str, errors: &mut FieldErrors) {
    let address = addresses::parse(text);
    let is_of_family = match family {
        "IPv4" => address.is_some_and(|address| address.is_ipv4()),
        "IPv6" => address.is_some_and(|address| address.is_ipv6()),
        "FQDN" => return whole_name(field, text, errors),
        _ => return,
    };
    match address.filter(|_| is_of_family) {
        Some(address) => reachable(field, text, address, errors),
        None => errors.invalid(field, &json!(text), &format!("must be a valid {family} address")),
    }
}

/// A name in DNS of at least two labels, which may end in the dot that makes it a whole one.
fn whole_name(field: &str, text: &str, errors: &mut FieldErrors) {
    let name = text.strip_suffix('.').unwrap_or(text);
    let problems = names::dns_subdomain(name);
    if text.is_empty() {
        errors.required(field, "");
    } else if !problems.is_empty() {
        errors.invalid(field, &json!(name), &problems.join(","));
    } else if !name.contains('.') {
        let problem = "should be a domain with at least two segments separated by dots";
        errors.invalid(field, &json!(name), problem);
    }
}

fn reachable(field: &str, text: &str, address: IpAddr, errors: &mut FieldErrors) {
    if !address.is_loopback() {
        addresses::not_special(field, text, address, errors);
    }
}

fn slice_ports(ports: &[Value], errors: &mut FieldErrors) {
    if ports.len() > MAX_PORTS {
        errors.too_many("ports", ports.len(), MAX_PORTS);
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("ports[{index}]");
        let name = str_at(port, "/name");
        if !name.is_empty() {
            errors.each(format!("{path}.name"), &json!(name), names::dns_label(name));
        }
        if !seen.insert(name) {
            errors.duplicate(format!("{path}.name"), &json!(name));
        }
        one_of(port, "protocol", &path, &PROTOCOLS, errors);
        app_protocol(&path, port, errors);
    }
}

fn app_protocol(path: &str, port: &Value, errors: &mut FieldErrors) {
    if let Some(protocol) = given(port, "appProtocol") {
        let problems = names::qualified_name(protocol.as_str().unwrap_or_default());
        errors.each(format!("{path}.appProtocol"), protocol, problems);
    }
}

/// Endpoints.
pub(super) fn endpoints(object: &Value, errors: &mut FieldErrors) {
    for (index, subset) in items(object, "/subsets").iter().enumerate() {
        let path = format!("subsets[{index}]");
        let lists = ["addresses", "notReadyAddresses"].map(|list| (list, items(subset, &format!("/{list}"))));
        if lists.iter().all(|(_, addresses)| addresses.is_empty()) {
            errors.required(path.as_str(), "must specify `addresses` or `notReadyAddresses`");
        }
        for (list, addresses) in lists {
            for (index, address) in addresses.iter().enumerate() {
                subset_address(&format!("{path}.{list}[{index}]"), address, errors);
            }
        }
        let ports = items(subset, "/ports");
        for (index, port) in ports.iter().enumerate() {
            subset_port(&format!("{path}.ports[{index}]"), port, ports.len() > 1, errors);
        }
    }
}

fn subset_address(path: &str, entry: &Value, errors: &mut FieldErrors) {
    let (field, text) = (format!("{path}.ip"), str_at(entry, "/ip"));
    let address = addresses::address(&field, text, errors);
    if !str_at(entry, "/hostname").is_empty() {
        hostname(path, entry, errors);
    }
    if let Some(node) = given(entry, "nodeName") {
        errors.each(format!("{path}.nodeName"), node, names::dns_subdomain(node.as_str().unwrap_or_default()));
    }
    match address {
        Some(address) => reachable(&field, text, address, errors),
        // It is said twice, once by either rule.
        None => errors.invalid(field, &json!(text), "must be a valid IP address"),
    }
}

fn subset_port(path: &str, port: &Value, needs_name: bool, errors: &mut FieldErrors) {
    let name = str_at(port, "/name");
    if !name.is_empty() {
        errors.each(format!("{path}.name"), &json!(name), names::dns_label(name));
    } else if needs_name {
        errors.required(format!("{path}.name"), "");
    }
    port_number(&format!("{path}.port"), int_at(port, "/port"), errors);
    one_of(port, "protocol", path, &PROTOCOLS, errors);
    app_protocol(path, port, errors);
}

#[cfg(test)]
mod tests {
    use super::super::tests::Good;
    use super::*;

    #[test]
    fn slices() {
        let good = Good::new(
            "discovery.k8s.io",
            "endpointslices",
            json!({
                "metadata": {"name": "web-1"}, "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.244.0.7"], "hostname": "web-0", "nodeName": "n1.example"}],
                "ports": [{"name": "http", "port": 8080, "appProtocol": "kubernetes.io/h2c"}, {"port": 81}],
            }),
        );
        good.takes(&[
            ("/endpoints", json!([])),
            ("/ports", Value::Null),
            ("/ports/0/port", Value::Null),
            ("/endpoints/0/addresses/0", json!("127.0.0.1")),
        ]);
        let many = json!(vec![json!({"addresses": ["10.0.0.1"]}); 1001]);
        good.refuses(&[
            ("/addressType", Value::Null, "addressType", "Required value"),
            ("/addressType", json!("IP"), "addressType", "supported values: \"FQDN\", \"IPv4\", \"IPv6\""),
            ("/endpoints", many, "endpoints", "Too many: 1001: must have at most 1000 items"),
            ("/endpoints/0/addresses", json!([]), "endpoints[0].addresses", "must contain at least 1 address"),
            ("/endpoints/0/addresses/0", json!("::1"), "endpoints[0].addresses[0]", "must be a valid IPv4 address"),
            ("/endpoints/0/addresses/0", json!("0.0.0.0"), "endpoints[0].addresses[0]", "may not be unspecified"),
            ("/endpoints/0/hostname", json!("-a"), "endpoints[0].hostname", "a lowercase RFC 1123 label"),
            ("/endpoints/0/nodeName", json!("TCP"), "endpoints[0].nodeName", "a lowercase RFC 1123 subdomain"),
            ("/ports/0/name", json!("50%"), "ports[0].name", "a lowercase RFC 1123 label"),
            ("/ports/0/name", json!(""), "ports[1].name", "Duplicate value: \"\""),
            ("/ports/0/protocol", json!("tcp"), "ports[0].protocol", "\"SCTP\", \"TCP\", \"UDP\""),
            ("/ports/0/appProtocol", json!("50%"), "ports[0].appProtocol", "name part must consist of"),
        ]);
        let names = Good::new(
            "discovery.k8s.io",
            "endpointslices",
            json!({"metadata": {"name": "a"}, "addressType": "FQDN", "endpoints": [{"addresses": ["web.example."]}]}),
        );
        names.takes(&[]);
        names.refuses(&[
            ("/endpoints/0/addresses/0", json!("web"), "endpoints[0].addresses[0]", "at least two segments"),
            ("/endpoints/0/addresses/0", json!("-.x"), "endpoints[0].addresses[0]", "RFC 1123 subdomain"),
        ]);
    }

    #[test]
    fn subsets() {
        let good = Good::new(
            "",
            "endpoints",
            json!({"metadata": {"name": "web"}, "subsets": [{
                "addresses": [{"ip": "10.244.0.7", "hostname": "web-0", "nodeName": "n1"}],
                "notReadyAddresses": [{"ip": "10.244.0.8"}],
                "ports": [{"name": "http", "port": 80}, {"name": "more", "port": 81}],
            }]}),
        );
        good.takes(&[
            ("/subsets", Value::Null),
            ("/subsets/0/addresses", Value::Null),
            ("/subsets/0/ports", json!([{"port": 80}])),
            ("/subsets/0/addresses/0/ip", json!("127.0.0.1")),
        ]);
        let (first, port) = ("subsets[0].addresses[0]", "subsets[0].ports[0]");
        let of = |path: &str, key: &str| format!("{path}.{key}");
        good.refuses(&[
            ("/subsets/0", json!({}), "subsets[0]", "must specify `addresses` or `notReadyAddresses`"),
            ("/subsets/0/addresses/0/ip", json!("1.5"), of(first, "ip").as_str(), "(e.g. 10.9.8.7 or"),
            ("/subsets/0/notReadyAddresses/0/ip", json!(""), "subsets[0].notReadyAddresses[0].ip", "a valid IP"),
            ("/subsets/0/addresses/0/ip", json!("169.254.1.1"), of(first, "ip").as_str(), "link-local range"),
            ("/subsets/0/addresses/0/hostname", json!("http://x"), of(first, "hostname").as_str(), "1123 label"),
            ("/subsets/0/addresses/0/nodeName", json!("TCP"), of(first, "nodeName").as_str(), "1123 subdomain"),
            ("/subsets/0/ports/0/name", Value::Null, of(port, "name").as_str(), "Required value"),
            ("/subsets/0/ports/0/name", json!("999.1.1.1"), of(port, "name").as_str(), "must not contain dots"),
            ("/subsets/0/ports/0/port", Value::Null, of(port, "port").as_str(), "Invalid value: 0: must be between"),
            ("/subsets/0/ports/0/protocol", json!("None"), of(port, "protocol").as_str(), "\"SCTP\", \"TCP\""),
        ]);
    }
}
