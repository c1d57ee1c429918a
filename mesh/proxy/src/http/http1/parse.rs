//! Heads, from bytes.
//!
//! What is a header's line is httparse's to say; what a message's length is, RFC 9112's (section 6.3), read strictly: of two lengths
//! that differ none is taken.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING},
};
use httparse::Status;

use crate::http::MAX_HEAD;

/// As many header lines as are read.
pub(super) const MAX_LINES: usize = 100;
/// As many as are added on the way, at most.
const OWN_LINES: usize = 3;
/// The longest target, as in hyper.
const MAX_TARGET: usize = (u16::MAX - 1) as usize;

/// A request's head, and what it says about its connection and its body.
pub(super) struct RequestHead {
    pub(super) request: Request<()>,
    pub(super) length: BodyLength,
    pub(super) keep_alive: bool,
    /// `Expect: 100-continue`.
    pub(super) expects: bool,
}

/// A response's head.
pub(super) struct ResponseHead {
    pub(super) response: Response<()>,
    keep_alive: bool,
    /// What its headers say of a body, if it has one.
    length: BodyLength,
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyLength {
    None,
    Known(u64),
    Chunked,
    UntilClose,
}

/// A phrase in a status line that is not the usual one for its status.
#[derive(Clone)]
pub(super) struct Reason(pub(super) Bytes);

/// Why a head is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Malformed(&'static str),
    TooLarge,
    TargetTooLong,
}

impl Refused {
    /// What a client is told.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
        }
    }

    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Malformed(reason) => reason,
            Self::TooLarge => "the head is too large",
            Self::TargetTooLong => "the target is too long",
        }
    }
}

impl From<httparse::Error> for Refused {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooLarge,
            httparse::Error::HeaderName => Self::Malformed("a header's name"),
            httparse::Error::HeaderValue => Self::Malformed("a header's value"),
            httparse::Error::NewLine => Self::Malformed("the end of a line"),
            httparse::Error::Status => Self::Malformed("the status"),
            httparse::Error::Token => Self::Malformed("the first line"),
            httparse::Error::Version => Self::Malformed("the version"),
        }
    }
}

/// Takes a request's head off the input, if all of it is there.
pub(super) fn request(input: &mut Bytes) -> Result<Option<RequestHead>, Refused> {
    let mut lines = [const { MaybeUninit::uninit() }; MAX_LINES];
    let mut parsed = httparse::Request::new(&mut []);
    let Status::Complete(length) = parsed.parse_with_uninit_headers(input, &mut lines)? else { return Ok(None) };
    if length > MAX_HEAD {
        return Err(Refused::TooLarge);
    }
    // httparse has all of them when it is complete.
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refused::Malformed("the first line"));
    };
    if target.len() > MAX_TARGET {
        return Err(Refused::TargetTooLong);
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| Refused::Malformed("the method"))?;
    *request.uri_mut() =
        Uri::from_maybe_shared(input.slice_ref(target.as_bytes())).map_err(|_| Refused::Malformed("the target"))?;
    *request.version_mut() = version(minor);
    let lines = Lines::read(input, parsed.headers, minor, request.headers_mut())?;
    let body = lines.length.unwrap_or(BodyLength::None);
    if body == BodyLength::UntilClose {
        return Err(Refused::Malformed("a transfer coding that does not end with chunked"));
    }
    input.advance(length);
    Ok(Some(RequestHead { request, length: body, keep_alive: lines.keep_alive, expects: lines.expects }))
}

/// Takes a response's head off the input, if all of it is there.
pub(super) fn response(input: &mut Bytes) -> Result<Option<ResponseHead>, Refused> {
    let mut lines = [const { MaybeUninit::uninit() }; MAX_LINES];
    let mut parsed = httparse::Response::new(&mut []);
    let parsing = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, input, &mut lines);
    let Status::Complete(length) = parsing? else { return Ok(None) };
    if length > MAX_HEAD {
        return Err(Refused::TooLarge);
    }
    let (Some(code), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(Refused::Malformed("the first line"));
    };
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(code).map_err(|_| Refused::Malformed("the status"))?;
    *response.version_mut() = version(minor);
    if let Some(reason) = parsed.reason
        && Some(reason) != response.status().canonical_reason()
    {
        response.extensions_mut().insert(Reason(input.slice_ref(reason.as_bytes())));
    }
    let lines = Lines::read(input, parsed.headers, minor, response.headers_mut())?;
    input.advance(length);
    let length = lines.length.unwrap_or(BodyLength::UntilClose);
    Ok(Some(ResponseHead { response, keep_alive: lines.keep_alive, length }))
}

