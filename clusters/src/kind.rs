//! Clusters of [kind](https://kind.sigs.k8s.io): Kubernetes in containers, one per node, made by the command `kind`.
//!
//! **[`Options`] → [`KindCluster::up`] → [`Provisioned`] → [`KindCluster::load`] → … → [`KindCluster::down`].** What kind is not trusted with:
//!
//! * that the cluster is ready: when `--wait` expires it warns and succeeds, and it looks at control-plane nodes only. [`Provisioned::ready`] asks
//!   the cluster;
//! * that a failed delete deleted nothing: it fails when the kubeconfig is locked, though the nodes are gone. What is left is asked for;
//! * other people's kubeconfig: each cluster has its own, in the folder of its [lease](crate::lease);
//! * the end: clusters of runs that were killed are swept when the next one begins.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::command::{Command, CommandError};
use crate::lease::{Held, LeaseError, Leases};
use crate::provision::{ProvisionError, Provisioned};

mod config;
mod image;
mod preflight;

pub use config::Port;
pub use image::NodeImage;
pub use preflight::{node_image, possible, preflight};

/// The node ports for HTTP and HTTPS of a controller that is to be reached from this machine: two of the first 86, of which Kubernetes
/// [gives no Service one by itself](https://kubernetes.io/blog/2023/05/11/nodeport-dynamic-and-static-allocation/) as long as others are free.
pub const PUBLISHED: [u16; 2] = [30080, 30043];

/// The backend's name in leases.
const BACKEND: &str = "kind";

/// How to get kind.
const INSTALL: &str = "install kind (https://kind.sigs.k8s.io/docs/user/quick-start/#installation), for instance: go install sigs.k8s.io/kind@v0.33.0";

/// How long kind may take for what is not waiting: the node image may have to be pulled.
const CREATES: Duration = Duration::from_secs(600);

/// How long it may take to copy images to the nodes, to export logs and to delete.
const WORKS: Duration = Duration::from_secs(300);

/// How long it may take to delete where nothing else can be done meanwhile.
const LAST_RESORT: Duration = Duration::from_secs(60);

/// How often loading images is tried. The container runtime of a node that has just come up is not always there yet.
const TRIES: u32 = 3;

/// Between two tries, and two looks whether it is this process' turn.
const PAUSE: Duration = Duration::from_secs(1);

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum KindError {
    /// The table of node images cannot be read.
    #[error("the table of node images: {0}")]
    Table(serde_yaml::Error),
    /// No image of that version is known.
    #[error(
        "no node image of Kubernetes {version:?} is known; those that are: {known}. Others: give the image itself, with its digest"
    )]
    Version {
        /// What was asked for.
        version: String,
        /// What there is, newest first.
        known: String,
    },
    /// The kind that is there runs none of the images that were asked for.
    #[error(
        "kind {release} is older than {}, which were built for kind {needed} at least; install a newer kind{}",
        images(wanted.as_deref()),
        another_version(*others)
    )]
    Older {
        /// Its release.
        release: String,
        /// The version of Kubernetes that was asked for, if one was.
        wanted: Option<String>,
        /// The oldest release that runs one.
        needed: String,
        /// Whether it runs an image of another version.
        others: bool,
    },
    /// The name is not one, or somebody else's.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// There is a cluster of that name.
    #[error(
        "there is a kind cluster \"{name}\" already; use it again, choose another name, or delete it: kind delete cluster --name {name}"
    )]
    Exists {
        /// Which.
        name: String,
    },
    /// There is one to be used again, of another version than was asked for.
    #[error(
        "the kind cluster \"{name}\" runs Kubernetes {found}, and {wanted} was asked for; leave --kubernetes out, or delete the cluster and have \
         another one made: kind delete cluster --name {name}"
    )]
    OtherVersion {
        /// Which.
        name: String,
        /// Its version.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// A file for kind could not be written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// What runs the nodes does not answer.
    #[error("{engine} runs the nodes of kind's clusters, and does not answer: {problem}; mend it: {remedy}")]
    Engine {
        /// Its command.
        engine: String,
        /// What it said.
        problem: String,
        /// What helps.
        remedy: String,
    },
    /// kind does not work at all.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// kind did not make it.
    #[error("kind did not create the cluster \"{name}\": {cause}{}", whereabouts(logs.as_deref()))]
    Create {
        /// Which.
        name: String,
        /// What it said.
        cause: CommandError,
        /// Where the nodes' logs are.
        logs: Option<PathBuf>,
    },
    /// It was made and does not work.
    #[error("{cause}{}", whereabouts(logs.as_deref()))]
    NotReady {
        /// What is wrong.
        cause: ProvisionError,
        /// Where the nodes' logs are.
        logs: Option<PathBuf>,
    },
    /// The run was ended while the cluster was being made.
    #[error("cancelled while the cluster \"{name}\" was being made")]
    Cancelled {
        /// Which.
        name: String,
    },
    /// The nodes do not take the images.
    #[error("kind did not load {} into the cluster \"{name}\", {TRIES} times; the last time: {cause}", archive.display())]
    Load {
        /// Which cluster.
        name: String,
        /// Which images.
        archive: PathBuf,
        /// What it said.
        cause: CommandError,
    },
    /// The node was made without it.
    #[error(
        "port {port} of the cluster \"{name}\" does not lead to this machine, and only a new cluster can be given it: {cause}"
    )]
    Unpublished {
        /// Which cluster.
        name: String,
        /// The node's.
        port: u16,
        /// What the container engine said.
        cause: CommandError,
    },
    /// The cluster is still there.
    #[error("the cluster \"{name}\" is still there; delete it: kind delete cluster --name {name}; {cause}")]
    Delete {
        /// Which.
        name: String,
        /// What kind said.
        cause: CommandError,
    },
}

