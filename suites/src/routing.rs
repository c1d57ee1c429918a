//! Routing: what reaches which backend, and what of the request arrives unchanged.

use std::net::SocketAddr;

use anyhow::Context as _;
use meshgate_apps::echo::Answer;
use meshgate_harness::case::Case;
use meshgate_harness::context::Context;
use meshgate_harness::plan::Backend;
use meshgate_harness::probe::{Record, Request, describe, outcome};
use meshgate_harness::verdict::{Failure, check};
use serde::Deserialize;

mod addresses;
mod books;
mod commands;
mod connections;
mod emojivoto;
mod kuard;
pub(crate) mod protocols;
mod requests;
mod targets;

/// The cases of this area.
pub const CASES: &[&[Case]] = &[
    targets::CASES,
    requests::CASES,
    protocols::CASES,
    connections::CASES,
    emojivoto::CASES,
    books::CASES,
    kuard::CASES,
    commands::CASES,
    addresses::CASES,
];

/// Echo backends remember requests with this header.
const MARKER: &str = "x-meshgate-marker";

/// A value of [`MARKER`] that no other request has.
fn marker() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// What an echo backend says of a request; anything but its 200 is a failure.
async fn answered(context: &Context, request: Request) -> Result<(Record, Answer), Failure> {
    let what = describe(&request);
    let record = context.send(request).await;
    match serde_json::from_str::<Answer>(&record.body) {
        Ok(answer) if record.is(200) && !answer.protocol.is_empty() => Ok((record, answer)),
        _ => Err(check(what).failure("a 200 of an echo backend", outcome(&record))),
    }
}

/// What has arrived with this marker at the pods of a backend, asked of the pods themselves.
async fn arrived(context: &Context, backend: Backend, marker: &str) -> Result<Vec<Answer>, Failure> {
    #[derive(Deserialize)]
    struct Remembered {
        requests: Vec<Answer>,
    }
    let mut all = Vec::new();
    for (_, pod) in context.pods_of(backend.name()).await? {
        let path = format!("/_requests?marker={marker}");
        let text = context.world.prober.fetch(SocketAddr::from((pod, 8080)), &path).await?;
        let remembered: Remembered = serde_json::from_str(&text).context("what an echo backend remembers")?;
        all.extend(remembered.requests);
    }
    Ok(all)
}
