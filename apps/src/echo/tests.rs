//! The backend over real sockets.

use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::grpc::{EchoReply, EchoRequest};
use super::recorder::Remembered;
use super::{Answer, Config, Echo, Ports};
use crate::probe::{
    self, Batch, Connection, ErrorKind, Payload, Record, Request, Scheme, Sockets, Version, grpc, raw, run, tls,
    websocket,
};

pub(crate) struct Running {
    pub ports: Ports,
    pub target: String,
    shutdown: CancellationToken,
    _task: AbortOnDropHandle<std::io::Result<()>>,
}

pub(crate) async fn start() -> Running {
    start_with(|_| {}).await
}

async fn start_with(change: impl FnOnce(&mut Config)) -> Running {
    let mut config = Config {
        name: "echo-a".to_owned(),
        pod: "echo-a-0".to_owned(),
        http_port: 0,
        alt_port: 0,
        tcp_port: 0,
        tls_port: 0,
        tls_names: vec!["shop.example".to_owned()],
        fail_every: None,
    };
    change(&mut config);
    let echo = Echo::bind(config).await.unwrap();
    let ports = echo.ports().unwrap();
    let shutdown = CancellationToken::new();
    let task = AbortOnDropHandle::new(tokio::spawn(echo.serve(shutdown.clone())));
    Running { ports, target: format!("127.0.0.1:{}", ports.http), shutdown, _task: task }
}

