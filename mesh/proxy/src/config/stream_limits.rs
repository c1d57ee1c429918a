//! How long the control plane's streams may say nothing, and how long they may last.

use std::time::Duration;

use super::{
    Strings,
    parse::{self, Reader},
};

/// The limits of one stream; `None` is none. As in Linkerd's proxy (`linkerd/app/src/env/control.rs`) there is none by default, and
/// those that its chart sets are 3 s, 5 min and 1 h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamLimits {
    /// `LINKERD2_PROXY_CONTROL_STREAM_INITIAL_TIMEOUT`: until the first message has come. Where it is not set, `idle` holds.
    pub initial: Option<Duration>,
    /// `LINKERD2_PROXY_CONTROL_STREAM_IDLE_TIMEOUT`: between two messages.
    pub idle: Option<Duration>,
    /// `LINKERD2_PROXY_CONTROL_STREAM_LIFETIME`: in all. The next stream may be one of another replica of the control plane.
    pub lifetime: Option<Duration>,
}

const INITIAL: &str = "LINKERD2_PROXY_CONTROL_STREAM_INITIAL_TIMEOUT";
const IDLE: &str = "LINKERD2_PROXY_CONTROL_STREAM_IDLE_TIMEOUT";
const LIFETIME: &str = "LINKERD2_PROXY_CONTROL_STREAM_LIFETIME";

impl StreamLimits {
    /// A longer limit that follows from a shorter one is a mistake, as in Linkerd.
    pub(super) fn read(read: &mut Reader<'_, impl Strings>) -> Self {
        let mut limit = |name| read.optional(name, parse::DURATION, parse::duration);
        let limits = Self { initial: limit(INITIAL), idle: limit(IDLE), lifetime: limit(LIFETIME) };
        for (name, shorter, expected, longer) in [
            (INITIAL, limits.initial, "no more than LINKERD2_PROXY_CONTROL_STREAM_IDLE_TIMEOUT", limits.idle),
            (INITIAL, limits.initial, "no more than LINKERD2_PROXY_CONTROL_STREAM_LIFETIME", limits.lifetime),
            (IDLE, limits.idle, "no more than LINKERD2_PROXY_CONTROL_STREAM_LIFETIME", limits.lifetime),
        ] {
            if let (Some(shorter), Some(longer)) = (shorter, longer)
                && shorter > longer
            {
                read.refuse(name, expected);
            }
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn read(values: [&str; 3]) -> Result<StreamLimits, String> {
        let names = [INITIAL, IDLE, LIFETIME].map(str::to_owned);
        let strings: HashMap<_, _> = names.into_iter().zip(values.map(str::to_owned)).collect();
        let mut reader = Reader::new(&strings);
        let limits = StreamLimits::read(&mut reader);
        reader.finish(limits).map_err(|errors| errors.to_string())
    }

    #[test]
    fn each_is_as_long_as_the_one_before_it_or_longer() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let chart = StreamLimits { initial: seconds(3), idle: seconds(300), lifetime: seconds(3600) };
        assert_eq!(read(["3s", "5m", "1h"]), Ok(chart));
        assert_eq!(read(["", "", ""]), Ok(StreamLimits::default()), "as the chart writes what is not set");
        for (wrong, name) in [(["3s", "1s", ""], INITIAL), (["3s", "", "1s"], INITIAL), (["", "3s", "1s"], IDLE)] {
            let error = read(wrong).unwrap_err();
            assert!(error.contains(&format!("{name}: expected no more than LINKERD2_")), "{error}");
        }
    }
}
