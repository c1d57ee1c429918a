//! Clusters of [k3s](https://k3s.io): a whole Kubernetes in one container, made through testcontainers and so through the API of a container
//! engine; no command is needed. It is up sooner than [kind](crate::kind), and less of it is what a production cluster has.
//!
//! **[`Options`] → [`K3sCluster::up`] → [`Provisioned`] → … → [`K3sCluster::down`].** The images of a run have to be known before: they are copied into the
//! container before it starts, because an engine's client that follows the API has no other way in than a container's file system.
//!
//! The crate `testcontainers-modules` has a module for k3s. It is not used: it is for an older testcontainers, publishes the API to every
//! network of this machine, and reads the kubeconfig from a folder of the host that is then root's.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{Kubeconfig, KubeconfigError};
use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error as EngineError;
use testcontainers::bollard::models::PortBinding;
use testcontainers::bollard::query_parameters::RemoveContainerOptionsBuilder;
use testcontainers::core::{ExecCommand, IntoContainerPort, Mount};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt, TestcontainersError};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::lease::{Held, LeaseError, Leases};
use crate::provision::{ProvisionError, Provisioned};
use crate::told;

/// The backend's name in leases.
const BACKEND: &str = "k3s";

/// The image of the node, by its name and its tag with the digest.
const IMAGE: (&str, &str) =
    ("rancher/k3s", "v1.36.2-k3s1@sha256:6a47cea22c4b834d4ba72c89d291696b79ebe406251f90b446e4dff03513dd87");

/// The API server's port in the container.
const API: u16 = 6443;

/// Where k3s writes its kubeconfig.
const KUBECONFIG: &str = "/etc/rancher/k3s/k3s.yaml";

/// Where the archives with images are copied to. Not where k3s would find them itself: it says in its log only when it cannot read one.
const IMAGES: &str = "/opt/meshgate";

/// How long the image of the node may take to be pulled, and the container to start.
const STARTS: Duration = Duration::from_secs(600);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum K3sError {
    /// The name is not one, or somebody else's.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// No engine answers.
    #[error(
        "no container engine answers, and a k3s cluster runs in a container: {}; start Docker (sudo systemctl start docker), or say where \
         another engine listens: DOCKER_HOST=unix:///run/user/1000/podman/podman.sock",
        told(.cause)
    )]
    NoEngine {
        /// Why not.
        cause: EngineError,
    },
    /// There is a container of that name.
    #[error(
        "there is a container \"{name}\" already, perhaps of a k3s cluster that was kept; remove it (docker rm -f -v {name}), or run without --keep"
    )]
    Exists {
        /// Which.
        name: String,
    },
    /// The engine does not say whether there is one.
    #[error("asking the container engine for \"{name}\": {source}")]
    Inspect {
        /// For which.
        name: String,
        /// What it said.
        source: EngineError,
    },
    /// The engine did not start the container.
    #[error("the container of the cluster \"{name}\" did not start: {source}")]
    Start {
        /// Which.
        name: String,
        /// What the engine said.
        source: TestcontainersError,
    },
    /// A command in the container failed.
    #[error("`{line}` in the container of the cluster \"{name}\" failed ({status}): {said}")]
    Exec {
        /// Which cluster.
        name: String,
        /// What was run.
        line: String,
        /// Its exit status, or that the engine could not run it.
        status: String,
        /// What it wrote to standard error.
        said: String,
    },
    /// k3s wrote no kubeconfig.
    #[error("k3s of the cluster \"{name}\" wrote no {KUBECONFIG} within {seconds} s; the end of its log:\n{log}")]
    NoKubeconfig {
        /// Which.
        name: String,
        /// How long was waited.
        seconds: u64,
        /// What k3s said last.
        log: String,
    },
    /// Its kubeconfig is not understood.
    #[error("the kubeconfig of k3s is not understood: {0}")]
    Kubeconfig(#[from] KubeconfigError),
    /// Its kubeconfig could not be written anew.
    #[error("the kubeconfig of k3s cannot be written with another address: {0}")]
    Rewritten(#[from] serde_json::Error),
    /// Its kubeconfig could not be kept.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// It was made and does not work.
    #[error(transparent)]
    NotReady(#[from] ProvisionError),
    /// The run was ended while the cluster was being made.
    #[error("cancelled while the cluster \"{name}\" was being made")]
    Cancelled {
        /// Which.
        name: String,
    },
    /// The container is still there.
    #[error(
        "the container of the cluster \"{name}\" could not be removed; remove it: docker rm -f -v {name}; {source}"
    )]
    Remove {
        /// Which.
        name: String,
        /// What the engine said.
        source: EngineError,
    },
}

