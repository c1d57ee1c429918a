//! The clusters that cases run on.
//!
//! [`Cluster`] is what the harness needs of one, whatever it is made of: a Kubernetes client, connections from
//! where clients are, and names that the outside world's DNS answers. [`embedded`] assembles the parts under
//! `embedded/` into a cluster inside this process; [`remote`] is any cluster that a kubeconfig leads to, by its API alone.
//! [`archive`] writes the images that clusters elsewhere need.
//! [`kind`] and [`k3s`] make such clusters with the help of others, and unmake them.
//!
//! A run prepares a [`Backend`] once and hands it to every cell, which opens it: **arguments → [`Backend`] → [`Cluster`]**.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
pub use client::PROXIES;
use k8s_openapi::api::core::v1::Service;
pub use meshgate_images::{Feature, Lack, Player};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
pub use told::told;

pub mod archive;
mod client;
pub mod command;
pub mod embedded;
pub mod helm;
pub mod k3s;
pub mod kind;
pub mod lease;
pub mod linkerd;
pub mod manifests;
pub mod provision;
pub mod remote;
pub mod scratch;
mod told;

/// The kinds of clusters, as `--cluster` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Inside the process of a cell.
    Embedded,
    /// Made by [`kind`].
    Kind,
    /// Made by [`k3s`].
    K3s,
    /// Whatever a kubeconfig leads to.
    Existing,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Embedded, Self::Kind, Self::K3s, Self::Existing];

    /// As reports and the command line name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Kind => "kind",
            Self::K3s => "k3s",
            Self::Existing => "existing",
        }
    }

    /// How many times as long as on the embedded cluster things may take there: its parts run on several machines, or in containers, and learn
    /// of each other by watches and in rounds.
    pub fn pace(self) -> u32 {
        match self {
            Self::Embedded => 1,
            Self::Kind | Self::K3s | Self::Existing => 3,
        }
    }

    /// `None` when such a cluster has the ability, else why a case that needs it does not apply there.
    pub fn lacks(self, ability: Ability) -> Option<&'static str> {
        match (self, ability) {
            (Self::Embedded, _) => None,
            (Self::Kind | Self::K3s, Ability::LoadBalancers) => {
                Some("nothing there gives Services of type LoadBalancer an address, so there is none to be published")
            }
            (Self::Existing, Ability::LoadBalancers) => None,
            (_, Ability::OutsideNames) => Some("a cluster's DNS cannot be told names of the outside world by its API"),
            (_, Ability::OutsideClients) => {
                Some("requests start in pods of the cluster, so no load balancer is between them and the controller")
            }
            (_, Ability::PodProcesses) => Some(
                "the image of a proxy has no shell there, and nothing in a container can kill the container's first process",
            ),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What not every kind of cluster can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    /// [`Cluster::set_external_name`].
    OutsideNames,
    /// Clients outside the cluster, who come by a load balancer's address.
    OutsideClients,
    /// Something may give Services of type LoadBalancer their addresses. Whether anything does shows only there.
    LoadBalancers,
    /// A command in a container has the machine's tools, and sees and may kill every process of the pod.
    PodProcesses,
}

/// Where a connection starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vantage {
    /// A client outside the mesh and, where the cluster has [`Ability::OutsideClients`], outside the cluster; there are two, 0 and 1,
    /// with addresses of their own.
    Outside(u8),
    /// The node, unmeshed: the test process itself, or a pod where that cannot reach the cluster's addresses.
    Node,
}

/// A connection into the cluster.
pub trait Connection: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Connection for T {}

/// A connection of any make.
pub type Stream = Pin<Box<dyn Connection>>;

/// Where a Service's clients come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entrance {
    /// The address.
    pub ip: Ipv4Addr,
    /// By the Service's port, the one at which it is reached there; the same one when it is not here.
    pub ports: BTreeMap<u16, u16>,
}

impl Entrance {
    /// An address at which all ports are the Service's own.
    pub fn of(ip: Ipv4Addr) -> Self {
        Self { ip, ports: BTreeMap::new() }
    }

