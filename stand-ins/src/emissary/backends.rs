//! The `service` of a Mapping as a cluster: a name for DNS, or the endpoints behind it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::module::Module;
use super::{ENDPOINT_RESOLVERS, Emissary, Resource, SERVICE_RESOLVERS};
use crate::envoy::model::{Cluster, Endpoints};
use crate::objects::{Objects, text};
use crate::services::{PortRef, service_port};

/// `connect_timeout_ms` of a Mapping that says nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How a name becomes addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolver {
    /// By DNS, which answers with the ClusterIP.
    Service,
    Endpoints,
    Consul,
}

/// Keeps the clusters that Mappings lead to.
pub(super) struct Backends<'a> {
    objects: &'a Objects,
    /// Emissary's own namespace.
    namespace: &'a str,
    module: &'a Module,
    resolvers: BTreeMap<String, Resolver>,
    pub(super) clusters: BTreeMap<String, Cluster>,
}

/// A cluster that is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) cluster: String,
    /// `host:port` as the Mapping writes it, with its namespace: what `add_linkerd_headers` sends.
    pub(super) authority: String,
}

impl<'a> Backends<'a> {
    pub(super) fn new(objects: &'a Objects, emissary: &'a Emissary, module: &'a Module) -> Self {
        // These are there without being written.
        let known = [
            ("kubernetes-service", Resolver::Service),
            ("endpoint", Resolver::Endpoints),
            ("kubernetes-endpoint", Resolver::Endpoints),
            ("consul", Resolver::Consul),
            ("consul-endpoint", Resolver::Consul),
        ];
        let mut resolvers: BTreeMap<String, Resolver> =
            known.into_iter().map(|(name, resolver)| (name.to_owned(), resolver)).collect();
        for (kind, resolver) in [(SERVICE_RESOLVERS, Resolver::Service), (ENDPOINT_RESOLVERS, Resolver::Endpoints)] {
            resolvers.extend(emissary.resources(objects, kind).into_iter().map(|found| (found.name, resolver)));
        }
        Self { objects, namespace: &emissary.namespace, module, resolvers, clusters: BTreeMap::new() }
    }

    /// The cluster of a Mapping's `service`.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn find(&mut self, mapping: &Resource) -> Result<Found, String> {
        let spec = &mapping.spec;
        let named = Some(text(spec, "/resolver")).filter(|name| !name.is_empty()).unwrap_or(&self.module.resolver);
        let resolver = *self.resolvers.get(named).ok_or_else(|| format!("resolver {named} is unknown!"))?;
        if resolver == Resolver::Service && spec["load_balancer"].is_object() {
            return Err("No load_balancer setting is allowed with the KubernetesServiceResolver".to_owned());
        }
        if resolver == Resolver::Consul {
            return Err("The Consul resolver is not supported by this stand-in".to_owned());
        }
        let (name, port) = address(text(spec, "/service"))?;
        let elsewhere = mapping.namespace != self.namespace && !self.module.services_are_neighbours;
        let host = match name.contains('.') || name == "localhost" || !elsewhere {
            true => name,
            false => format!("{name}.{}", mapping.namespace),
        };
        let endpoints = match resolver == Resolver::Endpoints && host.parse::<IpAddr>().is_err() {
            true => self.endpoints(&host, port),
            false => Endpoints::Dns(host.clone(), port),
        };
        let (http2, milliseconds) = (spec["grpc"] == true, spec["connect_timeout_ms"].as_u64());
        let connect_timeout = milliseconds.map_or(CONNECT_TIMEOUT, Duration::from_millis);
        let authority = format!("{host}:{port}");
        let cluster =
            format!("{authority}/{named}/{}{}", connect_timeout.as_millis(), if http2 { "/grpc" } else { "" });
        self.clusters.entry(cluster.clone()).or_insert(Cluster { endpoints, http2, connect_timeout });
        Ok(Found { cluster, authority })
    }

    /// The ready pods of `SERVICE.NAMESPACE`, whatever follows; of Emissary's own namespace where there is none.
    fn endpoints(&self, host: &str, port: u16) -> Endpoints {
        let mut parts = host.split('.');
        let (service, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or(self.namespace));
        let found = service_port(self.objects, namespace, service, &PortRef::Number(port));
        Endpoints::Known(found.map(|found| found.endpoints(self.objects)).unwrap_or_default())
    }
}

/// Host and port of `[scheme://]host[:port]`.
fn address(service: &str) -> Result<(String, u16), String> {
    let malformed = |why: &str| format!("Malformed service '{service}': {why}");
    let rest = match service.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
            return Err(format!("service {service}: TLS to a backend is not supported by this stand-in"));
        }
        // Any other scheme is taken for HTTP, with an error that changes nothing.
        Some((_, rest)) => rest,
        None => service.strip_prefix("//").unwrap_or(service),
    };
    // A path behind it is passed over.
    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, "")) => (host, 0),
        Some((host, port)) => (host, port.parse().map_err(|_| malformed("Port could not be cast to a port"))?),
        None => (rest, 0),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if host.is_empty() || !host.chars().all(is_name) {
        return Err(malformed("No hostname"));
    }
    Ok((host.to_lowercase(), if port == 0 { 80 } else { port }))
}
