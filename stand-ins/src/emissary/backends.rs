//! The `service` of a Mapping as a cluster: a name for DNS, or the endpoints behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::ResourceExt as _;

use crate::envoy::model::{Cluster, Endpoints};
use crate::objects::{Object, Objects, text};
use crate::services::{PortRef, service_port};

/// `connect_timeout_ms` of a Mapping that says nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Keeps the clusters that Mappings lead to.
pub(crate) struct Backends<'a> {
    objects: &'a Objects,
    /// Names of resolvers that look endpoints up. All others ask DNS, as `kubernetes-service` does.
    resolvers: BTreeSet<String>,
    pub(crate) clusters: BTreeMap<String, Cluster>,
}

/// A cluster that is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: String,
    /// `host:port` as the Mapping writes it, qualified: what `add_linkerd_headers` sends.
    pub(crate) authority: String,
}

impl<'a> Backends<'a> {
    pub(crate) fn new(objects: &'a Objects, resolvers: impl Iterator<Item = &'a Object>) -> Self {
        Self { objects, resolvers: resolvers.map(|object| object.name_any()).collect(), clusters: BTreeMap::new() }
    }

    /// The cluster of a Mapping's `service`.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn of_mapping(&mut self, mapping: &Object, http2: bool) -> Result<Found, String> {
        let spec = &mapping.data["spec"];
        let (host, port) = address(text(spec, "/service"))?;
        let own = mapping.namespace().unwrap_or_default();
        // A name without a dot is of the Mapping's namespace (`irserviceresolver.py`).
        let host = if host.contains('.') || host == "localhost" { host.to_owned() } else { format!("{host}.{own}") };
        let milliseconds = spec["connect_timeout_ms"].as_u64();
        let connect_timeout = milliseconds.map_or(CONNECT_TIMEOUT, Duration::from_millis);
        let resolver = text(spec, "/resolver");
        let endpoints = if self.resolvers.contains(resolver) {
            let (service, namespace) = host.split_once('.').unwrap_or((&host, &own));
            let namespace = namespace.split('.').next().unwrap_or_default();
            let found = service_port(self.objects, namespace, service, &PortRef::Number(port));
            Endpoints::Known(found.map(|found| found.endpoints(self.objects)).unwrap_or_default())
        } else if resolver.is_empty() || resolver == "kubernetes-service" {
            Endpoints::Dns(host.clone(), port)
        } else {
            return Err(format!("resolver {resolver:?} is not known"));
        };
        let authority = format!("{host}:{port}");
        let name = format!("{authority}/{resolver}{}", if http2 { "/h2" } else { "" });
        self.clusters.entry(name.clone()).or_insert(Cluster { endpoints, http2, connect_timeout });
        Ok(Found { name, authority })
    }
}

/// `[scheme://]host[:port]`.
fn address(service: &str) -> Result<(&str, u16), String> {
    let invalid = |why: &str| format!("service {service:?}: {why}");
    let rest = match service.split_once("://") {
        Some(("http", rest)) => rest,
        Some((scheme, _)) => return Err(invalid(&format!("{scheme} to backends is not to be had here"))),
        None => service,
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| invalid("expected a port after the colon"))?),
        None => (rest, 80),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if host.is_empty() || !host.chars().all(is_name) {
        return Err(invalid("expected the name of a host"));
    }
    Ok((host, port))
}
