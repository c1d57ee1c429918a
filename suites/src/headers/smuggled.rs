//! Requests that two servers in a row may read differently: what one takes for a body or for the rest of a line is a header or a whole
//! request to the next.
//!
//! Whatever the first of them says to such a request, nothing of it may choose the destination, and the connections behind it have to
//! stay in step: an answer that belongs to the hidden request must never be given to somebody else.

use std::time::Duration;

use anyhow::Context as _;
use meshgate_clusters::Vantage;
use meshgate_harness::case::{Case, CaseFuture, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::patient;
use meshgate_harness::plan::Backend;
use meshgate_harness::probe::{Batch, Connect, Connection, Keep, Request};
use meshgate_harness::verdict::{CaseResult, Failure, check};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::{SETTLES, client_chooses, control, other, two_services};

/// The cases of this file.
pub const CASES: &[Case] = &[
    hidden("headers/override-in-folded-line", "A header hidden in a folded line chooses nothing", |context| {
        Box::pin(judged(context, |host, other| {
            format!(
                "GET / HTTP/1.1\r\nHost: {host}\r\nX-Folded: a\r\n l5d-dst-override: {other}\r\nConnection: close\r\n\r\n"
            )
        }))
    }),
    hidden("headers/override-before-spaced-colon", "Nor does one with a space before its colon", |context| {
        Box::pin(judged(context, |host, other| {
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nl5d-dst-override : {other}\r\nConnection: close\r\n\r\n")
        }))
    }),
    hidden(
        "headers/smuggled-length-and-chunked",
        "A request behind a body with both a length and chunks is no request",
        |context| Box::pin(judged(context, |host, other| behind_chunks(host, other, "chunked"))),
    ),
    hidden("headers/smuggled-two-lengths", "Nor is one behind a body with two lengths", |context| {
        Box::pin(judged(context, |host, other| {
            let inner = inner(host, other);
            let length = inner.len();
            format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nContent-Length: {length}\r\n\r\n{inner}")
        }))
    }),
    hidden(
        "headers/smuggled-strange-encoding",
        "Nor is one behind a transfer encoding that only looks like chunks",
        |context| Box::pin(judged(context, |host, other| behind_chunks(host, other, "xchunked"))),
    ),
];

const fn hidden(id: &'static str, summary: &'static str, run: fn(Context) -> CaseFuture) -> Case {
    Case { id, summary, needs: &[Need::Serves], claims: &[], stage: Stage::Waiting, plan: two_services, run }
}

/// The hidden request.
fn inner(host: &str, other: &str) -> String {
    format!("GET /{HIDDEN} HTTP/1.1\r\nHost: {host}\r\nl5d-dst-override: {other}\r\nConnection: close\r\n\r\n")
}

/// The hidden request in a body that is over before it for whoever reads chunks, and not for whoever reads the length.
fn behind_chunks(host: &str, other: &str, encoding: &str) -> String {
    let body = format!("0\r\n\r\n{}", inner(host, other));
    let length = body.len();
    format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nTransfer-Encoding: {encoding}\r\n\r\n{body}"
    )
}

/// In the path of the hidden request.
const HIDDEN: &str = "hidden";

/// Longer than an answer takes, if there is one; a server that waits for the rest of a body says nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends the bytes on a connection of their own while others send properly, and judges all answers.
async fn judged(context: Context, bytes: fn(&str, &str) -> String) -> CaseResult {
    let (request, other) = (context.get("main")?, other(&context));
    let host = request.host.clone().unwrap_or_default();
    let answer = raw(&context, &request.target, bytes(&host, &other).as_bytes(), PATIENCE, |_| false).await?;
    // Where a client's own header is passed on it chooses anyway; that is headers/client-override's finding.
    if !client_chooses(&context) {
        check("who answered the request with something hidden in it").that(
            !answer.contains(&format!("\"service\":\"{}\"", Backend::B.name())),
            format!("{} or an error", Backend::A.name()),
            first_lines(&answer),
        )?;
    }
    check("the answers to one request with another hidden in it").that(
        answers(&answer) <= 1 && !answer.contains(HIDDEN),
        "at most one, and none to the hidden request",
        first_lines(&answer),
    )?;
    in_step(&context, request.clone()).await?;

    // The control: sent openly behind a request that is complete, the same one is answered.
    let open = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n{}", inner(&host, &other));
    let both = |answer: &str| answers(answer) == 2 && answer.contains(HIDDEN);
    let answer = raw(&context, &request.target, open.as_bytes(), patient(SETTLES), both).await?;
    check("the control, the answers to the same two requests one after the other").that(
        both(&answer),
        "two, the second to the request that was hidden before",
        first_lines(&answer),
    )?;
    control(&context).await
}

fn answers(text: &str) -> usize {
    text.matches("HTTP/1.1 ").count()
}

/// Ordinary requests on kept connections, which share the connections behind the ingress: each gets its own answer.
async fn in_step(context: &Context, request: Request) -> Result<(), Failure> {
    let numbered = |number: usize| Request { path: format!("/proper-{number}"), ..request.clone() };
    let requests = (0..12).map(|number| numbered(number).on(Connection::PerWorker)).collect();
    let records = context.send_batch(Batch { requests, concurrency: 3, repeat: None, keep: Keep::All }).await;
    for (number, record) in records.iter().enumerate() {
        let path = record.seen.as_ref().map(|seen| seen.path.clone());
        check("the request that a proper client's answer belongs to")
            .equal((record.outcome(), path), ("200".to_owned(), Some(numbered(number).path)))?;
    }
    Ok(())
}

/// What comes back until it is enough, the server closes, or so much time is over.
async fn raw(
    context: &Context,
    target: &str,
    bytes: &[u8],
    patience: Duration,
    is_enough: impl Fn(&str) -> bool,
) -> anyhow::Result<String> {
    let outside = context.world.prober.from(Vantage::Outside(0));
    let mut stream = outside.connect(target).await.with_context(|| format!("connecting to {target}"))?;
    stream.write_all(bytes).await.with_context(|| format!("sending to {target}"))?;
    let (deadline, mut received) = (Instant::now() + patience, Vec::new());
    // A reset after the answer is a way to close, too.
    while let Ok(Ok(1..)) = timeout_at(deadline, stream.read_buf(&mut received)).await {
        if is_enough(&String::from_utf8_lossy(&received)) {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&received).into_owned())
}

fn first_lines(answer: &str) -> String {
    let lines: Vec<&str> = answer.lines().take(12).collect();
    if lines.is_empty() { "nothing".to_owned() } else { lines.join(" | ") }
}
