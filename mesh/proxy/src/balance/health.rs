//! Whether an endpoint gets requests, by how its last ones went.
//!
//! Whoever cannot be reached is set aside for a while, and the while gets longer. Where the policy of a destination says so
//! (Linkerd's failure accrual), so is who answers with failures: with too many in a row, or too large a share of the last while's
//! answers. When the while is over one request finds out, alone.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use linkerd2_proxy_api::outbound::{ExponentialBackoff, FailureAccrual, failure_accrual::Kind};
use parking_lot::Mutex;
use rand::Rng;

use super::ewma;
use crate::window::Window;

/// For who cannot be reached.
const UNREACHABLE: Penalty =
    Penalty { min: Duration::from_millis(100), max: Duration::from_secs(10), jitter_permille: 0 };

/// How many failures are too many, and what then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Accrual {
    /// In a row; 0 is never.
    max_failures: u32,
    rate: Option<SuccessRate>,
    penalty: Penalty,
}

/// Which share of answers has to be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct SuccessRate {
    millionths: u32,
    /// Of the answers of this while.
    window: Duration,
    /// If there were as many.
    min_requests: u32,
}

/// How long an endpoint is set aside: at first, and at most, for it doubles each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Penalty {
    min: Duration,
    max: Duration,
    jitter_permille: u32,
}

/// What an answer says about its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    /// Good, but for the success rate: 429, or gRPC's RESOURCE_EXHAUSTED.
    Limited,
    Failed,
}

/// The health of one endpoint.
pub(crate) struct Health {
    accrual: Option<Accrual>,
    /// When to try again, in [`ewma::now`]'s nanoseconds; 0 while all is well.
    due: AtomicU64,
    /// How often it was set aside since all was well.
    setbacks: AtomicU32,
    /// It was set aside for its answers.
    failing: AtomicBool,
    /// Failed responses since the last good one.
    failures: AtomicU32,
    /// Good answers and all, if there is a rate to keep to.
    answers: Option<Mutex<Window>>,
}

impl Accrual {
    /// From a policy.
    pub(crate) fn of(api: &FailureAccrual) -> Option<Self> {
        let (max_failures, rate, backoff) = match api.kind.as_ref()? {
            Kind::ConsecutiveFailures(consecutive) => (consecutive.max_failures, None, consecutive.backoff.as_ref()),
            Kind::Unified(unified) => {
                let rate = SuccessRate {
                    millionths: (unified.success_rate_threshold.clamp(0.0, 1.0) * 1e6) as u32,
                    window: unified.decay.and_then(|window| window.try_into().ok()).unwrap_or_default(),
                    min_requests: unified.min_requests,
                };
                let rate = Some(rate).filter(|rate| rate.millionths > 0 && !rate.window.is_zero());
                (unified.max_consecutive_failures, rate, unified.backoff.as_ref())
            }
        };
        let penalty = Penalty::of(backoff?)?;
        (max_failures > 0 || rate.is_some()).then_some(Self { max_failures, rate, penalty })
    }

    /// Whether an answer is as it should be.
    fn accepts(&self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Good => true,
            Verdict::Limited => self.rate.is_none(),
            Verdict::Failed => false,
        }
    }
}

impl SuccessRate {
    /// Whether these are too few good answers.
    fn is_missed(&self, (good, all): (f64, f64)) -> bool {
        all >= f64::from(self.min_requests) && good * 1e6 < f64::from(self.millionths) * all
    }
}

impl Penalty {
    fn of(api: &ExponentialBackoff) -> Option<Self> {
        let min = Duration::try_from(api.min_backoff?).ok()?;
        let max = Duration::try_from(api.max_backoff?).ok()?.max(min);
        Some(Self { min, max, jitter_permille: (api.jitter_ratio.clamp(0.0, 1.0) * 1000.0) as u32 })
    }

