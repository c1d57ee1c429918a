//! What of a request and its answer arrives unchanged.

use std::io;
use std::time::Duration;

use meshgate_clusters::{Stream, Vantage};
use meshgate_harness::case::{Case, Evidence, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::{converge, patient};
use meshgate_harness::plan::{Backend, Plan};
use meshgate_harness::probe::{Payload, Request};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{MARKER, answered, arrived, marker};

/// How long something may take that does not depend on the end of a request.
const WITHIN: Duration = Duration::from_secs(10);

const MIB: usize = 1 << 20;

/// SHA-256 of a MiB of the letter x.
const MIB_OF_X: &str = "8f990ba0b577b51cf009ea049368c16bbda1b21e1b93be07a824758bb253c39b";

const fn case(id: &'static str, summary: &'static str, run: fn(Context) -> meshgate_harness::case::CaseFuture) -> Case {
    Case { id, summary, needs: &[Need::Serves, Need::OncePerRecipe], claims: &[], stage: Stage::Shared, plan, run }
}

fn plan(plan: &mut Plan) {
    plan.serve("a", Backend::A);
}

/// The cases of this file.
pub const CASES: &[Case] = &[
    case("routing/method", "Every method arrives as it was sent", |context| Box::pin(method(context))),
    case("routing/body-1mib", "A body of 1 MiB arrives whole, in both directions", |context| Box::pin(body(context))),
    case("routing/body-streamed", "A chunked request reaches the backend before its end", |context| {
        Box::pin(body_streamed(context))
    }),
    case("routing/answer-streamed", "An answer reaches the client while the backend still writes it", |context| {
        Box::pin(answer_streamed(context))
    }),
    case("routing/query", "The query arrives as it was written", |context| Box::pin(query(context))),
    case("routing/encoded-path", "Percent-encoded paths arrive as they were written", |context| {
        Box::pin(encoded_path(context))
    }),
    Case {
        needs: &[Need::Serves, Need::KeepsHost, Need::OncePerRecipe],
        claims: &[Evidence::Confirms("ingress.no-rewrite")],
        ..case("routing/upstream-host", "The backend sees the Host that the client sent", |context| {
            Box::pin(upstream_host(context))
        })
    },
    case("routing/large-headers", "A header of 16 KiB and sixty headers arrive", |context| {
        Box::pin(large_headers(context))
    }),
    case("routing/expect-continue", "Expect: 100-continue is answered before the body is sent", |context| {
        Box::pin(expect_continue(context))
    }),
];

async fn method(context: Context) -> CaseResult {
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let marker = marker();
        let request = Request { method: method.into(), ..context.get("a")?.header(MARKER, &marker) };
        let record = context.send(request).await;
        check(format!("the status of {method}")).equal(record.outcome(), "200")?;
        // Asked of the backend, for the answer to HEAD has no body that could tell.
        let arrived: Vec<String> =
            arrived(&context, Backend::A, &marker).await?.into_iter().map(|answer| answer.method).collect();
        check(format!("the methods that arrived when {method} was sent")).equal(arrived, vec![method.to_owned()])?;
        if method == "HEAD" {
            check("the body of the answer to HEAD").equal(record.body_bytes, 0)?;
        }
    }
    Ok(Outcome::Pass)
}

async fn body(context: Context) -> CaseResult {
    let upload = Request { method: "POST".into(), body: Payload::Bytes(MIB), ..context.get("a")? };
    let (_, answer) = answered(&context, upload).await?;
    check("the body that arrived at the backend")
        .equal((answer.body_bytes, answer.body_sha256.as_str()), (MIB as u64, MIB_OF_X))?;
    let record = context.send(Request { path: format!("/?bytes={MIB}"), ..context.get("a")? }).await;
    check("the status of a large answer").equal(record.outcome(), "200")?;
    check("the body that came back").equal((record.body_bytes, record.body_sha256.as_str()), (MIB as u64, MIB_OF_X))?;
    Ok(Outcome::Pass)
}

/// A connection to the controller on which a request's head has been written.
async fn begin(context: &Context, head: &str) -> Result<Stream, Failure> {
    let request = context.get("a")?;
    let target = request.target.parse().map_err(anyhow::Error::from)?;
    let connected = context.world.cluster.connect(Vantage::Outside(0), target).await;
    let mut stream = connected.map_err(anyhow::Error::from)?;
    let host = request.host.unwrap_or_default();
    let head = head.replacen("HTTP/1.1\r\n", &format!("HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"), 1);
    stream.write_all(head.as_bytes()).await.map_err(broken)?;
    Ok(stream)
}

fn broken(error: io::Error) -> Failure {
    check("the connection to the controller").failure("to last", error.to_string())
}

