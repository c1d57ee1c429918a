//! How failures count in the choice among the endpoints of a Service that says that they do
//! (`balancer.alpha.linkerd.io/penalize-failures`).
//!
//! Who fails at once looks least loaded, and gets the more requests the more it fails. As with Linkerd's proxy (`linkerd/load-biaser`,
//! `linkerd/http/classify/src/retry_after.rs`), an answer that is a failure counts as one that took long instead, and as one that took even
//! longer if it says that there is no use in asking again before that.

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap, StatusCode,
    header::{HeaderName, RETRY_AFTER},
    response,
};
use linkerd2_proxy_api::outbound::backend::{BalanceP2c, balance_p2c::Load};
use tonic::Code;

use crate::classify::{grpc_status, is_grpc};

/// What gRPC has for `Retry-After` (its proposal A6), in milliseconds; less than none is never.
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Linkerd's, where the control plane says nothing.
const PENALTY: Duration = Duration::from_secs(5);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// How long failures count as having taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LoadBias {
    penalty: Duration,
    /// Up to where an answer may ask for longer.
    max_retry_after: Duration,
}

impl LoadBias {
    /// Of a backend whose failures count. What else its message says holds for all: the latency that is believed at first, and how soon
    /// latencies are forgotten, which penalties are as soon. As with Linkerd's proxy, `penalty_decay` changes nothing.
    pub(crate) fn of(balancer: &BalanceP2c) -> Option<Self> {
        let Some(Load::PenaltyPeakEwma(api)) = &balancer.load else { return None };
        Some(Self {
            penalty: duration(api.penalty, PENALTY),
            max_retry_after: duration(api.max_retry_after, MAX_RETRY_AFTER),
        })
    }

    /// How long an answer with this head counts as having taken, if not as long as it took. A gRPC code counts if there is nothing else.
    pub(super) fn of_answer(&self, head: &response::Parts) -> Option<Duration> {
        let headers = &head.headers;
        let hint = match head.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => retry_after(headers),
            status if status.is_server_error() => None,
            StatusCode::OK if is_grpc(headers) => {
                let code = grpc_status(headers)?;
                let is_one_of = |codes: &[Code]| codes.iter().any(|one| *one as u16 == code);
                if is_one_of(&[Code::ResourceExhausted, Code::Unavailable]) {
                    pushback(headers)
                } else if is_one_of(&[Code::Unknown, Code::DeadlineExceeded, Code::Internal, Code::DataLoss]) {
                    None
                } else {
                    return None;
                }
            }
            _ => return None,
        };
        // Nobody makes itself look better by it.
        Some(hint.map_or(self.penalty, |hint| hint.min(self.max_retry_after).max(self.penalty)))
    }
}

fn duration<T>(api: Option<T>, default: Duration) -> Duration
where
    Duration: TryFrom<T>,
{
    api.and_then(|it| Duration::try_from(it).ok()).unwrap_or(default)
}

/// `Retry-After` has a number of seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    // It may be over.
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

fn pushback(headers: &HeaderMap) -> Option<Duration> {
    let millis = headers.get(PUSHBACK)?.to_str().ok()?.trim().parse::<i64>().ok()?;
    u64::try_from(millis).ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use http::Response;
    use linkerd2_proxy_api::outbound::backend::balance_p2c::{PeakEwma, PenaltyPeakEwma};

    use super::*;

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    fn of(load: Option<Load>) -> Option<LoadBias> {
        LoadBias::of(&BalanceP2c { discovery: None, load })
    }

    /// How many seconds an answer counts as, where a failure is two and at most an hour may be asked for.
    fn counted(status: u16, headers: &[(&str, &str)]) -> Option<u64> {
        let api = PenaltyPeakEwma { penalty: seconds(2), max_retry_after: seconds(3600), ..Default::default() };
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let head = response.body(()).unwrap().into_parts().0;
        of(Some(Load::PenaltyPeakEwma(api)))?.of_answer(&head).map(|penalty| penalty.as_secs())
    }

    #[test]
    fn failures_count_where_it_is_said_that_they_do() {
        assert_eq!(of(None), None);
        assert_eq!(of(Some(Load::PeakEwma(PeakEwma { default_rtt: None, decay: None }))), None);
        let bias = of(Some(Load::PenaltyPeakEwma(PenaltyPeakEwma::default())));
        assert_eq!(bias, Some(LoadBias { penalty: PENALTY, max_retry_after: MAX_RETRY_AFTER }));
    }

    #[test]
    fn failures_count_as_long_and_other_answers_as_they_took() {
        for status in [200, 204, 302, 400, 404] {
            assert_eq!(counted(status, &[("retry-after", "60")]), None, "{status}");
        }
        for (status, value, expected) in [
            (429, "", 2),
            (429, "60", 60),
            (503, " 60 ", 60),
            (503, "1", 2),
            (503, "86400", 3600),
            (503, "soon", 2),
            (429, "Fri, 31 Dec 1999 23:59:59 GMT", 2),
            (429, "Fri, 31 Dec 9999 23:59:59 GMT", 3600),
            // Nobody is told to come back to what is broken.
            (500, "60", 2),
            (504, "60", 2),
        ] {
            assert_eq!(counted(status, &[("retry-after", value)]), Some(expected), "{status} {value:?}");
        }
        assert_eq!(counted(503, &[]), Some(2));
        assert_eq!(counted(503, &[("grpc-retry-pushback-ms", "60000")]), Some(2));
    }

    #[test]
    fn codes_count_if_there_is_nothing_else() {
        let of_code = |code, pushback| {
            let headers =
                [("content-type", "application/grpc"), ("grpc-status", code), ("grpc-retry-pushback-ms", pushback)];
            counted(200, &headers)
        };
        for (code, pushback, expected) in [
            ("0", "60000", None),
            ("8", "", Some(2)),
            ("8", "60000", Some(60)),
            ("14", "60000", Some(60)),
            ("14", "-1", Some(2)),
            ("2", "60000", Some(2)),
            ("4", "", Some(2)),
            ("13", "", Some(2)),
            ("15", "", Some(2)),
            ("5", "", None),
            ("7", "", None),
            ("99", "", None),
            ("none", "", None),
        ] {
            assert_eq!(of_code(code, pushback), expected, "{code} {pushback}");
        }
        // What is not gRPC may call its headers as it likes.
        assert_eq!(counted(200, &[("grpc-status", "14")]), None);
    }
}
