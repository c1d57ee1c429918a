//! `pods/NAME/exec`: a command in a container, its streams on the channels of a WebSocket.

use futures::{SinkExt, StreamExt};
use meshgate_store::{Attach, Exec, Status};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::channels::{self, CLOSE, V4, V5};
use super::websocket::{Handshake, Socket};
use crate::handler::{self, Call};
use crate::reply::Reply;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
/// The final `Status`.
const ERROR: u8 = 3;

/// Starts the command, then answers `101` and connects its streams.
pub(crate) async fn answer(mut call: Call) -> Result<Reply, Status> {
    // A WebSocket begins with a GET, but running a command is no reading: Kubernetes asks for both verbs since 1.35.
    handler::authorize(&call.api, &call.user, "create", &call.path)?;
    let container = super::container(&call)?;
    let command: Vec<String> = call.query.all("command").map(str::to_owned).collect();
    if command.is_empty() {
        return Err(Status::bad_request("you must specify at least one command for the container"));
    }
    let attach = Attach { stdin: call.query.flag("stdin"), tty: call.query.flag("tty") };
    let handshake = Handshake::of(&mut call.request, &[V5, V4])?;
    let exec = call.api.pods.exec(&call.path.namespace, &call.path.name, &container, command, attach).await?;
    let (reply, socket) = handshake.accept()?;
    let shutdown = call.api.shutdown.clone();
    tokio::spawn(async move {
        match socket.await {
            Ok(socket) => run(socket, exec, shutdown).await,
            Err(error) => tracing::debug!(%error, "the WebSocket of an exec did not open"),
        }
    });
    Ok(reply)
}

/// Carries the streams until the command has ended and all is sent, or the client has gone.
async fn run(socket: Socket, exec: Exec, shutdown: CancellationToken) {
    let (mut sink, mut incoming) = socket.split();
    let (send, mut outgoing) = mpsc::channel::<Message>(16);
    let Exec { mut stdin, stdout, stderr, exit } = exec;
    let produce = async move {
        tokio::join!(channels::pump(STDOUT, stdout, send.clone()), channels::pump(STDERR, stderr, send.clone()));
        let status = exit_status(exit.await.ok());
        // Nobody listens when the client has gone; then there is nobody to tell, either.
        let _ = send.send(channels::message(ERROR, status.to_string().as_bytes())).await;
    };
    let deliver = async {
        while let Some(message) = outgoing.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        if let Err(error) = sink.send(channels::farewell()).await {
            tracing::debug!(%error, "the WebSocket of an exec did not close");
        }
    };
    let consume = async {
        while let Some(Ok(message)) = incoming.next().await {
            match channels::parts(message) {
                Some((STDIN, data)) => {
                    let Some(pipe) = stdin.as_mut() else { continue };
                    let written = async {
                        pipe.write_all(&data).await?;
                        pipe.flush().await
                    };
                    // The command may have closed its stdin; its output is still wanted.
                    if written.await.is_err() {
                        stdin = None;
                    }
                }
                Some((CLOSE, data)) if data.first() == Some(&STDIN) => stdin = None,
                _ => {}
            }
        }
    };
    tokio::select! {
        _ = async { tokio::join!(produce, deliver) } => {}
        () = consume => {}
        () = shutdown.cancelled() => {}
    }
}

/// The `Status` that tells the exit code, as `k8s.io/apimachinery` defines it for remote commands.
fn exit_status(code: Option<i32>) -> Value {
    match code {
        Some(0) => json!({"metadata": {}, "status": "Success"}),
        Some(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        None => json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": "the command's exit code is unknown: its container ended first",
        }),
    }
}
