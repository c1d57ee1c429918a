//! The engine against servers that do what a test says.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::echo::tests::start;

/// An address where nobody listens.
pub(crate) async fn closed_port() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

/// Answers every connection with these bytes once a head has come, then closes. Tells what came.
async fn scripted(reply: &'static [u8]) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let request = read_head(&mut stream).await;
            if sender.send(request).is_err() {
                return;
            }
            stream.write_all(reply).await.unwrap();
        }
    });
    (target, receiver)
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    while !received.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut received).await.unwrap() == 0 {
            break;
        }
    }
    String::from_utf8(received).unwrap()
}

#[tokio::test]
async fn writes_heads_as_they_are_asked_for() {
    let (target, mut heads) = scripted(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    let request = Request::get(&target, "/a?b").host("Shop.Example").header("l5d-DST-override", "one:80");
    let request = request.header("Between", "").header("L5D-dst-Override", "two:80");
    assert!(send(&request, None).await.is(204));
    let wanted = "GET /a?b HTTP/1.1\r\nHost: Shop.Example\r\nl5d-DST-override: one:80\r\nBetween: \r\n\
                  L5D-dst-Override: two:80\r\n\r\n";
    assert_eq!(heads.recv().await.unwrap(), wanted);

    let mut old = Request::get(&target, "http://other/x").host("");
    old.version = Version::H10;
    assert!(send(&old, None).await.is(204));
    assert_eq!(heads.recv().await.unwrap(), "GET http://other/x HTTP/1.0\r\n\r\n");
}

#[tokio::test]
async fn reads_answers_as_they_come() {
    let (target, _heads) = scripted(
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 Fine\r\nX-Two: 1\r\nx-TWO: 2\r\nTransfer-Encoding: chunked\r\n\r\n\
          5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nX-End: over\r\n\r\n",
    )
    .await;
    let record = send(&Request::get(&target, "/"), None).await;
    assert!(record.is(200), "{}", record.outcome());
    assert_eq!((record.interim.as_slice(), record.body.as_str()), ([103].as_slice(), "hello!"));
    assert_eq!(record.headers[..2], [("X-Two".into(), "1".into()), ("x-TWO".into(), "2".into())]);
    assert_eq!(record.header("x-two").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(record.trailers, [("X-End".into(), "over".into())]);
}

#[tokio::test]
async fn names_what_went_wrong() {
    let fails = async |target: String| send(&Request::get(target, "/"), None).await;
    let kind = |record: &Record| record.error.as_ref().map(|error| error.kind);
    assert_eq!(kind(&fails(closed_port().await).await), Some(ErrorKind::Refused));
    assert_eq!(kind(&fails("no.such.name.invalid:80".to_owned()).await), Some(ErrorKind::Resolve));
    let cases: [(&'static [u8], ErrorKind); 4] = [
        (b"", ErrorKind::Closed),
        (b"SSH-2.0-server\r\n", ErrorKind::Protocol),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", ErrorKind::Closed),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", ErrorKind::Protocol),
    ];
    for (reply, wanted) in cases {
        let (target, _heads) = scripted(reply).await;
        let record = fails(target).await;
        assert_eq!(kind(&record), Some(wanted), "{}", record.outcome());
    }
    // What did come is kept beside the error.
    let (target, _heads) = scripted(cases[2].0).await;
    let record = fails(target).await;
    assert_eq!((record.status, record.body.as_str()), (Some(200), "half"));
    let bad = Request::get("127.0.0.1:1", "/").header("bad name", "x").version(Version::H2c);
    assert_ne!(kind(&send(&bad, None).await), None);
}

#[tokio::test]
async fn an_answer_is_whole_with_its_trailers_though_a_reset_follows() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    // Dropped with the request unread, after a whole answer: a reset without an error.
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    body.send_data("all".into(), false).unwrap();
                    body.send_trailers([("x-end".parse().unwrap(), "1".parse().unwrap())].into_iter().collect())
                        .unwrap();
                    drop(request);
                }
            });
        }
    });
    for _ in 0..50 {
        let body = Payload::Chunks { count: 3, size: 10, pause_ms: 5 };
        let request = Request { method: "POST".into(), version: Version::H2c, body, ..Request::get(&target, "/") };
        let record = send(&request, None).await;
        assert_eq!((record.error.as_ref(), record.status, record.trailers.len()), (None, Some(200), 1));
    }
}