impl ResponseHead {
    /// How long the body is, in answer to a request of this method.
    pub(super) fn length(&self, method: &Method) -> BodyLength {
        if has_body(method, self.response.status()) { self.length } else { BodyLength::None }
    }

    /// Whether another request may follow on the connection.
    pub(super) fn keeps_alive(&self, method: &Method) -> bool {
        self.keep_alive && self.length(method) != BodyLength::UntilClose
    }
}

/// Whether the response of this status to a request of this method has a body (RFC 9112, section 6.3).
pub(super) fn has_body(method: &Method, status: StatusCode) -> bool {
    !(status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || *method == Method::HEAD
        || *method == Method::CONNECT && status.is_success())
}

fn version(minor: u8) -> Version {
    if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 }
}

/// What a head's lines say about the message.
struct Lines {
    length: Option<BodyLength>,
    keep_alive: bool,
    expects: bool,
}

impl Lines {
    fn read(
        input: &Bytes,
        lines: &[httparse::Header<'_>],
        minor: u8,
        headers: &mut HeaderMap,
    ) -> Result<Self, Refused> {
        // The proxy adds some of its own.
        headers.reserve(lines.len() + OWN_LINES);
        let (mut known, mut coded) = (None, None);
        let (mut close, mut stay, mut expects) = (false, false, false);
        for line in lines {
            let name =
                HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Refused::Malformed("a header's name"))?;
            let value = HeaderValue::from_maybe_shared(input.slice_ref(line.value))
                .map_err(|_| Refused::Malformed("a header's value"))?;
            match name {
                CONTENT_LENGTH => {
                    let length = content_length(line.value)?;
                    if known.is_some_and(|known| known != length) {
                        return Err(Refused::Malformed("several lengths"));
                    }
                    // Said again it is still said once.
                    if known.replace(length).is_some() {
                        continue;
                    }
                }
                TRANSFER_ENCODING if minor == 0 => return Err(Refused::Malformed("HTTP/1.0 has no transfer codings")),
                TRANSFER_ENCODING => coded = Some(ends_with_chunked(line.value)),
                CONNECTION => {
                    let named = |token| names(line.value, token);
                    (close, stay) = (close || named(b"close"), stay || named(b"keep-alive"));
                }
                EXPECT => expects = line.value.eq_ignore_ascii_case(b"100-continue"),
                _ => {}
            }
            headers.append(name, value);
        }
        // Who says both may mean either: it counts as chunks, and nothing follows it.
        let ambiguous = coded.is_some() && known.is_some();
        if coded.is_some() {
            headers.remove(CONTENT_LENGTH);
        }
        let length = match coded {
            Some(true) => Some(BodyLength::Chunked),
            Some(false) => Some(BodyLength::UntilClose),
            None => known.map(BodyLength::Known),
        };
        Ok(Self { length, keep_alive: !close && (minor == 1 || stay) && !ambiguous, expects })
    }
}

/// Digits and nothing else. Lengths that no message has are too large.
fn content_length(value: &[u8]) -> Result<u64, Refused> {
    const MALFORMED: Refused = Refused::Malformed("a content length");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(MALFORMED);
    }
    let digits = std::str::from_utf8(value).map_err(|_| MALFORMED)?;
    let length: u64 = digits.parse().map_err(|_| MALFORMED)?;
    if length > i64::MAX as u64 { Err(Refused::TooLarge) } else { Ok(length) }
}

