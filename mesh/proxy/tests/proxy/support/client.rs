//! Clients: HTTP/1 as bytes, so that nothing is hidden, and HTTP/2.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time,
};

const DEADLINE: Duration = Duration::from_secs(15);

/// One connection, from one client's address.
pub struct Connection {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// A whole HTTP/1 response.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
    pub trailers: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub async fn dial(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

impl Connection {
    pub async fn open(from: IpAddr, to: SocketAddr) -> Self {
        Self { stream: dial(from, to).await, buffer: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// `GET path` with these headers; the reply.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = format!("GET {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            request.push_str("host: example.com\r\n");
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        self.send(request + "\r\n").await;
        self.reply().await
    }

    /// As much as comes until there are `length` bytes, or the end.
    pub async fn read(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length && self.fill().await {}
        let length = length.min(self.buffer.len());
        self.buffer.drain(..length).collect()
    }

    /// Everything up to the end of the connection.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    async fn fill(&mut self) -> bool {
        let read = time::timeout(DEADLINE, self.stream.read_buf(&mut self.buffer)).await.expect("nothing came in time");
        read.is_ok_and(|read| read > 0)
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8(self.buffer[..end].to_vec()).unwrap();
                self.buffer.drain(..end + 2);
                return line;
            }
            assert!(self.fill().await, "the connection ended in a line: {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// Status and headers.
    pub async fn head(&mut self) -> (StatusCode, HeaderMap) {
        let status = self.line().await;
        let status = status.split(' ').nth(1).unwrap_or_else(|| panic!("not a status line: {status:?}"));
        let mut headers = HeaderMap::new();
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.append(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        (status.parse().unwrap(), headers)
    }

    /// A whole response.
    pub async fn reply(&mut self) -> Reply {
        let (status, headers) = self.head().await;
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let mut trailers = String::new();
        let body = if header("transfer-encoding").as_deref() == Some("chunked") {
            let mut body = Vec::new();
            loop {
                let chunk = self.line().await;
                let length = usize::from_str_radix(&chunk, 16).unwrap();
                if length == 0 {
                    break;
                }
                body.extend(self.read(length).await);
                self.line().await;
            }
            loop {
                match self.line().await {
                    line if line.is_empty() => break,
                    line => trailers.push_str(&(line + "\n")),
                }
            }
            body
        } else if let Some(length) = header("content-length") {
            self.read(length.parse().unwrap()).await
        } else if status == 204 || status == 304 || status.is_informational() {
            Vec::new()
        } else {
            self.read_to_end().await
        };
        Reply { status, headers, body: String::from_utf8(body).unwrap(), trailers }
    }
}

pub type H2Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// An HTTP/2 connection.
pub async fn h2(from: IpAddr, to: SocketAddr) -> http2::SendRequest<H2Body> {
    let io = TokioIo::new(dial(from, to).await);
    let mut client = http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = client.max_header_list_size(256 * 1024).handshake(io).await.unwrap();
    tokio::spawn(connection);
    sender
}
