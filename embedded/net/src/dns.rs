//! DNS as CoreDNS answers it in a cluster: names of Services and pods below `cluster.local`, and a few outside names.
//!
//! The server is authoritative for everything it knows and forwards nothing: the cluster has no way out. Search paths
//! are the client's business, as everywhere.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use zone::Zone;

mod answer;
mod server;
mod zone;

/// Why DNS could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for DNS: {cause}; is the address on a link of this namespace?")]
pub struct DnsError {
    address: SocketAddr,
    cause: io::Error,
}

/// A DNS server over UDP and TCP. It ends when dropped.
pub struct Dns {
    zone: Arc<RwLock<Zone>>,
    address: SocketAddr,
    /// Aborted on drop.
    _servers: JoinSet<()>,
}

impl Dns {
    /// Listens on an address of the calling thread's namespace; port 0 chooses one, the same for both.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(address: SocketAddr) -> Result<Self, DnsError> {
        let failed = |cause| DnsError { address, cause };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let udp = UdpSocket::bind(address).await.map_err(failed)?;
        let zone = Arc::new(RwLock::new(Zone::default()));
        let mut servers = JoinSet::new();
        servers.spawn(server::udp(udp, zone.clone()));
        servers.spawn(server::tcp(tcp, zone.clone()));
        Ok(Self { zone, address, _servers: servers })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces all names of the cluster with an address: `web.shop.svc.cluster.local`, any case, no final dot.
    pub fn set_cluster(&self, names: HashMap<String, Vec<Ipv4Addr>>) {
        self.zone.write().set_cluster(names);
    }

    /// Replaces all names of the cluster that lead to ports (SRV): `_http._tcp.web.shop.svc.cluster.local` to port and
    /// target.
    pub fn set_cluster_ports(&self, names: HashMap<String, Vec<(u16, String)>>) {
        self.zone.write().set_cluster_ports(names);
    }

    /// Sets the addresses of a name outside the cluster; without addresses the name does not exist any more.
    pub fn set_external(&self, name: &str, addresses: &[Ipv4Addr]) {
        self.zone.write().set_external(name, addresses);
    }
}
