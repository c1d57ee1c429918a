//! `pods/NAME/portforward`, in the two dialects that clients speak: kubectl's SPDY frames inside a WebSocket, and the
//! channel protocol of kube-rs.

use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use meshgate_store::Status;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::channels::{self, CLOSE, V4, V5};
use super::spdy;
use super::websocket::{Handshake, Socket};
use crate::handler::{self, Api, Call};
use crate::reply::Reply;

/// The pod whose ports are forwarded.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) api: Arc<Api>,
    namespace: String,
    pod: String,
}

impl Target {
    /// Connects to a port of the pod.
    pub(super) async fn connect(&self, port: u16) -> Result<TcpStream, Status> {
        self.api.pods.forward(&self.namespace, &self.pod, port).await
    }
}

/// Answers `101` and forwards.
pub(crate) async fn answer(mut call: Call) -> Result<Reply, Status> {
    handler::authorize(&call.api, &call.user, "create", &call.path)?;
    let pod = super::pod(&call)?;
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or("Pending");
    if phase != "Running" {
        return Err(Status::bad_request(format!(
            "unable to forward port because pod is not running. Current status={phase}"
        )));
    }
    let handshake = Handshake::of(&mut call.request, &[spdy::TUNNEL, V5, V4])?;
    let ports: Vec<u16> = if handshake.protocol() == spdy::TUNNEL { Vec::new() } else { ports(&call)? };
    let protocol = handshake.protocol();
    let (reply, socket) = handshake.accept()?;
    let target = Target { api: call.api.clone(), namespace: call.path.namespace.clone(), pod: call.path.name.clone() };
    let shutdown = call.api.shutdown.clone();
    tokio::spawn(async move {
        let socket = match socket.await {
            Ok(socket) => socket,
            Err(error) => return tracing::debug!(%error, "the WebSocket of a port-forward did not open"),
        };
        let session = async {
            if protocol == spdy::TUNNEL {
                spdy::run(socket, target).await;
            } else {
                run(socket, &target, &ports, protocol == V5).await;
            }
        };
        tokio::select! {
            () = session => {}
            () = shutdown.cancelled() => {}
        }
    });
    Ok(reply)
}

/// The ports of the query: `ports=80,443` or repeated.
fn ports(call: &Call) -> Result<Vec<u16>, Status> {
    let texts = call.query.all("ports").flat_map(|ports| ports.split(','));
    let ports: Result<Vec<u16>, Status> = texts
        .map(|text| {
            text.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
                Status::bad_request(format!("invalid port {text:?} in the query: expected a number from 1 to 65535"))
            })
        })
        .collect();
    match ports? {
        // Two channels per port, and the last channel number is taken.
        ports if ports.is_empty() || ports.len() > 100 => {
            Err(Status::bad_request("the query parameter `ports` must name 1 to 100 ports"))
        }
        ports => Ok(ports),
    }
}

/// The channel dialect: data of port `i` on channel `2i`, its errors on `2i+1`; the first message of each is the port.
async fn run(socket: Socket, target: &Target, ports: &[u16], half_close: bool) {
    let (mut sink, mut incoming) = socket.split();
    let (send, mut outgoing) = mpsc::channel::<Message>(16);
    let mut inputs: Vec<Option<OwnedWriteHalf>> = Vec::new();
    let mut outputs = tokio::task::JoinSet::new();
    for (channel, port) in (0_u8..).step_by(2).zip(ports) {
        for channel in [channel, channel + 1] {
            if sink.send(channels::message(channel, &port.to_le_bytes())).await.is_err() {
                return;
            }
        }
        match target.connect(*port).await {
            Ok(stream) => {
                let (read, write) = stream.into_split();
                inputs.push(Some(write));
                let send = send.clone();
                outputs.spawn(async move {
                    channels::pump(channel, read, send.clone()).await;
                    if half_close {
                        let _ = send.send(channels::message(CLOSE, &[channel])).await;
                    }
                });
            }
            Err(status) => {
                inputs.push(None);
                let message = channels::message(channel + 1, status.message.as_bytes());
                if sink.send(message).await.is_err() {
                    return;
                }
            }
        }
    }
    drop(send);
    let deliver = async {
        while let Some(message) = outgoing.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        if let Err(error) = sink.send(channels::farewell()).await {
            tracing::debug!(%error, "the WebSocket of a port-forward did not close");
        }
    };
    let consume = async {
        while let Some(Ok(message)) = incoming.next().await {
            let Some((channel, data)) = channels::parts(message) else { continue };
            let closes = channel == CLOSE;
            let channel = if closes { data.first().copied().unwrap_or(CLOSE) } else { channel };
            let Some(input) = inputs.get_mut(usize::from(channel / 2)).filter(|_| channel % 2 == 0) else { continue };
            if closes || !write(input, data).await {
                *input = None;
            }
        }
    };
    tokio::select! {
        () = deliver => {}
        () = consume => {}
    }
}

/// Writes to a connection; `false` when it takes no more.
async fn write(input: &mut Option<OwnedWriteHalf>, data: Bytes) -> bool {
    match input {
        Some(input) => input.write_all(&data).await.is_ok(),
        None => false,
    }
}
