//! Cluster addresses and node ports of Services.
//!
//! What is taken is read off the stored Services under the store's lock, so there is no second book that could
//! disagree with them. Free addresses are tried from a random one: an address just given up is not reused at once,
//! which would send traffic of a stale client to another Service.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use rand::Rng;
use serde_json::{Value, json};

use super::super::Object;
use super::super::state::State;
use crate::invalid::FieldErrors;
use crate::json::{int_at, items, items_mut, str_at};
use crate::{GroupResource, ResourceType, Status};

/// 10.96.0.0/16, the Services' network.
const NETWORK: [u8; 2] = [10, 96];

/// Hosts kept for the Services that clients expect there.
const RESERVED: [(u16, &str, &str); 2] = [(1, "default", "kubernetes"), (10, "kube-system", "kube-dns")];

/// Node ports, as Kubernetes' default range.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// Gives a Service its addresses and ports, or keeps those it has.
pub(super) fn assign(
    state: &State,
    kind: &ResourceType,
    old: Option<&Object>,
    service: &mut Value,
) -> Result<(), Status> {
    if !service.get("spec").is_some_and(Value::is_object) {
        return Ok(());
    }
    if let Some(old) = old {
        drop_leftovers(old, service);
    }
    let name = str_at(service, "/metadata/name").to_owned();
    let mut errors = FieldErrors::default();
    let others = Others { state, namespace: str_at(service, "/metadata/namespace").to_owned(), name: name.clone() };
    cluster_ip(&others, old, service, &mut errors);
    node_ports(&others, old, service, &mut errors);
    errors.into_result(kind, &name)
}

/// After a change of type, fields that only the old type has go, if they are as they were: a client that changes
/// only the type means so.
fn drop_leftovers(old: &Object, service: &mut Value) {
    let (before, after) = (str_at(old, "/spec/type").to_owned(), str_at(service, "/spec/type").to_owned());
    let external = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    let mut fields: Vec<&str> = Vec::new();
    if external(&before) && !external(&after) {
        fields.push("externalTrafficPolicy");
    }
    if before == "LoadBalancer" && after != "LoadBalancer" {
        fields.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"]);
    }
    let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for field in fields {
        if spec.get(field) == old["spec"].get(field) {
            spec.remove(field);
        }
    }
}

/// The other Services of the store.
struct Others<'a> {
    state: &'a State,
    namespace: String,
    name: String,
}

impl Others<'_> {
    fn iter(&self) -> impl Iterator<Item = &Value> {
        self.state.objects(&GroupResource::new("", "services")).map(|service| &**service).filter(|service| {
            str_at(service, "/metadata/name") != self.name || str_at(service, "/metadata/namespace") != self.namespace
        })
    }
}

fn cluster_ip(others: &Others<'_>, old: Option<&Object>, service: &mut Value, errors: &mut FieldErrors) {
    if str_at(service, "/spec/type") == "ExternalName" {
        if let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("clusterIP");
            spec.remove("clusterIPs");
        }
        return;
    }
    let first = items(service, "/spec/clusterIPs").first().and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut asked = str_at(service, "/spec/clusterIP").to_owned();
    if asked.is_empty() {
        asked = first.clone();
    }
    if !first.is_empty() && first != asked {
        errors.invalid("spec.clusterIPs[0]", &json!(first), "may not be set to a value other than spec.clusterIP");
        return;
    }
    let before = old.map(|old| str_at(old, "/spec/clusterIP")).unwrap_or_default();
    if asked.is_empty() {
        asked = before.to_owned();
    } else if !before.is_empty() && asked != before {
        errors.invalid("spec.clusterIPs[0]", &json!([asked]), "may not change once set");
        return;
    }
    if asked.is_empty() {
        match free_address(others) {
            Some(address) => asked = address.to_string(),
            None => errors.other(
                "InternalError",
                "spec.clusterIPs",
                "Internal error: failed to allocate IP: every address of 10.96.0.0/16 is taken; delete Services",
            ),
        }
    } else if asked != before && asked != "None" {
        check_address(others, &asked, errors);
    }
    service["spec"]["clusterIP"] = json!(asked);
    service["spec"]["clusterIPs"] = json!([asked]);
}

