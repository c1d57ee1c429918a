//! From the objects to what the network has to do: pure, so that it can be compared and tested.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};

use meshgate_net::{LoadBalancer, Policy, Port, Protocol, Service};
use meshgate_store::{Object, at};
use serde_json::Value;

/// The cluster's domain.
const DOMAIN: &str = "cluster.local";

/// Everything the network has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Picture {
    /// Services with a ClusterIP.
    pub services: Vec<Service>,
    /// Addresses by full name, without a final dot.
    pub names: HashMap<String, Vec<Ipv4Addr>>,
}

/// What one slice says about one endpoint.
struct Endpoint {
    ip: Ipv4Addr,
    hostname: Option<String>,
    ready: bool,
    /// Ports by name; `""` for the unnamed one.
    ports: BTreeMap<String, u16>,
}

fn text<'a>(value: &'a Value, path: &str) -> Option<&'a str> {
    at(value, path).and_then(Value::as_str)
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

fn addresses<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = Ipv4Addr> + 'a {
    let list = at(value, path).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).filter_map(|ip| ip.parse().ok())
}

impl Picture {
    /// The picture for these Services, EndpointSlices and Pods.
    pub(crate) fn new(services: &[Object], slices: &[Object], pods: &[Object]) -> Self {
        let mut of_service: BTreeMap<(&str, &str), Vec<Endpoint>> = BTreeMap::new();
        for slice in slices {
            let namespace = text(slice, "/metadata/namespace").unwrap_or_default();
            let Some(service) = text(slice, "/metadata/labels/kubernetes.io~1service-name") else { continue };
            of_service.entry((namespace, service)).or_default().extend(endpoints(slice));
        }
        let mut picture = Self::default();
        for service in services {
            let namespace = text(service, "/metadata/namespace").unwrap_or_default();
            let name = text(service, "/metadata/name").unwrap_or_default();
            let endpoints = of_service.get(&(namespace, name)).map(Vec::as_slice).unwrap_or_default();
            picture.add(namespace, name, service, endpoints);
        }
        picture.add_aliases(services);
        for pod in pods {
            let (Some(ip), Some(namespace)) = (text(pod, "/status/podIP"), text(pod, "/metadata/namespace")) else {
                continue;
            };
            if let Ok(address) = ip.parse() {
                picture.names.insert(format!("{}.{namespace}.pod.{DOMAIN}", ip.replace('.', "-")), vec![address]);
            }
        }
        picture
    }

    fn add(&mut self, namespace: &str, name: &str, service: &Value, endpoints: &[Endpoint]) {
        let full = format!("{name}.{namespace}.svc.{DOMAIN}");
        let publish_unready = at(service, "/spec/publishNotReadyAddresses").and_then(Value::as_bool) == Some(true);
        let usable: Vec<&Endpoint> = endpoints.iter().filter(|endpoint| endpoint.ready || publish_unready).collect();
        match text(service, "/spec/clusterIP") {
            // Not allocated yet, or an ExternalName Service, which needs no rule.
            None | Some("") => {}
            Some("None") => self.add_headless(&full, &usable),
            Some(ip) => {
                let Ok(ip) = ip.parse() else { return };
                self.names.insert(full, vec![ip]);
                let ports = at(service, "/spec/ports").and_then(Value::as_array).into_iter().flatten();
                self.services.push(Service {
                    name: format!("{namespace}/{name}"),
                    cluster_ip: Some(ip),
                    external: external(service),
                    ports: ports.filter_map(|wanted| port(wanted, &usable)).collect(),
                });
            }
        }
    }

    /// Names of a headless Service lead to its endpoints themselves.
    fn add_headless(&mut self, full: &str, usable: &[&Endpoint]) {
        let all: BTreeSet<Ipv4Addr> = usable.iter().map(|endpoint| endpoint.ip).collect();
        self.names.insert(full.to_owned(), all.into_iter().collect());
        for endpoint in usable {
            let host = endpoint.hostname.clone().unwrap_or_else(|| endpoint.ip.to_string().replace('.', "-"));
            let known = self.names.entry(format!("{host}.{full}")).or_default();
            if !known.contains(&endpoint.ip) {
                known.push(endpoint.ip);
            }
        }
    }

    /// ExternalName Services that lead to another Service of the cluster. (Others have no address here.)
    fn add_aliases(&mut self, services: &[Object]) {
        for service in services {
            let target = text(service, "/spec/externalName").unwrap_or_default().trim_end_matches('.');
            if let Some(addresses) = self.names.get(target).cloned() {
                let namespace = text(service, "/metadata/namespace").unwrap_or_default();
                let name = text(service, "/metadata/name").unwrap_or_default();
                self.names.insert(format!("{name}.{namespace}.svc.{DOMAIN}"), addresses);
            }
        }
    }
}

/// `externalIPs` and the load balancer's addresses.
fn external(service: &Value) -> Vec<LoadBalancer> {
    let policy = match text(service, "/spec/externalTrafficPolicy") {
        Some("Local") => Policy::Local,
        _ => Policy::Cluster,
    };
    let balancers = at(service, "/status/loadBalancer/ingress").and_then(Value::as_array);
    let balancers = balancers.into_iter().flatten().filter_map(|ingress| text(ingress, "/ip")?.parse().ok());
    let all: BTreeSet<Ipv4Addr> = addresses(service, "/spec/externalIPs").chain(balancers).collect();
    all.into_iter().map(|ip| LoadBalancer { ip, policy }).collect()
}

