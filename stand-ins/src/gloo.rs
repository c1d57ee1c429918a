//! Gloo Edge 1.22 in front of Envoy.
//!
//! ```text
//! Settings ─────────────────────────────┐
//! VirtualServices ─ virtual_services ───┴─> envoy::model ─> Envoy
//!        │                 └─> status of each
//! Services, Upstreams, EndpointSlices ─ upstreams ─> clusters
//!                                           └─> status of each Upstream
//! ```
//!
//! Envoy runs in a container of its own, which [`envoy_init`] starts; what Gloo has to tell it, which is xDS otherwise, is written into the
//! folder that the two share. Gloo and its discovery can be the real programs: what is beside them finds out who plays Gloo ([`player`]).
//!
//! What a VirtualService becomes follows `projects/gateway/pkg/translator` and the plugins below `projects/gloo/pkg/plugins`: `linkerd`
//! for `l5d-dst-override`, `headers` for `headerManipulation`, `kubernetes` for Upstreams. Discovery writes an Upstream for every port
//! of every Service ([`discovery`]); here they are known by the same names without being written. Envoy as it is to be had natively has no filter for
//! transformations, so a template for a header sets that header, which is what this one does without functions in it.
//!
//! Two VirtualServices of one domain are an error of their Gateway, too. Its listener is then stripped from the Proxy, and the one that was
//! there before takes its place (`stripInvalidListenersAndVirtualHosts` and `transitionFunc` in
//! `projects/gateway/pkg/reconciler/proxy_reconciler.go`), with all its routes: no change of any VirtualService of the Gateway is served
//! until one of the two is gone (kgateway issue 8412). Before Gloo has served anything there is no other listener, and nothing listens.
//!
//! Left out: Gateways other than the two that an installation brings, RouteTables, Upstreams with TLS, functions of templates, and that a VirtualService which is wrong by itself is served as it was before.

pub(crate) mod discovery;
pub(crate) mod envoy_init;
mod player;
mod upstreams;
mod virtual_services;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::envoy::model::{Config, Tls};
use crate::envoy::{self, Envoy};
use crate::flags::Flags;
use crate::objects::{ENDPOINT_SLICES, Kind, Object, Objects, SECRETS, SERVICES, text};
use crate::run::{Controller, Held, Translation, run};
use crate::secrets::{self, Fault};
use crate::status::StatusUpdate;
use upstreams::Upstreams;
use virtual_services::{Domains, Problems};

const VIRTUAL_SERVICES: Kind = Kind::new("gateway.solo.io", "v1", "VirtualService", "virtualservices");
const SETTINGS: Kind = Kind::new("gloo.solo.io", "v1", "Settings", "settings");
const UPSTREAMS: Kind = Kind::new("gloo.solo.io", "v1", "Upstream", "upstreams");
const UPSTREAM_GROUPS: Kind = Kind::new("gloo.solo.io", "v1", "UpstreamGroup", "upstreamgroups");

/// The ports of the two Gateways, `gateway-proxy` and `gateway-proxy-ssl`.
const HTTP_PORT: u16 = 8080;
const HTTPS_PORT: u16 = 8443;

/// Where Envoy answers probes.
const READY_PORT: u16 = 8082;

/// The port of xDS, which probes look for. Here it says only that somebody is there.
const XDS_PORT: u16 = 9977;

/// The folder that is shared with Envoy, and what Envoy begins with in it.
const FOLDER: &str = "/config";
const BOOTSTRAP: &str = "envoy.json";

/// The role.
pub(crate) async fn main(_flags: Flags) -> anyhow::Result<()> {
    let folder = Path::new(FOLDER);
    begin(folder)?;
    let gloo = Gloo { namespace: own_namespace() };
    run("gloo", gloo, Envoy::elsewhere(folder)?, XDS_PORT, None).await
}

/// Writes what Envoy begins with. After that the port of xDS is opened, from which others see that it is there.
fn begin(folder: &Path) -> anyhow::Result<()> {
    let file = folder.join(BOOTSTRAP);
    // What a former process has left is what Envoy serves.
    if file.exists() { Ok(()) } else { envoy::bootstrap(&file) }
}

fn own_namespace() -> String {
    std::env::var("POD_NAMESPACE").unwrap_or_else(|_| "gloo-system".to_owned())
}

struct Gloo {
    /// Its own, where its Settings are.
    namespace: String,
}

impl Gloo {
    /// What it says of an object.
    fn status(&self, kind: Kind, object: &Object, said: Value) -> Option<StatusUpdate> {
        StatusUpdate::unless_there(kind, object, json!({"statuses": BTreeMap::from([(&self.namespace, said)])}))
    }

