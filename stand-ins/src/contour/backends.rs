//! Services as clusters, their pods dialled directly.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::envoy::model::{Cluster, Endpoints};
use crate::objects::{Objects, SECRETS, SERVICES, annotation, text};
use crate::secrets::{self, Fault};
use crate::services::{PortRef, service_port};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Finds Services and keeps the clusters that lead to them.
pub(crate) struct Backends<'a> {
    objects: &'a Objects,
    /// Whether Services that are names of hosts elsewhere may be used.
    external_names: bool,
    pub(crate) clusters: BTreeMap<String, Cluster>,
}

/// A Service's port that was found.
pub(crate) struct Backend {
    pub(crate) cluster: String,
    /// The Service's own port, also where a route names it by its name.
    pub(crate) port: u16,
}

/// Why there is no cluster.
pub(crate) enum Missing {
    /// The Service or its port is not there, or is not to be reached.
    Service(String),
    /// The protocol.
    Protocol(String),
}

impl Missing {
    pub(crate) fn into_message(self) -> String {
        match self {
            Self::Service(message) | Self::Protocol(message) => message,
        }
    }
}

impl<'a> Backends<'a> {
    pub(crate) fn new(objects: &'a Objects, external_names: bool) -> Self {
        Self { objects, external_names, clusters: BTreeMap::new() }
    }

    /// The cluster of a Service's port; `protocol` is the route's, `""` for what the Service's annotations say.
    pub(crate) fn find(
        &mut self,
        namespace: &str,
        name: &str,
        port: &PortRef,
        protocol: &str,
    ) -> Result<Backend, Missing> {
        let Some(service) = self.objects.get(SERVICES, namespace, name) else {
            return Err(Missing::Service(format!("service \"{namespace}/{name}\" not found")));
        };
        let is_external = text(&service.data, "/spec/type") == "ExternalName";
        if is_external && !self.external_names {
            return Err(Missing::Service(format!(
                "{namespace}/{name} is an ExternalName service, these are not currently enabled. See the \
                 config.enableExternalNameService config file setting"
            )));
        }
        let Some(found) = service_port(self.objects, namespace, name, port) else {
            return Err(Missing::Service(format!("port \"{port}\" on service \"{namespace}/{name}\" not matched")));
        };
        let number = found.number.to_string();
        let annotated = ["h2c", "h2", "tls"].into_iter().find(|protocol| {
            let ports = annotation(service, &format!("projectcontour.io/upstream-protocol.{protocol}"));
            ports.is_some_and(|ports| ports.split(',').map(str::trim).any(|port| port == number || port == found.name))
        });
        let http2 = match if protocol.is_empty() { annotated.unwrap_or_default() } else { protocol } {
            "" | "http/1.1" => false,
            "h2c" => true,
            other => return Err(Missing::Protocol(format!("unsupported protocol: {other}"))),
        };
        let cluster = format!("{namespace}/{name}/{number}{}", if http2 { "/h2c" } else { "" });
        let endpoints = if is_external {
            Endpoints::Dns(text(&service.data, "/spec/externalName").to_owned(), found.number)
        } else {
            Endpoints::Known(found.endpoints(self.objects))
        };
        let backend = Backend { cluster: cluster.clone(), port: found.number };
        self.clusters.entry(cluster).or_insert(Cluster { endpoints, http2, connect_timeout: CONNECT_TIMEOUT });
        Ok(backend)
    }

    /// The chain and key of a Secret.
    ///
    /// # Errors
    /// Why it cannot be served, in the words of the status.
    pub(crate) fn certificate(&self, namespace: &str, name: &str) -> Result<(String, String), String> {
        let secret = self.objects.get(SECRETS, namespace, name).ok_or("Secret not found")?;
        secrets::pair(secret).map_err(|fault| match fault {
            Fault::Lacks(key) => format!("missing TLS certificate or key: {key}"),
            Fault::Unusable(why) => format!("invalid TLS certificate: {why}"),
        })
    }
}

/// Reads a regular expression, since Envoy would refuse every route for one that it cannot read.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn regex(expression: &str) -> Result<(), String> {
    regex::Regex::new(expression).map(drop).map_err(|error| format!("{expression:?} is not a valid regex: {error}"))
}
