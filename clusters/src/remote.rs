//! Any cluster that a kubeconfig leads to, reached by its API alone.
//!
//! A [`Claim`] makes the cluster this run's for as long as it lasts: a namespace of Meshgate's own with a Lease, so that no two runs
//! are at it, and with the *vantage points*, three pods from which all connections of the cases start. They are reached through the
//! API server's `port-forward`, in one HTTP/2 connection each ([`meshgate_apps::vantage`]): the machine that tests need not reach a
//! single address of the cluster, nor does the cluster need a load balancer. Everything that Meshgate makes there has the label
//! [`OWNED`], by which it is found again and swept away, whoever crashed in between.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Uri;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::client::AuthError;
use kube::config::{Kubeconfig, KubeconfigError};
use meshgate_apps::vantage::{PORT, tunnel::Tunnels};
use meshgate_images::Catalogue;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::client::config;
use crate::scratch::Scratch;
use crate::{Cluster, Entrance, Kind, Kubectl, Stream, Vantage, told};

mod claim;
mod entrances;
#[cfg(test)]
mod fake;
mod hold;
mod kubeconfig;
mod plugin;
mod sweep;
mod vantage;

use plugin::Asked;

pub use claim::Claim;
pub use entrances::By;

/// The namespace of Meshgate's own things: the Lease and the vantage points.
pub const NAMESPACE: &str = "meshgate";

/// The label of every object that Meshgate makes on a cluster that is not its own; its value is `true`.
pub const OWNED: &str = "meshgate.dev/owned";

/// The label by which a namespace says which [Pod Security Standard](https://kubernetes.io/docs/concepts/security/pod-security-standards/) is
/// enforced in it. `baseline`, which some clusters enforce where nothing is said, refuses the init container of a mesh's pods, which
/// writes rules of the packet filter.
pub const ADMITS: &str = "pod-security.kubernetes.io/enforce";

/// Whether this is of something that Meshgate made.
pub fn is_owned(metadata: &ObjectMeta) -> bool {
    metadata.labels.as_ref().is_some_and(|labels| labels.get(OWNED).is_some_and(|value| value == "true"))
}

/// A name that every cluster of the usual domain has.
const KNOWN_NAME: &str = "kubernetes.default.svc.cluster.local";

/// How long the cluster's DNS may take to answer.
const RESOLVES: Duration = Duration::from_secs(20);

/// How long Service rules may take to follow the API.
const SETTLES: Duration = Duration::from_secs(60);

