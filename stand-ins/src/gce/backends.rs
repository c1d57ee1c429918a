//! Services as backend services with network endpoint groups: the pods, and what a BackendConfig says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::BACKEND_CONFIGS;
use crate::envoy::model::{Cluster, Endpoints, HeaderOps};
use crate::objects::{Object, Objects, SERVICES, annotation, items, text};
use crate::services::{PortRef, ServicePort, service_port};

/// How long Google's proxies wait for an answer, unless a BackendConfig says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Headers that a backend service may not have.
const RESERVED: [&str; 9] =
    ["authority", "cdn-loop", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "x-user-ip"];
const RESERVED_PREFIXES: [&str; 4] = ["x-amz-", "x-gfe", "x-goog-", "x-google"];

/// Finds Services and keeps the clusters that lead to them.
pub(crate) struct Backends<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) clusters: BTreeMap<String, Cluster>,
}

/// A Service's port as Google knows it.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) cluster: String,
    pub(crate) request_headers: HeaderOps,
    pub(crate) host: Option<String>,
    pub(crate) timeout: Duration,
}

/// Why there is no backend.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The objects do not fit together.
    Translation(String),
    /// Google refuses it, or it is left out here.
    Sync(String),
}

impl<'a> Backends<'a> {
    pub(crate) fn new(objects: &'a Objects) -> Self {
        Self { objects, clusters: BTreeMap::new() }
    }

    /// The backend of a Service's port.
    ///
    /// # Errors
    /// What is wrong with it, in the controller's words.
    pub(crate) fn find(&mut self, namespace: &str, name: &str, port: &PortRef) -> Result<Backend, Fault> {
        let whole = format!("{namespace}/{name}");
        let Some(service) = self.objects.get(SERVICES, namespace, name) else {
            return Err(Fault::Translation(format!("could not find service \"{whole}\"")));
        };
        let Some(found) = service_port(self.objects, namespace, name, port) else {
            let port = shown(port);
            return Err(Fault::Translation(format!("could not find port \"{port}\" in service \"{whole}\"")));
        };
        has_group(service, &whole)?;
        speaks_http(service, &whole, found.name)?;
        let config = self.config(service, namespace, found.name, found.number).map_err(|why| {
            let port = shown(port);
            Fault::Translation(format!(
                "error getting BackendConfig for port \"{port}\" on service \"{whole}\", err: {why}"
            ))
        })?;
        let spec = config.map_or(&Value::Null, |config| &config.data["spec"]);
        let (request_headers, host) = request_headers(spec).map_err(Fault::Sync)?;
        let seconds = spec["timeoutSec"].as_u64();
        let cluster = self.group(&whole, &found);
        Ok(Backend { cluster, request_headers, host, timeout: seconds.map_or(TIMEOUT, Duration::from_secs) })
    }

    /// Adds the groups of all Services: a load balancer that stays as it was may lead to others than those that are found.
    pub(crate) fn add_all(&mut self) {
        let objects = self.objects;
        for service in objects.all(SERVICES) {
            let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
            for port in items(&service.data, "/spec/ports") {
                let Some(port) = PortRef::of_ingress(&json!({"number": port["port"]})) else { continue };
                if let Some(found) = service_port(objects, &namespace, &name, &port) {
                    self.group(&format!("{namespace}/{name}"), &found);
                }
            }
        }
    }

    /// The group of a Service's port: the cluster's name.
    fn group(&mut self, whole: &str, port: &ServicePort<'_>) -> String {
        let cluster = format!("{whole}/{}", port.number);
        let endpoints = Endpoints::Known(port.endpoints(self.objects));
        let group = Cluster { endpoints, http2: false, connect_timeout: CONNECT_TIMEOUT };
        self.clusters.entry(cluster.clone()).or_insert(group);
        cluster
    }

