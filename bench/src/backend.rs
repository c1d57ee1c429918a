//! The backend: answers every request with the same 100 bytes, as cheaply as it can, so that what is measured is the proxy.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Response, header::CONTENT_TYPE};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::http1::END_OF_HEAD;

/// The length of every answer, in bytes.
pub(crate) const BODY: usize = 100;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What clients of a backend know of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backend {
    connections: Arc<AtomicU64>,
}

impl Backend {
    /// Serves on a listener for as long as the runtime lives.
    pub fn start(listener: TcpListener) -> Self {
        let backend = Self::default();
        let connections = Arc::clone(&backend.connections);
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        connections.fetch_add(1, Relaxed);
                        // A connection that breaks is the client's to notice.
                        tokio::spawn(async move { drop(connection(stream).await) });
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        backend
    }

    /// How many connections it has accepted so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }
}

async fn connection(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut start = [0; PREFACE.len()];
    // What decides is there in one piece: neither a client nor a proxy sends a part of a request's first line.
    let length = stream.peek(&mut start).await?;
    if PREFACE.starts_with(&start[..length.min(16)]) && length > 0 {
        http2(stream).await.map_err(io::Error::other)
    } else {
        http1(stream).await
    }
}

/// Requests without bodies: each ends with an empty line.
async fn http1(mut stream: TcpStream) -> io::Result<()> {
    let answer = answer();
    let mut answers = answer.clone();
    let mut buffer = vec![0; 16 * 1024];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let (mut requests, mut end) = (0, 0);
        while let Some(found) = find(&buffer[end..filled], END_OF_HEAD) {
            requests += 1;
            end += found + END_OF_HEAD.len();
        }
        buffer.copy_within(end..filled, 0);
        filled -= end;
        if filled == buffer.len() {
            return Err(io::Error::other("a request's head is longer than 16 KiB"));
        }
        if requests > 0 {
            while answers.len() < answer.len() * requests {
                answers.extend_from_slice(&answer);
            }
            stream.write_all(&answers[..answer.len() * requests]).await?;
        }
    }
}

async fn http2(stream: TcpStream) -> Result<(), h2::Error> {
    let body = Bytes::from(vec![b'x'; BODY]);
    let mut connection =
        h2::server::Builder::new().max_concurrent_streams(1000).initial_window_size(1 << 20).handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (_, mut respond) = request?;
        let head = Response::builder().header(CONTENT_TYPE, "text/plain").header("content-length", BODY);
        let Ok(head) = head.body(()) else { unreachable!("the head is a constant") };
        // The client may have given the request up.
        if let Ok(mut stream) = respond.send_response(head, false) {
            let _ = stream.send_data(body.clone(), true);
        }
    }
    Ok(())
}

fn answer() -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY}\r\n\r\n");
    [head.as_bytes(), &[b'x'; BODY]].concat()
}

/// Where `needle` begins.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{Answer, parse};

    #[test]
    fn the_answer_is_what_the_load_expects() {
        let answer = answer();
        assert_eq!(parse(&answer), Ok(Some(Answer { status: 200, head: answer.len() - BODY, body: BODY })));
    }

    #[tokio::test]
    async fn pipelined_requests_are_answered_each() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let backend = Backend::start(listener);
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\nGET /").await.unwrap();
        let mut two = vec![0; 2 * answer().len()];
        client.read_exact(&mut two).await.unwrap();
        client.write_all(b" HTTP/1.1\r\n\r\n").await.unwrap();
        let mut third = vec![0; answer().len()];
        client.read_exact(&mut third).await.unwrap();
        assert_eq!([two, third].concat(), answer().repeat(3));
        assert_eq!(backend.connections(), 1);
    }
}
