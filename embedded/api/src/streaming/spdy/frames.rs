//! SPDY/3.1 frames as bytes.

use std::collections::HashMap;
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// A frame, as far as a port-forward cares.
#[derive(Debug, PartialEq)]
pub(super) enum Frame {
    /// The client opens a stream.
    SynStream { stream: u32, headers: HashMap<String, String>, fin: bool },
    /// The server accepts it. Sent without headers; those of received ones are not read.
    SynReply { stream: u32 },
    /// Data; `fin` closes the sender's side.
    Data { stream: u32, data: Bytes, fin: bool },
    /// A stream is given up.
    Reset { stream: u32 },
    /// To be sent back.
    Ping { id: u32 },
    /// Settings, window updates, a farewell: nothing to do.
    Other,
}

const CONTROL: u16 = 0x8003;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const HEADERS: u16 = 8;
const FIN: u8 = 1;
/// Length of the head of every frame.
const HEAD: usize = 8;
/// No header block of a port-forward is longer when unpacked.
const MAX_HEADERS: usize = 64 * 1024;

/// Bytes to frames. Header blocks share one zlib stream, so frames must be decoded in order.
pub(super) struct Decoder {
    inflate: Decompress,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { inflate: Decompress::new(true) }
    }
}

impl Decoder {
    /// Takes the first frame from a buffer, if it is there completely.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
        if buffer.len() < HEAD {
            return Ok(None);
        }
        let length = usize::from(buffer[5]) << 16 | usize::from(buffer[6]) << 8 | usize::from(buffer[7]);
        if buffer.len() < HEAD + length {
            return Ok(None);
        }
        let mut head = buffer.split_to(HEAD);
        let mut payload = buffer.split_to(length).freeze();
        let (first, second) = (head.get_u16(), head.get_u16());
        let fin = head.get_u8() & FIN != 0;
        if first & 0x8000 == 0 {
            let stream = u32::from(first) << 16 | u32::from(second);
            return Ok(Some(Frame::Data { stream, data: payload, fin }));
        }
        if first != CONTROL {
            return Err(malformed(format!("expected a SPDY/3 control frame (0x8003), found 0x{first:04x}")));
        }
        // Stream and associated stream, priority and slot; then the headers.
        let needed = match second {
            SYN_STREAM => 10,
            SYN_REPLY | HEADERS | PING => 4,
            RST_STREAM => 8,
            _ => 0,
        };
        if payload.len() < needed {
            return Err(malformed(format!("frame type {second} has {length} bytes, expected {needed} or more")));
        }
        Ok(Some(match second {
            SYN_STREAM => {
                let stream = payload.get_u32() & 0x7fff_ffff;
                payload.advance(6);
                Frame::SynStream { stream, headers: self.headers(&payload)?, fin }
            }
            // These are not read, but the next header block continues theirs.
            SYN_REPLY => {
                let stream = payload.get_u32() & 0x7fff_ffff;
                self.unpack(&payload)?;
                Frame::SynReply { stream }
            }
            HEADERS => {
                payload.advance(4);
                self.unpack(&payload)?;
                Frame::Other
            }
            RST_STREAM => Frame::Reset { stream: payload.get_u32() & 0x7fff_ffff },
            PING => Frame::Ping { id: payload.get_u32() },
            _ => Frame::Other,
        }))
    }

    fn headers(&mut self, block: &[u8]) -> io::Result<HashMap<String, String>> {
        let unpacked = self.unpack(block)?;
        let mut rest = unpacked.as_slice();
        let count = take_u32(&mut rest)?;
        (0..count).map(|_| Ok((take_text(&mut rest)?, take_text(&mut rest)?))).collect()
    }

    fn unpack(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        let mut unpacked = Vec::new();
        let mut rest = block;
        while !rest.is_empty() || unpacked.len() == unpacked.capacity() {
            if unpacked.len() > MAX_HEADERS {
                return Err(malformed("a header block is too long"));
            }
            unpacked.reserve(1024);
            let before = (self.inflate.total_in(), unpacked.len());
            let result = self.inflate.decompress_vec(rest, &mut unpacked, FlushDecompress::Sync);
            let taken = usize::try_from(self.inflate.total_in() - before.0).unwrap_or(rest.len());
            rest = &rest[taken..];
            match result {
                // The first block names the dictionary that it was packed with.
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate.set_dictionary(&dictionary()).map_err(malformed)?;
                }
                Err(error) => return Err(malformed(error)),
                Ok(Status::StreamEnd) => break,
                Ok(_) if taken == 0 && unpacked.len() == before.1 => break,
                Ok(_) => {}
            }
        }
        Ok(unpacked)
    }
}

fn take_u32(rest: &mut &[u8]) -> io::Result<u32> {
    rest.try_get_u32().map_err(malformed)
}

