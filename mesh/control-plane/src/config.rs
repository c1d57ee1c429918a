//! The command line and environment of the role.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use crate::{Authority, Cluster, IdentityDomain, Validity};

/// Where to listen and what the cluster is called. Every value has an environment variable, as the Deployment sets it.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Address of the Destination service.
    #[arg(long, env = "MESHGATE_DESTINATION_ADDR", default_value = "0.0.0.0:8086")]
    pub destination_addr: SocketAddr,
    /// Address of the policy services.
    #[arg(long, env = "MESHGATE_POLICY_ADDR", default_value = "0.0.0.0:8090")]
    pub policy_addr: SocketAddr,
    /// Address of the identity service.
    #[arg(long, env = "MESHGATE_IDENTITY_ADDR", default_value = "0.0.0.0:8080")]
    pub identity_addr: SocketAddr,
    /// Folder with the issuer's `tls.crt` and `tls.key`. Without it there is no identity service.
    #[arg(long, env = "MESHGATE_IDENTITY_ISSUER_DIR")]
    pub identity_issuer_dir: Option<PathBuf>,
    /// Seconds that a certificate is valid.
    #[arg(long, env = "MESHGATE_IDENTITY_LIFETIME", default_value = "86400")]
    pub identity_lifetime: u32,
    /// Seconds that it is valid before and after that, because clocks of a cluster differ.
    #[arg(long, env = "MESHGATE_IDENTITY_CLOCK_SKEW", default_value = "20")]
    pub identity_clock_skew: u32,
    /// The control plane's own namespace, which is in every identity.
    #[arg(long, env = "MESHGATE_CONTROL_PLANE_NAMESPACE", default_value = "linkerd")]
    pub namespace: String,
    /// What this replica is called in Leases: the name of its pod, which Kubernetes sets.
    #[arg(long, env = "HOSTNAME", default_value = "control-plane")]
    pub hostname: String,
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
    /// The namespace whose EgressNetworks are for clients of every namespace that has none of its own.
    #[arg(long, env = "MESHGATE_EGRESS_NAMESPACE", default_value = "linkerd-egress")]
    pub egress_namespace: String,
    /// Requests may say themselves how long they may take and when they are sent again, by headers such as l5d-timeout and l5d-retry-http.
    #[arg(long, env = "MESHGATE_ALLOW_L5D_REQUEST_HEADERS")]
    pub allow_l5d_request_headers: bool,
}

impl Config {
    /// Who issues certificates, if anybody does.
    pub(crate) fn authority(&self, client: kube::Client) -> anyhow::Result<Option<Authority>> {
        let Some(folder) = &self.identity_issuer_dir else { return Ok(None) };
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let validity =
            Validity { lifetime: seconds(self.identity_lifetime), clock_skew: seconds(self.identity_clock_skew) };
        Authority::read(folder, self.identity_domain(), validity, client).map(Some)
    }

    fn identity_domain(&self) -> IdentityDomain {
        IdentityDomain { control_plane_namespace: self.namespace.clone(), trust_domain: self.domain() }
    }

    fn domain(&self) -> String {
        self.cluster_domain.trim_end_matches('.').to_ascii_lowercase()
    }

    /// The facts about the cluster that answers depend on.
    pub fn cluster(&self) -> Cluster {
        Cluster {
            domain: self.domain(),
            networks: self.cluster_networks.clone(),
            egress_namespace: self.egress_namespace.clone(),
            identity: self.identity_issuer_dir.is_some().then(|| self.identity_domain()),
            allow_l5d_request_headers: self.allow_l5d_request_headers,
            ..Cluster::default()
        }
    }
}
