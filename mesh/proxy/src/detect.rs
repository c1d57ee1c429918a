//! What protocol a connection speaks, from its first bytes.
//!
//! As in Linkerd: HTTP/2 by its preface, HTTP/1 if the first line parses as a request's, everything else (TLS among it) is
//! opaque and passed on at once. A connection on which the client says nothing is opaque after the detection timeout,
//! since then the server speaks first.
//!
//! Different from Linkerd, the answer does not depend on how the bytes were cut into segments: a first line that may still become
//! a request's (`GE`) is neither given up nor taken for one, detection reads on. Otherwise a client could choose by its segments
//! whether its requests are seen. For the same reason a request line that is begun and not ended in time is HTTP/1, whose server
//! has a limit of its own for such clients. What is no method that anybody uses (`hello`) does not wait.

use std::io;

use bytes::BytesMut;
use tokio::time::Instant;

use crate::io::Io;

const LIMIT: usize = 1024;
/// What a client that speaks HTTP/2 begins with (RFC 9113, section 3.4).
pub(crate) const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// As many bytes of the preface as tell it from any HTTP/1 request.
const DECISIVE: usize = 14;
/// Methods that are recognised in any case, since some servers take them so.
const METHODS: [&[u8]; 9] = [b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"CONNECT", b"HEAD", b"TRACE"];
/// The longest registered method has 17 bytes.
const LONGEST_METHOD: usize = 32;
/// A TLS record of type handshake, version 3.x.
const TLS: &[u8] = &[0x16, 0x03];

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
            Ok(0) => break classify(&buffer).unwrap_or_else(|| give_up(&buffer, Detected::Opaque)),
            Ok(_) => {
                if let Some(detected) = classify(&buffer) {
                    break detected;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => break give_up(&buffer, Detected::TimedOut),
            Err(error) => return Err(error),
        }
    };
    io.unread(buffer.freeze());
    Ok(detected)
}

/// The protocol of a connection that starts with `bytes`; `None` if more of them are needed. Once there is an answer, further bytes
/// do not change it.
pub(crate) fn classify(bytes: &[u8]) -> Option<Detected> {
    let bytes = &bytes[..bytes.len().min(LIMIT)];
    if H2_PREFACE[..DECISIVE].starts_with(bytes) && bytes.len() < DECISIVE || bytes == &TLS[..1] {
        return None;
    }
    if bytes.starts_with(&H2_PREFACE[..DECISIVE]) {
        return Some(Detected::Http2);
    }
    if bytes.starts_with(TLS) {
        return Some(Detected::Tls);
    }
    match request_line(bytes) {
        Line::Request => Some(Detected::Http1),
        Line::Other => Some(Detected::Opaque),
        Line::Unfinished { .. } => (bytes.len() == LIMIT).then(|| give_up(bytes, Detected::Opaque)),
    }
}

/// The answer when no more bytes come: HTTP/1 if a request line has been begun, `otherwise` if not.
pub(crate) fn give_up(bytes: &[u8], otherwise: Detected) -> Detected {
    match request_line(bytes) {
        Line::Unfinished { begun: true } => Detected::Http1,
        _ => otherwise,
    }
}

/// What the first line of a connection is.
enum Line {
    Request,
    Other,
    /// It may become either; `begun` once a method is there.
    Unfinished {
        begun: bool,
    },
}

fn request_line(bytes: &[u8]) -> Line {
    // Empty lines before a request are ignored (RFC 9112, section 2.2).
    let Some(start) = bytes.iter().position(|byte| !b"\r\n".contains(byte)) else {
        return Line::Unfinished { begun: false };
    };
    let line = &bytes[start..];
    let method = line.split(|byte| *byte == b' ').next().unwrap_or(line);
    let begun = method.len() < line.len();
    if !may_be_method(method, begun) {
        return Line::Other;
    }
    let end = line.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
    // The line alone: whether the headers after it are well-formed is for the server to say.
    let parsed = httparse::Request::new(&mut []).parse(&bytes[..start + end.unwrap_or(line.len())]);
    match (parsed, end) {
        (Err(_), _) => Line::Other,
        (Ok(_), Some(_)) => Line::Request,
        (Ok(_), None) => Line::Unfinished { begun },
    }
}

/// Whether the bytes are a method or, unless they are all there are of it, the start of one: a usual one in any case, or one in
/// capital letters.
fn may_be_method(bytes: &[u8], whole: bool) -> bool {
    let usual = METHODS.into_iter().any(|method| {
        method.get(..bytes.len()).is_some_and(|start| start.eq_ignore_ascii_case(bytes))
            && (!whole || method.len() == bytes.len())
    });
    let capital = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-_".contains(byte);
    let other =
        bytes.first().is_some_and(u8::is_ascii_uppercase) && bytes.len() <= LONGEST_METHOD && bytes.iter().all(capital);
    usual || other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_decide() {
        let table: [(&[u8], Option<Detected>); 20] = [
            (b"GET / HTTP/1.1\r\n", Some(Detected::Http1)),
            (b"\r\nGET / HTTP/1.1\n", Some(Detected::Http1)),
            (b"get / HTTP/1.1\r\n\0", Some(Detected::Http1)),
            (b"GET /a/long/path HTT", None),
            (b"BREW", None),
            (b"Brew / HTTP/1.1\r\n", Some(Detected::Opaque)),
            (b"get key\r\n", Some(Detected::Opaque)),
            (b"GET / HTTP/1.1 and more\r\n", Some(Detected::Opaque)),
            (b"\x16", None),
            (b"JDWP-Handshake", Some(Detected::Opaque)),
            (b"OPTIONS rtsp://a/b RTSP/1.0\r\n", Some(Detected::Opaque)),
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
    #[test]
    fn a_request_line_that_stops_is_still_one() {
        for (bytes, http) in [
            (&b"GET "[..], true),
            (b"BREW /pot HTTP/1.", true),
            (b"GET", false),
            (b"", false),
            (b"\r\n", false),
            (b"PRI * HTTP/2", false),
            (b"\x16", false),
        ] {
            let expected = if http { Detected::Http1 } else { Detected::TimedOut };
            assert_eq!(give_up(bytes, Detected::TimedOut), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
        let long = [b"GET /", &[b'a'; LIMIT][..]].concat();
        assert_eq!(classify(&long), Some(Detected::Http1));
        assert_eq!(classify(&[b'\n'; LIMIT]), Some(Detected::Opaque));
    }
}
