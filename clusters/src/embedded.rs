//! The embedded cluster: the parts under `embedded/`, assembled into this process.
//!
//! Two halves, on the two sides of the namespaces: [`prepare`] runs outside, where there is a network, and finds the programs
//! that the cluster will run; [`Embedded::start`] runs inside and needs nothing but what was prepared.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Service;
use meshgate_api::{Credentials, Listener, Running, Server, ServerConfig};
use meshgate_images::{Catalogue, ImageError, Tool};
use meshgate_net::{Dialer, Netns, Network, NetworkConfig};
use meshgate_node::{Node, NodeConfig, Own, TokenRequest};
use meshgate_store::Store;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::config;
use crate::{Cluster, Entrance, IMAGE, Kind, Kubectl, Stream, Vantage, balancer, told};

/// Where the API server listens inside: the address of the Service `kubernetes`.
const API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)), 443);

/// The node's state, on a tmpfs that only this cluster sees.
const STATE: &str = "/run/meshgate";

/// What the inside needs from the outside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prepared {
    /// This program, which is also Meshgate's own image.
    program: PathBuf,
    nft: Tool,
    /// For the cases that run the commands that people do; none when it could not be had.
    kubectl: Option<PathBuf>,
}

/// Why an embedded cluster could not be prepared or started.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// A program is missing.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The network.
    #[error(transparent)]
    Network(#[from] meshgate_net::NetworkError),
    /// The API server.
    #[error(transparent)]
    Api(#[from] meshgate_api::Error),
    /// The node.
    #[error(transparent)]
    Node(#[from] meshgate_node::NodeError),
    /// A listener, a folder, this program's own path.
    #[error("{what}: {cause}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        cause: io::Error,
    },
    /// A client for the cluster's own API.
    #[error("a client for the embedded API server: {0}")]
    Client(String),
}

fn during(what: &'static str) -> impl FnOnce(io::Error) -> EmbeddedError {
    move |cause| EmbeddedError::Io { what, cause }
}

/// Finds, and fetches where need be, everything that a cluster with these images will run. For [`Embedded::start`].
///
/// `program` is the binary that Meshgate's own image stands for.
///
/// # Errors
/// [`EmbeddedError::Image`], which says how to supply what is missing.
pub fn prepare(program: PathBuf, images: &[String], progress: &dyn Fn(&str)) -> Result<Prepared, EmbeddedError> {
    let catalogue = Catalogue::built_in(&program);
    for image in images {
        catalogue.fetch(image, progress)?;
    }
    let nft = catalogue.nft(progress)?;
    // A cluster runs without it, so only what needs it fails.
    let kubectl = match catalogue.kubectl(progress) {
        Ok(tool) => Some(tool.path),
        Err(error) => {
            progress(&format!("no kubectl: {error}"));
            None
        }
    };
    Ok(Prepared { program, nft, kubectl })
}

/// A running embedded cluster. It ends with its process.
pub struct Embedded {
    store: Store,
    network: Arc<Network>,
    node: Arc<Node>,
    server: Running,
    client: kube::Client,
    here: Dialer,
    shutdown: CancellationToken,
    kubectl: Option<PathBuf>,
    /// Keeps the controllers running.
    _controllers: JoinSet<()>,
}

impl Embedded {
    /// Starts a cluster in the namespaces that this process has entered (see [`meshgate_net::namespaces::enter`]), with the
    /// API server on its in-cluster address only.
    ///
    /// # Errors
    /// The part that did not start.
    pub async fn start(prepared: Prepared) -> Result<Self, EmbeddedError> {
        Self::start_with(prepared, Vec::new()).await
    }

    /// The same with the API server on Unix sockets as well, which the host can reach.
    ///
    /// # Errors
    /// The part that did not start.
    pub async fn start_with(prepared: Prepared, sockets: Vec<UnixListener>) -> Result<Self, EmbeddedError> {
        // Another part of the process may have chosen the same provider before.
        let _ = rustls_provider();
        let shutdown = CancellationToken::new();
        let store = Store::new();
        let credentials = Credentials::generate(&store)?;
        let nft = prepared.nft.clone();
        let network =
            Arc::new(Network::start(NetworkConfig { nft: nft.path.clone(), nft_env: nft.env.clone() }).await?);
        let node = Arc::new(Node::start(node_config(&store, &network, &credentials, &prepared, &shutdown))?);
        let listener = TcpListener::bind(API).await.map_err(during("listening for the API"))?;
        let mut listeners = vec![Listener::Tcp(listener)];
        listeners.extend(sockets.into_iter().map(Listener::Unix));
        let server = Server::start(ServerConfig {
            store: store.clone(),
            pods: Arc::clone(&node) as _,
            credentials: credentials.clone(),
            listeners,
            names: ServerConfig::default_names(),
            endpoint: API,
            shutdown: shutdown.clone(),
        })?;
        let config = meshgate_controllers::Config { ca_pem: credentials.ca_pem().to_owned(), ..Default::default() };
        let controllers = meshgate_controllers::start(store.clone(), config, shutdown.clone());
        let client = client(&credentials)?;
        let here = Netns::current().map_err(during("holding the node's namespace"))?;
        let here = Dialer::new(Arc::new(here)).map_err(during("dialling from the node"))?;
        Ok(Self {
            store,
            network,
            node,
            server,
            client,
            here,
            shutdown,
            kubectl: prepared.kubectl,
            _controllers: controllers,
        })
    }

    /// A kubeconfig with an administrator's credentials for a URL of the API server.
    pub fn kubeconfig(&self, url: &str) -> String {
        self.server.kubeconfig(url)
    }

    /// The objects, without the API.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Ends everything in order: the pods get their grace.
    pub fn stop(&self) {
        self.shutdown.cancel();
    }
}

#[async_trait]
impl Cluster for Embedded {
    fn kind(&self) -> Kind {
        Kind::Embedded
    }

    fn client(&self) -> kube::Client {
        self.client.clone()
    }

    async fn connect(&self, from: Vantage, to: SocketAddr) -> io::Result<Stream> {
        Ok(Box::pin(match from {
            Vantage::Outside(_) => self.network.outside().connect_from(Some(self.address(from)), to).await?,
            Vantage::Node => self.here.connect(to).await?,
        }))
    }

    fn address(&self, of: Vantage) -> Ipv4Addr {
        match of {
            Vantage::Outside(0) => meshgate_net::CLIENTS[0],
            Vantage::Outside(_) => meshgate_net::CLIENTS[1],
            Vantage::Node => meshgate_net::NODE,
        }
    }

    /// The load balancer's.
    async fn entrance(&self, service: &Service) -> Option<Entrance> {
        balancer(service).map(Entrance::of)
    }

    fn set_external_name(&self, name: &str, addresses: &[Ipv4Addr]) {
        self.network.dns().set_external(name, addresses);
    }

    async fn settled(&self) -> io::Result<()> {
        self.node.synced(self.store.revision()).await;
        Ok(())
    }

    fn kubectl(&self) -> Option<Kubectl> {
        let program = self.kubectl.clone()?;
        Some(Kubectl { program, kubeconfig: self.kubeconfig(&format!("https://{API}")) })
    }

    fn image(&self) -> &str {
        IMAGE
    }
}

fn node_config(
    store: &Store,
    network: &Arc<Network>,
    credentials: &Credentials,
    prepared: &Prepared,
    shutdown: &CancellationToken,
) -> NodeConfig {
    let tokens = credentials.tokens().clone();
    let mut own =
        Own { env: vec![("MESHGATE_NFT".into(), prepared.nft.path.display().to_string())], files: Vec::new() };
    own.env.extend(prepared.nft.env.iter().cloned());
    own.files.push(prepared.nft.path.clone());
    own.files.extend(prepared.nft.env.iter().flat_map(|(_, folders)| folders.split(':').map(PathBuf::from)));
    NodeConfig {
        store: store.clone(),
        network: Arc::clone(network),
        images: Arc::new(Catalogue::built_in(&prepared.program)),
        helper: vec![OsString::from("/proc/self/exe"), OsString::from("pod-exec")],
        tokens: Arc::new(move |request: &TokenRequest| {
            let audiences: Vec<String> = request.audience.iter().cloned().collect();
            let expiry = Duration::from_secs(request.expiration_seconds.max(600).unsigned_abs());
            match tokens.issue(&request.namespace, &request.service_account, &audiences, expiry) {
                Ok(token) => token.token,
                Err(status) => {
                    tracing::warn!(%status, account = request.service_account, "no token for a pod");
                    String::new()
                }
            }
        }),
        ca_pem: credentials.ca_pem().to_owned(),
        state_dir: PathBuf::from(STATE),
        own,
        crash_back_off: Duration::from_secs(1),
        eager_probes: true,
        shutdown: shutdown.clone(),
    }
}

fn client(credentials: &Credentials) -> Result<kube::Client, EmbeddedError> {
    let failed = |error: &(dyn std::error::Error + 'static)| EmbeddedError::Client(told(error));
    let yaml = credentials.kubeconfig(&format!("https://{API}"));
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&yaml).map_err(|error| failed(&error))?;
    let context = kubeconfig.current_context.clone().unwrap_or_default();
    // Out of the cluster's network no way leads to a proxy, whatever the environment says.
    let config = config(&kubeconfig, &context, &|_| None).map_err(EmbeddedError::Client)?;
    kube::Client::try_from(config).map_err(|error| failed(&error))
}

pub(crate) fn rustls_provider() -> Result<(), Arc<rustls::crypto::CryptoProvider>> {
    rustls::crypto::ring::default_provider().install_default()
}
