//! What the proxy says of its tokio runtime: `tokio_rt_*`.
//!
//! The names are those of `kubert-prometheus-tokio`, which Linkerd's proxy counts with (`linkerd2-proxy/src/rt.rs`) if it is built with
//! an unstable tokio. A stable one does not tell how often tasks were polled, scheduled, stolen or made to yield, nor how long the
//! workers' own queues are; the families of these are missing here.

use std::{sync::Arc, time::Duration};

use tokio::runtime::{Handle, RuntimeMetrics};

use super::{
    Counter, Gauge, Labels, Registry,
    registry::{Refresh, Seconds},
};

/// What the runtime counts by itself.
pub(crate) struct Runtime {
    counts: RuntimeMetrics,
    workers: Arc<Gauge>,
    parked: Arc<Counter>,
    busy: Arc<Seconds<true>>,
    injected: Arc<Gauge>,
}

impl Runtime {
    /// Of the runtime that this is called in, if it is called in one.
    pub(super) fn new(registry: &Registry) -> Option<Arc<Self>> {
        let none = Labels::new();
        let gauge = |name, help| registry.family::<Gauge>(name, help).hold(&none);
        let counts = Handle::try_current().ok()?.metrics();
        let runtime = Arc::new(Self {
            counts,
            workers: gauge("tokio_rt_workers", "The runtime's worker threads."),
            parked: registry.family("tokio_rt_park_total", "How often workers had nothing to do.").hold(&none),
            busy: registry.family("tokio_rt_busy_seconds_total", "How long workers had something to do.").hold(&none),
            injected: gauge(
                "tokio_rt_injection_queue_depth",
                "Tasks that wait for any worker, rather than for one of them.",
            ),
        });
        let refreshed: std::sync::Weak<Self> = Arc::downgrade(&runtime);
        registry.refresh(refreshed);
        Some(runtime)
    }
}

impl Refresh for Runtime {
    fn refresh(&self) {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let workers = self.counts.num_workers();
        self.workers.set(count(workers));
        self.parked.set((0..workers).map(|worker| self.counts.worker_park_count(worker)).sum());
        self.busy.set((0..workers).map(|worker| self.counts.worker_total_busy_duration(worker)).sum::<Duration>());
        self.injected.set(count(self.counts.global_queue_depth()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(registry: &Registry, name: &str) -> Option<f64> {
        let text = registry.render(|_, _| false);
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        value.map(|value| value.parse().unwrap())
    }

    #[tokio::test]
    async fn the_runtime_is_asked_when_somebody_asks() {
        let registry = Registry::new(Duration::MAX);
        let _runtime = Runtime::new(&registry);
        assert_eq!(value(&registry, "tokio_rt_workers"), Some(1.0));
        assert_eq!(value(&registry, "tokio_rt_injection_queue_depth"), Some(0.0));
        let parked = value(&registry, "tokio_rt_park_total").unwrap();
        // Whoever waits for the clock leaves the worker nothing to do.
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(value(&registry, "tokio_rt_park_total").unwrap() > parked);
        assert!(value(&registry, "tokio_rt_busy_seconds_total").is_some());
    }

    #[test]
    fn without_a_runtime_there_is_nothing_to_say_of_one() {
        let registry = Registry::new(Duration::MAX);
        assert!(Runtime::new(&registry).is_none());
        assert_eq!(registry.render(|_, _| false), "# EOF\n");
    }
}
