//! Labels, rendered once.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    net::SocketAddr,
};

use super::Direction;
use crate::NameAddr;

/// The labels of one series as they stand between the braces, in the order in which they were added.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Labels(String);

impl Labels {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a label.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.extend([name, "=\""]);
        for character in value.chars() {
            match character {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
        self.0.push('"');
        self
    }

    /// Adds a label with a value that needs no escaping.
    pub(crate) fn with_display(mut self, name: &str, value: impl fmt::Display) -> Self {
        let comma = if self.0.is_empty() { "" } else { "," };
        // Writing into a String cannot fail.
        let _ = write!(self.0, "{comma}{name}=\"{value}\"");
        self
    }

    /// Adds all of `others`.
    pub(crate) fn followed_by(mut self, others: &Self) -> Self {
        if !self.0.is_empty() && !others.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(&others.0);
        self
    }

    pub(crate) fn with_target(self, address: SocketAddr) -> Self {
        self.with_display("target_addr", address)
            .with_display("target_ip", address.ip())
            .with_display("target_port", address.port())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a connection is encrypted, and with whom.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tls<'a> {
    /// It is not, and why.
    None(&'a str),
    /// With a client, that may have shown no certificate.
    Client(Option<&'a str>),
    /// With a server.
    Server(&'a str),
    /// Between others, by the SNI.
    Elsewhere(Option<&'a str>),
}

impl Tls<'_> {
    /// Adds what it says.
    pub(crate) fn on(self, labels: Labels) -> Labels {
        match self {
            Self::None(reason) => labels.with("tls", "no_identity").with("no_tls_reason", reason),
            Self::Client(id) => labels.with("tls", "true").with("client_id", id.unwrap_or_default()),
            Self::Server(id) => labels.with("tls", "true").with("server_id", id),
            Self::Elsewhere(sni) => labels.with("tls", "opaque").with("sni", sni.unwrap_or_default()),
        }
    }
}

/// The labels of an outbound endpoint, after `direction` (and `peer`, for TCP). `authority` is the logical name, absent for
/// an endpoint that was dialled by address; `metric_labels` are what the control plane says about it.
pub(crate) fn endpoint_labels(
    start: Labels,
    authority: Option<&str>,
    address: SocketAddr,
    tls: Tls<'_>,
    metric_labels: &BTreeMap<String, String>,
) -> Labels {
    let named = match authority {
        Some(authority) => start.with("authority", authority),
        None => start,
    };
    let labels = tls.on(named.with_target(address));
    metric_labels.iter().fold(labels, |labels, (key, value)| labels.with(&format!("dst_{key}"), value))
}

/// The labels of a Service by its name, where nothing else is known about it: those that a policy for it has. What is no Service's
/// name has Linkerd's labels for that.
pub(crate) fn service_labels(prefix: &str, name: &NameAddr) -> Labels {
    let (group, kind, namespace, service, port) = match name.service() {
        Some((service, namespace)) => ("core", "Service", namespace, service, name.port().to_string()),
        None => ("", "default", "", "unknown", String::new()),
    };
    Labels::new()
        .with(&format!("{prefix}_group"), group)
        .with(&format!("{prefix}_kind"), kind)
        .with(&format!("{prefix}_namespace"), namespace)
        .with(&format!("{prefix}_name"), service)
        .with(&format!("{prefix}_port"), &port)
        .with(&format!("{prefix}_section_name"), "")
}

/// What errors call a Service of which nothing is known but its name: as they would by a policy for it.
pub(crate) fn service_name(name: &NameAddr) -> String {
    match name.service() {
        Some((service, namespace)) => format!("Service.{namespace}.{service}:{}", name.port()),
        None => "default.unknown".to_owned(),
    }
}

/// The labels of connections that the pod's application makes.
pub(crate) fn outbound_source_labels(original: SocketAddr, tls: Tls<'_>) -> Labels {
    tls.on(source(Direction::Outbound, original))
}

/// The labels of connections to the pod; `server` are those of the port's policy.
pub(crate) fn inbound_source_labels(original: SocketAddr, tls: Tls<'_>, server: &Labels) -> Labels {
    tls.on(source(Direction::Inbound, original)).followed_by(server)
}

fn source(direction: Direction, original: SocketAddr) -> Labels {
    Labels::new().with("direction", direction.label()).with("peer", "src").with_target(original)
}

/// The labels of requests that reach the application at `address`; `permit` are those of the port's policy, the route and the
/// authorization.
pub(crate) fn inbound_labels(address: SocketAddr, tls: Tls<'_>, permit: &Labels) -> Labels {
    let labels = Labels::new().with("direction", Direction::Inbound.label()).with_target(address);
    tls.on(labels).followed_by(permit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped() {
        assert_eq!(Labels::new().with("a", "x\"y\\z\n").with("b", "").as_str(), r#"a="x\"y\\z\n",b="""#);
    }

    #[test]
    fn endpoints_have_linkerds_labels_in_linkerds_order() {
        let facts =
            BTreeMap::from([("service".to_owned(), "web".to_owned()), ("namespace".to_owned(), "ns".to_owned())]);
        let labels = endpoint_labels(
            Labels::new().with("direction", "outbound"),
            Some("web.ns.svc.cluster.local"),
            "10.1.2.3:8080".parse().unwrap(),
            Tls::None("not_provided_by_service_discovery"),
            &facts,
        );
        assert_eq!(
            labels.as_str(),
            "direction=\"outbound\",authority=\"web.ns.svc.cluster.local\",target_addr=\"10.1.2.3:8080\",\
             target_ip=\"10.1.2.3\",target_port=\"8080\",tls=\"no_identity\",\
             no_tls_reason=\"not_provided_by_service_discovery\",dst_namespace=\"ns\",dst_service=\"web\""
        );
    }
}