    /// The BackendConfig that a Service names for a port: by the port's name, its number, or for all. A port without one is fine, one
    /// that is not there is not.
    fn config(
        &self,
        service: &Object,
        namespace: &str,
        port: &str,
        number: u16,
    ) -> Result<Option<&'a Object>, &'static str> {
        let keys = ["cloud.google.com/backend-config", "beta.cloud.google.com/backend-config"];
        let Some(named) = keys.into_iter().find_map(|key| annotation(service, key)) else { return Ok(None) };
        let named: Value = serde_json::from_str(named).map_err(|_| "BackendConfig annotation is invalid json")?;
        if !named.is_object() {
            return Err("BackendConfig annotation is invalid json");
        }
        let (default, ports) = (text(&named, "/default"), &named["ports"]);
        if default.is_empty() && ports.as_object().is_none_or(serde_json::Map::is_empty) {
            return Err("no BackendConfig's found in annotation");
        }
        let of_port = ports[port].as_str().or_else(|| ports[number.to_string()].as_str());
        match of_port.unwrap_or(default) {
            "" => Ok(None),
            name => {
                let found = self.objects.get(BACKEND_CONFIGS, namespace, name);
                found.map(Some).ok_or("no BackendConfig for service port exists.")
            }
        }
    }
}

/// Whether a Service's pods are a network endpoint group. GKE says so by itself of a Service that says nothing.
fn has_group(service: &Object, whole: &str) -> Result<(), Fault> {
    let Some(said) = annotation(service, "cloud.google.com/neg") else { return Ok(()) };
    let said: Value = serde_json::from_str(said).unwrap_or_default();
    if said["ingress"] == true {
        return Ok(());
    }
    match text(&service.data, "/spec/type") {
        "NodePort" | "LoadBalancer" => {
            Err(Fault::Sync(format!("service \"{whole}\" needs an instance group, which there is none of here")))
        }
        kind => {
            let kind = if kind.is_empty() { "ClusterIP" } else { kind };
            let expected = "expected \"NodePort\" or \"LoadBalancer\"";
            Err(Fault::Translation(format!("service \"{whole}\" is type \"{kind}\", {expected}")))
        }
    }
}

/// Whether the load balancer is to speak plain HTTP to a port. Anything else means TLS, HTTP/2 too.
fn speaks_http(service: &Object, whole: &str, port: &str) -> Result<(), Fault> {
    let keys = ["service.alpha.kubernetes.io/app-protocols", "cloud.google.com/app-protocols"];
    let Some(said) = keys.into_iter().find_map(|key| annotation(service, key)) else { return Ok(()) };
    let unreadable = |why: String| {
        Fault::Translation(format!("could not parse \"{}\" annotation on Service \"{whole}\", err: {why}", keys[0]))
    };
    let said: BTreeMap<String, String> = serde_json::from_str(said).map_err(|error| unreadable(error.to_string()))?;
    if let Some(strange) = said.values().find(|protocol| !["HTTP", "HTTPS", "HTTP2"].contains(&protocol.as_str())) {
        return Err(unreadable(format!("invalid port application protocol: {strange}")));
    }
    match said.get(port).map(String::as_str) {
        None | Some("HTTP") => Ok(()),
        Some(other) => Err(Fault::Sync(format!("{other} to service \"{whole}\" is not to be had here"))),
    }
}

/// `customRequestHeaders` as a backend service has them (`pkg/backends/features/customrequestheaders.go` copies them as they are), and a
/// value for `Host`. Google's documentation says that they are added to requests and not what becomes of a client's own of the same
/// name; here it does not stay.
///
/// # Errors
/// What Google refuses: it has its rules for names, and each may come once.
fn request_headers(spec: &Value) -> Result<(HeaderOps, Option<String>), String> {
    let (mut ops, mut host, mut seen) = (HeaderOps::default(), None, BTreeSet::new());
    for header in items(spec, "/customRequestHeaders/headers").filter_map(Value::as_str) {
        let refused = |why: &str| format!("Invalid value for field 'resource.customRequestHeaders': '{header}'. {why}");
        let (name, value) = header.split_once(':').ok_or_else(|| refused("Header must contain a colon"))?;
        let (name, value) = (name.trim().to_lowercase(), value.trim());
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let reserved =
            RESERVED.contains(&name.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if name.is_empty() || !name.bytes().all(is_token) || reserved {
            return Err(refused("Header name is not allowed"));
        }
        if !seen.insert(name.clone()) {
            return Err(refused("Header name must not appear more than once"));
        }
        if name == "host" {
            host = Some(value.to_owned());
        } else {
            // A percent sign is nothing special to Google.
            ops.set.insert(name, value.replace('%', "%%"));
        }
    }
    Ok((ops, host))
}

/// A port as the controller writes it in its events.
fn shown(port: &PortRef) -> String {
    match port {
        PortRef::Number(number) => format!("&ServiceBackendPort{{Name:,Number:{number},}}"),
        PortRef::Name(name) => format!("&ServiceBackendPort{{Name:{name},Number:0,}}"),
    }
}
