//! Clients that are slow: to read, to write a head, to write a body.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::io::AsyncReadExt;

use super::{eventually, strict::Strict};
use crate::support::{App, Setup, client, h2};

const CHUNK: usize = 64 * 1024;
/// More than the kernel keeps for two connections (`tcp_rmem` and `tcp_wmem`: 6 and 4 MiB each), which is most of what is kept on
/// the way of HTTP/1.
const BUFFERS: usize = 20 * 1024 * 1024;
/// HTTP/2 has windows.
const BUFFERS_HTTP2: usize = 6 * 1024 * 1024;

/// Chunks of a message that is by a half larger than what may be kept of it.
fn chunks(buffers: usize) -> usize {
    buffers / CHUNK * 3 / 2
}

/// An application whose answers are as many chunks as the query says, and how much of the answer to `/slow` has been asked for.
async fn large() -> (App, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&asked);
    let app = App::http(move |request| {
        let counter = (request.uri().path() == "/slow").then(|| Arc::clone(&counter));
        let chunks: usize = request.uri().query().unwrap().parse().unwrap();
        let frames = stream::iter(0..chunks).map(move |_| {
            if let Some(counter) = &counter {
                counter.fetch_add(CHUNK, Ordering::Relaxed);
            }
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'x'; CHUNK])))
        });
        async move { Response::new(StreamBody::new(frames).boxed_unsync()) }
    })
    .await;
    (app, asked)
}

#[tokio::test]
async fn a_client_that_does_not_read_slows_its_application_down() {
    let (app, asked) = large().await;
    let mesh = Setup::new().original(1, app.address).start().await;
    for inbound in [false, true] {
        for (http2, buffers) in [(false, BUFFERS), (true, BUFFERS_HTTP2)] {
            let chunks = chunks(buffers);
            asked.store(0, Ordering::Relaxed);
            let context = format!("inbound: {inbound}, HTTP/2: {http2}");
            let address = if inbound { mesh.proxy.addresses().inbound } else { mesh.proxy.addresses().outbound[0] };
            let get = |path: &str| {
                Request::get(format!("http://a{path}?{chunks}")).body(Full::default().boxed_unsync()).unwrap()
            };
            // Of each response the slow client reads the head only, the other one everything.
            if http2 {
                let mut connection = h2(client(1), address).await;
                let slow = connection.send_request(get("/slow")).await.unwrap();
                let mut other = h2(client(1), address).await;
                let body = other.send_request(get("/")).await.unwrap().into_body().collect().await.unwrap();
                assert_eq!(body.to_bytes().len(), CHUNK * chunks, "{context}");
                bounded(&asked, buffers, &context);
                assert_eq!(slow.into_body().collect().await.unwrap().to_bytes().len(), CHUNK * chunks, "{context}");
            } else {
                let connect = async |path: &str| {
                    let mut connection = crate::support::Connection::open(client(1), address).await;
                    connection
                        .send(format!("GET {path}?{chunks} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"))
                        .await;
                    connection
                };
                let mut slow = connect("/slow").await;
                slow.read(1).await;
                let mut other = connect("/").await;
                assert!(other.read_to_end().await.len() > CHUNK * chunks, "{context}");
                bounded(&asked, buffers, &context);
                assert!(slow.read_to_end().await.len() > CHUNK * chunks, "{context}");
            }
            // The control: read at last, it is asked for to its end.
            assert_eq!(asked.load(Ordering::Relaxed), CHUNK * chunks, "{context}");
        }
    }
}

/// By now another response of the same size has passed whole.
fn bounded(asked: &AtomicUsize, buffers: usize, context: &str) {
    let asked = asked.load(Ordering::Relaxed);
    assert!((1..=buffers).contains(&asked), "{context}: {asked} bytes were taken for a client that does not read");
}

