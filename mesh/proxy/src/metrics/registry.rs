//! Counters, gauges and histograms, the families they belong to, and their text.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};

use super::{Labels, ProcessGauges};

/// The bounds of Linkerd's latency histograms, in milliseconds.
const LATENCY_MS: [u64; 25] = [
    1, 2, 3, 4, 5, 10, 20, 30, 40, 50, 100, 200, 300, 400, 500, 1000, 2000, 3000, 4000, 5000, 10000, 20000, 30000,
    40000, 50000,
];

/// Something that can stand in a family.
pub(crate) trait Metric: Default + Send + Sync + 'static {
    const KIND: &'static str;
    fn render(&self, name: &str, labels: &Labels, out: &mut String);
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn increment(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }
}

/// A number that grows and shrinks.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    pub(crate) fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    pub(crate) fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Relaxed);
    }
}

/// Milliseconds, in Linkerd's buckets.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; LATENCY_MS.len()],
    above: AtomicU64,
    sum: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let bucket = LATENCY_MS.iter().position(|bound| millis <= *bound);
        bucket.map_or(&self.above, |index| &self.buckets[index]).fetch_add(1, Relaxed);
        self.sum.fetch_add(millis, Relaxed);
    }
}

fn line(out: &mut String, name: &str, suffix: &str, labels: &str, value: impl std::fmt::Display) {
    // Writing into a String cannot fail.
    let _ = match labels {
        "" => writeln!(out, "{name}{suffix} {value}"),
        labels => writeln!(out, "{name}{suffix}{{{labels}}} {value}"),
    };
}

impl Metric for Counter {
    const KIND: &'static str = "counter";

    fn render(&self, name: &str, labels: &Labels, out: &mut String) {
        line(out, name, "", labels.as_str(), self.0.load(Relaxed));
    }
}

impl Metric for Gauge {
    const KIND: &'static str = "gauge";

    fn render(&self, name: &str, labels: &Labels, out: &mut String) {
        line(out, name, "", labels.as_str(), self.0.load(Relaxed));
    }
}

impl Metric for Histogram {
    const KIND: &'static str = "histogram";

    fn render(&self, name: &str, labels: &Labels, out: &mut String) {
        let mut count = 0;
        for (bound, bucket) in LATENCY_MS.iter().zip(&self.buckets) {
            count += bucket.load(Relaxed);
            line(out, name, "_bucket", labels.clone().with_display("le", bound).as_str(), count);
        }
        count += self.above.load(Relaxed);
        line(out, name, "_bucket", labels.clone().with("le", "+Inf").as_str(), count);
        line(out, name, "_sum", labels.as_str(), self.sum.load(Relaxed));
        line(out, name, "_count", labels.as_str(), count);
    }
}

/// All series of one name. Cheap to clone.
pub(crate) struct Family<M>(Arc<FamilyInner<M>>);

struct FamilyInner<M> {
    name: &'static str,
    help: &'static str,
    series: RwLock<BTreeMap<Labels, Series<M>>>,
}

struct Series<M> {
    metric: Arc<M>,
    unused_since: Option<Instant>,
}

impl<M> Clone for Family<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Metric> Family<M> {
    /// The series with these labels, made if there is none yet. Keep it: while somebody does, it stays.
    pub(crate) fn hold(&self, labels: &Labels) -> Arc<M> {
        if let Some(series) = self.0.series.read().get(labels) {
            return Arc::clone(&series.metric);
        }
        let mut all = self.0.series.write();
        let series = all.entry(labels.clone()).or_insert_with(|| Series { metric: Arc::default(), unused_since: None });
        Arc::clone(&series.metric)
    }
}

trait Render: Send + Sync {
    fn name(&self) -> &'static str;
    /// `retain` is how long series are kept on which nobody can count any more.
    fn render(&self, now: Instant, retain: Duration, out: &mut String);
}

impl<M: Metric> Render for FamilyInner<M> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn render(&self, now: Instant, retain: Duration, out: &mut String) {
        let mut all = self.series.write();
        all.retain(|_, series| {
            if Arc::strong_count(&series.metric) > 1 {
                series.unused_since = None;
                return true;
            }
            now.duration_since(*series.unused_since.get_or_insert(now)) < retain
        });
        if all.is_empty() {
            return;
        }
        let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {}", self.name, self.help, self.name, M::KIND);
        for (labels, series) in all.iter() {
            series.metric.render(self.name, labels, out);
        }
    }
}

