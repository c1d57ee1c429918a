//! Bodies, from bytes.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

use super::{Error, parse::BodyLength, wire::Wire};

/// Beside the bytes that it carries, a body may have this much in extensions of its chunks, and in its trailers.
const MAX_EXTRA: usize = 16 * 1024;
const MAX_TRAILERS: usize = 64;

/// Where in a body a reader is.
pub(super) enum Decoder {
    /// So much is to come.
    Known(u64),
    Chunked {
        chunk: Chunk,
        extra: usize,
    },
    UntilClose,
    Ended,
}

/// Where in a chunk a reader is.
pub(super) enum Chunk {
    /// Before the first digit of a size.
    Start,
    Size(u64),
    /// Behind a size and a space.
    Space(u64),
    Extension(u64),
    /// Before the line feed that ends a size's line.
    SizeEnd(u64),
    Data(u64),
    DataEnd,
    DataFeed,
    /// Trailers as far as they have come.
    Trailers(Vec<u8>),
}

/// What the next bytes are.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    /// Not there yet.
    More,
}

impl From<BodyLength> for Decoder {
    fn from(length: BodyLength) -> Self {
        match length {
            BodyLength::None | BodyLength::Known(0) => Self::Ended,
            BodyLength::Known(length) => Self::Known(length),
            BodyLength::Chunked => Self::Chunked { chunk: Chunk::Start, extra: 0 },
            BodyLength::UntilClose => Self::UntilClose,
        }
    }
}

impl Decoder {
    pub(super) fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// How much is to come, if that is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        match self {
            Self::Known(remaining) => Some(*remaining),
            Self::Ended => Some(0),
            _ => None,
        }
    }

    /// The next frame; `None` at the end.
    pub(super) fn poll(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            match self.step(&mut wire.input) {
                Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Step::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Step::End) => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(Step::More) => match ready!(wire.poll_fill(cx)) {
                    Ok(0) if matches!(self, Self::UntilClose) => {
                        *self = Self::Ended;
                        return Poll::Ready(None);
                    }
                    Ok(0) => return Poll::Ready(Some(Err(Error::Incomplete))),
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(Some(Err(error.into()))),
                },
            }
        }
    }

    pub(super) fn step(&mut self, input: &mut Bytes) -> Result<Step, Error> {
        match self {
            Self::Ended => Ok(Step::End),
            _ if input.is_empty() => Ok(Step::More),
            Self::UntilClose => Ok(Step::Data(std::mem::take(input))),
            Self::Known(remaining) => {
                let data = take(input, remaining);
                if *remaining == 0 {
                    *self = Self::Ended;
                }
                Ok(Step::Data(data))
            }
            Self::Chunked { chunk, extra } => {
                let step = chunk.step(input, extra)?;
                if matches!(step, Step::End | Step::Trailers(_)) {
                    *self = Self::Ended;
                }
                Ok(step)
            }
        }
    }
}

/// As much of the input as belongs to the body.
fn take(input: &mut Bytes, remaining: &mut u64) -> Bytes {
    let length = usize::try_from(*remaining).map_or(input.len(), |remaining| remaining.min(input.len()));
    *remaining -= length as u64;
    input.split_to(length)
}

impl Chunk {
    fn step(&mut self, input: &mut Bytes, extra: &mut usize) -> Result<Step, Error> {
        while let Some(&byte) = input.first() {
            if let Self::Data(remaining) = self {
                let data = take(input, remaining);
                if *remaining == 0 {
                    *self = Self::DataEnd;
                }
                return Ok(Step::Data(data));
            }
            input.advance(1);
            match self {
                Self::Start => *self = Self::Size(digit(byte).ok_or(Error::Malformed("the size of a chunk"))?),
                Self::Size(size) => {
                    *self = match (byte, digit(byte)) {
                        (_, Some(digit)) if *size >> 60 == 0 => Self::Size(*size << 4 | digit),
                        (b' ' | b'\t', _) => Self::Space(*size),
                        (b';', _) => Self::Extension(*size),
                        (b'\r', _) => Self::SizeEnd(*size),
                        _ => return Err(Error::Malformed("the size of a chunk")),
                    }
                }
                Self::Space(size) => match byte {
                    b' ' | b'\t' => count(extra)?,
                    b';' => *self = Self::Extension(*size),
                    b'\r' => *self = Self::SizeEnd(*size),
                    _ => return Err(Error::Malformed("the size of a chunk")),
                },
                // Whoever reads a bare line feed as the end of the line would read on elsewhere.
                Self::Extension(size) => match byte {
                    b'\r' => *self = Self::SizeEnd(*size),
                    b'\n' => return Err(Error::Malformed("a line feed in the extension of a chunk")),
                    _ => count(extra)?,
                },
                Self::SizeEnd(size) => match (byte, *size) {
                    (b'\n', 0) => *self = Self::Trailers(Vec::new()),
                    (b'\n', size) => *self = Self::Data(size),
                    _ => return Err(Error::Malformed("the end of a chunk's size")),
                },
                Self::DataEnd if byte == b'\r' => *self = Self::DataFeed,
                Self::DataFeed if byte == b'\n' => *self = Self::Start,
                Self::Data(_) | Self::DataEnd | Self::DataFeed => return Err(Error::Malformed("the end of a chunk")),
                Self::Trailers(lines) => {
                    count(extra)?;
                    if byte == b'\n' && lines.last() != Some(&b'\r') {
                        return Err(Error::Malformed("the end of a trailer"));
                    }
                    lines.push(byte);
                    if lines == b"\r\n" {
                        return Ok(Step::End);
                    }
                    if lines.ends_with(b"\r\n\r\n") {
                        return trailers(lines).map(Step::Trailers);
                    }
                }
            }
        }
        Ok(Step::More)
    }
}

