//! What annotations add to routes: `retry.linkerd.io/*` and `timeout.linkerd.io/*`, on a route or, for routes without any and
//! for requests that no route is for, on a Service. As in Linkerd's policy controller.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use linkerd2_proxy_api::{
    http_route::Timeouts,
    outbound::{ExponentialBackoff, grpc_route, http_route},
};

use super::{
    quantity::go_duration,
    wire::{self, annotation},
};

/// Bodies up to this long are kept for another attempt.
const MAX_REQUEST_BYTES: u32 = 64 * 1024;

/// Between attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(250));

/// Retries and timeouts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Extras {
    pub(crate) http_retry: Option<http_route::Retry>,
    pub(crate) grpc_retry: Option<grpc_route::Retry>,
    pub(crate) timeouts: Option<Timeouts>,
}

impl Extras {
    /// What an object's annotations say. One that cannot be read is left out with a warning.
    pub(crate) fn of(metadata: &ObjectMeta) -> Self {
        let warn = |problem: &String| {
            tracing::warn!(object = %wire::key(metadata), problem, "an annotation cannot be read and is left out");
        };
        Self {
            http_retry: http_retry(metadata).inspect_err(warn).ok().flatten(),
            grpc_retry: grpc_retry(metadata).inspect_err(warn).ok().flatten(),
            timeouts: timeouts(metadata).inspect_err(warn).ok().flatten(),
        }
    }
}

/// What retries have in common.
struct Limits {
    max_retries: u32,
    timeout: Option<prost_types::Duration>,
    backoff: Option<ExponentialBackoff>,
}

/// `None` if neither `conditions` nor a limit are there. A limit alone repeats what had no answer in time, or nobody to answer.
fn limits(metadata: &ObjectMeta, conditions: bool) -> Result<Option<Limits>, String> {
    let limit = annotation(metadata, "retry.linkerd.io/limit").map(|limit| {
        let read = limit.parse::<u16>();
        read.map_err(|_| format!("retry.linkerd.io/limit: expected a number, found `{limit}`"))
    });
    // No limit and none at all are the same, as with Linkerd.
    let limit = limit.transpose()?.filter(|limit| *limit != 0);
    let timeout = duration(metadata, "retry.linkerd.io/timeout")?.filter(|timeout| *timeout != Default::default());
    if !conditions && limit.is_none() && timeout.is_none() {
        return Ok(None);
    }
    let (min, max) = BACKOFF;
    Ok(Some(Limits {
        max_retries: limit.unwrap_or(1).into(),
        timeout,
        backoff: Some(ExponentialBackoff {
            min_backoff: min.try_into().ok(),
            max_backoff: max.try_into().ok(),
            jitter_ratio: 1.0,
            ..Default::default()
        }),
    }))
}

fn http_retry(metadata: &ObjectMeta) -> Result<Option<http_route::Retry>, String> {
    let conditions = annotation(metadata, "retry.linkerd.io/http");
    let Some(Limits { max_retries, timeout, backoff }) = limits(metadata, conditions.is_some())? else {
        return Ok(None);
    };
    let ranges = conditions.into_iter().flat_map(|list| list.split(',')).map(|one| statuses(one.trim()));
    let conditions = http_route::retry::Conditions { status_ranges: ranges.collect::<Result<_, _>>()? };
    let max_request_bytes = MAX_REQUEST_BYTES;
    Ok(Some(http_route::Retry { max_retries, max_request_bytes, conditions: Some(conditions), timeout, backoff }))
}

fn grpc_retry(metadata: &ObjectMeta) -> Result<Option<grpc_route::Retry>, String> {
    let list = annotation(metadata, "retry.linkerd.io/grpc");
    let Some(Limits { max_retries, timeout, backoff }) = limits(metadata, list.is_some())? else { return Ok(None) };
    let mut conditions = grpc_route::retry::Conditions::default();
    for one in list.into_iter().flat_map(|list| list.split(',')) {
        match one.trim().to_ascii_lowercase().as_str() {
            "cancelled" => conditions.cancelled = true,
            "deadline-exceeded" => conditions.deadine_exceeded = true,
            "internal" => conditions.internal = true,
            "resource-exhausted" => conditions.resource_exhausted = true,
            "unavailable" => conditions.unavailable = true,
            other => {
                return Err(format!(
                    "retry.linkerd.io/grpc: expected `cancelled`, `deadline-exceeded`, `internal`, `resource-exhausted` or \
                     `unavailable`, found `{other}`"
                ));
            }
        }
    }
    let max_request_bytes = MAX_REQUEST_BYTES;
    Ok(Some(grpc_route::Retry { max_retries, max_request_bytes, conditions: Some(conditions), timeout, backoff }))
}

