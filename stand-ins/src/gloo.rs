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
//! What a VirtualService becomes follows `projects/gateway/pkg/translator` and the plugins below `projects/gloo/pkg/plugins`: `linkerd`
//! for `l5d-dst-override`, `headers` for `headerManipulation`, `kubernetes` for Upstreams. Discovery writes an Upstream for every port
//! of every Service; here they are known by the same names without being written. Envoy as it is to be had natively has no filter for
//! transformations, so a template for a header sets that header, which is what this one does without functions in it. Left out:
//! Gateways other than the two that an installation brings, RouteTables, UpstreamGroups, Upstreams with TLS, functions of templates.

mod upstreams;
mod virtual_services;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::envoy::model::{Config, Tls};
use crate::envoy::{self, Envoy};
use crate::flags::Flags;
use crate::objects::{ENDPOINT_SLICES, Kind, Object, Objects, SECRETS, SERVICES, text};
use crate::run::{Controller, Translation, run};
use crate::secrets::{self, Fault};
use crate::status::StatusUpdate;
use upstreams::Upstreams;
use virtual_services::{Domains, Problems};

const VIRTUAL_SERVICES: Kind = Kind::new("gateway.solo.io", "v1", "VirtualService", "virtualservices");
const SETTINGS: Kind = Kind::new("gloo.solo.io", "v1", "Settings", "settings");
const UPSTREAMS: Kind = Kind::new("gloo.solo.io", "v1", "Upstream", "upstreams");

/// The ports of the two Gateways, `gateway-proxy` and `gateway-proxy-ssl`.
const HTTP_PORT: u16 = 8080;
const HTTPS_PORT: u16 = 8443;

/// The role.
pub(crate) async fn main(flags: Flags) -> anyhow::Result<()> {
    let namespace = std::env::var("POD_NAMESPACE").unwrap_or_else(|_| "gloo-system".to_owned());
    let port = flags.number("health-port", 8082);
    run("gloo", Gloo { namespace }, Envoy::new()?, port, None).await
}

struct Gloo {
    /// Its own, where its Settings are.
    namespace: String,
}

impl Controller for Gloo {
    fn kinds(&self) -> Vec<Kind> {
        vec![ENDPOINT_SLICES, SECRETS, SERVICES, SETTINGS, UPSTREAMS, VIRTUAL_SERVICES]
    }

    fn translate(&self, objects: &Objects) -> Translation {
        let mut config = Config { http_port: HTTP_PORT, https_port: HTTPS_PORT, ..Config::default() };
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
            let status = json!({"statuses": BTreeMap::from([(&self.namespace, problems.status("gateway"))])});
            statuses.extend(StatusUpdate::unless_there(VIRTUAL_SERVICES, object, status));
        }
        for object in objects.all(UPSTREAMS) {
            let errors = upstreams::fault(object).map(str::to_owned).into_iter().collect();
            let status = Problems { errors, ..Problems::default() }.status("gloo");
            let status = json!({"statuses": BTreeMap::from([(&self.namespace, status)])});
            statuses.extend(StatusUpdate::unless_there(UPSTREAMS, object, status));
        }
        config.clusters = upstreams.clusters;
        Translation { files: envoy::files(&config), statuses, complaints: BTreeSet::new() }
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
