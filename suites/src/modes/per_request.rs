//! Requests of one connection that are for different Services.

use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Evidence, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::probe::{Batch, Connection, Request, Version};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};

use super::target::{self, A, B, DIALLED, OVERRIDE, Place, came_from, dial};
use crate::counters::fqdn;

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "modes/two-overrides-one-connection",
        // https://github.com/linkerd/linkerd2/issues/5975: all requests went where the last had gone.
        summary: "On one keep-alive connection each request goes to the Service that it names, or in default mode none does",
        needs: &[Need::Proxy, Need::OncePerController],
        claims: &[Evidence::Confirms("modes.two-ways")],
        stage: Stage::Shared,
        plan: target::plan,
        run: |context| Box::pin(alternating(context, Version::H1)),
    },
    Case {
        id: "modes/http2-overrides",
        summary: "On one HTTP/2 connection each stream goes to the Service that it names, or in default mode none does",
        needs: &[Need::Proxy, Need::OncePerController],
        claims: &[],
        stage: Stage::Shared,
        plan: target::plan,
        run: |context| Box::pin(alternating(context, Version::H2c)),
    },
];

/// How often the sequence is sent.
const ROUNDS: usize = 6;

async fn alternating(context: Context, version: Version) -> CaseResult {
    let (a, b) = (format!("{}:80", fqdn(&context, "a")), format!("{}:80", fqdn(&context, "b")));
    let sequence: [(Option<&str>, Place); 5] =
        [(Some(&a), A), (Some(&b), B), (None, DIALLED), (Some(&b), B), (Some(&a), A)];
    let requests: Vec<(Request, Place)> = sequence
        .iter()
        .cycle()
        .take(sequence.len() * ROUNDS)
        .map(|(name, place)| {
            let request = dial(&context).version(version).on(Connection::Named("one".into()));
            match name {
                Some(name) => (request.header(OVERRIDE, *name), *place),
                None => (request, *place),
            }
        })
        .collect();
    let batch = Batch::of(requests.iter().map(|(request, _)| request.clone()).collect());
    let records = context.send_inside(batch).await?;
    for (index, (record, (request, named))) in records.iter().zip(&requests).enumerate() {
        let expected = match context.world.cell.mode {
            Mode::Ingress => *named,
            Mode::Default | Mode::Outside => DIALLED,
        };
        let names = request.headers.first().map_or("no Service", |(_, value)| value);
        came_from(format!("request {} of the connection, which names {names}", index + 1), record, expected)?;
        same_connection(index, record.reused)?;
    }
    check("the number of answers").equal(records.len(), requests.len())?;
    Ok(Outcome::Pass)
}

fn same_connection(index: usize, reused: bool) -> Result<(), Failure> {
    check(format!("whether request {} went over the connection of the first", index + 1)).equal(reused, index > 0)
}
