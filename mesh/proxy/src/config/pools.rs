//! How the connections that the proxy makes are kept and used.

use std::time::Duration;

use super::{
    Strings,
    parse::{self, Reader},
};

/// Which idle HTTP/1 connections to one address are kept. The names of the variables are Linkerd's, of which one has no direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Those that were used no longer ago. 3 s by default, as in Linkerd: less than servers keep them.
    pub idle_timeout: Duration,
    /// So many of them.
    pub max_idle: usize,
}

impl PoolLimits {
    pub(super) fn read(
        read: &mut Reader<'_, impl Strings>,
        idle_timeout: &'static str,
        max_idle: &'static str,
    ) -> Self {
        Self {
            idle_timeout: read.duration(idle_timeout, 3_000),
            max_idle: read.or(max_idle, "a number such as `10000`", parse::from_str, 10_000),
        }
    }
}

/// The windows with which HTTP/2 connections begin (RFC 9113, section 6.9.2), in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Of each stream.
    pub stream: u32,
    /// Of all of them together.
    pub connection: u32,
}

/// No window is larger.
const MAX_WINDOW: u32 = (1 << 31) - 1;

impl Windows {
    pub(super) fn read(read: &mut Reader<'_, impl Strings>) -> Self {
        let size = |value: &str| value.parse().ok().filter(|size| *size <= MAX_WINDOW);
        let mut window = |name, default| read.or(name, "a number of bytes, 2147483647 at most", size, default);
        Self {
            stream: window("LINKERD2_PROXY_HTTP2_INITIAL_STREAM_WINDOW_SIZE", 65_535),
            connection: window("LINKERD2_PROXY_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE", 1024 * 1024),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::Config;

    #[test]
    fn they_are_linkerds_until_something_else_is_said() {
        let mut strings =
            HashMap::from([("LINKERD2_PROXY_DESTINATION_SVC_ADDR".to_owned(), "localhost:8086".to_owned())]);
        let config = Config::from_strings(&strings).unwrap();
        let default = PoolLimits { idle_timeout: Duration::from_secs(3), max_idle: 10_000 };
        assert_eq!((config.inbound_pool, config.outbound_pool), (default, default));
        assert_eq!(config.connect_windows, Windows { stream: 65_535, connection: 1_048_576 });
        assert_eq!(config.inbound_connect_keepalive, None);
        for (name, value) in [
            ("INBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT", "1s"),
            ("OUTBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT", "2s"),
            ("MAX_IDLE_CONNS_PER_ENDPOINT", "1"),
            ("OUTBOUND_MAX_IDLE_CONNS_PER_ENDPOINT", "2"),
            ("HTTP2_INITIAL_STREAM_WINDOW_SIZE", "100000"),
            ("HTTP2_INITIAL_CONNECTION_WINDOW_SIZE", "200000"),
            ("INBOUND_CONNECT_KEEPALIVE", "5s"),
        ] {
            strings.insert(format!("LINKERD2_PROXY_{name}"), value.to_owned());
        }
        let config = Config::from_strings(&strings).unwrap();
        let pool = |n| PoolLimits { idle_timeout: Duration::from_secs(n), max_idle: n as usize };
        assert_eq!((config.inbound_pool, config.outbound_pool), (pool(1), pool(2)));
        assert_eq!(config.connect_windows, Windows { stream: 100_000, connection: 200_000 });
        assert_eq!(config.inbound_connect_keepalive, Some(Duration::from_secs(5)));

        strings.insert("LINKERD2_PROXY_HTTP2_INITIAL_STREAM_WINDOW_SIZE".to_owned(), "2147483648".to_owned());
        assert!(Config::from_strings(&strings).unwrap_err().to_string().contains("2147483647 at most"));
    }
}
