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

use std::collections::BTreeSet;

use crate::flags::Flags;
use crate::objects::{CONFIG_MAPS, ENDPOINT_SLICES, INGRESS_CLASSES, INGRESSES, Kind, Objects, SECRETS, SERVICES};
use crate::run::{Controller, Translation, run};
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

impl Controller for IngressNginx {
    fn kinds(&self) -> Vec<Kind> {
        vec![CONFIG_MAPS, ENDPOINT_SLICES, INGRESS_CLASSES, INGRESSES, SECRETS, SERVICES]
    }

    fn translate(&self, objects: &Objects) -> Translation {
        let settings = Settings::read(objects, self.flags.object("configmap"));
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
        Translation { files: render::files(&model, &settings, &self.flags, &self.certificate), statuses, complaints }
    }
}

#[cfg(test)]
mod tests;
