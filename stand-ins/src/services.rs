//! From the Service that a route names to the addresses behind it, as every controller has to find them.

use std::net::{Ipv4Addr, SocketAddrV4};

use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::objects::{Object, Objects, SERVICES, items, text};

/// A port as a route names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PortRef {
    Number(u16),
    Name(String),
}

impl std::fmt::Display for PortRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl PortRef {
    /// `{number: 80}`, `{name: http}`, as an Ingress has it.
    pub(crate) fn of_ingress(port: &Value) -> Option<Self> {
        match (number(&port["number"]), text(port, "/name")) {
            (Some(number), _) => Some(Self::Number(number)),
            (None, "") => None,
            (None, name) => Some(Self::Name(name.to_owned())),
        }
    }
}

/// One port of a Service that exists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServicePort<'a> {
    service: &'a Object,
    /// The port of the Service itself.
    pub(crate) number: u16,
    /// `""` for the unnamed one.
    pub(crate) name: &'a str,
}

/// The port of a Service that a route names; none when there is no such Service or port.
pub(crate) fn service_port<'a>(
    objects: &'a Objects,
    namespace: &str,
    service: &str,
    port: &PortRef,
) -> Option<ServicePort<'a>> {
    let service = objects.get(SERVICES, namespace, service)?;
    items(&service.data, "/spec/ports").find_map(|found| {
        let (its_number, name) = (number(&found["port"])?, text(found, "/name"));
        let meant = match port {
            PortRef::Number(number) => *number == its_number,
            PortRef::Name(wanted) => wanted == name,
        };
        meant.then_some(ServicePort { service, number: its_number, name })
    })
}

/// The ClusterIP; none of a headless Service.
pub(crate) fn cluster_ip(service: &Object) -> Option<Ipv4Addr> {
    text(&service.data, "/spec/clusterIP").parse().ok()
}

impl ServicePort<'_> {
    /// The ready endpoints, in order.
    pub(crate) fn endpoints(&self, objects: &Objects) -> Vec<SocketAddrV4> {
        let namespace = self.service.namespace().unwrap_or_default();
        let slices = objects.slices(&namespace, &self.service.name_any());
        let mut found: Vec<SocketAddrV4> = slices.flat_map(|slice| self.of_slice(&slice.data)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    fn of_slice(&self, slice: &Value) -> Vec<SocketAddrV4> {
        let Some(port) = items(slice, "/ports").find(|port| text(port, "/name") == self.name) else {
            return Vec::new();
        };
        let Some(port) = number(&port["port"]) else { return Vec::new() };
        // Unknown counts as ready (discovery/v1 EndpointConditions).
        let ready = |endpoint: &&Value| endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
        items(slice, "/endpoints")
            .filter(ready)
            .flat_map(|endpoint| items(endpoint, "/addresses"))
            .filter_map(|ip| Some(SocketAddrV4::new(ip.as_str()?.parse().ok()?, port)))
            .collect()
    }
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

/// The addresses that a Service is published at, as its status lists them.
pub(crate) fn published(objects: &Objects, namespace: &str, service: &str) -> Vec<Value> {
    let Some(service) = objects.get(SERVICES, namespace, service) else { return Vec::new() };
    items(&service.data, "/status/loadBalancer/ingress").cloned().collect()
}

/// The status of an Ingress that is reached at these addresses. It has no place for how they lead to a Service (`ipMode`): the API server
/// would drop that, and a controller that looks for it writes the same status for ever.
pub(crate) fn ingress_status(addresses: &[Value]) -> Value {
    let mut addresses = addresses.to_vec();
    for address in addresses.iter_mut().filter_map(Value::as_object_mut) {
        address.remove("ipMode");
    }
    json!({"loadBalancer": {"ingress": addresses}})
}
