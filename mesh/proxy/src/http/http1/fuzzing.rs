//! What has to hold of heads and bodies whatever the bytes, for [`crate::fuzzing`].

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Version};
use httparse::{EMPTY_HEADER, Header, Status, parse_chunk_size};

use super::{
    decode::{Decoder, Step},
    parse::{self, BodyLength, MAX_LINES, Refused, RequestHead, ResponseHead},
};

/// More of an input is not looked at: every beginning of it is read anew.
const LONGEST: usize = 1024;

/// Any bytes, as a request, as a response, and as a body in chunks.
pub(crate) fn head(data: &[u8]) {
    let data = &data[..data.len().min(LONGEST)];
    request(data);
    response(data);
    chunks(data);
    // Few bytes begin with a first line by chance.
    request(&[&b"POST /a HTTP/1.1\r\n"[..], data].concat());
    response(&[&b"HTTP/1.1 200 OK\r\n"[..], data].concat());
}

/// What httparse reads is what is taken, no length is believed that another line denies, and cuts change nothing.
fn request(data: &[u8]) {
    let mut lines = [EMPTY_HEADER; MAX_LINES];
    let mut parsed = httparse::Request::new(&mut lines);
    let whole = parsed.parse(data);
    let mut rest = Bytes::copy_from_slice(data);
    match parse::request(&mut rest) {
        Ok(Some(RequestHead { request, length, keep_alive, .. })) => {
            assert_eq!(whole, Ok(Status::Complete(taken(data, &rest))));
            assert_eq!(Some(request.method().as_str()), parsed.method);
            assert_eq!(Some(request.version()), parsed.version.map(version));
            let target = parsed.path.filter(|path| path.starts_with('/')).and_then(|path| path.split('#').next());
            if let Some(target) = target {
                assert_eq!(request.uri().path_and_query().map(|path| path.as_str()), Some(target));
            }
            let said = Said::by(parsed.headers);
            said.carried_by(request.headers());
            said.agrees_with(length, BodyLength::None);
            assert!(length != BodyLength::UntilClose, "a request ends before its connection does");
            assert!(!keep_alive || said.lengths.is_empty() || said.codings.is_empty(), "ambiguous, and kept alive");
        }
        Ok(None) => untaken(data, &rest, whole == Ok(Status::Partial)),
        // What httparse refuses, and more.
        Err(_) => untaken(data, &rest, whole != Ok(Status::Partial)),
    }
    cut(data, |bytes| parse::request(bytes).map(|head| head.map(drop)));
}

fn response(data: &[u8]) {
    let mut lines = [EMPTY_HEADER; MAX_LINES];
    let mut parsed = httparse::Response::new(&mut lines);
    let whole = parsed.parse(data);
    let mut rest = Bytes::copy_from_slice(data);
    match parse::response(&mut rest) {
        Ok(Some(head)) => {
            assert_eq!(whole, Ok(Status::Complete(taken(data, &rest))));
            let ResponseHead { response, .. } = &head;
            assert_eq!(Some(response.status().as_u16()), parsed.code);
            assert_eq!(Some(response.version()), parsed.version.map(version));
            let said = Said::by(parsed.headers);
            said.carried_by(response.headers());
            assert_eq!(head.length(&Method::HEAD), BodyLength::None);
            match response.status().as_u16() {
                100..200 | 204 | 304 => assert_eq!(head.length(&Method::GET), BodyLength::None),
                _ => said.agrees_with(head.length(&Method::GET), BodyLength::UntilClose),
            }
            let until_close = head.length(&Method::GET) == BodyLength::UntilClose;
            assert!(!(until_close && head.keeps_alive(&Method::GET)), "kept alive until it is closed");
        }
        Ok(None) => untaken(data, &rest, whole == Ok(Status::Partial)),
        Err(_) => untaken(data, &rest, whole != Ok(Status::Partial)),
    }
    cut(data, |bytes| parse::response(bytes).map(|head| head.map(drop)));
}

/// How many bytes were taken, which have to be the first.
fn taken(data: &[u8], rest: &[u8]) -> usize {
    assert!(data.ends_with(rest), "what is left are not the last bytes");
    data.len() - rest.len()
}

fn untaken(data: &[u8], rest: &[u8], agreed: bool) {
    assert_eq!(taken(data, rest), 0, "bytes were taken of what is no head");
    assert!(agreed, "httparse says otherwise");
}

/// The first answer that the bytes give as they come, one by one, is the one that they give at once.
fn cut(data: &[u8], read: impl Fn(&mut Bytes) -> Result<Option<()>, Refused>) {
    let answer = |length: usize| {
        let mut rest = Bytes::copy_from_slice(&data[..length]);
        match read(&mut rest) {
            Ok(None) => None,
            Ok(Some(())) => Some(Ok(length - rest.len())),
            Err(refused) => Some(Err(refused.status())),
        }
    };
    assert_eq!((0..=data.len()).find_map(answer), answer(data.len()), "cut into bytes");
}

