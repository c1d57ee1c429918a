//! Printers of Services and how traffic finds them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::format::{NONE, age, first_three, items, labels, selector, text, text_or};
use super::printer::Column::{self, Text, Wide};
use super::printer::{Builtin, Cells};

pub(super) fn printer(group: &str, plural: &str) -> Option<Builtin> {
    let (columns, cells): (&'static [Column], Cells) = match (group, plural) {
        ("", "services") => (
            &[Text("Type"), Text("Cluster-IP"), Text("External-IP"), Text("Port(s)"), Text("Age"), Wide("Selector")],
            service,
        ),
        ("", "endpoints") => (&[Text("Endpoints"), Text("Age")], endpoints),
        ("discovery.k8s.io", "endpointslices") => {
            (&[Text("AddressType"), Text("Ports"), Text("Endpoints"), Text("Age")], endpoint_slice)
        }
        ("networking.k8s.io", "ingresses") => {
            (&[Text("Class"), Text("Hosts"), Text("Address"), Text("Ports"), Text("Age")], ingress)
        }
        ("networking.k8s.io", "ingressclasses") => {
            (&[Text("Controller"), Text("Parameters"), Text("Age")], ingress_class)
        }
        ("networking.k8s.io", "networkpolicies") => (&[Text("Pod-Selector"), Text("Age")], network_policy),
        _ => return None,
    };
    Some(Builtin { columns, cells })
}

fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(text_or(object, "/spec/type", "ClusterIP")),
        json!(text_or(object, "/spec/clusterIP", NONE)),
        json!(external_ip(object)),
        json!(service_ports(object)),
        age(object, now),
        json!(labels(object.pointer("/spec/selector"))),
    ]
}

fn external_ip(object: &Value) -> String {
    let mut addresses = Vec::new();
    match text(object, "/spec/type") {
        "ExternalName" => return text(object, "/spec/externalName").to_owned(),
        "LoadBalancer" => addresses.extend(load_balancer(object)),
        _ => {}
    }
    addresses.extend(items(object, "/spec/externalIPs").iter().filter_map(Value::as_str).map(str::to_owned));
    match (addresses.as_slice(), text(object, "/spec/type")) {
        ([], "LoadBalancer") => "<pending>".to_owned(),
        ([], _) => NONE.to_owned(),
        (addresses, _) => addresses.join(","),
    }
}

/// The addresses in `status.loadBalancer`.
fn load_balancer(object: &Value) -> Vec<String> {
    items(object, "/status/loadBalancer/ingress")
        .iter()
        .map(|ingress| text_or(ingress, "/ip", text(ingress, "/hostname")).to_owned())
        .filter(|address| !address.is_empty())
        .collect()
}

fn service_ports(object: &Value) -> String {
    let ports: Vec<String> = items(object, "/spec/ports")
        .iter()
        .map(|port| {
            let protocol = text_or(port, "/protocol", "TCP");
            match port["nodePort"].as_u64() {
                Some(node) if node > 0 => format!("{}:{node}/{protocol}", port["port"]),
                _ => format!("{}/{protocol}", port["port"]),
            }
        })
        .collect();
    if ports.is_empty() { NONE.to_owned() } else { ports.join(",") }
}

fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in items(object, "/subsets") {
        let addresses = items(subset, "/addresses").iter().map(|address| text(address, "/ip"));
        let ports = items(subset, "/ports");
        for address in addresses {
            if ports.is_empty() {
                all.push(address.to_owned());
            }
            all.extend(ports.iter().map(|port| format!("{address}:{}", port["port"])));
        }
    }
    let shown = if all.is_empty() { NONE.to_owned() } else { first_three(&all) };
    vec![json!(shown), age(object, now)]
}

fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = items(object, "/ports")
        .iter()
        .map(|port| match port["port"].as_u64() {
            Some(port) => port.to_string(),
            None => text_or(port, "/name", "*").to_owned(),
        })
        .collect();
    let addresses: Vec<String> = items(object, "/endpoints")
        .iter()
        .flat_map(|endpoint| items(endpoint, "/addresses").iter().filter_map(Value::as_str).map(str::to_owned))
        .collect();
    let shown = |all: &[String]| if all.is_empty() { "<unset>".to_owned() } else { first_three(all) };
    vec![json!(text(object, "/addressType")), json!(shown(&ports)), json!(shown(&addresses)), age(object, now)]
}

fn ingress(object: &Value, now: Timestamp) -> Vec<Value> {
    let annotation = object["metadata"]["annotations"]["kubernetes.io/ingress.class"].as_str().unwrap_or(NONE);
    let class = text_or(object, "/spec/ingressClassName", annotation);
    let hosts: Vec<String> = items(object, "/spec/rules")
        .iter()
        .map(|rule| text(rule, "/host").to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    let hosts = if hosts.is_empty() { "*".to_owned() } else { first_three(&hosts) };
    let ports = if items(object, "/spec/tls").is_empty() { "80" } else { "80, 443" };
    vec![json!(class), json!(hosts), json!(load_balancer(object).join(",")), json!(ports), age(object, now)]
}

fn ingress_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = match object.pointer("/spec/parameters") {
        Some(parameters) if parameters.is_object() => {
            let group = match text(parameters, "/apiGroup") {
                "" => String::new(),
                group => format!(".{group}"),
            };
            format!("{}{group}/{}", text(parameters, "/kind"), text(parameters, "/name"))
        }
        _ => NONE.to_owned(),
    };
    vec![json!(text(object, "/spec/controller")), json!(parameters), age(object, now)]
}

fn network_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(selector(object.pointer("/spec/podSelector"))), age(object, now)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_of_each_type() {
        let cells = |spec: Value, status: Value| {
            let object = json!({"metadata": {"name": "web"}, "spec": spec, "status": status});
            service(&object, Timestamp::now())[..4]
                .iter()
                .map(|cell| cell.as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let ports = json!([{"port": 80, "protocol": "TCP", "nodePort": 30080}]);
        assert_eq!(
            cells(json!({"type": "LoadBalancer", "clusterIP": "10.96.0.7", "ports": ports}), json!({})),
            ["LoadBalancer", "10.96.0.7", "<pending>", "80:30080/TCP"]
        );
        let status = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.10"}]}});
        assert_eq!(
            cells(json!({"type": "LoadBalancer", "clusterIP": "10.96.0.7", "ports": ports}), status)[2],
            "203.0.113.10"
        );
        assert_eq!(
            cells(json!({"clusterIP": "None", "ports": [{"port": 53, "protocol": "UDP"}]}), json!({})),
            ["ClusterIP", "None", NONE, "53/UDP"]
        );
        assert_eq!(
            cells(json!({"type": "ExternalName", "externalName": "x.org"}), json!({}))[1..],
            [NONE, "x.org", NONE]
        );
    }

    #[test]
    fn ingresses() {
        let object = json!({
            "metadata": {"annotations": {"kubernetes.io/ingress.class": "traefik"}},
            "spec": {"rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}], "tls": [{}]},
            "status": {"loadBalancer": {"ingress": [{"hostname": "lb"}]}},
        });
        let cells = ingress(&object, Timestamp::now());
        assert_eq!(cells[..4], [json!("traefik"), json!("a,b,c + 1 more..."), json!("lb"), json!("80, 443")]);
    }
}
