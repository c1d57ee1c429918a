//! A run's cluster, from nothing until it is given back: **[`Groundwork`] → [`Site`] → cells → closed**.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use meshgate_clusters::k3s::{self, K3sCluster};
use meshgate_clusters::kind::{self, KindCluster, PUBLISHED, Port};
use meshgate_clusters::lease::Leases;
use meshgate_clusters::linkerd::{Authority, Linkerd};
use meshgate_clusters::provision::Provisioned;
use meshgate_clusters::remote::{Claim, Reach};
use meshgate_clusters::scratch::Scratch;
use meshgate_clusters::{Backend, IMAGE, Kind, archive, embedded, told};
use meshgate_harness::injection::Foreign;
use meshgate_harness::matrix::Mesh;
use tokio_util::sync::CancellationToken;

use crate::target::Target;

/// The name of a cluster that is kept, so that it is found again.
const KEPT: &str = "meshgate-kept";

/// For how long it is.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// How long the certificates of a real Linkerd are valid: longer than any run, and longer than the 60 days that `linkerd check` warns of.
const VALID: Duration = Duration::from_secs(90 * 24 * 3600);

/// What is there before anything runs. Getting it may take long, and an interruption simply ends it.
pub enum Groundwork {
    /// The programs of embedded clusters.
    Embedded(embedded::Prepared),
    /// Images for a cluster that is to be made.
    Images(Scratch),
    /// Nothing: the cluster is there.
    Nothing,
}

impl Groundwork {
    /// Lays it. `images` are those of the controllers.
    pub fn lay(target: &Target, images: &[String], progress: &dyn Fn(&str)) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        Ok(match target.cluster {
            Kind::Embedded => Self::Embedded(embedded::prepare(program, images, progress)?),
            Kind::Existing => Self::Nothing,
            Kind::Kind | Kind::K3s => {
                let mut wanted = vec![IMAGE.to_owned()];
                wanted.extend(images.iter().filter(|_| target.native_images).cloned());
                let file = Scratch::new(".tar", &[])?;
                archive::archive(&program, &wanted, &file, progress)?;
                Self::Images(file)
            }
        })
    }
}

/// A cluster that was made for the run.
enum Made {
    Kind(Box<KindCluster>),
    K3s(Box<K3sCluster>),
}

impl Made {
    async fn export_logs(&self, dir: &Path) -> anyhow::Result<()> {
        match self {
            Self::Kind(cluster) => Ok(cluster.export_logs(dir).await?),
            Self::K3s(cluster) => Ok(cluster.export_logs(dir).await?),
        }
    }

    async fn down(&mut self, progress: &dyn Fn(&str)) -> anyhow::Result<()> {
        match self {
            Self::Kind(cluster) => Ok(cluster.down(progress).await?),
            Self::K3s(cluster) => Ok(cluster.down(progress).await?),
        }
    }
}

/// Where the cells of a run open their clusters.
pub struct Site {
    /// What they open.
    pub backend: Backend,
    /// The manifests of a mesh that is not Meshgate's own; they hold private keys.
    mesh: Option<Scratch>,
    claim: Option<Claim>,
    made: Option<Made>,
    /// Whether the cluster stays, with what is on it.
    keep: bool,
}

impl Site {
    /// Makes what is to be made and lays hold on it. What was made is gone again when this fails. `splits` says whether a case has
    /// TrafficSplits. `admit` is asked before anything is written to a cluster of others; it is given what a mesh that is not Meshgate's own
    /// consists of.
    pub async fn open(
        target: &Target,
        groundwork: Groundwork,
        splits: bool,
        admit: impl AsyncFnOnce(&Reach, Option<&Foreign>) -> anyhow::Result<()>,
        logs: &Path,
        cancel: &CancellationToken,
        progress: &dyn Fn(&str),
    ) -> anyhow::Result<Self> {
        let (reach, made) = match groundwork {
            Groundwork::Embedded(prepared) => {
                let backend = Backend::Embedded(prepared);
                return Ok(Self { backend, mesh: None, claim: None, made: None, keep: false });
            }
            Groundwork::Nothing => (target.existing()?, None),
            Groundwork::Images(images) => {
                let (provisioned, made) = make(target, &images, logs, cancel, progress).await?;
                let Provisioned { kubeconfig, context, .. } = provisioned;
                let Target { cluster: kind, entrance, publish: publishes, .. } = *target;
                let reach =
                    Reach { kind, kubeconfig, context, image: IMAGE.to_owned(), entrance, publishes, merged: None };
                (reach, Some(made))
            }
        };
        // Whoever uses a cluster again does not end it either.
        let keep = target.keep || target.reuse;
        let mut site = Self { backend: Backend::Remote(reach.clone()), mesh: None, claim: None, made, keep };
        match site.settle(target, reach, splits, admit, cancel, progress).await {
            Ok(()) => Ok(site),
            Err(error) => {
                if let Err(error) = site.close(true, logs, progress).await {
                    progress(&told(error.as_ref()));
                }
                Err(error)
            }
        }
    }

    async fn settle(
        &mut self,
        target: &Target,
        reach: Reach,
        splits: bool,
        admit: impl AsyncFnOnce(&Reach, Option<&Foreign>) -> anyhow::Result<()>,
        cancel: &CancellationToken,
        progress: &dyn Fn(&str),
    ) -> anyhow::Result<()> {
        let mut mesh = None;
        if target.mesh == Mesh::Linkerd {
            progress("asking linkerd for its manifests");
            let objects = unless(cancel, linkerd(&reach, splits)).await?;
            self.mesh = Some(Scratch::new(".json", &serde_json::to_vec(&objects)?)?);
            mesh = Some(objects);
        }
        if target.cluster == Kind::Existing {
            progress("looking for what is in the way");
            unless(cancel, admit(&reach, mesh.as_ref())).await?;
        }
        self.claim = Some(Claim::take(reach, &holder(), cancel, progress).await?);
        Ok(())
    }

