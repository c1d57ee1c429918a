//! The keeper: stays on the host, owns the loopback listeners, relays to the sockets of the cluster inside.

use std::io::{BufRead, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use nix::sys::signal::kill;
use nix::unistd::{Pid, setsid};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixStream};

use super::inside;

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
    pub prepared: serde_json::Value,
}

/// The process id of the keeper of a cluster's folder, while it runs.
pub fn running(dir: &Path) -> Option<i32> {
    let pid: i32 = std::fs::read_to_string(dir.join("pid")).ok()?.trim().parse().ok()?;
    // A number may have been given to another program since.
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let is_keeper = command.split(|byte| *byte == 0).any(|argument| argument == b"keeper");
    (is_keeper && kill(Pid::from_raw(pid), None).is_ok()).then_some(pid)
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
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.with_context(|| format!("cannot listen on 127.0.0.1:{port}"))
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
    let _stdin = child.stdin.take();
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
    let ended = tokio::task::spawn_blocking(move || child.wait());
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        status = ended => eprintln!("the cluster ended: {:?}", status?),
        _ = terminate.recv() => std::process::exit(clean_up(&spec.dir)),
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
