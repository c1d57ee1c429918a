//! The cluster itself, inside its namespaces.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use meshgate_clusters::embedded::Embedded;
use meshgate_clusters::{Cluster, Vantage};
use meshgate_net::namespaces;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// The API server's socket in the cluster's folder.
pub const API_SOCKET: &str = "api.sock";
/// The socket in the cluster's folder that leads to the first load balancer.
pub const INGRESS_SOCKET: &str = "ingress.sock";

/// The socket in the cluster's folder that leads to a port of the node.
pub fn node_socket(port: u16) -> String {
    format!("node-{port}.sock")
}

/// The name of the role.
pub const ROLE: &str = "cluster-inside";

/// What the inside is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The cluster's folder.
    pub dir: PathBuf,
    /// Where the host reaches the API.
    pub url: String,
    /// Ports of the node that the host reaches.
    pub node_ports: Vec<u16>,
    /// From `prepare`.
    pub prepared: meshgate_clusters::embedded::Prepared,
}

/// Starts the cluster, writes its kubeconfig, tells `ready`, and serves until standard input closes.
pub fn execute(spec: &Spec) -> anyhow::Result<()> {
    namespaces::enter()?;
    namespaces::exit_when_stdin_closes();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let bind = |name: &str| {
            UnixListener::bind(spec.dir.join(name)).with_context(|| spec.dir.join(name).display().to_string())
        };
        let (api, ingress) = (bind(API_SOCKET)?, bind(INGRESS_SOCKET)?);
        let mut doors = vec![(ingress, Door::LoadBalancer)];
        for port in &spec.node_ports {
            doors.push((bind(&node_socket(*port))?, Door::Node(*port)));
        }
        let cluster = Arc::new(Embedded::start_with(spec.prepared.clone(), vec![api]).await?);
        let path = spec.dir.join("kubeconfig");
        // Whoever can read it is an administrator.
        let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
        file.write_all(cluster.kubeconfig(&spec.url).as_bytes())?;
        println!("ready");
        let mut served = JoinSet::new();
        for (listener, door) in doors {
            served.spawn(serve(listener, door, Arc::clone(&cluster)));
        }
        served.join_next().await.context("no socket to serve")??
    })
}

/// Where a socket of the cluster's folder leads.
#[derive(Clone, Copy, Debug)]
enum Door {
    /// To port 80 of the first load balancer.
    LoadBalancer,
    /// To a port of the node.
    Node(u16),
}

async fn serve(listener: UnixListener, door: Door, cluster: Arc<Embedded>) -> anyhow::Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        let cluster = Arc::clone(&cluster);
        tokio::spawn(async move {
            if let Err(error) = lead(client, door, &cluster).await {
                eprintln!("{door:?}: {error:#}");
            }
        });
    }
}

async fn lead(mut client: UnixStream, door: Door, cluster: &Embedded) -> anyhow::Result<()> {
    let to = match door {
        Door::LoadBalancer => SocketAddr::from((first_load_balancer(cluster).await?, 80)),
        Door::Node(port) => SocketAddr::from((meshgate_net::NODE, port)),
    };
    let mut stream = cluster.connect(Vantage::Outside(0), to).await?;
    tokio::io::copy_bidirectional(&mut client, &mut stream).await?;
    Ok(())
}

/// The first external address of a Service of type LoadBalancer, by namespace and name.
async fn first_load_balancer(cluster: &Embedded) -> anyhow::Result<Ipv4Addr> {
    let services = meshgate_store::GroupResource::new("", "services");
    let listing = cluster.store().list(&services, None, &Default::default())?;
    listing
        .items
        .iter()
        .find_map(|service| service.pointer("/status/loadBalancer/ingress/0/ip")?.as_str()?.parse().ok())
        .context("no Service of type LoadBalancer has an address yet")
}