/// `5xx`, `gateway-error` (502 to 504), one status or a range of them.
fn statuses(text: &str) -> Result<http_route::retry::conditions::StatusRange, String> {
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|status| (100..600).contains(status));
    let (start, end) = match &*text.to_ascii_lowercase() {
        "5xx" => (Some(500), Some(599)),
        "gateway-error" => (Some(502), Some(504)),
        _ => match text.split_once('-') {
            Some((start, end)) => (number(start), number(end)),
            None => (number(text), number(text)),
        },
    };
    let range = start.zip(end).filter(|(start, end)| start <= end);
    let (start, end) = range.ok_or_else(|| {
        format!("retry.linkerd.io/http: expected `5xx`, `gateway-error`, a status or a range of them, found `{text}`")
    })?;
    Ok(http_route::retry::conditions::StatusRange { start, end })
}

fn timeouts(metadata: &ObjectMeta) -> Result<Option<Timeouts>, String> {
    let timeouts = Timeouts {
        request: duration(metadata, "timeout.linkerd.io/request")?,
        response: duration(metadata, "timeout.linkerd.io/response")?,
        idle: duration(metadata, "timeout.linkerd.io/idle")?,
    };
    Ok((timeouts != Timeouts::default()).then_some(timeouts))
}

fn duration(metadata: &ObjectMeta, name: &str) -> Result<Option<prost_types::Duration>, String> {
    let Some(text) = annotation(metadata, name) else { return Ok(None) };
    let duration = go_duration(text).and_then(|duration| prost_types::Duration::try_from(duration).ok());
    duration.map(Some).ok_or_else(|| format!("{name}: expected a duration such as `300ms`, found `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extras(annotations: &[(&str, &str)]) -> Extras {
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Extras::of(&ObjectMeta { annotations: Some(annotations), ..Default::default() })
    }

    #[test]
    fn annotations_are_read_as_linkerd_reads_them() {
        assert_eq!(extras(&[]), Extras::default());
        let found = extras(&[
            ("retry.linkerd.io/http", "5xx,gateway-error, 429 ,408-409"),
            ("retry.linkerd.io/grpc", "Unavailable, deadline-exceeded"),
            ("retry.linkerd.io/limit", "3"),
            ("retry.linkerd.io/timeout", "400ms"),
            ("timeout.linkerd.io/request", "10s"),
        ]);
        let retry = found.http_retry.unwrap();
        let ranges: Vec<_> = retry.conditions.unwrap().status_ranges.iter().map(|it| (it.start, it.end)).collect();
        assert_eq!(ranges, [(500, 599), (502, 504), (429, 429), (408, 409)]);
        assert_eq!((retry.max_retries, retry.max_request_bytes), (3, 65_536));
        assert_eq!(retry.timeout.unwrap().nanos, 400_000_000);
        let grpc = found.grpc_retry.unwrap();
        assert_eq!((grpc.max_retries, grpc.max_request_bytes, grpc.timeout), (3, 65_536, retry.timeout));
        let expected =
            grpc_route::retry::Conditions { unavailable: true, deadine_exceeded: true, ..Default::default() };
        assert_eq!(grpc.conditions, Some(expected));
        let timeouts = found.timeouts.unwrap();
        assert_eq!((timeouts.request.unwrap().seconds, timeouts.response), (10, None));
    }

    #[test]
    fn each_protocol_has_its_conditions_and_both_have_the_limits() {
        let http = extras(&[("retry.linkerd.io/http", "5xx")]);
        assert_eq!((http.http_retry.unwrap().max_retries, http.grpc_retry), (1, None));
        let grpc = extras(&[("retry.linkerd.io/grpc", "internal")]);
        assert_eq!((grpc.http_retry, grpc.grpc_retry.unwrap().max_retries), (None, 1));
        let limit = extras(&[("retry.linkerd.io/limit", "2")]);
        let (http, grpc) = (limit.http_retry.unwrap(), limit.grpc_retry.unwrap());
        assert_eq!((http.max_retries, grpc.max_retries), (2, 2));
        assert_eq!((http.conditions, grpc.conditions), (Some(Default::default()), Some(Default::default())));
        assert_eq!(extras(&[("retry.linkerd.io/limit", "0")]), Extras::default());
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        for (key, value) in [
            ("retry.linkerd.io/http", "sometimes"),
            ("retry.linkerd.io/http", "599-500"),
            ("retry.linkerd.io/grpc", "ok"),
            ("retry.linkerd.io/limit", "many"),
            ("timeout.linkerd.io/request", "soon"),
        ] {
            assert_eq!(extras(&[(key, value)]), Extras::default(), "{key} {value}");
        }
        assert_eq!(extras(&[("retry.linkerd.io/http", "5xx"), ("retry.linkerd.io/limit", "many")]).http_retry, None);
    }
}
