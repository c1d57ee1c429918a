//! What a case observed, in little: shares with their bounds, times, and a few requests with what came of them.
//!
//! It stands in the report of every case that ran, passed or not, so it is bounded: a report of the whole matrix has some thousand
//! cases. Whatever a failure needs beyond that is in its artefacts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::context::Exchange;
use crate::probe::{Payload, Record, Request, Scheme, Seen, Version};
use crate::statistics::Sequential;

/// Requests kept from the beginning of a case and from its end, where the verdict fell.
const FIRST: usize = 1;
const LAST: usize = 3;

/// Characters of a body or a header's value.
const TEXT: usize = 400;

/// Headers of a request or an answer.
const HEADERS: usize = 24;

/// Fewer requests than this have no distribution worth a picture.
const DISTRIBUTION: usize = 20;

/// What a case observed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observations {
    /// Requests that it sent, those that are not kept included.
    pub requests: u64,
    /// A few of them, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// Shares that were judged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// How long answers took, when there were enough of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
}

/// A request and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Where it was sent from: `outside` or `the probe pod`.
    pub from: String,
    /// How often it was sent: with the same outcome one after the other, or at once.
    pub times: u64,
    /// Where it was sent many times at once, what came of them: `200 from echo-a` and how often. The rest is then of one of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<String, u64>,
    /// Whether it was sent to the controller, and not past it.
    pub controller: bool,
    /// What was sent, in a line: `GET http://host/path`.
    pub sent: String,
    /// Where to, `address:port`.
    pub target: String,
    /// Headers that were sent, besides Host, as `name: value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// The body that was sent, or its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The status, or the error.
    pub outcome: String,
    /// Milliseconds from the request to the end of the answer.
    pub ms: f64,
    /// Headers of the answer, as `name: value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answer: Vec<String>,
    /// The start of an answer that is not an echo backend's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What the backend saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Arrived>,
}

/// A request as the backend saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arrived {
    /// The backend's service.
    pub service: String,
    /// Its pod.
    pub pod: String,
    /// The protocol, Host and request target in a line, `HTTP/1.1 host/path`.
    pub line: String,
    /// Headers that arrived, as `name: value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
}

/// A share that was judged by [`Sequential`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Of what.
    pub what: String,
    /// Requests.
    pub n: u64,
    /// Those that count.
    pub count: u64,
    /// The share that was expected, 0 to 1.
    pub expected: f64,
    /// How far off a share is that must be refused, 0 to 1.
    pub off: f64,
    /// The counts that are accepted after `n` requests, least and most; none while no count is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<[u64; 2]>,
    /// At most this probable is it that a correct system is refused.
    pub false_alarm: f64,
    /// And that one which is `off` is accepted.
    pub miss: f64,
    /// Whether the share was accepted.
    pub held: bool,
}

/// How long answers took, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Answers.
    pub n: usize,
    /// Half of them took at most this long.
    pub p50: f64,
    /// 90 % of them.
    pub p90: f64,
    /// 99 % of them.
    pub p99: f64,
    /// The longest.
    pub max: f64,
    /// Answers that took less than 2^k milliseconds and not less than half of that, by k from -4 on; the first also has what was
    /// quicker, and the last nothing after it.
    pub histogram: Vec<usize>,
}

/// What is being observed of a case: [`crate::context::Context`] adds to it whatever passes through it.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    requests: u64,
    first: Vec<Sample>,
    last: std::collections::VecDeque<Sample>,
    shares: BTreeMap<String, Share>,
    /// Microseconds.
    times: Vec<u64>,
}

/// Times that are kept; a case with more has its distribution from so many.
const TIMES: usize = 20_000;

