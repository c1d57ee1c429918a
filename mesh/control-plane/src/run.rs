//! The role `meshgate control-plane`.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use clap::Parser;
use futures::FutureExt;
use thiserror::Error;
use tokio::net::TcpListener;

use crate::{Authority, Config, Index, Server, Tls, admin, grpc::serve_identity, slices, statuses, watches};

/// How long it may take to give back what others wait for. Kubernetes waits 30 s before it kills.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why the control plane ended, or did not start.
#[derive(Debug, Error)]
pub enum RunError {
    /// There is no cluster to ask.
    #[error("expected the service account of a pod, or a kubeconfig: {0}")]
    Cluster(#[from] kube::config::InferConfigError),
    /// The client for the API server could not be made.
    #[error("the API server's client could not be made from its configuration: {0}")]
    Client(#[from] kube::Error),
    /// Certificates cannot be issued.
    #[error("{0:#}; expected the Secret linkerd-identity-issuer with the mesh's certificate authority")]
    Issuer(anyhow::Error),
    /// A port is taken, or not allowed.
    #[error("expected to listen on {address}: {source}; free the port or name another one")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A listener failed.
    #[error("serving ended: {0}")]
    Serve(#[from] io::Error),
}

/// Runs until `shutdown`, with the cluster of the pod's service account or else of the kubeconfig.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let client = client().await?;
    let index = Index::new(config.cluster());
    let (destination, policy, admin) =
        (listen(config.destination_addr).await?, listen(config.policy_addr).await?, listen(config.admin_addr).await?);
    tracing::info!(destination = %config.destination_addr, policy = %config.policy_addr, admin = %config.admin_addr, "listening");

    let _watches = watches::watch(&client, &index);
    let shutdown = async {
        shutdown.await;
        tracing::info!("shutting down");
    };
    let shutdown = shutdown.shared();
    // Where the API server does not answer, nothing is given back.
    let late = async {
        shutdown.clone().await;
        tokio::time::sleep(FAREWELL).await;
    };
    let statuses = statuses::write_statuses(client.clone(), index.clone());
    let slices =
        slices::write_slices(client.clone(), index.clone(), &config.namespace, &config.hostname, shutdown.clone());
    let issuer = issuer(&config, client).map_err(RunError::Issuer)?;
    let server = Server::new(index.clone()).with_tls(issuer.as_ref().map(|(_, tls)| tls.clone()));
    let identity = identity(issuer, config.identity_addr).await?;
    // Streams stay open for as long as proxies run: nothing is waited for at the end but the Lease of the slices.
    tokio::select! {
        result = server.clone().serve_destination(destination) => result?,
        result = server.serve_policy(policy) => result?,
        result = identity => result?,
        result = admin::serve(index, admin) => result?,
        () = statuses => {}
        () = slices => {}
        () = late => {}
    }
    Ok(())
}

/// A client of the cluster of the pod's service account or else of the kubeconfig.
pub(crate) async fn client() -> Result<kube::Client, RunError> {
    // Someone else may have installed the same provider already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kube_config = match kube::Config::incluster() {
        Ok(kube_config) => kube_config,
        Err(_) => kube::Config::infer().await?,
    };
    Ok(kube::Client::try_from(kube_config)?)
}

/// Who issues certificates, and what it issues for the control plane itself.
fn issuer(config: &Config, client: kube::Client) -> anyhow::Result<Option<(Arc<Authority>, Tls)>> {
    let Some(authority) = config.authority(client)?.map(Arc::new) else { return Ok(None) };
    let tls = Tls::new(Arc::clone(&authority))?;
    Ok(Some((authority, tls)))
}

/// The identity service; it never ends where there is none.
async fn identity(
    issuer: Option<(Arc<Authority>, Tls)>,
    address: SocketAddr,
) -> Result<impl Future<Output = io::Result<()>>, RunError> {
    let serving = match issuer {
        Some((authority, tls)) => Some((authority, tls, listen(address).await?)),
        None => None,
    };
    Ok(async {
        match serving {
            Some((authority, tls, listener)) => serve_identity(authority, tls, listener).await,
            None => std::future::pending().await,
        }
    })
}

pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })
}

/// Runs the role in this process until SIGTERM or SIGINT, configured by the environment alone.
///
/// One thread serves everything: the work is small, and so stays the memory.
pub fn main_from_env() -> anyhow::Result<()> {
    #[derive(Parser)]
    struct Environment {
        #[command(flatten)]
        config: Config,
    }
    let config = Environment::try_parse_from(["control-plane"])?.config;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { Ok(run(config, told_to_end()?).await?) })
}

/// SIGTERM or SIGINT.
pub(crate) fn told_to_end() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    })
}
