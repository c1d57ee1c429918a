//! The memory and the files of processes, as the kernel counts them.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    task::AbortHandle,
    time::{self, Instant},
};

const EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: f64,
    rss_kib: f64,
    files: f64,
}

/// A process that is looked at until this is dropped.
pub struct Watch {
    pub name: String,
    samples: Arc<Mutex<Vec<Sample>>>,
    task: AbortHandle,
}

/// A straight line through the samples after the first third of the time.
pub struct Trend {
    pub first: f64,
    pub last: f64,
    pub highest: f64,
}

impl Watch {
    pub fn start(name: impl Into<String>, pid: u32) -> Self {
        let samples = Arc::<Mutex<Vec<Sample>>>::default();
        let (kept, begun) = (Arc::clone(&samples), Instant::now());
        let task = tokio::spawn(async move {
            let mut ticks = time::interval(EVERY);
            loop {
                ticks.tick().await;
                let Some((rss_kib, files)) = look(pid) else { return };
                kept.lock().push(Sample { at: begun.elapsed().as_secs_f64(), rss_kib, files });
            }
        });
        Self { name: name.into(), samples, task: task.abort_handle() }
    }

    pub fn memory(&self) -> Trend {
        self.trend(|sample| sample.rss_kib)
    }

    pub fn files(&self) -> Trend {
        self.trend(|sample| sample.files)
    }

    fn trend(&self, value: impl Fn(&Sample) -> f64) -> Trend {
        let samples = self.samples.lock();
        let end = samples.last().map_or(0.0, |sample| sample.at);
        let late: Vec<_> =
            samples.iter().filter(|sample| sample.at >= end / 3.0).map(|it| (it.at, value(it))).collect();
        let count = late.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| late.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|it| it.0), mean(|it| it.1));
        let spread: f64 = late.iter().map(|it| (it.0 - x).powi(2)).sum();
        let slope = late.iter().map(|it| (it.0 - x) * (it.1 - y)).sum::<f64>() / spread.max(f64::MIN_POSITIVE);
        let at = |time: f64| y + slope * (time - x);
        let highest = samples.iter().map(&value).fold(0.0, f64::max);
        Trend { first: at(end / 3.0), last: at(end), highest }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Trend {
    /// Whether it grows by no more than a tenth, or this much.
    pub fn is_flat(&self, tolerance: f64) -> bool {
        self.last - self.first <= tolerance.max(self.first / 10.0)
    }
}

fn look(pid: u32) -> Option<(f64, f64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    Some((rss.trim().strip_suffix(" kB")?.parse().ok()?, files as f64))
}
