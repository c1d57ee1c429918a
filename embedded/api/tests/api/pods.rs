//! A node whose pods are this machine: commands run as local processes, ports are loopback ports.

use std::process::Stdio;

use meshgate_store::{Attach, BoxFuture, Exec, LogOptions, PodAccess, Status};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};

pub struct LocalPods;

impl PodAccess for LocalPods {
    fn logs<'a>(
        &'a self,
        _: &'a str,
        pod: &'a str,
        container: &'a str,
        options: LogOptions,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<Vec<u8>>, Status>> {
        Box::pin(async move {
            let lines: Vec<String> = (1..=10).map(|number| format!("{pod}/{container} line {number}\n")).collect();
            let skip = options.tail_lines.map_or(0, |tail| lines.len().saturating_sub(tail));
            let (send, receive) = mpsc::channel(4);
            tokio::spawn(async move {
                for line in lines.into_iter().skip(skip) {
                    if send.send(line.into_bytes()).await.is_err() {
                        return;
                    }
                }
                if options.follow {
                    let _ = send.send(b"following\n".to_vec()).await;
                    send.closed().await;
                }
            });
            Ok(receive)
        })
    }

    fn exec<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a str,
        command: Vec<String>,
        attach: Attach,
    ) -> BoxFuture<'a, Result<Exec, Status>> {
        Box::pin(async move {
            let stdin = if attach.stdin { Stdio::piped() } else { Stdio::null() };
            let mut child = Command::new(&command[0])
                .args(&command[1..])
                .stdin(stdin)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .map_err(|error| Status::internal(format!("{}: {error}", command[0])))?;
            let (send, exit) = oneshot::channel();
            let stdin = child.stdin.take().map(|stdin| Box::pin(stdin) as _);
            let stdout = Box::pin(child.stdout.take().unwrap());
            let stderr = Box::pin(child.stderr.take().unwrap());
            tokio::spawn(async move {
                let code = child.wait().await.ok().and_then(|status| status.code());
                let _ = send.send(code.unwrap_or(-1));
            });
            Ok(Exec { stdin, stdout, stderr, exit })
        })
    }

    fn forward<'a>(&'a self, _: &'a str, _: &'a str, port: u16) -> BoxFuture<'a, Result<TcpStream, Status>> {
        Box::pin(async move {
            TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| {
                Status::internal(format!("failed to connect to localhost:{port} inside the pod: {error}"))
            })
        })
    }
}