async fn body_streamed(context: Context) -> CaseResult {
    let marker = marker();
    let head = format!("POST / HTTP/1.1\r\n{MARKER}: {marker}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    let mut stream = begin(&context, &head).await?;
    converge(WITHIN, || async {
        match arrived(&context, Backend::A, &marker).await {
            Ok(requests) if requests.len() == 1 => Ok(()),
            Ok(requests) => Err(format!("{} requests", requests.len())),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
    .map_err(|seen| check("the unfinished request at the backend").failure("one request", seen))?;

    stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.map_err(broken)?;
    let mut answer = String::new();
    let read = tokio::time::timeout(patient(WITHIN), stream.read_to_string(&mut answer)).await;
    check("the answer, once the request had ended").that(read.is_ok(), "to end", answer.clone())?;
    let status = answer.lines().next().unwrap_or_default();
    check("the answer's status line").equal(status, "HTTP/1.1 200 OK")?;
    let requests = arrived(&context, Backend::A, &marker).await?;
    let bytes: Vec<u64> = requests.iter().map(|answer| answer.body_bytes).collect();
    check("the bytes of the body that arrived").equal(bytes, vec!["firstlast".len() as u64])?;
    Ok(Outcome::Pass)
}

async fn answer_streamed(context: Context) -> CaseResult {
    // An answer that takes hours: whoever waits for its end before passing it on passes nothing on.
    let mut stream = begin(&context, "GET /?chunks=1000000&chunk_ms=20 HTTP/1.1\r\n\r\n").await?;
    let mut answer = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&answer).contains("line 2\n") {
            if stream.read_buf(&mut answer).await.map_err(broken)? == 0 {
                break;
            }
        }
        Ok::<(), Failure>(())
    };
    let in_time = match tokio::time::timeout(patient(WITHIN), reading).await {
        Ok(read) => read.map(|()| true)?,
        Err(_) => false,
    };
    let text = String::from_utf8_lossy(&answer).into_owned();
    let whole = in_time && text.starts_with("HTTP/1.1 200") && text.contains("line 2\n");
    check("the begin of an endless answer").that(whole, "a 200 and its first three lines", text)?;
    Ok(Outcome::Pass)
}

async fn query(context: Context) -> CaseResult {
    for query in
        ["x=1&y=2&x=3", "space=a%20b+c", "slash=%2F&amp=%26&percent=%25", "unicode=%C3%A9%E2%98%83", "flag&empty="]
    {
        let path = format!("/search?{query}");
        let seen = context.expect_seen(Request { path: path.clone(), ..context.get("a")? }).await?;
        check("the path and query that arrive").equal(seen.path, path)?;
    }
    Ok(Outcome::Pass)
}

async fn encoded_path(context: Context) -> CaseResult {
    for path in ["/a%20b", "/caf%C3%A9/%E2%98%83", "/a%2Fb/c", "/plus+and%2Bplus", "/semi;colon,comma"] {
        let seen = context.expect_seen(Request { path: path.into(), ..context.get("a")? }).await?;
        check("the path that arrives").equal(seen.path, path)?;
    }
    Ok(Outcome::Pass)
}

async fn upstream_host(context: Context) -> CaseResult {
    let host = &context.route("a")?.host;
    let seen = context.seen("a").await?;
    check("the Host that the backend sees").equal(seen.host.as_deref(), Some(host.as_str()))?;
    Ok(Outcome::Pass)
}

async fn large_headers(context: Context) -> CaseResult {
    let long = "v".repeat(16 * 1024);
    let seen = context.expect_seen(context.get("a")?.header("x-long", &long)).await?;
    let lengths: Vec<usize> = seen.header("x-long").map(str::len).collect();
    check("the length of the long header").equal(lengths, vec![long.len()])?;

    let many = (0..60).map(|index| (format!("x-many-{index}"), format!("value {index}")));
    let request = many.clone().fold(context.get("a")?, |request, (name, value)| request.header(name, value));
    let seen = context.expect_seen(request).await?;
    let whole = many.filter(|(name, value)| seen.header(name).eq([value.as_str()]));
    check("headers of sixty that arrived with their values").equal(whole.count(), 60)?;
    Ok(Outcome::Pass)
}

async fn expect_continue(context: Context) -> CaseResult {
    let request = Request { expect_continue: true, ..context.get("a")?.body("POST", "after the go-ahead") };
    let (record, answer) = answered(&context, request).await?;
    check("the statuses before the final one").equal(record.interim, vec![100])?;
    check("the bytes of the body that arrived").equal(answer.body_bytes, "after the go-ahead".len() as u64)?;
    Ok(Outcome::Pass)
}
