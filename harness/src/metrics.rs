//! Prometheus text, read exactly: names are compared whole, labels are unescaped.
//!
//! A busy proxy tells of thousands of series and a case asks for three, many times a second: every line's
//! name and value are read at once, and its labels stay text until somebody asks for them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use crate::verdict::{Failure, check};

/// One sample of a scrape.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The whole name (`response_latency_ms_bucket`, not its family).
    pub name: &'a str,
    /// What is between the braces.
    labels: &'a str,
    /// The value.
    pub value: f64,
}

/// Which families a scrape asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// Those that these series belong to: a look that is repeated needs no more.
    Of(BTreeSet<&'static str>),
    /// All but the histograms, which are most of the text.
    Counts,
    /// All.
    #[default]
    All,
}

impl Families {
    /// Where the proxy's admin server tells them. A proxy that does not know the parameters tells everything.
    pub fn path(&self) -> String {
        let asked: Vec<String> = match self {
            Self::Of(series) => series.iter().map(|series| format!("name[]={}", family(series))).collect(),
            Self::Counts => vec!["exclude[]=histogram".to_owned()],
            Self::All => Vec::new(),
        };
        if asked.is_empty() { "/metrics".to_owned() } else { format!("/metrics?{}", asked.join("&")) }
    }

    /// Whether a series is among them.
    fn have(&self, name: &str) -> bool {
        match self {
            Self::Of(series) => series.iter().any(|series| family(series) == family(name)),
            Self::Counts => family(name) == name,
            Self::All => true,
        }
    }
}

/// The family of a series: a histogram's has three kinds of them.
fn family(series: &str) -> &str {
    let parts = ["_bucket", "_sum", "_count"];
    parts.iter().find_map(|part| series.strip_suffix(part)).unwrap_or(series)
}

/// The samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    text: String,
    lines: Vec<Line>,
    families: Families,
}

/// Where in the text a sample's parts are.
#[derive(Clone, Debug)]
struct Line {
    name: Range<usize>,
    labels: Range<usize>,
    value: f64,
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
    pub fn parse(text: impl Into<String>) -> Result<Self, ParseError> {
        let text = text.into();
        let (mut lines, mut start) = (Vec::new(), 0);
        for (index, whole) in text.split_inclusive('\n').enumerate() {
            let line = whole.trim();
            if !line.is_empty() && !line.starts_with('#') {
                let offset = start + (whole.len() - whole.trim_start().len());
                let read = read(line).ok_or_else(|| ParseError { line: index + 1, text: line.to_owned() })?;
                let shift = |range: Range<usize>| range.start + offset..range.end + offset;
                lines.push(Line { name: shift(read.name), labels: shift(read.labels), value: read.value });
            }
            start += whole.len();
        }
        Ok(Self { text, lines, families: Families::All })
    }

    /// Says which families were asked for.
    #[must_use]
    pub fn of(self, families: Families) -> Self {
        Self { families, ..self }
    }

    /// All samples, in the order of the text.
    pub fn samples(&self) -> impl Iterator<Item = Sample<'_>> {
        self.lines.iter().map(|line| Sample {
            name: &self.text[line.name.clone()],
            labels: &self.text[line.labels.clone()],
            value: line.value,
        })
    }

    /// A selection by name and labels. A label asked for with the value `""` must be absent or empty.
    pub fn select<'a>(&'a self, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = Sample<'a>> {
        self.samples().filter(move |sample| sample.name == name && sample.has(labels))
    }

    /// The sum of a selection; 0 when it is empty, and no number, which equals nothing, when the scrape did not ask for it.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        if !self.families.have(name) {
            return f64::NAN;
        }
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
            self.samples().filter(|sample| sample.name == name).take(12).map(|sample| sample.to_string()).collect();
        let candidates = if candidates.is_empty() { "no series of that name".into() } else { candidates.join("; ") };
        Err(check(format!("{name}{{{}}}", wanted.join(",")))
            .failure(expected.to_string(), format!("{found} ({candidates})")))
    }
}

impl<'a> Sample<'a> {
    /// A label's value, `""` when absent.
    pub fn label(&self, name: &str) -> Cow<'a, str> {
        Labels(self.labels).find(|(key, _)| *key == name).map_or(Cow::Borrowed(""), |(_, raw)| unescape(raw))
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(key, value)| self.label(key) == *value)
    }
}

impl fmt::Display for Sample<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{{{}}} {}", self.name, self.labels, self.value)
    }
}

/// Keys and values, still escaped, of what is between the braces of a sample that was read.
struct Labels<'a>(&'a str);

impl<'a> Iterator for Labels<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, rest) = self.0.split_once('=')?;
        let body = rest.trim_start().strip_prefix('"')?;
        let end = closing_quote(body)?;
        self.0 = body[end + 1..].trim_start().trim_start_matches(',').trim_start();
        Some((key.trim(), &body[..end]))
    }
}

/// Where the quote is that ends a label's value.
fn closing_quote(body: &str) -> Option<usize> {
    let mut escaped = false;
    body.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

fn unescape(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let (mut value, mut chars) = (String::with_capacity(raw.len()), raw.chars());
    while let Some(next) = chars.next() {
        value.push(match next {
            '\\' => match chars.next() {
                Some('n') => '\n',
                escaped => escaped.unwrap_or(next),
            },
            _ => next,
        });
    }
    Cow::Owned(value)
}

/// Where the parts of a line are.
fn read(line: &str) -> Option<Line> {
    let name = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).filter(|end| *end > 0)?;
    let mut labels = name..name;
    let mut rest = &line[name..];
    if rest.starts_with('{') {
        // Values are numbers, so the last brace is the one that ends the labels.
        labels = name + 1..line.rfind('}')?;
        rest = &line[labels.end + 1..];
    }
    let value = match rest.split_whitespace().next()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        value => value.parse().ok()?,
    };
    Some(Line { name: 0..name, labels, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "# HELP a x\na{le=\"0.5\",path=\"/x,y=\\\"1\\\"\"} 3\na_total 2\na{} 4 1700000000\nb{x=\"}\"} +Inf\n";

    #[test]
    fn what_a_scrape_did_not_ask_for_equals_nothing() {
        let metrics = Metrics::parse("request_total 3\n").unwrap().of(Families::Counts);
        assert_eq!(metrics.sum("request_total", &[]), 3.0);
        assert!(metrics.sum("response_latency_ms_count", &[]).is_nan());
        let named = metrics.of(Families::Of(["request_total", "response_latency_ms_count"].into()));
        assert!(named.sum("response_total", &[]).is_nan());
        assert_eq!((named.sum("request_total", &[]), named.sum("response_latency_ms_sum", &[])), (3.0, 0.0));
        assert_eq!(named.of(Families::All).sum("response_total", &[]), 0.0);
    }

    #[test]
    fn a_scrape_asks_for_families() {
        let named = Families::Of(["request_total", "response_latency_ms_count"].into());
        assert_eq!(named.path(), "/metrics?name[]=request_total&name[]=response_latency_ms");
        assert_eq!(Families::Counts.path(), "/metrics?exclude[]=histogram");
        assert_eq!(Families::All.path(), "/metrics");
    }

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
