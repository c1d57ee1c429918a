//! An application's HTTP/1 responses that two readers may understand differently, or that nobody asked for.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{App, Setup};

/// What a client gets of an application's answer.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// This status without a body, in place of it.
    Replaced(u16),
    /// The body `abc`, framed by one length or by chunks, and only after that, perhaps, the end of the connection.
    Whole,
    /// Its beginning, and then the end of the connection in place of the end of the body.
    Broken,
}

use Outcome::{Broken, Replaced, Whole};

fn answer(lines: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n{body}")
}

#[tokio::test]
async fn an_answer_has_one_length() {
    let current = Arc::<Mutex<String>>::default();
    let next = Arc::clone(&current);
    let app = App::tcp(move |mut stream| {
        let next = Arc::clone(&next);
        async move {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let answer = next.lock().clone();
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let mesh = Setup::new().original(1, app.address).start().await;
    let chunks = "3\r\nabc\r\n0\r\n\r\n";
    let lines = (0..200).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let table = [
        ("a length", answer("content-length: 3\r\n", "abc"), Whole),
        ("chunks", answer("transfer-encoding: chunked\r\n", chunks), Whole),
        ("the end of the connection", answer("", "abc"), Whole),
        ("the same length twice", answer("content-length: 3\r\ncontent-length: 3\r\n", "abc"), Whole),
        ("length and chunks", answer("content-length: 5\r\ntransfer-encoding: chunked\r\n", chunks), Whole),
        ("chunks and length", answer("transfer-encoding: chunked\r\ncontent-length: 5\r\n", chunks), Whole),
        ("two lengths", answer("content-length: 3\r\ncontent-length: 8\r\n", "abc"), Replaced(502)),
        ("a negative length", answer("content-length: -3\r\n", "abc"), Replaced(502)),
        ("a length of 2^64", answer("content-length: 18446744073709551616\r\n", "abc"), Replaced(502)),
        ("too few bytes", answer("content-length: 5\r\n", "abc"), Broken),
        ("a chunk without a size", answer("transfer-encoding: chunked\r\n", "3\r\nabc\r\nx\r\n\r\n"), Broken),
        ("chunks without an end", answer("transfer-encoding: chunked\r\n", "3\r\nabc\r\n"), Broken),
        ("a folded line", answer("content-length: 3\r\nx: y\r\n z\r\n", "abc"), Replaced(502)),
        ("a space before a colon", answer("content-length : 3\r\n", "abc"), Replaced(502)),
        ("a null byte in a value", answer("content-length: 3\r\nx: y\0z\r\n", "abc"), Replaced(502)),
        ("200 lines", answer(&format!("content-length: 3\r\n{lines}"), "abc"), Replaced(502)),
        ("1 MiB", answer(&format!("content-length: 3\r\nx: {}\r\n", "x".repeat(1 << 20)), "abc"), Replaced(502)),
        ("no HTTP", "abc\r\n\r\n".to_owned(), Replaced(502)),
        ("nothing", String::new(), Replaced(502)),
    ];
    for (name, answer, outcome) in table {
        current.lock().clone_from(&answer);
        for inbound in [false, true] {
            let context = format!("{name}, inbound: {inbound}");
            let mut connection = if inbound { mesh.connect_inbound(1).await } else { mesh.connect(1).await };
            // A method that is not tried again by itself.
            connection.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
            if matches!(outcome, Broken) {
                let all = String::from_utf8(connection.read_to_end().await).unwrap();
                assert!(all.starts_with("HTTP/1.1 200 OK\r\n") && !all.ends_with("0\r\n\r\n"), "{context}: {all}");
                continue;
            }
            let reply = connection.reply().await;
            let framings =
                ["content-length", "transfer-encoding"].map(|name| reply.headers.get_all(name).iter().count());
            assert_eq!(framings.iter().sum::<usize>(), 1, "{context}: {reply:?}");
            match outcome {
                Replaced(status) => assert_eq!((reply.status.as_u16(), &*reply.body), (status, ""), "{context}"),
                _ => assert_eq!((reply.status.as_u16(), &*reply.body), (200, "abc"), "{context}"),
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_answers_no_other_request() {
    let app = App::tcp(|mut stream| async move {
        let mut buffer = [0; 4096];
        while let Ok(1..) = stream.read(&mut buffer).await {
            let asked = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nasked";
            let unasked = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nunasked";
            if stream.write_all(format!("{asked}{unasked}").as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await;
    let mesh = Setup::new().original(1, app.address).start().await;
    for inbound in [false, true] {
        let mut answered = 0;
        let mut connection = if inbound { mesh.connect_inbound(1).await } else { mesh.connect(1).await };
        for _ in 0..50 {
            let reply = connection.get("/", &[]).await;
            assert_ne!(reply.body, "unasked", "inbound: {inbound}");
            answered += u32::from(reply.body == "asked");
        }
        assert_eq!(answered, 50, "inbound: {inbound}");
    }
}
