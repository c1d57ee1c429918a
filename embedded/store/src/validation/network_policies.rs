//! Rules of NetworkPolicies.

use serde_json::{Value, json};

use super::selectors::label_selector;
use super::{addresses, one_of, port_number};
use crate::invalid::FieldErrors;
use crate::json::{given, int_at, items, str_at};

/// A NetworkPolicy.
pub(super) fn network_policy(object: &Value, errors: &mut FieldErrors) {
    const TYPES: [&str; 2] = ["Ingress", "Egress"];
    let spec = &object["spec"];
    label_selector("spec.podSelector", &spec["podSelector"], errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in items(spec, &format!("/{direction}")).iter().enumerate() {
            let path = format!("spec.{direction}[{index}]");
            for (index, port) in items(rule, "/ports").iter().enumerate() {
                self::port(&format!("{path}.ports[{index}]"), port, errors);
            }
            for (index, peer) in items(rule, &format!("/{peers}")).iter().enumerate() {
                self::peer(&format!("{path}.{peers}[{index}]"), peer, errors);
            }
        }
    }
    let types = items(spec, "/policyTypes");
    if types.len() > TYPES.len() {
        errors.invalid("spec.policyTypes", &json!(types), "may not specify more than two policyTypes");
        return;
    }
    for (index, kind) in types.iter().enumerate() {
        if !TYPES.contains(&kind.as_str().unwrap_or_default()) {
            errors.unsupported(format!("spec.policyTypes[{index}]"), kind, &TYPES);
        }
    }
}

fn port(path: &str, entry: &Value, errors: &mut FieldErrors) {
    one_of(entry, "protocol", path, &["TCP", "UDP", "SCTP"], errors);
    let (port, end) = (given(entry, "port"), int_at(entry, "/endPort"));
    if let Some(port) = port {
        super::port(&format!("{path}.port"), port, errors);
    }
    let Some(end) = end else { return };
    let field = format!("{path}.endPort");
    match port {
        None => errors.invalid(field, &json!(end), "may not be specified when `port` is not specified"),
        Some(Value::String(_)) => {
            errors.invalid(field, &json!(end), "may not be specified when `port` is non-numeric");
        }
        Some(port) => {
            if port.as_i64().is_some_and(|port| end < port) {
                errors.invalid(field.as_str(), &json!(end), "must be greater than or equal to `port`");
            }
            port_number(&field, Some(end), errors);
        }
    }
}

fn peer(path: &str, peer: &Value, errors: &mut FieldErrors) {
    let selectors = ["podSelector", "namespaceSelector"].map(|key| (key, given(peer, key)));
    for (key, selector) in selectors {
        label_selector(&format!("{path}.{key}"), selector.unwrap_or(&Value::Null), errors);
    }
    let selects = selectors.iter().any(|(_, selector)| selector.is_some());
    match given(peer, "ipBlock") {
        Some(block) => {
            ip_block(&format!("{path}.ipBlock"), block, errors);
            if selects {
                errors.forbidden(path, "may not specify both ipBlock and another peer");
            }
        }
        None if !selects => errors.required(path, "must specify a peer"),
        None => {}
    }
}

fn ip_block(path: &str, block: &Value, errors: &mut FieldErrors) {
    let cidr = str_at(block, "/cidr");
    if cidr.is_empty() {
        errors.required(format!("{path}.cidr"), "");
        return;
    }
    let Some(whole) = addresses::network(&format!("{path}.cidr"), cidr, errors) else { return };
    for (index, except) in items(block, "/except").iter().enumerate() {
        let field = format!("{path}.except[{index}]");
        let part = addresses::network(&field, except.as_str().unwrap_or_default(), errors);
        if part.is_some_and(|part| !addresses::is_within(part, whole)) {
            errors.invalid(field, except, "must be a strict subset of `cidr`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Good;
    use super::*;

    #[test]
    fn peers_and_ports() {
        let good = Good::new(
            "networking.k8s.io",
            "networkpolicies",
            json!({
                "metadata": {"name": "web"},
                "spec": {
                    "podSelector": {"matchLabels": {"app": "web"}},
                    "ingress": [{
                        "from": [
                            {"podSelector": {"matchLabels": {"app": "a"}}, "namespaceSelector": {}},
                            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                        ],
                        "ports": [{"port": 80}, {"port": "http", "protocol": "SCTP"}, {"port": 80, "endPort": 90}, {}],
                    }],
                    "policyTypes": ["Ingress"],
                },
            }),
        );
        good.takes(&[
            ("/spec/podSelector", json!({})),
            ("/spec/policyTypes", json!(["Ingress", "Egress"])),
            ("/spec/egress", json!([{"to": [{"podSelector": {}}]}, {}])),
        ]);
        let (from, ports) = ("/spec/ingress/0/from", "/spec/ingress/0/ports");
        let to = |rest: &str| format!("{from}/{rest}");
        let port = |rest: &str| format!("{ports}/{rest}");
        let (second, first_port) = ("spec.ingress[0].from[1]", "spec.ingress[0].ports[0].port");
        let cidr = "must be a valid CIDR value";
        good.refuses(&[
            ("/spec/podSelector/matchLabels/app", json!(".."), "spec.podSelector.matchLabels", "a valid label must"),
            (
                &to("0/podSelector/matchLabels/app"),
                json!("/"),
                "spec.ingress[0].from[0].podSelector.matchLabels",
                "a valid",
            ),
            (&to("1"), json!({}), second, "must specify a peer"),
            (&to("1/podSelector"), json!({}), second, "may not specify both ipBlock and another peer"),
            (&to("1/ipBlock/cidr"), json!("999.1.1.1"), "spec.ingress[0].from[1].ipBlock.cidr", cidr),
            (&to("1/ipBlock/cidr"), Value::Null, "spec.ingress[0].from[1].ipBlock.cidr", "Required value"),
            (&to("1/ipBlock/except/0"), json!("x"), "spec.ingress[0].from[1].ipBlock.except[0]", cidr),
            (
                &to("1/ipBlock/except/0"),
                json!("11.0.0.0/16"),
                "spec.ingress[0].from[1].ipBlock.except[0]",
                "must be a strict subset of `cidr`",
            ),
            (&port("0/port"), json!(0), first_port, "must be between 1 and 65535, inclusive"),
            (&port("0/port"), json!("//"), first_port, "must contain only alpha-numeric characters"),
            (&port("0/protocol"), json!("tcp"), "spec.ingress[0].ports[0].protocol", "\"TCP\", \"UDP\", \"SCTP\""),
            (&port("2/endPort"), json!(79), "spec.ingress[0].ports[2].endPort", "greater than or equal to `port`"),
            (&port("1/endPort"), json!(79), "spec.ingress[0].ports[1].endPort", "when `port` is non-numeric"),
            (&port("3/endPort"), json!(79), "spec.ingress[0].ports[3].endPort", "when `port` is not specified"),
            ("/spec/policyTypes/0", json!("Both"), "spec.policyTypes[0]", "\"Ingress\", \"Egress\""),
            ("/spec/egress", json!([{"to": [{}]}]), "spec.egress[0].to[0]", "must specify a peer"),
        ]);
    }
}
