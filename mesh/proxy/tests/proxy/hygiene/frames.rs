//! HTTP/2 frame by frame: what no client library sends.

use std::sync::Arc;

use http::Request;
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;

use crate::support::{App, Connection, Mesh, Setup, client, h2, text};

const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Names and values in the order in which they are sent.
pub(super) type Lines<'a> = &'a [(&'a str, &'a str)];

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Header lines as HPACK literals that are not indexed.
pub(super) fn block(lines: Lines<'_>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in lines {
        block.push(0);
        for text in [name, value] {
            // A length in 7 bits, and the rest of it in further bytes (RFC 7541, section 5.1).
            let mut rest = text.len();
            if rest < 127 {
                block.push(rest as u8);
            } else {
                block.push(127);
                rest -= 127;
                while rest >= 128 {
                    block.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                block.push(rest as u8);
            }
            block.extend(text.as_bytes());
        }
    }
    block
}

pub(super) fn pseudo(path: &str) -> [(&str, &str); 4] {
    [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", path)]
}

/// What the proxy says about a stream or its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// Response headers that begin with this byte: 0x88 is 200, 0x8c is 400 (RFC 7541, appendix A).
    Status(u8),
    Reset(u32),
    GoAway(u32),
    /// The connection ended without a word.
    End,
}

pub(super) const OK: Said = Said::Status(0x88);
const BAD_REQUEST: Said = Said::Status(0x8c);

pub(super) struct Frames(Connection);

impl Frames {
    pub(super) async fn open(mesh: &Mesh, inbound: bool) -> Self {
        let mut connection = if inbound { mesh.connect_inbound(1).await } else { mesh.connect(1).await };
        connection.send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat()).await;
        Self(connection)
    }

    pub(super) async fn send(&mut self, frame: Vec<u8>) {
        self.0.send(frame).await;
    }

    /// A request without a body.
    pub(super) async fn request(&mut self, stream: u32, lines: Lines<'_>) {
        self.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(lines))).await;
    }

    /// What is said next about this stream or about the connection.
    pub(super) async fn said(&mut self, stream: u32) -> Said {
        loop {
            let head = self.0.read(9).await;
            let Ok(head) = <[u8; 9]>::try_from(head) else { return Said::End };
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let payload = self.0.read(length).await;
            let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            let about = u32::from_be_bytes(head[5..].try_into().unwrap());
            match head[3] {
                GOAWAY => return Said::GoAway(number(4)),
                HEADERS if about == stream => return Said::Status(payload[0]),
                RST_STREAM if about == stream => return Said::Reset(number(0)),
                _ => {}
            }
        }
    }
}

/// An application that notes the requests that it has read to their end, and what their headers were.
async fn noting() -> (App, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let log = Arc::clone(&seen);
    let app = App::http(move |request| {
        let log = Arc::clone(&log);
        async move {
            let path = request.uri().path().to_owned();
            let length = request.headers().get_all("content-length").iter().count();
            if let Ok(body) = request.into_body().collect().await {
                log.lock().push(format!("{path} {length} {}", body.to_bytes().escape_ascii()));
            }
            text(200, "")
        }
    })
    .await;
    (app, seen)
}

