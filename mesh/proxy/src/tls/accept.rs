//! Whether a connection to the pod begins with TLS, and whose it is.

use std::{io, sync::Arc};

use bytes::{Bytes, BytesMut};
use rustls::server::Acceptor;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{self, Instant},
};
use tokio_rustls::TlsAcceptor;

use super::{Credentials, verify::names};
use crate::{
    io::{Prefixed, Transport},
    metrics::Tls,
    transport_header::PROTOCOL,
};

/// The type of a TLS record that carries a handshake. Nothing that is detected otherwise begins with it.
const HANDSHAKE: u8 = 0x16;

/// As long as a ClientHello may be: one record, the longest there is.
pub(crate) const LIMIT: usize = 5 + 16 * 1024;

/// A connection that is ready to be read.
pub(crate) struct Accepted {
    pub(crate) transport: Transport,
    /// What was read from it already and comes first.
    pub(crate) prefix: Bytes,
    pub(crate) peer: Peer,
    /// A transport header follows.
    pub(crate) tagged: bool,
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Nobody says: the connection is plaintext.
    Plaintext,
    /// A client that spoke TLS to this proxy, by its certificate if it had one.
    Mesh(Option<Arc<str>>),
    /// A client that speaks TLS to somebody else behind this proxy, by the SNI.
    Elsewhere(Option<Box<str>>),
}

impl Accepted {
    fn plaintext(stream: TcpStream) -> Self {
        Self { transport: Transport::Left(stream), prefix: Bytes::new(), peer: Peer::Plaintext, tagged: false }
    }
}

impl Peer {
    /// What is counted about it.
    pub(crate) fn label(&self) -> Tls<'_> {
        match self {
            Self::Plaintext => Tls::None("no_tls_from_remote"),
            Self::Mesh(id) => Tls::Client(id.as_deref()),
            Self::Elsewhere(sni) => Tls::Elsewhere(sni.as_deref()),
        }
    }

    /// The verified identity of the client.
    pub(crate) fn client_id(&self) -> Option<&Arc<str>> {
        match self {
            Self::Mesh(id) => id.as_ref(),
            Self::Plaintext | Self::Elsewhere(_) => None,
        }
    }
}

/// Looks at the first bytes of a connection, which have to come until the deadline, and terminates TLS that is for this proxy. A
/// connection is `direct` when it is for the proxy's own port. A client that says nothing in time is one that speaks plaintext: perhaps the server speaks first.
///
/// # Errors
/// The connection broke, or its handshake failed.
pub(crate) async fn accept(
    stream: TcpStream,
    credentials: Option<&Credentials>,
    direct: bool,
    deadline: Instant,
) -> io::Result<Accepted> {
    let Some(credentials) = credentials else { return Ok(Accepted::plaintext(stream)) };
    let mut first = [0];
    let peeked = time::timeout_at(deadline, stream.peek(&mut first)).await.unwrap_or(Ok(0))?;
    if peeked == 0 || first != [HANDSHAKE] {
        return Ok(Accepted::plaintext(stream));
    }
    let (stream, sni, read) = hello(stream, deadline).await?;
    if sni.as_deref() != Some(&*credentials.name) {
        return Ok(Accepted {
            transport: Transport::Left(stream),
            prefix: read,
            peer: Peer::Elsewhere(sni),
            tagged: false,
        });
    }
    let config = if direct { &credentials.direct } else { &credentials.server };
    let acceptor = TlsAcceptor::from(Arc::clone(config));
    let handshake = acceptor.accept(Prefixed::new(stream, read));
    let stream = time::timeout_at(deadline, handshake).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let session = stream.get_ref().1;
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let client = certificate.and_then(|certificate| names(certificate).next().map(Arc::from));
    let tagged = session.alpn_protocol() == Some(PROTOCOL);
    let transport = Transport::Right(Box::new(stream.into()));
    Ok(Accepted { transport, prefix: Bytes::new(), peer: Peer::Mesh(client), tagged })
}

/// A ClientHello that is being read.
#[derive(Default)]
pub(crate) struct Hello(Acceptor);

/// How far a ClientHello has been read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More bytes are needed.
    Incomplete,
    /// It is there, with this SNI.
    Read(Option<Box<str>>),
    /// There is none.
    Other,
}

impl Hello {
    /// Takes the bytes that come next. After anything but [`Progress::Incomplete`] there are none to take.
    ///
    /// # Errors
    /// More bytes came than a ClientHello can have.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> io::Result<Progress> {
        while !bytes.is_empty() && self.0.read_tls(&mut bytes)? > 0 {}
        Ok(match self.0.accept() {
            Ok(None) => Progress::Incomplete,
            Ok(Some(accepted)) => Progress::Read(accepted.client_hello().server_name().map(Into::into)),
            Err(_) => Progress::Other,
        })
    }
}

/// Reads a ClientHello: its SNI, and all that was read. What turns out to be none has no SNI.
async fn hello(mut stream: TcpStream, deadline: Instant) -> io::Result<(TcpStream, Option<Box<str>>, Bytes)> {
    let mut hello = Hello::default();
    let mut read = BytesMut::with_capacity(1024);
    while read.len() < LIMIT {
        let before = read.len();
        match time::timeout_at(deadline, stream.read_buf(&mut read)).await {
            Ok(more) => {
                if more? == 0 {
                    break;
                }
            }
            Err(_) => break,
        }
        match hello.push(&read[before..])? {
            Progress::Incomplete => {}
            Progress::Read(sni) => return Ok((stream, sni, read.freeze())),
            Progress::Other => break,
        }
    }
    Ok((stream, None, read.freeze()))
}
