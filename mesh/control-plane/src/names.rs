//! Names of objects, and of Services in DNS.

use std::{fmt, net::SocketAddr, sync::Arc};

/// The namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl Key {
    /// A key from its parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The Service's full name in DNS, without a dot at its end.
    pub(crate) fn fqdn(&self, domain: &str) -> String {
        format!("{}.{}.svc.{domain}", self.name, self.namespace)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The host of an authority, as far as the cluster's DNS knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ServiceName {
    pub(crate) service: Key,
    /// `web-0` of `web-0.web.default.svc.cluster.local`: one endpoint of a headless Service.
    pub(crate) hostname: Option<String>,
}

impl ServiceName {
    /// Reads `service.namespace.svc.DOMAIN` or `hostname.service.namespace.svc.DOMAIN`, in any case, with or without a dot
    /// at the end.
    pub(crate) fn parse(host: &str, domain: &str) -> Option<Self> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let labels: Vec<_> = host.strip_suffix(domain)?.strip_suffix(".svc.")?.split('.').collect();
        match labels[..] {
            _ if labels.iter().any(|label| label.is_empty()) => None,
            [service, namespace] => Some(Self { service: Key::new(namespace, service), hostname: None }),
            [hostname, service, namespace] => {
                Some(Self { service: Key::new(namespace, service), hostname: Some(hostname.to_owned()) })
            }
            _ => None,
        }
    }
}

/// What a proxy asks about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A name in the cluster's DNS, and a port.
    Service(ServiceName, u16),
    /// An address and port.
    Address(SocketAddr),
    /// A name that is not the cluster's.
    Foreign,
}

impl Target {
    /// Reads `host:port` or `host`, where the port is then 80; `None` if it is neither.
    pub(crate) fn parse(authority: &str, domain: &str) -> Option<Self> {
        if let Ok(address) = authority.parse() {
            return Some(Self::Address(address));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, 80),
        };
        if host.is_empty() || host.contains([':', '/', ' ']) {
            return None;
        }
        if let Ok(ip) = host.parse() {
            return Some(Self::Address(SocketAddr::new(ip, port)));
        }
        Some(ServiceName::parse(host, domain).map_or(Self::Foreign, |name| Self::Service(name, port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        let parse = |authority| Target::parse(authority, "cluster.local");
        let web = || ServiceName { service: Key::new("default", "web"), hostname: None };
        assert_eq!(parse("web.default.svc.cluster.local:8080"), Some(Target::Service(web(), 8080)));
        assert_eq!(parse("WEB.default.svc.cluster.local."), Some(Target::Service(web(), 80)));
        let pod = ServiceName { hostname: Some("web-0".into()), ..web() };
        assert_eq!(parse("web-0.web.default.svc.cluster.local:80"), Some(Target::Service(pod, 80)));
        assert_eq!(parse("10.1.2.3:80"), Some(Target::Address(([10, 1, 2, 3], 80).into())));
        assert_eq!(parse("[fd00::1]:80"), Some(Target::Address("[fd00::1]:80".parse().unwrap())));
        assert_eq!(parse("10.1.2.3"), Some(Target::Address(([10, 1, 2, 3], 80).into())));
        for foreign in ["example.com:443", "web.default", "a.b.c.d.svc.cluster.local", ".default.svc.cluster.local"] {
            assert_eq!(parse(foreign), Some(Target::Foreign), "{foreign}");
        }
        for broken in ["", ":80", "web:http", "http://web:80"] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }
}
