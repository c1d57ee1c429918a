//! The keeper: stays on the host, owns the loopback listeners, relays to the sockets of the cluster inside.

use std::io::{BufRead, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::unistd::setsid;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixStream};

use super::inside;

/// How long the end of the cluster inside is awaited.
const GRACE: Duration = Duration::from_secs(5);

/// The spec, as JSON.
#[derive(clap::Args)]
pub struct Args {
    spec: String,
}

/// What the keeper is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The cluster's folder.
    pub dir: PathBuf,
    /// 0 for any.
    pub api_port: u16,
    /// 0 for any.
    pub ingress_port: u16,
    /// For the inside.
    pub prepared: meshgate_clusters::embedded::Prepared,
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
        .is_ok_and(|command| command.split(|byte| *byte == 0).any(|argument| argument == b"keeper"))
}

/// Starts the inside, tells `ready API INGRESS`, and relays until it or the inside is ended.
pub fn execute(args: &Args) -> anyhow::Result<()> {
    let spec: Spec = serde_json::from_str(&args.spec)?;
    // A session of its own: closing the terminal that started it is no reason to end.
    let _ = setsid();
    std::fs::write(spec.dir.join("pid"), std::process::id().to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(keep(&spec));
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
    let (api_port, ingress_port) = (api.local_addr()?.port(), ingress.local_addr()?.port());
    let inside = inside::Spec {
        dir: spec.dir.clone(),
        url: format!("https://127.0.0.1:{api_port}"),
        prepared: spec.prepared.clone(),
    };
    let mut child = Command::new(std::env::current_exe()?)
        .args(["cluster", "inside"])
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
    let _ = writeln!(std::io::stdout(), "ready {api_port} {ingress_port}");
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
        () = relay(api, spec.dir.join(inside::API_SOCKET)) => {}
        () = relay(ingress, spec.dir.join(inside::INGRESS_SOCKET)) => {}
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
