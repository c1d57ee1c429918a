//! Hosts: which names are served, with which certificate, and what becomes of plain HTTP.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Resource, selects};
use crate::objects::{Objects, SECRETS, text};
use crate::secrets::{self, Fault};
use crate::status::Complaint;

/// `requestPolicy.insecure.action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insecure {
    Route,
    /// The default of every Host.
    Redirect,
    Reject,
}

/// A Host that is in order.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) name: String,
    /// `None` for the one that nobody has made.
    pub(super) namespace: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    /// A name, or one with `*` for its begin, its end or all of it.
    pub(super) hostname: String,
    pub(super) insecure: Insecure,
    /// Chain and key, PEM.
    pub(super) certificate: Option<(String, String)>,
    /// By which Mappings belong to it whatever their hostname is.
    selector: Option<Value>,
}

/// The Hosts that can be served, in the order of their hostnames.
pub(super) fn read(objects: &Objects, resources: &[Resource], complaints: &mut BTreeSet<Complaint>) -> Vec<Host> {
    let mut hosts = Vec::new();
    for resource in resources {
        match Host::read(objects, resource) {
            Ok(host) => hosts.push(host),
            Err(why) => _ = complaints.insert(resource.complaint(why)),
        }
    }
    if hosts.is_empty() {
        hosts.push(Host::fallback());
    }
    hosts.sort_by(|one, other| one.hostname.cmp(&other.hostname));
    hosts
}

impl Host {
    /// What serves when nobody has made a Host (`HostFactory.finalize`): everything, in clear.
    fn fallback() -> Self {
        Self {
            name: "default-host".to_owned(),
            namespace: None,
            labels: BTreeMap::new(),
            hostname: "*".to_owned(),
            insecure: Insecure::Route,
            certificate: None,
            selector: None,
        }
    }

    fn read(objects: &Objects, resource: &Resource) -> Result<Self, String> {
        let spec = &resource.spec;
        let given = |pointer: &str| Some(text(spec, pointer)).filter(|text| !text.is_empty());
        let insecure = match text(spec, "/requestPolicy/insecure/action") {
            "Route" => Insecure::Route,
            "Reject" => Insecure::Reject,
            _ => Insecure::Redirect,
        };
        let namespace = given("/tlsSecret/namespace").unwrap_or(&resource.namespace);
        let certificate = given("/tlsSecret/name").map(|secret| {
            let found = certificate(objects, namespace, secret);
            found.map_err(|why| format!("Host {}: invalid TLS secret {secret}, marking inactive: {why}", resource.name))
        });
        let selector = [&spec["mappingSelector"], &spec["selector"]].into_iter().find(|found| found.is_object());
        Ok(Self {
            name: resource.name.clone(),
            namespace: Some(resource.namespace.clone()),
            labels: resource.labels.clone(),
            hostname: given("/hostname").unwrap_or("*").to_owned(),
            insecure,
            certificate: certificate.transpose()?,
            selector: selector.cloned(),
        })
    }

    /// Whether it has Mappings with these labels, whatever their hostname is.
    pub(super) fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.as_ref().is_some_and(|selector| selects(selector, labels))
    }
}

fn certificate(objects: &Objects, namespace: &str, name: &str) -> Result<(String, String), String> {
    let secret = objects.get(SECRETS, namespace, name).ok_or("there is none")?;
    secrets::pair(secret).map_err(|fault| match fault {
        Fault::Lacks(key) => format!("it has no {key}"),
        Fault::Unusable(why) => why,
    })
}

/// Whether there can be a name that both patterns take (`hostglob_matches` in `irutils.py`).
pub(super) fn meet(one: &str, other: &str) -> bool {
    if one == other || one == "*" || other == "*" {
        return true;
    }
    if one.starts_with('.') || other.starts_with('.') {
        return false;
    }
    match (Pattern::of(one), Pattern::of(other)) {
        (Pattern::EndsWith(_), Pattern::StartsWith(_)) | (Pattern::StartsWith(_), Pattern::EndsWith(_)) => true,
        (Pattern::EndsWith(one), Pattern::EndsWith(other)) => one.ends_with(other) || other.ends_with(one),
        (Pattern::StartsWith(one), Pattern::StartsWith(other)) => one.starts_with(other) || other.starts_with(one),
        (Pattern::EndsWith(end), Pattern::Name(name)) | (Pattern::Name(name), Pattern::EndsWith(end)) => {
            name.len() > end.len() && name.ends_with(end)
        }
        (Pattern::StartsWith(begin), Pattern::Name(name)) | (Pattern::Name(name), Pattern::StartsWith(begin)) => {
            name.len() > begin.len() && name.starts_with(begin)
        }
        (Pattern::Name(_), Pattern::Name(_)) => false,
    }
}

/// A name or a pattern; a star stands for something, never for nothing.
enum Pattern<'a> {
    Name(&'a str),
    EndsWith(&'a str),
    StartsWith(&'a str),
}

impl<'a> Pattern<'a> {
    fn of(text: &'a str) -> Self {
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(end), None) => Self::EndsWith(end),
            (None, Some(begin)) => Self::StartsWith(begin),
            // With a star at either end the text is no pattern.
            _ => Self::Name(text),
        }
    }
}