/// Why a cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// There is no kubeconfig, or it is not one.
    #[error("the kubeconfig: {0}; give one: --kubeconfig FILE, or the variable KUBECONFIG")]
    Kubeconfig(String),
    /// Several kubeconfigs could not be made one.
    #[error("the kubeconfigs of the variable KUBECONFIG cannot be written as one file: {0}")]
    Merged(io::Error),
    /// It leads nowhere.
    #[error(
        "the kubeconfig has no contexts, so it leads to no cluster; give another one: --kubeconfig FILE, or the variable KUBECONFIG"
    )]
    NoContexts,
    /// It does not say which of its contexts is meant.
    #[error("the kubeconfig has no current context; name one of its contexts with --context: {known}")]
    NoCurrentContext {
        /// What there is.
        known: String,
    },
    /// It has no such context.
    #[error("the kubeconfig has no context \"{wanted}\"; it has: {known}")]
    NoContext {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// The command that gives the credentials did not.
    #[error("the credentials of context \"{context}\" come from the command `{command}`: {said}")]
    Credentials {
        /// Which cluster.
        context: String,
        /// The command.
        command: String,
        /// What it said, or why it could not be asked.
        said: String,
    },
    /// The API server did not do something.
    #[error("the API server of context \"{context}\": {what}: {said}")]
    Api {
        /// Which cluster.
        context: String,
        /// What was asked of it.
        what: String,
        /// What it said, or why it could not be asked.
        said: String,
    },
    /// The credentials may not do what a run needs.
    #[error("the credentials of context \"{context}\" may not {missing}; a run needs a cluster administrator's rights")]
    Rights {
        /// Which cluster.
        context: String,
        /// What they may not do, comma-separated.
        missing: String,
    },
    /// Another run has it.
    #[error(
        "the cluster of context \"{context}\" is in use by another run ({holder}); wait for it, or, if it is gone, for the {seconds} s \
         after which its Lease {NAMESPACE}/{lease} is no longer believed"
    )]
    InUse {
        /// Which cluster.
        context: String,
        /// Who has it.
        holder: String,
        /// After how long without a renewal that is doubted.
        seconds: u64,
        /// The Lease's name.
        lease: &'static str,
    },
    /// Another run has taken it over.
    #[error(
        "the cluster of context \"{context}\" was taken over by another run ({holder}), since this one did not renew its Lease for a while, as \
         when its machine sleeps; what is there is that run's: run again when it is through"
    )]
    Lost {
        /// Which cluster.
        context: String,
        /// Who has it.
        holder: String,
    },
    /// Its pods have no addresses that a run could use.
    #[error(
        "the pods of the cluster of context \"{context}\" have IPv6 addresses ({address}), and a run needs IPv4, alone or as the first of the \
         two families"
    )]
    NoIpv4 {
        /// Which cluster.
        context: String,
        /// Such an address.
        address: String,
    },
    /// Names of Services do not mean what they do elsewhere.
    #[error(
        "in the pods of the cluster of context \"{context}\" the name {name} means nothing ({cause}), so its cluster domain is another one or its \
         DNS does not work; a run needs the domain cluster.local"
    )]
    Domain {
        /// Which cluster.
        context: String,
        /// What was looked up.
        name: &'static str,
        /// What was answered.
        cause: io::Error,
    },
    /// Something of Meshgate's own is in the way that Meshgate did not make.
    #[error("there is a {what} on the cluster that Meshgate did not make and so does not touch; use another cluster")]
    Foreign {
        /// The object.
        what: String,
    },
    /// The pods that connections start from did not come up.
    #[error(
        "the pods in namespace {NAMESPACE} that requests start from are not ready after {seconds} s: {troubles}\n  the cluster must have the \
         image {image}: write it with `meshgate image`, push it to a registry or load it on the nodes, and name it with --image"
    )]
    Vantage {
        /// How long was waited.
        seconds: u64,
        /// What the pods say.
        troubles: String,
        /// The image they run.
        image: String,
    },
    /// The run was ended before it began.
    #[error("interrupted while the cluster of context \"{context}\" was being claimed")]
    Cancelled {
        /// Which cluster.
        context: String,
    },
    /// There is no node to come by.
    #[error(
        "--entrance node-port: no node of context \"{context}\" is Ready and has an InternalIP with an IPv4 address; come by another: --entrance cluster-ip"
    )]
    NoNode {
        /// Which cluster.
        context: String,
    },
    /// What was deleted did not go.
    #[error("not gone {seconds} s after it was deleted: {what}")]
    Stuck {
        /// How long was waited.
        seconds: u64,
        /// What is left, and why as far as it says so.
        what: String,
    },
}

impl From<KubeconfigError> for RemoteError {
    fn from(error: KubeconfigError) -> Self {
        Self::Kubeconfig(told(&error))
    }
}

/// How to reach a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reach {
    /// What made it.
    pub kind: Kind,
    /// The kubeconfig.
    pub kubeconfig: PathBuf,
    /// The context in it.
    pub context: String,
    /// Meshgate's own image on its nodes or in a registry.
    pub image: String,
    /// How clients come to the controller.
    pub entrance: By,
    /// Whether the controller has the node ports that [kind's clusters](crate::kind::PUBLISHED) publish on this machine.
    pub publishes: bool,
    /// Keeps a `kubeconfig` there that is made of several files; it goes with the last copy of this. A process that is told of it has none.
    #[serde(skip)]
    pub merged: Option<Arc<Scratch>>,
}

