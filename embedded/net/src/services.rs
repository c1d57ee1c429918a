//! Services as nft rules in the node's namespace: what kube-proxy does.
//!
//! One table, a chain per Service port, a map from address and port to chain. A change replaces the chains that differ in one
//! transaction of `nft -f -`. ClusterIPs are rewritten before routing, so a mesh proxy that redirects inside the pod's own
//! namespace still sees them as the original destination. What belongs to no Service is refused at once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::network::{NODE, NetworkConfig, NetworkError};

/// A Service, as far as the network is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `namespace/name`, for comments in the rules.
    pub name: String,
    /// Its ClusterIP; `None` for headless ones.
    pub cluster_ip: Option<Ipv4Addr>,
    /// Its external addresses.
    pub external: Vec<LoadBalancer>,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// An external address of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// The address.
    pub ip: Ipv4Addr,
    /// What happens to the client's address.
    pub policy: Policy,
}

/// `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The source becomes the node's address.
    Cluster,
    /// The source stays the client's.
    Local,
}

/// `protocol` of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The Service's port.
    pub port: u16,
    /// The port on the node's own address.
    pub node_port: Option<u16>,
    /// Where connections go; none refuses them.
    pub endpoints: Vec<SocketAddrV4>,
}

/// The rules in force.
pub(crate) struct Rules {
    config: NetworkConfig,
    state: Mutex<State>,
}

#[derive(Default, PartialEq)]
struct State {
    /// Chain name to the endpoints that it balances over.
    chains: BTreeMap<String, Chain>,
    /// `ip . protocol . port` to verdict.
    services: BTreeMap<String, String>,
    /// Endpoint addresses, which get to themselves through a Service only with their source rewritten.
    endpoints: std::collections::BTreeSet<Ipv4Addr>,
}

#[derive(Clone, PartialEq)]
struct Chain {
    protocol: Protocol,
    endpoints: Vec<SocketAddrV4>,
    masquerade: bool,
}

/// The table without Services. `snat` names the node's address, where `masquerade` would take any address of the link's
/// neighbours.
const BASE: &str = "
table ip svc {
  map services { type ipv4_addr . inet_proto . inet_service : verdict; }
  set hairpin { type ipv4_addr . ipv4_addr; }
  chain pre { type nat hook prerouting priority -100; ip daddr . meta l4proto . th dport vmap @services; }
  chain out { type nat hook output priority -100; ip daddr . meta l4proto . th dport vmap @services; }
  chain refuse { type filter hook prerouting priority -90; ct state established,related accept; ip daddr { 10.96.0.1, 10.96.0.10 } accept; ip daddr { 10.96.0.0/16, 203.0.113.0/24 } jump no; }
  chain refuse_own { type filter hook output priority -90; ct state established,related accept; ip daddr { 10.96.0.1, 10.96.0.10 } accept; ip daddr { 10.96.0.0/16, 203.0.113.0/24 } jump no; }
  chain no { meta l4proto tcp reject with tcp reset; reject; }
  chain post { type nat hook postrouting priority 100;
    ct mark 0x4d47 snat to 172.18.0.2
    ct status dnat ip saddr . ip daddr @hairpin snat to 172.18.0.2
    ip saddr 10.244.0.0/16 ip daddr 198.51.100.0/24 snat to 172.18.0.2
  }
}
";

impl Rules {
    pub(crate) async fn start(config: &NetworkConfig) -> Result<Self, NetworkError> {
        let rules = Self { config: config.clone(), state: Mutex::default() };
        rules.nft(BASE).await?;
        Ok(rules)
    }

    pub(crate) async fn set(&self, services: Vec<Service>) -> Result<(), NetworkError> {
        let wanted = State::of(&services);
        let mut state = self.state.lock().await;
        let script = state.change_to(&wanted);
        if !script.is_empty() {
            self.nft(&script).await?;
            *state = wanted;
        }
        Ok(())
    }

    async fn nft(&self, script: &str) -> Result<(), NetworkError> {
        let failed = |what: String| NetworkError::Nft(what);
        let mut child = Command::new(&self.config.nft)
            .args(["-f", "-"])
            .envs(self.config.nft_env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("{} cannot be run: {error}", self.config.nft.display())))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(script.as_bytes()).await.map_err(|error| failed(error.to_string()))?;
        }
        let output = child.wait_with_output().await.map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(failed(format!("{}\nin: {script}", String::from_utf8_lossy(&output.stderr).trim())))
    }
}

