//! The child: one cell, from nothing to its verdicts, in a process of its own.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use futures::stream::{self, StreamExt};
use meshgate_clusters::{Backend, told};
use meshgate_fixtures::{Controller, Fixtures, Recipe, Rendered};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::blueprint::{self, Blueprint};
use crate::case::{Case, Stage};
use crate::context::Context;
use crate::convergence;
use crate::event::Event;
use crate::injection::Foreign;
use crate::kubernetes::Manifest;
use crate::matrix::Cell;
use crate::plan::Plan;
use crate::report::{CaseReport, ClaimVerdict};
use crate::verdict::{CaseResult, Failure, Outcome, Verdict};
use crate::world::World;

/// How many cases of a cell run at once.
const CONCURRENCY: usize = 6;

/// How long a case that is out of time may take to be over: it gives up at whatever it awaits next.
const STOPS: Duration = Duration::from_secs(10);

/// What the parent tells the child: everything it has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The cell.
    pub cell: Cell,
    /// Ids of the cases to run, all of which apply or not; the child decides.
    pub cases: Vec<String>,
    /// `--fixtures DIR`.
    pub fixtures: Option<PathBuf>,
    /// `--recipe DIR`: the user's own recipe in place of a built-in one.
    pub recipe: Option<PathBuf>,
    /// The report folder; artefacts go below `artefacts/` in it.
    pub report_dir: PathBuf,
    /// Seconds that setting up may take.
    pub setup_seconds: u64,
    /// Seconds that one case may take.
    pub case_seconds: u64,
    /// How many times as long as on the embedded cluster everything may take that a case awaits.
    pub pace: u32,
    /// The cluster.
    pub backend: Backend,
    /// The manifests of a mesh that is not Meshgate's own: a [`Foreign`] as JSON.
    pub mesh: Option<PathBuf>,
    /// What the controller's chart was rendered to, where that installs it: a [`Rendered`] as JSON.
    pub chart: Option<PathBuf>,
    /// The arguments that lead to that cluster again, each after a space.
    pub where_to: String,
}

impl Spec {
    /// The cell's controller, as it is to be installed.
    ///
    /// # Errors
    /// An unknown controller, or a chart that does not install it.
    pub fn controller(&self, fixtures: &Fixtures) -> anyhow::Result<Controller> {
        let controller = fixtures.controller(&self.cell.controller)?;
        let Some(path) = &self.chart else { return Ok(controller.clone()) };
        let text = std::fs::read(path).with_context(|| path.display().to_string())?;
        let rendered: Rendered = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        Ok(controller.installed_by(&rendered)?)
    }

    /// The cell's recipe: the user's own, or one of the controller's.
    pub fn recipe(&self, controller: &Controller) -> anyhow::Result<Recipe> {
        Ok(match &self.recipe {
            Some(dir) => Recipe::from_dir(dir)?,
            None => controller.recipe(&self.cell.recipe)?.clone(),
        })
    }
}

/// What a cell has to do, with its names resolved.
#[derive(Clone, Copy)]
pub struct Assignment<'a> {
    /// What the parent said.
    pub spec: &'a Spec,
    /// All fixtures.
    pub fixtures: &'a Fixtures,
    /// The cell's controller.
    pub controller: &'a Controller,
    /// The cell's recipe.
    pub recipe: &'a Recipe,
}

/// Tells events to the parent, a line each.
#[derive(Clone, Default)]
pub struct Teller {
    lock: Arc<Mutex<()>>,
}