/// What else there is to do where a kind is too old for what was asked for.
fn another_version(others: bool) -> &'static str {
    if others { ", or ask for another version: --kubernetes VERSION" } else { "" }
}

fn images(version: Option<&str>) -> String {
    version.map_or_else(|| "all known images".to_owned(), |version| format!("the images of Kubernetes {version}"))
}

fn whereabouts(logs: Option<&Path>) -> String {
    logs.map(|logs| format!("\n  the nodes' logs: {}", logs.display())).unwrap_or_default()
}

/// What cluster to make.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name, which begins with [`crate::lease::PREFIX`].
    pub name: String,
    /// The image of its nodes, with its digest.
    pub node_image: String,
    /// The version of Kubernetes that a cluster has to have that is used again, perhaps in part (`1.36`); `None` takes any.
    pub kubernetes: Option<String>,
    /// Ports of the node that are to be reached on 127.0.0.1.
    pub ports: Vec<Port>,
    /// How long the cluster may take to be ready once kind has made it; kind itself waits for as long at most.
    pub wait: Duration,
    /// For how long the cluster outlives its run; `None` ends it with it.
    pub keep: Option<Duration>,
    /// Whether a cluster of that name that is there already will do.
    pub reuse: bool,
    /// Where the nodes' logs go if the cluster does not come up.
    pub logs: Option<PathBuf>,
    /// Further environment of every command: `KIND_EXPERIMENTAL_PROVIDER=podman`, or a PATH.
    pub environment: Vec<(OsString, OsString)>,
}

impl Options {
    /// A cluster with the newest node image that ends with its run.
    ///
    /// # Errors
    /// [`KindError::Table`].
    pub fn new(name: impl Into<String>) -> Result<Self, KindError> {
        Ok(Self {
            name: name.into(),
            node_image: NodeImage::newest()?.image,
            kubernetes: None,
            ports: Vec::new(),
            wait: Duration::from_secs(180),
            keep: None,
            reuse: false,
            logs: None,
            environment: Vec::new(),
        })
    }
}

/// kind, as it is to be called.
#[derive(Clone, Debug)]
struct Tool {
    environment: Vec<(OsString, OsString)>,
}

impl Tool {
    fn command(&self, program: &str, install: &'static str) -> Command {
        let command = Command::new(program, install);
        self.environment.iter().fold(command, |command, (name, value)| command.env(name, value))
    }

    fn kind(&self, arguments: &[&str]) -> Command {
        self.command("kind", INSTALL).args(arguments).within(WORKS)
    }

