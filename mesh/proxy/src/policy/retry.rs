//! When and how often a policy's route sends a request again.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use http::{Response, header::HeaderName};
use linkerd2_proxy_api::outbound::{ExponentialBackoff, grpc_route as grpc, http_route as http_api};
use rand::Rng;
use tonic::Code;

use super::duration;
use crate::{
    classify::{grpc_code, is_grpc},
    connect::ConnectError,
    http::{Overdue, ProxyError, ResponseBody, h2_error},
    metrics::{ByHost, Counter, HostName, Labels, RetryFamilies},
    retry::MAX_BODY,
};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The retries of one rule, or of a request that says itself what it wants.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Retry {
    limit: u32,
    /// A longer body is sent once.
    pub(crate) max_body: usize,
    /// For the head of one attempt's response, unless the attempt is the last.
    timeout: Option<Duration>,
    statuses: Vec<RangeInclusive<u16>>,
    codes: Vec<u32>,
    backoff: (Duration, Duration, f64),
}

/// What one request says of its retries, as far as it does.
#[derive(Debug, Default, PartialEq)]
pub(super) struct RetryWishes {
    pub(super) limit: Option<u32>,
    pub(super) timeout: Option<Duration>,
    pub(super) statuses: Option<Vec<RangeInclusive<u16>>>,
    pub(super) codes: Option<Vec<u32>>,
}

/// The series of a route that retries.
pub(crate) struct RetryCounters {
    pub(crate) requests: Arc<Counter>,
    pub(crate) successes: Arc<Counter>,
    pub(crate) limit_exceeded: Arc<Counter>,
    /// Bodies that were too long to be sent again.
    pub(crate) overflow: Arc<Counter>,
}

/// The series of a rule some of whose requests may be sent again.
pub(super) struct RetrySeries(ByHost<RetryCounters>);

impl RetrySeries {
    /// `route` are the labels of the route and its parent.
    pub(super) fn of(families: &RetryFamilies, route: &Labels) -> Self {
        let (families, route) = (families.clone(), route.clone());
        let hosts = families.hosts.clone();
        Self(ByHost::new(&hosts, move |host| {
            Arc::new(RetryCounters::hold(&families, &route.clone().with("hostname", host)))
        }))
    }

    /// Those of requests for a host. They are there from the first time that somebody asks.
    pub(super) fn counters(&self, host: Option<&HostName>) -> Arc<RetryCounters> {
        self.0.of(host)
    }
}

impl RetryCounters {
    fn hold(families: &RetryFamilies, labels: &Labels) -> Self {
        Self {
            requests: families.requests.hold(labels),
            successes: families.successes.hold(labels),
            limit_exceeded: families.limit_exceeded.hold(labels),
            overflow: families.overflow.hold(labels),
        }
    }
}

impl Retry {
    pub(super) fn of_http(api: &http_api::Retry) -> Self {
        let ranges = api.conditions.iter().flat_map(|conditions| &conditions.status_ranges);
        let statuses =
            ranges.filter_map(|range| Some(u16::try_from(range.start).ok()?..=u16::try_from(range.end).ok()?));
        Self {
            statuses: statuses.collect(),
            ..Self::new(api.max_retries, api.max_request_bytes, duration(api.timeout), &api.backoff)
        }
    }

    pub(super) fn of_grpc(api: &grpc::Retry) -> Self {
        let conditions = api.conditions.unwrap_or_default();
        let codes = [
            (conditions.cancelled, Code::Cancelled),
            (conditions.deadine_exceeded, Code::DeadlineExceeded),
            (conditions.resource_exhausted, Code::ResourceExhausted),
            (conditions.internal, Code::Internal),
            (conditions.unavailable, Code::Unavailable),
        ];
        let codes = codes.into_iter().filter_map(|(retried, code)| retried.then_some(code as u32)).collect();
        Self { codes, ..Self::new(api.max_retries, api.max_request_bytes, duration(api.timeout), &api.backoff) }
    }

    fn new(limit: u32, max_body: u32, timeout: Option<Duration>, backoff: &Option<ExponentialBackoff>) -> Self {
        let backoff = backoff.as_ref();
        let min = backoff.and_then(|it| duration(it.min_backoff)).unwrap_or_default();
        let max = backoff.and_then(|it| duration(it.max_backoff)).unwrap_or(min).max(min);
        let jitter = backoff.map_or(0.0, |it| f64::from(it.jitter_ratio).max(0.0));
        Self {
            limit,
            max_body: max_body as usize,
            timeout,
            statuses: Vec::new(),
            codes: Vec::new(),
            backoff: (min, max, jitter),
        }
    }

    /// Whether another attempt is allowed after this many.
    pub(crate) fn allows(&self, retries: u32) -> bool {
        retries < self.limit
    }

    /// How long the head of a response is awaited after this many. As with Linkerd's proxy, the last attempt is not given up, since no
    /// other comes after it; but the first one is even if it is the only one.
    pub(crate) fn patience(&self, retries: u32) -> Option<Duration> {
        self.timeout.filter(|_| retries == 0 || self.allows(retries))
    }

    /// Waits until it is known whether a response is to be asked for again, for as long as it takes to know.
    pub(crate) async fn look(&self, response: &mut Response<ResponseBody>) {
        let in_head = response.headers().contains_key(GRPC_STATUS);
        if !self.codes.is_empty() && !in_head && is_grpc(response.headers()) {
            response.body_mut().peek().await;
        }
    }