fn take_text(rest: &mut &[u8]) -> io::Result<String> {
    let length = usize::try_from(take_u32(rest)?).map_err(malformed)?;
    let text = rest.split_off(..length).ok_or_else(|| malformed("a header is longer than its block"))?;
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn malformed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Frames to bytes.
#[derive(Default)]
pub(super) struct Encoder {
    deflate: Option<Compress>,
}

impl Encoder {
    /// The bytes of a frame. `Other` has none.
    pub(super) fn encode(&mut self, frame: &Frame) -> io::Result<Bytes> {
        let mut bytes = BytesMut::new();
        match frame {
            Frame::Data { stream, data, fin } => {
                bytes.put_u32(*stream);
                put_length(&mut bytes, if *fin { FIN } else { 0 }, data.len());
                bytes.put_slice(data);
            }
            Frame::SynStream { stream, headers, fin } => {
                let block = self.pack(headers)?;
                put_control(&mut bytes, SYN_STREAM, if *fin { FIN } else { 0 }, 10 + block.len());
                bytes.put_u32(*stream);
                bytes.put_slice(&[0; 6]);
                bytes.put_slice(&block);
            }
            Frame::SynReply { stream } => {
                let block = self.pack(&HashMap::new())?;
                put_control(&mut bytes, SYN_REPLY, 0, 4 + block.len());
                bytes.put_u32(*stream);
                bytes.put_slice(&block);
            }
            Frame::Reset { stream } => {
                const CANCEL: u32 = 5;
                put_control(&mut bytes, RST_STREAM, 0, 8);
                bytes.put_u32(*stream);
                bytes.put_u32(CANCEL);
            }
            Frame::Ping { id } => {
                put_control(&mut bytes, PING, 0, 4);
                bytes.put_u32(*id);
            }
            Frame::Other => {}
        }
        Ok(bytes.freeze())
    }

    fn pack(&mut self, headers: &HashMap<String, String>) -> io::Result<Vec<u8>> {
        let mut block = BytesMut::new();
        put_size(&mut block, headers.len());
        for (name, value) in headers {
            for text in [name, value] {
                put_size(&mut block, text.len());
                block.put_slice(text.as_bytes());
            }
        }
        let deflate = match &mut self.deflate {
            Some(deflate) => deflate,
            empty => {
                let mut deflate = Compress::new(Compression::best(), true);
                deflate.set_dictionary(&dictionary()).map_err(malformed)?;
                empty.insert(deflate)
            }
        };
        // A sync flush adds a few bytes to what is at worst stored as it is.
        let mut packed = Vec::with_capacity(block.len() + 64);
        deflate.compress_vec(&block, &mut packed, FlushCompress::Sync).map_err(malformed)?;
        Ok(packed)
    }
}

fn put_control(bytes: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    bytes.put_u16(CONTROL);
    bytes.put_u16(kind);
    put_length(bytes, flags, length);
}

/// Flags and a length of 24 bits. Frames are made from reads of 16 KiB, so no length is cut.
fn put_length(bytes: &mut BytesMut, flags: u8, length: usize) {
    bytes.put_u8(flags);
    bytes.put_uint(u64::try_from(length).unwrap_or_default(), 3);
}

fn put_size(bytes: &mut BytesMut, size: usize) {
    bytes.put_u32(u32::try_from(size).unwrap_or_default());
}

/// The words of the dictionary of SPDY/3 that come with a length before them.
const WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

/// The rest of it.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary that header blocks are packed with (SPDY/3, section 2.6.10.1).
fn dictionary() -> Vec<u8> {
    let mut dictionary = BytesMut::new();
    for word in WORDS {
        put_size(&mut dictionary, word.len());
        dictionary.put_slice(word.as_bytes());
    }
    dictionary.put_slice(TAIL.as_bytes());
    dictionary.to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_dictionary_is_the_one_of_the_standard() {
        // zlib names a dictionary by its Adler-32; implementations of SPDY/3 all look for this one.
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in dictionary() {
            a = (a + u32::from(byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!(dictionary().len(), 1423);
        assert_eq!(b << 16 | a, 0xe3c6_a7c2);
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let stream = 0..0x8000_0000_u32;
        let headers = prop::collection::hash_map("[a-z]{0,8}", ".{0,20}", 0..4);
        let data = prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        prop_oneof![
            (stream.clone(), headers, any::<bool>()).prop_map(|(stream, headers, fin)| Frame::SynStream {
                stream,
                headers,
                fin
            }),
            (stream.clone(), data, any::<bool>()).prop_map(|(stream, data, fin)| Frame::Data { stream, data, fin }),
            stream.clone().prop_map(|stream| Frame::SynReply { stream }),
            stream.prop_map(|stream| Frame::Reset { stream }),
            any::<u32>().prop_map(|id| Frame::Ping { id }),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_the_wire_in_any_pieces(frames in prop::collection::vec(frame(), 0..12), piece in 1..50_usize) {
            let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
            let wire: Vec<u8> = frames.iter().flat_map(|frame| encoder.encode(frame).unwrap()).collect();
            let mut buffer = BytesMut::new();
            let mut decoded = Vec::new();
            for piece in wire.chunks(piece) {
                buffer.put_slice(piece);
                while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                    decoded.push(frame);
                }
            }
            prop_assert_eq!(decoded, frames);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            // The head of a SYN_STREAM, so that the header block is reached.
            let mut buffer = BytesMut::from(&[0x80, 3, 0, 1, 0, 0, 0, bytes.len() as u8][..]);
            buffer.put_slice(&bytes);
            let mut decoder = Decoder::default();
            while let Ok(Some(_)) = decoder.decode(&mut buffer) {}
        }
    }

    #[test]
    fn another_protocol_is_refused() {
        let mut buffer = BytesMut::from(&b"\x80\x02\0\x01\0\0\0\0"[..]);
        assert!(Decoder::default().decode(&mut buffer).is_err());
    }
}