    /// After this many setbacks. Jitter makes it longer, by its share at most.
    fn after(&self, setbacks: u32) -> Duration {
        let plain = self.min.saturating_mul(1 << setbacks.min(16)).min(self.max);
        match self.jitter_permille {
            0 => plain,
            jitter => plain + plain.mul_f64(f64::from(rand::rng().random_range(0..=jitter)) / 1000.0),
        }
    }
}

impl Health {
    pub(crate) fn new(accrual: Option<Accrual>) -> Self {
        let window = |rate: SuccessRate| Mutex::new(Window::new(rate.window, Instant::now()));
        Self {
            accrual,
            due: AtomicU64::new(0),
            setbacks: AtomicU32::new(0),
            failing: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            answers: accrual.and_then(|accrual| accrual.rate).map(window),
        }
    }

    /// Whether it matters how an answer turns out.
    pub(crate) fn is_judged(&self) -> bool {
        self.accrual.is_some()
    }

    /// Whether all is well, or it is time to try again.
    pub(crate) fn is_up(&self) -> bool {
        let due = self.due();
        due == 0 || due <= ewma::now()
    }

    /// When to try again.
    pub(crate) fn due(&self) -> u64 {
        self.due.load(Relaxed)
    }

    /// A request is about to be sent. If it is a trial, there is no other until it has ended, or for as long as the last setback.
    pub(crate) fn chosen(&self) {
        if self.due() != 0 {
            let penalty = self.accrual.map_or(UNREACHABLE, |accrual| accrual.penalty);
            let setbacks = self.setbacks.load(Relaxed).saturating_sub(1);
            self.due.store(ewma::now() + penalty.after(setbacks).as_nanos() as u64, Relaxed);
        }
    }

    /// It is there. What its answer is may take long to turn out.
    pub(crate) fn reached(&self) {
        if !self.failing.load(Relaxed) {
            self.well();
        }
    }

    /// It has answered.
    pub(crate) fn answered(&self, verdict: Verdict) {
        let Some(accrual) = self.accrual else { return self.well() };
        let good = accrual.accepts(verdict);
        // Written only if there is something to write: all requests share these.
        let failures = match verdict {
            Verdict::Failed => self.failures.fetch_add(1, Relaxed) + 1,
            _ if self.failures.load(Relaxed) != 0 => {
                self.failures.store(0, Relaxed);
                0
            }
            _ => 0,
        };
        if self.due() != 0 {
            // What is known to be bad needs to fail once only.
            return if good { self.well() } else { self.fail(&accrual.penalty) };
        }
        let missed = accrual.rate.zip(self.answers.as_ref()).is_some_and(|(rate, answers)| {
            let (now, mut answers) = (Instant::now(), answers.lock());
            answers.add(now, (f64::from(u8::from(good)), 1.0));
            rate.is_missed(answers.sums(now))
        });
        if missed || (accrual.max_failures > 0 && failures >= accrual.max_failures) {
            self.fail(&accrual.penalty);
        }
    }

    /// Nothing could be sent.
    pub(crate) fn unreachable(&self) {
        self.set_aside(&UNREACHABLE);
    }

    fn fail(&self, penalty: &Penalty) {
        self.failing.store(true, Relaxed);
        self.set_aside(penalty);
    }

    fn set_aside(&self, penalty: &Penalty) {
        let setbacks = self.setbacks.fetch_add(1, Relaxed);
        self.due.store(ewma::now() + penalty.after(setbacks).as_nanos() as u64, Relaxed);
    }

