//! The matrix cut into jobs: what a CI service runs side by side, each on a machine of its own.
//!
//! A job is one controller at one version in one mode on one kind of cluster. What a cell leaves to another one stays inside a mode,
//! so a job comes to the same verdicts as a run of everything.

use meshgate_clusters::Kind;
use meshgate_fixtures::{Fixtures, Mode, Version};
use serde::Serialize;

use crate::matrix::{self, Place, Selection, SelectionError};

/// One job. As JSON it is an element of a workflow's matrix.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Job {
    /// The controller's name.
    pub controller: String,
    /// Its version.
    pub version: Version,
    /// How the proxy beside it runs.
    pub mode: Mode,
    /// The cluster's kind.
    pub cluster: Kind,
    /// Whether it needs `--native-images`: the controller's manifests do not suit the image that such a cluster pulls.
    pub native_images: bool,
    /// Names the job's expected report, its artefacts and its badge: `traefik-ingress`, `traefik-3.6.15-ingress`,
    /// `traefik-ingress-existing`. The newest version and the embedded cluster go without saying, so that a name outlasts the next
    /// version.
    pub slug: String,
}

/// Which versions of a controller that was asked for without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// The newest.
    Newest,
    /// Each that the fixtures know.
    All,
}

/// The jobs of a selection: controllers in their order, versions oldest first, then modes, then clusters.
///
/// # Errors
/// Those of [`matrix::cells`].
pub fn jobs(
    fixtures: &Fixtures,
    selection: &Selection,
    versions: Versions,
    clusters: &[Kind],
) -> Result<Vec<Job>, SelectionError> {
    let controllers = match versions {
        Versions::Newest => selection.controllers.clone(),
        Versions::All => every_version(fixtures, &selection.controllers)?,
    };
    let selection = Selection { controllers, ..selection.clone() };
    let mut settings: Vec<(String, Version, Mode)> = Vec::new();
    for cell in matrix::cells(fixtures, &selection, Place::USUAL)? {
        let setting = (cell.controller, cell.version, cell.mode);
        if !settings.contains(&setting) {
            settings.push(setting);
        }
    }
    let mut jobs = Vec::new();
    for (controller, version, mode) in settings {
        let known = fixtures.controller(&controller)?;
        let (newest, native_only) = (known.newest() == &version, known.native_only.is_some());
        for cluster in clusters.iter().copied() {
            let mut slug = controller.clone();
            if !newest {
                slug += &format!("-{version}");
            }
            slug += &format!("-{}", mode.as_str());
            if cluster != Kind::Embedded {
                slug += &format!("-{cluster}");
            }
            let native_images = native_only && cluster != Kind::Embedded;
            jobs.push(Job {
                controller: controller.clone(),
                version: version.clone(),
                mode,
                cluster,
                native_images,
                slug,
            });
        }
    }
    Ok(jobs)
}

/// `name` becomes all of `name@version`; `name@version` stays.
fn every_version(fixtures: &Fixtures, wanted: &[String]) -> Result<Vec<String>, SelectionError> {
    let names = if wanted.is_empty() { fixtures.controllers.keys().cloned().collect() } else { wanted.to_vec() };
    let mut all = Vec::new();
    for name in names {
        if name.contains('@') {
            all.push(name);
        } else {
            let controller = fixtures.controller(&name)?;
            all.extend(controller.versions.iter().map(|version| format!("{name}@{version}")));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn slugs(controllers: &[&str], versions: Versions, clusters: &[Kind]) -> Vec<String> {
        let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
        let selection = Selection { controllers, ..Selection::default() };
        let jobs = jobs(&Fixtures::built_in().unwrap(), &selection, versions, clusters).unwrap();
        jobs.into_iter().map(|job| job.slug).collect()
    }

    #[test]
    fn a_job_is_named_by_what_is_not_usual() {
        let clusters = [Kind::Embedded, Kind::Existing];
        assert_eq!(slugs(&["gce"], Versions::Newest, &clusters), ["gce-outside", "gce-outside-existing"]);
        assert_eq!(
            slugs(&["traefik@3.0.4"], Versions::All, &clusters[..1]),
            ["traefik-3.0.4-ingress", "traefik-3.0.4-default"]
        );
    }

    #[test]
    fn what_suits_no_official_image_is_given_the_native_one_where_others_are_pulled() {
        let of = |controller: &str, cluster: Kind| {
            let selection = Selection { controllers: vec![controller.to_owned()], ..Selection::default() };
            let jobs = jobs(&Fixtures::built_in().unwrap(), &selection, Versions::Newest, &[cluster]).unwrap();
            jobs[0].native_images
        };
        assert!(of("gce", Kind::Kind) && !of("gce", Kind::Embedded) && !of("traefik", Kind::Kind));
    }

    #[test]
    fn all_versions_have_jobs_of_names_of_their_own() {
        let newest = slugs(&[], Versions::Newest, &[Kind::Embedded]);
        let all = slugs(&[], Versions::All, &[Kind::Embedded]);
        assert!(newest.iter().all(|slug| all.contains(slug)), "{newest:?} {all:?}");
        assert!(all.iter().any(|slug| slug.starts_with("traefik-3.0.4-")), "{all:?}");
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
