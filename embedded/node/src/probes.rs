//! Probes: when to ask, what an answer counts for, and what follows from it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::events::Kind as EventKind;
use crate::handlers::{Action, check};
use crate::pod::PodContext;
use crate::slot::Slot;

/// The three probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Has the program started? Holds back the other two.
    Startup,
    /// Does it still work? Otherwise it is restarted.
    Liveness,
    /// May it have traffic?
    Readiness,
}

/// Consecutive results against the probe's thresholds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    successes: i32,
    failures: i32,
}

/// What a result means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// `successThreshold` is reached.
    Good,
    /// `failureThreshold` is reached.
    Bad,
    /// Neither; as before.
    Undecided,
}

impl Tally {
    fn add(&mut self, success: bool, probe: &Probe) -> Verdict {
        if success {
            *self = Self { successes: self.successes + 1, failures: 0 };
            if self.successes >= probe.success_threshold.unwrap_or(1) { Verdict::Good } else { Verdict::Undecided }
        } else {
            *self = Self { successes: 0, failures: self.failures + 1 };
            if self.failures >= probe.failure_threshold.unwrap_or(3) { Verdict::Bad } else { Verdict::Undecided }
        }
    }
}

/// When to ask. Eagerly means: often, and at once, until the first success. Such extra asking can only make a
/// container ready sooner; a failure counts at the times that the probe's own numbers say.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    begin: Instant,
    due: Instant,
    period: Duration,
    eager: bool,
}

impl Schedule {
    fn new(begin: Instant, probe: &Probe, eager: bool) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
        };
        let period = seconds(probe.period_seconds.filter(|period| *period > 0), 10);
        let mut delay = seconds(probe.initial_delay_seconds, 0);
        if eager {
            // No program listens at the very moment it is executed: that failure is not worth an event.
            delay = delay.max(period.min(Duration::from_secs(1)));
        }
        Self { begin, due: begin + delay, period, eager }
    }

    /// When to ask first.
    fn first(&self) -> Instant {
        if self.eager { self.begin } else { self.due }
    }

    /// Whether an attempt made now counts when it fails.
    fn counts(&mut self, now: Instant) -> bool {
        let counts = now >= self.due;
        if counts {
            self.due = now + self.period;
        }
        counts
    }

    /// When to ask again.
    fn next(&self, now: Instant, succeeded: bool) -> Instant {
        if !self.eager || succeeded {
            return self.due;
        }
        let pause = match now.duration_since(self.begin).as_secs() {
            0..2 => 50,
            2..10 => 100,
            10..60 => 250,
            _ => return self.due,
        };
        self.due.min(now + Duration::from_millis(pause))
    }
}

/// Runs the probes of a container instance. Dropping the result ends them.
pub(crate) fn start(pod: &Arc<PodContext>, slot: &Arc<Slot>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (pod, slot) = (pod.clone(), slot.clone());
    tasks.spawn(async move {
        if let Some(probe) = &slot.spec.startup_probe {
            run(&pod, &slot, Purpose::Startup, probe).await;
        }
        slot.update(|state| {
            state.started = true;
            state.ready = slot.spec.readiness_probe.is_none();
        });
        let liveness = async {
            if let Some(probe) = &slot.spec.liveness_probe {
                run(&pod, &slot, Purpose::Liveness, probe).await;
            }
        };
        let readiness = async {
            if let Some(probe) = &slot.spec.readiness_probe {
                run(&pod, &slot, Purpose::Readiness, probe).await;
            }
        };
        tokio::join!(liveness, readiness);
    });
    tasks
}

/// Asks until the purpose is served: for startup the first verdict, for the others never.
async fn run(pod: &Arc<PodContext>, slot: &Slot, purpose: Purpose, probe: &Probe) {
    let Some(action) = Action::of_probe(probe) else { return };
    let eager = pod.shared.eager_probes && purpose != Purpose::Liveness;
    let mut schedule = Schedule::new(Instant::now(), probe, eager);
    let timeout = Duration::from_secs(probe.timeout_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(1).max(1));
    let mut tally = Tally::default();
    let mut succeeded = false;
    sleep_until(schedule.first()).await;
    loop {
        let counts = schedule.counts(Instant::now());
        let result = check(pod, slot, &action, timeout).await;
        let success = result.is_ok();
        if let Err(reason) = &result
            && counts
        {
            let message = format!("{purpose:?} probe failed: {reason}");
            pod.event(&slot.field_path(), EventKind::Warning, "Unhealthy", &message);
        }
        let verdict = if success || counts { tally.add(success, probe) } else { Verdict::Undecided };
        if !success && !counts {
            tally.successes = 0;
        }
        succeeded |= verdict == Verdict::Good;
        match (purpose, verdict) {
            (Purpose::Startup, Verdict::Good) => return,
            (Purpose::Startup | Purpose::Liveness, Verdict::Bad) => {
                let word = if purpose == Purpose::Startup { "startup" } else { "liveness" };
                let message = format!("Container {} failed {word} probe, will be restarted", slot.spec.name);
                pod.event(&slot.field_path(), EventKind::Normal, "Killing", &message);
                // The instance's own task ends it, and this one with it.
                let _ = slot.kill.send(message).await;
                return std::future::pending().await;
            }
            (Purpose::Readiness, Verdict::Good) => slot.update(|state| state.ready = true),
            (Purpose::Readiness, Verdict::Bad) => slot.update(|state| state.ready = false),
            _ => {}
        }
        sleep_until(schedule.next(Instant::now(), succeeded)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Probe {
        Probe {
            period_seconds: Some(10),
            failure_threshold: Some(2),
            success_threshold: Some(2),
            initial_delay_seconds: Some(5),
            ..Default::default()
        }
    }

    #[test]
    fn thresholds_count_consecutive_results() {
        let (probe, mut tally) = (probe(), Tally::default());
        assert_eq!(tally.add(true, &probe), Verdict::Undecided);
        assert_eq!(tally.add(false, &probe), Verdict::Undecided);
        assert_eq!(tally.add(true, &probe), Verdict::Undecided);
        assert_eq!(tally.add(true, &probe), Verdict::Good);
        assert_eq!(tally.add(false, &probe), Verdict::Undecided);
        assert_eq!(tally.add(false, &probe), Verdict::Bad);
    }

    #[tokio::test]
    async fn a_plain_schedule_is_the_one_of_kubernetes() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, &probe(), false);
        let first = schedule.first();
        assert_eq!(first, begin + Duration::from_secs(5));
        assert!(schedule.counts(first));
        assert_eq!(schedule.next(first, false), first + Duration::from_secs(10));
    }

    #[tokio::test]
    async fn an_eager_schedule_asks_often_until_the_first_success_and_counts_as_late_as_a_plain_one() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, &probe(), true);
        assert_eq!(schedule.first(), begin);
        assert!(!schedule.counts(begin));
        assert_eq!(schedule.next(begin, false), begin + Duration::from_millis(50));
        let late = begin + Duration::from_secs(5);
        assert!(schedule.counts(late));
        assert!(!schedule.counts(late + Duration::from_millis(100)));
        assert_eq!(schedule.next(late, true), late + Duration::from_secs(10));
    }
}
