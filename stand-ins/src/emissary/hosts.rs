//! Hosts: which names are served, with which certificate, and what becomes of plain HTTP.

use kube::ResourceExt as _;
use serde_json::json;

use super::HOSTS;
use crate::objects::{Object, Objects, SECRETS, text};
use crate::secrets::{self, Fault};
use crate::status::StatusUpdate;

/// `requestPolicy.insecure.action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Insecure {
    Route,
    /// The default of every Host.
    Redirect,
    Reject,
}

/// A Host.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    object: Option<Object>,
    /// A name, `*.` and a name, or `*`.
    pub(crate) hostname: String,
    pub(crate) insecure: Insecure,
    /// Chain and key, PEM.
    pub(crate) certificate: Option<(String, String)>,
    /// Why it is not taken.
    pub(crate) fault: Option<String>,
}

impl Host {
    /// What serves when nobody has made a Host (`irhost.py`, `HostFactory.finalize`): everything, in clear.
    pub(crate) fn fallback() -> Self {
        Self { object: None, hostname: "*".to_owned(), insecure: Insecure::Route, certificate: None, fault: None }
    }

    pub(crate) fn read(objects: &Objects, object: &Object) -> Self {
        let hostname = Some(text(&object.data, "/spec/hostname")).filter(|name| !name.is_empty()).unwrap_or("*");
        let insecure = match text(&object.data, "/spec/requestPolicy/insecure/action") {
            "Route" => Insecure::Route,
            "Reject" => Insecure::Reject,
            _ => Insecure::Redirect,
        };
        let secret = text(&object.data, "/spec/tlsSecret/name");
        let namespace = object.namespace().unwrap_or_default();
        let certificate = (!secret.is_empty()).then(|| certificate(objects, &namespace, secret));
        let (certificate, fault) = match certificate.transpose() {
            Ok(certificate) => (certificate, None),
            Err(fault) => (None, Some(fault)),
        };
        Self { object: Some(object.clone()), hostname: hostname.to_owned(), insecure, certificate, fault }
    }

    /// Whether Mappings for a hostname belong to it: both may be patterns.
    pub(crate) fn takes(&self, hostname: &str) -> bool {
        matches(&self.hostname, hostname) || matches(hostname, &self.hostname)
    }

    pub(crate) fn status(&self) -> Option<StatusUpdate> {
        let status = match &self.fault {
            None => json!({"state": "Ready"}),
            Some(reason) => json!({"state": "Error", "errorReason": reason}),
        };
        StatusUpdate::unless_there(HOSTS, self.object.as_ref()?, status)
    }
}

/// The Host with the most exact pattern for a name.
pub(crate) fn of<'a>(hosts: &'a [Host], hostname: &str) -> Option<&'a Host> {
    hosts.iter().filter(|host| host.takes(hostname)).max_by_key(|host| host.hostname.trim_start_matches('*').len())
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(end) => name.ends_with(end),
        None => pattern == name,
    }
}

fn certificate(objects: &Objects, namespace: &str, name: &str) -> Result<(String, String), String> {
    let secret = objects.get(SECRETS, namespace, name);
    let secret = secret.ok_or_else(|| format!("tlsSecret name set, but secret {namespace}/{name} is not there"))?;
    secrets::pair(secret).map_err(|fault| match fault {
        Fault::Lacks(key) => format!("secret {namespace}/{name} has no {key}"),
        Fault::Unusable(why) => format!("secret {namespace}/{name}: {why}"),
    })
}
