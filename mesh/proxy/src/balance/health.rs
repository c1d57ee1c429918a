//! Whether an endpoint gets requests, by how its last ones went.
//!
//! Whoever cannot be reached is set aside for a while, and the while gets longer. Where the policy of a destination says so
//! (Linkerd's failure accrual), so is who answers with failures. When the while is over one request finds out, alone.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use linkerd2_proxy_api::outbound::{ExponentialBackoff, FailureAccrual, failure_accrual::Kind};
use rand::Rng;
use tracing::warn;

use super::ewma;

/// For who cannot be reached.
const UNREACHABLE: Penalty =
    Penalty { min: Duration::from_millis(100), max: Duration::from_secs(10), jitter_permille: 0 };

/// How many failures in a row are too many, and what then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Accrual {
    max_failures: u32,
    penalty: Penalty,
}

/// How long an endpoint is set aside: at first, and at most, for it doubles each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Penalty {
    min: Duration,
    max: Duration,
    jitter_permille: u32,
}

/// The health of one endpoint.
pub(crate) struct Health {
    accrual: Option<Accrual>,
    /// When to try again, in [`ewma::now`]'s nanoseconds; 0 while all is well.
    due: AtomicU64,
    /// How often it was set aside since all was well.
    setbacks: AtomicU32,
    /// Failed responses since the last good one.
    failures: AtomicU32,
}

impl Accrual {
    /// From a policy. Of a success rate only the failures in a row that it allows are followed.
    pub(crate) fn of(api: &FailureAccrual) -> Option<Self> {
        let (max_failures, backoff) = match api.kind.as_ref()? {
            Kind::ConsecutiveFailures(consecutive) => (consecutive.max_failures, consecutive.backoff.as_ref()),
            Kind::Unified(unified) => {
                warn!("success rates are not followed; endpoints are set aside for failures in a row only");
                (unified.max_consecutive_failures, unified.backoff.as_ref())
            }
        };
        let penalty = Penalty::of(backoff?)?;
        (max_failures > 0).then_some(Self { max_failures, penalty })
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
        Self { accrual, due: AtomicU64::new(0), setbacks: AtomicU32::new(0), failures: AtomicU32::new(0) }
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

    /// It has answered, and that may have been a failure.
    pub(crate) fn answered(&self, failure: bool) {
        let Some(accrual) = self.accrual.filter(|_| failure) else {
            // Written only if there is something to write: all requests share these.
            if self.due() != 0 {
                self.due.store(0, Relaxed);
                self.setbacks.store(0, Relaxed);
            }
            if self.failures.load(Relaxed) != 0 {
                self.failures.store(0, Relaxed);
            }
            return;
        };
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        // What is known to be bad needs to fail once only.
        if failures >= accrual.max_failures || self.due() != 0 {
            self.set_aside(&accrual.penalty);
        }
    }

    /// Nothing could be sent.
    pub(crate) fn unreachable(&self) {
        self.set_aside(&UNREACHABLE);
    }

    fn set_aside(&self, penalty: &Penalty) {
        let setbacks = self.setbacks.fetch_add(1, Relaxed);
        self.due.store(ewma::now() + penalty.after(setbacks).as_nanos() as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use linkerd2_proxy_api::outbound::failure_accrual::ConsecutiveFailures;

    use super::*;

    fn accrual(max_failures: u32) -> Accrual {
        let duration = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let backoff = ExponentialBackoff {
            min_backoff: duration(60),
            max_backoff: duration(90),
            jitter_ratio: 0.5,
            ..Default::default()
        };
        let consecutive = ConsecutiveFailures { max_failures, backoff: Some(backoff) };
        let kind = Some(Kind::ConsecutiveFailures(consecutive));
        Accrual::of(&FailureAccrual { kind, ..Default::default() }).unwrap()
    }

    #[test]
    fn failures_in_a_row_set_aside_and_others_do_not() {
        let health = Health::new(Some(accrual(3)));
        for failure in [true, true, false, true, true] {
            health.answered(failure);
            assert!(health.is_up());
        }
        health.answered(true);
        assert!(!health.is_up());
        // One that was under way already comes back well.
        health.answered(false);
        assert!(health.is_up());
        health.answered(true);
        assert!(health.is_up(), "it begins from nothing");
        // Control: without accrual failures are answers like all others.
        let other = Health::new(None);
        (0..100).for_each(|_| other.answered(true));
        assert!(other.is_up());
    }

    #[test]
    fn a_trial_is_one_request() {
        let health = Health::new(Some(accrual(1)));
        health.answered(true);
        health.due.store(1, Relaxed);
        assert!(health.is_up(), "the while is over");
        health.chosen();
        assert!(!health.is_up(), "one request finds out");
        health.answered(true);
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
