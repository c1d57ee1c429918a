//! The keeper: stays on the host, owns the loopback listeners, relays to the sockets of the cluster inside.

use std::io::{BufRead, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use nix::unistd::setsid;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinSet;

use super::inside;

/// How long the end of the cluster inside is awaited.
const GRACE: Duration = Duration::from_secs(5);

/// The name of the role.
pub const ROLE: &str = "cluster-keeper";

/// What the keeper is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The cluster's folder.
    pub dir: PathBuf,
    /// 0 for any.
    pub api_port: u16,
    /// 0 for any.
    pub ingress_port: u16,
    /// Further ports that lead into the cluster.
    pub node_ports: Vec<NodePort>,
    /// For the inside.
    pub prepared: meshgate_clusters::embedded::Prepared,
}

/// A port of the node that is reached on 127.0.0.1, as `NODE[:HOST]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePort {
    /// The node's.
    pub node: u16,
    /// That on 127.0.0.1, 0 for any.
    pub host: u16,
}

impl FromStr for NodePort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| text.parse().map_err(|_| format!("{text:?} is no port; expected NODE or NODE:HOST"));
        let (node, host) = text.split_once(':').unwrap_or((text, "0"));
        match (port(node)?, port(host)?) {
            (0, _) => Err("the node has no port 0".to_owned()),
            (node, host) => Ok(Self { node, host }),
        }
    }
}

/// Which ports of 127.0.0.1 a cluster got.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The API server's.
    pub api: u16,
    /// That of the first load balancer.
    pub ingress: u16,
    /// Those of the node's ports that were asked for.
    pub node_ports: Vec<NodePort>,
}

/// The process id of the keeper of a cluster's folder, while it runs.
pub fn running(dir: &Path) -> Option<i32> {
    let pid = std::fs::read_to_string(dir.join("pid")).ok()?.trim().parse().ok()?;
    is_keeper(pid).then_some(pid)
}

/// Whether a process is a keeper. Its number may have been given to another program since, and a process that has ended but was
/// not waited for has no arguments.
pub fn is_keeper(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|command| command.split(|byte| *byte == 0).any(|argument| argument == ROLE.as_bytes()))
}

/// Starts the inside, tells [`Ready`] as a line of JSON, and relays until it or the inside is ended.
pub fn execute(spec: &Spec) -> anyhow::Result<()> {
    // A session of its own: closing the terminal that started it is no reason to end.
    let _ = setsid();
    std::fs::write(spec.dir.join("pid"), std::process::id().to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(keep(spec));
    let _ = std::fs::remove_dir_all(&spec.dir);
    result
}

async fn keep(spec: &Spec) -> anyhow::Result<()> {
    let listen = async |port| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .with_context(|| format!("cannot listen on 127.0.0.1:{port}"))
    };
    let (api, ingress) = (listen(spec.api_port).await?, listen(spec.ingress_port).await?);
    let mut ready =
        Ready { api: api.local_addr()?.port(), ingress: ingress.local_addr()?.port(), node_ports: Vec::new() };
    let mut relays = JoinSet::new();
    for port in &spec.node_ports {
        let listener = listen(port.host).await?;
        ready.node_ports.push(NodePort { node: port.node, host: listener.local_addr()?.port() });
        relays.spawn(relay(listener, spec.dir.join(inside::node_socket(port.node))));
    }
    relays.spawn(relay(api, spec.dir.join(inside::API_SOCKET)));
    relays.spawn(relay(ingress, spec.dir.join(inside::INGRESS_SOCKET)));
    let inside = inside::Spec {
        dir: spec.dir.clone(),
        url: format!("https://127.0.0.1:{}", ready.api),
        node_ports: spec.node_ports.iter().map(|port| port.node).collect(),
        prepared: spec.prepared.clone(),
    };
    let mut child = Command::new(std::env::current_exe()?)
        .arg(inside::ROLE)
        .arg(serde_json::to_string(&inside)?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the cluster")?;
    // Open for as long as this process lives; its end is the cluster's.
    let stdin = child.stdin.take();
    let stdout = child.stdout.take().context("the cluster's output")?;
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        std::io::BufReader::new(stdout).read_line(&mut line).map(|_| line)
    });
    if line.await??.trim() != "ready" {
        anyhow::bail!("the cluster ended before it was ready: {}", child.wait()?);
    }
    // Nobody may be listening any more.
    let _ = writeln!(std::io::stdout(), "{}", serde_json::to_string(&ready)?);
    let mut ended = tokio::task::spawn_blocking(move || child.wait());
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        status = &mut ended => eprintln!("the cluster ended: {:?}", status?),
        _ = terminate.recv() => {
            drop(stdin);
            // Whoever sees this process gone may rely on everything inside being gone.
            let _ = tokio::time::timeout(GRACE, ended).await;
            std::process::exit(clean_up(&spec.dir));
        }
        _ = relays.join_next() => {}
    }
    Ok(())
}

/// Leaves nothing behind; what is inside ends with this process.
fn clean_up(dir: &Path) -> i32 {
    i32::from(std::fs::remove_dir_all(dir).is_err())
}

async fn relay(listener: TcpListener, socket: PathBuf) {
    while let Ok((mut client, _)) = listener.accept().await {
        let socket = socket.clone();
        tokio::spawn(async move {
            let mut cluster = UnixStream::connect(socket).await?;
            tokio::io::copy_bidirectional(&mut client, &mut cluster).await
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_the_node() {
        assert_eq!("30080".parse(), Ok(NodePort { node: 30080, host: 0 }));
        assert_eq!("30080:8080".parse(), Ok(NodePort { node: 30080, host: 8080 }));
        for (wrong, says) in
            [("", "\"\" is no port"), ("x:1", "\"x\""), ("1:y", "\"y\""), ("0:1", "no port 0"), ("70000", "70000")]
        {
            let error = wrong.parse::<NodePort>().unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
