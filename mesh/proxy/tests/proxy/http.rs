//! HTTP passes through unchanged: bodies as they come, upgrades, trailers, old and odd clients.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, mpsc},
};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::support::{App, Mesh, Setup, client, h2, served_by, text};

async fn mesh(app: &App) -> Mesh {
    Setup::new().original(1, app.address).start().await
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let app = App::named("app").await;
    let mesh = mesh(&app).await;
    let mut connection = mesh.connect(1).await;
    for _ in 0..50 {
        let reply =
            connection.get("/", &[("connection", "keep-alive, x-drop"), ("x-drop", "1"), ("keep-alive", "5")]).await;
        assert!(!reply.body.contains("x-drop") && !reply.body.contains("keep-alive"), "{}", reply.body);
        assert_eq!(reply.header("connection"), None);
        assert_eq!(reply.header("date"), None, "the application's headers are all there are");
    }
    assert_eq!(mesh.sum(&["tcp_open_total", "peer=\"src\""]).await, 1);
    assert_eq!(mesh.sum(&["tcp_open_total", "peer=\"dst\""]).await, 1);
}

#[tokio::test]
async fn no_more_idle_connections_are_kept_than_may_be() {
    let app = App::named("app").await;
    // Each variable is one side's.
    for (variable, [outbound, inbound]) in
        [("OUTBOUND_MAX_IDLE_CONNS_PER_ENDPOINT", [3, 1]), ("MAX_IDLE_CONNS_PER_ENDPOINT", [1, 3])]
    {
        let setup = Setup::new().with(&format!("LINKERD2_PROXY_{variable}"), "0");
        let mesh = setup.original(1, app.address).start().await;
        let (mut out, mut within) = (mesh.connect(1).await, mesh.connect_inbound(1).await);
        for _ in 0..3 {
            assert_eq!(served_by(&out.get("/", &[]).await.body), "app");
            assert_eq!(served_by(&within.get("/", &[]).await.body), "app");
        }
        let opened = async |direction| mesh.sum(&["tcp_open_total", direction, "peer=\"dst\""]).await;
        let found = [opened("direction=\"outbound\"").await, opened("direction=\"inbound\"").await];
        assert_eq!(found, [outbound, inbound], "{variable}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = App::named("app").await;
    let mesh = mesh(&app).await;
    let mut connection = mesh.connect(1).await;
    let requests: String = (0..5).map(|n| format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n")).collect();
    connection.send(requests).await;
    for n in 0..5 {
        assert!(connection.reply().await.body.starts_with(&format!("app GET /{n} ")));
    }
}

#[tokio::test]
async fn chunks_and_trailers_pass_in_both_directions() {
    let app = App::http(|request| async move {
        let collected = request.into_body().collect().await.unwrap();
        let sum = collected.trailers().map(|trailers| trailers["x-sum"].clone());
        let body = collected.to_bytes();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-got", sum.unwrap_or(HeaderValue::from_static("nothing")));
        let frames = [Frame::data(body), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
        Response::builder()
            .header("trailer", "x-got")
            .body(StreamBody::new(stream::iter(frames)).boxed_unsync())
            .unwrap()
    })
    .await;
    let mesh = mesh(&app).await;
    let mut connection = mesh.connect(1).await;
    connection
        .send(
            "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
               3\r\nabc\r\n4\r\ndefg\r\n0\r\nx-sum: 7\r\n\r\n",
        )
        .await;
    let reply = connection.reply().await;
    assert_eq!((&*reply.body, &*reply.trailers), ("abcdefg", "x-got: 7\n"));
}

#[tokio::test]
async fn frames_are_passed_on_as_they_come() {
    let (frames, receiver) = mpsc::unbounded_channel();
    let receiver = std::sync::Mutex::new(Some(receiver));
    let app = App::http(move |_| {
        let receiver = receiver.lock().unwrap().take().unwrap();
        let body = UnboundedReceiverStream::new(receiver).map(|data: &'static str| Ok(Frame::data(Bytes::from(data))));
        async move { Response::new(StreamBody::new(body).boxed_unsync()) }
    })
    .await;
    let mesh = mesh(&app).await;
    let mut connection = mesh.connect(1).await;
    connection.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    connection.head().await;
    for data in ["one", "two"] {
        frames.send(data).unwrap();
        assert_eq!(connection.read(8).await, format!("3\r\n{data}\r\n").as_bytes());
    }
    // The response counts when it ends, not before.
    assert_eq!(mesh.sum(&["response_total"]).await, 0);
    drop(frames);
    assert_eq!(connection.read(5).await, b"0\r\n\r\n");
    assert_eq!(mesh.sum(&["response_total", "success"]).await, 1);
}

#[tokio::test]
async fn a_body_is_asked_for_when_the_application_asks() {
    let gate = std::sync::Arc::new(Semaphore::new(0));
    let opened = std::sync::Arc::clone(&gate);
    let app = App::http(move |request| {
        let gate = std::sync::Arc::clone(&gate);
        async move {
            if request.uri().path() == "/refuse" {
                return text(417, "");
            }
            gate.acquire().await.unwrap().forget();
            text(200, request.into_body().collect().await.unwrap().to_bytes())
        }
    })
    .await;
    let mesh = mesh(&app).await;
    let mut connection = mesh.connect(1).await;
    connection.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n").await;
    let early = tokio::time::timeout(Duration::from_millis(200), connection.stream.readable()).await;
    assert!(early.is_err(), "the client was told to continue before the application wanted to");
    opened.add_permits(1);
    assert_eq!(connection.head().await.0, 100);
    connection.send("body").await;
    assert_eq!(connection.reply().await.body, "body");

    let mut connection = mesh.connect(1).await;
    connection.send("POST /refuse HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n").await;
    assert_eq!(connection.head().await.0, 417);
}

async fn echo(mut io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = io.read(&mut buffer).await {
        io.write_all(&buffer[..read]).await.unwrap();
    }
}

#[tokio::test]
async fn upgraded_connections_carry_bytes() {
    let app = App::http(|mut request| async move {
        let connect = request.method() == http::Method::CONNECT;
        if !connect && request.headers().get("upgrade").is_none_or(|value| value != "websocket") {
            return text(400, "no upgrade was asked for");
        }
        assert!(connect || request.headers()["connection"] == "upgrade");
        tokio::spawn(async move { echo(TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap())).await });
        let mut response = text(if connect { 200 } else { 101 }, "");
        if !connect {
            response.headers_mut().insert("upgrade", HeaderValue::from_static("websocket"));
            response.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
        }
        response
    })
    .await;
    // Through both sides of a proxy.
    let mesh = Setup::new().original(1, app.address).original(2, app.address).start().await;
    let upgrade = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\r\n";
    let connect = "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n";
    for (request, status) in [(upgrade, 101), (connect, 200)] {
        for mut connection in [mesh.connect(1).await, mesh.connect_inbound(2).await] {
            connection.send(request).await;
            let (got, headers) = connection.head().await;
            assert_eq!(got, status);
            assert_eq!(headers.get("upgrade").is_some(), status == 101);
            for message in ["hello", "again"] {
                connection.send(message).await;
                assert_eq!(connection.read(5).await, message.as_bytes());
            }
            connection.stream.shutdown().await.unwrap();
            assert_eq!(connection.read_to_end().await, b"");
        }
    }
    // An upgrade that the application refuses is an ordinary response.
    let mut connection = mesh.connect(1).await;
    assert_eq!(connection.get("/", &[("connection", "upgrade"), ("upgrade", "other")]).await.status, 400);
    assert_eq!(connection.get("/", &[("connection", "upgrade"), ("upgrade", "h2c")]).await.status, 400);
}

#[tokio::test]
async fn http_1_0_stays_http_1_0() {
    let app = App::named("app").await;
    let mesh = mesh(&app).await;
    let mut connection = mesh.connect(1).await;
    connection.send("GET /old HTTP/1.0\r\n\r\n").await;
    let reply = String::from_utf8(connection.read_to_end().await).unwrap();
    assert!(reply.starts_with("HTTP/1.0 200 OK\r\n"), "{reply}");
    assert!(reply.contains("app GET /old HTTP/1.0"), "{reply}");
}

#[tokio::test]
async fn http_1_0_clients_get_no_chunks() {
    let app = App::http(|_| async {
        let frames = ["one ", "two"].map(|data| Ok::<_, Infallible>(Frame::data(Bytes::from(data))));
        Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync())
    })
    .await;
    // This application answers any client in chunks.
    let chunks = App::tcp(|mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let _ = stream.write_all(format!("{head}7\r\none two\r\n0\r\n\r\n").as_bytes()).await;
    })
    .await;
    for app in [app, chunks] {
        let mesh = mesh(&app).await;
        let mut connection = mesh.connect(1).await;
        connection.send("GET / HTTP/1.0\r\n\r\n").await;
        let reply = String::from_utf8(connection.read_to_end().await).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(!head.contains("chunked"), "{reply}");
        assert_eq!(body, "one two");
    }
}

#[tokio::test]
async fn large_heads_pass() {
    let app = App::http(|request| async move {
        let value = request.headers()["x-large"].clone();
        Response::builder().header("x-large", value).body(Full::default().boxed_unsync()).unwrap()
    })
    .await;
    let mesh = mesh(&app).await;
    let large = "x".repeat(64 * 1024);
    let reply = mesh.connect(1).await.get("/", &[("x-large", &large)]).await;
    assert_eq!(reply.header("x-large"), Some(&*large));

    let mut connection = h2(client(1), mesh.proxy.addresses().outbound[0]).await;
    let request =
        Request::get("http://a/").header("x-large", &large[..60_000]).body(Full::default().boxed_unsync()).unwrap();
    let response = connection.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn grpc_streams_end_with_their_trailers() {
    let app = App::http(|request| async move {
        let code = if request.uri().path() == "/ok" { "0" } else { "7" };
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), code.parse().unwrap())]);
        let frames = [Frame::data(Bytes::from("message")), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
        Response::builder()
            .header("content-type", "application/grpc")
            .body(StreamBody::new(stream::iter(frames)).boxed_unsync())
            .unwrap()
    })
    .await;
    let mesh = mesh(&app).await;
    let mut connection = h2(client(1), mesh.proxy.addresses().outbound[0]).await;
    for (path, code, classification) in [("/ok", "0", "success"), ("/denied", "7", "failure")] {
        let request = Request::post(format!("http://a{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::from("request").boxed_unsync())
            .unwrap();
        let response = connection.send_request(request).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(response.trailers().unwrap()["grpc-status"], code);
        let outcome =
            format!("status_code=\"200\",classification=\"{classification}\",grpc_status=\"{code}\",error=\"\"}}");
        assert_eq!(mesh.sum(&["response_total{direction=\"outbound\"", &outcome]).await, 1);
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    let (left, mut gone) = mpsc::unbounded_channel();
    struct Notice(mpsc::UnboundedSender<()>);
    impl Drop for Notice {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let app = App::http(move |_| {
        let notice = Notice(left.clone());
        async move {
            let _notice = notice;
            std::future::pending().await
        }
    })
    .await;
    let mesh = mesh(&app).await;
    let mut connection = mesh.connect(1).await;
    connection.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    mesh.wait_for_sum(&["request_total{direction=\"outbound\""], 1).await;
    drop(connection);
    tokio::time::timeout(Duration::from_secs(10), gone.recv()).await.expect("the application still works on it");
}

#[tokio::test]
async fn an_application_that_closes_idle_connections_costs_no_request() {
    let app = App::tcp(|mut stream| async move {
        // One answer per connection, without saying so.
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\napp ").await;
    })
    .await;
    let mesh = mesh(&app).await;
    let mut connection = mesh.connect(1).await;
    for closed in 1..=20 {
        assert_eq!(served_by(&connection.get("/", &[]).await.body), "app");
        mesh.wait_for_sum(&["tcp_close_total", "peer=\"dst\""], closed).await;
    }
}

#[tokio::test]
async fn an_application_that_closes_a_kept_connection_over_a_request_is_asked_again_if_that_is_safe() {
    let app = App::tcp(|mut stream| async move {
        // One answer per connection; the next request is read and not answered.
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\napp ").await;
        let _ = stream.read(&mut buffer).await;
    })
    .await;
    let mesh = mesh(&app).await;
    let mut connection = mesh.connect(1).await;
    for _ in 0..20 {
        assert_eq!(served_by(&connection.get("/", &[]).await.body), "app");
    }
    // The control: what may have had an effect is not sent twice.
    connection.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(connection.reply().await.status, 502);
}
