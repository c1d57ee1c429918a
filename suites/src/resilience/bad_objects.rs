//! Objects that make no sense, each controller's own: `bad` in its recipe.

use std::time::Duration;

use meshgate_fixtures::{Bad, FROZEN_BY_BAD, SILENT_ON_BAD};
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::{converge, deadline};
use meshgate_harness::plan::{Backend, Plan, Route};
use meshgate_harness::probe::Record;
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::Value;
use tokio::time::Instant;

use super::neighbours::{TOLD, is_about_something_wrong};
use super::{CONNECTIONS, SETTLES, all_good};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "resilience/bad-objects",
        summary: "Objects that make no sense are refused or told of, and serve or not, as the recipe says, and the others serve, those that come later as well",
        needs: &[Need::Serves, Need::OncePerRecipe, Need::BadObjects],
        claims: &[],
        // It changes the configuration more than once.
        stage: Stage::Alone,
        plan: good_and_other,
        run: |context| Box::pin(bad_objects(context)),
    },
    Case {
        id: "resilience/freezing-objects",
        summary: "An object that the controller can do nothing without holds back every later change, which the log tells, what serves goes on serving, and all is taken once it is gone",
        needs: &[Need::Serves, Need::OncePerRecipe, Need::FreezingObjects],
        claims: &[],
        stage: Stage::Alone,
        plan: good_and_other,
        run: |context| Box::pin(freezing_objects(context)),
    },
];

fn good_and_other(plan: &mut Plan) {
    plan.serve(GOOD, Backend::A);
    plan.service(OTHER, Backend::B);
}

/// The route that is in order, and its Service, to which the bad objects lead as well.
pub(super) const GOOD: &str = "good";

/// The Service that comes second where an object has two, and that the later route leads to.
pub(super) const OTHER: &str = "other";

/// The route that comes after everything else.
pub(super) const LATE: &str = "late";

/// One of the recipe's bad objects.
pub(super) struct Suspect<'a> {
    template: &'a str,
    pub(super) bad: &'a Bad,
    pub(super) route: Route,
    /// In the order of the file.
    pub(super) objects: Vec<Value>,
}

async fn bad_objects(context: Context) -> CaseResult {
    let mut plan = (*context.plan).clone();
    plan.route(LATE, OTHER);
    let late = plan.routes[LATE].objects(&context.world.recipe).map_err(anyhow::Error::from)?;
    let suspects = suspects(&context, &mut plan, |bad| !bad.freezes)?;
    let judged = judge(&context, &plan, &suspects, &late).await;
    let made: Vec<&Vec<Value>> = suspects.iter().map(|suspect| &suspect.objects).chain([&late]).collect();
    let cleared = clear(&context, &made, &plan.routes[LATE]).await;
    let outcome = judged?;
    cleared?;
    Ok(outcome)
}

/// Deletes what a case has made, and waits until the latest of its routes, which led to [`OTHER`], is gone as well.
/// Whatever was seen, the cases after it have to find the controller as it was: one thing that cannot be deleted keeps no
/// other.
pub(super) async fn clear(context: &Context, made: &[&Vec<Value>], late: &Route) -> Result<(), Failure> {
    let mut cleared = Vec::new();
    for objects in made {
        cleared.push(context.world.kubernetes.delete_all(objects).await.map_err(Failure::from));
    }
    let request = context.world.request_to(late, &context.world.ingress);
    let gone = |record: &Record| !served_by(record, Backend::B);
    cleared.push(context.until_all(SETTLES, "the later route to be gone with them", request, gone).await);
    cleared.into_iter().collect()
}

async fn freezing_objects(context: Context) -> CaseResult {
    let mut plan = (*context.plan).clone();
    let freezing = suspects(&context, &mut plan, |bad| bad.freezes)?;
    for suspect in &freezing {
        let late = format!("after-{}", suspect.template);
        let route = plan.route(&late, OTHER).clone();
        let late = route.objects(&context.world.recipe).map_err(anyhow::Error::from)?;
        let judged = judge_freezing(&context, suspect, &route, &late).await;
        // Whatever was seen, the cases after this one have to find the controller as it was.
        context.world.kubernetes.delete_all(&suspect.objects).await?;
        let request = context.world.request_to(&route, &context.world.ingress);
        let thawed = match &judged {
            Ok(()) => {
                let what = format!("what came after {} to be served once that is gone", named(suspect));
                context.until(SETTLES, &what, request.clone(), |record| served_by(record, Backend::B)).await
            }
            Err(_) => Ok(()),
        };
        context.world.kubernetes.delete_all(&late).await?;
        let gone = |record: &Record| !served_by(record, Backend::B);
        context.until_all(SETTLES, "the later route to be gone with it", request, gone).await?;
        judged?;
        thawed?;
    }
    let names: Vec<String> = freezing.iter().map(named).collect();
    let observed = format!("nothing that comes later is taken while there is {}", names.join(", or "));
    Ok(Outcome::Weakness { name: FROZEN_BY_BAD, observed })
}

