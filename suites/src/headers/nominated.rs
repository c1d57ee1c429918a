//! Headers that a client names in `Connection`: they are for the next hop only, so whoever forwards a request takes them out. One that does
//! so after a recipe has set its own takes that out, too, and the client has chosen that nobody names the destination.

use meshgate_fixtures::ClientOverride;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::{Backend, Plan};
use meshgate_harness::probe::{Scheme, outcome};
use meshgate_harness::verdict::{CaseResult, Outcome, check};

use super::{OVERRIDE, other, two_services};
use crate::counters::{Moved, Proxy, fqdn, settle};
use crate::tls::terminate;

/// The cases of this file.
pub const CASES: &[Case] = &[
    nominated(
        "headers/client-override-connection",
        "Naming the header in Connection does not take the recipe's own away",
        &[Need::Serves, Need::SetsOverride],
        two_services,
    ),
    nominated(
        "headers/client-override-connection-tls",
        "Nor does it over HTTPS, where the proxy before the controller sees nothing of it",
        &[Need::Serves, Need::SetsOverride, Need::Template("tls")],
        |plan| {
            plan.service("main", Backend::A);
            plan.service("other", Backend::B);
            terminate(plan, "main", "main");
        },
    ),
];

const fn nominated(id: &'static str, summary: &'static str, needs: &'static [Need], plan: fn(&mut Plan)) -> Case {
    Case { id, summary, needs, claims: &[], stage: Stage::Shared, plan, run: |context| Box::pin(stays(context)) }
}

/// What a recipe has that cannot keep its header.
const ERASED: &str = "override-erased";

async fn stays(context: Context) -> CaseResult {
    const EACH: usize = 3;
    let plain = context.get("main")?;
    let nominating = plain.clone().header("Connection", OVERRIDE);
    let mut requests = vec![nominating.clone()];
    if context.promises().client_override == ClientOverride::Replaced {
        requests.push(nominating.header(OVERRIDE, other(&context)));
    }
    let named = |count| {
        let labels = [("direction", "outbound".to_owned()), ("authority", fqdn(&context, "main"))];
        [Moved::new("request_total", labels, count)]
    };
    let before = Proxy::Controller.read(&context).await?;
    let mut strays = 0;
    for request in &requests {
        for _ in 0..EACH {
            let record = context.send(request.clone()).await;
            check("who answers a request that names the header in Connection").that(
                record.service() != Some(Backend::B.name()),
                Backend::A.name(),
                outcome(&record),
            )?;
            strays += usize::from(record.service() != Some(Backend::A.name()));
        }
    }
    let sent = EACH * requests.len();
    // Over plain HTTP the proxy before the controller has taken out what is named.
    let erased = plain.scheme == Scheme::Https && context.world.recipe.findings.contains_key(ERASED);
    settle(&context, Proxy::Controller, &before, &named(if erased { 0 } else { sent })).await?;
    // The control: those of no such name are known by the Service's.
    let before = Proxy::Controller.read(&context).await?;
    for _ in 0..EACH {
        context.expect_seen(plain.clone()).await?;
    }
    settle(&context, Proxy::Controller, &before, &named(EACH)).await?;
    if !erased {
        return Ok(Outcome::Pass);
    }
    let observed = format!(
        "of {sent} requests that named {OVERRIDE} in Connection the proxy knew none by the Service's name, and {strays} led nowhere"
    );
    Ok(Outcome::Weakness { name: ERASED, observed })
}
