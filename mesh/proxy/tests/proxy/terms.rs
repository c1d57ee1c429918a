//! How long requests on policies' routes may take: from when, whom their limits are for, and what a request says of that itself.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use linkerd2_proxy_api::{http_route::Timeouts, outbound::http_route::Retry};
use tokio::time;

use crate::{
    routes::{BACKEND, ROUTE, failing, mesh, millis, retries},
    support::{App, Connection, H2Body, client, h2, text},
};

const PATIENCE: Duration = Duration::from_secs(15);

/// An application that hears all of a request before it answers, with what it heard; of `/silence` it does not.
async fn hearing() -> App {
    App::http(|request| async move {
        let silent = request.uri().path() == "/silence";
        let Ok(body) = request.into_body().collect().await else { return text(400, "not all of it") };
        if silent {
            std::future::pending::<()>().await;
        }
        text(200, body.to_bytes())
    })
    .await
}

/// An application that answers at once, and says at the end how much it has heard.
async fn listening() -> App {
    App::http(|request| async move {
        let mut body = request.into_body();
        let heard = stream::once(async move {
            let mut heard = 0;
            while let Some(Ok(frame)) = body.frame().await {
                heard += frame.data_ref().map_or(0, Bytes::len);
            }
            Ok(Frame::data(Bytes::from(heard.to_string())))
        });
        let first = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"heard ")))]);
        Response::new(StreamBody::new(first.chain(heard)).boxed_unsync())
    })
    .await
}

/// A body of so many parts, each some time after the one before.
fn parts(count: usize, apart: Duration) -> H2Body {
    let parts = stream::iter(0..count).then(move |_| async move {
        time::sleep(apart).await;
        Ok(Frame::data(Bytes::from_static(b"x")))
    });
    StreamBody::new(parts).boxed_unsync()
}

/// The same over HTTP/1, of which this is the head and what follows are chunks.
async fn send_parts(connection: &mut Connection, count: usize, apart: Duration) {
    connection.send("POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n").await;
    for _ in 0..count {
        time::sleep(apart).await;
        connection.send("1\r\nx\r\n").await;
    }
}

const END: &str = "0\r\n\r\n";

#[tokio::test]
async fn an_applications_time_begins_when_it_has_all_of_the_request() {
    const LIMIT_MILLIS: i32 = 1000;
    // In all longer than the application may take.
    const UPLOAD: (usize, Duration) = (3, Duration::from_millis(500));
    let app = hearing().await;
    let timeouts = Timeouts { response: millis(LIMIT_MILLIS), ..Default::default() };
    let retry = Retry { timeout: millis(LIMIT_MILLIS), ..retries(1, 1024).unwrap() };
    for (timeouts, retry) in [(Some(timeouts), None), (None, Some(retry))] {
        let mesh = mesh(&app, |rule| (rule.timeouts, rule.retry) = (timeouts, retry.clone())).await;
        let mut connection = mesh.connect(1).await;
        send_parts(&mut connection, UPLOAD.0, UPLOAD.1).await;
        connection.send(END).await;
        let reply = connection.reply().await;
        assert_eq!((reply.status.as_u16(), &*reply.body), (200, "xxx"));

        let mut sender = h2(client(1), mesh.proxy.addresses().outbound[0]).await;
        let request = Request::post("http://web/").body(parts(UPLOAD.0, UPLOAD.1)).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "xxx");
    }

    // Control: when it has all of it, its time runs, whether there is a body or not.
    let asked = app.requests();
    let mesh = mesh(&app, |rule| (rule.timeouts, rule.retry) = (Some(timeouts), retries(3, 1024))).await;
    let mut connection = mesh.connect(1).await;
    connection.send("POST /silence HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\nbody").await;
    for reply in [connection.reply().await, mesh.connect(1).await.get("/silence", &[]).await] {
        let error = format!("{ROUTE}{BACKEND}timed out waiting for response headers: response stream timeout: 1s");
        assert_eq!((reply.status.as_u16(), reply.header("l5d-proxy-error")), (504, Some(&*error)));
    }
    let mut sender = h2(client(1), mesh.proxy.addresses().outbound[0]).await;
    let request = Request::post("http://web/silence").body(parts(0, Duration::ZERO)).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 504);
    // That is no reason to ask again.
    assert_eq!(app.requests() - asked, 3);
    let ended = ["outbound_http_route_backend_response_statuses_total", "error=\"RESPONSE_STREAM_TIMEOUT\""];
    assert_eq!(mesh.sum(&ended).await, 3);
}

