//! Prometheus text, read exactly: names are compared whole, labels are unescaped.

use std::collections::BTreeMap;
use std::fmt;

use crate::verdict::{Failure, check};

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The whole name (`response_latency_ms_bucket`, not its family).
    pub name: String,
    /// Labels, unescaped.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// The samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// In the order of the text.
    pub samples: Vec<Sample>,
}

/// A line that is not Prometheus text.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: not a Prometheus sample: {text:?}")]
pub struct ParseError {
    /// Its number, from 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

impl Metrics {
    /// Reads the text exposition format.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut samples = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            samples.push(sample(line).ok_or_else(|| ParseError { line: index + 1, text: line.to_owned() })?);
        }
        Ok(Self { samples })
    }

    /// A selection by name and labels.
    pub fn select<'a>(&'a self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        let name = name.to_owned();
        let labels: Vec<(String, String)> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.samples.iter().filter(move |sample| {
            sample.name == name && labels.iter().all(|(key, value)| sample.label(key) == value.as_str())
        })
    }

    /// The sum of a selection; 0 when it is empty. A label asked for with the value `""` must be absent or empty.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        // The sum of no floats is -0.0, which a reader would wonder about.
        self.select(name, labels).map(|sample| sample.value).sum::<f64>() + 0.0
    }

    /// Checks the sum of a selection and, when it differs, shows the series of that name.
    pub fn expect(&self, name: &str, labels: &[(&str, &str)], expected: f64) -> Result<(), Failure> {
        let found = self.sum(name, labels);
        if found == expected {
            return Ok(());
        }
        let wanted: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        let candidates: Vec<String> =
            self.samples.iter().filter(|sample| sample.name == name).take(12).map(Sample::to_string).collect();
        let candidates = if candidates.is_empty() { "no series of that name".into() } else { candidates.join("; ") };
        Err(check(format!("{name}{{{}}}", wanted.join(",")))
            .failure(expected.to_string(), format!("{found} ({candidates})")))
    }
}

impl Sample {
    /// A label's value, `""` when absent.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<String> = self.labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        write!(f, "{}{{{}}} {}", self.name, labels.join(","), self.value)
    }
}

fn sample(line: &str) -> Option<Sample> {
    let name_end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    if let Some(after) = rest.strip_prefix('{') {
        rest = after.trim_start();
        loop {
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (key, after) = rest.split_once('=')?;
            let mut value = String::new();
            let mut chars = after.trim_start().strip_prefix('"')?.char_indices();
            let body = after.trim_start().strip_prefix('"')?;
            let end = loop {
                match chars.next()? {
                    (index, '"') => break index,
                    (_, '\\') => match chars.next()?.1 {
                        'n' => value.push('\n'),
                        other => value.push(other),
                    },
                    (_, other) => value.push(other),
                }
            };
            labels.insert(key.trim().to_owned(), value);
            rest = body[end + 1..].trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
    }
    let value = rest.split_whitespace().next()?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        value => value.parse().ok()?,
    };
    (!name.is_empty()).then(|| Sample { name: name.to_owned(), labels, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "# HELP a x\na{le=\"0.5\",path=\"/x,y=\\\"1\\\"\"} 3\na_total 2\na{} 4 1700000000\nb{x=\"}\"} +Inf\n";

    #[test]
    fn names_and_labels_are_exact() {
        let metrics = Metrics::parse(TEXT).unwrap();
        assert_eq!(metrics.sum("a", &[]), 7.0);
        assert_eq!(metrics.sum("a", &[("path", "/x,y=\"1\"")]), 3.0);
        assert_eq!(metrics.sum("a", &[("path", "")]), 4.0);
        assert_eq!(metrics.sum("b", &[("x", "}")]), f64::INFINITY);
        assert!(metrics.expect("a", &[], 7.0).is_ok());
        assert_eq!(metrics.sum("none", &[]).to_string(), "0");
    }

    #[test]
    fn a_difference_shows_the_candidates() {
        let metrics = Metrics::parse(TEXT).unwrap();
        let error = metrics.expect("a_total", &[], 3.0).unwrap_err().to_string();
        assert!(error.contains("expected 3, found 2 (a_total{} 2)"), "{error}");
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Metrics::parse("ok 1\nnot a sample\n").unwrap_err().line, 2);
    }
}
