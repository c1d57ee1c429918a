//! Rules of Services. Their addresses and node ports are `store::admission`'s.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{addresses, names, one_of, port, port_number};
use crate::invalid::FieldErrors;
use crate::json::{given, int_at, items, str_at};

/// Longest time that a client is kept to its pod, in seconds.
const MAX_AFFINITY: i64 = 86_400;

/// A Service.
pub(super) fn service(old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    let kind = str_at(spec, "/type");
    let headless = str_at(spec, "/clusterIP") == "None";
    if items(spec, "/ports").is_empty() && !headless && kind != "ExternalName" {
        errors.required("spec.ports", "");
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        let problem = format!("may not be set to 'None' for {kind} services");
        errors.invalid("spec.clusterIPs[0]", &json!("None"), &problem);
    }
    if kind == "ExternalName" {
        external_name(str_at(spec, "/externalName"), errors);
    }
    ports(spec, errors);
    if let Some(selector) = spec.get("selector").and_then(Value::as_object) {
        names::labels("spec.selector", selector, errors);
    }
    affinity(spec, errors);
    families(spec, errors);
    for (index, ip) in items(spec, "/externalIPs").iter().enumerate() {
        let (field, text) = (format!("spec.externalIPs[{index}]"), ip.as_str().unwrap_or_default());
        if let Some(address) = addresses::address(&field, text, errors) {
            addresses::not_special(&field, text, address, errors);
        }
    }
    one_of(spec, "type", "spec", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errors);
    balancer(old, spec, errors);
    traffic(spec, errors);
    if let Some(old) = old
        && str_at(old, "/spec/clusterIP") == "None"
        && !headless
        && kind != "ExternalName"
    {
        errors.invalid("spec.clusterIPs[0]", &spec["clusterIP"], "may not change once set");
    }
}

/// A name in DNS, which may end in the dot that makes it a whole one.
fn external_name(name: &str, errors: &mut FieldErrors) {
    match name.strip_suffix('.').unwrap_or(name) {
        "" => errors.required("spec.externalName", ""),
        name => errors.each("spec.externalName", &json!(name), names::dns_subdomain(name)),
    }
}

fn ports(spec: &Value, errors: &mut FieldErrors) {
    let ports = items(spec, "/ports");
    let mut seen_names = BTreeSet::new();
    for (index, entry) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        let name = str_at(entry, "/name");
        if name.is_empty() && ports.len() > 1 {
            errors.required(format!("{path}.name"), "");
        } else if !name.is_empty() {
            errors.each(format!("{path}.name"), &json!(name), names::dns_label(name));
            if !seen_names.insert(name) {
                errors.duplicate(format!("{path}.name"), &json!(name));
            }
        }
        port_number(&format!("{path}.port"), int_at(entry, "/port"), errors);
        one_of(entry, "protocol", &path, &["SCTP", "TCP", "UDP"], errors);
        port(&format!("{path}.targetPort"), &entry["targetPort"], errors);
        if let Some(protocol) = given(entry, "appProtocol") {
            let problems = names::qualified_name(protocol.as_str().unwrap_or_default());
            errors.each(format!("{path}.appProtocol"), protocol, problems);
        }
    }
    let mut seen = BTreeSet::new();
    for (index, entry) in ports.iter().enumerate() {
        let number = int_at(entry, "/nodePort").filter(|number| *number != 0);
        if let Some(number) = number.filter(|number| !seen.insert((*number, str_at(entry, "/protocol")))) {
            errors.duplicate(format!("spec.ports[{index}].nodePort"), &json!(number));
        }
    }
    let mut seen = BTreeSet::new();
    for (index, entry) in ports.iter().enumerate() {
        let (number, protocol) = (int_at(entry, "/port"), str_at(entry, "/protocol"));
        if !seen.insert((number, protocol)) {
            errors.duplicate(format!("spec.ports[{index}]"), &json!({"port": number, "protocol": protocol}));
        }
    }
}

fn affinity(spec: &Value, errors: &mut FieldErrors) {
    one_of(spec, "sessionAffinity", "spec", &["ClientIP", "None"], errors);
    let pointer = "/sessionAffinityConfig/clientIP/timeoutSeconds";
    let is_kept = str_at(spec, "/sessionAffinity") == "ClientIP";
    let seconds = int_at(spec, pointer).filter(|seconds| is_kept && !(1..=MAX_AFFINITY).contains(seconds));
    if let Some(seconds) = seconds {
        let problem = format!("must be greater than 0 and less than {MAX_AFFINITY}");
        errors.invalid("spec.sessionAffinityConfig.clientIP.timeoutSeconds", &json!(seconds), &problem);
    }
}