#[tokio::test]
async fn a_request_takes_no_longer_than_it_may() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut request = Request::get(silent.local_addr().unwrap().to_string(), "/");
    request.timeout_ms = 50;
    let started = Instant::now();
    for version in [Version::H1, Version::H2c] {
        let record = send(&request.clone().version(version), None).await;
        assert_eq!(record.error.unwrap().kind, ErrorKind::Timeout);
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn reuses_connections_as_asked() {
    let echo = start().await;
    for version in [Version::H1, Version::H2c] {
        let request = |connection: &str| match connection {
            "" => Request::get(&echo.target, "/").version(version),
            name => Request::get(&echo.target, "/").version(version).on(Connection::Named(name.to_owned())),
        };
        let names = ["a", "b", "a", "", "b", "a", ""];
        let records = run(&Batch::of(names.map(request).into()), &Sockets).await;
        let ids: Vec<u64> = records.iter().map(|record| record.connection_id).collect();
        let reused: Vec<bool> = records.iter().map(|record| record.reused).collect();
        assert_eq!(reused, [false, false, true, false, true, true, false], "{version:?}");
        assert_eq!((ids[0], ids[1]), (ids[2], ids[4]), "{version:?}");
        let distinct: std::collections::BTreeSet<u64> = ids.iter().copied().collect();
        assert_eq!(distinct.len(), 4, "{version:?}: {ids:?}");
        assert_eq!(Summary::of(&records).connections, 4);
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_not_used_again() {
    let (closed, mut closings) = tokio::sync::mpsc::unbounded_channel();
    let connect = Once(closed);
    let mut client = Client::new(&connect);
    let request = Request::get("anywhere:80", "/").on(Connection::PerWorker);
    for id in 1..=3 {
        let record = client.send(&request, Keep::All).await;
        assert!(record.is(200) && !record.reused, "{}", record.outcome());
        assert_eq!(record.connection_id, id);
        closings.recv().await.unwrap();
    }
}

#[tokio::test]
async fn two_thousand_requests_are_quick() {
    let echo = start().await;
    let request = Request::get(&echo.target, "/r/{i}").header("X-Meshgate-Marker", "load");
    let started = Instant::now();
    let records = run(&Batch::repeated(request, 2000, 8), &Sockets).await;
    let took = started.elapsed();
    let summary = Summary::of(&records);
    assert_eq!((summary.total, summary.status(200), summary.service("echo-a")), (2000, 2000, 2000), "{summary:?}");
    assert_eq!(summary.connections, 8);
    // A generous limit: a build without optimisation on a busy machine.
    assert!(took < Duration::from_secs(10), "{took:?}");
    eprintln!("2000 requests in {took:?}, {summary:?}");
    let remembered = send(&Request::get(&echo.target, "/_requests?marker=load"), None).await;
    assert!(remembered.body.starts_with("{\"count\":2000,"), "{}", &remembered.body[..20]);
}

#[tokio::test]
async fn keeps_only_what_is_asked_for() {
    let echo = start().await;
    let mut batch = Batch::of(vec![Request::get(&echo.target, "/x").header("x-mine", "1")]);
    let all = run(&batch, &Sockets).await.remove(0);
    let seen = all.seen.unwrap();
    assert_eq!((seen.pod.as_str(), seen.header("X-Mine").collect::<Vec<_>>()), ("echo-a-0", vec!["1"]));
    assert!(!all.headers.is_empty() && !all.body_sha256.is_empty());
    batch.keep = Keep::Status;
    let status = run(&batch, &Sockets).await.remove(0);
    assert_eq!((status.service(), status.pod()), (Some("echo-a"), Some("echo-a-0")));
    assert!(status.headers.is_empty() && status.body.is_empty() && status.body_bytes > 0);
    batch.keep = Keep::Nothing;
    let nothing = run(&batch, &Sockets).await.remove(0);
    assert!(nothing.is(200) && nothing.seen.is_none());
}

#[tokio::test]
async fn the_role_runs_batches_for_others() {
    let echo = start().await;
    let role = role::Role::bind(role::Config { http_port: 0 }).await.unwrap();
    let target = format!("127.0.0.1:{}", role.port().unwrap());
    let _task = AbortOnDropHandle::new(tokio::spawn(role.serve(CancellationToken::new())));
    let batch = serde_json::json!({
        "requests": [
            {"id": "r{i}", "target": echo.target, "path": "/p/{i}", "version": "h2", "headers": [["x-a", "1"], ["x-a", "2"]],
             "body": {"text": "hi"}, "connection": {"named": "one"}},
        ],
        "concurrency": 2, "repeat": 3,
    });
    let post = Request::get(&target, "/batch").body("POST", batch.to_string());
    let record = send(&post, None).await;
    assert!(record.is(200), "{} {}", record.outcome(), record.body);
    let records: Vec<Record> = serde_json::from_str(&record.body).unwrap();
    let said: Vec<(&str, &str, bool)> =
        records.iter().map(|r| (r.id.as_str(), r.seen.as_ref().unwrap().path.as_str(), r.reused)).collect();
    assert_eq!(said, [("r0", "/p/0", false), ("r1", "/p/1", true), ("r2", "/p/2", true)]);
    let wrong = send(&Request::get(&target, "/batch").body("POST", "{\"request\": []}"), None).await;
    assert!(wrong.is(400) && wrong.body.contains("expected a batch"), "{}", wrong.body);
    assert!(send(&Request::get(&target, "/healthz"), None).await.is(200));
}

#[test]
fn what_happened_is_told_without_what_concerns_programmers() {
    let text = "peer closed connection without sending TLS close_notify: https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html";
    let failure = Failure::from(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, text));
    assert_eq!(failure.to_string(), "Closed: peer closed connection without sending TLS close_notify");
}

#[test]
fn summaries_count_what_was() {
    let record = |status, service: Option<&str>, error| Record {
        status,
        seen: service.map(|service| Seen { service: service.to_owned(), ..Seen::default() }),
        error,
        total_us: 10,
        ..Record::default()
    };
    let failure = Failure { kind: ErrorKind::Refused, text: String::new() };
    let summary = Summary::of(&[
        record(Some(200), Some("a"), None),
        record(Some(503), None, None),
        record(None, None, Some(failure)),
    ]);
    assert_eq!((summary.status(200), summary.status(503), summary.service("a"), summary.service("b")), (1, 1, 1, 0));
    assert_eq!((summary.errors[&ErrorKind::Refused], summary.p50_us, summary.connections), (1, 10, 0));
    assert_eq!(Summary::of(&[]).p99_us, 0);
}

proptest! {
    /// However an answer is cut into chunks and packets, its body is the same.
    #[test]
    fn chunked_bodies_are_put_together(chunks in prop::collection::vec("[a-z]{1,40}", 0..8), cut in 1_usize..64) {
        let mut reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in &chunks {
            reply.extend_from_slice(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes());
        }
        reply.extend_from_slice(b"0\r\n\r\n");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let record = runtime.block_on(send(&Request::get("anywhere:80", "/"), Some(&Pieces(reply, cut))));
        prop_assert!(record.is(200), "{}", record.outcome());
        prop_assert_eq!(record.body, chunks.concat());
    }
}

/// A server that writes its answer in pieces of one size.
struct Pieces(Vec<u8>, usize);

impl Connect for Pieces {
    fn connect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Stream>> {
        let (near, mut far) = tokio::io::duplex(self.1);
        let reply = self.0.clone();
        tokio::spawn(async move {
            let mut head = [0; 1024];
            // The request must be taken in, or its writer waits for ever.
            let (mut read, mut write) = tokio::io::split(&mut far);
            let taking = async { while read.read(&mut head).await.is_ok_and(|length| length > 0) {} };
            let giving = async { write.write_all(&reply).await };
            let _ = tokio::join!(taking, giving);
        });
        Box::pin(std::future::ready(Ok(Box::pin(near) as Stream)))
    }
}

/// A server that answers one request on every connection, without a word that it is the last, and tells when it has closed.
struct Once(tokio::sync::mpsc::UnboundedSender<()>);

impl Connect for Once {
    fn connect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Stream>> {
        let (near, mut far) = tokio::io::duplex(1024);
        let closed = self.0.clone();
        tokio::spawn(async move {
            let mut head = [0; 1024];
            assert!(far.read(&mut head).await.unwrap() > 0);
            far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            drop(far);
            closed.send(()).unwrap();
        });
        Box::pin(std::future::ready(Ok(Box::pin(near) as Stream)))
    }
}
