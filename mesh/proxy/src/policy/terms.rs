//! How long the requests of a rule may take, and when they are sent again; and what a request says of that itself.
//!
//! Headers such as `l5d-retry-limit` count where the policy says so (`allow_l5d_request_headers`), and go no further then. They are read as
//! Linkerd's proxy reads them (`linkerd/app/outbound/src/http/logical/policy/route/extensions.rs`): a value that means nothing is passed
//! over, and so is each condition that does among several.

use std::{ops::RangeInclusive, time::Duration};

use http::{HeaderMap, HeaderName};
use linkerd2_proxy_api::http_route::Timeouts;
use tonic::Code;

use super::{
    LONGEST, duration,
    retry::{Retry, RetryWishes},
};
use crate::{config::read_duration, http::AttemptLimits};

const TIMEOUT: HeaderName = HeaderName::from_static("l5d-timeout");
/// The same, said in full. It goes before the other.
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("l5d-request-timeout");
const RESPONSE_TIMEOUT: HeaderName = HeaderName::from_static("l5d-response-timeout");
const RETRY_HTTP: HeaderName = HeaderName::from_static("l5d-retry-http");
const RETRY_GRPC: HeaderName = HeaderName::from_static("l5d-retry-grpc");
const RETRY_LIMIT: HeaderName = HeaderName::from_static("l5d-retry-limit");
const RETRY_TIMEOUT: HeaderName = HeaderName::from_static("l5d-retry-timeout");

/// What holds for the requests of a rule, or for one of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Terms {
    /// How long a request may take to the end of its response, over all attempts.
    pub(crate) timeout: Option<Duration>,
    response: Option<Duration>,
    idle: Option<Duration>,
    pub(crate) retry: Option<Retry>,
}

impl Terms {
    pub(super) fn of(api: Option<&Timeouts>, retry: Option<Retry>) -> Self {
        Self {
            timeout: api.and_then(|timeouts| duration(timeouts.request)),
            response: api.and_then(|timeouts| duration(timeouts.response)),
            idle: api.and_then(|timeouts| duration(timeouts.idle)),
            retry,
        }
    }

    /// The limits of an attempt that so many came before.
    pub(crate) fn limits(&self, retries: u32) -> AttemptLimits {
        let head = self.retry.as_ref().and_then(|retry| retry.patience(retries));
        AttemptLimits { head, response: self.response, idle: self.idle }
    }

    /// What holds for a request with these headers, of which those that speak of it are taken out; `None` if they say nothing else.
    pub(super) fn of_request(&self, headers: &mut HeaderMap) -> Option<Box<Self>> {
        let short = take(headers, TIMEOUT, time);
        let timeout = take(headers, REQUEST_TIMEOUT, time).or(short);
        let response = take(headers, RESPONSE_TIMEOUT, time);
        let wishes = RetryWishes {
            limit: take(headers, RETRY_LIMIT, limit),
            timeout: take(headers, RETRY_TIMEOUT, time),
            statuses: take(headers, RETRY_HTTP, |list| Some(list.split(',').filter_map(statuses).collect())),
            codes: take(headers, RETRY_GRPC, |list| Some(list.split(',').filter_map(code).collect())),
        };
        if timeout.is_none() && response.is_none() && wishes == RetryWishes::default() {
            return None;
        }
        Some(Box::new(Self {
            timeout: timeout.or(self.timeout),
            response: response.or(self.response),
            idle: self.idle,
            retry: wishes.on(self.retry.as_ref()),
        }))
    }
}

/// Removes a header, and reads it.
fn take<T>(headers: &mut HeaderMap, name: HeaderName, read: impl Fn(&str) -> Option<T>) -> Option<T> {
    let value = headers.remove(name)?;
    read(value.to_str().ok()?)
}

/// As `5s` or `100ms`; only zero needs no unit. Different from zero in a policy, this one is no time at all, as with Linkerd's proxy.
fn time(text: &str) -> Option<Duration> {
    let text = text.trim();
    let is_zero = !text.is_empty() && text.bytes().all(|digit| digit == b'0');
    let read = if is_zero { Some(Duration::ZERO) } else { read_duration(text) };
    read.map(|time| time.min(LONGEST))
}

fn limit(text: &str) -> Option<u32> {
    text.parse::<usize>().ok().map(|limit| u32::try_from(limit).unwrap_or(u32::MAX))
}