fn families(spec: &Value, errors: &mut FieldErrors) {
    const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
    let mut seen = BTreeSet::new();
    for (index, family) in items(spec, "/ipFamilies").iter().enumerate() {
        let text = family.as_str().unwrap_or_default();
        if !FAMILIES.contains(&text) {
            errors.unsupported(format!("spec.ipFamilies[{index}]"), family, &FAMILIES);
        }
        if !seen.insert(text) {
            errors.duplicate(format!("spec.ipFamilies[{index}]"), family);
        }
    }
    one_of(spec, "ipFamilyPolicy", "spec", &["PreferDualStack", "RequireDualStack", "SingleStack"], errors);
}

/// What only load balancers have.
fn balancer(old: Option<&Value>, spec: &Value, errors: &mut FieldErrors) {
    let is_balancer = str_at(spec, "/type") == "LoadBalancer";
    let only = "may only be used when `type` is 'LoadBalancer'";
    let ranges = items(spec, "/loadBalancerSourceRanges");
    if !ranges.is_empty() && !is_balancer {
        errors.forbidden("spec.LoadBalancerSourceRanges", only);
    }
    for (index, range) in ranges.iter().enumerate() {
        let field = format!("spec.LoadBalancerSourceRanges[{index}]");
        addresses::network(&field, range.as_str().unwrap_or_default().trim(), errors);
    }
    // Whoever changes the type alone leaves this as it was.
    if old.is_none() && !is_balancer && given(spec, "allocateLoadBalancerNodePorts").is_some() {
        errors.forbidden("spec.allocateLoadBalancerNodePorts", only);
    }
}

/// Which endpoints get traffic, and who asks nodes whether they have any.
fn traffic(spec: &Value, errors: &mut FieldErrors) {
    let kind = str_at(spec, "/type");
    let is_balancer = kind == "LoadBalancer";
    let has_external = kind == "ClusterIP" && !items(spec, "/externalIPs").is_empty();
    let policy = str_at(spec, "/externalTrafficPolicy");
    if is_balancer || kind == "NodePort" || has_external {
        one_of(spec, "externalTrafficPolicy", "spec", &["Cluster", "Local"], errors);
    } else if !policy.is_empty() {
        let problem = "may only be set for externally-accessible services";
        errors.invalid("spec.externalTrafficPolicy", &json!(policy), problem);
    }
    if let Some(number) = int_at(spec, "/healthCheckNodePort").filter(|number| *number != 0) {
        let field = "spec.healthCheckNodePort";
        if is_balancer && policy == "Local" {
            port_number(field, Some(number), errors);
        } else {
            let problem = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.invalid(field, &json!(number), problem);
        }
    }
    one_of(spec, "internalTrafficPolicy", "spec", &["Cluster", "Local"], errors);
    one_of(spec, "trafficDistribution", "spec", &["PreferClose", "PreferSameNode", "PreferSameZone"], errors);
}

#[cfg(test)]
mod tests {
    use super::super::tests::Good;
    use super::*;

    fn good(spec: Value) -> Good {
        Good::new("", "services", json!({"metadata": {"name": "web"}, "spec": spec}))
    }

    #[test]
    fn ports_are_numbers_with_names() {
        let ports = json!([{"name": "http", "port": 80}, {"name": "a-b", "port": 81, "protocol": "UDP"}]);
        let service = good(json!({"type": "NodePort", "ports": ports}));
        service.takes(&[
            ("/spec/ports/1/port", json!(80)),
            ("/spec/ports/0/targetPort", json!("http-1")),
            ("/spec/ports/0/targetPort", json!(0)),
            ("/spec/ports/0/appProtocol", json!("kubernetes.io/h2c")),
            ("/spec/ports/0/nodePort", json!(30080)),
        ]);
        let mut same = ports.clone();
        same[0]["nodePort"] = json!(30080);
        same[1] = json!({"name": "more", "port": 81, "nodePort": 30080});
        service.refuses(&[
            ("/spec/ports", Value::Null, "spec.ports", "Required value"),
            ("/spec/ports/0/name", Value::Null, "spec.ports[0].name", "Required value"),
            ("/spec/ports/0/name", json!("a-b"), "spec.ports[1].name", "Duplicate value: \"a-b\""),
            ("/spec/ports/0/name", json!("a.b"), "spec.ports[0].name", "must not contain dots"),
            ("/spec/ports/0/port", Value::Null, "spec.ports[0].port", "Invalid value: 0: must be between 1 and"),
            ("/spec/ports/0/port", Value::Null, "spec.ports[0].targetPort", "Invalid value: 0: must be between"),
            ("/spec/ports/0/port", json!(70000), "spec.ports[0].port", "must be between 1 and 65535, inclusive"),
            ("/spec/ports/0/protocol", json!("tcp"), "spec.ports[0].protocol", "\"SCTP\", \"TCP\", \"UDP\""),
            ("/spec/ports/0/targetPort", json!("150%"), "spec.ports[0].targetPort", "only alpha-numeric characters"),
            ("/spec/ports/0/targetPort", json!("8080"), "spec.ports[0].targetPort", "at least one letter"),
            ("/spec/ports/0/appProtocol", json!("http://x"), "spec.ports[0].appProtocol", "a qualified name"),
            ("/spec/ports/2", json!({"name": "x", "port": 80}), "spec.ports[2]", "Duplicate value: {\"port\":80"),
            ("/spec/ports", same, "spec.ports[1].nodePort", "Duplicate value: 30080"),
        ]);
    }