/// What cluster to make.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name and its container's, which begins with [`crate::lease::PREFIX`].
    pub name: String,
    /// The image of the node: its name, and its tag with the digest.
    pub image: (String, String),
    /// Archives with the images that are to be there, as `docker save` and `meshgate image` write them.
    pub archives: Vec<PathBuf>,
    /// How long the cluster may take to be ready once its container runs.
    pub wait: Duration,
    /// For how long the cluster outlives its run; `None` ends it with it.
    pub keep: Option<Duration>,
}

impl Options {
    /// A cluster without further images that ends with its run.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            image: (IMAGE.0.to_owned(), IMAGE.1.to_owned()),
            archives: Vec::new(),
            wait: Duration::from_secs(180),
            keep: None,
        }
    }
}

/// The container to start. Nobody on another machine reaches its API; pods and Services have the addresses of the embedded cluster; what k3s
/// brings along that a run installs itself is left out.
fn request(options: &Options) -> ContainerRequest<GenericImage> {
    let (name, tag) = &options.image;
    let mut request = GenericImage::new(name, tag)
        .with_exposed_port(API.tcp())
        .with_cmd([
            "server",
            "--disable=traefik,metrics-server,servicelb",
            "--cluster-cidr=10.244.0.0/16",
            "--service-cidr=10.96.0.0/16",
            "--cluster-dns=10.96.0.10",
            "--tls-san=127.0.0.1",
        ])
        .with_container_name(&options.name)
        .with_privileged(true)
        .with_userns_mode("host")
        .with_mount(Mount::tmpfs_mount("/run"))
        .with_mount(Mount::tmpfs_mount("/var/run"))
        .with_startup_timeout(STARTS)
        .with_host_config_modifier(|host| {
            let binding =
                PortBinding { host_ip: Some(Ipv4Addr::LOCALHOST.to_string()), host_port: Some("0".to_owned()) };
            host.publish_all_ports = Some(false);
            host.port_bindings = Some([(format!("{API}/tcp"), Some(vec![binding]))].into());
        });
    for (index, archive) in options.archives.iter().enumerate() {
        request = request.with_copy_to(copied(index), archive.as_path());
    }
    request
}

/// Where an archive lies in the container.
fn copied(index: usize) -> String {
    format!("{IMAGES}/{index}.tar")
}

/// k3s's kubeconfig as it is to be used outside the container: another address, and names of the cluster's own.
fn kubeconfig(text: &str, name: &str, host: &str, port: u16) -> Result<(String, String), K3sError> {
    let mut config = Kubeconfig::from_yaml(text)?;
    for cluster in config.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        cluster.server = Some(format!("https://{host}:{port}"));
    }
    let context = format!("k3s-{name}");
    if let Some(named) = config.contexts.first_mut() {
        named.name.clone_from(&context);
    }
    config.current_context = Some(context.clone());
    // JSON is YAML too.
    let text = serde_json::to_string(&config)?;
    Ok((text, context))
}

/// A cluster of k3s that this process has made.
///
/// It is to be brought [`down`](Self::down). The container of one that is dropped before, as in a panic, is removed in the background; one whose
/// process is killed is swept by the next [`up`](Self::up).
pub struct K3sCluster {
    held: Held,
    container: Option<ContainerAsync<GenericImage>>,
    provisioned: Provisioned,
    keep: bool,
}

impl K3sCluster {
    /// Sweeps what killed runs left, makes the cluster with its images, and waits until it is ready.
    ///
    /// A cluster that does not come up, or whose making is cancelled, is removed before this returns.
    ///
    /// # Errors
    /// [`K3sError`].
    pub async fn up(
        options: &Options,
        leases: &Leases,
        cancel: &CancellationToken,
        progress: &dyn Fn(&str),
    ) -> Result<Self, K3sError> {
        let engine = engine().await?;
        for left in leases.leftovers(BACKEND)? {
            let lease = left.lease();
            progress(&format!("removing the k3s cluster {}, left by process {}", lease.name, lease.pid));
            match remove(&engine, &lease.name).await {
                Ok(()) => left.forget()?,
                Err(error) => progress(&error.to_string()),
            }
        }
        let held = leases.take(&options.name, BACKEND, options.keep.unwrap_or_default())?;
        // Before the record is written, which would be that of a cluster which was kept: nothing of it is this run's.
        match exists(&engine, &options.name).await {
            Ok(false) => {}
            there => {
                held.give_back()?;
                return Err(there.err().unwrap_or_else(|| K3sError::Exists { name: options.name.clone() }));
            }
        }
        held.record()?;
        let made = tokio::select! {
            made = make(options, &held, progress) => made,
            () = cancel.cancelled() => Err(K3sError::Cancelled { name: options.name.clone() }),
        };
        match made {
            Ok((container, provisioned)) => {
                Ok(Self { held, container: Some(container), provisioned, keep: options.keep.is_some() })
            }
            Err(error) => {
                // Of a container that is created and not yet started nobody but the engine knows.
                match remove(&engine, &options.name).await {
                    Ok(()) => held.forget()?,
                    Err(error) => progress(&error.to_string()),
                }
                Err(error)
            }
        }
    }