#[tokio::test]
async fn the_last_attempt_is_not_given_up() {
    let app = App::http(|_| async {
        time::sleep(Duration::from_millis(500)).await;
        text(200, "late")
    })
    .await;
    let retry = Retry { timeout: millis(100), ..retries(2, 1024).unwrap() };
    let mesh = mesh(&app, |rule| rule.retry = Some(retry.clone())).await;
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.body, "late");
    assert_eq!(app.requests(), 3);
    let given_up = ["outbound_http_route_backend_response_statuses_total", "error=\"RESPONSE_HEADERS_TIMEOUT\""];
    assert_eq!(mesh.sum(&given_up).await, 2);
}

#[tokio::test]
async fn an_application_that_listens_is_not_idle() {
    const IDLE_MILLIS: i32 = 1000;
    const UPLOAD: (usize, Duration) = (20, Duration::from_millis(100));
    let app = listening().await;
    let timeouts = Some(Timeouts { idle: millis(IDLE_MILLIS), ..Default::default() });
    let mesh = mesh(&app, |rule| rule.timeouts = timeouts).await;
    let mut connection = mesh.connect(1).await;
    send_parts(&mut connection, UPLOAD.0, UPLOAD.1).await;
    connection.send(END).await;
    assert_eq!(connection.reply().await.body, "heard 20");

    let mut sender = h2(client(1), mesh.proxy.addresses().outbound[0]).await;
    let request = Request::post("http://web/").body(parts(UPLOAD.0, UPLOAD.1)).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "heard 20");

    // Control: when nothing is said any more, it is.
    let mut connection = mesh.connect(1).await;
    send_parts(&mut connection, 2, UPLOAD.1).await;
    assert_eq!(connection.head().await.0, 200);
    let body = time::timeout(PATIENCE, connection.read_to_end()).await.unwrap();
    let body = String::from_utf8(body).unwrap();
    assert!(body.contains("heard ") && !body.ends_with(END), "{body:?} is not broken off");
    let end = "http_status=\"200\",error=\"IDLE_TIMEOUT\"}";
    mesh.wait_for_sum(&["outbound_http_route_request_statuses_total", end], 1).await;
    assert_eq!(mesh.sum(&["outbound_http_route_request_statuses_total"]).await, 3);
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_of_its_request_is_idle() {
    let app = hearing().await;
    let timeouts = Some(Timeouts { idle: millis(300), ..Default::default() });
    let mesh = mesh(&app, |rule| rule.timeouts = timeouts).await;
    let mut connection = mesh.connect(1).await;
    connection.send("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\nbo").await;
    let reply = connection.reply().await;
    let error = format!("{ROUTE}{BACKEND}timed out waiting for response headers: idle timeout: 300ms");
    assert_eq!((reply.status.as_u16(), reply.header("l5d-proxy-error")), (504, Some(&*error)));
    let end = "http_status=\"\",error=\"IDLE_TIMEOUT\"}";
    mesh.wait_for_sum(&["outbound_http_route_request_statuses_total", end], 1).await;
    // Control: with all of it, the application may think for longer.
    let mut connection = mesh.connect(1).await;
    connection.send("POST /silence HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\nbody").await;
    assert!(time::timeout(Duration::from_millis(900), connection.reply()).await.is_err());
}

