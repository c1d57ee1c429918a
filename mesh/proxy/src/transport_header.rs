//! What comes first on a connection to another proxy's own port: which port of its pod the connection is for, or which Service behind
//! that proxy, if it is a gateway.
//!
//! Linkerd's (`linkerd/transport-header`), by which connections to opaque ports are encrypted: a line, a length (32 bits, the highest
//! byte first) and a protobuf message. A client that means it says so in the TLS handshake, by ALPN.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{self, Instant},
};

use crate::NameAddr;

/// The protocol's name in the TLS handshake.
pub(crate) const PROTOCOL: &[u8] = b"transport.l5d.io/v1";

pub(crate) const PREFACE: &[u8] = b"transport.l5d.io/v1\r\n\r\n";

/// No message is longer. Names, which are the longest part, have at most 255 bytes.
pub(crate) const LIMIT: usize = 1024;

/// What a connection is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum To {
    /// A port of the proxy's pod.
    Port(u16),
    /// A Service that the proxy is a gateway to.
    Name(NameAddr),
}

/// Where a connection goes, and what it speaks.
#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(int32, tag = "1")]
    port: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, optional, tag = "3")]
    session: Option<SessionProtocol>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionProtocol {
    #[prost(oneof = "Session", tags = "1, 2")]
    kind: Option<Session>,
}

/// A version of HTTP that the client knows it speaks.
#[derive(Clone, Copy, PartialEq, Eq, prost::Oneof)]
pub(crate) enum Session {
    #[prost(message, tag = "1")]
    Http1(Nothing),
    #[prost(message, tag = "2")]
    Http2(Nothing),
}

/// A message without fields.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Nothing {}

/// A header that is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Malformed {
    #[error("expected the line transport.l5d.io/v1")]
    Preface,
    #[error("expected a message of at most {LIMIT} bytes, found one of {0}")]
    Length(u32),
    #[error("the message is no header: {0}")]
    Message(prost::DecodeError),
    #[error("{0} is no port")]
    Port(i32),
    #[error("expected the DNS name of a Service, found `{0}`")]
    Name(String),
}

impl Session {
    pub(crate) const HTTP1: Self = Self::Http1(Nothing {});
    pub(crate) const HTTP2: Self = Self::Http2(Nothing {});
}

/// The bytes that say it.
pub(crate) fn encode(to: &To, session: Option<Session>) -> Bytes {
    let session = session.map(|session| SessionProtocol { kind: Some(session) });
    let (port, name) = match to {
        To::Port(port) => (*port, ""),
        To::Name(name) => (name.port(), name.name()),
    };
    let message = Header { port: port.into(), name: name.to_owned(), session }.encode_to_vec();
    let mut bytes = BytesMut::with_capacity(PREFACE.len() + 4 + message.len());
    bytes.put_slice(PREFACE);
    bytes.put_u32(message.len() as u32);
    bytes.put_slice(&message);
    bytes.freeze()
}

/// Where it goes and what is spoken, if that is clear already; what it was read from is taken away.
pub(crate) fn decode(bytes: &mut BytesMut) -> Result<Option<(To, Option<Session>)>, Malformed> {
    let preface = bytes.len().min(PREFACE.len());
    if bytes[..preface] != PREFACE[..preface] {
        return Err(Malformed::Preface);
    }
    let Some(mut rest) = bytes.get(PREFACE.len()..).filter(|rest| rest.len() >= 4) else { return Ok(None) };
    let length = rest.get_u32();
    if length as usize > LIMIT {
        return Err(Malformed::Length(length));
    }
    let Some(message) = rest.get(..length as usize) else { return Ok(None) };
    let Header { port, name, session } = Header::decode(message).map_err(Malformed::Message)?;
    let port = u16::try_from(port).ok().filter(|port| *port > 0).ok_or(Malformed::Port(port))?;
    let to = if name.is_empty() {
        To::Port(port)
    } else {
        To::Name(NameAddr::new(&name, port).ok_or(Malformed::Name(name))?)
    };
    bytes.advance(PREFACE.len() + 4 + length as usize);
    Ok(Some((to, session.and_then(|session| session.kind))))
}

