//! Serves an empty cluster on loopback, to be looked at with kubectl:
//! `cargo run -p meshgate-api --example serve -- /tmp/kubeconfig`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use meshgate_api::{Credentials, Listener, Server, ServerConfig};
use meshgate_store::{Attach, BoxFuture, Exec, GroupResource, LogOptions, PodAccess, Status, Store};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A node without pods.
struct NoPods;

fn no_such_pod<T>(pod: &str) -> BoxFuture<'static, Result<T, Status>>
where
    T: Send + 'static,
{
    let status = Status::not_found(&GroupResource::new("", "pods"), pod);
    Box::pin(async move { Err(status) })
}

impl PodAccess for NoPods {
    fn logs<'a>(
        &'a self,
        _: &'a str,
        pod: &'a str,
        _: &'a str,
        _: LogOptions,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<Vec<u8>>, Status>> {
        no_such_pod(pod)
    }

    fn exec<'a>(
        &'a self,
        _: &'a str,
        pod: &'a str,
        _: &'a str,
        _: Vec<String>,
        _: Attach,
    ) -> BoxFuture<'a, Result<Exec, Status>> {
        no_such_pod(pod)
    }

    fn forward<'a>(&'a self, _: &'a str, pod: &'a str, _: u16) -> BoxFuture<'a, Result<TcpStream, Status>> {
        no_such_pod(pod)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).ok_or("expected the path of the kubeconfig to write")?;
    let store = Store::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let running = Server::start(ServerConfig {
        credentials: Credentials::generate(&store)?,
        store,
        pods: Arc::new(NoPods),
        listeners: vec![Listener::Tcp(listener)],
        names: ServerConfig::default_names(),
        endpoint: SocketAddr::from((Ipv4Addr::new(10, 96, 0, 1), 443)),
        shutdown: CancellationToken::new(),
    })?;
    std::fs::write(&file, running.kubeconfig(&format!("https://{address}")))?;
    println!("kubectl --kubeconfig {file} get all -A");
    tokio::signal::ctrl_c().await?;
    running.stop().await;
    Ok(())
}
