//! Many records in a few numbers.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::failure::ErrorKind;
use super::record::Record;

/// What a batch came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Requests.
    pub total: usize,
    /// Whole answers by status.
    pub statuses: BTreeMap<u16, usize>,
    /// Requests without a whole answer, by cause.
    pub errors: BTreeMap<ErrorKind, usize>,
    /// Answers by the service that gave them, where the echo backend did.
    pub services: BTreeMap<String, usize>,
    /// The same by pod.
    pub pods: BTreeMap<String, usize>,
    /// Connections that were used.
    pub connections: usize,
    /// Half of the requests took at most this many microseconds.
    pub p50_us: u64,
    /// 99 % of them.
    pub p99_us: u64,
}

impl Summary {
    /// Counts the records.
    pub fn of(records: &[Record]) -> Self {
        let mut summary = Self { total: records.len(), ..Self::default() };
        let mut connections = BTreeSet::new();
        let mut times: Vec<u64> = records.iter().map(|record| record.total_us).collect();
        times.sort_unstable();
        for record in records {
            match (&record.error, record.status) {
                (Some(error), _) => *summary.errors.entry(error.kind).or_default() += 1,
                (None, Some(status)) => *summary.statuses.entry(status).or_default() += 1,
                (None, None) => {}
            }
            if let Some(seen) = &record.seen {
                *summary.services.entry(seen.service.clone()).or_default() += 1;
                *summary.pods.entry(seen.pod.clone()).or_default() += 1;
            }
            if record.connection_id != 0 {
                connections.insert(record.connection_id);
            }
        }
        summary.connections = connections.len();
        let at = |percent: usize| {
            let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(index).copied().unwrap_or_default()
        };
        (summary.p50_us, summary.p99_us) = (at(50), at(99));
        summary
    }

    /// How many whole answers had this status.
    pub fn status(&self, status: u16) -> usize {
        self.statuses.get(&status).copied().unwrap_or_default()
    }

    /// How many answers this service gave.
    pub fn service(&self, service: &str) -> usize {
        self.services.get(service).copied().unwrap_or_default()
    }
}