    /// Whether another attempt might go better. As with Linkerd's, one without an answer in time or without an endpoint counts too.
    pub(crate) fn applies(&self, result: Result<&Response<ResponseBody>, &ProxyError>) -> bool {
        match result {
            Ok(response) => {
                let code = grpc_code(response.headers()).or_else(|| grpc_code(response.body().trailers()?));
                code.is_some_and(|code| self.codes.contains(&(code as u32)))
                    || self.is_retried(response.status().as_u16())
            }
            // That the response takes too long as a whole is not a reason to have it take as long again.
            Err(ProxyError::FailFast(_) | ProxyError::Overdue(Overdue::Head(_))) => true,
            Err(ProxyError::Connect(error)) => {
                !matches!(error, ConnectError::Itself { .. } | ConnectError::Identity { .. })
            }
            Err(ProxyError::Broken(error)) => {
                h2_error(error).and_then(h2::Error::reason) == Some(h2::Reason::REFUSED_STREAM)
            }
            Err(_) => false,
        }
    }

    fn is_retried(&self, status: u16) -> bool {
        self.statuses.iter().any(|range| range.contains(&status))
    }

    /// How long to wait after this many attempts that failed.
    pub(crate) fn backoff(&self, retries: u32) -> Duration {
        let (min, max, jitter) = self.backoff;
        let plain = min.saturating_mul(1 << retries.min(16)).min(max);
        plain + plain.mul_f64(jitter * rand::rng().random::<f64>())
    }
}

impl RetryWishes {
    /// What comes of them where the rule has these retries. Where it has none they are for what Linkerd's proxy takes for granted then: one
    /// retry, of bodies of up to 64 KiB. Without conditions it is for requests that had no answer in time, or nobody to answer.
    pub(super) fn on(self, rule: Option<&Retry>) -> Option<Retry> {
        let mut retry = match rule {
            Some(rule) => rule.clone(),
            None if self == Self::default() => return None,
            None => Retry {
                limit: 1,
                max_body: MAX_BODY,
                timeout: None,
                statuses: Vec::new(),
                codes: Vec::new(),
                backoff: (Duration::from_millis(25), Duration::from_millis(250), 1.0),
            },
        };
        retry.limit = self.limit.unwrap_or(retry.limit);
        retry.timeout = self.timeout.or(retry.timeout);
        retry.statuses = self.statuses.unwrap_or(retry.statuses);
        retry.codes = self.codes.unwrap_or(retry.codes);
        Some(retry)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn what_is_retried_is_what_the_route_says() {
        let ranges = vec![http_api::retry::conditions::StatusRange { start: 502, end: 504 }];
        let http = Retry::of_http(&http_api::Retry {
            max_retries: 2,
            max_request_bytes: 1024,
            conditions: Some(http_api::retry::Conditions { status_ranges: ranges }),
            ..Default::default()
        });
        let grpc = Retry::of_grpc(&grpc::Retry {
            conditions: Some(grpc::retry::Conditions { unavailable: true, ..Default::default() }),
            ..Default::default()
        });
        let answer = |status: u16, code: Option<&'static str>| {
            let mut response = Response::new(ResponseBody::empty());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some(code) = code {
                response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
                response.headers_mut().insert(GRPC_STATUS, code.parse().unwrap());
            }
            Ok::<_, ProxyError>(response)
        };
        for (status, code, by_http, by_grpc) in [
            (200, None, false, false),
            (500, None, false, false),
            (503, None, true, false),
            (503, Some("2"), true, false),
            (200, Some("14"), false, true),
            (200, Some("13"), false, false),
        ] {
            let found = (http.applies(answer(status, code).as_ref()), grpc.applies(answer(status, code).as_ref()));
            assert_eq!(found, (by_http, by_grpc), "{status} {code:?}");
        }
        assert!(http.applies(Err(&ProxyError::Overdue(Overdue::Head(Duration::ZERO)))));
        for overdue in [Overdue::Stream(Duration::ZERO), Overdue::Idle(Duration::ZERO)] {
            assert!(!http.applies(Err(&ProxyError::Overdue(overdue))), "{overdue:?}");
        }
        assert!(!http.applies(Err(&ProxyError::Malformed("it is"))));
        assert!(http.allows(1) && !http.allows(2));
    }

    #[test]
    fn the_last_attempt_is_not_given_up() {
        let second = Some(Duration::from_secs(1));
        let patience = |max_retries| {
            let timeout = Some(prost_types::Duration { seconds: 1, nanos: 0 });
            let retry = Retry::of_http(&http_api::Retry { max_retries, timeout, ..Default::default() });
            [0, 1, 2].map(|retries| retry.patience(retries))
        };
        assert_eq!(patience(2), [second, second, None]);
        assert_eq!(patience(0), [second, None, None]);
    }

    #[test]
    fn a_request_wishes_what_its_rule_does_not_say() {
        let rule = Retry::of_http(&http_api::Retry { max_retries: 3, max_request_bytes: 10, ..Default::default() });
        assert_eq!(RetryWishes::default().on(None), None);
        assert_eq!(RetryWishes::default().on(Some(&rule)).as_ref(), Some(&rule));

        let wishes = || RetryWishes { statuses: Some(vec![500..=599]), ..Default::default() };
        let own = wishes().on(None).unwrap();
        assert_eq!((own.limit, own.max_body, &own.statuses[..]), (1, MAX_BODY, &[500..=599][..]));
        let longest = Duration::from_millis(500);
        assert!((0..100).all(|retries| own.backoff(retries) <= longest));

        let both = RetryWishes { limit: Some(7), ..wishes() }.on(Some(&rule)).unwrap();
        assert_eq!(both, Retry { limit: 7, statuses: vec![500..=599], ..rule });
    }
}
