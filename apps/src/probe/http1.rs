//! HTTP/1, written by hand: what is asked for goes on the wire byte for byte.

use std::fmt::Write;
use std::io;
use std::time::Duration;

use futures::FutureExt;
use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use super::Stream;
use super::failure::{ErrorKind, Failure};
use super::model::{Payload, Request, Version};
use super::record::Recording;

/// Headers that an answer may have.
const MAX_HEADERS: usize = 256;
/// The longest head, or chunk's first line, that is read.
const MAX_HEAD: usize = 256 * 1024;
/// How long a request waits for `100 Continue` before it sends its body unasked.
const CONTINUE_WAIT: Duration = Duration::from_secs(5);

/// A connection that speaks HTTP/1.
pub(super) struct Link {
    stream: Stream,
    /// Read and not yet understood.
    buffer: Vec<u8>,
}

/// How the end of a body is found.
enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// An answer's head, as far as reading on needs it.
struct Head {
    framing: Framing,
    keep_alive: bool,
}

impl Link {
    pub fn new(stream: Stream) -> Self {
        Self { stream, buffer: Vec::with_capacity(4096) }
    }

    /// Whether the peer has neither closed nor said anything unasked.
    pub fn is_alive(&mut self) -> bool {
        let mut byte = [0];
        self.buffer.is_empty() && self.stream.read(&mut byte).now_or_never().is_none()
    }

    /// Sends the request and reads the answer; true when another request may follow.
    pub async fn exchange(&mut self, request: &Request, recording: &mut Recording) -> Result<bool, Failure> {
        let (read, mut write) = tokio::io::split(&mut self.stream);
        let mut reader = Reader { read, buffer: &mut self.buffer };
        let go_on = Notify::new();
        let (head, sent) = {
            let sending = send(&mut write, request, &go_on);
            let receiving = reader.head(request, recording, &go_on);
            tokio::pin!(sending, receiving);
            // An answer may come before the body is sent, and ends the sending; a refused body may still have an answer.
            tokio::select! {
                biased;
                head = &mut receiving => (head?, false),
                sent = &mut sending => match (receiving.await, sent) {
                    (Ok(head), sent) => (head, sent.is_ok()),
                    (Err(_), Err(error)) => return Err(error.into()),
                    (Err(failure), Ok(())) => return Err(failure),
                },
            }
        };
        match head.framing {
            Framing::None => {}
            Framing::Length(length) => reader.exactly(length, recording).await?,
            Framing::Chunked => reader.chunks(recording).await?,
            Framing::UntilClose => {
                while let Some(data) = reader.some().await? {
                    recording.data(&data);
                }
            }
        }
        Ok(sent && head.keep_alive)
    }
}

