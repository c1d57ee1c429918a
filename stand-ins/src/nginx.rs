//! ingress-nginx (controller 1.15) in front of the nginx of the wheel.
//!
//! ```text
//! Ingresses, Services, EndpointSlices, Secrets, ConfigMaps ─ translate ─> Model ─ render ─> nginx.conf ─ nginx -t, SIGHUP ─> nginx
//! ```
//!
//! Where the real one balances in Lua, over a list of endpoints that changes without a reload, this one has an `upstream` block per
//! backend that follows [`endpoints`]; where it chooses a canary in Lua, this one has `split_clients` and `map`. The directives of a
//! location, and their order, are those of `rootfs/etc/nginx/template/nginx.tmpl`.

mod annotations;
pub(crate) mod endpoints;
mod model;
mod older;
pub(crate) mod plane;
mod render;
mod settings;
pub(crate) mod text;
mod translate;
mod values;
mod webhook;

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::flags::Flags;
use crate::objects::{
    CONFIG_MAPS, ENDPOINT_SLICES, INGRESS_CLASSES, INGRESSES, Kind, Object, Objects, SECRETS, SERVICES,
};
use crate::run::{Controller, Translation, Webhook, run};
use crate::services;
use crate::status::StatusUpdate;
pub(crate) use render::{ENDPOINTS, MAIN};
use settings::Settings;

/// The role.
pub(crate) async fn main(flags: Flags) -> anyhow::Result<()> {
    let health_port = flags.number("healthz-port", 10254);
    let lease = flags.get("election-id").map(|name| {
        let namespace = std::env::var("POD_NAMESPACE").unwrap_or_else(|_| "ingress-nginx".to_owned());
        (namespace, name.to_owned())
    });
    let plane = plane::Nginx::new().await?;
    let certificate = plane::fake_certificate()?;
    run("nginx-ingress-controller", IngressNginx { flags, certificate }, plane, health_port, lease).await
}

struct IngressNginx {
    flags: Flags,
    /// Of hosts without one of their own.
    certificate: String,
}

impl IngressNginx {
    fn settings(&self, objects: &Objects) -> Settings {
        Settings::read(objects, self.flags.object("configmap"))
    }
}

impl Controller for IngressNginx {
    fn kinds(&self) -> Vec<Kind> {
        vec![CONFIG_MAPS, ENDPOINT_SLICES, INGRESS_CLASSES, INGRESSES, SECRETS, SERVICES]
    }

    fn translate(&self, objects: &Objects) -> Translation {
        let settings = self.settings(objects);
        let mut complaints = BTreeSet::new();
        let taken = translate::ingresses(objects, &self.flags, &settings, &mut complaints);
        let model = translate::model(objects, &self.flags, &taken, &mut complaints);
        let mut statuses = Vec::new();
        if let Some((namespace, service)) = self.flags.object("publish-service")
            && self.flags.or("update-status", "true") == "true"
        {
            let status = services::ingress_status(&services::published(objects, namespace, service));
            let update =
                |ingress: &translate::Taken| StatusUpdate::unless_there(INGRESSES, &ingress.object, status.clone());
            statuses = taken.iter().filter_map(update).collect();
        }
        let files = render::files(&model, &settings, &self.flags, &self.certificate);
        Translation { files, statuses, complaints, held: Vec::new() }
    }

    /// It stays with the configuration that it has (`OnUpdate` of the real one), since CVE-2025-1974 without a webhook that tries Ingresses.
    fn leaves_out_refused(&self) -> bool {
        false
    }

    fn webhook(&self) -> Option<Webhook> {
        let address = self.flags.get("validating-webhook").filter(|address| !address.is_empty())?;
        let file = |flag: &str| PathBuf::from(self.flags.or(flag, ""));
        Some(Webhook {
            kind: INGRESSES,
            address: address.to_owned(),
            certificate: file("validating-webhook-certificate"),
            key: file("validating-webhook-key"),
        })
    }

    fn judge(&self, objects: &Objects, ingress: &Object) -> Result<(), String> {
        webhook::judge(objects, &self.flags, &self.settings(objects), ingress)
    }
}

#[cfg(test)]
mod tests;