fn check_address(others: &Others<'_>, asked: &str, errors: &mut FieldErrors) {
    let field = "spec.clusterIPs";
    let value = json!([asked]);
    let Ok(address) = asked.parse::<Ipv4Addr>() else {
        errors.invalid(
            "spec.clusterIPs[0]",
            &json!(asked),
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
        return;
    };
    if address.octets()[..2] != NETWORK {
        let why = format!(
            "failed to allocate IP {asked}: the provided IP ({asked}) is not in the valid range. \
             The range of valid IPs is 10.96.0.0/16"
        );
        errors.invalid(field, &value, &why);
    } else if others.iter().any(|service| str_at(service, "/spec/clusterIP") == asked) {
        errors.invalid(field, &value, &format!("failed to allocate IP {asked}: provided IP is already allocated"));
    }
}

fn free_address(others: &Others<'_>) -> Option<Ipv4Addr> {
    let address = |host: u16| {
        let [high, low] = host.to_be_bytes();
        Ipv4Addr::new(NETWORK[0], NETWORK[1], high, low)
    };
    let owner = RESERVED.iter().find(|(_, namespace, name)| *namespace == others.namespace && *name == others.name);
    let taken: BTreeSet<&str> = others.iter().map(|service| str_at(service, "/spec/clusterIP")).collect();
    let free = |host: u16| !taken.contains(address(host).to_string().as_str());
    if let Some(&(host, _, _)) = owner
        && free(host)
    {
        return Some(address(host));
    }
    let hosts = 1..u16::MAX;
    let start = rand::rng().random_range(hosts.clone());
    let reserved = |host: u16| RESERVED.iter().any(|(known, _, _)| *known == host);
    (start..hosts.end).chain(hosts.start..start).find(|&host| !reserved(host) && free(host)).map(address)
}

fn node_ports(others: &Others<'_>, old: Option<&Object>, service: &mut Value, errors: &mut FieldErrors) {
    let kind = str_at(service, "/spec/type").to_owned();
    let allocates = service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
    let wanted = kind == "NodePort" || (kind == "LoadBalancer" && allocates);
    let taken: BTreeSet<i64> = others.iter().flat_map(ports_of).collect();
    let before: Vec<Value> = old.map(|old| items(old, "/spec/ports").to_vec()).unwrap_or_default();
    let had_ports = old.is_some_and(|old| str_at(old, "/spec/type") != "ClusterIP");
    let mut given: BTreeSet<i64> = ports_of(service).collect();
    given.extend(&taken);
    let spec = &mut service["spec"];
    for (index, port) in items_mut(spec, "ports").iter_mut().enumerate() {
        let asked = int_at(port, "/nodePort").filter(|port| *port != 0);
        let kept = before
            .iter()
            .find(|known| known.get("port") == port.get("port") && known.get("protocol") == port.get("protocol"))
            .and_then(|known| int_at(known, "/nodePort"));
        if kind == "ClusterIP" && had_ports && asked.is_some() && asked == kept {
            port.as_object_mut().map(|port| port.remove("nodePort"));
            continue;
        }
        if let Some(asked) = asked {
            check_node_port(asked, index, &kind, &taken, errors);
            continue;
        }
        let number = wanted.then(|| kept.or_else(|| free_node_port(&given))).flatten();
        match number {
            Some(number) => {
                given.insert(number);
                port["nodePort"] = json!(number);
            }
            None if wanted => errors.other(
                "InternalError",
                format!("spec.ports[{index}].nodePort"),
                "Internal error: failed to allocate a nodePort: all of 30000-32767 are taken; delete Services",
            ),
            None => {
                port.as_object_mut().map(|port| port.remove("nodePort"));
            }
        }
    }
    let local = kind == "LoadBalancer" && str_at(spec, "/externalTrafficPolicy") == "Local";
    let health = |spec: &Value| int_at(spec, "/healthCheckNodePort").filter(|port| *port != 0);
    let (asked, before) = (health(spec), old.and_then(|old| health(&old["spec"])));
    if local && asked.is_none() {
        if let Some(number) = before.or_else(|| free_node_port(&given)) {
            spec["healthCheckNodePort"] = json!(number);
        }
    } else if !local
        && (asked.is_none() || asked == before)
        && let Some(spec) = spec.as_object_mut()
    {
        // It was allocated; one that is asked for is refused.
        spec.remove("healthCheckNodePort");
    }
}

fn check_node_port(asked: i64, index: usize, kind: &str, taken: &BTreeSet<i64>, errors: &mut FieldErrors) {
    let field = format!("spec.ports[{index}].nodePort");
    if kind == "ClusterIP" || kind == "ExternalName" {
        errors.forbidden(field, &format!("may not be used when `type` is '{kind}'"));
    } else if !u16::try_from(asked).is_ok_and(|asked| NODE_PORTS.contains(&asked)) {
        errors.invalid(
            field,
            &json!(asked),
            "provided port is not in the valid range. The range of valid ports is 30000-32767",
        );
    } else if taken.contains(&asked) {
        errors.invalid(field, &json!(asked), "provided port is already allocated");
    }
}

fn ports_of(service: &Value) -> impl Iterator<Item = i64> {
    let numbers = items(service, "/spec/ports").iter().filter_map(|port| int_at(port, "/nodePort"));
    numbers.chain(int_at(service, "/spec/healthCheckNodePort")).filter(|port| *port != 0)
}

fn free_node_port(taken: &BTreeSet<i64>) -> Option<i64> {
    let start = rand::rng().random_range(NODE_PORTS);
    (start..=*NODE_PORTS.end()).chain(*NODE_PORTS.start()..start).map(i64::from).find(|port| !taken.contains(port))
}