    /// It begins from nothing.
    fn well(&self) {
        if self.due() != 0 {
            self.due.store(0, Relaxed);
            self.setbacks.store(0, Relaxed);
            self.failing.store(false, Relaxed);
            if let Some(answers) = &self.answers {
                answers.lock().clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use linkerd2_proxy_api::outbound::failure_accrual::{ConsecutiveFailures, Unified};

    use super::{
        Verdict::{Failed, Good, Limited},
        *,
    };

    fn backoff() -> Option<ExponentialBackoff> {
        Some(ExponentialBackoff {
            min_backoff: duration(60),
            max_backoff: duration(90),
            jitter_ratio: 0.5,
            ..Default::default()
        })
    }

    fn duration(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    fn of(kind: Kind) -> Option<Accrual> {
        Accrual::of(&FailureAccrual { kind: Some(kind), ..Default::default() })
    }

    fn accrual(max_failures: u32) -> Accrual {
        of(Kind::ConsecutiveFailures(ConsecutiveFailures { max_failures, backoff: backoff() })).unwrap()
    }

    fn rate(success_rate_threshold: f64, min_requests: u32, max_consecutive_failures: u32) -> Option<Accrual> {
        of(Kind::Unified(Unified {
            success_rate_threshold,
            decay: duration(3600),
            min_requests,
            max_consecutive_failures,
            backoff: backoff(),
        }))
    }

    #[test]
    fn failures_in_a_row_set_aside_and_others_do_not() {
        let health = Health::new(Some(accrual(3)));
        for verdict in [Failed, Failed, Good, Failed, Failed, Limited, Failed, Failed] {
            health.answered(verdict);
            assert!(health.is_up());
        }
        health.answered(Failed);
        assert!(!health.is_up());
        // It is there, which nobody has doubted.
        health.reached();
        assert!(!health.is_up());
        // One that was under way already comes back well.
        health.answered(Good);
        assert!(health.is_up());
        health.answered(Failed);
        assert!(health.is_up(), "it begins from nothing");
        // Control: without accrual failures are answers like all others.
        let other = Health::new(None);
        (0..100).for_each(|_| other.answered(Failed));
        assert!(other.is_up());
    }

    #[test]
    fn too_small_a_share_of_good_answers_sets_aside() {
        let health = Health::new(rate(0.5, 6, 0));
        for verdict in [Failed, Good, Limited, Good, Failed] {
            health.answered(verdict);
            assert!(health.is_up(), "there are too few answers to judge by");
        }
        health.answered(Good);
        assert!(health.is_up(), "a half is enough");
        health.answered(Limited);
        assert!(!health.is_up(), "three of seven are not");
        health.answered(Limited);
        assert!(!health.is_up(), "for a rate that is not well");
        health.answered(Good);
        assert!(health.is_up());
        (0..5).for_each(|_| health.answered(Failed));
        assert!(health.is_up(), "it begins from nothing");
        health.answered(Failed);
        assert!(!health.is_up());
    }

    #[test]
    fn either_of_two_rules_is_enough_and_neither_is_none() {
        let row = Health::new(rate(0.01, 1000, 2));
        row.answered(Failed);
        assert!(row.is_up());
        row.answered(Failed);
        assert!(!row.is_up());
        let off = Health::new(rate(0.0, 1, 2));
        for _ in 0..10 {
            off.answered(Failed);
            off.answered(Limited);
        }
        assert!(off.is_up(), "what is limited interrupts a row, and there is no rate");
        assert_eq!(rate(0.0, 1, 0), None);
    }

    #[test]
    fn who_was_not_reached_is_up_when_reached() {
        let health = Health::new(Some(accrual(3)));
        health.unreachable();
        assert!(!health.is_up());
        health.reached();
        assert!(health.is_up());
    }

    #[test]
    fn a_trial_is_one_request() {
        let health = Health::new(Some(accrual(1)));
        health.answered(Failed);
        health.due.store(1, Relaxed);
        assert!(health.is_up(), "the while is over");
        health.chosen();
        assert!(!health.is_up(), "one request finds out");
        health.answered(Failed);
        assert!(!health.is_up());
    }

    #[test]
    fn penalties_double_up_to_their_end_and_are_spread() {
        let Accrual { penalty, .. } = accrual(1);
        let plain = Penalty { jitter_permille: 0, ..penalty };
        assert_eq!([0, 1, 2, 99].map(|setbacks| plain.after(setbacks).as_secs()), [60, 90, 90, 90]);
        for _ in 0..100 {
            let spread = penalty.after(0).as_secs();
            assert!((60..=90).contains(&spread), "{spread}");
        }
    }
}
