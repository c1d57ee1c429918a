//! How a request bends its answer.
//!
//! | query | effect |
//! |---|---|
//! | `status=503` (or a path that ends in `/status/503`) | the status |
//! | `delay_ms=200` | waits before it answers |
//! | `bytes=1000` | a body of so many bytes instead of JSON |
//! | `chunks=3&chunk_ms=10` | a streamed body of so many lines, with a pause before each but the first |
//! | `fail_every=3` | every third request with the same host and path fails, with `status` or 503 |
//! | `close=1` | the connection is closed without an answer |
//! | `last=1` | the connection is closed after the answer, which says so |
//!
//! The path `/_slow` streams a line every 100 ms, 100 of them, unless the query says otherwise.

use std::collections::HashMap;

use parking_lot::Mutex;

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The status; 200 when none.
    pub status: Option<u16>,
    /// Milliseconds before the answer.
    pub delay_ms: u64,
    /// Length of the body.
    pub bytes: Option<usize>,
    /// Lines in a streamed body.
    pub chunks: Option<usize>,
    /// Milliseconds before each line but the first.
    pub chunk_ms: u64,
    /// Which requests fail.
    pub fail_every: Option<u64>,
    /// No answer.
    pub close: bool,
    /// No answer after this one.
    pub last: bool,
}

impl Control {
    /// Reads path and query. Names and values that are not understood are an error, which says what was expected: a typing
    /// error in a test must not pass as a plain request. Names that are none of these belong to somebody else.
    pub fn parse(path: &str, query: &str) -> Result<Self, String> {
        let mut control = Self::default();
        if path.ends_with("/_slow") {
            (control.chunks, control.chunk_ms) = (Some(100), 100);
        }
        if let Some((_, status)) = path.rsplit_once("/status/") {
            control.status = Some(self::status(status)?);
        }
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "status" => control.status = Some(self::status(&value)?),
                "delay_ms" => control.delay_ms = number(&name, &value)?,
                "bytes" => control.bytes = Some(number(&name, &value)?),
                "chunks" => control.chunks = Some(number(&name, &value)?),
                "chunk_ms" => control.chunk_ms = number(&name, &value)?,
                "fail_every" => match number(&name, &value)? {
                    0 => return Err("expected fail_every above 0, found 0".to_owned()),
                    every => control.fail_every = Some(every),
                },
                "close" => control.close = value != "0",
                "last" => control.last = value != "0",
                _ => {}
            }
        }
        Ok(control)
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("expected a number for {name}, found \"{value}\""))
}

fn status(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(status) if (200..=599).contains(&status) => Ok(status),
        _ => Err(format!("expected a status from 200 to 599, found \"{text}\"")),
    }
}

/// Counts requests per host and path, for `fail_every`.
#[derive(Default)]
pub(super) struct Counters(Mutex<HashMap<(String, String), u64>>);

impl Counters {
    /// The number of this request, from 1.
    pub fn next(&self, host: &str, path: &str) -> u64 {
        let mut counters = self.0.lock();
        let counter = counters.entry((host.to_owned(), path.to_owned())).or_default();
        *counter += 1;
        *counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_path_and_query() {
        let control = Control::parse("/x/status/503", "delay_ms=5&bytes=10&mine=1&close=0").unwrap();
        let wanted = Control { status: Some(503), delay_ms: 5, bytes: Some(10), ..Control::default() };
        assert_eq!(control, wanted);
        assert_eq!(Control::parse("/_slow", "chunks=2").unwrap().chunks, Some(2));
    }

    #[test]
    fn says_what_was_expected() {
        for (path, query) in [("/status/99", ""), ("/", "status=abc"), ("/", "delay_ms=-1"), ("/", "fail_every=0")] {
            assert!(Control::parse(path, query).unwrap_err().starts_with("expected"), "{path}?{query}");
        }
    }
}