/// Every family, in the order in which they were added.
#[derive(Clone)]
pub(crate) struct Registry {
    /// Series that nobody can count on any more are kept this long for the last scrapes.
    retain: Duration,
    families: Arc<Mutex<Vec<Arc<dyn Render>>>>,
    process: Arc<Mutex<Option<ProcessGauges>>>,
}

impl Registry {
    pub(crate) fn new(retain: Duration) -> Self {
        Self { retain, families: Arc::default(), process: Arc::default() }
    }

    /// A new family. Names are unique; asking twice for one is a mistake in this crate.
    pub(crate) fn family<M: Metric>(&self, name: &'static str, help: &'static str) -> Family<M> {
        let family = Arc::new(FamilyInner { name, help, series: RwLock::default() });
        let mut families = self.families.lock();
        debug_assert!(families.iter().all(|other| other.name() != name), "two families are called {name}");
        families.push(Arc::clone(&family) as Arc<dyn Render>);
        Family(family)
    }

    pub(crate) fn on_render(&self, gauges: ProcessGauges) {
        *self.process.lock() = Some(gauges);
    }

    /// The text of a scrape, all but the families that `without` says.
    pub(crate) fn render(&self, without: impl Fn(&str) -> bool) -> String {
        if let Some(process) = &*self.process.lock() {
            process.refresh();
        }
        let now = Instant::now();
        let mut out = String::with_capacity(64 * 1024);
        for family in self.families.lock().iter().filter(|family| !without(family.name())) {
            family.render(now, self.retain, &mut out);
        }
        out.push_str("# EOF\n");
        out
    }
}

/// A few series behind a small key, found without a lock and without building labels.
pub(crate) struct Keyed<K, M> {
    entries: ArcSwap<Vec<(K, Arc<M>)>>,
}

impl<K, M> Default for Keyed<K, M> {
    fn default() -> Self {
        Self { entries: ArcSwap::default() }
    }
}

impl<K: Copy + PartialEq, M> Keyed<K, M> {
    /// The series of `key`; `make` runs when it is asked for the first time.
    pub(crate) fn get_or_make(&self, key: K, make: impl Fn() -> Arc<M>) -> Arc<M> {
        let find = |entries: &[(K, Arc<M>)]| {
            entries.iter().find(|(other, _)| *other == key).map(|(_, metric)| Arc::clone(metric))
        };
        if let Some(found) = find(&self.entries.load()) {
            return found;
        }
        let made = make();
        self.entries.rcu(|entries| {
            let mut entries = Vec::clone(entries);
            if find(&entries).is_none() {
                entries.push((key, Arc::clone(&made)));
            }
            entries
        });
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_prometheus_text() {
        let registry = Registry::new(Duration::from_secs(600));
        let requests = registry.family::<Counter>("request_total", "Requests.");
        let a = requests.hold(&Labels::new().with("direction", "outbound"));
        a.increment();
        requests.hold(&Labels::new().with("direction", "outbound")).increment();
        registry.family::<Gauge>("empty", "Nothing.");
        let latency = registry.family::<Histogram>("latency_ms", "Milliseconds.");
        let series = latency.hold(&Labels::new().with("a", "b"));
        series.observe(Duration::from_millis(4));
        series.observe(Duration::from_secs(70));

        let text = registry.render(|_| false);
        assert!(text.starts_with(
            "# HELP request_total Requests.\n# TYPE request_total counter\nrequest_total{direction=\"outbound\"} 2\n"
        ));
        assert!(!text.contains("empty"));
        assert!(text.contains("latency_ms_bucket{a=\"b\",le=\"3\"} 0\nlatency_ms_bucket{a=\"b\",le=\"4\"} 1\n"));
        assert!(text.contains(
            "latency_ms_bucket{a=\"b\",le=\"+Inf\"} 2\nlatency_ms_sum{a=\"b\"} 70004\nlatency_ms_count{a=\"b\"} 2\n"
        ));
        assert!(text.ends_with("# EOF\n"));
        let without = registry.render(|family| family == "latency_ms");
        assert!(without.contains("request_total") && !without.contains("latency_ms"));
    }

    #[test]
    fn keyed_series_are_made_once() {
        let keyed = Keyed::<u16, Counter>::default();
        keyed.get_or_make(200, Arc::default).increment();
        keyed.get_or_make(503, Arc::default);
        let again = keyed.get_or_make(200, || panic!("made twice"));
        assert_eq!(again.0.load(Relaxed), 1);
    }
}
