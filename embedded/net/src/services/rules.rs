//! Services as nft rules: one chain per port, and maps from addresses and ports to chains.
//!
//! ```text
//! map services    address . protocol . port -> chain    ClusterIPs and external addresses
//! map nodeports             protocol . port -> chain    node ports
//! chain s_...     picks an endpoint
//! chain x_...     marks the connection for a rewritten source, then picks (externalTrafficPolicy: Cluster)
//! ```
//!
//! What is left addressed to a Service or load balancer address after that has no rule, and is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::{Policy, Port, Protocol, Service};
use crate::addresses::{API_SERVER, DNS, LOAD_BALANCERS, NODE, OUTSIDE, PODS, SERVICES};

/// The bit in a packet's mark that says "rewrite the source"; kube-proxy's, too.
const REWRITE: u32 = 0x4000;

/// Changes per transaction. The kernel takes a transaction as one netlink message, whose size an ordinary user cannot
/// raise: 500 Services with 3 endpoints each failed with EMSGSIZE, 300 passed.
const CHANGES: usize = 200;

/// A set of rules in the form that can be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// Chains by name, with their one rule.
    chains: BTreeMap<String, String>,
    /// Elements of the two maps: `map`, key, chain.
    elements: BTreeMap<(&'static str, String), String>,
    /// Pods that may reach themselves through a Service.
    hairpins: BTreeSet<Ipv4Addr>,
}

impl Rules {
    /// The rules for these Services. Of two that claim the same address and port, the first by name gets it.
    pub(super) fn new(services: &[Service]) -> Self {
        let mut sorted: Vec<&Service> = services.iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        let mut rules = Self::default();
        for service in sorted {
            for port in &service.ports {
                rules.add(service, port);
            }
        }
        rules
    }

    fn add(&mut self, service: &Service, port: &Port) {
        if port.endpoints.is_empty() {
            return;
        }
        let protocol = port.protocol.as_str();
        // Whatever leads to the same endpoints shares their chain.
        let name =
            format!("{}_{protocol}_{}", service.name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"), port.port);
        let pick = format!("s_{name}");
        if self.chains.contains_key(&pick) {
            tracing::warn!(
                service = service.name,
                port = port.port,
                "a second Service of this name and port is left out"
            );
            return;
        }
        self.chains.insert(pick.clone(), choice(port.protocol, &port.endpoints));
        self.hairpins.extend(port.endpoints.iter().map(|endpoint| *endpoint.ip()));

        let on = |address: Ipv4Addr| ("services", format!("{address} . {protocol} . {}", port.port));
        let mut elements: Vec<_> = service.cluster_ip.map(|ip| (on(ip), None)).into_iter().collect();
        elements.extend(service.external.iter().map(|balancer| (on(balancer.ip), Some(balancer.policy))));
        // Not part of a load balancer, but ruled by the same field.
        let policy = service.external.first().map_or(Policy::Cluster, |balancer| balancer.policy);
        elements.extend(port.node_port.map(|number| (("nodeports", format!("{protocol} . {number}")), Some(policy))));
        for (element, policy) in elements {
            let chain = match policy {
                Some(Policy::Cluster) => {
                    let rewrite = format!("x_{name}");
                    let rule = format!("meta mark set meta mark or {REWRITE:#x} goto {pick}");
                    self.chains.insert(rewrite.clone(), rule);
                    rewrite
                }
                Some(Policy::Local) | None => pick.clone(),
            };
            self.elements.entry(element).or_insert(chain);
        }
    }
}

/// The rule that picks an endpoint.
fn choice(protocol: Protocol, endpoints: &[SocketAddrV4]) -> String {
    let protocol = protocol.as_str();
    if let [only] = endpoints {
        return format!("meta l4proto {protocol} dnat to {only}");
    }
    let mut rule =
        format!("meta l4proto {protocol} dnat ip addr . port to numgen random mod {} map {{ ", endpoints.len());
    for (index, endpoint) in endpoints.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(rule, "{comma}{index} : {} . {}", endpoint.ip(), endpoint.port());
    }
    rule + " }"
}

