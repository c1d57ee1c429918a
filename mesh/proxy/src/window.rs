//! Two sums over the last while.

use std::time::{Duration, Instant};

/// The while is counted in as many parts; the oldest is forgotten as a whole.
const SLOTS: usize = 10;

/// What was added lately. The current slot comes first.
pub(crate) struct Window {
    slots: [(f64, f64); SLOTS],
    slot: Duration,
    since: Instant,
}

impl Window {
    /// `span` is how long something counts.
    pub(crate) fn new(span: Duration, now: Instant) -> Self {
        let slot = (span / SLOTS as u32).max(Duration::from_millis(1));
        Self { slots: [(0.0, 0.0); SLOTS], slot, since: now }
    }

    pub(crate) fn add(&mut self, now: Instant, amounts: (f64, f64)) {
        self.forget(now);
        self.slots[0].0 += amounts.0;
        self.slots[0].1 += amounts.1;
    }

    pub(crate) fn sums(&mut self, now: Instant) -> (f64, f64) {
        self.forget(now);
        self.slots.iter().fold((0.0, 0.0), |sum, slot| (sum.0 + slot.0, sum.1 + slot.1))
    }

    pub(crate) fn clear(&mut self) {
        self.slots = [(0.0, 0.0); SLOTS];
    }

    fn forget(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_nanos() / self.slot.as_nanos();
        if passed > 0 {
            let shift = usize::try_from(passed).unwrap_or(SLOTS).min(SLOTS);
            self.slots.rotate_right(shift % SLOTS);
            self.slots[..shift].fill((0.0, 0.0));
            self.since += self.slot * u32::try_from(passed).unwrap_or(u32::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_span_is_forgotten() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = Window::new(Duration::from_secs(10), start);
        window.add(start, (1.0, 2.0));
        window.add(at(5), (10.0, 20.0));
        assert_eq!(window.sums(at(9)), (11.0, 22.0));
        assert_eq!(window.sums(at(10)), (10.0, 20.0));
        assert_eq!(window.sums(at(14)), (10.0, 20.0));
        assert_eq!(window.sums(at(3600)), (0.0, 0.0));
        window.add(at(3600), (1.0, 0.0));
        assert_eq!(window.sums(at(3609)), (1.0, 0.0));
        window.clear();
        assert_eq!(window.sums(at(3609)), (0.0, 0.0));
    }
}
