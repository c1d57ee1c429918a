//! Judging shares by counts, with both error rates stated.
//!
//! A case that expects a share `p` of `n` requests accepts the counts within `n * (p ± tolerance)`. Both ways to be
//! wrong are computed exactly from the binomial distribution: [`Share::false_alarm`], the probability that a correct
//! system is refused, and [`Share::miss`], the probability that a system with another share is accepted.

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
    /// The sample that the suite uses for splits: within five points, over 2000 requests for a half and over fewer, at the same
    /// error rates, for a share that varies less.
    pub fn of(p: f64) -> Self {
        let n = (9600.0 * p * (1.0 - p)).clamp(500.0, 2000.0).ceil() as u64;
        Self { n, p, tolerance: 0.05 }
    }

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

    #[test]
    fn the_stated_error_rates_hold() {
        let share = Share::of(0.7);
        assert!(share.false_alarm() < 2e-6, "{}", share.false_alarm());
        let miss = share.miss(0.62);
        assert!((0.001..0.006).contains(&miss), "{miss}");
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
