//! The command line and environment of the role.

use std::net::SocketAddr;

use clap::Args;
use ipnet::IpNet;

use crate::Cluster;

/// Where to listen and what the cluster is called. Every value has an environment variable, as the Deployment sets it.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Address of the Destination service.
    #[arg(long, env = "MESHGATE_DESTINATION_ADDR", default_value = "0.0.0.0:8086")]
    pub destination_addr: SocketAddr,
    /// Address of the policy services.
    #[arg(long, env = "MESHGATE_POLICY_ADDR", default_value = "0.0.0.0:8090")]
    pub policy_addr: SocketAddr,
    /// Address of /ready, /live and /metrics.
    #[arg(long, env = "MESHGATE_CONTROL_PLANE_ADMIN_ADDR", default_value = "0.0.0.0:9996")]
    pub admin_addr: SocketAddr,
    /// The cluster's DNS domain.
    #[arg(long, env = "MESHGATE_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Networks of the cluster, separated by commas.
    #[arg(
        long,
        env = "MESHGATE_CLUSTER_NETWORKS",
        value_delimiter = ',',
        default_value = "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8"
    )]
    pub cluster_networks: Vec<IpNet>,
}

impl Config {
    /// The facts about the cluster that answers depend on.
    pub fn cluster(&self) -> Cluster {
        Cluster {
            domain: self.cluster_domain.trim_end_matches('.').to_ascii_lowercase(),
            networks: self.cluster_networks.clone(),
            ..Cluster::default()
        }
    }
}
