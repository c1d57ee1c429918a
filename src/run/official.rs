//! The vendors' own images, which clusters other than the embedded one pull: what they suit.

use anyhow::bail;
use meshgate_fixtures::{Controller, Fixtures};

use crate::target::{Install, Target};

/// The fixtures without the controllers whose manifests do not suit their official image, where the cluster takes that. `note` hears of those
/// that are left out.
///
/// # Errors
/// One of them was asked for.
pub fn suited(
    mut fixtures: Fixtures,
    controllers: &[String],
    target: &Target,
    note: &dyn Fn(&str),
) -> anyhow::Result<Fixtures> {
    if !target.runs_official_images() {
        return Ok(fixtures);
    }
    // A vendor's chart suits the vendor's image.
    let charted = |controller: &Controller| target.install == Install::Helm && controller.chart.is_some();
    let unsuited = |controller: &Controller| controller.native_only.clone().filter(|_| !charted(controller));
    for wanted in controllers {
        let name = wanted.split('@').next().unwrap_or(wanted);
        if let Some(why) = unsuited(fixtures.controller(name)?) {
            bail!(
                "{name}: its manifests do not suit its official image, which a cluster of kind {} pulls: {why}; add --native-images, and the \
                 cluster has the program of the embedded cluster in its place{}",
                target.cluster,
                target.how_native_images_come()
            );
        }
    }
    let out = fixtures.controllers.values().filter(|controller| unsuited(controller).is_some());
    let out: Vec<&str> = out.map(|controller| controller.name.as_str()).collect();
    if controllers.is_empty() && !out.is_empty() {
        note(&format!(
            "left out, because their manifests do not suit their official images: {}; --native-images has them",
            out.join(", ")
        ));
    }
    fixtures.controllers.retain(|_, controller| unsuited(controller).is_none());
    Ok(fixtures)
}
