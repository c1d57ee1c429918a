//! Heads and bodies, to bytes.
//!
//! Headers are written as they are in the map, so that what the application said arrives; only what says where a body ends is this
//! proxy's own matter, for it frames the body anew.

use std::io::Write;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST,
        MAX_FORWARDS, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
    },
};
use http_body::Body;

use super::{
    Error,
    parse::{Reason, ends_with_chunked, has_body, names},
};
use crate::http::Last;

/// How a body is written.
pub(super) enum Encoder {
    /// There is none, whatever comes.
    None,
    /// So much is still to come.
    Known(u64),
    /// In chunks, with these trailers if they come.
    Chunked(Vec<HeaderName>),
    UntilClose,
}

/// To whom a response is written.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) version: Version,
    /// Whether the client may send another request after it.
    pub(super) keep_alive: bool,
}

/// Writes a request's head, for this body.
pub(super) fn request<T>(request: &Request<T>, body: &impl Body, out: &mut Vec<u8>) -> Encoder {
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    let uri = request.uri();
    match uri.path_and_query() {
        Some(path) if uri.authority().is_none() => out.extend_from_slice(path.as_str().as_bytes()),
        // Writing to a vector does not fail.
        _ => drop(write!(out, "{uri}")),
    }
    let old = request.version() == Version::HTTP_10;
    out.extend_from_slice(if old { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
    // Without `Content-Length` a request of HTTP/1.0 has no body.
    let none = request.method() == Method::CONNECT || body.is_end_stream();
    let encoder = framing(request.headers(), body, old, Encoder::None);
    let encoder = if none { Encoder::None } else { encoder };
    let codings = matches!(encoder, Encoder::Chunked(_));
    headers(request.headers(), codings, true, out);
    if !none {
        frame(&encoder, request.headers(), out);
    }
    out.extend_from_slice(b"\r\n");
    encoder
}

/// Writes a response's head, for this body. Whether another may follow on the connection is said by the encoder and by `asked`, which is changed if
/// the response says that it is the last.
pub(super) fn response<T>(response: &Response<T>, body: &impl Body, asked: &mut Asked, out: &mut Vec<u8>) -> Encoder {
    let status = response.status();
    let old = asked.version == Version::HTTP_10;
    out.extend_from_slice(if old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    match response.extensions().get::<Reason>() {
        Some(reason) => out.extend_from_slice(&reason.0),
        None => out.extend_from_slice(status.canonical_reason().unwrap_or("<none>").as_bytes()),
    }
    out.extend_from_slice(b"\r\n");

    let bodiless = !has_body(&asked.method, status);
    let encoder = if bodiless { Encoder::None } else { framing(response.headers(), body, old, Encoder::UntilClose) };
    let said = |token| response.headers().get_all(CONNECTION).iter().any(|value| names(value.as_bytes(), token));
    let last = said(b"close") || response.extensions().get::<Last>().is_some();
    asked.keep_alive &= !last && !matches!(encoder, Encoder::UntilClose);
    // What belongs to a body that another method or another condition would have got is told, as far as it may be.
    let lengths = !bodiless || asked.method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    headers(response.headers(), matches!(encoder, Encoder::Chunked(_)), lengths, out);
    if !bodiless {
        frame(&encoder, response.headers(), out);
    }
    let upgraded = status == StatusCode::SWITCHING_PROTOCOLS;
    if !asked.keep_alive && !old && !upgraded && !said(b"close") {
        out.extend_from_slice(b"connection: close\r\n");
    }
    if asked.keep_alive && old && !said(b"keep-alive") {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
    encoder
}

/// How a body is written of which the headers say this; `otherwise` if its length is not known and chunks are not either.
fn framing(headers: &HeaderMap, body: &impl Body, old: bool, otherwise: Encoder) -> Encoder {
    if !old && headers.contains_key(TRANSFER_ENCODING) {
        return Encoder::Chunked(trailers(headers));
    }
    let said = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    match said.or_else(|| body.size_hint().exact()) {
        Some(length) => Encoder::Known(length),
        None if old => otherwise,
        None => Encoder::Chunked(trailers(headers)),
    }
}

/// The trailers that the head announces.
fn trailers(headers: &HeaderMap) -> Vec<HeaderName> {
    let announced = headers.get_all(TRAILER).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    announced.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).filter(may_be_trailer).collect()
}

/// What a reader takes as part of the head must not come behind the body (RFC 9110, section 6.5.1).
fn may_be_trailer(name: &HeaderName) -> bool {
    ![
        AUTHORIZATION,
        CACHE_CONTROL,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        HOST,
        MAX_FORWARDS,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
    ]
    .contains(name)
}

/// Writes the lines, of those that frame the body only what is true.
fn headers(headers: &HeaderMap, codings: bool, lengths: bool, out: &mut Vec<u8>) {
    for (name, value) in headers {
        if *name == TRANSFER_ENCODING && !codings || *name == CONTENT_LENGTH && !lengths {
            continue;
        }
        line(name, value.as_bytes(), out);
    }
}

/// Adds what says where the body ends, if the headers do not.
fn frame(encoder: &Encoder, headers: &HeaderMap, out: &mut Vec<u8>) {
    match encoder {
        Encoder::Chunked(_) => {
            let said = headers.get_all(TRANSFER_ENCODING).iter().next_back();
            if !said.is_some_and(|value: &HeaderValue| ends_with_chunked(value.as_bytes())) {
                out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
        }
        Encoder::Known(length) if !headers.contains_key(CONTENT_LENGTH) => {
            drop(write!(out, "content-length: {length}\r\n"));
        }
        _ => {}
    }
}

fn line(name: &HeaderName, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

impl Encoder {
    /// Writes a part of the body.
    pub(super) fn data(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            _ if data.is_empty() => {}
            Self::None => {}
            Self::UntilClose => out.extend_from_slice(data),
            Self::Known(remaining) => {
                *remaining = remaining.checked_sub(data.len() as u64).ok_or(Error::Length)?;
                out.extend_from_slice(data);
            }
            Self::Chunked(_) => {
                drop(write!(out, "{:x}\r\n", data.len()));
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }

    /// Writes the end of the body, with those of the trailers that were announced.
    pub(super) fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Known(remaining) if *remaining > 0 => return Err(Error::Length),
            Self::Chunked(announced) => {
                out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten().filter(|(name, _)| announced.contains(name)) {
                    line(name, value.as_bytes(), out);
                }
                out.extend_from_slice(b"\r\n");
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};

    use super::*;

    type Any = UnsyncBoxBody<Bytes, std::convert::Infallible>;

    fn known(body: &'static str) -> Any {
        Full::from(body).boxed_unsync()
    }

    fn unknown() -> Any {
        StreamBody::new(futures::stream::pending()).boxed_unsync()
    }

    #[test]
    fn a_request_says_where_its_body_ends() {
        let written = |method, version, headers: &[(&'static str, &'static str)], body: Any| {
            let mut message = Request::builder().method(method).version(version).uri("/a?b");
            for (name, value) in headers {
                message = message.header(*name, *value);
            }
            let mut out = Vec::new();
            request(&message.body(()).unwrap(), &body, &mut out);
            String::from_utf8(out).unwrap()
        };
        let (new, old) = (Version::HTTP_11, Version::HTTP_10);
        let none = || Empty::new().boxed_unsync();
        for (headers, body, expected) in [
            (&[("host", "a")][..], none(), "host: a\r\n"),
            (&[("transfer-encoding", "chunked")], none(), ""),
            (&[("content-length", "0")], none(), "content-length: 0\r\n"),
            (&[("content-length", "3")], unknown(), "content-length: 3\r\n"),
            (&[], known("abc"), "content-length: 3\r\n"),
            (&[], unknown(), "transfer-encoding: chunked\r\n"),
            (&[("transfer-encoding", "chunked")], known("abc"), "transfer-encoding: chunked\r\n"),
        ] {
            assert_eq!(written("POST", new, headers, body), format!("POST /a?b HTTP/1.1\r\n{expected}\r\n"));
        }
        assert_eq!(written("POST", old, &[], known("abc")), "POST /a?b HTTP/1.0\r\ncontent-length: 3\r\n\r\n");
        assert_eq!(written("POST", old, &[], unknown()), "POST /a?b HTTP/1.0\r\n\r\n");
    }

    #[test]
    fn targets_are_written_in_their_form() {
        for (method, uri) in [("GET", "http://a:81/b?c"), ("CONNECT", "a:80"), ("OPTIONS", "*"), ("GET", "/")] {
            let message = Request::builder().method(method).uri(uri).body(()).unwrap();
            let mut out = Vec::new();
            request(&message, &known(""), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{method} {uri} HTTP/1.1\r\n\r\n"));
        }
    }

    #[test]
    fn a_response_says_what_its_client_understands() {
        let written = |method: &str, version, status: u16, headers: &[(&'static str, &'static str)], body: Any| {
            let mut message = Response::builder().status(status);
            for (name, value) in headers {
                message = message.header(*name, *value);
            }
            let mut out = Vec::new();
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let mut asked = Asked { method, version, keep_alive: true };
            response(&message.body(()).unwrap(), &body, &mut asked, &mut out);
            let out = String::from_utf8(out).unwrap();
            (out.split_once("\r\n").unwrap().1.trim_end().to_owned(), asked.keep_alive)
        };
        let (new, old) = (Version::HTTP_11, Version::HTTP_10);
        let chunked = [("transfer-encoding", "chunked")];
        let length = [("content-length", "3")];
        for (method, version, status, headers, body, expected, keeps) in [
            ("GET", new, 200, &[][..], unknown(), "transfer-encoding: chunked", true),
            ("GET", new, 200, &chunked, unknown(), "transfer-encoding: chunked", true),
            ("GET", new, 200, &[], known(""), "content-length: 0", true),
            ("GET", new, 200, &length, unknown(), "content-length: 3", true),
            (
                "GET",
                new,
                200,
                &[("connection", "close")],
                known("abc"),
                "connection: close\r\ncontent-length: 3",
                false,
            ),
            ("GET", old, 200, &chunked, unknown(), "", false),
            ("GET", old, 200, &length, unknown(), "content-length: 3\r\nconnection: keep-alive", true),
            ("HEAD", new, 200, &length, known(""), "content-length: 3", true),
            ("HEAD", new, 200, &chunked, known(""), "", true),
            ("GET", new, 304, &length, known(""), "content-length: 3", true),
            ("GET", new, 204, &length, known(""), "", true),
            ("CONNECT", new, 200, &length, known(""), "", true),
        ] {
            let context = format!("{method} {version:?} {status} {headers:?}");
            assert_eq!(written(method, version, status, headers, body), (expected.to_owned(), keeps), "{context}");
        }
    }

    #[test]
    fn bodies_are_as_long_as_was_said() {
        let mut out = Vec::new();
        let mut chunks = Encoder::Chunked(vec![HeaderName::from_static("x-sum")]);
        chunks.data(b"0123456789", &mut out).unwrap();
        chunks.data(b"", &mut out).unwrap();
        let mut sums = HeaderMap::new();
        sums.insert("x-sum", HeaderValue::from_static("1"));
        sums.insert("x-other", HeaderValue::from_static("2"));
        chunks.end(Some(&sums), &mut out).unwrap();
        assert_eq!(out.escape_ascii().to_string(), "a\\r\\n0123456789\\r\\n0\\r\\nx-sum: 1\\r\\n\\r\\n");

        let mut known = Encoder::Known(3);
        assert!(known.end(None, &mut out).is_err());
        assert!(known.data(b"abcd", &mut out).is_err());
        known.data(b"abc", &mut out).unwrap();
        known.end(None, &mut out).unwrap();
        assert_eq!(trailers(&HeaderMap::from_iter([(TRAILER, HeaderValue::from_static("x-sum, Host"))])), ["x-sum"]);
    }
}