impl Teller {
    /// Tells one event. A parent that no longer listens is no reason to stop: the closed stdin ends the cell.
    pub fn tell(&self, event: &Event) {
        let Ok(line) = serde_json::to_string(event) else { return };
        let _guard = self.lock.lock();
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    /// Tells what is being done.
    pub fn progress(&self, text: impl Into<String>) {
        self.tell(&Event::Progress { text: text.into() });
    }

    /// Tells what a person should know.
    pub fn note(&self, text: impl Into<String>) {
        self.tell(&Event::Note { text: text.into() });
    }
}

/// Opens the cell's cluster, sets its world up there, runs the cases and tells everything to the parent.
///
/// # Errors
/// The cluster's own, when it cannot be opened.
pub async fn run(assignment: &Assignment<'_>, cases: &[Case], started: Instant, teller: &Teller) -> anyhow::Result<()> {
    let Assignment { spec, recipe, .. } = *assignment;
    let wanted: Vec<Case> = cases.iter().filter(|case| spec.cases.iter().any(|id| id == case.id)).copied().collect();
    let (apply, not): (Vec<Case>, Vec<Case>) =
        wanted.into_iter().partition(|case| case.not_applicable(&spec.cell, recipe).is_none());
    for case in not {
        let reason = case.not_applicable(&spec.cell, recipe).unwrap_or_default();
        teller.tell(&finished(&case, Verdict::NotApplicable, Some(reason), &[]));
    }
    if apply.is_empty() {
        // Nobody would look at what was set up.
        teller.tell(&Event::Finished);
        return Ok(());
    }
    convergence::set_pace(spec.pace);
    teller.progress("opening the cluster");
    let cluster = spec.backend.clone().open(&|text| teller.progress(text)).await?;
    let plans = plans(&apply, recipe);
    let deadline = Duration::from_secs(spec.setup_seconds);
    let world = match World::set_up(assignment, cluster, &plans, deadline, teller).await {
        Ok(world) => Arc::new(world),
        Err(broken) => {
            let reason = told(broken.error.as_ref());
            for case in &apply {
                let reason = Some(format!("the cell was not ready: {reason}"));
                teller.tell(&finished(case, Verdict::NotRun, reason, &broken.artefacts));
            }
            teller.tell(&Event::Broken { reason, artefacts: broken.artefacts });
            return Ok(());
        }
    };
    teller.tell(&Event::Ready { seconds: started.elapsed().as_secs_f64() });
    let limit = Duration::from_secs(spec.case_seconds);
    let run_stage = |stage, concurrency| {
        stream::iter(apply.iter().filter(move |case| case.stage == stage)).for_each_concurrent(concurrency, |case| {
            judge(case, Arc::clone(&world), plans[case.id].clone(), limit, teller)
        })
    };
    tokio::join!(run_stage(Stage::Waiting, None), run_stage(Stage::Shared, Some(CONCURRENCY)));
    run_stage(Stage::Alone, Some(1)).await;
    teller.tell(&Event::Finished);
    Ok(())
}

/// The plans of cases, by their ids.
fn plans(cases: &[Case], recipe: &Recipe) -> BTreeMap<&'static str, Plan> {
    cases.iter().map(|case| (case.id, case.planned(recipe))).collect()
}

/// Every manifest that setting a cell up applies, for these cases as far as they apply. `mesh` is what a mesh that is not Meshgate's own
/// consists of.
///
/// # Errors
/// A template that cannot be filled in.
pub fn manifests(
    cell: &Cell,
    controller: &Controller,
    recipe: &Recipe,
    fixtures: &Fixtures,
    cases: &[&Case],
    mesh: Option<&Foreign>,
) -> anyhow::Result<Vec<Manifest>> {
    let apply: Vec<Case> =
        cases.iter().filter(|case| case.not_applicable(cell, recipe).is_none()).map(|case| **case).collect();
    let plans = plans(&apply, recipe);
    let injection = blueprint::injection(cell.dialect)?;
    let blueprint = Blueprint { cell, controller, recipe, injection: &injection, mesh, publishes: false };
    Ok(blueprint.steps(fixtures, &plans)?.into_iter().flat_map(|step| step.manifests).collect())
}

/// Runs one case; a failure is looked at once more, and a verdict that changes is flaky. What the cluster was away in does not count as a look, if
/// it comes back.
async fn judge(case: &Case, world: Arc<World>, plan: Plan, limit: Duration, teller: &Teller) {
    teller.tell(&Event::CaseStarted { id: case.id.to_owned() });
    let started = Instant::now();
    let mut attempts = 0;
    let mut report = looked(case, &world, &plan, limit, &mut attempts).await;
    if report.verdict == Verdict::Fail {
        let second = looked(case, &world, &plan, limit, &mut attempts).await;
        let first = report.reason.take().unwrap_or_default();
        report.reason = Some(match second.verdict {
            Verdict::Fail => first,
            Verdict::NotRun => {
                format!("{first}; it could not be looked at again: {}", second.reason.unwrap_or_default())
            }
            other => {
                report.flaky = true;
                format!("flaky: failed at first ({first}), {other} at the second look")
            }
        });
    }
    report.attempts = attempts;
    report.seconds = started.elapsed().as_secs_f64();
    teller.tell(&Event::CaseFinished { report: Box::new(report) });
}

/// Looks at a case, and once more where the cluster was away meanwhile and is back.
async fn looked(case: &Case, world: &Arc<World>, plan: &Plan, limit: Duration, attempts: &mut u32) -> CaseReport {
    *attempts += 1;
    let (report, is_back) = look(case, world, plan, limit, *attempts).await;
    if report.verdict != Verdict::NotRun || !is_back {
        return report;
    }
    *attempts += 1;
    look(case, world, plan, limit, *attempts).await.0
}

