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
//! The host of a VirtualService that is wrong is stripped from the Proxy, and the one that was there before takes its place, with its domains of
//! then (`stripInvalidListenersAndVirtualHosts` and `transitionFunc` in `projects/gateway/pkg/reconciler/proxy_reconciler.go`).
//!
//! Two VirtualServices of one domain are an error of their Gateway, too, and so is a certificate that cannot be used. Its listener is then
//! stripped in the same way, with all its routes: no change of any VirtualService of the Gateway is served until one of the two is gone, or the
//! certificate mended (kgateway issues 8412 and 10378). Before Gloo has served anything there is no other listener, and nothing listens. A
//! Secret that is not there is such an error unless the Settings say, as the chart's do, that it is only warned of (`warnMissingTlsSecret`): then
//! its VirtualService is left out.
//!
//! Left out: Gateways other than the two that an installation brings, RouteTables, Upstreams with TLS, and functions of templates.

pub(crate) mod discovery;
pub(crate) mod envoy_init;
mod player;
mod upstreams;
mod virtual_services;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use meshgate_machinery::at;
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

    /// What it logs of a Gateway that is wrong, if it is.
    fn stripped(&self, port: u16, errors: &[String]) -> Option<String> {
        let (namespace, errors) = (&self.namespace, Some(errors.join("; ")).filter(|errors| !errors.is_empty())?);
        Some(format!(
            "stripping invalid listener from proxy {namespace}.gateway-proxy: listener-0.0.0.0-{port}: {errors}"
        ))
    }

    /// The host of a VirtualService that is wrong is what it was.
    fn kept(&self, object: &Object) -> Held {
        let (namespace, id) = (&self.namespace, virtual_services::id(object));
        let why = format!("stripping invalid virtualhost from proxy {namespace}.gateway-proxy: {id}");
        Held::new(why, move |files, former| {
            Some(match former {
                Some(former) => envoy::keep_hosts(&id, files, former),
                None => files,
            })
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
        let said =
            |pointer: &str| settings.and_then(|settings| at(&settings.data, pointer)) == Some(&Value::Bool(true));
        let warned_of = said("/spec/gateway/validation/warnMissingTlsSecret");
        let mut upstreams = Upstreams::new(objects, &self.namespace, said("/spec/linkerd"));
        let all: Vec<&Object> = objects.all(VIRTUAL_SERVICES).collect();
        let domains = Domains::of(&all);
        let (plain, mut secure) = (domains.shared(false), domains.shared(true));
        let (mut statuses, mut held) = (Vec::new(), Vec::new());
        for object in all {
            let mut problems = Problems::default();
            domains.conflicts(object, &mut problems);
            let host = virtual_services::host(object, &mut upstreams, &mut problems);
            let certificate = match certificate(objects, object) {
                Err(NoCertificate { why, missing: true }) if warned_of => {
                    problems.warnings.push(format!("Listener Warning: SSLConfigWarning. Reason: {why}"));
                    Certificate::Missing
                }
                Err(NoCertificate { why, .. }) => {
                    let error = format!("Listener Error: SSLConfigError. Reason: {why}");
                    problems.errors.push(error.clone());
                    secure.push(error);
                    Certificate::Missing
                }
                Ok(certificate) => certificate,
            };
            for domain in virtual_services::domains(object).into_iter().filter(|_| problems.errors.is_empty()) {
                match &certificate {
                    Certificate::None => _ = config.hosts.insert(domain, host.clone()),
                    Certificate::Missing => {}
                    Certificate::Pair(certificate, key) => {
                        let (certificate, key) = (certificate.clone(), key.clone());
                        config.tls.insert(domain, Tls::Terminated { certificate, key, host: host.clone() });
                    }
                }
            }
            if !problems.errors.is_empty() {
                held.push(self.kept(object));
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
        // After the hosts: a listener stays with all of them.
        if let Some(why) = self.stripped(HTTP_PORT, &plain) {
            config.http_port = 0;
            held.push(Held::new(why, envoy::keep_plain));
        }
        if let Some(why) = self.stripped(HTTPS_PORT, &secure) {
            config.https_port = 0;
            held.push(Held::new(why, envoy::keep_tls));
        }
        if !held.is_empty() {
            upstreams.add_all();
        }
        config.clusters = upstreams.clusters;
        Translation { files: envoy::files(&config), statuses, complaints: BTreeSet::new(), held }
    }
}

/// What a VirtualService is served with. With a certificate it is behind TLS and nowhere else.
enum Certificate {
    None,
    /// It asks for one, and is not served without.
    Missing,
    /// Chain and key.
    Pair(String, String),
}

/// Why there is no certificate.
struct NoCertificate {
    why: String,
    /// Whether there is no Secret.
    missing: bool,
}

/// What `sslConfig.secretRef` names.
fn certificate(objects: &Objects, object: &Object) -> Result<Certificate, NoCertificate> {
    let Some(reference) = object.data["spec"]["sslConfig"].get("secretRef") else { return Ok(Certificate::None) };
    let (namespace, name) = (text(reference, "/namespace"), text(reference, "/name"));
    let Some(secret) = objects.get(SECRETS, namespace, name) else {
        let why = format!("SSL secret not found: list did not find secret {namespace}.{name}");
        return Err(NoCertificate { why, missing: true });
    };
    match secrets::pair(secret) {
        Ok((chain, key)) => Ok(Certificate::Pair(chain, key)),
        Err(fault) => {
            let why = match fault {
                Fault::Lacks(key) => format!("it has no {key}"),
                Fault::Unusable(why) => why,
            };
            let why = format!("{namespace}.{name} is not a valid TLS secret: {why}");
            Err(NoCertificate { why, missing: false })
        }
    }
}

#[cfg(test)]
mod tests;
