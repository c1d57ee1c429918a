//! Upstreams, discovered and written, as clusters.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt as _;
use serde_json::Value;

use super::{UPSTREAM_GROUPS, UPSTREAMS};
use crate::envoy::model::{Cluster, Endpoints, HeaderOps};
use crate::objects::{Object, Objects, SERVICES, annotation, items, text};
use crate::services::{PortRef, service_port};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The annotation of a Service that speaks HTTP/2, and names of ports that say the same
/// (`plugins/kubernetes/serviceconverter/use_http2_converter.go`).
const HTTP2: &str = "gloo.solo.io/h2_service";
const HTTP2_PORTS: [&str; 3] = ["grpc", "http2", "h2"];

/// A port of a Service.
#[derive(Clone, Debug)]
pub(super) struct Kube {
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) port: u16,
    pub(super) http2: bool,
}

impl Kube {
    /// The name that discovery gives its Upstream.
    pub(super) fn upstream(&self) -> String {
        format!("{}-{}-{}", self.namespace, self.service, self.port)
    }
}

/// Finds Upstreams and keeps the clusters that lead to them.
pub(crate) struct Upstreams<'a> {
    objects: &'a Objects,
    /// Gloo's own namespace.
    own: &'a str,
    /// `spec.linkerd` of the Settings.
    linkerd: bool,
    /// Those that discovery would write, by name.
    discovered: BTreeMap<String, Kube>,
    pub(crate) clusters: BTreeMap<String, Cluster>,
}

/// What a destination comes to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Destination {
    pub(crate) cluster: String,
    /// What the `linkerd` plugin adds to it.
    pub(crate) headers: HeaderOps,
}

impl<'a> Upstreams<'a> {
    pub(crate) fn new(objects: &'a Objects, own: &'a str, linkerd: bool) -> Self {
        let discovered = objects.all(SERVICES).flat_map(|service| {
            items(&service.data, "/spec/ports").filter_map(|port| {
                let kube = kube_of(service, port)?;
                Some((kube.upstream(), kube))
            })
        });
        Self { objects, own, linkerd, discovered: discovered.collect(), clusters: BTreeMap::new() }
    }

    /// The destination `{upstream: {name, namespace}}` or `{kube: {ref: {name, namespace}, port}}`.
    ///
    /// # Errors
    /// What is not there, in the words of the warning.
    pub(crate) fn find(&mut self, destination: &Value) -> Result<Destination, String> {
        let reference = &destination["kube"];
        if reference.is_object() {
            let (name, namespace) = (text(reference, "/ref/name"), text(reference, "/ref/namespace"));
            let port = reference["port"].as_u64().unwrap_or_default();
            let discovered = self.discovered.get(&format!("{namespace}-{name}-{port}")).cloned();
            return match discovered {
                Some(kube) => Ok(self.kube(&kube)),
                None => Err(format!("Service {namespace}.{name} with port {port} not found")),
            };
        }
        let (name, namespace) = (text(destination, "/upstream/name"), text(destination, "/upstream/namespace"));
        if let Some(written) = self.objects.get(UPSTREAMS, namespace, name) {
            return self.written(written);
        }
        // Discovery writes them into Gloo's own namespace.
        match self.discovered.get(name).filter(|_| namespace == self.own).cloned() {
            Some(kube) => Ok(self.kube(&kube)),
            None => Err(format!("*v1.Upstream {{ {namespace}.{name} }} not found")),
        }
    }

