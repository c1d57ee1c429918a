//! Connections to the control plane: in TLS or in plaintext, on the same port.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    StreamExt,
    stream::{self, FuturesUnordered, Stream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time,
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::Tls;

/// The type of a TLS record that carries a handshake. HTTP/2 never begins with it.
const HANDSHAKE: u8 = 0x16;

/// How long a client may take to say what it speaks, and to prove who it is.
const DETECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long accepting pauses after it failed: when there are no files left, that takes a while to pass.
const PAUSE: Duration = Duration::from_millis(10);

/// A connection that is ready to be served.
pub(crate) enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The connections of a listener, in the order in which they become ready: nobody waits for another one's handshake.
pub(crate) fn incoming(listener: TcpListener, tls: Option<Tls>) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold((listener, FuturesUnordered::new()), move |(listener, mut beginning)| {
        let tls = tls.clone();
        async move {
            let ready = loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => beginning.push(begin(stream, tls.clone())),
                        Err(error) => {
                            tracing::warn!(%error, "a connection could not be accepted");
                            time::sleep(PAUSE).await;
                        }
                    },
                    Some(begun) = beginning.next() => match begun {
                        Ok(connection) => break connection,
                        Err(error) => tracing::debug!(%error, "a client did not get as far as to ask"),
                    },
                }
            };
            Some((Ok(ready), (listener, beginning)))
        }
    })
}

async fn begin(stream: TcpStream, tls: Option<Tls>) -> io::Result<Connection> {
    // Without this a change could wait for the acknowledgement of the one before it.
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Connection::Plain(stream)) };
    let begun = async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 || first != [HANDSHAKE] {
            return Ok(Connection::Plain(stream));
        }
        Ok(Connection::Tls(Box::new(tls.acceptor().accept(stream).await?)))
    };
    time::timeout(DETECT_TIMEOUT, begun).await?
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// Forwards a method to what carries the bytes.
macro_rules! carry {
    ($connection:expr, $stream:ident => $call:expr) => {
        match $connection {
            Connection::Plain($stream) => $call,
            Connection::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        carry!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        carry!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        carry!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        carry!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        carry!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        carry!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}
