//! Kong's ingress controller (KIC 3.5), which tells a gateway by its Admin API what to serve; and, in [`gateway`], the gateway (3.9).
//!
//! ```text
//! Ingresses, Services, EndpointSlices, Secrets, KongPlugins ─ translate ─> declarative configuration ─ POST /config ─> gateway
//!                            fallback without the objects that the gateway refuses <─ 400, flattened_errors ──────────────┘
//! ```
//!
//! The two are containers of one pod, and either can be the real program.

mod admin;
pub(crate) mod gateway;
mod plugins;
mod settings;
mod translate;

use std::collections::BTreeSet;

use kube::ResourceExt as _;

use crate::flags::Flags;
use crate::objects::{ENDPOINT_SLICES, INGRESS_CLASSES, INGRESSES, Kind, Object, Objects, SECRETS, SERVICES};
use crate::run::{Controller, Translation, run};
use crate::services;
use crate::status::StatusUpdate;
use admin::{AdminApi, CONFIGURATION};
use settings::Settings;

/// The port of the controller's probes.
const HEALTH: u16 = 10254;

/// The role.
pub(crate) async fn main(flags: Flags) -> anyhow::Result<()> {
    let settings = Settings::read(&flags, &std::env::vars().collect());
    let gateway = AdminApi::at(&settings.admin)?;
    // Without a database every replica serves, and the first to see a change writes the status.
    run("kong-client", Kong { settings }, gateway, HEALTH, None).await
}

struct Kong {
    settings: Settings,
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
        let configuration = translate::declarative(objects, &self.settings.class, &taken, &mut complaints);
        let mut statuses = Vec::new();
        if let Some((namespace, service)) = &self.settings.publish
            && self.settings.update_status
        {
            let status = services::ingress_status(&services::published(objects, namespace, service));
            let updates = taken.iter().filter_map(|it| StatusUpdate::unless_there(INGRESSES, it, status.clone()));
            statuses = updates.collect();
        }
        let files = [(CONFIGURATION.into(), configuration.to_string())].into();
        Translation { files, statuses, complaints, held: Vec::new() }
    }

    fn leaves_out_refused(&self) -> bool {
        self.settings.fallback
    }

    fn dependants(&self, objects: &Objects, kind: Kind, object: &Object) -> Vec<Object> {
        plugins::dependants(objects, kind, object)
    }
}

/// The tags by which what the gateway says of an entity leads back to the object that it is of (`GenerateTagsForObject` of
/// `internal/util/k8s.go`).
fn tags(kind: Kind, object: &Object) -> Vec<String> {
    let (namespace, uid) = (object.namespace().unwrap_or_default(), object.uid().unwrap_or_default());
    let said = [
        ("name", object.name_any()),
        ("namespace", namespace),
        ("kind", kind.kind.to_owned()),
        ("uid", uid),
        ("group", kind.group.to_owned()),
        ("version", kind.version.to_owned()),
    ];
    said.iter().filter(|(_, value)| !value.is_empty()).map(|(what, value)| format!("k8s-{what}:{value}")).collect()
}

#[cfg(test)]
mod tests;