/// Whether the last coding of a list is `chunked`.
pub(super) fn ends_with_chunked(value: &[u8]) -> bool {
    value.rsplit(|byte| *byte == b',').next().is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// Whether a list has this token.
pub(super) fn names(value: &[u8], token: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &str) -> RequestHead {
        let head = format!("POST /a?b HTTP/1.1\r\n{lines}\r\nrest");
        let mut input = Bytes::from(head);
        let head = request(&mut input).unwrap().unwrap();
        assert_eq!(&*input, b"rest");
        head
    }

    #[test]
    fn a_head_is_taken_when_it_is_whole() {
        let whole = b"GET /a?b HTTP/1.1\r\nHost: shop.test\r\nx-empty:\r\n\r\n";
        for length in 0..whole.len() {
            let mut part = Bytes::copy_from_slice(&whole[..length]);
            assert!(request(&mut part).unwrap().is_none(), "{length}");
            assert_eq!(part.len(), length, "nothing is taken");
        }
        let head = request(&mut Bytes::from_static(whole)).unwrap().unwrap();
        assert_eq!((head.request.method(), head.request.uri().to_string().as_str()), (&Method::GET, "/a?b"));
        assert_eq!(head.request.headers()["host"], "shop.test");
        assert_eq!((head.length, head.keep_alive, head.expects), (BodyLength::None, true, false));
    }

    #[test]
    fn lines_say_how_long_and_how_often() {
        for (lines, length, keep_alive) in [
            ("", BodyLength::None, true),
            ("content-length: 5\r\n", BodyLength::Known(5), true),
            ("content-length: 5\r\ncontent-length: 5\r\n", BodyLength::Known(5), true),
            ("transfer-encoding: Chunked\r\n", BodyLength::Chunked, true),
            ("transfer-encoding: chunked\r\ncontent-length: 5\r\n", BodyLength::Chunked, false),
            ("content-length: 5\r\ntransfer-encoding: chunked\r\n", BodyLength::Chunked, false),
            ("connection: x, Close\r\n", BodyLength::None, false),
            ("connection: close\r\nconnection: keep-alive\r\n", BodyLength::None, false),
        ] {
            let head = of(lines);
            assert_eq!((head.length, head.keep_alive), (length, keep_alive), "{lines}");
            assert!(head.request.headers().get_all(CONTENT_LENGTH).iter().count() <= 1);
        }
        assert!(of("expect: 100-Continue\r\n").expects);
        let old = |lines: &str| request(&mut Bytes::from(format!("GET / HTTP/1.0\r\n{lines}\r\n")));
        assert!(!old("").unwrap().unwrap().keep_alive);
        assert!(old("connection: keep-alive\r\n").unwrap().unwrap().keep_alive);
        assert!(old("transfer-encoding: chunked\r\n").is_err());
    }

    #[test]
    fn a_response_is_as_long_as_its_request_allows() {
        let of = |head: &str, method| {
            let head = response(&mut Bytes::from(format!("HTTP/1.1 {head}\r\n\r\n"))).unwrap().unwrap();
            (head.length(&method), head.keeps_alive(&method))
        };
        let length = "200 OK\r\ncontent-length: 3";
        assert_eq!(of(length, Method::GET), (BodyLength::Known(3), true));
        assert_eq!(of(length, Method::HEAD), (BodyLength::None, true));
        assert_eq!(of(length, Method::CONNECT), (BodyLength::None, true));
        assert_eq!(of("304 Not Modified\r\ncontent-length: 3", Method::GET), (BodyLength::None, true));
        assert_eq!(of("200 OK", Method::GET), (BodyLength::UntilClose, false));
        assert_eq!(of("200 OK\r\ntransfer-encoding: gzip", Method::GET), (BodyLength::UntilClose, false));
        assert_eq!(of("200 OK\r\ntransfer-encoding: gzip, chunked", Method::GET), (BodyLength::Chunked, true));
    }

    #[test]
    fn an_odd_phrase_is_kept() {
        let of = |line: &str| {
            let head = response(&mut Bytes::from(format!("HTTP/1.1 {line}\r\n\r\n"))).unwrap().unwrap();
            head.response.extensions().get::<Reason>().map(|reason| reason.0.clone())
        };
        assert_eq!(of("200 OK"), None);
        assert_eq!(of("200 Fine").as_deref(), Some(&b"Fine"[..]));
    }
}
