//! HAProxy Technologies' ingress controller (`haproxytech/kubernetes-ingress` 3.2) in front of HAProxy.
//!
//! ```text
//! ConfigMap, Ingresses, Services, EndpointSlices, Secrets ─ translate ─> Model ─ render ─> haproxy.cfg, maps, certificates
//!                                                                                              │ haproxy -c, SIGUSR2
//!                                              addresses of pods ─ plane ─ runtime API ─> HAProxy
//! ```
//!
//! A request's host and path are looked up in maps, whose value is the backend's name with the ids of the rules that its Ingress asks
//! for; a rule of the frontend applies where its id is in that value. So headers are set before a backend is chosen, and a host that any
//! Ingress names is not looked up without its host again. The maps and rules follow `pkg/route`, `pkg/haproxy/rules` and
//! `pkg/controller/controller.go`, backends and their server slots `pkg/service`. A server's address changes at run time, everything else
//! by a reload (the real one changes its maps at run time, too). Left out: authentication, rate limits, CORS, passing TLS through,
//! the snippets of frontends and of the ConfigMap, and the controller's own kinds.

mod model;
mod plane;
mod render;
mod settings;
mod slots;
mod snippets;
mod translate;

use std::collections::BTreeSet;

use crate::flags::Flags;
use crate::objects::{
    CONFIG_MAPS, DEFINITIONS, ENDPOINT_SLICES, INGRESS_CLASSES, INGRESSES, Kind, Objects, SECRETS, SERVICES,
};
use crate::run::{Controller, Translation, run};
use crate::services;
use crate::status::StatusUpdate;
use plane::Haproxy;
use settings::Settings;

/// The port of the controller's probes.
const HEALTH: u16 = 1042;

/// The role.
pub(crate) async fn main(flags: Flags) -> anyhow::Result<()> {
    // Every replica serves, and the first to see a change writes the status.
    run("haproxytech", Haproxytech { settings: Settings::read(&flags) }, Haproxy::new()?, HEALTH, None).await
}

struct Haproxytech {
    settings: Settings,
}

impl Controller for Haproxytech {
    fn kinds(&self) -> Vec<Kind> {
        // The definitions are only waited for, as the real one does: where it may not list them it never comes to a configuration.
        vec![CONFIG_MAPS, DEFINITIONS, ENDPOINT_SLICES, INGRESS_CLASSES, INGRESSES, SECRETS, SERVICES]
    }

    fn translate(&self, objects: &Objects) -> Translation {
        let mut complaints = BTreeSet::new();
        let taken = translate::ingresses(objects, &self.settings);
        let model = translate::model(objects, &self.settings, &taken, &mut complaints);
        let mut statuses = Vec::new();
        if let Some((namespace, service)) = &self.settings.publish {
            let status = services::ingress_status(&services::published(objects, namespace, service));
            let updates = taken.iter().filter_map(|it| StatusUpdate::unless_there(INGRESSES, it, status.clone()));
            statuses = updates.collect();
        }
        Translation { files: render::files(&model, &self.settings), statuses, complaints, held: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