    /// The names of all clusters, of whomever.
    async fn clusters(&self) -> Result<Vec<String>, CommandError> {
        let output = self.kind(&["get", "clusters"]).within(LAST_RESORT).run().await?;
        Ok(output.stdout.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    fn deletion(&self, held: &Held) -> Command {
        let lease = held.lease();
        // The kubeconfig is this cluster's alone, so a lock on it is what a killed kind left there.
        let _ = std::fs::remove_file(lock_of(&lease.kubeconfig));
        self.kind(&["delete", "cluster", "--name", &lease.name, "--kubeconfig"]).arg(&lease.kubeconfig)
    }

    /// Deletes a cluster and everything about it. One that is not there is deleted.
    async fn delete(&self, held: &Held, progress: &dyn Fn(&str)) -> Result<(), KindError> {
        if let Err(cause) = self.deletion(held).run().await {
            let name = &held.lease().name;
            let left = self.clusters().await.map_or(true, |clusters| clusters.contains(name));
            if left {
                return Err(KindError::Delete { name: name.clone(), cause });
            }
            progress(&format!("kind says that deleting {name} failed, but the cluster is gone"));
        }
        Ok(held.forget()?)
    }
}

fn lock_of(kubeconfig: &Path) -> PathBuf {
    let mut name = kubeconfig.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// A cluster of kind that this process has made, or found and taken.
///
/// It is to be brought [`down`](Self::down). One that is dropped before, as in a panic, is deleted then and there, which blocks; one
/// whose process is killed is swept by the next [`up`](Self::up).
pub struct KindCluster {
    tool: Tool,
    held: Held,
    provisioned: Provisioned,
    keep: bool,
    down: bool,
}

impl KindCluster {
    /// Sweeps what killed runs left, makes the cluster, and waits until it is ready.
    ///
    /// A cluster that does not come up, or whose making is cancelled, is deleted before this returns.
    ///
    /// # Errors
    /// [`KindError`].
    pub async fn up(
        options: &Options,
        leases: &Leases,
        cancel: &CancellationToken,
        progress: &dyn Fn(&str),
    ) -> Result<Self, KindError> {
        let tool = Tool { environment: options.environment.clone() };
        sweep(&tool, leases, progress).await?;
        let held = leases.take(&options.name, BACKEND, options.keep.unwrap_or_default())?;
        let there = match tool.clusters().await {
            Ok(clusters) => clusters.contains(&options.name),
            Err(error) => {
                held.give_back()?;
                return Err(error.into());
            }
        };
        if there && !options.reuse {
            held.give_back()?;
            return Err(KindError::Exists { name: options.name.clone() });
        }
        // A cluster that was there belongs to whom it did: it is kept at least as long as its record says, and without one it is not swept.
        if !there || (options.keep.is_some() && held.is_recorded()) {
            held.record()?;
        }
        let provisioned = Provisioned {
            name: options.name.clone(),
            kubeconfig: held.lease().kubeconfig.clone(),
            context: format!("kind-{}", options.name),
        };
        let mut cluster = Self { tool, held, provisioned, keep: there || options.keep.is_some(), down: false };
        let result = tokio::select! {
            result = cluster.make(options, leases, there, progress) => result,
            () = cancel.cancelled() => Err(KindError::Cancelled { name: options.name.clone() }),
        };
        let Err(mut error) = result else { return Ok(cluster) };
        if let (KindError::Create { logs, .. } | KindError::NotReady { logs, .. }, Some(dir)) =
            (&mut error, &options.logs)
        {
            match cluster.export_logs(dir).await {
                Ok(()) => *logs = Some(dir.clone()),
                Err(error) => progress(&format!("no logs of the nodes: {error}")),
            }
        }
        if !there && let Err(error) = cluster.delete(progress).await {
            progress(&error.to_string());
        }
        Err(error)
    }

    /// Makes the cluster, or takes the one that is there, and waits for it.
    async fn make(
        &self,
        options: &Options,
        leases: &Leases,
        there: bool,
        progress: &dyn Fn(&str),
    ) -> Result<(), KindError> {
        let Provisioned { name, kubeconfig, .. } = &self.provisioned;
        let _ = std::fs::remove_file(lock_of(kubeconfig));
        let failed = |cause| KindError::Create { name: name.clone(), cause, logs: None };
        if there {
            progress(&format!("using the kind cluster {name} again"));
            let export = self.tool.kind(&["export", "kubeconfig", "--name", name, "--kubeconfig"]).arg(kubeconfig);
            export.run().await.map_err(failed)?;
        } else {
            let config = self.held.dir().join("kind.json");
            std::fs::write(&config, config::config(options).to_string())
                .map_err(|cause| KindError::Io { path: config.clone(), cause })?;
            let wait = format!("{}s", options.wait.as_secs());
            let create = self
                .tool
                .kind(&[
                    "create",
                    "cluster",
                    "--name",
                    name,
                    "--image",
                    &options.node_image,
                    "--wait",
                    &wait,
                    "--retain",
                ])
                .arg("--config")
                .arg(&config)
                .arg("--kubeconfig")
                .arg(kubeconfig)
                .within(CREATES + options.wait);
            let _turn = loop {
                match leases.turn()? {
                    Some(turn) => break turn,
                    None => sleep(PAUSE).await,
                }
            };
            progress(&format!("kind creates the cluster {name}"));
            create.run().await.map_err(failed)?;
        }
        progress(&format!("waiting for nodes, CoreDNS and the default ServiceAccount of {name}"));
        let unready = |cause| KindError::NotReady { cause, logs: None };
        self.provisioned.ready(options.wait).await.map_err(unready)?;
        if let Some(wanted) = options.kubernetes.as_ref().filter(|_| there) {
            let found = self.provisioned.version().await.map_err(unready)?;
            if !image::is_of(&found, wanted) {
                return Err(KindError::OtherVersion { name: name.clone(), found, wanted: wanted.clone() });
            }
        }
        Ok(())
    }

    /// How to reach it.
    pub fn provisioned(&self) -> &Provisioned {
        &self.provisioned
    }

    /// Copies the images of an archive, as `docker save` and `meshgate image` write it, to every node.
    ///
    /// # Errors
    /// [`KindError::Load`] after three tries.
    pub async fn load(&self, archive: &Path, progress: &dyn Fn(&str)) -> Result<(), KindError> {
        let name = &self.provisioned.name;
        let load = self.tool.kind(&["load", "image-archive", "--name", name]).arg(archive);
        let mut tries = 1;
        loop {
            match load.run().await {
                Ok(_) => return Ok(()),
                Err(cause @ CommandError::Missing { .. }) => return Err(cause.into()),
                Err(cause) if tries == TRIES => {
                    return Err(KindError::Load { name: name.clone(), archive: archive.to_owned(), cause });
                }
                Err(cause) => progress(&format!("try {tries} of {TRIES}: {cause}")),
            }
            tries += 1;
            sleep(PAUSE).await;
        }
    }

    /// Where a port of the node is reached on this machine, as `127.0.0.1:PORT`; one that [`Options::ports`] names.
    ///
    /// # Errors
    /// [`KindError::Unpublished`]: it does not name it, or did not when the cluster was made.
    pub async fn address(&self, port: u16) -> Result<String, KindError> {
        let runtime = preflight::provider(&self.tool.environment);
        let node = format!("{}-control-plane", self.provisioned.name);
        let command =
            self.tool.command(&runtime, preflight::INSTALL_RUNTIME).args(["port", &node, &format!("{port}/tcp")]);
        let command = command.within(preflight::ANSWERS);
        let unpublished = |cause| KindError::Unpublished { name: self.provisioned.name.clone(), port, cause };
        let output = command.run().await.map_err(unpublished)?;
        Ok(output.stdout.lines().next().unwrap_or_default().trim().to_owned())
    }

    /// Writes the logs of the nodes and of what runs on them to a folder.
    ///
    /// # Errors
    /// [`KindError::Command`].
    pub async fn export_logs(&self, dir: &Path) -> Result<(), KindError> {
        self.tool.kind(&["export", "logs", "--name", &self.provisioned.name]).arg(dir).run().await?;
        Ok(())
    }

    /// Ends the run on this cluster: deletes it, unless it is to be kept. Again does nothing.
    ///
    /// # Errors
    /// [`KindError::Delete`]: it is still there.
    pub async fn down(&mut self, progress: &dyn Fn(&str)) -> Result<(), KindError> {
        if self.keep && !self.down {
            let Provisioned { name, kubeconfig, .. } = &self.provisioned;
            let path = kubeconfig.display();
            progress(&format!(
                "the cluster {name} is kept; its kubeconfig: {path}; delete it: kind delete cluster --name {name}"
            ));
            self.down = true;
        }
        self.delete(progress).await
    }

    async fn delete(&mut self, progress: &dyn Fn(&str)) -> Result<(), KindError> {
        if !self.down {
            self.tool.delete(&self.held, progress).await?;
            self.down = true;
        }
        Ok(())
    }
}

impl Drop for KindCluster {
    fn drop(&mut self) {
        if self.down || self.keep {
            return;
        }
        match self.tool.deletion(&self.held).within(LAST_RESORT).run_blocking() {
            Ok(_) => {
                let _ = self.held.forget();
            }
            // Its record stays, so the next run tries again.
            Err(error) => tracing::warn!(%error, "deleting a cluster that was not brought down"),
        }
    }
}

/// Deletes the clusters of runs that were killed, and of those whose time to be kept is over.
async fn sweep(tool: &Tool, leases: &Leases, progress: &dyn Fn(&str)) -> Result<(), KindError> {
    for held in leases.leftovers(BACKEND)? {
        let lease = held.lease();
        progress(&format!("deleting the kind cluster {}, left by process {}", lease.name, lease.pid));
        // One that cannot be deleted now is no reason not to make another.
        if let Err(error) = tool.delete(&held, progress).await {
            progress(&error.to_string());
        }
    }
    Ok(())
}
