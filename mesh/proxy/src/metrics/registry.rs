//! Counters and gauges, the families that series belong to, and their text.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};

use super::Labels;

/// Something that can stand in a family.
pub(crate) trait Metric: Send + Sync + 'static {
    /// What all series of a family have in common.
    type Shape: Copy + Send + Sync;
    const KIND: &'static str;
    fn new(shape: Self::Shape) -> Self;
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

    /// Somebody else has counted so many.
    pub(crate) fn set(&self, total: u64) {
        self.0.store(total, Relaxed);
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

/// A time, or a span of time, in seconds. `TOTAL` is whether it only grows.
#[derive(Debug, Default)]
pub(crate) struct Seconds<const TOTAL: bool>(AtomicU64);

impl<const TOTAL: bool> Seconds<TOTAL> {
    pub(crate) fn set(&self, value: Duration) {
        self.0.store(u64::try_from(value.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

fn line(out: &mut String, name: &str, labels: &Labels, value: impl std::fmt::Display) {
    // Writing into a String cannot fail.
    let _ = match labels.as_str() {
        "" => writeln!(out, "{name} {value}"),
        labels => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

impl Metric for Counter {
    type Shape = ();
    const KIND: &'static str = "counter";

    fn new((): ()) -> Self {
        Self::default()
    }

    fn render(&self, name: &str, labels: &Labels, out: &mut String) {
        line(out, name, labels, self.0.load(Relaxed));
    }
}

impl Metric for Gauge {
    type Shape = ();
    const KIND: &'static str = "gauge";

    fn new((): ()) -> Self {
        Self::default()
    }

    fn render(&self, name: &str, labels: &Labels, out: &mut String) {
        line(out, name, labels, self.0.load(Relaxed));
    }
}

impl<const TOTAL: bool> Metric for Seconds<TOTAL> {
    type Shape = ();
    const KIND: &'static str = if TOTAL { "counter" } else { "gauge" };

    fn new((): ()) -> Self {
        Self::default()
    }

    fn render(&self, name: &str, labels: &Labels, out: &mut String) {
        let value = Duration::from_micros(self.0.load(Relaxed));
        line(out, name, labels, format_args!("{:?}", value.as_secs_f64()));
    }
}

/// All series of one name. Cheap to clone.
pub(crate) struct Family<M: Metric>(Arc<FamilyInner<M>>);

struct FamilyInner<M: Metric> {
    name: &'static str,
    help: &'static str,
    shape: M::Shape,
    series: RwLock<BTreeMap<Labels, Series<M>>>,
}

struct Series<M> {
    metric: Arc<M>,
    unused_since: Option<Instant>,
}

impl<M: Metric> Clone for Family<M> {
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
        let make = || Series { metric: Arc::new(M::new(self.0.shape)), unused_since: None };
        let series = all.entry(labels.clone()).or_insert_with(make);
        Arc::clone(&series.metric)
    }

    /// A series that nobody sees.
    pub(crate) fn unseen(&self) -> Arc<M> {
        Arc::new(M::new(self.0.shape))
    }
}

/// A counter that is made when it first counts, for what may never happen.
pub(crate) struct Late {
    family: Family<Counter>,
    labels: Labels,
    counter: OnceLock<Arc<Counter>>,
}

impl Late {
    pub(crate) fn new(family: &Family<Counter>, labels: Labels) -> Self {
        Self { family: family.clone(), labels, counter: OnceLock::new() }
    }

    pub(crate) fn increment(&self) {
        self.counter.get_or_init(|| self.family.hold(&self.labels)).increment();
    }
}

trait Render: Send + Sync {
    fn name(&self) -> &'static str;
    fn kind(&self) -> &'static str;
    /// `retain` is how long series are kept on which nobody can count any more.
    fn render(&self, now: Instant, retain: Duration, out: &mut String);
}

impl<M: Metric> Render for FamilyInner<M> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn kind(&self) -> &'static str {
        M::KIND
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

/// Series whose values are looked up when somebody asks, rather than counted.
pub(crate) trait Refresh: Send + Sync {
    fn refresh(&self);
}

/// Every family, in the order in which they were added.
#[derive(Clone)]
pub(crate) struct Registry {
    /// Series that nobody can count on any more are kept this long for the last scrapes.
    retain: Duration,
    families: Arc<Mutex<Vec<Arc<dyn Render>>>>,
    /// What is looked up when somebody asks.
    refreshed: Arc<Mutex<Vec<Weak<dyn Refresh>>>>,
}

impl Registry {
    pub(crate) fn new(retain: Duration) -> Self {
        Self { retain, families: Arc::default(), refreshed: Arc::default() }
    }

    /// A new family. Names are unique; asking twice for one is a mistake in this crate.
    pub(crate) fn family<M: Metric<Shape = ()>>(&self, name: &'static str, help: &'static str) -> Family<M> {
        self.shaped(name, help, ())
    }

    /// The same of series that need to know more.
    pub(crate) fn shaped<M: Metric>(&self, name: &'static str, help: &'static str, shape: M::Shape) -> Family<M> {
        let family = Arc::new(FamilyInner { name, help, shape, series: RwLock::default() });
        let mut families = self.families.lock();
        debug_assert!(families.iter().all(|other| other.name() != name), "two families are called {name}");
        families.push(Arc::clone(&family) as Arc<dyn Render>);
        Family(family)
    }

    /// Refreshes this before each scrape, for as long as somebody else holds it.
    pub(crate) fn refresh(&self, what: Weak<dyn Refresh>) {
        let mut all = self.refreshed.lock();
        all.retain(|what| what.strong_count() > 0);
        all.push(what);
    }

    /// The text of a scrape, all but the families that `without` says, by name and kind.
    pub(crate) fn render(&self, without: impl Fn(&str, &str) -> bool) -> String {
        let refreshed: Vec<_> = {
            let mut all = self.refreshed.lock();
            all.retain(|what| what.strong_count() > 0);
            all.iter().filter_map(Weak::upgrade).collect()
        };
        refreshed.iter().for_each(|what| what.refresh());
        let now = Instant::now();
        let mut out = String::with_capacity(64 * 1024);
        for family in self.families.lock().iter().filter(|family| !without(family.name(), family.kind())) {
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
        let started = registry.family::<Seconds<false>>("start_time_seconds", "When.").hold(&Labels::new());
        started.set(Duration::from_millis(1500));

        let text = registry.render(|_, _| false);
        assert!(text.starts_with(
            "# HELP request_total Requests.\n# TYPE request_total counter\nrequest_total{direction=\"outbound\"} 2\n"
        ));
        assert!(!text.contains("empty"));
        assert!(text.contains("# TYPE start_time_seconds gauge\nstart_time_seconds 1.5\n"));
        assert!(text.ends_with("# EOF\n"));
        let without = registry.render(|family, _| family == "start_time_seconds");
        assert!(without.contains("request_total") && !without.contains("start_time_seconds"));
        let without = registry.render(|_, kind| kind == "counter");
        assert!(!without.contains("request_total") && without.contains("start_time_seconds"));
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