async fn judge_freezing(
    context: &Context,
    suspect: &Suspect<'_>,
    late: &Route,
    objects: &[Value],
) -> Result<(), Failure> {
    let told = suspect.bad.told.as_deref().unwrap_or_default();
    let before = lines_with(context, told).await?;
    applied(context, suspect).await?;
    let tried = told_again(context, told, before).await?;
    // It has tried to take the later route as well when it complains again, and the earlier ones are what they were.
    context.apply_meanwhile(objects).await?;
    told_again(context, told, tried).await?;
    for (route, what) in [(&suspect.route, "its own host"), (late, "the host of a route that came after it")] {
        let request = context.world.request_to(route, &context.world.ingress);
        let what = format!("no application to answer on {what}, while there is {}", named(suspect));
        context.from_now_on(SETTLES, &what, request, |record| record.service().is_none()).await?;
    }
    let records = context.send_many(context.get(GOOD)?, 20, CONNECTIONS).await;
    all_good("on a route that was there before", &records)
}

/// How many lines of the log have a text. Each look at the objects writes one, if any: an event beside it would count as another look.
pub(super) async fn lines_with(context: &Context, told: &str) -> Result<usize, Failure> {
    let log = context.world.controller_log(&context.world.controller.workload).await?;
    Ok(log.lines().filter(|line| line.contains(told)).count())
}

/// Waits until there are more of them than there were, and returns how many.
pub(super) async fn told_again(context: &Context, told: &str, before: usize) -> Result<usize, Failure> {
    let look = || async {
        match lines_with(context, told).await {
            Ok(now) if now > before => Ok(now),
            Ok(now) => Err(format!("{now} of them")),
            Err(error) => Err(error.to_string()),
        }
    };
    converge(TOLD, look)
        .await
        .map_err(|seen| check(format!("lines of the log with {told:?}")).failure("one more", seen))
}

/// The recipe's bad objects, as far as they are what the recipe says with this version of the controller.
pub(super) fn suspects<'a>(
    context: &'a Context,
    plan: &mut Plan,
    which: impl Fn(&Bad) -> bool,
) -> Result<Vec<Suspect<'a>>, Failure> {
    let recipe = &context.world.recipe;
    let other = plan.full(OTHER);
    let mut suspects = Vec::new();
    let version = &context.world.cell.version;
    let so = |bad: &Bad| which(bad) && bad.since.as_ref().is_none_or(|since| since <= version);
    for (template, bad) in recipe.bad.iter().filter(|(_, bad)| so(bad)) {
        let route = plan.route(template.trim_start_matches("bad-"), GOOD).template(template);
        let route = route.value("other_service", other.clone()).unawaited().clone();
        let objects = route.objects(recipe).map_err(anyhow::Error::from)?;
        suspects.push(Suspect { template, bad, route, objects });
    }
    Ok(suspects)
}