/// A port that was free a moment ago.
async fn free_port() -> u16 {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn send(request: Request) -> Record {
    probe::send(&request, None).await
}

fn answer(record: &Record) -> Answer {
    serde_json::from_str(&record.body).unwrap_or_else(|error| panic!("{error}: {} {}", record.outcome(), record.body))
}

#[tokio::test]
async fn says_what_it_saw_on_http1() {
    let echo = start().await;
    let mut request = Request::get(&echo.target, "/a%20b/./c?x=%41&y").host("shop.example:80").header("X-Two", "1");
    request = request.header("Other", "o").header("x-two", "2").body("PUT", "hello");
    let record = send(request).await;
    assert!(record.is(200), "{}", record.outcome());
    assert_eq!(record.header("x-echo-service").collect::<Vec<_>>(), ["echo-a"]);
    let answer = answer(&record);
    assert_eq!((answer.pod.as_str(), answer.service.as_str(), answer.port), ("echo-a-0", "echo-a", echo.ports.http));
    assert_eq!((answer.protocol.as_str(), answer.method.as_str(), answer.scheme.as_str()), ("HTTP/1.1", "PUT", "http"));
    assert_eq!((answer.host.as_deref(), answer.authority), (Some("shop.example:80"), None));
    assert_eq!(answer.path, "/a%20b/./c?x=%41&y");
    let names: Vec<_> = answer.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(names, ["host=shop.example:80", "x-two=1", "x-two=2", "other=o", "content-length=5"]);
    assert_eq!(answer.body_bytes, 5);
    assert_eq!(answer.body_sha256, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert_eq!((answer.connection_id, answer.request_number), (1, 1));
}

#[tokio::test]
async fn says_what_it_saw_on_http2() {
    let echo = start().await;
    let mut request = Request::get(&echo.target, "/x").host("shop.example").version(Version::H2c);
    request.method = "POST".to_owned();
    request.body = Payload::Chunks { count: 3, size: 10, pause_ms: 1 };
    request.trailers = vec![("x-end".to_owned(), "over".to_owned())];
    let record = send(request).await;
    assert!(record.is(200), "{}", record.outcome());
    assert_eq!(record.version, "HTTP/2.0");
    let answer = answer(&record);
    assert_eq!((answer.protocol.as_str(), answer.authority.as_deref()), ("HTTP/2.0", Some("shop.example")));
    assert_eq!((answer.host.as_deref(), answer.body_bytes), (Some("shop.example"), 30));
    assert_eq!(answer.trailers, [("x-end".to_owned(), "over".to_owned())]);
}

#[tokio::test]
async fn the_query_bends_the_answer() {
    let echo = start().await;
    let get = |path: &str| send(Request::get(&echo.target, path));
    assert!(get("/status/503").await.is(503));
    assert!(get("/x?status=418").await.is(418));
    assert!(get("/x?status=teapot").await.is(400));
    let slow = get("/x?delay_ms=60").await;
    assert!(slow.is(200) && slow.total_us >= 60_000);
    let long = get("/x?bytes=200000").await;
    assert_eq!((long.body_bytes, long.body.len()), (200_000, 64 * 1024));
    let chunked = get("/x?chunks=3&chunk_ms=20").await;
    assert_eq!(chunked.body, "line 0\nline 1\nline 2\n");
    assert!(chunked.total_us - chunked.first_byte_us.unwrap() >= 40_000);
    let closed = get("/x?close=1").await;
    assert_eq!((closed.status, closed.error.unwrap().kind), (None, ErrorKind::Closed));
    let reset = send(Request::get(&echo.target, "/x?close=1").version(Version::H2c)).await;
    assert_eq!(reset.error.unwrap().kind, ErrorKind::Reset);
    for (query, connections) in [("last=1", 3), ("last=0", 1)] {
        let request = Request::get(&echo.target, format!("/x?{query}"));
        let records = probe::run(&probe::Batch::repeated(request, 3, 1), &probe::Sockets).await;
        let used: std::collections::BTreeSet<_> = records.iter().map(|record| record.connection_id).collect();
        assert!(records.iter().all(|record| record.is(200)) && used.len() == connections, "{query}: {used:?}");
    }
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(get("/f?fail_every=2").await.status.unwrap());
    }
    assert_eq!(statuses, [200, 503, 200, 503]);
    let mut hasty = Request::get(&echo.target, "/_slow");
    hasty.timeout_ms = 150;
    let hasty = send(hasty).await;
    assert_eq!((hasty.status, hasty.error.unwrap().kind), (Some(200), ErrorKind::Timeout));
    assert!(hasty.body.starts_with("line 0\n"), "{}", hasty.body);
}

#[tokio::test]
async fn fail_every_of_the_environment_spares_the_probes() {
    let echo = start_with(|config| config.fail_every = Some(2)).await;
    let mut statuses = Vec::new();
    for path in ["/a", "/healthz", "/b", "/healthz", "/c"] {
        statuses.push(send(Request::get(&echo.target, path)).await.status.unwrap());
    }
    assert_eq!(statuses, [200, 200, 503, 200, 200]);
}

#[tokio::test]
async fn remembers_what_is_marked() {
    let echo = start().await;
    let marked = |marker: &str| Request::get(&echo.target, "/m").header("X-Meshgate-Marker", marker);
    send(marked("one").body("POST", "12345")).await;
    send(marked("two")).await;
    let mut given_up = marked("one");
    (given_up.path, given_up.timeout_ms) = ("/m?delay_ms=5000".to_owned(), 50);
    assert!(send(given_up).await.error.is_some());
    let found = async |marker: &str| {
        let record = send(Request::get(&echo.target, format!("/_requests?marker={marker}"))).await;
        serde_json::from_str::<Remembered>(&record.body).unwrap()
    };
    let one = found("one").await;
    assert_eq!((one.count, one.requests[0].body_bytes, one.requests[0].method.as_str()), (2, 5, "POST"));
    assert_eq!(found("two").await.count, 1);
    assert_eq!(found("none").await.count, 0);
}

#[tokio::test]
async fn continues_when_asked_to() {
    let echo = start().await;
    let mut request = Request::get(&echo.target, "/x").body("POST", "wanted");
    request.expect_continue = true;
    let record = send(request).await;
    assert_eq!((record.status, record.interim.as_slice()), (Some(200), [100].as_slice()));
    assert_eq!(answer(&record).body_bytes, 6);
    let plain = send(Request::get(&echo.target, "/x").body("POST", "wanted")).await;
    assert!(plain.is(200) && plain.interim.is_empty());
}

#[tokio::test]
async fn echoes_over_a_websocket() {
    let echo = start().await;
    let request = Request::get(&echo.target, "/ws").host("chat.example").header("x-mine", "1");
    let mut socket = websocket::open(&request, &Sockets).await.unwrap();
    assert!(socket.headers.contains(&("x-echo-pod".to_owned(), "echo-a-0".to_owned())), "{:?}", socket.headers);
    for text in ["one", "two"] {
        assert_eq!(socket.echo(text).await.unwrap(), text);
    }
    socket.close().await.unwrap();
    let emojis_have_none = websocket::open(&Request::get(&echo.target, "/healthz"), &Sockets).await.err().unwrap();
    assert_eq!(emojis_have_none.text, "expected status 101, found 200");
}

#[tokio::test]
async fn speaks_grpc() {
    let echo = start().await;
    let request = |method: &str| {
        Request::get(&echo.target, format!("/{}/{method}", super::grpc::SERVICE))
            .host("grpc.example")
            .header("x-mine", "7")
    };
    let message = |text: &str| EchoRequest { message: text.to_owned(), count: 3, code: 8 };
    let unary: grpc::Reply<EchoReply> = grpc::call(&request("Unary"), &[message("hi")], false, &Sockets).await.unwrap();
    assert_eq!((unary.http_status, unary.code), (200, Some(0)));
    let reply = &unary.messages[0];
    assert_eq!(
        (reply.message.as_str(), reply.service.as_str(), reply.authority.as_str()),
        ("hi", "echo-a", "grpc.example")
    );
    assert!(reply.headers.iter().any(|header| header.name == "x-mine" && header.value == "7"));

    let stream: grpc::Reply<EchoReply> =
        grpc::call(&request("ServerStream"), &[message("hi")], false, &Sockets).await.unwrap();
    assert_eq!(stream.messages.iter().map(|reply| reply.sequence).collect::<Vec<_>>(), [0, 1, 2]);

    let messages = ["a", "b", "c"].map(message);
    let both: grpc::Reply<EchoReply> = grpc::call(&request("BidiStream"), &messages, true, &Sockets).await.unwrap();
    assert_eq!(both.messages.iter().map(|reply| reply.message.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(both.code, Some(0));

    let failed: grpc::Reply<EchoReply> = grpc::call(&request("Fail"), &[message("no")], false, &Sockets).await.unwrap();
    assert_eq!((failed.code, failed.message.as_deref()), (Some(8), Some("no")));
    let seen = failed.trailers.iter().chain(&failed.headers).find(|(name, _)| name == "x-seen-x-mine");
    assert_eq!(seen.map(|(_, value)| value.as_str()), Some("7"));

    let unknown: grpc::Reply<EchoReply> = grpc::call(&request("None"), &[message("")], false, &Sockets).await.unwrap();
    assert_eq!(unknown.code, Some(12));
}

#[tokio::test]
async fn answers_over_tls() {
    let port = free_port().await;
    let echo = start_with(|config| config.tls_port = port).await;
    for (version, alpn, protocol) in [(Version::H1, "http/1.1", "HTTP/1.1"), (Version::H2c, "h2", "HTTP/2.0")] {
        let mut request =
            Request::get(format!("127.0.0.1:{}", echo.ports.tls), "/x").host("shop.example").version(version);
        request.scheme = Scheme::Https;
        let record = send(request).await;
        let answer = answer(&record);
        assert_eq!((answer.scheme.as_str(), answer.protocol.as_str()), ("https", protocol));
        let peer = tls::Peer {
            common_name: Some("echo-a".to_owned()),
            names: ["echo-a", "localhost", "shop.example"].map(str::to_owned).into(),
            alpn: Some(alpn.to_owned()),
        };
        assert_eq!(record.tls, Some(peer));
    }
    let mut plain_port = Request::get(&echo.target, "/x");
    plain_port.scheme = Scheme::Https;
    assert_eq!(send(plain_port).await.error.unwrap().kind, ErrorKind::Tls);
}

#[tokio::test]
async fn echoes_raw_bytes() {
    let port = free_port().await;
    let _echo = start_with(|config| config.tcp_port = port).await;
    let target = format!("127.0.0.1:{port}");
    let limit = Duration::from_secs(5);
    let exchange = |bytes: Vec<u8>, half_close, until| {
        let target = target.clone();
        async move { raw::exchange(&Sockets, &target, &bytes, half_close, until, limit).await }
    };
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|index| index.to_le_bytes()[0]).collect();
    assert!(exchange(bytes.clone(), true, raw::Until::End).await.unwrap() == bytes);
    assert_eq!(exchange(b"abc".to_vec(), false, raw::Until::Bytes(3)).await.unwrap(), b"abc");
    let who = exchange(b"whoami\nrest".to_vec(), true, raw::Until::End).await.unwrap();
    assert_eq!(String::from_utf8(who).unwrap(), "echo-a echo-a-0\nrest");
    let short = exchange(b"abc".to_vec(), true, raw::Until::Bytes(4)).await.unwrap_err();
    assert_eq!(short.kind, ErrorKind::Closed);
}

#[tokio::test]
async fn breaks_and_mends_on_command() {
    let echo = start().await;
    let fault = |body: serde_json::Value| send(Request::get(&echo.target, "/_fault").body("POST", body.to_string()));
    let get = || send(Request::get(&echo.target, "/x"));
    assert!(get().await.is(200));
    assert!(fault(json!({"status": 503, "count": 2})).await.is(200));
    assert!(send(Request::get(&echo.target, "/healthz")).await.is(200));
    let statuses = [get().await.status, get().await.status, get().await.status];
    assert_eq!(statuses, [Some(503), Some(503), Some(200)]);
    assert!(fault(json!({"delay_ms": 50})).await.is(200));
    assert!(get().await.total_us >= 50_000);
    assert!(fault(json!({})).await.is(200));
    assert!(get().await.total_us < 50_000);
    assert!(fault(json!({"stauts": 503})).await.is(400));
    assert!(fault(json!({"status": 99})).await.is(400));

    assert!(fault(json!({"refuse_ms": 300})).await.is(200));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    let mut refused = false;
    loop {
        let record = get().await;
        refused |= record.error.as_ref().is_some_and(|error| error.kind == ErrorKind::Refused);
        if refused && record.is(200) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "refused: {refused}, then {}", record.outcome());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn ends_when_told_with_idle_connections_open() {
    let echo = start().await;
    let mut client = probe::Client::new(&Sockets);
    let request = Request::get(&echo.target, "/x").on(Connection::PerWorker);
    assert!(client.send(&request, probe::Keep::All).await.is(200));
    echo.shutdown.cancel();
    let end = tokio::time::timeout(Duration::from_secs(5), echo._task).await;
    end.expect("an idle connection must not hold the process").unwrap().unwrap();
}

#[tokio::test]
async fn two_http_ports_say_which_they_are() {
    let port = free_port().await;
    let echo = start_with(|config| config.alt_port = port).await;
    let requests = [&echo.target, &format!("127.0.0.1:{port}")].map(|target| Request::get(target, "/x"));
    let ports: Vec<u16> =
        run(&Batch::of(requests.into()), &Sockets).await.iter().map(|record| answer(record).port).collect();
    assert_eq!(ports, [echo.ports.http, port]);
}
