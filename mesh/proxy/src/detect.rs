//! What protocol a connection speaks, from its first bytes.
//!
//! As in Linkerd: HTTP/2 by its preface, HTTP/1 if the first bytes parse as a request, everything else (TLS among it) is
//! opaque and passed on at once. A connection on which the client says nothing is opaque after the detection timeout,
//! since then the server speaks first.
//!
//! Different from Linkerd, a first segment that may still become HTTP (`GE`) is not given up: detection reads on.

use std::io;

use bytes::BytesMut;
use tokio::time::Instant;

use crate::io::Io;

const LIMIT: usize = 1024;
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// As many bytes of the preface as tell it from any HTTP/1 request.
const DECISIVE: usize = 14;
const METHODS: [&[u8]; 9] =
    [b"GET ", b"POST ", b"PUT ", b"DELETE ", b"PATCH ", b"OPTIONS ", b"CONNECT ", b"HEAD ", b"TRACE "];

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detected {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// A TLS handshake, which is passed on as it is.
    Tls,
    /// Anything else.
    Opaque,
    /// Nothing came in time.
    TimedOut,
}

impl Detected {
    /// The label `result` of `*_tcp_detect_http_results_total`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Http1 => "http/1",
            Self::Http2 => "http/2",
            Self::Tls | Self::Opaque => "not_http",
            Self::TimedOut => "read_timeout",
        }
    }
}

/// Reads until the protocol is clear and leaves what was read in front of the connection.
pub(crate) async fn detect(io: &mut Io, deadline: Instant) -> io::Result<Detected> {
    let mut buffer = BytesMut::with_capacity(LIMIT);
    let detected = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match io.read_into(&mut buffer, LIMIT, left).await {
            Ok(0) => break classify(&buffer).unwrap_or(Detected::Opaque),
            Ok(_) => {
                if let Some(detected) = classify(&buffer) {
                    break detected;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => break Detected::TimedOut,
            Err(error) => return Err(error),
        }
    };
    io.unread(buffer.freeze());
    Ok(detected)
}

/// The protocol of a connection that starts with `bytes`; `None` if more of them are needed.
fn classify(bytes: &[u8]) -> Option<Detected> {
    if bytes.len() < DECISIVE {
        let may_be = |start: &[u8]| start.starts_with(bytes) || bytes.starts_with(start);
        if may_be(H2_PREFACE) || METHODS.into_iter().any(may_be) {
            return None;
        }
    } else if bytes.starts_with(&H2_PREFACE[..DECISIVE]) {
        return Some(Detected::Http2);
    } else if is_http1(bytes) {
        return Some(Detected::Http1);
    }
    // A TLS record of type handshake, version 3.x.
    Some(if bytes.starts_with(&[0x16, 0x03]) { Detected::Tls } else { Detected::Opaque })
}

fn is_http1(bytes: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    match httparse::Request::new(&mut headers).parse(bytes) {
        Ok(_) => true,
        // So many headers in so few bytes are still headers.
        Err(error) => error == httparse::Error::TooManyHeaders,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_decide() {
        let table: [(&[u8], Option<Detected>); 10] = [
            (b"GET / HTTP/1.1\r\n", Some(Detected::Http1)),
            (b"BREW /pot/1 HTTP/1.1\r\nhost: a\r\n\r\n", Some(Detected::Http1)),
            (b"GE", None),
            (b"", None),
            (H2_PREFACE, Some(Detected::Http2)),
            (b"PRI * HTT", None),
            (b"hello", Some(Detected::Opaque)),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaa", Some(Detected::Tls)),
            (b"\x00\x00\x00\x01binary protocol, long", Some(Detected::Opaque)),
            (b"SSH-2.0-OpenSSH_9.9\r\n", Some(Detected::Opaque)),
        ];
        for (bytes, expected) in table {
            assert_eq!(classify(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
