//! Times as objects carry them: RFC 3339 in UTC, whole seconds.

use std::time::Duration;

use jiff::Timestamp;

/// Now.
pub(crate) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// How long until `seconds` after `since` have passed; `None` when they have (or `since` is no time).
pub(crate) fn left(since: &str, seconds: i64) -> Option<Duration> {
    let since: Timestamp = since.parse().ok()?;
    let due = Timestamp::from_second(since.as_second().saturating_add(seconds)).ok()?;
    let left = due.as_millisecond() - Timestamp::now().as_millisecond();
    u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_millis)
}
