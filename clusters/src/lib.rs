//! The clusters that cases run on.
//!
//! [`Cluster`] is what the harness needs of one, whatever it is made of: a Kubernetes client, connections from
//! where clients are, and names that the outside world's DNS answers. [`embedded`] assembles the parts under
//! `embedded/` into a cluster inside this process. [`archive`] writes the images that clusters elsewhere need.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use async_trait::async_trait;
use tokio::net::TcpStream;

pub mod archive;
pub mod embedded;

/// Where a connection starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vantage {
    /// A client outside the cluster; there are two, 0 and 1, with addresses of their own.
    Outside(u8),
    /// The node: the test process itself, unmeshed.
    Node,
}

/// A running cluster.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// Its kind, as `--cluster` names it.
    fn kind(&self) -> &'static str;

    /// A client with full rights.
    fn client(&self) -> kube::Client;

    /// Connects from a vantage point to an address of the cluster.
    async fn connect(&self, from: Vantage, to: SocketAddr) -> io::Result<TcpStream>;

    /// The address that a vantage point's connections come from.
    fn address(&self, of: Vantage) -> Ipv4Addr;

    /// Makes DNS answer a name outside the cluster's domain with these addresses.
    fn set_external_name(&self, name: &str, addresses: &[Ipv4Addr]);

    /// Waits until Service rules and DNS have caught up with everything written to the API so far.
    async fn settled(&self);

    /// kubectl with full rights, where there is one.
    fn kubectl(&self) -> Option<Kubectl>;
}

/// A kubectl and what it needs to reach a cluster from where the cases run.
#[derive(Clone)]
pub struct Kubectl {
    /// The program.
    pub program: PathBuf,
    /// The content of its kubeconfig. It holds credentials.
    pub kubeconfig: String,
}
