//! What the API server asks of the node: logs, commands, ports.

use std::process::Stdio;
use std::sync::Arc;

use meshgate_store::{Attach, BoxFuture, Exec, LogOptions, PodAccess, Status};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};

use crate::node::Node;
use crate::pod::PodContext;
use crate::process::Group;
use crate::runtime;
use crate::slot::{Phase, Slot};

/// Chunks of a log that wait for their reader.
const CHUNKS: usize = 16;

/// A container by name; the only or first one when the name is empty.
fn container<'a>(pod: &'a PodContext, name: &str) -> Result<&'a Arc<Slot>, Status> {
    let main = || pod.slots.iter().find(|slot| slot.role == crate::slot::Role::Main);
    let found = if name.is_empty() { main() } else { pod.slots.iter().find(|slot| slot.spec.name == name) };
    found.ok_or_else(|| Status::bad_request(format!("container {name} is not valid for pod {}", pod.name)))
}

impl PodAccess for Node {
    fn logs<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
        options: LogOptions,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<Vec<u8>>, Status>> {
        Box::pin(async move {
            let pod = self.shared.pod(namespace, pod)?;
            let slot = self::container(&pod, container)?;
            let log = {
                let logs = slot.logs.lock();
                let chosen = if options.previous { &logs.previous } else { &logs.current };
                chosen.clone().ok_or_else(|| no_log(&pod, slot, options.previous))?
            };
            let (sender, receiver) = mpsc::channel(CHUNKS);
            tokio::spawn(async move { log.send(&options, &sender).await });
            Ok(receiver)
        })
    }

    fn exec<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
        command: Vec<String>,
        attach: Attach,
    ) -> BoxFuture<'a, Result<Exec, Status>> {
        Box::pin(async move {
            let pod = self.shared.pod(namespace, pod)?;
            let slot = self::container(&pod, container)?;
            let pid = slot.state.borrow().pid;
            let pid = pid.ok_or_else(|| Status::internal(format!("container not found (\"{}\")", slot.spec.name)))?;
            let start = async {
                let mut joined = runtime::join(&pod, slot, pid, command, attach.tty)?;
                joined.stdin(if attach.stdin { Stdio::piped() } else { Stdio::null() });
                joined.stdout(Stdio::piped()).stderr(Stdio::piped());
                Ok::<_, runtime::StartError>(pod.shared.spawner.spawn(joined, pod.netns()?).await?)
            };
            let mut child = start
                .await
                .map_err(|error| Status::internal(format!("cannot run a command in {}: {error}", slot.spec.name)))?;
            let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
                return Err(Status::internal("the command's output could not be taken"));
            };
            let stdin = child.stdin.take();
            let (exit, code) = oneshot::channel();
            tokio::spawn(wait(child, exit));
            Ok(Exec {
                stdin: stdin.map(|stdin| Box::pin(stdin) as _),
                stdout: Box::pin(stdout),
                stderr: Box::pin(stderr),
                exit: code,
            })
        })
    }

    fn forward<'a>(&'a self, namespace: &'a str, pod: &'a str, port: u16) -> BoxFuture<'a, Result<TcpStream, Status>> {
        Box::pin(async move {
            let pod = self.shared.pod(namespace, pod)?;
            let network = pod.network().ok_or_else(|| {
                Status::bad_request(format!("unable to forward port because pod is not running: {}", pod.name))
            })?;
            network.connect_loopback(port).await.map_err(|error| {
                Status::internal(format!(
                    "error forwarding port {port} to pod {}, uid {}: failed to connect to localhost:{port} inside the pod's network namespace, IPv4: dial tcp4 127.0.0.1:{port}: connect: {error}",
                    pod.name, pod.uid
                ))
            })
        })
    }
}

/// Tells the exit code, or ends the command when nobody waits for it any more.
async fn wait(mut child: Child, mut exit: oneshot::Sender<i32>) {
    use std::os::unix::process::ExitStatusExt;
    let mut group = Group::of(&child);
    tokio::select! {
        status = child.wait() => {
            // What the command left in the background belongs to the container now.
            if let Some(group) = &mut group {
                group.let_go();
            }
            let code = status.map_or(255, |status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
            let _ = exit.send(code);
        }
        () = exit.closed() => {}
    }
}

fn no_log(pod: &PodContext, slot: &Slot, previous: bool) -> Status {
    let name = &slot.spec.name;
    if previous {
        return Status::bad_request(format!(
            "previous terminated container \"{name}\" in pod \"{}\" not found",
            pod.name
        ));
    }
    let reason = match &slot.state.borrow().phase {
        Phase::Waiting { reason, .. } => reason,
        Phase::Running { .. } | Phase::Terminated(_) => "ContainerCreating",
    };
    Status::bad_request(format!("container \"{name}\" in pod \"{}\" is waiting to start: {reason}", pod.name))
}
