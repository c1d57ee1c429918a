//! How many threads the proxy works with.

use std::num::NonZeroUsize;

use super::{Strings, parse::from_str};

const CORES: &str = "LINKERD2_PROXY_CORES";
const MIN: &str = "LINKERD2_PROXY_CORES_MIN";
const MAX: &str = "LINKERD2_PROXY_CORES_MAX";
const MAX_RATIO: &str = "LINKERD2_PROXY_CORES_MAX_RATIO";

/// `LINKERD2_PROXY_CORES` and its companions, as Linkerd's proxy reads them (`linkerd2-proxy/src/rt.rs`, `linkerd/workers`). Where nothing
/// is said there is one thread.
#[derive(Debug, Clone, PartialEq)]
pub struct Cores {
    /// `LINKERD2_PROXY_CORES_MIN` or else `LINKERD2_PROXY_CORES`: at least so many, if there are as many processors.
    pub min: NonZeroUsize,
    /// `LINKERD2_PROXY_CORES_MAX`: otherwise so many.
    pub max: Option<NonZeroUsize>,
    /// `LINKERD2_PROXY_CORES_MAX_RATIO`: otherwise so many for each processor that there is, above 0 and up to 1.
    pub max_ratio: Option<f64>,
    /// The variables whose values mean nothing. As with Linkerd's proxy, these are no reason not to start.
    pub ignored: Vec<&'static str>,
}

impl Cores {
    pub(super) fn read(strings: &impl Strings) -> Self {
        let mut ignored = Vec::new();
        let mut count = |name| variable(strings, name, from_str::<NonZeroUsize>, &mut ignored);
        let min = count(MIN).or_else(|| count(CORES)).unwrap_or(NonZeroUsize::MIN);
        let max = count(MAX);
        let ratio = |value: &str| from_str::<f64>(value).filter(|ratio| *ratio > 0.0 && *ratio <= 1.0);
        let max_ratio = variable(strings, MAX_RATIO, ratio, &mut ignored);
        Self { min, max, max_ratio, ignored }
    }

    /// How many threads, of so many processors.
    pub(crate) fn of(&self, processors: NonZeroUsize) -> usize {
        let processors = processors.get();
        let share = |ratio: f64| (processors as f64 * ratio).round() as usize;
        let most = self.max.map(NonZeroUsize::get).or(self.max_ratio.map(share)).unwrap_or(1);
        most.max(self.min.get()).min(processors)
    }
}

fn variable<T>(
    strings: &impl Strings,
    name: &'static str,
    read: impl Fn(&str) -> Option<T>,
    ignored: &mut Vec<&'static str>,
) -> Option<T> {
    let value = strings.get(name).filter(|value| !value.trim().is_empty())?;
    let read = read(value.trim());
    if read.is_none() {
        ignored.push(name);
    }
    read
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn cores(variables: &[(&str, &str)]) -> Cores {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Cores::read(&variables.collect::<HashMap<_, _>>())
    }

    #[test]
    fn what_is_said_of_cores_is_kept_to_as_far_as_there_are_any() {
        for (variables, processors, expected) in [
            (&[][..], 8, 1),
            (&[(CORES, "3")], 8, 3),
            (&[(CORES, "3")], 2, 2),
            (&[(CORES, "3"), (MIN, "5")], 8, 5),
            (&[(CORES, "3"), (MAX, "5")], 8, 5),
            (&[(CORES, "5"), (MAX, "3")], 8, 5),
            (&[(MAX, "5")], 8, 5),
            (&[(MAX, "5")], 4, 4),
            (&[(MAX_RATIO, "0.5")], 8, 4),
            (&[(MAX_RATIO, "0.31")], 10, 3),
            (&[(MAX_RATIO, "0.35")], 10, 4),
            (&[(MAX_RATIO, "0.1")], 2, 1),
            (&[(MAX_RATIO, "1.0"), (MAX, "2")], 8, 2),
            (&[(MAX_RATIO, "0.5"), (MIN, "6")], 8, 6),
        ] {
            let cores = cores(variables);
            assert_eq!(cores.of(NonZeroUsize::new(processors).unwrap()), expected, "{variables:?} of {processors}");
            assert_eq!(cores.ignored, [""; 0], "{variables:?}");
        }
    }

    #[test]
    fn what_means_nothing_is_passed_over() {
        for (name, value) in
            [(CORES, "0"), (CORES, "two"), (MAX, "-1"), (MAX_RATIO, "0"), (MAX_RATIO, "1.5"), (MIN, "1.5")]
        {
            let cores = cores(&[(name, value)]);
            assert_eq!(cores, Cores { min: NonZeroUsize::MIN, max: None, max_ratio: None, ignored: vec![name] });
        }
        let other = cores(&[(MIN, "no"), (CORES, "2")]);
        assert_eq!((other.min.get(), &other.ignored[..]), (2, &[MIN][..]));
        // What is empty says nothing.
        assert_eq!(cores(&[(CORES, "")]).ignored, [""; 0]);
    }
}
