//! Traefik 1.7 in front of Traefik 3.
//!
//! ```text
//! Ingresses, Services, EndpointSlices, Secrets ─ translate ─> frontends and backends ─ render ─> dynamic.yaml ─> Traefik 3, file provider
//! ```
//!
//! What an Ingress becomes follows `provider/kubernetes/kubernetes.go` of 1.7, and so does what is written about a bad one: lines in
//! the log, no events. The data plane is the same program three generations later. What differs between them and matters here is
//! handed to it as configuration: see [`plane`]. Left out: authentication, redirects, error pages, rate limits, white lists, circuit
//! breakers, stickiness. An Ingress that asks for authentication is not served; the others are served without what is left out.
//!
//! 1.7 reads Ingresses of `extensions/v1beta1`. Clusters of today serve `networking.k8s.io/v1` only, which is read here; of its further
//! fields 1.7 knows neither `ingressClassName` nor `pathType`, and neither does this.

mod annotations;
mod model;
mod plane;
mod render;
mod translate;
mod weights;

use std::collections::BTreeSet;

use rcgen::{CertificateParams, DnType, KeyPair};

use crate::flags::Flags;
use crate::objects::{ENDPOINT_SLICES, INGRESSES, Kind, Objects, SECRETS, SERVICES};
use crate::run::{Controller, Translation, run};
use crate::services;
use crate::status::StatusUpdate;
use plane::{EntryPoints, Traefik};

/// The role.
pub(crate) async fn main(flags: Flags) -> anyhow::Result<()> {
    let entry_points = EntryPoints::read(&flags)?;
    let health_port = entry_points.health;
    let plane = Traefik::new(entry_points)?;
    let controller = Traefik1 { flags, certificate: default_certificate()? };
    run("traefik", controller, plane, health_port, None).await
}

/// Chain and key of hosts without a certificate, as PEM.
fn default_certificate() -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(["traefik.default".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "TRAEFIK DEFAULT CERT");
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

struct Traefik1 {
    flags: Flags,
    certificate: (String, String),
}

impl Controller for Traefik1 {
    fn kinds(&self) -> Vec<Kind> {
        vec![ENDPOINT_SLICES, INGRESSES, SECRETS, SERVICES]
    }

    fn translate(&self, objects: &Objects) -> Translation {
        let mut complaints = BTreeSet::new();
        let class = self.flags.or("kubernetes.ingressclass", "");
        let (configuration, taken) = translate::configuration(objects, class, &mut complaints);
        let mut statuses = Vec::new();
        if let Some((namespace, service)) = self.flags.object("kubernetes.ingressendpoint.publishedservice") {
            let addresses = services::published(objects, namespace, service);
            // Without an address there is nothing to say yet.
            if !addresses.is_empty() {
                let status = services::ingress_status(&addresses);
                let update = |ingress| StatusUpdate::unless_there(INGRESSES, ingress, status.clone());
                statuses = taken.into_iter().filter_map(update).collect();
            }
        }
        let files = render::files(&configuration, &self.certificate);
        Translation { files, statuses, complaints, held: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