    /// The file with the manifests of a mesh that is not Meshgate's own.
    pub fn mesh(&self) -> Option<PathBuf> {
        self.mesh.as_ref().map(|path| path.to_path_buf())
    }

    /// Gives the cluster back as it was, or ends it if it was made for the run; its logs go to `logs` unless all went well.
    pub async fn close(self, well: bool, logs: &Path, progress: &dyn Fn(&str)) -> anyhow::Result<()> {
        let Some(mut made) = self.made else {
            return match self.claim {
                Some(claim) if self.keep => {
                    claim.leave().await?;
                    progress("left on the cluster, as --keep asks; the next run sweeps it away");
                    Ok(())
                }
                Some(claim) => claim.release(progress).await.context("the cluster was not left as it was found"),
                None => Ok(()),
            };
        };
        match self.claim {
            // Whoever uses it again need not wait.
            Some(claim) if self.keep => {
                if let Err(error) = claim.leave().await {
                    progress(&error.to_string());
                }
            }
            // What is on it goes with it.
            claim => drop(claim),
        }
        if !well {
            match made.export_logs(logs).await {
                Ok(()) => progress(&format!("the logs of the cluster: {}", logs.display())),
                Err(error) => progress(&format!("no logs of the cluster: {}", told(error.as_ref()))),
            }
        }
        made.down(progress).await
    }
}

/// Asks what would make the cluster whether it could, before images are packed for it.
///
/// # Errors
/// What is missing for that.
pub async fn possible(target: &Target) -> anyhow::Result<()> {
    match target.cluster {
        Kind::Embedded | Kind::Existing => Ok(()),
        Kind::Kind => Ok(kind::possible(target.kubernetes.as_deref(), &[]).await?),
        Kind::K3s => Ok(k3s::possible().await?),
    }
}

/// What comes of it, unless the run is interrupted before. Commands that are dropped are killed.
pub async fn unless<T>(cancel: &CancellationToken, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        () = cancel.cancelled() => bail!("interrupted"),
    }
}

/// Who holds a cluster, for others to read.
fn holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("meshgate run, process {} on {}", std::process::id(), host.trim())
}

async fn make(
    target: &Target,
    images: &Path,
    logs: &Path,
    cancel: &CancellationToken,
    progress: &dyn Fn(&str),
) -> anyhow::Result<(Provisioned, Made)> {
    let leases = Leases::usual()?;
    let name = match target.keep || target.reuse {
        true => KEPT.to_owned(),
        false => {
            let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
            format!("meshgate-{}-{seconds}", std::process::id())
        }
    };
    let keep = target.keep.then_some(KEPT_FOR);
    if target.cluster == Kind::K3s {
        let options = k3s::Options { keep, archives: vec![images.to_owned()], ..k3s::Options::new(name) };
        let cluster = K3sCluster::up(&options, &leases, cancel, progress).await?;
        return Ok((cluster.provisioned().clone(), Made::K3s(Box::new(cluster))));
    }
    let node_image = async { anyhow::Ok(kind::node_image(target.kubernetes.as_deref(), &[]).await?) };
    let node_image = unless(cancel, node_image).await?;
    let options = kind::Options {
        node_image: node_image.image,
        kubernetes: target.kubernetes.clone(),
        ports: PUBLISHED.iter().filter(|_| target.publish).map(|&node| Port { node, host: None }).collect(),
        keep,
        reuse: target.reuse,
        logs: Some(logs.to_owned()),
        ..kind::Options::new(name)?
    };
    let mut cluster = KindCluster::up(&options, &leases, cancel, progress).await?;
    let furnished = async {
        if target.publish {
            let why = match target.reuse {
                true => "--publish needs a cluster that was made with it, which the one of --reuse was not",
                false => "--publish",
            };
            let http = cluster.address(PUBLISHED[0]).await.context(why)?;
            let https = cluster.address(PUBLISHED[1]).await.context(why)?;
            progress(&format!("while a cell is up, its controller is at http://{http} and https://{https}"));
        }
        progress("loading images");
        anyhow::Ok(cluster.load(images, progress).await?)
    };
    match unless(cancel, furnished).await {
        Ok(()) => Ok((cluster.provisioned().clone(), Made::Kind(Box::new(cluster)))),
        Err(error) => {
            if let Err(error) = cluster.down(progress).await {
                progress(&error.to_string());
            }
            Err(error)
        }
    }
}

/// What a real Linkerd consists of, with certificates of its own, and with the SMI extension where a case `splits` traffic by it.
pub async fn linkerd(reach: &Reach, splits: bool) -> anyhow::Result<Foreign> {
    let linkerd = Linkerd::new(reach, Vec::new());
    let authority = Authority::generate("cluster.local", VALID)?;
    // Nobody else has put the Gateway API on a cluster that was made for the run, and nobody else is to.
    let mut core = linkerd.crds(reach.kind != Kind::Existing).await?;
    core.extend(linkerd.control_plane(&authority, &[]).await?);
    let extensions = if splits { linkerd.smi().await? } else { Vec::new() };
    Ok(Foreign { core, extensions })
}
