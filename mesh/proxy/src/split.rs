//! Which of several places a request goes to: chosen at random by weight, or the first that is there.

use rand::Rng;

/// Legs and their weights.
#[derive(Debug, Clone)]
pub(crate) struct Split<T> {
    legs: Vec<(T, u32)>,
    /// The first that is available is chosen, whatever it weighs.
    ordered: bool,
}

impl<T> Split<T> {
    /// Legs that are chosen by weight; those of weight 0 never.
    pub(crate) fn new(legs: impl IntoIterator<Item = (T, u32)>) -> Self {
        Self { legs: legs.into_iter().filter(|(_, weight)| *weight > 0).collect(), ordered: false }
    }

    /// Legs of which each is for when those before it are not available.
    pub(crate) fn ordered(legs: impl IntoIterator<Item = T>) -> Self {
        Self { legs: legs.into_iter().map(|leg| (leg, 1)).collect(), ordered: true }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.legs.is_empty()
    }

    /// Whether there is more than one leg.
    pub(crate) fn is_choice(&self) -> bool {
        self.legs.len() > 1
    }

    /// A leg, by weight or by order among those that `available` accepts, or among all if it accepts none; `None` if there is no leg.
    pub(crate) fn choose(&self, rng: &mut impl Rng, available: impl Fn(&T) -> bool) -> Option<&T> {
        if let [(only, _)] = &self.legs[..] {
            return Some(only);
        }
        if self.ordered {
            return self.legs.iter().map(|(leg, _)| leg).find(|leg| available(leg)).or(Some(&self.legs.first()?.0));
        }
        self.draw(rng, &available).or_else(|| self.draw(rng, &|_| true))
    }

    fn draw(&self, rng: &mut impl Rng, available: &impl Fn(&T) -> bool) -> Option<&T> {
        let legs = || self.legs.iter().filter(|(leg, _)| available(leg));
        let total: u64 = legs().map(|(_, weight)| u64::from(*weight)).sum();
        if total == 0 {
            return None;
        }
        let mut rest = rng.random_range(0..total);
        legs()
            .find(|(_, weight)| match rest.checked_sub(u64::from(*weight)) {
                Some(left) => {
                    rest = left;
                    false
                }
                None => true,
            })
            .map(|(leg, _)| leg)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    proptest! {
        /// Each leg's share is its weight's, within six standard deviations.
        #[test]
        fn shares_are_weights(weights in prop::collection::vec(0_u32..1000, 2..6), seed: u64) {
            const DRAWS: u32 = 20_000;
            let split = Split::new(weights.iter().copied().enumerate());
            let mut rng = StdRng::seed_from_u64(seed);
            let mut counts = vec![0_u32; weights.len()];
            let total: u32 = weights.iter().sum();
            for _ in 0..DRAWS {
                match split.choose(&mut rng, |_| true) {
                    Some(leg) => counts[*leg] += 1,
                    None => prop_assert_eq!(total, 0),
                }
            }
            if total > 0 {
                for (count, weight) in counts.iter().zip(&weights) {
                    let share = f64::from(*weight) / f64::from(total);
                    let deviation = (f64::from(DRAWS) * share * (1.0 - share)).sqrt();
                    let expected = f64::from(DRAWS) * share;
                    prop_assert!((f64::from(*count) - expected).abs() <= 6.0 * deviation, "{counts:?} of {weights:?}");
                }
            }
        }
    }

    #[test]
    fn unavailable_legs_are_passed_over_while_another_is_available() {
        let split = Split::new([("v1", 80), ("v2", 20), ("never", 0)]);
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..1000 {
            assert_eq!(split.choose(&mut rng, |leg| *leg == "v2"), Some(&"v2"));
            assert_ne!(split.choose(&mut rng, |_| false), Some(&"never"));
        }
        assert_eq!(Split::<u8>::new([]).choose(&mut rng, |_| true), None);
    }

    #[test]
    fn what_is_in_order_is_chosen_in_order() {
        let split = Split::ordered(["first", "second", "third"]);
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..100 {
            assert_eq!(split.choose(&mut rng, |_| true), Some(&"first"));
            assert_eq!(split.choose(&mut rng, |leg| *leg != "first"), Some(&"second"));
            assert_eq!(split.choose(&mut rng, |leg| *leg == "third"), Some(&"third"));
            assert_eq!(split.choose(&mut rng, |_| false), Some(&"first"));
        }
        assert_eq!(Split::<u8>::ordered([]).choose(&mut rng, |_| true), None);
    }
}
