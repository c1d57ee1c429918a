//! When endpoints that fail are set aside: the annotations `balancer.linkerd.io/failure-accrual…` of a Service, with the defaults
//! of Linkerd's policy controller.

use std::{str::FromStr, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use linkerd2_proxy_api::outbound::{
    ExponentialBackoff, FailureAccrual,
    failure_accrual::{ConsecutiveFailures, Kind, Unified},
};

use super::{
    quantity::go_duration,
    wire::{self, annotation},
};

const MODE: &str = "balancer.linkerd.io/failure-accrual";
const CONSECUTIVE: &str = "balancer.linkerd.io/failure-accrual-consecutive";
const RATE: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate";

/// What a proxy takes; with anything else it would not take the policy at all.
const MIN_WINDOW: Duration = Duration::from_millis(10);
const MAX_MIN_REQUESTS: u32 = 1_000_000;

/// As with Linkerd, a value that cannot be turns accrual off, and says so.
pub(super) fn failure_accrual(metadata: &ObjectMeta) -> Option<FailureAccrual> {
    let mode = annotation(metadata, MODE)?;
    let kind = match mode {
        "consecutive" => consecutive(metadata).map(Kind::ConsecutiveFailures),
        "unified" => unified(metadata).map(Kind::Unified),
        other => Err(format!("expected `consecutive` or `unified`, found `{other}`")),
    };
    let kind = kind.inspect_err(|problem| {
        tracing::warn!(service = %wire::key(metadata), problem, "failure accrual is off: its annotations cannot be read");
    });
    Some(FailureAccrual { kind: Some(kind.ok()?), ..Default::default() })
}

fn consecutive(metadata: &ObjectMeta) -> Result<ConsecutiveFailures, String> {
    let (min, max) =
        (duration(metadata, CONSECUTIVE, "min-penalty", "1s")?, duration(metadata, CONSECUTIVE, "max-penalty", "1m")?);
    if min > max || max.is_zero() {
        return Err(format!(
            "expected a min-penalty of at most the max-penalty, and a max-penalty, found {min:?} and {max:?}"
        ));
    }
    let jitter_ratio = number(metadata, CONSECUTIVE, "jitter-ratio", "0.5", 0.0..=100.0)?;
    let backoff = ExponentialBackoff {
        min_backoff: min.try_into().ok(),
        max_backoff: max.try_into().ok(),
        jitter_ratio,
        ..Default::default()
    };
    let max_failures = number(metadata, CONSECUTIVE, "max-failures", "7", 0..=u32::MAX)?;
    Ok(ConsecutiveFailures { max_failures, backoff: Some(backoff) })
}

/// Either of two rules: failures in a row, or a success rate.
fn unified(metadata: &ObjectMeta) -> Result<Unified, String> {
    let ConsecutiveFailures { max_failures, backoff } = consecutive(metadata)?;
    let window = duration(metadata, RATE, "window", "10s")?;
    if window < MIN_WINDOW {
        return Err(format!("window: expected {MIN_WINDOW:?} or more, found {window:?}"));
    }
    Ok(Unified {
        success_rate_threshold: number(metadata, RATE, "threshold", "0.8", 0.0..=1.0)?,
        decay: window.try_into().ok(),
        min_requests: number(metadata, RATE, "min-requests", "5", 0..=MAX_MIN_REQUESTS)?,
        max_consecutive_failures: max_failures,
        backoff,
    })
}

fn duration(metadata: &ObjectMeta, of: &str, name: &str, default: &str) -> Result<Duration, String> {
    let text = annotation(metadata, &format!("{of}-{name}")).unwrap_or(default);
    go_duration(text).ok_or_else(|| format!("{name}: expected a duration such as `{default}`, found `{text}`"))
}

fn number<T: FromStr + PartialOrd + std::fmt::Debug>(
    metadata: &ObjectMeta,
    of: &str,
    name: &str,
    default: &str,
    range: std::ops::RangeInclusive<T>,
) -> Result<T, String> {
    let text = annotation(metadata, &format!("{of}-{name}")).unwrap_or(default);
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("{name}: expected a number in {range:?}, found `{text}`"))
}
