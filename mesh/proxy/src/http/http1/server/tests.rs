//! Clients that take their time, and answers that do not wait for them.

use std::future;

use http_body::Body as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    io::Transport,
    metrics::{Labels, Metrics},
};

const TIMEOUT: Duration = Duration::from_millis(300);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A client of a server whose requests are answered by `service`.
async fn client_of<F>(service: impl Fn(BoxedRequest) -> F + Send + 'static) -> TcpStream
where
    F: Future<Output = Result<Response<ResponseBody>, Abort>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let counters = Metrics::new().tcp.scope(Labels::new()).opened();
    tokio::spawn(async move {
        let io = Io::new(Transport::Left(stream), counters);
        let _ = serve(io, TIMEOUT, &Drain::default(), service).await;
    });
    client.set_nodelay(true).unwrap();
    client
}

async fn client() -> TcpStream {
    client_of(|_| future::ready(Ok(Response::new(ResponseBody::empty())))).await
}

async fn ask(client: &mut TcpStream, request: &[u8]) {
    client.write_all(request).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(client.read_buf(&mut head).await.unwrap() > 0, "the connection was cut");
    }
    assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", head.escape_ascii());
}

/// Sends the start of a head byte by byte, without a pause long enough to be noticed; when the connection was cut.
async fn dribble(client: &mut TcpStream) -> time::Instant {
    let begun = time::Instant::now();
    for byte in REQUEST.iter().chain(b"x-more: ").chain(std::iter::repeat(&b'a')) {
        let byte = if *byte == b'\n' { b' ' } else { *byte };
        if client.write_all(&[byte]).await.is_err() {
            break;
        }
        assert!(begun.elapsed() < 20 * TIMEOUT, "the head never ends and nobody minds");
        time::sleep(TIMEOUT / 10).await;
    }
    time::Instant::now()
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_and_an_idle_connection_is_not() {
    // Idle from the start, idle after a request, and the same with bytes that are not yet a head.
    let (mut fresh, mut kept) = (client().await, client().await);
    ask(&mut kept, REQUEST).await;
    for first in [true, false] {
        let mut slow = client().await;
        if !first {
            ask(&mut slow, REQUEST).await;
        }
        let begun = time::Instant::now();
        // It is the first byte that counts, not the last.
        slow.write_all(b"GET / HT").await.unwrap();
        let cut = slow.read(&mut [0; 64]).await;
        assert!(matches!(cut, Ok(0) | Err(_)), "something was answered to half a head");
        assert!(begun.elapsed() >= TIMEOUT);
    }
    // Meanwhile the limit has passed twice.
    ask(&mut fresh, REQUEST).await;
    ask(&mut kept, REQUEST).await;
}

#[tokio::test]
async fn a_head_that_comes_slowly_may_take_as_long_as_the_limit_and_no_longer() {
    let mut slow = client().await;
    let begun = time::Instant::now();
    let cut = dribble(&mut slow).await;
    assert!(cut - begun >= TIMEOUT);
    // The control: one that ends in time is served, however it is cut.
    let mut client = client().await;
    for byte in &REQUEST[..REQUEST.len() - 1] {
        client.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    ask(&mut client, &REQUEST[REQUEST.len() - 1..]).await;
}

#[tokio::test]
async fn an_early_answer_is_seen_though_the_body_goes_on() {
    let service = |request: BoxedRequest| {
        drop(request);
        future::ready(Ok(Response::new(ResponseBody::empty())))
    };
    let mut client = client_of(service).await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n").await.unwrap();
    // More than the kernel would have to forget for a connection that was simply closed.
    for _ in 0..16 {
        client.write_all(&[b'x'; 4096]).await.unwrap();
    }
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert_eq!(answer, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

#[tokio::test]
async fn a_body_that_nobody_needs_any_more_ends_for_its_reader() {
    let (sender, mut reader) = tokio::sync::mpsc::unbounded_channel();
    let service = move |request: BoxedRequest| {
        let sender = sender.clone();
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let _ = sender.send(true);
            }
            let _ = sender.send(false);
        });
        async {
            // Until the body is being read.
            tokio::task::yield_now().await;
            Ok(Response::new(ResponseBody::empty()))
        }
    };
    let mut client = client_of(service).await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert_eq!(reader.recv().await, Some(false), "nothing came, and the end is told");
}