    /// Where a port of the Service is reached.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.ip, self.ports.get(&port).copied().unwrap_or(port)))
    }

    /// Whether a connection to this address comes in here.
    pub fn admits(&self, to: SocketAddr) -> bool {
        self.ip == to.ip() && (self.ports.is_empty() || self.ports.values().any(|port| *port == to.port()))
    }
}

/// A running cluster.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// Its kind.
    fn kind(&self) -> Kind;

    /// A client with full rights.
    fn client(&self) -> kube::Client;

    /// Connects from a vantage point to an address of the cluster.
    async fn connect(&self, from: Vantage, to: SocketAddr) -> io::Result<Stream>;

    /// The address that a vantage point's connections come from.
    fn address(&self, of: Vantage) -> Ipv4Addr;

    /// Where [`Vantage::Outside`] reaches a Service of type LoadBalancer; `None` while that is not known.
    async fn entrance(&self, service: &Service) -> Option<Entrance>;

    /// Makes DNS answer a name outside the cluster's domain with these addresses, where the cluster has [`Ability::OutsideNames`].
    fn set_external_name(&self, name: &str, addresses: &[Ipv4Addr]);

    /// Waits until Service rules and DNS have caught up with everything written to the API so far.
    ///
    /// # Errors
    /// When the cluster does not get there.
    async fn settled(&self) -> io::Result<()>;

    /// Waits until the cluster can be reached, and tells how often the way to it was made so far. Where that is not what it was before, nobody
    /// knows what became of what was under way in between.
    ///
    /// # Errors
    /// Why it cannot be reached.
    async fn reached(&self) -> io::Result<u64> {
        Ok(0)
    }

    /// kubectl with full rights, where there is one.
    fn kubectl(&self) -> Option<Kubectl>;

    /// The image of Meshgate itself there.
    fn image(&self) -> &str;

    /// The labels of the nodes that pods are to be on; none where all nodes are alike.
    fn placement(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

/// The address of a Service's load balancer.
fn balancer(service: &Service) -> Option<Ipv4Addr> {
    let balancer = service.status.as_ref()?.load_balancer.as_ref()?;
    balancer.ingress.as_ref()?.first()?.ip.as_ref()?.parse().ok()
}

/// A kubectl and what it needs to reach a cluster from where the cases run.
#[derive(Clone)]
pub struct Kubectl {
    /// The program.
    pub program: PathBuf,
    /// The content of its kubeconfig. It holds credentials.
    pub kubeconfig: String,
}

/// Meshgate's own image, where nothing else is said.
pub const IMAGE: &str = "meshgate.dev/meshgate:dev";

/// A cluster as one process tells another how to open it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// One of the process' own, from what was prepared for it.
    Embedded(embedded::Prepared),
    /// One that is there.
    Remote(remote::Reach),
}

/// Why a cluster could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The embedded one.
    #[error(transparent)]
    Embedded(#[from] embedded::EmbeddedError),
    /// One that is there.
    #[error(transparent)]
    Remote(#[from] remote::RemoteError),
}

impl Backend {
    /// Whether the process that opens it has to enter namespaces first.
    pub fn needs_namespaces(&self) -> bool {
        matches!(self, Self::Embedded(_))
    }

    /// Whether the controller is to have the node ports [`kind::PUBLISHED`].
    pub fn publishes(&self) -> bool {
        matches!(self, Self::Remote(reach) if reach.publishes)
    }

    /// Opens it; one that is there is swept clean of what a cell before left. `progress` hears what is being done.
    ///
    /// # Errors
    /// The backend's own.
    pub async fn open(self, progress: &dyn Fn(&str)) -> Result<Arc<dyn Cluster>, OpenError> {
        Ok(match self {
            Self::Embedded(prepared) => Arc::new(embedded::Embedded::start(prepared).await?),
            Self::Remote(reach) => Arc::new(remote::Remote::open(reach, progress).await?),
        })
    }
}