fn digit(byte: u8) -> Option<u64> {
    (byte as char).to_digit(16).map(u64::from)
}

fn count(extra: &mut usize) -> Result<(), Error> {
    *extra += 1;
    if *extra > MAX_EXTRA { Err(Error::Malformed("too much beside the bytes of a body")) } else { Ok(()) }
}

fn trailers(lines: &[u8]) -> Result<HeaderMap, Error> {
    const MALFORMED: Error = Error::Malformed("a trailer");
    let mut parsed = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(lines, &mut parsed) else {
        return Err(MALFORMED);
    };
    let mut trailers = HeaderMap::new();
    for line in parsed {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| MALFORMED)?;
        trailers.append(name, HeaderValue::from_bytes(line.value).map_err(|_| MALFORMED)?);
    }
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A body's bytes, its trailers, and what is left of the input.
    type Read = (Vec<u8>, HeaderMap, Vec<u8>);

    /// A body that comes in these pieces, if it ends in them; an error where it is malformed.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Read>, String> {
        let mut decoder = Decoder::from(BodyLength::Chunked);
        let (mut data, mut trailers, mut rest, mut ended) = (Vec::new(), HeaderMap::new(), Vec::new(), false);
        for piece in pieces {
            let mut input = Bytes::copy_from_slice(piece);
            while !ended {
                match decoder.step(&mut input).map_err(|error| error.to_string())? {
                    Step::Data(bytes) => data.extend_from_slice(&bytes),
                    Step::Trailers(found) => (trailers, ended) = (found, true),
                    Step::End => ended = true,
                    Step::More => break,
                }
            }
            rest.extend_from_slice(&input);
        }
        Ok(ended.then_some((data, trailers, rest)))
    }

    #[test]
    fn chunks_are_put_together() {
        let body = b"3\r\nabc\r\n00A;x=\"y\"\r\n0123456789\r\n0 \r\nx-sum: 13\r\n\r\nnext";
        let (data, trailers, rest) = read([&body[..]]).unwrap().unwrap();
        assert_eq!((&*data, &trailers["x-sum"], &*rest), (&b"abc0123456789"[..], &"13".parse().unwrap(), &b"next"[..]));
        assert_eq!(read([&body[..body.len() - 5]]), Ok(None), "the last line feed is missing");
    }

    #[test]
    fn a_known_length_ends_where_it_says() {
        let mut decoder = Decoder::from(BodyLength::Known(3));
        let mut input = Bytes::from_static(b"abcdef");
        assert_eq!(decoder.step(&mut input).unwrap(), Step::Data(Bytes::from_static(b"abc")));
        assert_eq!(decoder.step(&mut input).unwrap(), Step::End);
        assert_eq!(&*input, b"def");
    }

    proptest! {
        /// What a body is does not depend on how it was cut.
        #[test]
        fn cuts_change_nothing(
            body in proptest::collection::vec(
                prop_oneof![
                    Just(b"3\r\nabc\r\n".to_vec()), Just(b"0\r\n".to_vec()), Just(b"\r\n".to_vec()),
                    Just(b"a: b\r\n".to_vec()), Just(b"2;x\r\nhi\r\n".to_vec()), Just(b"\n".to_vec()),
                    proptest::collection::vec(any::<u8>(), 0..3),
                ],
                0..8,
            ),
            size in 1_usize..7,
        ) {
            let body = body.concat();
            prop_assert_eq!(read(body.chunks(size)), read([&body[..]]));
        }
    }
}