impl Reach {
    /// A cluster that is there. Without a path, the kubeconfig is the one that kubectl takes (the files of `KUBECONFIG` together, else
    /// `~/.kube/config`); without a context, its current one.
    ///
    /// # Errors
    /// [`RemoteError::Kubeconfig`], [`RemoteError::Merged`], [`RemoteError::NoContexts`], [`RemoteError::NoCurrentContext`],
    /// [`RemoteError::NoContext`].
    pub fn existing(
        path: Option<&Path>,
        context: Option<&str>,
        image: &str,
        entrance: By,
    ) -> Result<Self, RemoteError> {
        let usual = || kubeconfig::usual(std::env::var_os("KUBECONFIG"), std::env::var_os("HOME"));
        let (kubeconfig, config, merged) = match path.map_or_else(usual, |path| vec![path.to_owned()]).as_slice() {
            [only] => (only.clone(), Kubeconfig::read_from(only)?, None),
            several => {
                let config = kubeconfig::merged(several)?;
                let file = kubeconfig::written(&config).map_err(RemoteError::Merged)?;
                (file.to_path_buf(), config, Some(Arc::new(file)))
            }
        };
        let known: Vec<&str> = config.contexts.iter().map(|context| context.name.as_str()).collect();
        if known.is_empty() {
            return Err(RemoteError::NoContexts);
        }
        let current = config.current_context.as_deref().filter(|name| !name.is_empty());
        let Some(wanted) = context.or(current) else {
            return Err(RemoteError::NoCurrentContext { known: known.join(", ") });
        };
        if !known.contains(&wanted) {
            return Err(RemoteError::NoContext { wanted: wanted.to_owned(), known: known.join(", ") });
        }
        let (context, image) = (wanted.to_owned(), image.to_owned());
        Ok(Self { kind: Kind::Existing, kubeconfig, context, image, entrance, publishes: false, merged })
    }

    /// The version of Kubernetes that its API server says it is, as `v1.37.1`.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn version(&self) -> Result<String, RemoteError> {
        let info = self.client().await?.apiserver_version().await;
        Ok(info.map_err(|error| self.failed("asking for its version", error))?.git_version)
    }

    /// A client for it.
    ///
    /// # Errors
    /// [`RemoteError::Kubeconfig`], [`RemoteError::Credentials`], or what else the credentials lack.
    pub async fn client(&self) -> Result<kube::Client, RemoteError> {
        let _ = crate::embedded::rustls_provider();
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        let environment = |name: &str| std::env::var(name).ok();
        let config = config(&kubeconfig, &self.context, &environment).map_err(RemoteError::Kubeconfig)?;
        let credentials = config.auth_info.clone();
        let Some(plugin) = Asked::of(&credentials) else {
            return kube::Client::try_from(config).map_err(|error| self.failed("making a client", error));
        };
        plugin.client(config, plugin::ANSWERS).await.map_err(|said| RemoteError::Credentials {
            context: self.context.clone(),
            command: plugin.command.to_owned(),
            said,
        })
    }

    /// The kubeconfig with this context as its current one.
    fn kubeconfig(&self) -> Result<String, RemoteError> {
        let config =
            Kubeconfig { current_context: Some(self.context.clone()), ..Kubeconfig::read_from(&self.kubeconfig)? };
        // JSON is YAML too.
        serde_json::to_string(&config).map_err(|error| self.failed("its kubeconfig", kube::Error::SerdeError(error)))
    }

    fn failed(&self, what: impl Into<String>, error: kube::Error) -> RemoteError {
        let said = match &error {
            kube::Error::Service(cause) if !cause.is::<AuthError>() => {
                let server = self.server().map_or_else(|| "it".to_owned(), |server| server.to_string());
                format!("{server} does not answer: {}", told(&error))
            }
            _ => told(&error),
        };
        RemoteError::Api { context: self.context.clone(), what: what.into(), said }
    }

    /// Where its API server is.
    fn server(&self) -> Option<Uri> {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).ok()?;
        config(&kubeconfig, &self.context, &|_| None).ok().map(|config| config.cluster_url)
    }
}

/// A cluster that a [`Claim`] has been laid to.
pub struct Remote {
    reach: Reach,
    client: kube::Client,
    kubectl: Option<Kubectl>,
    /// In the order of [`index`].
    gates: Vec<Gate>,
    /// The address of a node, where clients come by one.
    node: Option<Ipv4Addr>,
    placement: BTreeMap<String, String>,
}

/// The way to one vantage point.
struct Gate {
    address: Ipv4Addr,
    way: Mutex<Way>,
}

/// What leads to a vantage point through the API server.
#[derive(Default)]
struct Way {
    tunnels: Option<Tunnels>,
    /// How often they were made.
    made: u64,
}