async fn send(write: &mut (impl AsyncWrite + Unpin), request: &Request, go_on: &Notify) -> io::Result<()> {
    let mut message = head(request).into_bytes();
    if request.expect_continue {
        write.write_all(&message).await?;
        write.flush().await?;
        // Whoever does not understand the expectation says nothing, and still wants the body.
        let _ = tokio::time::timeout(CONTINUE_WAIT, go_on.notified()).await;
        message.clear();
    }
    match &request.body {
        Payload::None => {}
        Payload::Text(text) => message.extend_from_slice(text.as_bytes()),
        Payload::Bytes(count) => message.resize(message.len() + count, b'x'),
        Payload::Chunks { count, size, pause_ms } => {
            for index in 0..*count {
                if index > 0 && *pause_ms > 0 {
                    write.write_all(&message).await?;
                    write.flush().await?;
                    message.clear();
                    tokio::time::sleep(Duration::from_millis(*pause_ms)).await;
                }
                if *size > 0 {
                    message.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                    message.resize(message.len() + size, b'x');
                    message.extend_from_slice(b"\r\n");
                }
            }
            message.extend_from_slice(b"0\r\n");
            for (name, value) in &request.trailers {
                message.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            message.extend_from_slice(b"\r\n");
        }
    }
    write.write_all(&message).await?;
    write.flush().await
}

/// The request's head. Adds Host and the body's framing unless the headers have their own.
fn head(request: &Request) -> String {
    let version = if request.version == Version::H10 { "1.0" } else { "1.1" };
    let mut head = format!("{} {} HTTP/{version}\r\n", request.method, request.path);
    // Writing to a string cannot fail.
    let mut line = |name: &str, value: &str| {
        let _ = write!(head, "{name}: {value}\r\n");
    };
    let authority = request.authority();
    if !authority.is_empty() && !request.has_header("host") {
        line("Host", authority);
    }
    for (name, value) in &request.headers {
        line(name, value);
    }
    if request.expect_continue && !request.has_header("expect") {
        line("Expect", "100-continue");
    }
    if !request.has_header("content-length") && !request.has_header("transfer-encoding") {
        match &request.body {
            Payload::None if matches!(request.method.as_str(), "POST" | "PUT" | "PATCH") => line("Content-Length", "0"),
            Payload::None => {}
            Payload::Text(text) => line("Content-Length", &text.len().to_string()),
            Payload::Bytes(count) => line("Content-Length", &count.to_string()),
            Payload::Chunks { .. } => line("Transfer-Encoding", "chunked"),
        }
    }
    head.push_str("\r\n");
    head
}

struct Reader<'b, R> {
    read: R,
    buffer: &'b mut Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reader<'_, R> {
    /// Reads more into the buffer; false at the end of the stream.
    async fn more(&mut self) -> Result<bool, Failure> {
        Ok(self.read.read_buf(self.buffer).await? > 0)
    }

    /// What is buffered, or else what comes next; none at the end of the stream.
    async fn some(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.buffer.is_empty() && !self.more().await? {
            return Ok(None);
        }
        Ok(Some(Bytes::from(std::mem::take(self.buffer))))
    }

    /// Reads the final head; interim ones are recorded on the way.
    async fn head(&mut self, request: &Request, recording: &mut Recording, go_on: &Notify) -> Result<Head, Failure> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(self.buffer).map_err(|error| {
                let start = String::from_utf8_lossy(&self.buffer[..self.buffer.len().min(80)]).into_owned();
                Failure::new(ErrorKind::Protocol, format!("expected an HTTP/1 answer: {error}, found {start:?}"))
            })?;
            let httparse::Status::Complete(length) = parsed else {
                if self.buffer.len() > MAX_HEAD {
                    return Err(Failure::new(ErrorKind::Protocol, format!("the head is longer than {MAX_HEAD} bytes")));
                }
                if !self.more().await? {
                    let text = format!("the connection ended after {} bytes of the head", self.buffer.len());
                    return Err(Failure::new(ErrorKind::Closed, text));
                }
                continue;
            };
            let status = response.code.unwrap_or_default();
            if (100..200).contains(&status) && status != 101 {
                recording.record.interim.push(status);
                self.buffer.drain(..length);
                go_on.notify_one();
                continue;
            }
            recording.first_byte();
            let minor = response.version.unwrap_or(1);
            let version = if minor == 0 { "HTTP/1.0" } else { "HTTP/1.1" };
            recording.head(status, version, response.headers.iter().map(|header| (header.name, header.value)));
            let head = understand(request, status, minor, response.headers)?;
            self.buffer.drain(..length);
            return Ok(head);
        }
    }

    async fn exactly(&mut self, mut left: u64, recording: &mut Recording) -> Result<(), Failure> {
        while left > 0 {
            if self.buffer.is_empty() && !self.more().await? {
                return Err(Failure::new(
                    ErrorKind::Closed,
                    format!("the connection ended {left} bytes before the body"),
                ));
            }
            let here = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            recording.data(&self.buffer[..here]);
            self.buffer.drain(..here);
            left -= here as u64;
        }
        Ok(())
    }

    async fn chunks(&mut self, recording: &mut Recording) -> Result<(), Failure> {
        loop {
            let line = self.line().await?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).map_err(|_| {
                Failure::new(ErrorKind::Protocol, format!("expected a chunk's size in hexadecimal, found {line:?}"))
            })?;
            if size == 0 {
                break;
            }
            self.exactly(size, recording).await?;
            let end = self.line().await?;
            if !end.is_empty() {
                return Err(Failure::new(ErrorKind::Protocol, format!("expected the end of a chunk, found {end:?}")));
            }
        }
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(());
            }
            if let Some((name, value)) = line.split_once(':') {
                recording.trailer(name, value.trim().as_bytes());
            }
        }
    }

    /// A line without its end.
    async fn line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&self.buffer[..end]).trim_end_matches('\r').to_owned();
                self.buffer.drain(..=end);
                return Ok(line);
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(Failure::new(ErrorKind::Protocol, format!("a line is longer than {MAX_HEAD} bytes")));
            }
            if !self.more().await? {
                return Err(Failure::new(ErrorKind::Closed, "the connection ended inside a chunked body"));
            }
        }
    }
}

/// How to read on after a final head (RFC 9112, section 6.3).
fn understand(request: &Request, status: u16, minor: u8, headers: &[httparse::Header<'_>]) -> Result<Head, Failure> {
    let values = |name: &'static str| {
        headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .filter_map(|header| std::str::from_utf8(header.value).ok())
    };
    let says = |word: &str| {
        values("connection").flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(word))
    };
    let framing = if request.method == "HEAD" || status == 204 || status == 304 || status == 101 {
        Framing::None
    } else if values("transfer-encoding").any(|value| value.to_ascii_lowercase().ends_with("chunked")) {
        Framing::Chunked
    } else if let Some(length) = values("content-length").next() {
        let length = length.trim().parse().map_err(|_| {
            Failure::new(ErrorKind::Protocol, format!("expected a number in Content-Length, found {length:?}"))
        })?;
        Framing::Length(length)
    } else {
        Framing::UntilClose
    };
    let persistent = if minor == 0 { says("keep-alive") } else { !says("close") };
    let keep_alive = persistent && status != 101 && !matches!(framing, Framing::UntilClose);
    Ok(Head { framing, keep_alive })
}