#[tokio::test]
async fn a_malformed_stream_reaches_no_application() {
    let (app, seen) = noting().await;
    let mesh = Setup::new().original(1, app.address).start().await;
    let shape = pseudo("/shape");
    let with = |lines: Lines<'static>| [&shape[..], lines].concat();
    let path = |path: &'static str| pseudo(path).to_vec();
    let get = [&[(":method", "GET")], &shape[1..]].concat();
    // What is sent, and what it is answered. After that the connection goes on, unless the answer says otherwise.
    type Row = (&'static str, Vec<(&'static str, &'static str)>, &'static [u8], Said);
    let table: [Row; 21] = [
        ("nothing special", with(&[("x", "y")]), b"abc", OK),
        ("a body where there is none as a rule", get, b"abc", OK),
        ("a length", with(&[("content-length", "3")]), b"abc", OK),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")]), b"abc", Said::Reset(PROTOCOL_ERROR)),
        ("connection", with(&[("connection", "close")]), b"", Said::Reset(PROTOCOL_ERROR)),
        ("upgrade", with(&[("upgrade", "websocket")]), b"", Said::Reset(PROTOCOL_ERROR)),
        ("te", with(&[("te", "gzip")]), b"", Said::Reset(PROTOCOL_ERROR)),
        ("two lengths", with(&[("content-length", "3"), ("content-length", "8")]), b"abc", Said::Reset(PROTOCOL_ERROR)),
        ("the same length twice", with(&[("content-length", "3"), ("content-length", "3")]), b"abc", BAD_REQUEST),
        ("a length with a sign", with(&[("content-length", "+3")]), b"abc", Said::Reset(PROTOCOL_ERROR)),
        ("a length of 2^64", with(&[("content-length", "18446744073709551616")]), b"abc", Said::Reset(PROTOCOL_ERROR)),
        ("less than its length", with(&[("content-length", "5")]), b"abc", Said::Reset(PROTOCOL_ERROR)),
        ("more than its length", with(&[("content-length", "2")]), b"abc", Said::Reset(PROTOCOL_ERROR)),
        ("two hosts", with(&[("host", "a"), ("host", "b")]), b"", BAD_REQUEST),
        ("a late pseudo-header", with(&[("x", "y"), (":path", "/shape")]), b"", Said::Reset(PROTOCOL_ERROR)),
        ("two paths", with(&[(":path", "/other")]), b"", Said::Reset(PROTOCOL_ERROR)),
        ("a request in the path", path("/shape HTTP/1.1\r\nx: y"), b"", Said::Reset(PROTOCOL_ERROR)),
        ("a path without a slash", path("shape"), b"", Said::Reset(PROTOCOL_ERROR)),
        ("no path", shape[..3].to_vec(), b"", Said::Reset(PROTOCOL_ERROR)),
        ("lines in a value", with(&[("x", "y\r\nz: 1")]), b"", Said::GoAway(PROTOCOL_ERROR)),
        ("capitals in a name", with(&[("X", "y")]), b"", Said::GoAway(PROTOCOL_ERROR)),
    ];
    for (name, lines, body, expected) in table {
        // To the inbound side also as what an outbound one makes of HTTP/1, which then goes to the application as such.
        for (inbound, carried) in [(false, false), (true, false), (true, true)] {
            let context = format!("{name}, inbound: {inbound}, carried: {carried}");
            let marked = |mut lines: Vec<_>| {
                lines.extend(carried.then_some(("l5d-orig-proto", "HTTP/1.1")));
                lines
            };
            let mut frames = Frames::open(&mesh, inbound).await;
            let sibling = marked(pseudo("/sibling").to_vec());
            frames.request(1, &sibling).await;
            assert_eq!(frames.said(1).await, OK, "{context}");
            if body.is_empty() {
                frames.request(3, &marked(lines.clone())).await;
            } else {
                frames.send(frame(HEADERS, END_HEADERS, 3, &block(&marked(lines.clone())))).await;
                frames.send(frame(DATA, END_STREAM, 3, body)).await;
            }
            assert_eq!(frames.said(3).await, expected, "{context}");
            let mut siblings = 1;
            if matches!(expected, Said::GoAway(_)) {
                assert_eq!(frames.said(0).await, Said::End, "{context}");
            } else {
                frames.request(5, &sibling).await;
                assert_eq!(frames.said(5).await, OK, "{context}, behind");
                siblings += 1;
            }
            let mut seen = std::mem::take(&mut *seen.lock());
            let all = seen.len();
            seen.retain(|seen| !seen.starts_with("/sibling "));
            assert_eq!(all - seen.len(), siblings, "{context}");
            assert_eq!(seen.len(), usize::from(expected == OK), "{context}: {seen:?}");
            assert!(
                seen.iter().all(|seen| seen.starts_with("/shape ") && seen.ends_with("abc")),
                "{context}: {seen:?}"
            );
        }
    }
}

