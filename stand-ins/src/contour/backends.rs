//! Services as clusters, their pods dialled directly.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::envoy::model::{Cluster, Endpoints};
use crate::objects::{Objects, SECRETS, SERVICES, annotation, text};
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
        let part = |key: &str| {
            let text = secret.data["data"][key].as_str().and_then(|text| BASE64.decode(text).ok());
            text.and_then(|text| String::from_utf8(text).ok())
                .ok_or_else(|| format!("missing TLS certificate or key: {key}"))
        };
        let (certificate, key) = (part("tls.crt")?, part("tls.key")?);
        // Envoy would refuse its listeners, all of them, for a pair that it cannot use.
        usable(&certificate, &key).map_err(|why| format!("invalid TLS certificate: {why}"))?;
        Ok((certificate, key))
    }
}

/// Whether a chain and a key, both PEM, are one pair.
fn usable(certificate: &str, key: &str) -> anyhow::Result<()> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())?;
    Ok(())
}

/// Reads a regular expression, since Envoy would refuse every route for one that it cannot read.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn regex(expression: &str) -> Result<(), String> {
    regex::Regex::new(expression).map(drop).map_err(|error| format!("{expression:?} is not a valid regex: {error}"))
}
