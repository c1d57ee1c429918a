//! By which of a Service's addresses its clients come.

use std::fmt;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Node, Service};
use serde::{Deserialize, Serialize};

use crate::{Entrance, balancer};

/// Which address it is, as `--entrance` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// The one inside the cluster, which every cluster has.
    #[default]
    ClusterIp,
    /// A node's, at the ports of the node that the Service was given.
    NodePort,
    /// What the cluster's load balancer says in the Service's status. A name in place of an address is looked up from a pod, once.
    LoadBalancer,
}

impl By {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ClusterIp, Self::NodePort, Self::LoadBalancer];

    /// As the command line names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIp => "cluster-ip",
            Self::NodePort => "node-port",
            Self::LoadBalancer => "load-balancer",
        }
    }

    /// Where that is for a Service; `node` is the address of a node.
    pub(super) fn entrance(self, service: &Service, node: Option<Ipv4Addr>) -> Option<Entrance> {
        let spec = service.spec.as_ref()?;
        match self {
            Self::ClusterIp => Some(Entrance::of(spec.cluster_ip.as_ref()?.parse().ok()?)),
            Self::NodePort => {
                let ports = spec.ports.iter().flatten();
                let ports = ports.map(|port| Some((port.port.try_into().ok()?, port.node_port?.try_into().ok()?)));
                Some(Entrance { ip: node?, ports: ports.collect::<Option<_>>()? })
            }
            Self::LoadBalancer => balancer(service).map(Entrance::of),
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name that a load balancer has in place of an address, as those of AWS have.
pub(super) fn balancer_name(service: &Service) -> Option<&str> {
    let balancer = service.status.as_ref()?.load_balancer.as_ref()?;
    let ingress = balancer.ingress.as_ref()?.first()?;
    ingress.hostname.as_deref().filter(|_| ingress.ip.is_none())
}

/// The address in the cluster of the first node that is ready.
pub(super) fn address(nodes: &[Node]) -> Option<Ipv4Addr> {
    nodes.iter().filter_map(|node| node.status.as_ref()).find_map(|status| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
        let mut internal = status.addresses.iter().flatten().filter(|address| address.type_ == "InternalIP");
        internal.find_map(|address| address.address.parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(value: Value) -> Service {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn each_way_in() {
        let ports =
            json!([{"name": "http", "port": 80, "nodePort": 31080}, {"name": "https", "port": 443, "nodePort": 31443}]);
        let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}});
        let full = service(json!({"spec": {"clusterIP": "10.96.0.9", "ports": ports}, "status": status}));
        let node = Some(Ipv4Addr::new(172, 18, 0, 2));
        let at = |by: By| by.entrance(&full, node).map(|entrance| [80, 443].map(|port| entrance.at(port).to_string()));
        assert_eq!(at(By::ClusterIp), Some(["10.96.0.9:80", "10.96.0.9:443"].map(str::to_owned)));
        assert_eq!(at(By::NodePort), Some(["172.18.0.2:31080", "172.18.0.2:31443"].map(str::to_owned)));
        assert_eq!(at(By::LoadBalancer), Some(["192.0.2.7:80", "192.0.2.7:443"].map(str::to_owned)));

        // Not yet, or never: no address, no node port, no node, a name.
        let named = json!({"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}]}});
        let early = service(json!({"spec": {"ports": [{"port": 80}]}, "status": named}));
        for by in By::ALL {
            assert_eq!(by.entrance(&early, node), None, "{by}");
        }
        assert_eq!(By::NodePort.entrance(&full, None), None);
        assert_eq!((balancer_name(&early), balancer_name(&full)), (Some("lb.example.com"), None));
    }

    #[test]
    fn who_comes_in_there() {
        let balanced = Entrance::of(Ipv4Addr::new(192, 0, 2, 7));
        let node = Entrance { ip: Ipv4Addr::new(172, 18, 0, 2), ports: [(80, 31080)].into() };
        let admits = |entrance: &Entrance, to: &str| entrance.admits(to.parse().unwrap());
        assert!(admits(&balanced, "192.0.2.7:80") && !admits(&balanced, "192.0.2.8:80"));
        assert!(admits(&node, "172.18.0.2:31080") && !admits(&node, "172.18.0.2:80"), "a node has other ports");
    }

    #[test]
    fn a_node_that_is_ready() {
        let node = |ready: &str, kind: &str, address: &str| -> Node {
            serde_json::from_value(json!({"status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "addresses": [{"type": "Hostname", "address": "node"}, {"type": kind, "address": address}],
            }}))
            .unwrap()
        };
        let nodes = [node("False", "InternalIP", "10.0.0.1"), node("True", "InternalIP", "10.0.0.2")];
        assert_eq!(address(&nodes), Some(Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(address(&nodes[..1]), None);
        assert_eq!(address(&[node("True", "ExternalIP", "192.0.2.1")]), None);
    }
}
