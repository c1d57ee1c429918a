//! Peak EWMA: how long an endpoint takes to answer, quick to rise and slow to fall, times how busy it is.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the process first asked.
pub(super) fn now() -> u64 {
    u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The load of one endpoint. Two threads that end requests in the same moment may lose one of both samples, which the next
/// one mends; the count of requests in flight is exact.
#[derive(Debug)]
pub(crate) struct PeakEwma {
    decay: f64,
    /// Nanoseconds, as the bits of an `f64`.
    estimate: AtomicU64,
    updated: AtomicU64,
    in_flight: AtomicU32,
}

impl PeakEwma {
    /// `default_rtt` is believed until the first answer, and forgotten as fast as one, with `decay`.
    pub(crate) fn new(default_rtt: Duration, decay: Duration) -> Self {
        Self {
            decay: decay.as_nanos() as f64,
            estimate: AtomicU64::new((default_rtt.as_nanos() as f64).to_bits()),
            updated: AtomicU64::new(now()),
            in_flight: AtomicU32::new(0),
        }
    }

    /// The load, in nanoseconds of expected waiting.
    pub(crate) fn current(&self) -> f64 {
        self.at(now())
    }

    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// A request took so long, or counts as one that did.
    pub(crate) fn took(&self, rtt: Duration) {
        self.sample(rtt, now());
    }

    fn at(&self, now: u64) -> f64 {
        self.decayed(now).0 * f64::from(self.in_flight.load(Relaxed) + 1)
    }

    /// The estimate at `now`, and how much of the stored one is left in it.
    fn decayed(&self, now: u64) -> (f64, f64) {
        let age = now.saturating_sub(self.updated.load(Relaxed)) as f64;
        let weight = (-age / self.decay).exp();
        (f64::from_bits(self.estimate.load(Relaxed)) * weight, weight)
    }

    fn sample(&self, rtt: Duration, now: u64) {
        let rtt = rtt.as_nanos() as f64;
        let (decayed, weight) = self.decayed(now);
        let peak = f64::from_bits(self.estimate.load(Relaxed));
        let next = if rtt > peak { rtt } else { decayed + rtt * (1.0 - weight) };
        self.estimate.store(next.to_bits(), Relaxed);
        self.updated.store(now, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn ewma() -> PeakEwma {
        PeakEwma::new(Duration::from_millis(30), Duration::from_secs(10))
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_is_forgotten_slowly() {
        let load = ewma();
        let start = load.updated.load(Relaxed);
        load.sample(Duration::from_secs(4), start);
        assert_eq!(load.at(start), 4e9);
        // After one decay time 1/e of it is left.
        assert!((load.at(start + 10 * SECOND) / 4e9 - (-1.0_f64).exp()).abs() < 1e-9);
        load.sample(Duration::from_millis(1), start + SECOND);
        assert!(load.at(start + SECOND) > 3.5e9);
    }

    #[test]
    fn requests_in_flight_multiply() {
        let load = ewma();
        let now = load.updated.load(Relaxed);
        let idle = load.at(now);
        load.begin();
        load.begin();
        assert_eq!(load.at(now), 3.0 * idle);
        load.end();
        assert_eq!(load.in_flight.load(Relaxed), 1);
    }

    proptest! {
        /// Whatever is measured, the estimate lies between nothing and the slowest answer.
        #[test]
        fn the_estimate_is_bounded(samples in prop::collection::vec((0_u64..10_000, 0_u64..60), 1..50)) {
            let load = ewma();
            let mut now = load.updated.load(Relaxed);
            let mut slowest = 30e6_f64;
            for (millis, seconds) in samples {
                now += seconds * SECOND;
                load.sample(Duration::from_millis(millis), now);
                slowest = slowest.max(millis as f64 * 1e6);
                let estimate = load.at(now);
                prop_assert!(estimate >= 0.0 && estimate <= slowest + 1.0, "{estimate} of {slowest}");
            }
        }
    }
}
