//! Kong's ingress controller (KIC 3.5) and gateway (3.9) in front of the nginx of the wheel.
//!
//! ```text
//! Ingresses, Services, EndpointSlices, Secrets, KongPlugins ─ translate ─> Model ─ render ─> nginx.conf ─ nginx -t, SIGHUP ─> nginx
//! ```
//!
//! Kong is an nginx whose routes, balancer and plugins are Lua. Here a route is a location, an upstream follows
//! [`endpoints`](crate::nginx::endpoints), and the one plugin that is played, request-transformer, is worked out beforehand
//! ([`transform`]). The headers of a location are those of `kong/templates/nginx_kong.lua`.

mod model;
mod plugins;
mod render;
mod settings;
mod transform;
mod translate;

use std::collections::BTreeSet;

use anyhow::Context as _;
use rcgen::{CertificateParams, DnType, KeyPair};

use crate::flags::Flags;
use crate::nginx::plane::Nginx;
use crate::objects::{ENDPOINT_SLICES, INGRESS_CLASSES, INGRESSES, Kind, Objects, SECRETS, SERVICES};
use crate::run::{Controller, Translation, run};
use crate::services;
use crate::status::StatusUpdate;
use settings::Settings;

/// The port of the controller's probes.
const HEALTH: u16 = 10254;

/// The role.
pub(crate) async fn main(flags: Flags) -> anyhow::Result<()> {
    let settings = Settings::read(&flags, &std::env::vars().collect());
    let plane = Nginx::new().await?;
    // Without a database every replica serves, and the first to see a change writes the status.
    run("kong-client", Kong { settings, certificate: default_certificate()? }, plane, HEALTH, None).await
}

/// The certificate of hosts without one, as Kong makes it at its first start.
fn default_certificate() -> anyhow::Result<String> {
    let key = KeyPair::generate().context("a key for Kong's own certificate")?;
    let mut params = CertificateParams::new(["localhost".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.distinguished_name.push(DnType::OrganizationName, "Kong");
    Ok(params.self_signed(&key)?.pem() + &key.serialize_pem())
}

struct Kong {
    settings: Settings,
    certificate: String,
}

impl Controller for Kong {
    fn kinds(&self) -> Vec<Kind> {
        vec![
            ENDPOINT_SLICES,
            INGRESS_CLASSES,
            INGRESSES,
            plugins::CLUSTER_PLUGINS,
            plugins::PLUGINS,
            SECRETS,
            SERVICES,
            translate::PARAMETERS,
        ]
    }

    fn translate(&self, objects: &Objects) -> Translation {
        let mut complaints = BTreeSet::new();
        let taken = translate::ingresses(objects, &self.settings.class);
        let model = translate::model(objects, &self.settings.class, &taken, &mut complaints);
        let mut statuses = Vec::new();
        if let Some((namespace, service)) = &self.settings.publish
            && self.settings.update_status
        {
            let status = services::ingress_status(&services::published(objects, namespace, service));
            let updates = taken.iter().filter_map(|it| StatusUpdate::unless_there(INGRESSES, it, status.clone()));
            statuses = updates.collect();
        }
        let files = render::files(&model, &self.settings, &self.certificate);
        Translation { files, statuses, complaints, held: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
