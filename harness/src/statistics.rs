//! Judging shares by counts, with both error rates stated: [`Sequential`] takes as many requests as it needs until the matter is
//! clear.

/// A share judged while requests come in: Wald's sequential probability ratio test, against a share that is `off` higher and one
/// that is `off` lower. It needs about a third of the requests of a fixed sample with the same error rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sequential {
    /// The expected share, 0 to 1.
    pub p: f64,
    /// How far off a share is that must be refused, 0 to 1.
    pub off: f64,
}

impl Sequential {
    /// The probability that a correct system is refused is at most this, for either side: it would be a flake.
    pub const FALSE_ALARM: f64 = 1e-6;

    /// The probability that a system which is `off` is accepted is at most this. One that is further off is refused more surely.
    pub const MISS: f64 = 1e-3;

    /// After so many requests a share between right and `off` is neither.
    pub const ENOUGH: u64 = 6000;

    /// Whether the share is right, once `count` of `n` requests say so; `None` while it is open.
    pub fn judge(&self, n: u64, count: u64) -> Option<bool> {
        let others = [self.p + self.off, self.p - self.off].into_iter().filter(|other| (0.0..=1.0).contains(other));
        let ratios: Vec<f64> = others.map(|other| self.log_ratio(other, n, count)).collect();
        if ratios.iter().any(|ratio| *ratio >= -Self::FALSE_ALARM.ln()) || n >= Self::ENOUGH {
            return Some(false);
        }
        ratios.iter().all(|ratio| *ratio <= Self::MISS.ln()).then_some(true)
    }

    /// The counts that [`judge`](Self::judge) accepts after `n` requests, least and most; `None` when it accepts none yet.
    pub fn accepted(&self, n: u64) -> Option<[u64; 2]> {
        let mut accepted = (0..=n).filter(|count| self.judge(n, *count) == Some(true));
        let least = accepted.next()?;
        Some([least, accepted.next_back().unwrap_or(least)])
    }

    /// How much likelier the count is under another share, as a logarithm.
    fn log_ratio(&self, other: f64, n: u64, count: u64) -> f64 {
        let term = |times: u64, other: f64, own: f64| if times == 0 { 0.0 } else { times as f64 * (other / own).ln() };
        term(count, other, self.p) + term(n - count, 1.0 - other, 1.0 - self.p)
    }

    /// What a reader of a verdict should know: the share, what it is told from, and the error rate.
    pub fn describe(&self) -> String {
        format!(
            "a share of {:.0} %, told from one {:.0} points higher or lower (false alarm at most {:.0e}, miss {:.0e})",
            self.p * 100.0,
            self.off * 100.0,
            Self::FALSE_ALARM,
            Self::MISS
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    /// Verdicts and the requests that they took, over many seeds, of a system with this share.
    fn judged(test: Sequential, actual: f64) -> (usize, usize, u64) {
        const SEEDS: u64 = 2000;
        let (mut right, mut total) = (0, 0);
        for seed in 0..SEEDS {
            let mut generator = StdRng::seed_from_u64(seed);
            let (mut n, mut count) = (0, 0);
            let verdict = loop {
                if let Some(verdict) = test.judge(n, count) {
                    break verdict;
                }
                n += 1;
                count += u64::from(generator.random_bool(actual));
            };
            right += usize::from(verdict);
            total += n;
        }
        (right, SEEDS as usize - right, total / SEEDS)
    }

    #[test]
    fn a_share_is_judged_as_soon_as_the_matter_is_clear() {
        let half = Sequential { p: 0.5, off: 0.1 };
        let (right, wrong, mean) = judged(half, 0.5);
        assert!(wrong == 0 && right > 0 && (300..600).contains(&mean), "{wrong} wrong, {mean} requests");
        // Of 2000 judgements two misses may be expected, and more than six in one of two hundred tries.
        for actual in [0.4, 0.6] {
            let (right, _, mean) = judged(half, actual);
            assert!(right <= 6 && mean < 1000, "{actual}: {right} accepted, {mean} requests");
        }
        let tenth = Sequential { p: 0.1, off: 0.08 };
        assert_eq!(judged(tenth, 0.1).1, 0);
        for actual in [0.0, 0.02, 0.18, 0.5] {
            assert!(judged(tenth, actual).0 <= 6, "{actual}");
        }
    }

    #[test]
    fn what_is_accepted_lies_around_the_share_and_narrows() {
        let half = Sequential { p: 0.5, off: 0.1 };
        assert_eq!(half.accepted(10), None);
        let [least, most] = half.accepted(1000).unwrap();
        assert!(400 < least && least < 500 && 500 < most && most < 600, "{least} to {most}");
        assert_eq!((half.judge(1000, least), half.judge(1000, most)), (Some(true), Some(true)));
        assert_ne!(half.judge(1000, least - 1), Some(true));
        assert_ne!(half.judge(1000, most + 1), Some(true));
    }

    #[test]
    fn a_share_in_between_comes_to_an_end() {
        let half = Sequential { p: 0.5, off: 0.1 };
        assert_eq!(half.judge(Sequential::ENOUGH, Sequential::ENOUGH * 11 / 20), Some(false));
        assert_eq!(half.judge(0, 0), None);
        // One that must not be at all is refused by the first.
        assert_eq!(Sequential { p: 0.0, off: 0.1 }.judge(1, 1), Some(false));
    }
}