fn version(minor: u8) -> Version {
    if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 }
}

/// What the lines of a head say, by httparse.
struct Said<'a> {
    lines: &'a [Header<'a>],
    lengths: Vec<&'a [u8]>,
    codings: Vec<&'a [u8]>,
}

impl<'a> Said<'a> {
    fn by(lines: &'a [Header<'a>]) -> Self {
        let of = |name: &str| {
            lines.iter().filter(|line| line.name.eq_ignore_ascii_case(name)).map(|line| line.value).collect()
        };
        Self { lines, lengths: of("content-length"), codings: of("transfer-encoding") }
    }

    /// Every line, in its order among those of its name. A length is said once, and not at all beside a coding.
    fn carried_by(&self, headers: &HeaderMap) {
        for line in self.lines {
            let name = HeaderName::from_bytes(line.name.as_bytes()).expect("a head that was taken has names");
            let carried: Vec<&[u8]> = headers.get_all(&name).iter().map(|value| value.as_bytes()).collect();
            let of_name = self.lines.iter().filter(|other| other.name.eq_ignore_ascii_case(line.name));
            let mut said: Vec<&[u8]> = of_name.map(|line| line.value).collect();
            if name == http::header::CONTENT_LENGTH {
                said.truncate(usize::from(self.codings.is_empty()));
            }
            assert_eq!(carried, said, "{name}");
        }
        let unsaid =
            headers.keys().find(|name| !self.lines.iter().any(|line| line.name.eq_ignore_ascii_case(name.as_str())));
        assert_eq!(unsaid, None, "nobody said that");
    }

    /// The length is what all lines about it say; `otherwise` where none does.
    fn agrees_with(&self, length: BodyLength, otherwise: BodyLength) {
        let last = self.codings.last().map(|coding| coding.to_ascii_lowercase());
        let expected = match (last, self.lengths.as_slice()) {
            (Some(last), _)
                if last.rsplit(|byte| *byte == b',').next().is_some_and(|one| one.trim_ascii() == b"chunked") =>
            {
                BodyLength::Chunked
            }
            (Some(_), _) => BodyLength::UntilClose,
            (None, []) => otherwise,
            (None, lengths) => {
                let read = |length: &&[u8]| {
                    assert!(length.iter().all(u8::is_ascii_digit), "a length that is none was believed");
                    std::str::from_utf8(length).ok().and_then(|length| length.parse().ok()).map(BodyLength::Known)
                };
                let first = lengths.first().and_then(read);
                assert!(lengths.iter().all(|length| read(length) == first), "of lengths that differ one was believed");
                first.expect("a length that was believed is a number")
            }
        };
        assert_eq!(length, expected);
    }
}

/// A body in chunks as far as it came.
#[derive(Debug, PartialEq)]
struct Body {
    data: Vec<u8>,
    trailers: HeaderMap,
    /// What comes after its end, if that came.
    rest: Option<Vec<u8>>,
}

/// A body does not depend on how it is cut, and has the chunks that httparse finds in it.
fn chunks(data: &[u8]) {
    let whole = read([data]);
    for piece in [1, 2, 7] {
        assert_eq!(read(data.chunks(piece)), whole, "in pieces of {piece}");
    }
    let Ok(Body { data: found, rest: Some(after), .. }) = whole else { return };
    assert!(data.ends_with(&after), "what is left are not the last bytes");
    let (mut rest, mut expected) = (data, Vec::new());
    loop {
        // httparse reads no more than 15 digits, were they all zeros.
        let Ok(Status::Complete((start, size))) = parse_chunk_size(rest) else { return };
        let size = usize::try_from(size).expect("what has come is no longer than that");
        if size == 0 {
            break;
        }
        expected.extend_from_slice(&rest[start..start + size]);
        assert_eq!(&rest[start + size..start + size + 2], b"\r\n", "a chunk ends elsewhere");
        rest = &rest[start + size + 2..];
    }
    assert_eq!(found, expected);
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Body, String> {
    let mut decoder = Decoder::from(BodyLength::Chunked);
    let mut body = Body { data: Vec::new(), trailers: HeaderMap::new(), rest: None };
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while body.rest.is_none() {
            match decoder.step(&mut input).map_err(|error| error.to_string())? {
                Step::Data(data) => body.data.extend_from_slice(&data),
                Step::Trailers(trailers) => (body.trailers, body.rest) = (trailers, Some(Vec::new())),
                Step::End => body.rest = Some(Vec::new()),
                Step::More => break,
            }
        }
        if let Some(rest) = &mut body.rest {
            rest.extend_from_slice(&input);
        }
    }
    Ok(body)
}
