//! An HTTP/1.1 connection of the load: writes the same request again and again and checks every answer.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::backend::BODY;

/// The end of a request's or answer's head.
pub(crate) const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// What an answer's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: u16,
    /// The length of the head, in bytes.
    pub head: usize,
    /// The length of the body, in bytes.
    pub body: usize,
}

/// A connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 4096] })
    }

    /// Sends a request and reads its answer. `Ok(false)` is an answer that is not the backend's: another status or length.
    ///
    /// # Errors
    /// When the connection is of no use any more.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<bool> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let answer = loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if let Some(answer) = parse(&self.buffer[..filled]).map_err(io::Error::other)? {
                break answer;
            }
            if filled == self.buffer.len() {
                return Err(io::Error::other("the head of an answer is longer than 4 KiB"));
            }
        };
        let end = answer.head + answer.body;
        if filled > end {
            return Err(io::Error::other("more came than was asked for"));
        }
        while filled < end {
            let space = (end - filled).min(self.buffer.len());
            let read = self.stream.read(&mut self.buffer[..space]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
        }
        Ok(answer.status == 200 && answer.body == BODY)
    }
}

/// The bytes of a request.
pub(crate) fn request(host: &str, path: &str, headers: &[(&str, String)]) -> Vec<u8> {
    let mut request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in headers {
        request.extend([name, ": ", value, "\r\n"]);
    }
    request.push_str("\r\n");
    request.into_bytes()
}

/// The head at the start of these bytes; `None` until it is whole.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Answer>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes).map_err(|error| format!("not an answer of HTTP/1: {error}"))? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return Ok(None),
    };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
    let body = length.ok_or("an answer without a length")?;
    Ok(Some(Answer { status: response.code.unwrap_or_default(), head, body }))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn heads_are_parsed_when_they_are_whole() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 7\r\n\r\n";
        assert_eq!(parse(&answer[..20]), Ok(None));
        assert_eq!(parse(answer), Ok(Some(Answer { status: 503, head: answer.len(), body: 7 })));
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse(b"SSH-2.0\r\n\r\n").is_err());
    }

    #[test]
    fn requests_carry_their_headers() {
        let request = request("web", "/a", &[("l5d-dst-override", "web:80".to_owned())]);
        assert_eq!(request, b"GET /a HTTP/1.1\r\nhost: web\r\nl5d-dst-override: web:80\r\n\r\n");
    }

    #[tokio::test]
    async fn another_answer_is_told_from_the_backends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            for length in [BODY, BODY - 1] {
                let _ = stream.read(&mut buffer).await.unwrap();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
                stream.write_all(&[head.as_bytes(), &vec![b'x'; length]].concat()).await.unwrap();
            }
        });
        let mut connection = Connection::open(address).await.unwrap();
        let request = request("web", "/", &[]);
        assert!(connection.exchange(&request).await.unwrap());
        assert!(!connection.exchange(&request).await.unwrap());
        assert!(connection.exchange(&request).await.is_err());
    }
}