    #[test]
    fn addresses_and_names() {
        let service = good(json!({"ports": [{"port": 80}], "externalIPs": ["192.0.2.1"], "selector": {"app": "web"}}));
        service.takes(&[
            ("/spec/externalIPs/0", json!("2001:db8::1")),
            ("/spec/externalTrafficPolicy", json!("Local")),
            ("/spec/sessionAffinity", json!("ClientIP")),
            ("/spec/trafficDistribution", json!("PreferSameZone")),
        ]);
        service.refuses(&[
            ("/spec/externalIPs/0", json!("None"), "spec.externalIPs[0]", "must be a valid IP address, (e.g."),
            ("/spec/externalIPs/0", json!("127.0.0.1"), "spec.externalIPs[0]", "may not be in the loopback range"),
            ("/spec/externalTrafficPolicy", json!("/"), "spec.externalTrafficPolicy", "\"Cluster\", \"Local\""),
            ("/spec/internalTrafficPolicy", json!("x"), "spec.internalTrafficPolicy", "\"Cluster\", \"Local\""),
            ("/spec/trafficDistribution", json!("Far"), "spec.trafficDistribution", "\"PreferClose\""),
            ("/spec/selector/app", json!("/"), "spec.selector", "a valid label must be"),
            ("/spec/type", json!("Fancy"), "spec.type", "\"ClusterIP\", \"ExternalName\", \"LoadBalancer\""),
            ("/spec/ipFamilies", json!(["IPv5"]), "spec.ipFamilies[0]", "\"IPv4\", \"IPv6\""),
            ("/spec/ipFamilyPolicy", json!("Both"), "spec.ipFamilyPolicy", "\"PreferDualStack\""),
            ("/spec/sessionAffinity", json!("Cookie"), "spec.sessionAffinity", "\"ClientIP\", \"None\""),
        ]);
        let outside = good(json!({"type": "ExternalName", "externalName": "example.com"}));
        outside.takes(&[("/spec/externalName", json!("example.com."))]);
        outside.refuses(&[
            ("/spec/externalName", Value::Null, "spec.externalName", "Required value"),
            ("/spec/externalName", json!("-1"), "spec.externalName", "a lowercase RFC 1123 subdomain"),
            (
                "/spec/externalTrafficPolicy",
                json!("Local"),
                "spec.externalTrafficPolicy",
                "may only be set for externally-accessible services",
            ),
        ]);
    }

    #[test]
    fn what_load_balancers_alone_have() {
        let service = good(json!({
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}],
            "loadBalancerSourceRanges": [" 10.0.0.0/8 "],
        }));
        service.takes(&[("/spec/healthCheckNodePort", json!(31000))]);
        let (ranges, first) = ("spec.LoadBalancerSourceRanges", "spec.LoadBalancerSourceRanges[0]");
        service.refuses(&[
            ("/spec/type", json!("ClusterIP"), ranges, "may only be used when `type` is 'LoadBalancer'"),
            ("/spec/loadBalancerSourceRanges/0", json!("50%"), first, "must be a valid CIDR value"),
            ("/spec/healthCheckNodePort", json!(-1), "spec.healthCheckNodePort", "must be between 1 and 65535"),
        ]);
        let plain = good(json!({"ports": [{"port": 80}]}));
        plain.refuses(&[
            (
                "/spec/healthCheckNodePort",
                json!(31000),
                "spec.healthCheckNodePort",
                "`externalTrafficPolicy` is 'Local'",
            ),
            (
                "/spec/allocateLoadBalancerNodePorts",
                json!(true),
                "spec.allocateLoadBalancerNodePorts",
                "may only be used when `type` is 'LoadBalancer'",
            ),
        ]);
        let affine = good(json!({
            "ports": [{"port": 80}], "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}},
        }));
        let seconds = "/spec/sessionAffinityConfig/clientIP/timeoutSeconds";
        affine.takes(&[(seconds, json!(86400))]);
        let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        affine.refuses(&[(seconds, json!(0), field, "must be greater than 0 and less than 86400")]);
    }
}
