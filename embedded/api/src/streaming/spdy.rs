//! kubectl's port-forward: SPDY/3.1 frames inside the binary messages of a WebSocket.
//!
//! The client opens two streams per forwarded connection, one for errors and one for data, with the headers
//! `streamtype`, `port` and `requestid`. Only what this needs of SPDY is here: no priorities, no flow control (the
//! client library has none, either), no pushed streams.

mod frames;

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use self::frames::{Decoder, Encoder, Frame};
use super::forward::Target;
use super::websocket::Socket;

/// The subprotocol.
pub(crate) const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// Serves the tunnel until the client closes it.
pub(super) async fn run(socket: Socket, target: Target) {
    let (mut sink, mut incoming) = socket.split();
    let (send, mut outgoing) = mpsc::channel::<Frame>(16);
    let deliver = async {
        let mut encoder = Encoder::default();
        while let Some(frame) = outgoing.recv().await {
            let bytes = match encoder.encode(&frame) {
                Ok(bytes) => bytes,
                Err(error) => return tracing::debug!(%error, "a port-forward ends: a frame could not be written"),
            };
            if sink.send(Message::Binary(bytes)).await.is_err() {
                return;
            }
        }
    };
    let consume = async {
        let mut session = Session {
            target,
            send,
            streams: HashMap::new(),
            errors: HashMap::new(),
            pumps: tokio::task::JoinSet::new(),
        };
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::new();
        while let Some(Ok(message)) = incoming.next().await {
            buffer.extend_from_slice(&message.into_data());
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Some(frame)) => {
                        if session.take(frame).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return tracing::debug!(%error, "a port-forward ends: a frame could not be read"),
                }
            }
        }
    };
    tokio::select! {
        () = deliver => {}
        () = consume => {}
    }
}

/// The streams of a tunnel.
struct Session {
    target: Target,
    send: mpsc::Sender<Frame>,
    /// Data streams: where their data goes. Closing the sender closes the connection's sending side.
    streams: HashMap<u32, mpsc::Sender<Bytes>>,
    /// Error streams by `requestid`.
    errors: HashMap<String, u32>,
    /// One task per forwarded connection; they end with the session.
    pumps: tokio::task::JoinSet<()>,
}

/// The tunnel is closed.
struct Closed;

impl Session {
    async fn take(&mut self, frame: Frame) -> Result<(), Closed> {
        match frame {
            Frame::SynStream { stream, headers, fin } => self.open(stream, &headers, fin).await,
            Frame::Data { stream, data, fin } => {
                // A connection that takes no more has told its end already.
                if let Some(input) = self.streams.get(&stream).filter(|_| !data.is_empty()) {
                    let _ = input.send(data).await;
                }
                if fin {
                    self.streams.remove(&stream);
                }
                Ok(())
            }
            Frame::Reset { stream } => {
                self.streams.remove(&stream);
                Ok(())
            }
            Frame::Ping { id } => self.tell(Frame::Ping { id }).await,
            Frame::SynReply { .. } | Frame::Other => Ok(()),
        }
    }

    async fn tell(&self, frame: Frame) -> Result<(), Closed> {
        self.send.send(frame).await.map_err(|_| Closed)
    }

    async fn open(&mut self, stream: u32, headers: &HashMap<String, String>, fin: bool) -> Result<(), Closed> {
        let header = |name: &str| headers.get(name).map(String::as_str).unwrap_or_default();
        let request = header("requestid").to_owned();
        self.tell(Frame::SynReply { stream }).await?;
        if header("streamtype") == "error" {
            self.errors.insert(request, stream);
            return Ok(());
        }
        let (input, output) = mpsc::channel(16);
        if !fin {
            self.streams.insert(stream, input);
        }
        let pump =
            Pump { target: self.target.clone(), send: self.send.clone(), stream, errors: self.errors.remove(&request) };
        self.pumps.spawn(pump.run(header("port").to_owned(), output));
        // Finished pumps are let go of here, for want of a better moment.
        while self.pumps.try_join_next().is_some() {}
        Ok(())
    }
}

/// One forwarded connection.
struct Pump {
    target: Target,
    send: mpsc::Sender<Frame>,
    stream: u32,
    errors: Option<u32>,
}

impl Pump {
    async fn run(self, port: String, input: mpsc::Receiver<Bytes>) {
        let error = match port.parse() {
            Ok(port) => self.connect(port, input).await,
            Err(_) => Some(format!("{port:?} is not a port: expected a number from 1 to 65535")),
        };
        // Sending fails when the tunnel is closed; then nobody waits for these.
        if let Some(stream) = self.errors {
            let data = Bytes::from(error.unwrap_or_default());
            let _ = self.send.send(Frame::Data { stream, data, fin: true }).await;
        }
        let _ = self.send.send(Frame::Data { stream: self.stream, data: Bytes::new(), fin: true }).await;
    }

    /// Connects and carries data both ways until both are done; the error for the client, if there is one.
    async fn connect(&self, port: u16, mut input: mpsc::Receiver<Bytes>) -> Option<String> {
        let connection = match self.target.connect(port).await {
            Ok(connection) => connection,
            Err(status) => return Some(status.message),
        };
        let (mut read, mut write) = connection.into_split();
        let upstream = async {
            while let Some(data) = input.recv().await {
                if write.write_all(&data).await.is_err() {
                    return;
                }
            }
            let _ = write.shutdown().await;
        };
        let downstream = async {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                match read.read(&mut buffer).await {
                    Ok(0) => return None,
                    Ok(count) => {
                        let data = Bytes::copy_from_slice(&buffer[..count]);
                        if self.send.send(Frame::Data { stream: self.stream, data, fin: false }).await.is_err() {
                            return None;
                        }
                    }
                    Err(error) => return Some(format!("an error occurred forwarding port {port}: {error}")),
                }
            }
        };
        // When the pod closes, the connection is over, whatever the client still wants to say.
        tokio::pin!(downstream);
        tokio::select! {
            error = &mut downstream => error,
            () = upstream => downstream.await,
        }
    }
}