/// What is seen of a case, and whether the cluster was away meanwhile and is back.
async fn look(case: &Case, world: &Arc<World>, plan: &Plan, limit: Duration, attempt: u32) -> (CaseReport, bool) {
    let context = Context::new(Arc::clone(world), case, plan.clone());
    let way = world.way().await;
    let mut result = match world.unready(plan).await {
        Some(failure) => Err(failure),
        // A task of its own, so that a panic in a case is a verdict and not the end of the cell.
        None => ended(tokio::spawn((case.run)(context.clone())), limit).await,
    };
    // What a pod without a proxy does is no behaviour of the mesh. The case may have made the pod itself.
    if let Err(failure @ Failure::Behaviour { .. }) = &result
        && let Err(error) = world.injected().await
    {
        result = Err(error.context(failure.to_string()).into());
    }
    // Nor is what the cluster was away in. It is waited for before the case's changes are undone.
    let away = world.away(way).await;
    if let (Err(failure @ Failure::Behaviour { .. }), Some(why)) = (&result, &away) {
        result = Err(anyhow!("{why}; what was seen is {failure}").into());
    }
    let is_back = away.is_some() && world.back().await;
    let (verdict, reason) = match result {
        Ok(Outcome::Pass) => (Verdict::Pass, None),
        Ok(Outcome::NotApplicable { why }) => (Verdict::NotApplicable, Some(why)),
        Ok(Outcome::Weakness { name, observed }) => match world.recipe.findings.get(name) {
            Some(declared) => (Verdict::Finding, Some(format!("{name}: {observed}. {declared}"))),
            None => (Verdict::Fail, Some(format!("{name}: {observed}; the recipe does not declare this weakness"))),
        },
        Err(failure @ Failure::Behaviour { .. }) => (Verdict::Fail, Some(failure.to_string())),
        Err(failure @ Failure::Infrastructure(_)) => (Verdict::NotRun, Some(failure.to_string())),
    };
    let artefacts = match verdict {
        Verdict::Fail | Verdict::NotRun => world.keep_artefacts(&context, attempt, reason.as_deref()).await,
        _ => Vec::new(),
    };
    // Once its traces are kept.
    let left = match timeout(limit, context.undone()).await {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure.to_string()),
        Err(_) => Some(format!("not within {} s", limit.as_secs())),
    };
    let (verdict, reason) = match left {
        Some(left) => {
            let verdict = if verdict.is_green() { Verdict::NotRun } else { verdict };
            let before = reason.map(|reason| reason + "; ").unwrap_or_default();
            (verdict, Some(format!("{before}what the case changed could not be undone: {left}")))
        }
        None => (verdict, reason),
    };
    let claims = match verdict {
        Verdict::Pass | Verdict::Finding => claims(world, case),
        _ => BTreeMap::new(),
    };
    let report = CaseReport {
        id: case.id.to_owned(),
        verdict,
        seconds: 0.0,
        attempts: attempt,
        flaky: false,
        reason,
        claims,
        artefacts,
        observations: context.observations(),
    };
    (report, is_back)
}

/// What a case comes to, which is over then: what is undone afterwards stays undone.
async fn ended(mut body: JoinHandle<CaseResult>, limit: Duration) -> CaseResult {
    match timeout(limit, &mut body).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(Failure::Behaviour {
            what: "the case".into(),
            expected: "to come to a verdict".into(),
            found: format!("it panicked: {panic}"),
        }),
        Err(_) => {
            body.abort();
            let _ = timeout(STOPS, body).await;
            Err(Failure::Behaviour {
                what: "the case".into(),
                expected: format!("to end within {} s", limit.as_secs()),
                found: "it was still running".into(),
            })
        }
    }
}

/// What a passing case says of the page.
fn claims(world: &World, case: &Case) -> BTreeMap<String, ClaimVerdict> {
    let verdict = |holds| if holds { ClaimVerdict::Confirmed } else { ClaimVerdict::Refuted };
    case.says(&world.cell, &world.recipe).into_iter().map(|(claim, holds)| (claim, verdict(holds))).collect()
}

/// The event of a case that was not run.
fn finished(case: &Case, verdict: Verdict, reason: Option<String>, artefacts: &[String]) -> Event {
    Event::CaseFinished {
        report: Box::new(CaseReport {
            id: case.id.to_owned(),
            verdict,
            seconds: 0.0,
            attempts: 0,
            flaky: false,
            reason,
            claims: BTreeMap::new(),
            artefacts: artefacts.to_vec(),
            observations: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Told(Arc<AtomicBool>);

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn a_case_that_is_out_of_time_is_over_before_it_is_judged() {
        let over = Arc::new(AtomicBool::new(false));
        let told = Told(Arc::clone(&over));
        let body = tokio::spawn(async move {
            let _told = told;
            std::future::pending().await
        });
        let failure = ended(body, Duration::ZERO).await.unwrap_err().to_string();
        assert!(failure.contains("it was still running"), "{failure}");
        assert!(over.load(Ordering::SeqCst), "what it does next would be done after what it did is undone");
    }
}
