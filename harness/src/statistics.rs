//! Judging shares by counts, with both error rates stated.
//!
//! Where requests can go on until the matter is clear, [`Sequential`] takes as many as that needs. Where the sample is what it is,
//! a [`Share`] `p` of `n` requests accepts the counts within `n * (p ± tolerance)`, and both ways to be wrong are computed
//! exactly from the binomial distribution: [`Share::false_alarm`], the probability that a correct system is refused, and
//! [`Share::miss`], the probability that a system with another share is accepted.

/// A share expected of a number of independent requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The number of requests.
    pub n: u64,
    /// The expected share, 0 to 1.
    pub p: f64,
    /// How far the observed share may be from it, 0 to 1.
    pub tolerance: f64,
}

impl Share {
    /// Lowest and highest accepted count.
    pub fn bounds(&self) -> (u64, u64) {
        let n = self.n as f64;
        let low = (n * (self.p - self.tolerance)).max(0.0).ceil() as u64;
        let high = (n * (self.p + self.tolerance)).min(n).floor() as u64;
        (low, high)
    }

    /// Whether a count is accepted.
    pub fn accepts(&self, count: u64) -> bool {
        let (low, high) = self.bounds();
        (low..=high).contains(&count)
    }

    /// The probability that a system with exactly this share is refused.
    pub fn false_alarm(&self) -> f64 {
        1.0 - self.accepted(self.p)
    }

    /// The probability that a system whose share is `actual` is accepted.
    pub fn miss(&self, actual: f64) -> f64 {
        self.accepted(actual)
    }

    /// What a reader of a verdict should know: the bounds and the error rate.
    pub fn describe(&self) -> String {
        let (low, high) = self.bounds();
        format!(
            "{low} to {high} of {} ({:.0} % ± {:.0} points; false alarm {:.0e})",
            self.n,
            self.p * 100.0,
            self.tolerance * 100.0,
            self.false_alarm().max(1e-12)
        )
    }

    fn accepted(&self, p: f64) -> f64 {
        let (low, high) = self.bounds();
        (low..=high).map(|k| binomial(self.n, k, p)).sum::<f64>().min(1.0)
    }
}

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
    /// The probability that a correct system is refused, and that one which is `off` is accepted: at most this, each.
    pub const ERRORS: f64 = 1e-6;

    /// After so many requests a share between right and `off` is neither.
    pub const ENOUGH: u64 = 6000;

    /// Whether the share is right, once `count` of `n` requests say so; `None` while it is open.
    pub fn judge(&self, n: u64, count: u64) -> Option<bool> {
        let certain = -Self::ERRORS.ln();
        let others = [self.p + self.off, self.p - self.off].into_iter().filter(|other| (0.0..=1.0).contains(other));
        let ratios: Vec<f64> = others.map(|other| self.log_ratio(other, n, count)).collect();
        if ratios.iter().any(|ratio| *ratio >= certain) || n >= Self::ENOUGH {
            return Some(false);
        }
        ratios.iter().all(|ratio| *ratio <= -certain).then_some(true)
    }

    /// How much likelier the count is under another share, as a logarithm.
    fn log_ratio(&self, other: f64, n: u64, count: u64) -> f64 {
        let term = |times: u64, other: f64, own: f64| if times == 0 { 0.0 } else { times as f64 * (other / own).ln() };
        term(count, other, self.p) + term(n - count, 1.0 - other, 1.0 - self.p)
    }

    /// What a reader of a verdict should know: the share, what it is told from, and the error rate.
    pub fn describe(&self) -> String {
        format!(
            "a share of {:.0} %, told from one {:.0} points higher or lower (each error at most {:.0e})",
            self.p * 100.0,
            self.off * 100.0,
            Self::ERRORS
        )
    }
}

/// The probability of exactly `k` successes in `n` trials of probability `p`.
fn binomial(n: u64, k: u64, p: f64) -> f64 {
    if p <= 0.0 {
        return if k == 0 { 1.0 } else { 0.0 };
    }
    if p >= 1.0 {
        return if k == n { 1.0 } else { 0.0 };
    }
    let log =
        ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k) + k as f64 * p.ln() + (n - k) as f64 * (1.0 - p).ln();
    log.exp()
}

/// ln(n!), exact below 256 and by Stirling's series above (relative error below 1e-12 there).
fn ln_factorial(n: u64) -> f64 {
    if n < 256 {
        return (2..=n).map(|i| (i as f64).ln()).sum();
    }
    let x = n as f64;
    x * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI * x).ln() + 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn the_stated_error_rates_hold() {
        let share = Share { n: 500, p: 0.5, tolerance: 0.1 };
        assert!(share.false_alarm() < 1e-5, "{}", share.false_alarm());
        let miss = share.miss(0.65);
        assert!((0.001..0.02).contains(&miss), "{miss}");
    }

    /// Verdicts and the requests that they took, over many seeds, of a system with this share.
    fn judged(test: Sequential, actual: f64) -> (usize, usize, u64) {
        const SEEDS: u64 = 400;
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
        assert!(wrong == 0 && right > 0 && (600..1100).contains(&mean), "{wrong} wrong, {mean} requests");
        for actual in [0.4, 0.6] {
            let (right, _, mean) = judged(half, actual);
            assert!(right == 0 && mean < 1000, "{actual}: {right} accepted, {mean} requests");
        }
        let tenth = Sequential { p: 0.1, off: 0.08 };
        assert_eq!(judged(tenth, 0.1).1, 0);
        for actual in [0.0, 0.02, 0.18, 0.5] {
            assert_eq!(judged(tenth, actual).0, 0, "{actual}");
        }
    }

    #[test]
    fn a_share_in_between_comes_to_an_end() {
        let half = Sequential { p: 0.5, off: 0.1 };
        assert_eq!(half.judge(Sequential::ENOUGH, Sequential::ENOUGH * 11 / 20), Some(false));
        assert_eq!(half.judge(0, 0), None);
        // One that must not be at all is refused by the first.
        assert_eq!(Sequential { p: 0.0, off: 0.1 }.judge(1, 1), Some(false));
    }

    #[test]
    fn a_certain_share_accepts_only_what_it_must() {
        let share = Share { n: 100, p: 0.0, tolerance: 0.0 };
        assert_eq!(share.bounds(), (0, 0));
        assert_eq!(share.false_alarm(), 0.0);
        assert!(!share.accepts(1));
    }

    proptest! {
        #[test]
        fn probabilities_sum_to_one(n in 1_u64..600, p in 0.0_f64..1.0) {
            let sum: f64 = (0..=n).map(|k| binomial(n, k, p)).sum();
            prop_assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        }
    }
}