impl Remote {
    /// Opens a cluster on which a [`Claim`] holds, and sweeps away what a cell before made there.
    ///
    /// # Errors
    /// When the vantage points are not there, or what was there does not go.
    pub async fn open(reach: Reach, progress: &dyn Fn(&str)) -> Result<Self, RemoteError> {
        let client = reach.client().await?;
        sweep::everything(&reach, &client, progress).await?;
        let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let mut gates = Vec::new();
        for name in vantage::NAMES {
            let pod = api.get(name).await.map_err(|error| reach.failed(format!("the pod {name}"), error))?;
            let address = vantage::address(&pod).ok_or_else(|| RemoteError::Vantage {
                seconds: 0,
                troubles: format!("the pod {name} has no address"),
                image: reach.image.clone(),
            })?;
            gates.push(Gate { address, way: Mutex::default() });
        }
        let kubectl = match kubectl(progress) {
            Some(program) => Some(Kubectl { program, kubeconfig: reach.kubeconfig()? }),
            None => None,
        };
        let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
        let nodes = nodes.map_err(|error| reach.failed("its nodes", error))?.items;
        let node = match reach.entrance {
            By::NodePort => {
                Some(entrances::address(&nodes).ok_or_else(|| RemoteError::NoNode { context: reach.context.clone() })?)
            }
            By::ClusterIp | By::LoadBalancer => None,
        };
        let remote = Self { placement: placement(&nodes), reach, client, kubectl, gates, node };
        remote.domain().await?;
        Ok(remote)
    }