    /// What it logs of a Gateway whose VirtualServices share domains, if they do.
    fn stripped(&self, port: u16, shared: &[&str]) -> Option<String> {
        let (namespace, domains) = (&self.namespace, shared.join(" "));
        (!shared.is_empty()).then(|| {
            format!(
                "stripping invalid listener from proxy {namespace}.gateway-proxy: listener-0.0.0.0-{port}: domain conflict: the following \
                 domains are present in more than one of the virtual services associated with this gateway: [{domains}]"
            )
        })
    }
}

impl Controller for Gloo {
    fn kinds(&self) -> Vec<Kind> {
        vec![ENDPOINT_SLICES, SECRETS, SERVICES, SETTINGS, UPSTREAMS, UPSTREAM_GROUPS, VIRTUAL_SERVICES]
    }

    fn translate(&self, objects: &Objects) -> Translation {
        let mut config = Config {
            http_port: HTTP_PORT,
            https_port: HTTPS_PORT,
            ready_port: READY_PORT,
            folder: Some(FOLDER.to_owned()),
            ..Config::default()
        };
        let settings = objects.get(SETTINGS, &self.namespace, "default");
        let linkerd = settings.is_some_and(|settings| settings.data["spec"]["linkerd"] == true);
        let mut upstreams = Upstreams::new(objects, &self.namespace, linkerd);
        let all: Vec<&Object> = objects.all(VIRTUAL_SERVICES).collect();
        let domains = Domains::of(&all);
        let mut statuses = Vec::new();
        for object in all {
            let mut problems = Problems::default();
            domains.conflicts(object, &mut problems);
            let host = virtual_services::host(object, &mut upstreams, &mut problems);
            let certificate = certificate(objects, object, &mut problems);
            if problems.errors.is_empty() {
                for domain in virtual_services::domains(object) {
                    match &certificate {
                        None => _ = config.hosts.insert(domain, host.clone()),
                        Some((certificate, key)) => {
                            let (certificate, key) = (certificate.clone(), key.clone());
                            config.tls.insert(domain, Tls::Terminated { certificate, key, host: host.clone() });
                        }
                    }
                }
            }
            statuses.extend(self.status(VIRTUAL_SERVICES, object, problems.status("gateway")));
        }
        for object in objects.all(UPSTREAMS) {
            let errors = upstreams::fault(object).map(str::to_owned).into_iter().collect();
            let status = Problems { errors, ..Problems::default() }.status("gloo");
            statuses.extend(self.status(UPSTREAMS, object, status));
        }
        for object in objects.all(UPSTREAM_GROUPS) {
            let problems = Problems { errors: upstreams.missing(object), ..Problems::default() };
            statuses.extend(self.status(UPSTREAM_GROUPS, object, problems.status("gloo")));
        }
        let mut held = Vec::new();
        if let Some(why) = self.stripped(HTTP_PORT, &domains.shared(false)) {
            config.http_port = 0;
            held.push(Held { why, instead: envoy::keep_plain });
        }
        if let Some(why) = self.stripped(HTTPS_PORT, &domains.shared(true)) {
            config.https_port = 0;
            held.push(Held { why, instead: envoy::keep_tls });
        }
        if !held.is_empty() {
            upstreams.add_all();
        }
        config.clusters = upstreams.clusters;
        Translation { files: envoy::files(&config), statuses, complaints: BTreeSet::new(), held }
    }
}

/// What `sslConfig.secretRef` names. With one a VirtualService is behind TLS and nowhere else.
fn certificate(objects: &Objects, object: &Object, problems: &mut Problems) -> Option<(String, String)> {
    let reference = object.data["spec"]["sslConfig"].get("secretRef")?;
    let (namespace, name) = (text(reference, "/namespace"), text(reference, "/name"));
    let found = objects.get(SECRETS, namespace, name);
    let pair = found.ok_or_else(|| format!("SSL secret not found: list did not find secret {namespace}.{name}"));
    let pair = pair.and_then(|secret| {
        secrets::pair(secret).map_err(|fault| match fault {
            Fault::Lacks(key) => format!("{namespace}.{name} is not a valid TLS secret: it has no {key}"),
            Fault::Unusable(why) => format!("{namespace}.{name} is not a valid TLS secret: {why}"),
        })
    });
    pair.map_err(|why| problems.errors.push(why)).ok()
}

#[cfg(test)]
mod tests;