impl Observer {
    /// Counts answers and their times.
    pub fn count<'a>(&mut self, records: impl IntoIterator<Item = &'a Record>) {
        for record in records {
            self.requests += 1;
            if record.status.is_some() && self.times.len() < TIMES {
                self.times.push(record.total_us);
            }
        }
    }

    /// Keeps an exchange as a sample, if it is among the first or the last. One that came out as the one before it is counted there.
    /// Of requests that were sent at once all `records` are given, otherwise none.
    pub fn sample(&mut self, exchange: &Exchange, controller: bool, records: &[Record]) {
        let mut sample = Sample::of(exchange, controller);
        for record in records {
            *sample.answers.entry(cut(&answer(record))).or_default() += 1;
        }
        if let Some(before) = self.last.back_mut().or(self.first.last_mut())
            && before.is_like(&sample)
        {
            sample.times += before.times;
            for (answer, times) in &before.answers {
                *sample.answers.entry(answer.clone()).or_default() += times;
            }
            *before = sample;
        } else if self.first.len() < FIRST {
            self.first.push(sample);
        } else {
            if self.last.len() == LAST {
                self.last.pop_front();
            }
            self.last.push_back(sample);
        }
    }

    /// Remembers a judgement; a later one of the same thing takes its place.
    pub fn share(&mut self, what: &str, test: Sequential, n: u64, count: u64, held: bool) {
        let share = Share {
            what: what.to_owned(),
            n,
            count,
            expected: test.p,
            off: test.off,
            accepted: test.accepted(n),
            false_alarm: Sequential::FALSE_ALARM,
            miss: Sequential::MISS,
            held,
        };
        self.shares.insert(what.to_owned(), share);
    }

    /// All of it; `None` when nothing was observed.
    pub fn observations(&self) -> Option<Observations> {
        let observations = Observations {
            requests: self.requests,
            samples: self.first.iter().chain(&self.last).cloned().collect(),
            shares: self.shares.values().cloned().collect(),
            latency: Latency::of(self.times.clone()),
        };
        (observations != Observations::default()).then_some(observations)
    }
}

impl Latency {
    /// The distribution of times in microseconds.
    pub fn of(mut times: Vec<u64>) -> Option<Self> {
        times.sort_unstable();
        let (n, longest) = (times.len(), *times.last()?);
        if n < DISTRIBUTION {
            return None;
        }
        let ms = |us: u64| us as f64 / 1000.0;
        let at = |percent: usize| ms(times[(n * percent).div_ceil(100).saturating_sub(1)]);
        let mut histogram = Vec::new();
        for us in &times {
            // The bucket with 2^(k-1) <= ms < 2^k has the index k + 4; all below 2^-4 ms are in the first.
            let index = (ms(*us).log2().floor() + 5.0).max(0.0) as usize;
            if histogram.len() <= index {
                histogram.resize(index + 1, 0);
            }
            histogram[index] += 1;
        }
        Some(Self { n, p50: at(50), p90: at(90), p99: at(99), max: ms(longest), histogram })
    }
}

impl Sample {
    fn of(exchange: &Exchange, controller: bool) -> Self {
        let Exchange { from, times, request, record } = exchange;
        Self {
            from: from.clone(),
            times: *times,
            answers: BTreeMap::new(),
            controller,
            sent: sent(request),
            target: request.target.clone(),
            headers: lines(&request.headers),
            body: match &request.body {
                Payload::None => None,
                Payload::Text(text) => Some(cut(text)),
                Payload::Bytes(size) => Some(format!("({size} bytes)")),
                Payload::Chunks { count, size, .. } => Some(format!("({count} chunks of {size} bytes)")),
            },
            outcome: cut(&record.outcome()),
            ms: record.total_us as f64 / 1000.0,
            answer: lines(&record.headers),
            text: (record.seen.is_none() && !record.body.is_empty()).then(|| cut(&record.body)),
            seen: record.seen.as_ref().map(Arrived::of),
        }
    }

    /// Whether the same request came to the same, apart from what differs each time. Of those sent at once the answers are counted.
    fn is_like(&self, other: &Self) -> bool {
        let sent = (&self.from, &self.sent, &self.target, &self.headers)
            == (&other.from, &other.sent, &other.target, &other.headers);
        match (self.answers.is_empty(), other.answers.is_empty()) {
            (true, true) => sent && self.came_to(other),
            (false, false) => sent,
            _ => false,
        }
    }

    fn came_to(&self, other: &Self) -> bool {
        let service = |sample: &Self| sample.seen.as_ref().map(|seen| seen.service.clone());
        (&self.outcome, service(self)) == (&other.outcome, service(other))
    }
}

