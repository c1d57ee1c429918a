//! What annotations add to routes: `retry.linkerd.io/*` and `timeout.linkerd.io/*`, on an HTTPRoute or, for the requests that no
//! route is for, on a Service. As in Linkerd's policy controller.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use linkerd2_proxy_api::{
    http_route::Timeouts,
    outbound::{
        ExponentialBackoff,
        http_route::{Retry, retry},
    },
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
    pub(crate) retry: Option<Retry>,
    pub(crate) timeouts: Option<Timeouts>,
}

impl Extras {
    /// What an object's annotations say. One that cannot be read is left out with a warning.
    pub(crate) fn of(metadata: &ObjectMeta) -> Self {
        let warn = |problem: &String| {
            tracing::warn!(object = %wire::key(metadata), problem, "an annotation cannot be read and is left out");
        };
        Self {
            retry: retry(metadata).inspect_err(warn).ok().flatten(),
            timeouts: timeouts(metadata).inspect_err(warn).ok().flatten(),
        }
    }
}

fn retry(metadata: &ObjectMeta) -> Result<Option<Retry>, String> {
    let Some(conditions) = annotation(metadata, "retry.linkerd.io/http") else { return Ok(None) };
    let status_ranges = conditions.split(',').map(|one| statuses(one.trim())).collect::<Result<_, _>>()?;
    let limit = annotation(metadata, "retry.linkerd.io/limit").unwrap_or("1");
    let (min, max) = BACKOFF;
    Ok(Some(Retry {
        max_retries: limit
            .parse()
            .map_err(|_| format!("retry.linkerd.io/limit: expected a number, found `{limit}`"))?,
        max_request_bytes: MAX_REQUEST_BYTES,
        conditions: Some(retry::Conditions { status_ranges }),
        timeout: duration(metadata, "retry.linkerd.io/timeout")?,
        backoff: Some(ExponentialBackoff {
            min_backoff: min.try_into().ok(),
            max_backoff: max.try_into().ok(),
            jitter_ratio: 1.0,
            ..Default::default()
        }),
    }))
}

/// `5xx`, `gateway-error` (502 to 504), one status or a range of them.
fn statuses(text: &str) -> Result<retry::conditions::StatusRange, String> {
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|status| (100..600).contains(status));
    let (start, end) = match text {
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
    Ok(retry::conditions::StatusRange { start, end })
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
            ("retry.linkerd.io/limit", "3"),
            ("retry.linkerd.io/timeout", "400ms"),
            ("timeout.linkerd.io/request", "10s"),
        ]);
        let retry = found.retry.unwrap();
        let ranges: Vec<_> = retry.conditions.unwrap().status_ranges.iter().map(|it| (it.start, it.end)).collect();
        assert_eq!(ranges, [(500, 599), (502, 504), (429, 429), (408, 409)]);
        assert_eq!((retry.max_retries, retry.max_request_bytes), (3, 65_536));
        assert_eq!(retry.timeout.unwrap().nanos, 400_000_000);
        let timeouts = found.timeouts.unwrap();
        assert_eq!((timeouts.request.unwrap().seconds, timeouts.response), (10, None));
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        for (key, value) in [
            ("retry.linkerd.io/http", "sometimes"),
            ("retry.linkerd.io/http", "599-500"),
            ("timeout.linkerd.io/request", "soon"),
        ] {
            assert_eq!(extras(&[(key, value)]), Extras::default(), "{key} {value}");
        }
        assert_eq!(extras(&[("retry.linkerd.io/http", "5xx"), ("retry.linkerd.io/limit", "many")]).retry, None);
    }
}
