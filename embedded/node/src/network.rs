//! The cluster's network as the node uses it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use meshgate_net::{Dialer, Netns, NetworkError};
use tokio::net::TcpStream;

use crate::kinds;
use crate::services::Picture;

/// A pod's place in the network.
pub(crate) struct PodNetwork {
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its namespace.
    pub netns: Arc<Netns>,
}

/// Why a pod has no network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodNetworkError {
    /// The network refused.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The node's own namespace cannot be held.
    #[error("cannot open the node's network namespace: {0}")]
    Own(#[from] io::Error),
}

/// The network, with the node's own namespace for pods that ask for it.
#[derive(Clone)]
pub(crate) struct Network {
    inner: Arc<meshgate_net::Network>,
}

impl Network {
    /// Wraps the cluster's network.
    pub(crate) fn new(inner: Arc<meshgate_net::Network>) -> Self {
        Self { inner }
    }

    /// A place for a pod; the node's own with `hostNetwork`.
    pub(crate) async fn add(&self, key: &str, host: bool) -> Result<PodNetwork, PodNetworkError> {
        if host {
            return Ok(PodNetwork { ip: kinds::NODE_IP, netns: Arc::new(Netns::current()?) });
        }
        let pod = self.inner.add_pod(key).await?;
        Ok(PodNetwork { ip: pod.ip, netns: pod.netns })
    }

    /// Gives a pod's place back; does nothing for one that has none.
    pub(crate) async fn remove(&self, key: &str) {
        self.inner.remove_pod(key).await;
    }

    /// Makes rules and names what a picture shows.
    pub(crate) async fn apply(&self, picture: &Picture) -> Result<(), NetworkError> {
        self.inner.dns().set_cluster(picture.names.clone());
        self.inner.set_services(picture.services.clone()).await
    }
}

impl PodNetwork {
    /// Connects to a port on the pod's own loopback.
    pub(crate) async fn connect_loopback(&self, port: u16) -> io::Result<TcpStream> {
        Dialer::new(self.netns.clone())?.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
    }
}
