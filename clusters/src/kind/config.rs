//! The configuration that kind is given.

use serde_json::{Value, json};

use super::Options;

/// A port of the node that is reached on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The node's: a host port of a pod, or a NodePort.
    pub node: u16,
    /// This machine's; `None` takes a free one, which [`address`](super::KindCluster::address) tells.
    pub host: Option<u16>,
}

/// One node, whose API and ports nobody reaches from another machine. JSON is YAML, which kind reads.
///
/// The pods' and Services' addresses are those of the embedded cluster.
pub(super) fn config(options: &Options) -> Value {
    let mapping = |port: &Port| {
        let mut mapping = json!({"containerPort": port.node, "listenAddress": "127.0.0.1", "protocol": "TCP"});
        if let Some(host) = port.host {
            mapping["hostPort"] = host.into();
        }
        mapping
    };
    json!({
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {
            "ipFamily": "ipv4",
            "apiServerAddress": "127.0.0.1",
            "podSubnet": "10.244.0.0/16",
            "serviceSubnet": "10.96.0.0/16",
        },
        "nodes": [{
            "role": "control-plane",
            "extraPortMappings": options.ports.iter().map(mapping).collect::<Vec<_>>(),
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_published_beyond_this_machine() {
        let mut options = Options::new("meshgate-a").unwrap();
        options.ports = vec![Port { node: 30080, host: None }, Port { node: 443, host: Some(8443) }];
        let config = config(&options);
        assert_eq!(config["networking"]["apiServerAddress"], "127.0.0.1");
        assert_eq!(
            config["nodes"][0]["extraPortMappings"],
            json!([
                {"containerPort": 30080, "listenAddress": "127.0.0.1", "protocol": "TCP"},
                {"containerPort": 443, "hostPort": 8443, "listenAddress": "127.0.0.1", "protocol": "TCP"},
            ])
        );
    }
}
