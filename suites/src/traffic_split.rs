//! Traffic split: whose weights count, and what a leg without pods costs.
//!
//! Shares are judged while requests come in ([`measure`], [`Sequential`]), with both error rates stated. Before measuring, a case
//! sees an answer that only the split in question can give, so that no request of the old state is counted.

use std::time::Duration;

use meshgate_harness::case::Case;
use meshgate_harness::context::Context;
use meshgate_harness::convergence::{deadline, patient};
use meshgate_harness::plan::Backend;
use meshgate_harness::probe::{Record, Request, Summary, describe};
use meshgate_harness::statistics::Sequential;
use meshgate_harness::verdict::{Failure, check};
use tokio::time::Instant;

mod changes;
mod controller_weights;
mod routes;
mod shares;
mod void;

/// The cases of this area.
pub const CASES: &[&[Case]] = &[shares::CASES, routes::CASES, changes::CASES, void::CASES, controller_weights::CASES];

/// How long a change may take to reach every proxy.
const SETTLES: Duration = Duration::from_secs(10);

/// How many requests a case sends before it judges what is known by then.
const AT_A_TIME: usize = 100;

/// Over how many keep-alive connections a case sends.
const CONNECTIONS: usize = 16;

/// How often each backend answered.
struct Answers(Summary);

impl Answers {
    /// Counts records, of which every one has to be the 200 of an echo backend.
    fn all_good(what: &str, records: &[Record]) -> Result<Self, Failure> {
        let summary = Summary::of(records);
        let answered: usize = summary.services.values().sum();
        check(format!("the answers {what}"))
            .that(
                summary.status(200) == records.len() && answered == records.len(),
                format!("{} times 200 from an echo backend", records.len()),
                format!("statuses {:?}, errors {:?}, {answered} of an echo backend", summary.statuses, summary.errors),
            )
            .map(|()| Self(summary))
    }

    fn of(&self, backend: Backend) -> usize {
        self.0.service(backend.name())
    }

    /// All came from one backend.
    fn only(&self, backend: Backend) -> Result<(), Failure> {
        check(format!("the requests that {} answered", backend.name())).that(
            self.of(backend) == self.0.total,
            format!("all {}", self.0.total),
            format!("{:?}", self.0.services),
        )
    }
}

/// Sends requests until it is clear whether a backend's share is as expected, and counts the answers.
async fn measure(
    context: &Context,
    what: &str,
    request: Request,
    backend: Backend,
    expected: Sequential,
) -> Result<Answers, Failure> {
    let mut records = Vec::new();
    loop {
        records.extend(context.send_many(request.clone(), AT_A_TIME, CONNECTIONS).await);
        let answers = Answers::all_good(what, &records)?;
        let found = answers.of(backend);
        let share = format!("the requests that {} answered {what}", backend.name());
        let told = format!("{found} of {} ({:?})", records.len(), answers.0.services);
        if let Some(judged) = context.judge_share(&share, expected, records.len() as u64, found as u64, told) {
            return judged.map(|()| answers);
        }
    }
}

/// Sends so many requests and counts the answers.
async fn sample(context: &Context, what: &str, request: Request, n: u64) -> Result<Answers, Failure> {
    Answers::all_good(what, &context.send_many(request, n as usize, CONNECTIONS).await)
}

/// Waits until a backend has been seen to answer, even one that answers few of the requests: the weights that send anything to
/// it are then in force, as a proxy takes them over in one step. So one answer is proof.
async fn until_seen(context: &Context, request: &Request, backend: Backend) -> Result<(), Failure> {
    let deadline = deadline(SETTLES);
    loop {
        let summary = Summary::of(&context.send_many(request.clone(), 24, 8).await);
        if summary.service(backend.name()) > 0 {
            return Ok(());
        }
        check(describe(request)).that(
            Instant::now() < deadline,
            format!("an answer of {} within {} s", backend.name(), patient(SETTLES).as_secs()),
            format!("{:?}, {:?}", summary.statuses, summary.services),
        )?;
    }
}

/// Waits until a backend answers a request, several times in a row.
async fn until_from(context: &Context, request: &Request, backend: Backend) -> Result<(), Failure> {
    let accept = |record: &Record| record.is(200) && record.service() == Some(backend.name());
    context.until(SETTLES, &format!("{} to answer", backend.name()), request.clone(), accept).await
}