    /// The UpstreamGroup `{name, namespace}`.
    ///
    /// # Errors
    /// That it is not there, in the words of the warning.
    pub(crate) fn group(&self, reference: &Value) -> Result<&'a Object, String> {
        let (name, namespace) = (text(reference, "/name"), text(reference, "/namespace"));
        let group = self.objects.get(UPSTREAM_GROUPS, namespace, name);
        group.ok_or_else(|| format!("*v1.UpstreamGroup {{ {namespace}.{name} }} not found"))
    }

    /// Which destinations of a group lead nowhere, in the words of its status (`verifyUpstreamGroups` in `upstream_groups.go`).
    pub(crate) fn missing(&mut self, group: &Object) -> Vec<String> {
        let destinations = items(&group.data, "/spec/destinations").enumerate();
        let missing = destinations.filter_map(|(index, found)| {
            let why = self.find(&found["destination"]).err()?;
            Some(format!("destination # {}: upstream not found: {why}", index + 1))
        });
        missing.collect()
    }

    /// Adds the clusters of all Upstreams. The real one has them always; here only routes that stay as they were lead to others than those
    /// that are found.
    pub(crate) fn add_all(&mut self) {
        let discovered: Vec<Kube> = self.discovered.values().cloned().collect();
        for kube in &discovered {
            self.kube(kube);
        }
        for upstream in self.objects.all(UPSTREAMS) {
            // One that leads nowhere is told of by its own status.
            let _ = self.written(upstream);
        }
        self.nowhere();
    }

    /// A cluster without endpoints: the answer is 503.
    pub(crate) fn nowhere(&mut self) -> String {
        let endpoints = Endpoints::Known(Vec::new());
        let nothing = Cluster { endpoints, http2: false, connect_timeout: CONNECT_TIMEOUT };
        self.clusters.insert("nowhere".to_owned(), nothing);
        "nowhere".to_owned()
    }

    fn written(&mut self, upstream: &Object) -> Result<Destination, String> {
        if fault(upstream).is_some() {
            // It is told of itself; a route to it is in order, and leads nowhere.
            return Ok(Destination { cluster: self.nowhere(), headers: HeaderOps::default() });
        }
        let spec = &upstream.data["spec"];
        let http2 = spec["useHttp2"] == true;
        let kube = &spec["kube"];
        if kube.is_object() {
            let port = kube["servicePort"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
            let (namespace, service) =
                (text(kube, "/serviceNamespace").to_owned(), text(kube, "/serviceName").to_owned());
            return Ok(self.kube(&Kube { namespace, service, port, http2 }));
        }
        let host = items(spec, "/static/hosts").next();
        let address =
            host.map(|host| (text(host, "/addr"), host["port"].as_u64().and_then(|port| u16::try_from(port).ok())));
        let Some((address, Some(port))) = address.filter(|(address, _)| !address.is_empty()) else {
            return Err(format!("upstream {} has neither kube nor static hosts", upstream.name_any()));
        };
        let cluster = format!("{}_{}", upstream.name_any(), upstream.namespace().unwrap_or_default());
        let endpoints = Endpoints::Dns(address.to_owned(), port);
        self.clusters.insert(cluster.clone(), Cluster { endpoints, http2, connect_timeout: CONNECT_TIMEOUT });
        // The plugin passes over all that is no Service.
        Ok(Destination { cluster, headers: HeaderOps::default() })
    }

    /// Envoy dials the pods (`plugins/kubernetes/plugin.go`); the header overwrites a client's (`plugins/linkerd/plugin.go`).
    fn kube(&mut self, kube: &Kube) -> Destination {
        let Kube { namespace, service, port, http2 } = kube;
        let found = service_port(self.objects, namespace, service, &PortRef::Number(*port));
        let endpoints = Endpoints::Known(found.map(|found| found.endpoints(self.objects)).unwrap_or_default());
        let cluster = format!("{namespace}-{service}-{port}{}", if *http2 { "_h2" } else { "" });
        let found = Cluster { endpoints, http2: *http2, connect_timeout: CONNECT_TIMEOUT };
        self.clusters.insert(cluster.clone(), found);
        let mut headers = HeaderOps::default();
        if self.linkerd {
            let value = format!("{service}.{namespace}.svc.cluster.local:{port}");
            headers.set.insert("l5d-dst-override".to_owned(), value);
        }
        Destination { cluster, headers }
    }
}

/// Why a written Upstream is refused (`plugins/static/plugin.go`).
pub(crate) fn fault(upstream: &Object) -> Option<&'static str> {
    items(&upstream.data, "/spec/static/hosts").find_map(|host| {
        match (text(host, "/addr"), host["port"].as_u64().unwrap_or_default()) {
            ("", _) => Some("addr cannot be empty for host"),
            (_, 0) => Some("port cannot be empty for host"),
            // The real one leaves this to Envoy, which refuses all clusters for it.
            (_, port) if u16::try_from(port).is_err() => Some("port is out of range for host"),
            _ => None,
        }
    })
}

/// A port of a Service, as its Upstream has it.
pub(super) fn kube_of(service: &Object, port: &Value) -> Option<Kube> {
    let http2 = match annotation(service, HTTP2) {
        Some(said) => said == "true",
        None => HTTP2_PORTS.iter().any(|prefix| text(port, "/name").starts_with(prefix)),
    };
    let port = u16::try_from(port["port"].as_u64()?).ok()?;
    Some(Kube { namespace: service.namespace().unwrap_or_default(), service: service.name_any(), port, http2 })
}
