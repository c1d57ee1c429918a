//! Which of many fail: so many of a hundred, or every n-th exactly.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Decides over one event after the other.
#[derive(Debug)]
pub(crate) struct Chance {
    every: Option<u64>,
    counted: u64,
    rate: f64,
    generator: StdRng,
}

impl Chance {
    /// Every `every`-th event, counted from here; or, where none is given, a share of `rate` (0 to 1) at random.
    pub fn new(rate: f64, every: Option<u64>, seed: Option<u64>) -> Self {
        Self { every, counted: 0, rate, generator: generator(seed) }
    }

    /// Whether the next event is one.
    pub fn strikes(&mut self) -> bool {
        match self.every {
            Some(every) => {
                self.counted += 1;
                self.counted.is_multiple_of(every)
            }
            None => self.generator.random_bool(self.rate),
        }
    }
}

/// A generator from a seed, or from the system when there is none.
pub(crate) fn generator(seed: Option<u64>) -> StdRng {
    seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64)
}

/// Reads a share, 0.0 to 1.0.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("expected a share from 0.0 to 1.0, found \"{text}\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strikes(mut chance: Chance, events: usize) -> Vec<bool> {
        (0..events).map(|_| chance.strikes()).collect()
    }

    #[test]
    fn counting_is_exact() {
        assert_eq!(strikes(Chance::new(0.0, Some(3), None), 7), [false, false, true, false, false, true, false]);
        assert!(strikes(Chance::new(0.0, Some(1), None), 9).into_iter().all(|struck| struck));
    }

    #[test]
    fn a_seed_repeats() {
        let roll = |seed| strikes(Chance::new(0.5, None, Some(seed)), 64);
        assert_eq!(roll(7), roll(7));
        assert_ne!(roll(7), roll(8));
        assert!(strikes(Chance::new(1.0, None, None), 64).into_iter().all(|struck| struck));
    }

    #[test]
    fn a_share_is_one() {
        assert_eq!(share("0.5"), Ok(0.5));
        assert_eq!(share("1.5").unwrap_err(), "expected a share from 0.0 to 1.0, found \"1.5\"");
    }
}
