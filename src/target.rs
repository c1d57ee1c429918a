//! `--cluster` and what belongs to it: where a run takes place.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use meshgate_clusters::remote::{Claim, Reach};
use meshgate_clusters::{Backend, IMAGE, Kind, embedded};
use meshgate_harness::matrix::{Mesh, Place};

/// Where.
#[derive(clap::Args, Clone)]
#[group(id = "target")]
pub struct Target {
    /// The cluster: `embedded` is one per cell, inside the cell's process; `existing` is the one that a kubeconfig leads to
    #[arg(long, default_value = "embedded", value_name = "KIND", value_parser = kind)]
    pub cluster: Kind,
    /// The kubeconfig of an existing cluster; kubectl's own when left out
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context in it; its current one when left out
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Meshgate's own image, as the nodes of an existing cluster can get it (see `meshgate image`)
    #[arg(long, value_name = "IMAGE", default_value = IMAGE)]
    image: String,
    /// Say what would be made on an existing cluster and what is in the way there, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Leave what the last cell made on an existing cluster, to look at; the next run sweeps it away
    #[arg(long)]
    keep: bool,
}

/// A kind of cluster by name.
///
/// # Errors
/// Those that there are, when it is none of them.
pub fn kind(name: &str) -> Result<Kind, String> {
    const KNOWN: [Kind; 2] = [Kind::Embedded, Kind::Existing];
    let names = KNOWN.map(Kind::as_str).join(", ");
    KNOWN.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| format!("expected one of {names}"))
}

impl Target {
    /// Where the cells are.
    pub fn place(&self) -> Place {
        Place { cluster: self.cluster, mesh: Mesh::Bundled }
    }

    /// Checks that the arguments belong together.
    pub fn check(&self) -> anyhow::Result<()> {
        let only_elsewhere = [
            ("--kubeconfig", self.kubeconfig.is_some()),
            ("--context", self.context.is_some()),
            ("--dry-run", self.dry_run),
            ("--keep", self.keep),
        ];
        if self.cluster == Kind::Embedded
            && let Some((flag, _)) = only_elsewhere.iter().find(|(_, given)| *given)
        {
            bail!("{flag} is for a cluster that is there: --cluster existing");
        }
        Ok(())
    }

    /// How to reach the cluster, where it is not the run's own.
    pub fn reach(&self) -> anyhow::Result<Option<Reach>> {
        match self.cluster {
            Kind::Embedded => Ok(None),
            Kind::Existing => {
                Ok(Some(Reach::existing(self.kubeconfig.as_deref(), self.context.as_deref(), &self.image)?))
            }
        }
    }

    /// What cells open.
    pub fn backend(&self, images: &[String], progress: &dyn Fn(&str)) -> anyhow::Result<Backend> {
        Ok(match self.reach()? {
            Some(reach) => Backend::Remote(reach),
            None => {
                // Once here rather than once in every cell.
                meshgate_net::namespaces::check()?;
                Backend::Embedded(embedded::prepare(std::env::current_exe()?, images, progress)?)
            }
        })
    }

    /// Lays hold on the cluster for a run, where it is not the run's own.
    pub async fn claim(&self, backend: &Backend, progress: &dyn Fn(&str)) -> anyhow::Result<Option<Claim>> {
        let Backend::Remote(reach) = backend else { return Ok(None) };
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let holder = format!("meshgate run, process {} on {}", std::process::id(), host.trim());
        Ok(Some(Claim::take(reach.clone(), &holder, progress).await?))
    }

    /// Gives it back.
    pub async fn release(&self, claim: Option<Claim>, progress: &dyn Fn(&str)) -> anyhow::Result<()> {
        match claim {
            Some(_) if self.keep => {
                progress("left on the cluster, as --keep asks; the next run sweeps it away");
                Ok(())
            }
            Some(claim) => claim.release(progress).await.context("the cluster was not left as it was found"),
            None => Ok(()),
        }
    }

    /// How long setting a cell up may take where nothing else is said: other clusters pull images and have more to do.
    pub fn usual_setup_seconds(&self) -> u64 {
        match self.cluster {
            Kind::Embedded => 60,
            Kind::Existing => 300,
        }
    }

    /// The arguments that lead to the same cluster again.
    pub fn repeat(&self) -> String {
        let path = |path: &Path| path.display().to_string();
        let flags = [
            (self.cluster != Kind::Embedded).then(|| format!(" --cluster {}", self.cluster)),
            self.kubeconfig.as_deref().map(|file| format!(" --kubeconfig {}", path(file))),
            self.context.as_deref().map(|context| format!(" --context {context}")),
            (self.image != IMAGE).then(|| format!(" --image {}", self.image)),
        ];
        flags.into_iter().flatten().collect()
    }
}