#[tokio::test]
async fn a_slow_head_is_a_head_once_it_is_whole() {
    let strict = Strict::start().await;
    let mesh = Setup::new().original(1, strict.app.address).start().await;
    let request = b"GET /slow HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\n";
    for inbound in [false, true] {
        let connect = async || if inbound { mesh.connect_inbound(1).await } else { mesh.connect(1).await };
        let mut slow = connect().await;
        slow.stream.set_nodelay(true).unwrap();
        for byte in &request[..request.len() - 1] {
            slow.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        // A client that gives up halfway, and one that is served meanwhile.
        let mut gone = connect().await;
        gone.send(&request[..30]).await;
        drop(gone);
        assert_eq!(connect().await.get("/other", &[("host", "a")]).await.status, 200);
        assert_eq!(strict.take(), ["GET /other a []"]);
        slow.send("\n").await;
        assert_eq!(slow.reply().await.status, 200);
        assert_eq!(strict.take(), ["GET /slow a []"]);
    }
}

#[tokio::test]
async fn a_head_is_not_taken_for_something_else_because_it_is_slow() {
    let strict = Strict::start().await;
    let mesh = Setup::new()
        .with("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", "50ms")
        .with("LINKERD2_PROXY_OUTBOUND_DETECT_TIMEOUT", "50ms")
        .original(1, strict.app.address)
        .start()
        .await;
    for (inbound, direction) in [(false, "outbound"), (true, "inbound")] {
        let results = format!("{direction}_tcp_detect_http_results_total");
        for (times, (rest, status)) in [("x: y\r\n\r\n", 200), ("x : y\r\n\r\n", 400)].into_iter().enumerate() {
            let mut slow = if inbound { mesh.connect_inbound(1).await } else { mesh.connect(1).await };
            slow.send("GET /sl").await;
            // Detection does not wait any longer.
            mesh.wait_for_sum(&[&results, "result=\"http/1\""], times as u64 + 1).await;
            slow.send(format!("ow HTTP/1.1\r\nhost: a\r\n{rest}")).await;
            assert_eq!(slow.reply().await.status, status, "{direction}");
        }
        assert_eq!(strict.take(), ["GET /slow a []"], "{direction}");
    }
}

#[tokio::test]
async fn a_slow_body_passes_as_it_comes_and_ends_with_its_client() {
    let strict = Strict::start().await;
    let mesh = Setup::new().original(1, strict.app.address).start().await;
    for inbound in [false, true] {
        for (framing, part, rest) in [
            ("content-length: 6", "abc", "def"),
            ("transfer-encoding: chunked", "3\r\nabc\r\n", "3\r\ndef\r\n0\r\n\r\n"),
        ] {
            for finished in [true, false] {
                let mut slow = if inbound { mesh.connect_inbound(1).await } else { mesh.connect(1).await };
                slow.send(format!("POST /slow HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n{part}")).await;
                eventually("a request", || strict.has("begun POST /slow")).await;
                if finished {
                    slow.send(rest).await;
                    assert_eq!(slow.reply().await.status, 200);
                    assert_eq!(strict.take(), ["begun POST /slow", "POST /slow a [abcdef]"]);
                } else {
                    drop(slow);
                    eventually("its end", || strict.has("cut POST /slow")).await;
                    assert_eq!(strict.take(), ["begun POST /slow", "cut POST /slow"]);
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_uploaded_to_an_application_that_does_not_read_is_not_kept() {
    let (taken, limit) = (Arc::<AtomicUsize>::default(), Arc::new(tokio::sync::Semaphore::new(0)));
    let (counter, gate) = (Arc::clone(&taken), Arc::clone(&limit));
    let app = App::tcp(move |mut stream| {
        let (counter, gate) = (Arc::clone(&counter), Arc::clone(&gate));
        async move {
            let mut buffer = vec![0; CHUNK];
            gate.acquire().await.unwrap().forget();
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                counter.fetch_add(read, Ordering::Relaxed);
            }
        }
    })
    .await;
    let quick = Strict::start().await;
    let mesh = Setup::new().original(1, app.address).original(2, quick.app.address).start().await;
    for inbound in [false, true] {
        taken.store(0, Ordering::Relaxed);
        let chunks = chunks(BUFFERS);
        let size = CHUNK * chunks;
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n");
        let connect = async |n| if inbound { mesh.connect_inbound(n).await } else { mesh.connect(n).await };
        let mut slow = connect(1).await;
        slow.send(&head).await;
        let sent = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&sent);
        let upload = tokio::spawn(async move {
            for _ in 0..chunks {
                slow.send([b'x'; CHUNK]).await;
                counter.fetch_add(CHUNK, Ordering::Relaxed);
            }
            slow
        });
        // Another upload of the same size, to an application that reads.
        let mut other = connect(2).await;
        other.send(&head).await;
        for _ in 0..chunks {
            other.send([b'x'; CHUNK]).await;
        }
        assert_eq!(other.reply().await.status, 200);
        let sent = sent.load(Ordering::Relaxed);
        assert!(sent < BUFFERS, "{sent} bytes were taken for an application that does not read");
        limit.add_permits(1);
        let _slow = upload.await.unwrap();
        eventually("the upload", || taken.load(Ordering::Relaxed) >= size).await;
    }
}