async fn judge(context: &Context, plan: &Plan, suspects: &[Suspect<'_>], late: &[Value]) -> CaseResult {
    for suspect in suspects {
        taken_or_refused(context, suspect).await?;
    }
    context.apply_meanwhile(late).await?;
    let request = context.world.request_to(&plan.routes[LATE], &context.world.ingress);
    let answers = |record: &Record| served_by(record, Backend::B);
    context.until_all(SETTLES, "a route that came after the bad objects to be served", request, answers).await?;
    let records = context.send_many(context.get(GOOD)?, 20, CONNECTIONS).await;
    all_good("on a route that was there before", &records)?;
    let taken: Vec<&Suspect<'_>> = suspects.iter().filter(|suspect| suspect.bad.refused.is_none()).collect();
    // First, for a request would be a line of the access log.
    let silent = told(context, &taken).await?;
    for suspect in taken {
        let request = context.world.request_to(&suspect.route, &context.world.ingress);
        if suspect.bad.serves {
            let what = format!("the host of {} to be served all the same", named(suspect));
            context.until(SETTLES, &what, request, |record| served_by(record, Backend::A)).await?;
        } else {
            // What came later is served already, so this is no older answer, unless a worker of the controller is late.
            let what = format!("no answer but errors of the controller or a proxy on the host of {}", named(suspect));
            context.from_now_on(SETTLES, &what, request, is_served_by_nobody).await?;
        }
    }
    if silent.is_empty() {
        return Ok(Outcome::Pass);
    }
    let observed = format!("no status, event or line of the controller's log tells of {}", silent.join(", "));
    Ok(Outcome::Weakness { name: SILENT_ON_BAD, observed })
}

/// Applies its objects, and sees that the API server takes or refuses them, as the recipe says.
pub(super) async fn taken_or_refused(context: &Context, suspect: &Suspect<'_>) -> Result<(), Failure> {
    let answer = applied(context, suspect).await;
    let found = answer.as_ref().err().map_or_else(|| "it is taken".to_owned(), |error| format!("{error:#}"));
    // Before the colon stands the name of the object, which may say the same.
    let said = found.split_once(": ").map_or("", |(_, said)| said);
    let (holds, expected) = match &suspect.bad.refused {
        Some(refused) => (answer.is_err() && tells(said, refused), format!("a refusal that says {refused:?}")),
        None => (answer.is_ok(), "it is taken".to_owned()),
    };
    check(format!("the API server's answer to {}", named(suspect))).that(holds, expected, found)
}

/// Whether a refusal says so. Not every version of Kubernetes says which item of a list it is about.
fn tells(said: &str, refused: &str) -> bool {
    said.contains(refused) || said.contains(&refused.replace("[0]", ""))
}

/// Applies its objects one after the other, until one is refused.
async fn applied(context: &Context, suspect: &Suspect<'_>) -> anyhow::Result<()> {
    for object in &suspect.objects {
        context.apply_meanwhile(std::slice::from_ref(object)).await?;
    }
    Ok(())
}

/// Waits until everything is told of that has to be; those that nothing is expected of, and nothing is found.
pub(super) async fn told(context: &Context, taken: &[&Suspect<'_>]) -> Result<Vec<String>, Failure> {
    let deadline = deadline(TOLD);
    loop {
        let said = said(context, taken).await?;
        let about = |suspect: &Suspect<'_>| -> Vec<&String> {
            said.iter().filter(|line| line.contains(&suspect.route.name)).collect()
        };
        let missing = taken.iter().find(|suspect| {
            let Some(told) = &suspect.bad.told else { return false };
            !about(suspect).iter().any(|line| line.contains(told))
        });
        let Some(missing) = missing else {
            let mut silent = Vec::new();
            for suspect in taken.iter().filter(|suspect| suspect.bad.told.is_none()) {
                let lines = about(suspect);
                check(format!("what a status, event or the log tells of {}", named(suspect))).that(
                    !lines.iter().any(|line| is_about_something_wrong(line)),
                    "nothing, as the recipe says",
                    listed(&lines),
                )?;
                silent.push(named(suspect));
            }
            return Ok(silent);
        };
        if Instant::now() >= deadline {
            let expected = missing.bad.told.as_deref().unwrap_or_default();
            return Err(check(format!("what a status, event or the log tells of {}", named(missing)))
                .failure(format!("a line with {expected:?}"), listed(&about(missing))));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Everything that is said of the objects: a line for each status and event, and those of the controller's log.
async fn said(context: &Context, taken: &[&Suspect<'_>]) -> anyhow::Result<Vec<String>> {
    let kubernetes = &context.world.kubernetes;
    let mut lines = kubernetes.events().await?;
    for object in taken.iter().flat_map(|suspect| &suspect.objects) {
        let stored = kubernetes.get(object).await?;
        lines.push(format!("{} {}", object["metadata"]["name"], stored.data["status"]));
    }
    let log = context.world.controller_log(&context.world.controller.workload).await?;
    lines.extend(log.lines().map(str::to_owned));
    Ok(lines)
}

fn listed(lines: &[&String]) -> String {
    if lines.is_empty() {
        return "no line about it".to_owned();
    }
    lines.iter().map(|line| line.as_str()).collect::<Vec<_>>().join("\n")
}

/// `bad-port (a port of 0)`.
pub(super) fn named(suspect: &Suspect<'_>) -> String {
    format!("{} ({})", suspect.template, suspect.bad.wrong)
}

pub(super) fn served_by(record: &Record, backend: Backend) -> bool {
    record.is(200) && record.service() == Some(backend.name())
}

/// No answer, or an error of the controller or a proxy.
pub(super) fn is_served_by_nobody(record: &Record) -> bool {
    record.service().is_none() && record.status.is_none_or(|status| status >= 400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_item_of_a_list_need_not_be_said() {
        let refused = "spec.routes[0].services[0].port";
        assert!(tells("Invalid value: spec.routes[0].services[0].port in body should be less", refused));
        assert!(tells("Invalid value: spec.routes.services.port in body should be less", refused), "as 1.20 says it");
        assert!(!tells("Invalid value: spec.routes[0].services[1].name", refused));
    }
}
