//! The role `meshgate proxy-injector`: the webhook that the API server asks about every new pod.
//!
//! What it answers is decided by [`meshgate_inject::review`]; here is the server around it. It asks the API server for the
//! pod's namespace each time, because a namespace is annotated a moment before its first pod comes.

use std::{io, net::SocketAddr, path::PathBuf, pin::Pin, sync::Arc};

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    routing::{get, post},
};
use clap::Parser;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use meshgate_inject::Options;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    Tls,
    grpc::incoming::{Connection, incoming},
    run,
};

/// Bytes of a review at most: two objects of the greatest size that an API server stores, and some.
const LONGEST_REVIEW: usize = 8 << 20;

/// Where to listen and what to inject. Every value has an environment variable, as the Deployment sets it.
#[derive(Debug, Parser)]
struct Config {
    /// Address of the webhook, in TLS.
    #[arg(long, env = "MESHGATE_INJECTOR_ADDR", default_value = "0.0.0.0:8443")]
    addr: SocketAddr,
    /// Address of /ready and /live.
    #[arg(long, env = "MESHGATE_INJECTOR_ADMIN_ADDR", default_value = "0.0.0.0:9995")]
    admin_addr: SocketAddr,
    /// Folder with the webhook's `tls.crt` and `tls.key`.
    #[arg(long, env = "MESHGATE_INJECTOR_TLS_DIR")]
    tls_dir: PathBuf,
    /// File with the options of injection, as JSON.
    #[arg(long, env = "MESHGATE_INJECTOR_OPTIONS")]
    options: PathBuf,
}

/// What all reviews share.
struct Injector {
    options: Options,
    namespaces: Api<Namespace>,
}

/// Runs the role in this process until SIGTERM or SIGINT, configured by the environment alone.
pub fn main_from_env() -> anyhow::Result<()> {
    let config = Config::try_parse_from(["proxy-injector"])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = run::told_to_end()?;
        tokio::select! {
            result = serve(config) => result,
            () = shutdown => Ok(()),
        }
    })
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let file = config.options.display();
    let options = std::fs::read(&config.options).with_context(|| format!("the options of injection, {file}"))?;
    let options =
        serde_json::from_slice(&options).with_context(|| format!("expected options of injection in {file}"))?;
    let namespaces = Api::all(run::client().await?);
    let connections = incoming(run::listen(config.addr).await?, Some(Tls::of_files(&config.tls_dir)?));
    let webhook = Https { connections: Box::pin(connections), address: config.addr };
    let admin = run::listen(config.admin_addr).await?;
    tokio::select! {
        result = axum::serve(webhook, router(Injector { options, namespaces })) => result?,
        result = health(admin) => result?,
    }
    Ok(())
}

fn router(injector: Injector) -> Router {
    Router::new().route("/", post(answer)).layer(DefaultBodyLimit::max(LONGEST_REVIEW)).with_state(Arc::new(injector))
}

/// What it needs is there before it listens.
async fn health(listener: TcpListener) -> io::Result<()> {
    let router = Router::new().route("/live", get(async || "ok\n")).route("/ready", get(async || "ok\n"));
    axum::serve(listener, router).await
}

async fn answer(
    State(injector): State<Arc<Injector>>,
    Json(review): Json<Value>,
) -> Result<Json<Value>, (StatusCode, String)> {
    let bad = |error: meshgate_inject::ReviewError| (StatusCode::BAD_REQUEST, error.to_string());
    let namespace = match meshgate_inject::reviewed_namespace(&review).map_err(bad)? {
        None => Value::Null,
        Some(name) => match injector.namespaces.get(name).await {
            Ok(namespace) => json!(namespace),
            Err(error) => {
                return Err((StatusCode::INTERNAL_SERVER_ERROR, format!("the pod's namespace {name:?}: {error}")));
            }
        },
    };
    meshgate_inject::review(&review, &namespace, &injector.options).map(Json).map_err(bad)
}

/// Connections in TLS as axum takes them. Others are closed: nobody has to ask in the clear.
struct Https {
    connections: Pin<Box<dyn Stream<Item = io::Result<Connection>> + Send>>,
    address: SocketAddr,
}

impl axum::serve::Listener for Https {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            if let Some(Ok(connection @ Connection::Tls(_))) = self.connections.next().await {
                return (connection, self.address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
