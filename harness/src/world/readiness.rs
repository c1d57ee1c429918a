//! Which routes answer before the first case, and what becomes of the cases of those that do not.
//!
//! A route that leads nowhere is no reason to judge nothing: the others' cases are judged, and its own fails, for that it does not answer is
//! how the controller behaves. So it is with what the API server does not take.

use std::time::Duration;

use meshgate_clusters::{Entrance, Vantage};
use tokio::time::{Instant, sleep};

use super::World;
use crate::convergence::patient;
use crate::plan::{Plan, Route};
use crate::probe::{self, Batch, Connection, Keep, Record};
use crate::verdict::{Failure, check};

/// Over how many connections routes are asked.
const CONNECTIONS: usize = 4;

/// How long a route is waited for after the last of the others has answered.
const STRAGGLES: Duration = Duration::from_secs(20);

/// How long its case waits for it once more.
const ONCE_MORE: Duration = Duration::from_secs(2);

/// The pauses between two looks.
const PAUSE: Duration = Duration::from_millis(30);
const LONGEST: Duration = Duration::from_millis(500);

/// What of a case is not there.
#[derive(Debug, Default)]
pub(super) struct Unready {
    /// What the API server did not take, with its reason.
    pub refused: Vec<String>,
    /// Its routes that do not answer.
    pub silent: Vec<Silent>,
}

/// A route that does not answer from its backend.
#[derive(Debug)]
pub(super) struct Silent {
    route: Route,
    /// The further instance of the controller that was asked, if it was one.
    instance: Option<String>,
    /// What was found last.
    found: String,
}

impl Unready {
    /// For a person who waits, a sentence for each.
    pub fn told(&self) -> impl Iterator<Item = String> {
        let refused = self.refused.iter().map(|refused| format!("{refused}; its case cannot pass"));
        refused.chain(self.silent.iter().map(|silent| {
            let Silent { route, found, .. } = silent;
            format!(
                "{} did not answer while others did, and its case is judged all the same; last seen: {found}",
                named(route)
            )
        }))
    }
}

fn named(route: &Route) -> String {
    format!("the route {} ({}{})", route.name, route.host, route.path)
}

/// The routes that are awaited before a cell is ready.
pub(super) fn awaited<'a>(plans: impl Iterator<Item = &'a Plan>) -> Vec<&'a Route> {
    plans.flat_map(|plan| plan.routes.values()).filter(|route| route.awaits.is_some()).collect()
}

impl World {
    /// Waits until every route has answered from its own backend, and then all of them again. Returns those that did not, with the slugs of
    /// their cases.
    pub(super) async fn routes_ready(
        &self,
        routes: Vec<&Route>,
        instance: Option<&String>,
        deadline: Instant,
    ) -> Vec<(String, Silent)> {
        let at = self.entrance_of(instance);
        let (mut pending, mut again, mut pause) = (routes.clone(), false, PAUSE);
        let mut straggles = deadline;
        loop {
            let silent = self.silent(&pending, at).await;
            if silent.is_empty() && again {
                return Vec::new();
            }
            if silent.len() < pending.len() {
                (straggles, pause) = (deadline.min(Instant::now() + patient(STRAGGLES)), PAUSE);
            }
            again = silent.is_empty();
            if again {
                pending.clone_from(&routes);
                continue;
            }
            if Instant::now() >= straggles {
                let silent = silent.into_iter().map(|(route, found)| {
                    (route.case.clone(), Silent { route: route.clone(), instance: instance.cloned(), found })
                });
                return silent.collect();
            }
            pending = silent.into_iter().map(|(route, _)| route).collect();
            sleep(pause).await;
            pause = (pause * 5 / 4).min(LONGEST);
        }
    }

    /// Where clients reach a further instance of the controller, or the first.
    fn entrance_of(&self, instance: Option<&String>) -> &Entrance {
        instance.and_then(|name| self.instances.get(name)).unwrap_or(&self.ingress)
    }

    /// Those of these routes that do not answer from their backends, with what was found.
    async fn silent<'r>(&self, routes: &[&'r Route], at: &Entrance) -> Vec<(&'r Route, String)> {
        let requests = routes.iter().map(|route| self.request_to(route, at).on(Connection::PerWorker)).collect();
        let batch = Batch { requests, concurrency: CONNECTIONS, repeat: None, keep: Keep::All };
        let records = self.prober.run(Vantage::Outside(0), &batch).await;
        let answers = |route: &Route, record: &Record| record.is(200) && record.service() == route.awaits.as_deref();
        let asked = routes.iter().copied().zip(records);
        asked
            .filter(|(route, record)| !answers(route, record))
            .map(|(route, record)| (route, probe::outcome(&record)))
            .collect()
    }

    /// Why a case cannot pass, if something of it was not there and still is not.
    pub(crate) async fn unready(&self, plan: &Plan) -> Option<Failure> {
        let unready = self.unready.get(plan.slug())?;
        if let Some(refused) = unready.refused.first() {
            return Some(check("what the recipe makes for the case").failure("to be taken by the API server", refused));
        }
        for Silent { route, instance, .. } in &unready.silent {
            let at = self.entrance_of(instance.as_ref());
            let deadline = Instant::now() + patient(ONCE_MORE);
            while let Some((_, found)) = self.silent(&[route], at).await.pop() {
                if Instant::now() >= deadline {
                    let expected = format!("an answer from {}", route.awaits.as_deref().unwrap_or_default());
                    return Some(check(named(route)).failure(expected, found));
                }
                sleep(PAUSE).await;
            }
        }
        None
    }
}
