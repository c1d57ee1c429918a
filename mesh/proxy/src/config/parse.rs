//! Reading variables, and remembering what is wrong with them.

use std::{ops::RangeInclusive, str::FromStr, time::Duration};

use rustls::pki_types::DnsName;

use super::{ConfigError, ConfigErrors, KeepAlive, Strings};

pub(super) const DURATION: &str = "a duration with a unit such as `1s` or `100ms`";

/// Reads variables one after the other.
pub(super) struct Reader<'a, S> {
    strings: &'a S,
    errors: Vec<ConfigError>,
}

impl<'a, S: Strings> Reader<'a, S> {
    pub(super) fn new(strings: &'a S) -> Self {
        Self { strings, errors: Vec::new() }
    }

    /// `config` if nothing was wrong.
    pub(super) fn finish<T>(self, config: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() { Ok(config) } else { Err(ConfigErrors(self.errors)) }
    }

    /// A variable that may be absent or empty.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let found = self.strings.get(name).filter(|value| !value.trim().is_empty())?;
        let parsed = parse(found.trim());
        if parsed.is_none() {
            self.errors.push(ConfigError::Invalid { name, expected, found });
        }
        parsed
    }

    /// A variable with a default.
    pub(super) fn or<T>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
        default: T,
    ) -> T {
        self.optional(name, expected, parse).unwrap_or(default)
    }

    /// A variable that must be there. What is returned when it is not never gets past [`Reader::finish`].
    pub(super) fn required<T: Default>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        if self.strings.get(name).is_none_or(|value| value.trim().is_empty()) {
            self.errors.push(ConfigError::Missing { name, expected });
            return T::default();
        }
        self.optional(name, expected, parse).unwrap_or_default()
    }

    /// A list with commas between its items. The default is for a variable that is not set; an empty one is an empty list.
    pub(super) fn list<T: Clone>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
        default: &[T],
    ) -> Vec<T> {
        let Some(found) = self.strings.get(name) else { return default.to_vec() };
        let items = found.split(',').map(str::trim).filter(|item| !item.is_empty());
        match items.map(parse).collect() {
            Some(list) => list,
            None => {
                self.errors.push(ConfigError::Invalid { name, expected, found });
                Vec::new()
            }
        }
    }

    /// A variable that must be there, beside others, and is not.
    pub(super) fn miss(&mut self, name: &'static str, expected: &'static str) {
        self.errors.push(ConfigError::Missing { name, expected });
    }

    /// A value that was read and yet means nothing, beside others.
    pub(super) fn refuse(&mut self, name: &'static str, expected: &'static str) {
        let found = self.strings.get(name).unwrap_or_default();
        self.errors.push(ConfigError::Invalid { name, expected, found });
    }

    pub(super) fn duration(&mut self, name: &'static str, default_millis: u64) -> Duration {
        self.or(name, DURATION, duration, Duration::from_millis(default_millis))
    }

    /// Two durations, of which either of zero means that there is no such thing: no answer comes in no time.
    pub(super) fn keep_alive(&mut self, interval: &'static str, timeout: &'static str) -> Option<KeepAlive> {
        let keep_alive =
            KeepAlive { interval: self.duration(interval, 10_000), timeout: self.duration(timeout, 3_000) };
        let is_none = keep_alive.interval.is_zero() || keep_alive.timeout.is_zero();
        (!is_none).then_some(keep_alive)
    }
}

pub(super) fn from_str<T: FromStr>(value: &str) -> Option<T> {
    value.parse().ok()
}

pub(super) fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "enabled" => Some(true),
        "false" | "0" | "no" | "disabled" => Some(false),
        _ => None,
    }
}

pub(super) fn on_off(value: &str) -> Option<bool> {
    match value {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

pub(super) fn number(value: &str) -> Option<u32> {
    match value.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => value.parse().ok(),
    }
}

pub(super) fn ports(value: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = value.split_once('-').unwrap_or((value, value));
    Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
}

pub(super) fn suffix(value: &str) -> Option<String> {
    Some(value.trim_matches('.').to_ascii_lowercase())
}

/// `host:port`; the port is needed.
pub(super) fn authority(value: &str) -> Option<String> {
    let authority = http::uri::Authority::try_from(value).ok()?;
    (authority.port_u16().is_some() && !authority.host().is_empty()).then(|| value.to_owned())
}

/// A name of the kind that identities are.
pub(super) fn dns_name(value: &str) -> Option<DnsName<'static>> {
    DnsName::try_from(value).ok().map(|name| name.to_owned())
}

pub(crate) fn duration(value: &str) -> Option<Duration> {
    let digits = value.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = value.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(millis)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(duration("2m"), Some(Duration::from_secs(120)));
        for wrong in ["10", "", "s", "-1s", "1.5s", "1w", "99999999999999999999s"] {
            assert_eq!(duration(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn control_planes_have_a_host_and_a_port() {
        assert!(authority("linkerd-dst.linkerd.svc.cluster.local.:8086").is_some());
        assert!(authority("127.0.0.1:8086").is_some() && authority("[::1]:8086").is_some());
        assert!(authority("linkerd-dst").is_none() && authority("http://dst:8086").is_none());
    }
}