#[tokio::test]
async fn lists_of_headers_have_a_limit() {
    let (app, seen) = noting().await;
    let mesh = Setup::new().original(1, app.address).start().await;
    for address in [mesh.proxy.addresses().outbound[0], mesh.proxy.addresses().inbound] {
        let mut connection = h2(client(1), address).await;
        for (length, status) in [(120 * 1024, 200), (140 * 1024, 431), (120 * 1024, 200)] {
            let value = "x".repeat(length);
            let request = Request::get("http://a/").header("x", value).body(Full::default().boxed_unsync()).unwrap();
            assert_eq!(connection.send_request(request).await.unwrap().status(), status, "{length}");
        }
    }
    assert_eq!(seen.lock().len(), 4);

    // A line of 4000 bytes that is kept, and named again by one byte each.
    let large = "x".repeat(4000);
    for inbound in [false, true] {
        for (times, fits) in [(20, true), (10_000, false)] {
            let mut frames = Frames::open(&mesh, inbound).await;
            let mut bomb = block(&pseudo("/shape"));
            let mut kept = block(&[("x", &large)]);
            // A literal that is added to the table (RFC 7541, section 6.2.1), and then its index there.
            kept[0] = 0x40;
            bomb.extend(kept);
            bomb.extend(std::iter::repeat_n(0x80 | 62, times));
            frames.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)).await;
            let said = frames.said(1).await;
            assert!(if fits { said == OK } else { matches!(said, Said::GoAway(_)) }, "{times} times: {said:?}");
        }
    }
    assert_eq!(seen.lock().len(), 6);
}

#[tokio::test]
async fn a_flood_ends_its_connection() {
    let (app, _) = noting().await;
    let mesh = Setup::new().original(1, app.address).start().await;
    for inbound in [false, true] {
        // Headers that go on, a little or nothing at a time.
        for more in [&[][..], &block(&[("x", "y")])] {
            let mut frames = Frames::open(&mesh, inbound).await;
            frames.request(1, &pseudo("/sibling")).await;
            assert_eq!(frames.said(1).await, OK);
            frames.send(frame(HEADERS, END_STREAM, 3, &block(&pseudo("/shape")))).await;
            let flood = frame(CONTINUATION, 0, 3, more).repeat(1000);
            frames.send(flood).await;
            assert_eq!(frames.said(3).await, Said::GoAway(ENHANCE_YOUR_CALM));
            assert_eq!(frames.said(3).await, Said::End);
        }

        // Requests that are taken back at once.
        let mut frames = Frames::open(&mesh, inbound).await;
        frames.request(1, &pseudo("/sibling")).await;
        assert_eq!(frames.said(1).await, OK);
        let before = app.requests();
        let mut flood = Vec::new();
        for stream in (3..).step_by(2).take(5000) {
            flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&pseudo("/shape"))));
            flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        }
        // The proxy may hang up while this is on its way.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut frames.0.stream, &flood).await;
        let said = frames.said(0).await;
        assert!(matches!(said, Said::GoAway(ENHANCE_YOUR_CALM) | Said::End), "{said:?}");
        assert!(app.requests() - before < 500, "{} requests got through", app.requests() - before);
        // The control: whoever lets its requests finish is served.
        let mut connection =
            h2(client(1), if inbound { mesh.proxy.addresses().inbound } else { mesh.proxy.addresses().outbound[0] })
                .await;
        for _ in 0..500 {
            let request = Request::get("http://a/").body(Full::default().boxed_unsync()).unwrap();
            assert_eq!(connection.send_request(request).await.unwrap().status(), 200);
        }
    }
}
