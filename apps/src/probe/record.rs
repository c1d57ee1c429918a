//! What came back.

use std::fmt::Write;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::failure::Failure;
use super::model::Keep;
use super::tls::Peer;

/// Body bytes that a record keeps at most.
const KEPT_BYTES: usize = 64 * 1024;

/// One request's outcome.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The request's id.
    pub id: String,
    /// The final status; none when there was no answer. May stand beside an error, when the body broke off.
    pub status: Option<u16>,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// As received: order and (on HTTP/1) spelling.
    pub headers: Vec<(String, String)>,
    /// After the body.
    pub trailers: Vec<(String, String)>,
    /// The body as text, at most its first 64 KiB.
    pub body: String,
    /// The body's whole length.
    pub body_bytes: u64,
    /// Of the whole body, in hexadecimal. Empty unless everything is kept.
    pub body_sha256: String,
    /// Why there is no (whole) answer.
    pub error: Option<Failure>,
    /// When the request began, in microseconds since the batch did.
    pub started_us: u64,
    /// From then to the first byte of the final answer.
    pub first_byte_us: Option<u64>,
    /// From then to the end.
    pub total_us: u64,
    /// Counted over the client's or batch's connections from 1; 0 when there was none.
    pub connection_id: u64,
    /// Whether an earlier request had used the connection.
    pub reused: bool,
    /// Statuses before the final one, such as 100.
    pub interim: Vec<u16>,
    /// Who answered, when the body is the echo backend's.
    pub seen: Option<Seen>,
    /// Whom the TLS session is with.
    pub tls: Option<Peer>,
}

/// What the echo backend says of a request: the part that cases look at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// The pod that answered.
    pub pod: String,
    /// Its NAME.
    pub service: String,
    /// The port that took the request.
    pub port: u16,
    /// `HTTP/1.1` and so on.
    pub protocol: String,
    /// The Host or `:authority` that arrived.
    pub host: Option<String>,
    /// The request target that arrived.
    pub path: String,
    /// The headers that arrived, names in lower case.
    pub headers: Vec<(String, String)>,
}

/// Who answered, without what was asked.
#[derive(Deserialize)]
struct Who {
    pod: String,
    service: String,
    port: u16,
    protocol: String,
}

impl Seen {
    /// All values of a header that arrived.
    pub fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        values(&self.headers, name)
    }
}

impl Record {
    /// All values of a header of the answer.
    pub fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        values(&self.headers, name)
    }

    /// Whether the whole answer came, with this status.
    pub fn is(&self, status: u16) -> bool {
        self.error.is_none() && self.status == Some(status)
    }

    /// The service that answered, by the echo backend's word.
    pub fn service(&self) -> Option<&str> {
        self.seen.as_ref().map(|seen| seen.service.as_str())
    }

    /// The pod that answered, by the echo backend's word.
    pub fn pod(&self) -> Option<&str> {
        self.seen.as_ref().map(|seen| seen.pod.as_str())
    }

    /// `200`, or the error, in a few words.
    pub fn outcome(&self) -> String {
        match (&self.error, self.status) {
            (None, Some(status)) => status.to_string(),
            (Some(error), Some(status)) => format!("{status}, then {error}"),
            (Some(error), None) => error.to_string(),
            (None, None) => "not sent".to_owned(),
        }
    }
}

fn values<'a>(headers: &'a [(String, String)], name: &'a str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// A record while it fills. What is there when time runs out stays.
pub(super) struct Recording {
    pub record: Record,
    pub began: Instant,
    keep: Keep,
    body: Vec<u8>,
    digest: Sha256,
}

impl Recording {
    pub fn new(id: &str, keep: Keep, clock: Instant) -> Self {
        let began = Instant::now();
        let record = Record { id: id.to_owned(), started_us: micros(began.duration_since(clock)), ..Record::default() };
        Self { record, began, keep, body: Vec::new(), digest: Sha256::new() }
    }

    /// The final answer's head is there.
    pub fn head<'h>(&mut self, status: u16, version: &str, headers: impl Iterator<Item = (&'h str, &'h [u8])>) {
        self.record.status = Some(status);
        self.record.version = version.to_owned();
        if self.keep == Keep::All {
            self.record.headers = headers.map(owned).collect();
        }
    }

    /// A first byte of the final answer is there.
    pub fn first_byte(&mut self) {
        self.record.first_byte_us.get_or_insert_with(|| micros(self.began.elapsed()));
    }

    /// A part of the body is there.
    pub fn data(&mut self, data: &[u8]) {
        self.record.body_bytes += data.len() as u64;
        if self.keep == Keep::Nothing {
            return;
        }
        if self.keep == Keep::All {
            self.digest.update(data);
        }
        let room = KEPT_BYTES.saturating_sub(self.body.len()).min(data.len());
        self.body.extend_from_slice(&data[..room]);
    }

    /// A trailer is there.
    pub fn trailer(&mut self, name: &str, value: &[u8]) {
        if self.keep == Keep::All {
            self.record.trailers.push(owned((name, value)));
        }
    }

    /// The end, good or bad.
    pub fn finish(mut self, result: Result<(), Failure>) -> Record {
        self.record.total_us = micros(self.began.elapsed());
        self.record.error = result.err();
        match self.keep {
            Keep::Nothing => {}
            Keep::Status => {
                self.record.seen = serde_json::from_slice::<Who>(&self.body).ok().map(|who| Seen {
                    pod: who.pod,
                    service: who.service,
                    port: who.port,
                    protocol: who.protocol,
                    ..Seen::default()
                });
            }
            Keep::All => {
                self.record.seen =
                    serde_json::from_slice::<Seen>(&self.body).ok().filter(|seen| !seen.protocol.is_empty());
                self.record.body_sha256 = hexadecimal(&self.digest.finalize());
                self.record.body = String::from_utf8_lossy(&self.body).into_owned();
            }
        }
        self.record
    }
}

fn owned((name, value): (&str, &[u8])) -> (String, String) {
    (name.to_owned(), String::from_utf8_lossy(value).into_owned())
}

/// Bytes as lower-case hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