/// Reads a header; what was read beyond it comes along.
pub(crate) async fn read(
    from: &mut (impl AsyncRead + Unpin),
    deadline: Instant,
) -> io::Result<(To, Option<Session>, Bytes)> {
    let mut bytes = BytesMut::with_capacity(256);
    loop {
        let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        if let Some((to, session)) = decode(&mut bytes).map_err(malformed)? {
            return Ok((to, session, bytes.freeze()));
        }
        if time::timeout_at(deadline, from.read_buf(&mut bytes)).await?? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Linkerd's proxy writes it.
    const PLAIN: &[u8] = b"transport.l5d.io/v1\r\n\r\n\0\0\0\x03\x08\xa8\x46";
    const HTTP2: &[u8] = b"transport.l5d.io/v1\r\n\r\n\0\0\0\x06\x08\x50\x1a\x02\x12\x00";

    const NAMED: &[u8] = b"transport.l5d.io/v1\r\n\r\n\0\0\0\x0d\x08\x50\x12\x05web.a\x1a\x02\x0a\x00";

    fn web() -> To {
        To::Name(NameAddr::new("web.a", 80).unwrap())
    }

    #[test]
    fn the_bytes_are_linkerds() {
        assert_eq!(encode(&To::Port(9000), None), PLAIN);
        assert_eq!(encode(&To::Port(80), Some(Session::HTTP2)), HTTP2);
        assert_eq!(encode(&web(), Some(Session::HTTP1)), NAMED);
        // Linkerd's may have a dot at their ends.
        let absolute = b"transport.l5d.io/v1\r\n\r\n\0\0\0\x0a\x08\x50\x12\x06Web.a.";
        assert_eq!(decode(&mut absolute.as_slice().into()), Ok(Some((web(), None))));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let with = |message: &[u8]| [PREFACE, &(message.len() as u32).to_be_bytes(), message].concat();
        for (bytes, expected) in [
            (b"GET / HTTP/1.1\r\n".to_vec(), Malformed::Preface),
            (b"transport.l5d.io/v2\r\n".to_vec(), Malformed::Preface),
            ([PREFACE, &[0xff; 4]].concat(), Malformed::Length(u32::MAX)),
            (with(b""), Malformed::Port(0)),
            (with(b"\x08\x80\x80\x04"), Malformed::Port(65_536)),
            (with(b"\x08\x50\x12\x03a,b"), Malformed::Name("a,b".to_owned())),
            (with(b"\x12\x01a"), Malformed::Port(0)),
        ] {
            assert_eq!(decode(&mut bytes.as_slice().into()), Err(expected), "{bytes:?}");
        }
        assert!(matches!(decode(&mut with(b"\xff").as_slice().into()), Err(Malformed::Message(_))));
    }

    proptest! {
        #[test]
        fn a_header_is_read_from_any_pieces(
            port in 1..=u16::MAX,
            name in "([a-z]{1,9}\\.ns)?",
            http in 0..3,
            after: Vec<u8>,
            cut in 0..40_usize,
        ) {
            let session = [None, Some(Session::HTTP1), Some(Session::HTTP2)][http as usize];
            let to = NameAddr::new(&name, port).map_or(To::Port(port), To::Name);
            let bytes = encode(&to, session);
            let cut = cut.min(bytes.len() - 1);
            let mut some = BytesMut::from(&bytes[..cut]);
            prop_assert_eq!(decode(&mut some), Ok(None));
            some.put_slice(&bytes[cut..]);
            some.put_slice(&after);
            prop_assert_eq!(decode(&mut some), Ok(Some((to, session))));
            prop_assert_eq!(&some[..], &after[..]);
        }

        #[test]
        fn nothing_that_comes_breaks_it(bytes: Vec<u8>, header: bool) {
            let bytes = if header { [PREFACE, &bytes].concat() } else { bytes };
            let _ = decode(&mut bytes.as_slice().into());
        }
    }
}