/// `5xx`, `gateway-error`, one status or a range of them.
fn statuses(text: &str) -> Option<RangeInclusive<u16>> {
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| (100..600).contains(status));
    if text.eq_ignore_ascii_case("5xx") {
        return Some(500..=599);
    }
    if text.eq_ignore_ascii_case("gateway-error") {
        return Some(502..=504);
    }
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end) = (status(start)?, status(end)?);
    (start <= end).then_some(start..=end)
}

fn code(text: &str) -> Option<u32> {
    let code = match &*text.to_ascii_lowercase() {
        "cancelled" => Code::Cancelled,
        "deadline-exceeded" => Code::DeadlineExceeded,
        "internal" => Code::Internal,
        "resource-exhausted" => Code::ResourceExhausted,
        "unavailable" => Code::Unavailable,
        _ => return None,
    };
    Some(code as u32)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(said: &[(&'static str, &'static str)]) -> HeaderMap {
        said.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    /// The terms of a request that says this, and what is left of its headers.
    fn of_request(rule: &Terms, said: &[(&'static str, &'static str)]) -> (Option<Terms>, HeaderMap) {
        let mut headers = headers(said);
        let terms = rule.of_request(&mut headers);
        (terms.map(|terms| *terms), headers)
    }

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn a_request_says_its_own_times() {
        let rule = Terms { timeout: seconds(1), response: seconds(2), idle: seconds(3), retry: None };
        for (said, timeout, response) in [
            (&[("l5d-timeout", "5s")][..], seconds(5), seconds(2)),
            (&[("l5d-request-timeout", "2m"), ("l5d-timeout", "5s")], seconds(120), seconds(2)),
            (&[("l5d-request-timeout", "soon"), ("l5d-timeout", "5s")], seconds(5), seconds(2)),
            (&[("l5d-response-timeout", "0")], seconds(1), seconds(0)),
            (&[("l5d-response-timeout", "99999999d")], seconds(1), Some(LONGEST)),
        ] {
            let (terms, left) = of_request(&rule, said);
            assert_eq!(terms, Some(Terms { timeout, response, ..rule.clone() }), "{said:?}");
            assert!(left.is_empty(), "{left:?}");
        }
        for wrong in ["5", "5.5s", "1h30m", "-1s", "5w", "s", ""] {
            let (terms, left) = of_request(&rule, &[("l5d-timeout", wrong), ("x-other", "5s")]);
            assert_eq!((terms, left), (None, headers(&[("x-other", "5s")])), "{wrong:?}");
        }
    }

    #[test]
    fn a_request_says_when_it_is_sent_again() {
        let retry =
            |said: &[(&'static str, &'static str)]| of_request(&Terms::default(), said).0.and_then(|terms| terms.retry);
        let wished = |wishes: RetryWishes| wishes.on(None);
        for (said, wishes) in [
            (("l5d-retry-limit", "3"), RetryWishes { limit: Some(3), ..Default::default() }),
            (("l5d-retry-limit", "99999999999"), RetryWishes { limit: Some(u32::MAX), ..Default::default() }),
            (
                ("l5d-retry-timeout", "100ms"),
                RetryWishes { timeout: Some(Duration::from_millis(100)), ..Default::default() },
            ),
            (
                ("l5d-retry-http", "5XX,gateway-error,429,400-404"),
                RetryWishes { statuses: Some(vec![500..=599, 502..=504, 429..=429, 400..=404]), ..Default::default() },
            ),
            // Nothing of the list is known, but it takes the place of the rule's all the same.
            (
                ("l5d-retry-http", "often, 5xx,600,99,504-500,5-"),
                RetryWishes { statuses: Some(Vec::new()), ..Default::default() },
            ),
            (
                ("l5d-retry-grpc", "Unavailable,cancelled,internal,deadline-exceeded,resource-exhausted,unknown,14"),
                RetryWishes { codes: Some(vec![14, 1, 13, 4, 8]), ..Default::default() },
            ),
        ] {
            assert_eq!(retry(&[said]), wished(wishes), "{said:?}");
        }
        for wrong in [("l5d-retry-limit", "-1"), ("l5d-retry-limit", "some"), ("l5d-retry-timeout", "1")] {
            assert_eq!(retry(&[wrong]), None, "{wrong:?}");
        }
        let mut bytes = HeaderMap::from_iter([(RETRY_HTTP, HeaderValue::from_bytes(b"5xx\xff").unwrap())]);
        assert_eq!(Terms::default().of_request(&mut bytes), None, "what is no text is no list");
        assert!(bytes.is_empty());
    }
}
