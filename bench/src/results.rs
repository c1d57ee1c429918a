//! What all rounds came to, and how to look at it.

use serde::{Deserialize, Serialize};

use crate::{
    load::{Shape, Throughput},
    measure::{Times, Visit},
    statistics::Spread,
};

/// Requests per second of the open loop.
pub(crate) const OPEN_RATE: u32 = 1000;

/// How many connections a few of the numbers are about.
pub(crate) const MANY: Shape = Shape::Http1 { connections: 256 };
pub(crate) const CROWD: Shape = Shape::Http1 { connections: 1000 };

/// Every subject is put under these.
pub(crate) const SHAPES: [Shape; 6] = [
    Shape::Http1 { connections: 1 },
    Shape::Http1 { connections: 16 },
    Shape::Http1 { connections: 64 },
    MANY,
    Shape::Http2 { connections: 4, streams: 32 },
    // Last, because memory that was needed once may be kept.
    CROWD,
];

/// One load on one Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Row {
    /// One endpoint, no routes.
    Plain(Shape),
    /// So many ServiceProfile routes, the last of which matches.
    Routes(usize),
    /// So many endpoints.
    Endpoints(usize),
    /// A backend with a proxy of its own.
    Meshed { tls: bool, http2: bool },
}

/// The row of a curve with so many of something.
pub(crate) type RowOf = fn(usize) -> Row;

impl Visit {
    /// What a load came to.
    pub fn row(&self, row: Row) -> Option<&Throughput> {
        self.rows.iter().find(|(other, _)| *other == row).map(|(_, throughput)| throughput)
    }

    pub fn per_second(&self, row: Row) -> Option<f64> {
        self.row(row).map(Throughput::per_second)
    }

    pub fn cpu_per_100k(&self, row: Row) -> Option<f64> {
        self.row(row)?.cpu_per_100k()
    }

    /// The share of its core that the proxy used.
    pub fn busy(&self, row: Row) -> Option<f64> {
        let row = self.row(row)?;
        Some(row.cpu_seconds? / row.seconds)
    }

    /// The share of its core that the proxy used or would have used.
    pub fn wanted(&self, row: Row) -> Option<f64> {
        Some(self.busy(row)? + self.row(row)?.disturbed)
    }

    pub fn resident_mib(&self, shape: Shape) -> Option<f64> {
        self.row(Row::Plain(shape))?.resident_kib.map(|kib| kib as f64 / 1024.0)
    }

    pub fn idle_mib(&self) -> Option<f64> {
        self.idle_kib.map(|kib| kib as f64 / 1024.0)
    }

    pub fn errors(&self) -> u64 {
        self.rows.iter().map(|(_, row)| row.errors).sum::<u64>() + self.latency.map_or(0, |latency| latency.errors)
    }
}

/// Everything that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    /// Names, in the order of the tables.
    pub subjects: Vec<String>,
    /// What each of them is: a program, with its version where that is known.
    pub programs: Vec<String>,
    pub machine: String,
    pub times: Times,
    pub rounds: Vec<Vec<Visit>>,
}

impl Results {
    /// A number of a subject, over all rounds.
    pub fn spread(&self, subject: &str, number: impl Fn(&Visit) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.visits(subject).filter_map(number))
    }

    /// Two subjects' numbers, put together within each round.
    pub fn compared(
        &self,
        subject: &str,
        other: &str,
        compare: impl Fn(&Visit, &Visit) -> Option<f64>,
    ) -> Option<Spread> {
        let find = |round: &'_ [Visit], name: &str| round.iter().position(|visit| visit.subject == name);
        let pairs = self.rounds.iter().filter_map(|round| {
            let (one, two) = (find(round, subject)?, find(round, other)?);
            compare(&round[one], &round[two])
        });
        Spread::of(pairs)
    }

    pub fn visits<'a>(&'a self, subject: &'a str) -> impl Iterator<Item = &'a Visit> {
        self.rounds.iter().flatten().filter(move |visit| visit.subject == subject)
    }

    /// Whether anything was measured of a row.
    pub fn has(&self, subject: &str, row: Row) -> bool {
        self.visits(subject).any(|visit| visit.row(row).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(subject: &str, requests: u64) -> Visit {
        let throughput = Throughput { requests, seconds: 2.0, cpu_seconds: Some(1.0), ..Throughput::default() };
        Visit { subject: subject.to_owned(), rows: vec![(Row::Routes(1), throughput)], ..Visit::default() }
    }

    #[test]
    fn ratios_are_made_within_a_round() {
        let results = Results {
            subjects: Vec::new(),
            programs: Vec::new(),
            machine: String::new(),
            times: Times::of(std::time::Duration::from_secs(1)),
            // The second round was slow for both.
            rounds: vec![
                vec![visit("a", 200), visit("b", 100)],
                vec![visit("b", 10), visit("a", 20)],
                vec![visit("a", 1)],
            ],
        };
        let ratio =
            results.compared("a", "b", |a, b| Some(a.per_second(Row::Routes(1))? / b.per_second(Row::Routes(1))?));
        assert_eq!(ratio, Some(Spread { median: 2.0, min: 2.0, max: 2.0 }));
        assert_eq!(results.spread("b", |visit| visit.per_second(Row::Routes(1))).unwrap().max, 50.0);
        assert_eq!(results.spread("b", |visit| visit.cpu_per_100k(Row::Routes(1))).unwrap().min, 1000.0);
        assert_eq!(results.rounds[0][0].busy(Row::Routes(1)), Some(0.5));
    }
}
