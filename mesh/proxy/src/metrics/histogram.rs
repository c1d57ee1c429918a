//! Histograms: how often something took so long, or was so large.

use std::{
    fmt::{self, Write},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{Labels, registry::Metric};

/// The bounds of the buckets of a family, in the smallest unit that is told apart.
#[derive(Debug)]
pub(crate) struct Shape {
    bounds: &'static [u64],
    unit: Unit,
}

/// How that is written.
#[derive(Debug, Clone, Copy)]
enum Unit {
    /// Milliseconds, as such.
    Milliseconds,
    /// Microseconds, as seconds.
    Seconds,
    /// Bytes, as a number that could have a fraction.
    Bytes,
}

impl Shape {
    /// Linkerd's older families.
    pub(crate) const LATENCY_MS: Self = Self {
        bounds: &[
            1, 2, 3, 4, 5, 10, 20, 30, 40, 50, 100, 200, 300, 400, 500, 1000, 2000, 3000, 4000, 5000, 10000, 20000,
            30000, 40000, 50000,
        ],
        unit: Unit::Milliseconds,
    };
    /// From the start of a request to the end of its response.
    pub(crate) const REQUEST: Self = Self { bounds: &[50_000, 500_000, 1_000_000, 10_000_000], unit: Unit::Seconds };
    /// From the end of a request to the end of its response.
    pub(crate) const RESPONSE: Self =
        Self { bounds: &[25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 10_000_000], unit: Unit::Seconds };
    /// How long requests wait for an endpoint.
    pub(crate) const QUEUE: Self =
        Self { bounds: &[500, 5_000, 50_000, 500_000, 1_000_000, 3_000_000], unit: Unit::Seconds };
    /// How long it takes until a protocol is known.
    pub(crate) const DETECT: Self = Self { bounds: &[1_000, 100_000], unit: Unit::Seconds };
    /// The sizes of a body's frames.
    pub(crate) const FRAMES: Self = Self { bounds: &[128, 1024, 10240], unit: Unit::Bytes };
}

/// Counts of what was observed, by size.
#[derive(Debug)]
pub(crate) struct Histogram {
    shape: &'static Shape,
    /// One per bound, and one for what is above all of them.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Something took so long.
    pub(crate) fn took(&self, duration: Duration) {
        let value = match self.shape.unit {
            Unit::Milliseconds => duration.as_millis(),
            Unit::Seconds | Unit::Bytes => duration.as_micros(),
        };
        self.observe(u64::try_from(value).unwrap_or(u64::MAX));
    }

    /// Something has so many bytes.
    pub(crate) fn sized(&self, bytes: usize) {
        self.observe(bytes as u64);
    }

    fn observe(&self, value: u64) {
        let bucket = self.shape.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }
}

impl Metric for Histogram {
    type Shape = &'static Shape;
    const KIND: &'static str = "histogram";

    fn new(shape: Self::Shape) -> Self {
        let buckets = (0..=shape.bounds.len()).map(|_| AtomicU64::default()).collect();
        Self { shape, buckets, sum: AtomicU64::default() }
    }

    fn render(&self, name: &str, labels: &Labels, out: &mut String) {
        let unit = self.shape.unit;
        let labels = labels.as_str();
        let comma = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        // Writing into a String cannot fail.
        for (bound, bucket) in self.shape.bounds.iter().zip(&self.buckets) {
            count += bucket.load(Relaxed);
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{}\"}} {count}", Written(*bound, unit));
        }
        count += self.buckets.last().map_or(0, |above| above.load(Relaxed));
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
        let sum = Written(self.sum.load(Relaxed), unit);
        let _ = match labels {
            "" => writeln!(out, "{name}_sum {sum}\n{name}_count {count}"),
            labels => writeln!(out, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}"),
        };
    }
}

/// A value as its family writes it.
struct Written(u64, Unit);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value, unit) = *self;
        match unit {
            Unit::Milliseconds => value.fmt(f),
            Unit::Seconds => write!(f, "{:?}", Duration::from_micros(value).as_secs_f64()),
            Unit::Bytes => write!(f, "{value}.0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(shape: &'static Shape, labels: &Labels, observe: impl FnOnce(&Histogram)) -> String {
        let histogram = Histogram::new(shape);
        observe(&histogram);
        let mut out = String::new();
        histogram.render("x", labels, &mut out);
        out
    }

    #[test]
    fn what_is_as_large_as_a_bound_is_within_it() {
        let sizes = text(&Shape::FRAMES, &Labels::new().with("a", "b"), |sizes| {
            [0, 128, 129, 20_000].into_iter().for_each(|size| sizes.sized(size));
        });
        assert_eq!(
            sizes,
            "x_bucket{a=\"b\",le=\"128.0\"} 2\nx_bucket{a=\"b\",le=\"1024.0\"} 3\nx_bucket{a=\"b\",le=\"10240.0\"} 3\n\
             x_bucket{a=\"b\",le=\"+Inf\"} 4\nx_sum{a=\"b\"} 20257.0\nx_count{a=\"b\"} 4\n"
        );
    }

    #[test]
    fn times_are_seconds_where_the_name_says_so() {
        let seconds = text(&Shape::DETECT, &Labels::new(), |times| {
            [900, 90_000, 1_000_000].into_iter().for_each(|micros| times.took(Duration::from_micros(micros)));
        });
        assert_eq!(
            seconds,
            "x_bucket{le=\"0.001\"} 1\nx_bucket{le=\"0.1\"} 2\nx_bucket{le=\"+Inf\"} 3\nx_sum 1.0909\nx_count 3\n"
        );
        let millis = text(&Shape::LATENCY_MS, &Labels::new(), |times| times.took(Duration::from_secs(70)));
        assert!(millis.contains("x_bucket{le=\"50000\"} 0\nx_bucket{le=\"+Inf\"} 1\nx_sum 70000\n"), "{millis}");
        for (shape, bounds) in [
            (&Shape::REQUEST, "0.05 0.5 1.0 10.0"),
            (&Shape::RESPONSE, "0.025 0.05 0.1 0.25 0.5 1.0 10.0"),
            (&Shape::QUEUE, "0.0005 0.005 0.05 0.5 1.0 3.0"),
        ] {
            let found: Vec<_> = shape.bounds.iter().map(|bound| Written(*bound, shape.unit).to_string()).collect();
            assert_eq!(found.join(" "), bounds);
        }
    }
}