/// The script that makes the table, without any Service, and drops what it had.
pub(super) fn base() -> String {
    format!(
        "\
add table ip svc
delete table ip svc
table ip svc {{
  map services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map nodeports {{ type inet_proto . inet_service : verdict; }}
  set hairpins {{ type ipv4_addr . ipv4_addr; }}
  chain serve {{
    ip daddr . meta l4proto . th dport vmap @services
    ip daddr {NODE} meta l4proto . th dport vmap @nodeports
  }}
  chain refuse {{
    ip daddr {{ {API_SERVER}, {DNS} }} accept
    ip daddr {{ {SERVICES}, {LOAD_BALANCERS} }} meta l4proto tcp reject with tcp reset
    ip daddr {{ {SERVICES}, {LOAD_BALANCERS} }} reject
  }}
  chain serve_forwarded {{ type nat hook prerouting priority -100; jump serve; }}
  chain serve_own {{ type nat hook output priority -100; jump serve; }}
  # Behind the address translation, and before routing, which would find no host.
  chain refuse_forwarded {{ type filter hook prerouting priority -90; jump refuse; }}
  chain refuse_own {{ type filter hook output priority -90; jump refuse; }}
  chain rewrite {{
    type nat hook postrouting priority 100;
    meta mark and {REWRITE:#x} == {REWRITE:#x} snat to {NODE}
    ct status dnat ip saddr . ip daddr @hairpins snat to {NODE}
    ip saddr {PODS} ip daddr {OUTSIDE} snat to {NODE}
  }}
}}
"
    )
}

/// The scripts that lead from one set of rules to another. Each is a transaction, and each point between two of them is
/// a valid state: chains are there before they are used, and unused before they go.
pub(super) fn difference(from: &Rules, to: &Rules) -> Vec<String> {
    let new = |name: &&String| !from.chains.contains_key(*name);
    let mut changes: Vec<String> =
        to.chains.keys().filter(new).map(|name| format!("add chain ip svc {name}\n")).collect();
    for (name, rule) in &to.chains {
        match from.chains.get(name) {
            Some(old) if old == rule => {}
            Some(_) => changes.push(format!("flush chain ip svc {name}\nadd rule ip svc {name} {rule}\n")),
            None => changes.push(format!("add rule ip svc {name} {rule}\n")),
        }
    }
    for ip in to.hairpins.difference(&from.hairpins) {
        changes.push(format!("add element ip svc hairpins {{ {ip} . {ip} }}\n"));
    }
    for ((map, key), chain) in &to.elements {
        let old = from.elements.get(&(*map, key.clone()));
        if old == Some(chain) {
            continue;
        }
        let mut change = String::new();
        if let Some(old) = old {
            change = format!("delete element ip svc {map} {{ {key} : goto {old} }}\n");
        }
        changes.push(change + &format!("add element ip svc {map} {{ {key} : goto {chain} }}\n"));
    }
    for ((map, key), chain) in &from.elements {
        if !to.elements.contains_key(&(*map, key.clone())) {
            changes.push(format!("delete element ip svc {map} {{ {key} : goto {chain} }}\n"));
        }
    }
    for ip in from.hairpins.difference(&to.hairpins) {
        changes.push(format!("delete element ip svc hairpins {{ {ip} . {ip} }}\n"));
    }
    let gone: Vec<&String> = from.chains.keys().filter(|name| !to.chains.contains_key(*name)).collect();
    // All are emptied before the first goes: they refer to each other.
    changes.extend(gone.iter().map(|name| format!("flush chain ip svc {name}\n")));
    changes.extend(gone.iter().map(|name| format!("delete chain ip svc {name}\n")));
    changes.chunks(CHANGES).map(|chunk| chunk.concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::LoadBalancer;

    fn service(endpoints: &[u8], policy: Policy) -> Service {
        Service {
            name: "shop/web".into(),
            cluster_ip: Some(Ipv4Addr::new(10, 96, 1, 1)),
            external: vec![LoadBalancer { ip: Ipv4Addr::new(203, 0, 113, 10), policy }],
            ports: vec![Port {
                protocol: Protocol::Tcp,
                port: 80,
                node_port: Some(30080),
                endpoints: endpoints.iter().map(|last| SocketAddrV4::new([10, 244, 0, *last].into(), 8080)).collect(),
            }],
        }
    }

    #[test]
    fn nothing_changes_when_nothing_changed() {
        let rules = Rules::new(&[service(&[2, 3], Policy::Cluster)]);
        assert!(difference(&rules, &rules.clone()).is_empty());
    }

    #[test]
    fn an_endpoint_change_touches_its_chain_only() {
        let from = Rules::new(&[service(&[2, 3], Policy::Cluster)]);
        let to = Rules::new(&[service(&[2], Policy::Cluster)]);
        assert_eq!(
            difference(&from, &to).concat(),
            "flush chain ip svc s_shop_web_tcp_80\n\
             add rule ip svc s_shop_web_tcp_80 meta l4proto tcp dnat to 10.244.0.2:8080\n\
             delete element ip svc hairpins { 10.244.0.3 . 10.244.0.3 }\n"
        );
    }

    #[test]
    fn the_policy_decides_whether_outside_connections_pass_the_marking_chain() {
        let cluster = Rules::new(&[service(&[2], Policy::Cluster)]);
        let local = Rules::new(&[service(&[2], Policy::Local)]);
        let outside = ("services", "203.0.113.10 . tcp . 80".to_owned());
        assert_eq!(cluster.elements[&outside], "x_shop_web_tcp_80");
        assert_eq!(local.elements[&outside], "s_shop_web_tcp_80");
        let script = difference(&cluster, &local).concat();
        assert!(script.contains(
            "delete element ip svc services { 203.0.113.10 . tcp . 80 : goto x_shop_web_tcp_80 }\n\
             add element ip svc services { 203.0.113.10 . tcp . 80 : goto s_shop_web_tcp_80 }\n"
        ));
        assert!(script.ends_with("delete chain ip svc x_shop_web_tcp_80\n"));
    }

    #[test]
    fn without_endpoints_there_is_no_rule_and_so_a_refusal() {
        assert_eq!(Rules::new(&[service(&[], Policy::Cluster)]), Rules::default());
    }

    #[test]
    fn large_changes_are_several_transactions() {
        let services: Vec<Service> = (0..500)
            .map(|index| Service {
                name: format!("shop/web-{index}"),
                cluster_ip: Some(Ipv4Addr::from_bits(SERVICES.network.to_bits() + 100 + index)),
                external: vec![],
                ..service(&[2, 3, 4], Policy::Cluster)
            })
            .collect();
        let scripts = difference(&Rules::default(), &Rules::new(&services));
        assert!(scripts.len() > 1);
        assert!(scripts.iter().all(|script| script.len() < 60_000), "{:?}", scripts.iter().map(String::len).max());
    }
}
