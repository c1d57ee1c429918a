//! Objects that lead nowhere beside those that lead somewhere.

use std::time::Duration;

use meshgate_fixtures::SILENT_ON_MISSING;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::deadline;
use meshgate_harness::plan::{Backend, Plan};
use meshgate_harness::probe::Record;
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::Value;
use tokio::time::Instant;

use super::{CONNECTIONS, SETTLES, all_good};
use crate::tls;

/// The cases of this file.
pub const CASES: &[Case] = &[Case {
    id: "resilience/bad-neighbours",
    summary: "Routes to a Service and a port that are not there, or with a certificate that is none, are told of, and the others serve, those that come later as well",
    needs: &[Need::Serves, Need::OncePerRecipe],
    claims: &[],
    // It changes the configuration more than once.
    stage: Stage::Alone,
    plan: |plan| {
        plan.serve("good", Backend::A);
        plan.service("late", Backend::B);
        plan.service(SEALED, Backend::A);
    },
    run: |context| Box::pin(bad_neighbours(context)),
}];

/// How long a controller may take to say what is wrong. Of several replicas the one with the lease says it, and where that one has just
/// ended, another has to wait until its 15 seconds are over.
pub(super) const TOLD: Duration = Duration::from_secs(30);

/// The route, and its Service, whose Secret holds no certificate.
const SEALED: &str = "sealed";

/// What is in it. Whoever cannot say where it is from shows what it is.
const GARBAGE: &str = "a-bad-neighbour";

/// The template of routes with a certificate.
const TLS: &str = "tls";

/// Whether a line has a word of those that one about something wrong has.
pub(super) fn is_about_something_wrong(line: &str) -> bool {
    let line = line.to_lowercase();
    ["error", "warn", "not ", "invalid", "no "].iter().any(|word| line.contains(word))
}

async fn bad_neighbours(context: Context) -> CaseResult {
    let mut plan = (*context.plan).clone();
    let mut bad = vec!["nowhere"];
    plan.route("nowhere", "absent");
    plan.route("late", "late");
    if context.world.recipe.templates.contains_key(TLS) {
        let secret = secret(&context);
        plan.route(SEALED, SEALED).template(TLS).value("secret", secret);
    }
    if let Some(form) = &context.world.recipe.host {
        plan.hosts(form);
    } else {
        // Where a host names a Service there is no second route to it.
        plan.route("closed", "good").port(999);
        bad.push("closed");
    }
    judge(&context, &plan, &bad).await
}

/// The name of the Secret of [`SEALED`].
fn secret(context: &Context) -> String {
    context.plan.full("garbage")
}

async fn judge(context: &Context, plan: &Plan, bad: &[&str]) -> CaseResult {
    for bad in bad {
        context.apply_meanwhile(&objects(context, plan, bad)?).await?;
    }
    if plan.routes.contains_key(SEALED) {
        context.apply_meanwhile(&objects(context, plan, SEALED)?).await?;
    }
    context.apply_meanwhile(&objects(context, plan, "late")?).await?;
    let late = context.world.request_to(&plan.routes["late"], &context.world.ingress);
    let answers = |record: &Record| record.is(200) && record.service() == Some(Backend::B.name());
    context.until(SETTLES, "a route that came after the bad ones to be served", late, answers).await?;
    let records = context.send_many(context.get("good")?, 20, CONNECTIONS).await;
    all_good("on a route that was there before", &records)?;
    // What its own clients get is each controller's: its default certificate, or no answer. The others came before it, so what is told of
    // them is told by then, where nothing is waited for.
    if plan.routes.contains_key(SEALED) {
        check(format!("a status, event or line of the controller's log about Secret {}", secret(context))).that(
            told(context, plan, SEALED).await?,
            "one that says what is wrong",
            "none",
        )?;
    }
    let mut silent = Vec::new();
    for bad in bad {
        // First, for a request would be a line of the access log.
        if !told(context, plan, bad).await? {
            silent.push(format!("{}:{}", plan.routes[*bad].service, plan.routes[*bad].port));
        }
        let route = &plan.routes[*bad];
        let request = context.world.request_to(route, &context.world.ingress);
        // A process of the controller's that is on its way out may answer as the case before this one left it.
        let refused = |record: &Record| record.service().is_none() && record.status.is_some_and(|status| status >= 400);
        let what = format!("an error of the controller or a proxy on the route to {}:{}", route.service, route.port);
        context.from_now_on(SETTLES, &what, request, refused).await?;
    }
    if silent.is_empty() {
        return Ok(Outcome::Pass);
    }
    let observed =
        format!("no status, event or line of the controller's log tells of a route to {}", silent.join(", "));
    Ok(Outcome::Weakness { name: SILENT_ON_MISSING, observed })
}

/// Whether the controller says something of a bad route: in its status, in an event or in the log. One that is known to be silent is
/// not waited for.
async fn told(context: &Context, plan: &Plan, bad: &str) -> Result<bool, Failure> {
    let route = &plan.routes[bad];
    let objects = objects(context, plan, bad)?;
    let known = bad != SEALED && context.world.recipe.findings.contains_key(SILENT_ON_MISSING);
    let patience = if known { Duration::ZERO } else { TOLD };
    let further = match bad {
        "nowhere" => Some(route.service.clone()),
        SEALED => Some(secret(context)),
        _ => None,
    };
    let about = |line: &str| {
        let garbage = bad == SEALED && quotes(line, GARBAGE);
        garbage || line.contains(&route.name) || further.as_ref().is_some_and(|further| line.contains(further))
    };
    let deadline = deadline(patience);
    // What was said once was said.
    while !said(context, &objects, |said| said.lines().any(|line| about(line) && is_about_something_wrong(line)))
        .await
        .unwrap_or(false)
    {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(true)
}

/// Whether a line has a text, perhaps shortened: `a-b[...]our`.
fn quotes(line: &str, text: &str) -> bool {
    let shortened =
        |(before, after): (&str, &str)| before.ends_with(&text[..3]) && after.starts_with(&text[text.len() - 3..]);
    line.contains(text) || line.split_once("[...]").is_some_and(shortened)
}

/// Whether what is wanted is said anywhere: the log, which is the longest, is read last.
async fn said(context: &Context, objects: &[Value], wanted: impl Fn(&str) -> bool) -> anyhow::Result<bool> {
    let kubernetes = &context.world.kubernetes;
    for object in objects {
        // As it is now, with its status.
        let stored = kubernetes.apply(object).await?;
        if wanted(&format!("{} {}", object["metadata"]["name"], stored.data["status"])) {
            return Ok(true);
        }
    }
    Ok(wanted(&kubernetes.events().await?.join("\n"))
        || wanted(&context.world.controller_log(&context.world.controller.workload).await?))
}

fn objects(context: &Context, plan: &Plan, route: &str) -> Result<Vec<Value>, Failure> {
    let mut objects = plan.routes[route].objects(&context.world.recipe).map_err(anyhow::Error::from)?;
    if route == SEALED {
        let secret = tls::secret(&secret(context), GARBAGE, GARBAGE);
        objects.insert(0, secret);
    }
    Ok(objects)
}
