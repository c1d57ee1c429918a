//! HTTP/1 heads and bodies that two readers may understand differently.
//!
//! Each shape comes first on a connection and again after a well-formed request, to the outbound and to the inbound side, with a
//! request behind it in the same segment. That one reaches the application only where the shape is well-formed.

use super::strict::Strict;
use crate::support::{Connection, Mesh, Setup};

/// What becomes of a shape.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// The proxy answers so and closes; the application sees nothing.
    Refused(u16),
    /// The application sees this one request, and nothing further is read from the connection.
    Last(&'static str),
    /// The application sees this one request, and the connection goes on.
    Kept(&'static str),
    /// The application sees at most this request begin, and its connection break before the end. The proxy answers so and closes.
    Cut(&'static str, u16),
}

use Outcome::{Cut, Kept, Last, Refused};

const SIBLING: &str = "GET /sibling HTTP/1.1\r\nhost: a\r\n\r\n";
const BEHIND: &str = "GET /behind HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &str = "POST /shape a [abc]";
const CHUNKS: &str = "3\r\nabc\r\n0\r\n\r\n";

/// A head with these lines after `POST /shape` and its host, and a body.
fn post(lines: &str, body: &str) -> String {
    format!("POST /shape HTTP/1.1\r\nhost: a\r\n{lines}\r\n{body}")
}

/// A head with these lines after `GET /shape`.
fn get(lines: &str) -> String {
    format!("GET /shape HTTP/1.1\r\n{lines}\r\n")
}

struct Pair {
    mesh: Mesh,
    strict: Strict,
}

impl Pair {
    async fn start() -> Self {
        let strict = Strict::start().await;
        let mesh = Setup::new().original(1, strict.app.address).start().await;
        Self { mesh, strict }
    }

    async fn connect(&self, inbound: bool) -> Connection {
        if inbound { self.mesh.connect_inbound(1).await } else { self.mesh.connect(1).await }
    }

    async fn judge(&self, name: &str, shape: &str, outcome: Outcome) {
        for (inbound, later) in [(false, false), (false, true), (true, false), (true, true)] {
            let side = if inbound { "inbound" } else { "outbound" };
            let context = format!("{name}, {side}, {}", if later { "later" } else { "first" });
            let mut connection = self.connect(inbound).await;
            if later {
                connection.send(SIBLING).await;
                assert_eq!(connection.reply().await.status, 200, "{context}");
            }
            connection.send(format!("{shape}{BEHIND}")).await;
            let status = match outcome {
                Refused(status) | Cut(_, status) => status,
                Last(_) | Kept(_) => 200,
            };
            assert_eq!(connection.reply().await.status, status, "{context}");
            if let Kept(_) = outcome {
                assert_eq!(connection.reply().await.status, 200, "{context}, behind");
            } else {
                let more = connection.read_to_end().await;
                assert_eq!(more.escape_ascii().to_string(), "", "{context}: more came");
            }
            // The control, by which what might have been left over on a connection to the application would show as well.
            let mut connection = self.connect(inbound).await;
            connection.send(SIBLING).await;
            assert_eq!(connection.reply().await.status, 200, "{context}, a sibling");

            let mut expected = vec!["GET /sibling a []"; 1 + usize::from(later)];
            let mut seen = self.strict.take();
            seen.retain(|seen| !seen.starts_with("begun "));
            match outcome {
                Refused(_) => {}
                Last(request) => expected.push(request),
                Kept(request) => expected.extend([request, "GET /behind a []"]),
                Cut(request, _) => seen.retain(|seen| *seen != format!("cut {request}")),
            }
            seen.sort_unstable();
            expected.sort_unstable();
            assert_eq!(seen, expected, "{context}");
        }
    }

    async fn judge_all(&self, table: &[(&str, String, Outcome)]) {
        for (name, shape, outcome) in table {
            self.judge(name, shape, *outcome).await;
        }
    }
}

#[tokio::test]
async fn a_body_has_one_length() {
    let both = "content-length: 5\r\ntransfer-encoding: chunked\r\n";
    let reverse = "transfer-encoding: chunked\r\ncontent-length: 5\r\n";
    let table = [
        ("a length", post("content-length: 3\r\n", "abc"), Kept(POST)),
        ("chunks", post("transfer-encoding: chunked\r\n", CHUNKS), Kept(POST)),
        ("chunks in capitals", post("Transfer-Encoding: CHUNKED\r\n", CHUNKS), Kept(POST)),
        (
            "a length for this connection",
            post("connection: content-length\r\ncontent-length: 3\r\n", "abc"),
            Kept(POST),
        ),
        ("length and chunks", post(both, CHUNKS), Last(POST)),
        ("chunks and length", post(reverse, CHUNKS), Last(POST)),
        ("the same length twice", post("content-length: 3\r\ncontent-length: 3\r\n", "abc"), Kept(POST)),
        ("two lengths", post("content-length: 3\r\ncontent-length: 8\r\n", "abc"), Refused(400)),
        ("two lengths in a line", post("content-length: 3, 8\r\n", "abc"), Refused(400)),
        ("a length with a sign", post("content-length: +3\r\n", "abc"), Refused(400)),
        ("a negative length", post("content-length: -3\r\n", "abc"), Refused(400)),
        ("a length with a fraction", post("content-length: 3.0\r\n", "abc"), Refused(400)),
        ("a hexadecimal length", post("content-length: 0x3\r\n", "abc"), Refused(400)),
        ("an empty length", post("content-length: \r\n", "abc"), Refused(400)),
        ("a length of 2^64", post("content-length: 18446744073709551616\r\n", "abc"), Refused(400)),
        ("a length of 2^64 - 1", post("content-length: 18446744073709551615\r\n", "abc"), Refused(431)),
        ("chunks of chunks", post("transfer-encoding: chunked, chunked\r\n", CHUNKS), Refused(400)),
        ("chunks twice", post(&"transfer-encoding: chunked\r\n".repeat(2), CHUNKS), Refused(400)),
        (
            "identity, then chunks",
            post("transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n", CHUNKS),
            Refused(400),
        ),
        ("xchunked", post("transfer-encoding: xchunked\r\n", CHUNKS), Refused(400)),
        ("chunked, identity", post("transfer-encoding: chunked, identity\r\n", CHUNKS), Refused(400)),
        ("xchunked and a length", post("transfer-encoding: xchunked\r\ncontent-length: 3\r\n", "abc"), Refused(400)),
        ("a quoted coding", post("transfer-encoding: \"chunked\"\r\n", CHUNKS), Refused(400)),
        ("more space before the coding", post("transfer-encoding:   chunked\r\n", CHUNKS), Kept(POST)),
        ("a tab before the coding", post("transfer-encoding:\tchunked\r\n", CHUNKS), Kept(POST)),
        ("a tab after the coding", post("transfer-encoding: chunked\t\r\n", CHUNKS), Kept(POST)),
        ("a vertical tab before the coding", post("transfer-encoding: \x0bchunked\r\n", CHUNKS), Refused(400)),
        ("a space before the colon", post("transfer-encoding : chunked\r\n", CHUNKS), Refused(400)),
        ("a space before the name", post(" transfer-encoding: chunked\r\n", CHUNKS), Refused(400)),
        ("a folded coding", post("transfer-encoding:\r\n chunked\r\n", CHUNKS), Refused(400)),
        (
            "chunks in HTTP/1.0",
            format!("POST /shape HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{CHUNKS}"),
            Refused(400),
        ),
    ];
    Pair::start().await.judge_all(&table).await;
}

#[tokio::test]
async fn chunks_have_one_size() {
    let chunks = |body: &str| post("transfer-encoding: chunked\r\n", body);
    // The request is on its way by then, and fails there. It is never whole.
    let cut = Cut("POST /shape", 502);
    let table = [
        ("an extension", chunks("3;a=b\r\nabc\r\n0\r\n\r\n"), Kept(POST)),
        ("leading zeros", chunks("0003\r\nabc\r\n000\r\n\r\n"), Kept(POST)),
        ("a trailer", chunks("3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"), Kept(POST)),
        ("no number", chunks("x\r\nabc\r\n0\r\n\r\n"), cut),
        ("nothing", chunks("\r\nabc\r\n0\r\n\r\n"), cut),
        ("a sign", chunks("+3\r\nabc\r\n0\r\n\r\n"), cut),
        ("a negative number", chunks("-3\r\nabc\r\n0\r\n\r\n"), cut),
        ("a prefix", chunks("0x3\r\nabc\r\n0\r\n\r\n"), cut),
        ("2^64", chunks("10000000000000000\r\nabc\r\n0\r\n\r\n"), cut),
        ("2^64 + 3", chunks("10000000000000003\r\nabc\r\n0\r\n\r\n"), cut),
        ("too few bytes", chunks("2\r\nabc\r\n0\r\n\r\n"), cut),
        ("a bare line feed after the size", chunks("3\nabc\r\n0\r\n\r\n"), cut),
        ("a bare line feed in an extension", chunks("3;a\nabc\r\n0\r\n\r\n"), cut),
        ("a bare line feed after the bytes", chunks("3\r\nabc\n0\r\n\r\n"), cut),
        ("a trailer without a colon", chunks("3\r\nabc\r\n0\r\nx-sum\r\n\r\n"), cut),
        ("an endless trailer", chunks(&format!("3\r\nabc\r\n0\r\nx-sum: {}\r\n\r\n", "x".repeat(200_000))), cut),
        ("an endless extension", chunks(&format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(200_000))), cut),
    ];
    Pair::start().await.judge_all(&table).await;
}

#[tokio::test]
async fn lines_end_and_begin_in_one_way() {
    let shape = "GET /shape a []";
    let table = [
        ("nothing special", get("host: a\r\nx: y\r\n"), Kept(shape)),
        ("no space after the colon", get("host:a\r\nx:y\r\n"), Kept(shape)),
        ("an empty value", get("host: a\r\nx:\r\n"), Kept(shape)),
        ("a tab in a value", get("host: a\r\nx: y\tz\r\n"), Kept(shape)),
        ("an empty line before the request", format!("\r\n{}", get("host: a\r\n")), Kept(shape)),
        // Read as a line end by this proxy, and never passed on as what it was.
        ("bare line feeds", "GET /shape HTTP/1.1\nhost: a\nx: y\n\n".to_owned(), Kept(shape)),
        ("a bare carriage return in a value", get("host: a\r\nx: y\rz\r\n"), Refused(400)),
        ("a bare carriage return as line end", get("host: a\r\nx: y\rz: 1\r\n"), Refused(400)),
        ("a space before a colon", get("host: a\r\nx : y\r\n"), Refused(400)),
        ("a tab before a colon", get("host: a\r\nx\t: y\r\n"), Refused(400)),
        ("a folded line", get("host: a\r\nx: y\r\n z\r\n"), Refused(400)),
        ("a space before the first name", get(" host: a\r\n"), Refused(400)),
        ("no colon", get("host: a\r\nx\r\n"), Refused(400)),
        ("no name", get("host: a\r\n: y\r\n"), Refused(400)),
        ("a null byte in a value", get("host: a\r\nx: y\0z\r\n"), Refused(400)),
        ("a null byte in a name", get("host: a\r\nx\0: y\r\n"), Refused(400)),
        ("an escape character in a value", get("host: a\r\nx: y\x1bz\r\n"), Refused(400)),
        ("a deletion character in a value", get("host: a\r\nx: y\x7fz\r\n"), Refused(400)),
    ];
    Pair::start().await.judge_all(&table).await;
}

#[tokio::test]
async fn a_request_is_for_one_host() {
    let table = [
        ("one", get("host: a\r\n"), Kept("GET /shape a []")),
        ("an empty one", get("host:\r\n"), Kept("GET /shape  []")),
        ("one that is said to be for this connection", get("host: a\r\nconnection: host\r\n"), Kept("GET /shape a []")),
        ("two", get("host: a\r\nhost: b\r\n"), Refused(400)),
        ("the same twice", get("host: a\r\nHost: a\r\n"), Refused(400)),
        ("an empty one and another", get("host:\r\nhost: a\r\n"), Refused(400)),
        // As in Linkerd, target and host are passed on as they are: the application judges by what the client said.
        (
            "another in the target",
            "GET http://b/shape HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
            Kept("GET http://b/shape a []"),
        ),
    ];
    Pair::start().await.judge_all(&table).await;
}

#[tokio::test]
async fn heads_have_a_limit() {
    let lines = |count: usize| (0..count).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let value = |length: usize| format!("host: a\r\nx: {}\r\n", "x".repeat(length));
    let path = |length: usize| format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(length));
    let shape = "GET /shape a []";
    let table = [
        ("120 KiB", get(&value(120 * 1024)), Kept(shape)),
        ("128 KiB", get(&value(128 * 1024)), Refused(431)),
        ("1 MiB", get(&value(1024 * 1024)), Refused(431)),
        ("90 lines", get(&format!("host: a\r\n{}", lines(90))), Kept(shape)),
        ("101 lines", get(&format!("host: a\r\n{}", lines(100))), Refused(431)),
        ("10000 lines", get(&format!("host: a\r\n{}", lines(10_000))), Refused(431)),
        ("a target of 70000 bytes", path(70_000), Refused(414)),
    ];
    Pair::start().await.judge_all(&table).await;
}