    /// How to reach it.
    pub fn provisioned(&self) -> &Provisioned {
        &self.provisioned
    }

    /// Writes what k3s said to a file of a folder.
    ///
    /// # Errors
    /// The engine's, or the file's.
    pub async fn export_logs(&self, dir: &Path) -> Result<(), K3sError> {
        let path = dir.join("k3s.log");
        let failed = |cause| K3sError::Io { path: path.clone(), cause };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let text = match &self.container {
            Some(container) => log(container).await,
            None => String::new(),
        };
        std::fs::write(&path, text).map_err(failed)
    }

    /// Ends the run on this cluster: removes it, unless it is to be kept. Again does nothing.
    ///
    /// # Errors
    /// [`K3sError::Remove`]: it is still there.
    pub async fn down(&mut self, progress: &dyn Fn(&str)) -> Result<(), K3sError> {
        let Some(container) = self.container.take() else { return Ok(()) };
        let Provisioned { name, kubeconfig, .. } = &self.provisioned;
        if self.keep {
            let path = kubeconfig.display();
            progress(&format!("the cluster {name} is kept; its kubeconfig: {path}; remove it: docker rm -f -v {name}"));
            // What is dropped is removed.
            std::mem::forget(container);
            return Ok(());
        }
        let removed = remove(&engine().await?, name).await;
        match &removed {
            Ok(()) => self.held.forget()?,
            Err(_) => self.container = Some(container),
        }
        removed
    }
}

impl Drop for K3sCluster {
    fn drop(&mut self) {
        if self.keep
            && let Some(container) = self.container.take()
        {
            std::mem::forget(container);
        }
    }
}

async fn make(
    options: &Options,
    held: &Held,
    progress: &dyn Fn(&str),
) -> Result<(ContainerAsync<GenericImage>, Provisioned), K3sError> {
    let name = &options.name;
    progress(&format!("starting the container of the k3s cluster {name}"));
    let started = |source| K3sError::Start { name: name.clone(), source };
    let container = request(options).start().await.map_err(started)?;
    let text = written(&container, options).await?;
    let host = container.get_host().await.map_err(started)?.to_string();
    // By name it could be an address of IPv6, where nothing listens.
    let host = if host == "localhost" { Ipv4Addr::LOCALHOST.to_string() } else { host };
    let port = container.get_host_port_ipv4(API.tcp()).await.map_err(started)?;
    let (text, context) = kubeconfig(&text, name, &host, port)?;
    let path = held.lease().kubeconfig.clone();
    write_secret(&path, &text).map_err(|cause| K3sError::Io { path: path.clone(), cause })?;
    for (index, archive) in options.archives.iter().enumerate() {
        progress(&format!("importing the images of {}", archive.display()));
        import(&container, options, &copied(index)).await?;
    }
    let provisioned = Provisioned { name: name.clone(), kubeconfig: path, context };
    progress(&format!("waiting for the node, CoreDNS and the default ServiceAccount of {name}"));
    provisioned.ready(options.wait).await?;
    Ok((container, provisioned))
}

/// The kubeconfig, once k3s has written it, which it does when its API server answers.
async fn written(container: &ContainerAsync<GenericImage>, options: &Options) -> Result<String, K3sError> {
    let deadline = Instant::now() + options.wait;
    loop {
        match run(container, &options.name, &["cat", KUBECONFIG]).await {
            Ok(text) if !text.trim().is_empty() => return Ok(text),
            _ if Instant::now() < deadline => sleep(PAUSE).await,
            _ => {
                let log = log(container).await;
                let lines: Vec<&str> = log.trim_end().lines().collect();
                return Err(K3sError::NoKubeconfig {
                    name: options.name.clone(),
                    seconds: options.wait.as_secs(),
                    log: lines[lines.len().saturating_sub(20)..].join("\n"),
                });
            }
        }
    }
}

/// Imports an archive, once the container runtime is there, which comes later than the API server.
async fn import(container: &ContainerAsync<GenericImage>, options: &Options, archive: &str) -> Result<(), K3sError> {
    let deadline = Instant::now() + options.wait;
    loop {
        match run(container, &options.name, &["ctr", "--namespace=k8s.io", "images", "import", archive]).await {
            Ok(_) => return Ok(()),
            Err(K3sError::Exec { said, .. }) if said.contains("containerd.sock") && Instant::now() < deadline => {
                sleep(PAUSE).await
            }
            Err(error) => return Err(error),
        }
    }
}