impl State {
    fn of(services: &[Service]) -> Self {
        let mut state = Self::default();
        for service in services {
            for port in &service.ports {
                let mut addresses = Vec::new();
                addresses.extend(service.cluster_ip.map(|ip| (ip, port.port, false)));
                addresses.extend(
                    service
                        .external
                        .iter()
                        .map(|balancer| (balancer.ip, port.port, balancer.policy == Policy::Cluster)),
                );
                addresses.extend(port.node_port.map(|node_port| (NODE, node_port, true)));
                for (ip, number, masquerade) in addresses {
                    if port.endpoints.is_empty() {
                        continue;
                    }
                    let name = format!("s_{}_{}_{number}", ip.to_string().replace('.', "_"), port.protocol.as_str());
                    let chain = Chain { protocol: port.protocol, endpoints: port.endpoints.clone(), masquerade };
                    state
                        .services
                        .insert(format!("{ip} . {} . {number}", port.protocol.as_str()), format!("goto {name}"));
                    state.chains.insert(name, chain);
                }
                state.endpoints.extend(port.endpoints.iter().map(|endpoint| *endpoint.ip()));
            }
        }
        state
    }

    /// The transaction that turns these rules into others.
    fn change_to(&self, wanted: &Self) -> String {
        let mut script = String::new();
        // Writing to a String cannot fail.
        let mut line = |text: std::fmt::Arguments<'_>| {
            let _ = writeln!(script, "{text}");
        };
        for (key, verdict) in &self.services {
            if wanted.services.get(key) != Some(verdict) {
                line(format_args!("delete element ip svc services {{ {key} : {verdict} }}"));
            }
        }
        for (name, chain) in &wanted.chains {
            match self.chains.get(name) {
                Some(old) if old == chain => continue,
                Some(_) => line(format_args!("flush chain ip svc {name}")),
                None => line(format_args!("add chain ip svc {name}")),
            }
            for rule in chain.rules() {
                line(format_args!("add rule ip svc {name} {rule}"));
            }
        }
        for name in self.chains.keys().filter(|name| !wanted.chains.contains_key(*name)) {
            line(format_args!("delete chain ip svc {name}"));
        }
        for (key, verdict) in &wanted.services {
            if self.services.get(key) != Some(verdict) {
                line(format_args!("add element ip svc services {{ {key} : {verdict} }}"));
            }
        }
        let pairs = |list: Vec<&Ipv4Addr>| list.iter().map(|ip| format!("{ip} . {ip}")).collect::<Vec<_>>().join(", ");
        let gone = pairs(self.endpoints.difference(&wanted.endpoints).collect());
        let new = pairs(wanted.endpoints.difference(&self.endpoints).collect());
        if !gone.is_empty() {
            line(format_args!("delete element ip svc hairpin {{ {gone} }}"));
        }
        if !new.is_empty() {
            line(format_args!("add element ip svc hairpin {{ {new} }}"));
        }
        script
    }
}

impl Chain {
    fn rules(&self) -> Vec<String> {
        let mut rules = Vec::new();
        if self.masquerade {
            rules.push("ct mark set 0x4d47".to_owned());
        }
        let protocol = self.protocol.as_str();
        rules.push(match self.endpoints.as_slice() {
            [only] => format!("meta l4proto {protocol} dnat to {only}"),
            many => {
                let choices: Vec<String> = many
                    .iter()
                    .enumerate()
                    .map(|(index, endpoint)| format!("{index} : {} . {}", endpoint.ip(), endpoint.port()))
                    .collect();
                format!(
                    "meta l4proto {protocol} dnat ip addr . port to numgen random mod {} map {{ {} }}",
                    many.len(),
                    choices.join(", ")
                )
            }
        });
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(endpoints: &[&str]) -> Service {
        Service {
            name: "default/web".into(),
            cluster_ip: Some(Ipv4Addr::new(10, 96, 1, 1)),
            external: vec![],
            ports: vec![Port {
                protocol: Protocol::Tcp,
                port: 80,
                node_port: None,
                endpoints: endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect(),
            }],
        }
    }

    #[test]
    fn only_what_differs_is_changed() {
        let none = State::default();
        let one = State::of(&[service(&["10.244.0.2:8080"])]);
        let two = State::of(&[service(&["10.244.0.2:8080", "10.244.0.3:8080"])]);
        assert_eq!(one.change_to(&one), "");
        let added = none.change_to(&one);
        assert!(added.contains("add chain ip svc s_10_96_1_1_tcp_80\n"), "{added}");
        assert!(added.ends_with("add element ip svc hairpin { 10.244.0.2 . 10.244.0.2 }\n"), "{added}");
        let grown = one.change_to(&two);
        assert!(grown.starts_with("flush chain ip svc s_10_96_1_1_tcp_80\n"), "{grown}");
        assert!(!grown.contains("services"), "the map is untouched: {grown}");
        let gone = two.change_to(&none);
        assert!(gone.starts_with("delete element ip svc services"), "{gone}");
        assert!(gone.contains("delete chain ip svc s_10_96_1_1_tcp_80"), "{gone}");
    }

    #[test]
    fn a_service_without_endpoints_has_no_rule_and_is_refused() {
        assert!(State::of(&[service(&[])]).services.is_empty());
    }
}