/// A port of a Service with the endpoints behind it; `None` for SCTP, which the network does not do.
fn port(wanted: &Value, usable: &[&Endpoint]) -> Option<Port> {
    let protocol = match text(wanted, "/protocol").unwrap_or("TCP") {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        _ => return None,
    };
    let name = text(wanted, "/name").unwrap_or_default();
    let behind = usable.iter().filter_map(|endpoint| Some(SocketAddrV4::new(endpoint.ip, *endpoint.ports.get(name)?)));
    let endpoints: BTreeSet<SocketAddrV4> = behind.collect();
    Some(Port {
        protocol,
        port: number(&wanted["port"])?,
        node_port: number(&wanted["nodePort"]),
        endpoints: endpoints.into_iter().collect(),
    })
}

/// The IPv4 endpoints of a slice.
fn endpoints(slice: &Value) -> Vec<Endpoint> {
    let ports: BTreeMap<String, u16> = slice["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|port| Some((text(port, "/name").unwrap_or_default().to_owned(), number(&port["port"])?)))
        .collect();
    let list = slice["endpoints"].as_array().into_iter().flatten();
    list.flat_map(|endpoint| {
        // Unknown counts as ready (discovery/v1 EndpointConditions).
        let ready = at(endpoint, "/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
        let hostname = text(endpoint, "/hostname").map(str::to_owned);
        let ports = &ports;
        addresses(endpoint, "/addresses")
            .map(move |ip| Endpoint { ip, hostname: hostname.clone(), ready, ports: ports.clone() })
            .collect::<Vec<_>>()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn slice(service: &str, endpoints: Value) -> Object {
        Arc::new(json!({
            "metadata": {"namespace": "shop", "name": format!("{service}-x"), "labels": {"kubernetes.io/service-name": service}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints,
        }))
    }

    fn service(name: &str, spec: Value, status: Value) -> Object {
        Arc::new(json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec, "status": status}))
    }

    #[test]
    fn a_service_leads_to_its_ready_endpoints() {
        let web = service(
            "web",
            json!({"clusterIP": "10.96.1.1", "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}],
                   "externalTrafficPolicy": "Local"}),
            json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.10"}]}}),
        );
        let endpoints = slice(
            "web",
            json!([
                {"addresses": ["10.244.0.3"], "conditions": {"ready": true}},
                {"addresses": ["10.244.0.2"], "conditions": {}},
                {"addresses": ["10.244.0.4"], "conditions": {"ready": false}},
            ]),
        );
        let picture = Picture::new(&[web], &[endpoints], &[]);
        let service = &picture.services[0];
        let port = &service.ports[0];
        let endpoint = |last| SocketAddrV4::new(Ipv4Addr::new(10, 244, 0, last), 8080);
        assert_eq!(port.endpoints, [endpoint(2), endpoint(3)]);
        assert_eq!(service.external, [LoadBalancer { ip: Ipv4Addr::new(203, 0, 113, 10), policy: Policy::Local }]);
        assert_eq!((port.node_port, port.protocol), (Some(30080), Protocol::Tcp));
        assert_eq!(picture.names["web.shop.svc.cluster.local"], [Ipv4Addr::new(10, 96, 1, 1)]);
    }

    #[test]
    fn a_headless_service_names_its_endpoints() {
        let web = service("db", json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}), json!({}));
        let endpoints =
            slice("db", json!([{"addresses": ["10.244.0.3"], "hostname": "db-0"}, {"addresses": ["10.244.0.2"]}]));
        let picture = Picture::new(&[web], &[endpoints], &[]);
        assert!(picture.services.is_empty());
        assert_eq!(picture.names["db.shop.svc.cluster.local"].len(), 2);
        assert_eq!(picture.names["db-0.db.shop.svc.cluster.local"], [Ipv4Addr::new(10, 244, 0, 3)]);
        assert_eq!(picture.names["10-244-0-2.db.shop.svc.cluster.local"], [Ipv4Addr::new(10, 244, 0, 2)]);
    }

    #[test]
    fn unready_endpoints_are_published_on_request_only() {
        let spec = |publish: bool| json!({"clusterIP": "None", "ports": [], "publishNotReadyAddresses": publish});
        let endpoints = || slice("db", json!([{"addresses": ["10.244.0.3"], "conditions": {"ready": false}}]));
        let count = |publish| {
            Picture::new(&[service("db", spec(publish), json!({}))], &[endpoints()], &[]).names["db.shop.svc.cluster.local"]
                .len()
        };
        assert_eq!(count(false), 0);
        assert_eq!(count(true), 1);
    }

    #[test]
    fn a_service_without_endpoints_keeps_its_address() {
        let web = service("web", json!({"clusterIP": "10.96.1.1", "ports": [{"port": 80}]}), json!({}));
        let picture = Picture::new(&[web], &[], &[]);
        assert!(picture.services[0].ports[0].endpoints.is_empty());
        assert_eq!(picture.names.len(), 1);
    }

    #[test]
    fn pods_and_aliases_have_names() {
        let web = service("web", json!({"clusterIP": "10.96.1.1", "ports": []}), json!({}));
        let alias =
            service("alias", json!({"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"}), json!({}));
        let pod = Arc::new(json!({"metadata": {"namespace": "shop"}, "status": {"podIP": "10.244.0.9"}}));
        let picture = Picture::new(&[alias, web], &[], &[pod]);
        assert_eq!(picture.names["alias.shop.svc.cluster.local"], [Ipv4Addr::new(10, 96, 1, 1)]);
        assert_eq!(picture.names["10-244-0-9.shop.pod.cluster.local"], [Ipv4Addr::new(10, 244, 0, 9)]);
    }
}