/// What the container said, as far as the engine tells.
async fn log(container: &ContainerAsync<GenericImage>) -> String {
    String::from_utf8_lossy(&container.stderr_to_vec().await.unwrap_or_default()).into_owned()
}

/// Runs a command in the container and returns what it wrote.
async fn run(container: &ContainerAsync<GenericImage>, name: &str, line: &[&str]) -> Result<String, K3sError> {
    let failed = |status: String, said: &[u8]| K3sError::Exec {
        name: name.to_owned(),
        line: line.join(" "),
        status,
        said: String::from_utf8_lossy(said).trim().to_owned(),
    };
    let unable = |error: TestcontainersError| failed(error.to_string(), b"");
    let mut result = container.exec(ExecCommand::new(line.iter().copied())).await.map_err(unable)?;
    let stdout = result.stdout_to_vec().await.map_err(unable)?;
    let stderr = result.stderr_to_vec().await.map_err(unable)?;
    match result.exit_code().await.map_err(unable)? {
        Some(0) => Ok(String::from_utf8_lossy(&stdout).into_owned()),
        Some(code) => Err(failed(format!("exit status {code}"), &stderr)),
        None => Err(failed("still running after its output ended".to_owned(), &stderr)),
    }
}

fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// Whether there is an engine that answers.
///
/// # Errors
/// [`K3sError::NoEngine`].
pub async fn possible() -> Result<(), K3sError> {
    engine().await.map(drop)
}

/// A client of the engine, which answers.
async fn engine() -> Result<Docker, K3sError> {
    let failed = |cause| K3sError::NoEngine { cause };
    let engine = Docker::connect_with_defaults().map_err(failed)?;
    engine.ping().await.map_err(failed)?;
    Ok(engine)
}

/// Whether there is a container of this name, of whomever.
async fn exists(engine: &Docker, name: &str) -> Result<bool, K3sError> {
    match engine.inspect_container(name, None).await {
        Ok(_) => Ok(true),
        Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
        Err(source) => Err(K3sError::Inspect { name: name.to_owned(), source }),
    }
}

/// Removes the container of a cluster, with its volumes. One that is not there is removed.
async fn remove(engine: &Docker, name: &str) -> Result<(), K3sError> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match engine.remove_container(name, Some(options)).await {
        Ok(()) | Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
        Err(source) => Err(K3sError::Remove { name: name.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use testcontainers::Image;
    use testcontainers::bollard::models::HostConfig;

    use super::*;

    #[test]
    fn the_container_is_pinned_and_published_to_this_machine_only() {
        let mut options = Options::new("meshgate-a");
        options.archives = vec!["/images/a.tar".into(), "/images/b.tar".into()];
        let request = request(&options);
        assert_eq!(request.descriptor(), format!("{}:{}", IMAGE.0, IMAGE.1));
        assert!(request.descriptor().contains("@sha256:"));
        assert_eq!(request.image().expose_ports(), [API.tcp()]);
        assert_eq!(request.container_name().as_deref(), Some("meshgate-a"));
        assert!(request.privileged());
        let copies: Vec<_> = request.copy_to_sources().map(|copy| format!("{copy:?}")).collect();
        assert_eq!(copies.len(), 2);
        assert!(copies[1].contains("/opt/meshgate/1.tar") && copies[1].contains("/images/b.tar"), "{}", copies[1]);

        let mut host = HostConfig { publish_all_ports: Some(true), ..Default::default() };
        request.host_config_modifier().unwrap()(&mut host);
        assert_eq!(host.publish_all_ports, Some(false));
        let bindings = host.port_bindings.unwrap();
        let binding = &bindings["6443/tcp"].as_ref().unwrap()[0];
        assert_eq!(binding.host_ip.as_deref(), Some("127.0.0.1"));
    }

    #[test]
    fn the_kubeconfig_leads_to_the_mapped_port() {
        let text = "
apiVersion: v1
kind: Config
clusters: [{name: default, cluster: {server: 'https://127.0.0.1:6443', certificate-authority-data: Y2E=}}]
users: [{name: default, user: {client-certificate-data: Y2VydA==, client-key-data: a2V5}}]
contexts: [{name: default, context: {cluster: default, user: default}}]
current-context: default
";
        let (text, context) = kubeconfig(text, "meshgate-a", "127.0.0.1", 49153).unwrap();
        assert_eq!(context, "k3s-meshgate-a");
        let config = Kubeconfig::from_yaml(&text).unwrap();
        let cluster = config.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:49153"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("Y2E="));
        assert_eq!(
            (config.contexts[0].name.as_str(), config.current_context.as_deref()),
            (context.as_str(), Some(context.as_str()))
        );
        assert!(text.contains("a2V5"), "the key is passed on");
        assert!(kubeconfig("not: [", "meshgate-a", "127.0.0.1", 1).is_err());
    }
}