impl Arrived {
    fn of(seen: &Seen) -> Self {
        let host = seen.host.as_deref().unwrap_or_default();
        Self {
            service: seen.service.clone(),
            pod: seen.pod.clone(),
            line: cut(&format!("{} {host}{}", seen.protocol, seen.path)),
            headers: lines(&seen.headers),
        }
    }
}

/// What came of a request, in a few words.
fn answer(record: &Record) -> String {
    let service = record.service().filter(|service| !service.is_empty());
    service.map_or_else(|| record.outcome(), |service| format!("{} from {service}", record.outcome()))
}

/// A request in a line, with what is unusual about its protocol.
fn sent(request: &Request) -> String {
    let scheme = match request.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let version = match request.version {
        Version::H1 => "",
        Version::H10 => " HTTP/1.0",
        Version::H2c => " HTTP/2",
    };
    let host = request.host.as_deref().unwrap_or(&request.target);
    cut(&format!("{} {scheme}://{host}{}{version}", request.method, request.path))
}

fn lines(headers: &[(String, String)]) -> Vec<String> {
    headers.iter().take(HEADERS).map(|(name, value)| cut(&format!("{name}: {value}"))).collect()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(path: &str, status: u16) -> Exchange {
        Exchange {
            from: "outside".into(),
            times: 1,
            request: Request::get("203.0.113.10:80", path).host("a.test").header("x", "y".repeat(10_000)),
            record: Record { status: Some(status), body: "z".repeat(10_000), total_us: 1500, ..Record::default() },
        }
    }

    #[test]
    fn a_case_is_kept_by_its_beginning_and_its_end() {
        let mut observer = Observer::default();
        for number in 0..100 {
            observer.sample(&exchange(&format!("/{number}"), 200), true, &[]);
        }
        let observed = observer.observations().unwrap();
        let sent: Vec<&str> = observed.samples.iter().map(|sample| sample.sent.as_str()).collect();
        assert_eq!(
            sent,
            ["GET http://a.test/0", "GET http://a.test/97", "GET http://a.test/98", "GET http://a.test/99"]
        );
        let size = serde_json::to_string(&observed).unwrap().len();
        assert!(size < 8000, "{size} bytes");
    }

    #[test]
    fn a_request_that_is_answered_alike_again_is_counted() {
        let mut observer = Observer::default();
        for status in [404, 404, 404, 200, 200] {
            observer.sample(&exchange("/", status), true, &[]);
        }
        let samples = observer.observations().unwrap().samples;
        let counted: Vec<(u64, &str)> = samples.iter().map(|sample| (sample.times, sample.outcome.as_str())).collect();
        assert_eq!(counted, [(3, "404"), (2, "200")]);
    }

    #[test]
    fn of_requests_sent_at_once_it_is_counted_who_answered() {
        let mut observer = Observer::default();
        let from = |service: &str| Record {
            status: Some(200),
            seen: Some(Seen { service: service.into(), ..Seen::default() }),
            ..Record::default()
        };
        for _ in 0..2 {
            observer.sample(&exchange("/", 200), true, &[from("a"), from("b"), from("a")]);
        }
        observer.sample(&exchange("/", 200), true, &[]);
        let samples = observer.observations().unwrap().samples;
        let counted: Vec<Vec<(&str, u64)>> = samples
            .iter()
            .map(|sample| sample.answers.iter().map(|(answer, times)| (answer.as_str(), *times)).collect())
            .collect();
        assert_eq!(counted, [vec![("200 from a", 4), ("200 from b", 2)], vec![]]);
    }

    #[test]
    fn times_have_quantiles_and_a_histogram() {
        assert_eq!(Latency::of(vec![1000; 19]), None);
        let latency = Latency::of((1..=100).map(|ms| ms * 1000).collect()).unwrap();
        assert_eq!((latency.p50, latency.p90, latency.p99, latency.max), (50.0, 90.0, 99.0, 100.0));
        // Below 1/16 ms, ..., 1 to 2 ms, 2 to 4, 4 to 8, and so on.
        assert_eq!(latency.histogram, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 37]);
    }

    #[test]
    fn nothing_observed_is_nothing() {
        assert_eq!(Observer::default().observations(), None);
    }
}
