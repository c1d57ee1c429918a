//! Sets of ports, as annotations write them: `25,443,8000-9000`.

use std::ops::RangeInclusive;

/// A set of ports, as ranges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortSet(Vec<RangeInclusive<u16>>);

impl PortSet {
    /// Reads numbers and ranges separated by commas. Anything else is left out with a warning: one bad entry should not
    /// turn the others off.
    pub fn parse(text: &str) -> Self {
        Self::from_items(text.split(','), |_| None)
    }

    /// Reads entries of which some may be names, which `resolve` turns into numbers.
    pub(crate) fn from_items<'a>(
        items: impl IntoIterator<Item = &'a str>,
        resolve: impl Fn(&str) -> Option<u16>,
    ) -> Self {
        let items = items.into_iter().map(str::trim).filter(|item| !item.is_empty());
        let ranges = items.filter_map(|item| {
            let range = range(item).or_else(|| resolve(item).map(|port| port..=port));
            if range.is_none() {
                tracing::warn!(
                    entry = item,
                    "expected a port or a range such as 8000-9000 in a list of ports; ignored"
                );
            }
            range
        });
        Self(ranges.collect())
    }

    /// Whether the port is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

fn range(item: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    let range = first.trim().parse().ok()?..=last.trim().parse().ok()?;
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ranges_and_names() {
        let set = PortSet::from_items(["25", " 80-82", "9-3", "mysql", "x"], |name| (name == "mysql").then_some(3306));
        for (port, inside) in [(25, true), (80, true), (82, true), (83, false), (5, false), (3306, true)] {
            assert_eq!(set.contains(port), inside, "{port}");
        }
    }
}