#[tokio::test]
async fn a_request_says_how_often_it_is_sent_where_it_may() {
    for (headers, failures, allowed, expected) in [
        (&[("l5d-retry-http", "5xx"), ("l5d-retry-limit", "2")][..], 2, true, (200, 3)),
        (&[("l5d-retry-http", "5xx"), ("l5d-retry-limit", "2")], 2, false, (500, 1)),
        (&[("l5d-retry-http", "5xx"), ("l5d-retry-limit", "often")], 2, true, (500, 2)),
        (&[("l5d-retry-http", "gateway-error,429"), ("l5d-retry-limit", "2")], 2, true, (500, 1)),
        (&[("x-retry-http", "5xx")], 1, true, (500, 1)),
    ] {
        let app = failing(failures).await;
        let mesh = mesh(&app, |rule| rule.allow_l5d_request_headers = allowed).await;
        let reply = mesh.connect(1).await.get("/", headers).await;
        assert_eq!((reply.status.as_u16(), app.requests()), expected, "{headers:?} {allowed}");
        let again = mesh.sum(&["outbound_http_route_retry_requests_total"]).await;
        assert_eq!(again, expected.1 as u64 - 1, "{headers:?} {allowed}");
    }
    // A rule's own retries are for requests that say nothing of theirs.
    for (headers, expected) in [(&[][..], (200, 3)), (&[("l5d-retry-limit", "1")], (500, 2))] {
        let app = failing(2).await;
        let mesh = mesh(&app, |rule| (rule.allow_l5d_request_headers, rule.retry) = (true, retries(2, 1024))).await;
        let reply = mesh.connect(1).await.get("/", headers).await;
        assert_eq!((reply.status.as_u16(), app.requests()), expected, "{headers:?}");
    }
}

#[tokio::test]
async fn a_request_says_how_long_it_may_take_where_it_may() {
    let app = hearing().await;
    let limited = |allowed: bool| {
        let timeouts = Some(Timeouts { request: millis(600), ..Default::default() });
        mesh(&app, move |rule| (rule.allow_l5d_request_headers, rule.timeouts) = (allowed, timeouts))
    };
    let open = limited(true).await;
    for (headers, limit) in [
        (&[("l5d-timeout", "300ms")][..], "request timeout: 300ms"),
        (&[("l5d-timeout", "300ms"), ("l5d-request-timeout", "400ms")], "request timeout: 400ms"),
        (&[("l5d-response-timeout", "300ms")], "response stream timeout: 300ms"),
        (&[("l5d-timeout", "soon"), ("l5d-response-timeout", "300")], "request timeout: 600ms"),
    ] {
        let reply = open.connect(1).await.get("/silence", headers).await;
        let backend = if limit.starts_with("response") { BACKEND } else { "" };
        let error = format!("{ROUTE}{backend}timed out waiting for response headers: {limit}");
        assert_eq!((reply.status.as_u16(), reply.header("l5d-proxy-error")), (504, Some(&*error)), "{headers:?}");
    }
    let closed = limited(false).await;
    let reply = closed.connect(1).await.get("/silence", &[("l5d-timeout", "300ms")]).await;
    let error = format!("{ROUTE}timed out waiting for response headers: request timeout: 600ms");
    assert_eq!(reply.header("l5d-proxy-error"), Some(&*error));
}

#[tokio::test]
async fn a_request_says_how_long_an_attempt_may_take_where_it_may() {
    let app = App::silent_at_first().await;
    let mesh = mesh(&app, |rule| rule.allow_l5d_request_headers = true).await;
    assert_eq!(mesh.connect(1).await.get("/", &[("l5d-retry-timeout", "100ms")]).await.body, "second");
    assert_eq!(app.requests(), 2);
}

#[tokio::test]
async fn what_a_request_says_of_itself_goes_no_further_where_it_is_read() {
    let said = [
        ("l5d-timeout", "5s"),
        ("l5d-request-timeout", "5s"),
        ("l5d-response-timeout", "nonsense"),
        ("l5d-retry-http", "5xx"),
        ("l5d-retry-grpc", "unavailable"),
        ("l5d-retry-limit", "1"),
        ("l5d-retry-timeout", "5s"),
    ];
    let app = App::named("web").await;
    for allowed in [true, false] {
        let mesh = mesh(&app, |rule| rule.allow_l5d_request_headers = allowed).await;
        let reply = mesh.connect(1).await.get("/", &said).await;
        for (name, _) in said {
            assert_eq!(reply.body.contains(name), !allowed, "{name}: {}", reply.body);
        }
    }
}
