//! What requests and connections are for: names with a port, or addresses.

use std::{fmt, net::SocketAddr, sync::Arc};

/// A DNS name and a port. The name is lower-case and has no dot at its end, so that equal targets compare equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NameAddr {
    name: Arc<str>,
    port: u16,
}

/// What a connection or a request is for: the key of discovery.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A Service by name, as `l5d-dst-override` gives it.
    Name(NameAddr),
    /// The address that the application dialled.
    Address(SocketAddr),
}

impl NameAddr {
    /// A name in any case, with or without a dot at its end; `None` if it is not a DNS name. An IP address is none: its
    /// last label is a number.
    pub fn new(name: &str, port: u16) -> Option<Self> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        let last = name.rsplit('.').next()?;
        let valid = name.len() <= 253 && name.split('.').all(label) && !last.bytes().all(|byte| byte.is_ascii_digit());
        valid.then(|| Self { name: name.to_ascii_lowercase().into(), port })
    }

    /// Reads `name:port`.
    pub fn parse(authority: &str) -> Option<Self> {
        let (name, port) = authority.rsplit_once(':')?;
        Self::new(name, port.parse().ok()?)
    }

    /// The name, without a dot at its end.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Service and namespace, if it is the name of a Service.
    pub(crate) fn service(&self) -> Option<(&str, &str)> {
        let mut parts = self.name.splitn(3, '.');
        let (service, namespace, rest) = (parts.next()?, parts.next()?, parts.next()?);
        rest.starts_with("svc.").then_some((service, namespace))
    }

    /// The label `authority` of Linkerd's metrics: without the port if that is 80.
    pub(crate) fn authority(&self) -> String {
        if self.port == 80 { self.name.to_string() } else { self.to_string() }
    }

    /// Whether the name lies in `suffix`, which has no dot at either end. Every name lies in the empty suffix.
    pub(crate) fn is_within(&self, suffix: &str) -> bool {
        suffix.is_empty() || self.name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl Target {
    /// The port, whichever it is.
    pub fn port(&self) -> u16 {
        match self {
            Self::Name(name) => name.port,
            Self::Address(address) => address.port(),
        }
    }
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_by_what_they_mean() {
        assert_eq!(
            NameAddr::new("Web.Default.svc.cluster.local.", 80),
            NameAddr::parse("web.default.svc.cluster.local:80")
        );
        for not_a_name in ["", ".", "a..b", "10.9.0.13", "a,b", "$service", "web.default.80", "[::1]"] {
            assert_eq!(NameAddr::new(not_a_name, 80), None, "{not_a_name:?}");
        }
    }

    #[test]
    fn a_suffix_ends_at_a_label() {
        let name = NameAddr::parse("web.default.svc.cluster.local:80").unwrap();
        assert!(name.is_within("svc.cluster.local") && name.is_within(""));
        assert!(!NameAddr::parse("evilsvc.cluster.local:80").unwrap().is_within("svc.cluster.local"));
    }

    #[test]
    fn port_80_is_not_part_of_the_authority_label() {
        assert_eq!(NameAddr::parse("web.ns:80").unwrap().authority(), "web.ns");
        assert_eq!(NameAddr::parse("web.ns:8080").unwrap().authority(), "web.ns:8080");
    }
}
