//! How answers that say "not now" count in the choice of endpoints: the annotations `balancer.alpha.linkerd.io/penalize-failures` and
//! `balancer.alpha.linkerd.io/load-biaser-…` of a Service, with the defaults of Linkerd's policy controller.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    quantity::go_duration,
    wire::{self, annotation},
};

const ENABLED: &str = "balancer.alpha.linkerd.io/penalize-failures";
const PENALTY: &str = "balancer.alpha.linkerd.io/load-biaser-penalty";
const MAX_RETRY_AFTER: &str = "balancer.alpha.linkerd.io/load-biaser-max-retry-after";

/// Where proxies count a penalty, in milliseconds.
const MAX_PENALTY: Duration = Duration::from_millis(u32::MAX as u64);

/// An endpoint that answers 429 or `RESOURCE_EXHAUSTED` counts as one that took long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoadBias {
    /// How long such an answer counts as having taken.
    pub(crate) penalty: Duration,
    /// Up to where an answer may ask for longer by `Retry-After`.
    pub(crate) max_retry_after: Duration,
}

/// `None` unless it is asked for. As with Linkerd, a value that cannot be turns it off, and says so.
pub(super) fn load_bias(metadata: &ObjectMeta) -> Option<LoadBias> {
    let read = read(metadata).inspect_err(|problem| {
        tracing::warn!(service = %wire::key(metadata), problem, "failures are not penalized: the annotations cannot be read");
    });
    read.ok().flatten()
}

fn read(metadata: &ObjectMeta) -> Result<Option<LoadBias>, String> {
    // The words of Go's `strconv.ParseBool`, by which Linkerd reads annotations.
    match annotation(metadata, ENABLED) {
        None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => return Ok(None),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => {}
        Some(other) => return Err(format!("{ENABLED}: expected `true` or `false`, found `{other}`")),
    }
    let penalty = duration(metadata, PENALTY, "5s")?;
    if penalty > MAX_PENALTY {
        return Err(format!("{PENALTY}: expected at most {MAX_PENALTY:?}, found {penalty:?}"));
    }
    Ok(Some(LoadBias { penalty, max_retry_after: duration(metadata, MAX_RETRY_AFTER, "300s")? }))
}

fn duration(metadata: &ObjectMeta, name: &str, default: &str) -> Result<Duration, String> {
    let text = annotation(metadata, name).unwrap_or(default);
    go_duration(text).ok_or_else(|| format!("{name}: expected a duration such as `5s`, found `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bias(annotations: &[(&str, &str)]) -> Option<LoadBias> {
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        load_bias(&ObjectMeta { annotations: Some(annotations), ..Default::default() })
    }

    #[test]
    fn it_is_on_where_it_is_asked_for() {
        let seconds = |penalty, max_retry_after| {
            let (penalty, max_retry_after) = (Duration::from_secs(penalty), Duration::from_secs(max_retry_after));
            Some(LoadBias { penalty, max_retry_after })
        };
        for (annotations, want) in [
            (&[][..], None),
            (&[(ENABLED, "false")], None),
            (&[(PENALTY, "3s")], None),
            (&[(ENABLED, "true")], seconds(5, 300)),
            (&[(ENABLED, "1"), (PENALTY, "3s"), (MAX_RETRY_AFTER, "1m")], seconds(3, 60)),
            (&[(ENABLED, "yes")], None),
            (&[(ENABLED, "true"), (PENALTY, "long")], None),
            (&[(ENABLED, "true"), (PENALTY, "1200h")], None),
        ] {
            assert_eq!(bias(annotations), want, "{annotations:?}");
        }
    }
}