    /// Sees that names of Services are looked up where all manifests and cases expect them.
    async fn domain(&self) -> Result<(), RemoteError> {
        let deadline = Instant::now() + RESOLVES;
        loop {
            let found = async { self.tunnels(0).await?.look_up(KNOWN_NAME).await }.await;
            match found {
                Ok(_) => return Ok(()),
                Err(cause) if Instant::now() >= deadline => {
                    return Err(RemoteError::Domain { context: self.reach.context.clone(), name: KNOWN_NAME, cause });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    }

    /// The tunnels to a vantage point, as they are or anew.
    async fn tunnels(&self, index: usize) -> io::Result<Tunnels> {
        self.way(index).await.map(|(tunnels, _)| tunnels)
    }

    /// The same, and how often they were made so far.
    async fn way(&self, index: usize) -> io::Result<(Tunnels, u64)> {
        let mut way = self.gates[index].way.lock().await;
        if let Some(tunnels) = way.tunnels.as_mut()
            && tunnels.ready().await.is_ok()
        {
            return Ok((tunnels.clone(), way.made));
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let forwarded = api.portforward(vantage::NAMES[index], &[PORT]).await;
        let stream = forwarded.map_err(io::Error::other)?.take_stream(PORT);
        let stream = stream.ok_or_else(|| io::Error::other("the API server forwards no port"))?;
        let tunnels = Tunnels::over(stream).await?;
        way.tunnels = Some(tunnels.clone());
        way.made += 1;
        Ok((tunnels, way.made))
    }
}

/// This machine's own, which its user has chosen to suit the cluster, else the one that the embedded cluster takes.
fn kubectl(progress: &dyn Fn(&str)) -> Option<PathBuf> {
    if std::env::var_os("MESHGATE_KUBECTL_BIN").is_none()
        && let Some(own) = meshgate_images::on_path("kubectl")
    {
        return Some(own);
    }
    let program = std::env::current_exe().unwrap_or_default();
    let found = Catalogue::built_in(program).kubectl(progress);
    // Only what needs it fails.
    found.map(|tool| tool.path).inspect_err(|error| progress(&format!("no kubectl: {error}"))).ok()
}

/// Which nodes can run Meshgate's images, as a `nodeSelector`: they are for one operating system and, being made from programs of the
/// machine that makes them, for one architecture, which is taken to be this machine's where the cluster has such nodes.
fn placement(nodes: &[Node]) -> BTreeMap<String, String> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let wanted = [("kubernetes.io/os", "linux"), ("kubernetes.io/arch", architecture)];
    let has = |(key, value): &(&str, &str)| {
        let mut labels = nodes.iter().filter_map(|node| node.metadata.labels.as_ref());
        labels.any(|labels| labels.get(*key).is_some_and(|found| found == value))
    };
    wanted.into_iter().filter(has).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn index(of: Vantage) -> usize {
    match of {
        Vantage::Outside(0) => 0,
        Vantage::Outside(_) => 1,
        Vantage::Node => 2,
    }
}

#[async_trait]
impl Cluster for Remote {
    fn kind(&self) -> Kind {
        self.reach.kind
    }

    fn client(&self) -> kube::Client {
        self.client.clone()
    }

    async fn connect(&self, from: Vantage, to: SocketAddr) -> io::Result<Stream> {
        let mut tunnels = self.tunnels(index(from)).await?;
        Ok(Box::pin(tunnels.connect(to).await?))
    }

    async fn reached(&self) -> io::Result<u64> {
        let mut made = 0;
        for index in 0..self.gates.len() {
            made += self.way(index).await?.1;
        }
        Ok(made)
    }

    fn address(&self, of: Vantage) -> Ipv4Addr {
        self.gates[index(of)].address
    }

    async fn entrance(&self, service: &Service) -> Option<Entrance> {
        let by = self.reach.entrance;
        match entrances::balancer_name(service).filter(|_| by == By::LoadBalancer) {
            // Clouds that give a name take minutes until it means something.
            Some(name) => Some(Entrance::of(self.tunnels(0).await.ok()?.look_up(name).await.ok()?)),
            None => by.entrance(service, self.node),
        }
    }

    fn set_external_name(&self, name: &str, _: &[Ipv4Addr]) {
        // Cases that need it do not apply here, so this is a case that does not say what it needs.
        tracing::error!(name, "a case sets a name of the outside world where there is none");
    }

    /// A Service that is made after all others is reachable after them: kube-proxy writes its rules in batches, in the order of
    /// changes.
    async fn settled(&self) -> io::Result<()> {
        let api: Api<Service> = Api::namespaced(self.client.clone(), NAMESPACE);
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"generateName": "settled-", "namespace": NAMESPACE, "labels": {OWNED: "true"}},
            "spec": {"selector": {vantage::LABEL: vantage::NAMES[2]}, "ports": [{"port": PORT}]},
        });
        let service: Service = serde_json::from_value(object).map_err(io::Error::other)?;
        let service = api.create(&PostParams::default(), &service).await.map_err(io::Error::other)?;
        let name = service.metadata.name.clone().unwrap_or_default();
        let reached = self.reached(&service, Instant::now() + SETTLES).await;
        api.delete(&name, &DeleteParams::default()).await.map_err(io::Error::other)?;
        reached
    }

    fn kubectl(&self) -> Option<Kubectl> {
        self.kubectl.clone()
    }

    fn image(&self) -> &str {
        &self.reach.image
    }

    fn placement(&self) -> BTreeMap<String, String> {
        self.placement.clone()
    }
}

impl Remote {
    async fn reached(&self, service: &Service, deadline: Instant) -> io::Result<()> {
        let entrance = By::ClusterIp.entrance(service, None);
        let to = entrance.ok_or_else(|| io::Error::other("a Service without an address"))?.at(PORT);
        loop {
            let tried = tokio::time::timeout(Duration::from_secs(1), self.connect(Vantage::Outside(0), to)).await;
            if let Ok(Ok(_)) = tried {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let found = match tried {
                    Ok(Err(error)) => error.to_string(),
                    _ => "no answer".to_owned(),
                };
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("a new Service is not reachable from a pod after {} s: {found}", SETTLES.as_secs()),
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_placed_where_their_images_run() {
        let node = |os: &str, arch: &str| -> Node {
            let labels = json!({"kubernetes.io/os": os, "kubernetes.io/arch": arch});
            serde_json::from_value(json!({"metadata": {"labels": labels}})).unwrap()
        };
        let here = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            _ => "arm64",
        };
        let placed = |nodes: &[Node]| json!(placement(nodes));
        let mixed = [node("windows", here), node("linux", "s390x"), node("linux", here)];
        assert_eq!(placed(&mixed), json!({"kubernetes.io/os": "linux", "kubernetes.io/arch": here}));
        // Whoever has an image for these nodes did not make it on this machine.
        assert_eq!(placed(&[node("linux", "s390x")]), json!({"kubernetes.io/os": "linux"}));
        assert_eq!(placed(&[]), json!({}));
    }
}
