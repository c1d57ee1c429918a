//! The node itself: its object, its configuration, and which pods it serves.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use meshgate_store::{Event, GroupResource, Object, Selectors, Start, Status, Store, Subresource, WriteOptions};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::events::Recorder;
use crate::images::ImageSource;
use crate::kinds;
use crate::network::Network;
use crate::pod::{self, PodContext};
use crate::process::Spawner;
use crate::services;
use crate::volumes::TokenSource;

/// What a node needs.
pub struct NodeConfig {
    /// The cluster's objects.
    pub store: Store,
    /// The cluster's network.
    pub network: Arc<meshgate_net::Network>,
    /// Where images come from.
    pub images: Arc<dyn ImageSource>,
    /// The command that runs [`crate::pod_exec_main`] with the arguments after these: normally `/proc/self/exe pod-exec`.
    pub helper: Vec<OsString>,
    /// Issues service account tokens.
    pub tokens: TokenSource,
    /// The API server's CA, PEM, for `ca.crt` beside the token.
    pub ca_pem: String,
    /// A directory for the pods' state. It should not outlive the cluster.
    pub state_dir: PathBuf,
    /// What containers of Meshgate's own image get besides.
    pub own: Own,
    /// First pause before a crashed container is started again (after one immediate restart); it doubles to five minutes.
    /// Kubernetes has 10 s.
    pub crash_back_off: Duration,
    /// Ask startup and readiness probes every 50 ms or so until their first success, without their initial delay. Only
    /// makes pods ready sooner: failures count when the probe's own numbers say.
    pub eager_probes: bool,
    /// Ends the node and every process of its pods.
    pub shutdown: CancellationToken,
}

/// What containers of Meshgate's own image get besides what their manifests say.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Variables, e.g. where `nft` is.
    pub env: Vec<(String, String)>,
    /// Files and directories of this machine, seen under the same path.
    pub files: Vec<PathBuf>,
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The directory for the pods' state cannot be used.
    #[error("cannot use {path:?} for the pods' state: {cause}; choose a directory that can be written to")]
    State {
        /// The directory.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The thread that starts processes could not be started.
    #[error("cannot start the thread that starts processes: {0}")]
    Spawner(#[source] io::Error),
    /// The Node object could not be written.
    #[error("cannot register the node: {0}")]
    Register(#[source] Status),
    /// The objects cannot be watched.
    #[error("cannot watch {resource}: {cause}")]
    Watch {
        /// What.
        resource: GroupResource,
        /// Why.
        cause: Status,
    },
}

/// What all pods share.
pub(crate) struct Shared {
    pub store: Store,
    pub network: Network,
    pub images: Arc<dyn ImageSource>,
    pub helper: Vec<OsString>,
    pub tokens: TokenSource,
    pub ca_pem: String,
    pub state_dir: PathBuf,
    pub own: Own,
    pub crash_back_off: Duration,
    pub eager_probes: bool,
    pub spawner: Spawner,
    pub events: Recorder,
    /// Told after each change of a ConfigMap or Secret.
    pub changes: watch::Sender<()>,
    /// Pods by uid.
    pub pods: Mutex<HashMap<String, Arc<PodContext>>>,
}

impl Shared {
    /// The youngest pod of a name.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Result<Arc<PodContext>, Status> {
        let current = self.store.get(&kinds::pods(), namespace, name)?;
        let uid = current["metadata"]["uid"].as_str().unwrap_or_default();
        let pod = self.pods.lock().get(uid).cloned();
        pod.ok_or_else(|| {
            Status::bad_request(format!("pod {name} does not have a host assigned or has not been started yet"))
        })
    }
}

/// A running node. Dropping it ends it.
pub struct Node {
    pub(crate) shared: Arc<Shared>,
    synced: services::Synced,
    shutdown: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Node {
    /// Registers the node `meshgate` and begins to serve the pods bound to it, the Services and the DNS. Needs a tokio
    /// runtime, whose threads are in the node's network namespace.
    ///
    /// # Errors
    /// When its state, its thread or its object cannot be made.
    pub fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let state = |cause| NodeError::State { path: config.state_dir.clone(), cause };
        fs::create_dir_all(config.state_dir.join("pods")).map_err(state)?;
        register(&config.store).map_err(NodeError::Register)?;
        let network = Network::new(config.network);
        let shared = Arc::new(Shared {
            events: Recorder::new(config.store.clone()),
            store: config.store,
            network: network.clone(),
            images: config.images,
            helper: config.helper,
            tokens: config.tokens,
            ca_pem: config.ca_pem,
            state_dir: config.state_dir,
            own: config.own,
            crash_back_off: config.crash_back_off,
            eager_probes: config.eager_probes,
            spawner: Spawner::start().map_err(NodeError::Spawner)?,
            changes: watch::Sender::new(()),
            pods: Mutex::default(),
        });
        let shutdown = config.shutdown.child_token();
        for (resource, kind) in [(kinds::config_maps(), "configmap"), (kinds::secrets(), "secret")] {
            let shared = shared.clone();
            follow(&shared.store.clone(), resource, shutdown.clone(), move |object| {
                shared.config_changed(kind, object)
            })?;
        }
        let synced = services::start(&shared.store, network, &shutdown)?;
        let pods = watch_pods(&shared.store)?;
        let serving = shutdown.clone().run_until_cancelled_owned(serve(shared.clone(), pods));
        let served = shared.clone();
        tokio::spawn(async move {
            // Ends the pods' tasks, and they their processes.
            serving.await;
            served.pods.lock().clear();
        });
        Ok(Self { shared, synced, shutdown })
    }

    /// The store's revision up to which Services and DNS have been brought into the network.
    pub fn synced_revision(&self) -> watch::Receiver<u64> {
        self.synced.revision()
    }

    /// Waits until the network shows the Services and endpoints of `revision` (see [`Store::revision`]).
    pub async fn synced(&self, revision: u64) {
        self.synced.wait(revision).await;
    }
}

impl Shared {
    fn config_changed(&self, kind: &'static str, object: &Object) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let pods: Vec<_> = self.pods.lock().values().filter(|pod| pod.namespace == namespace).cloned().collect();
        for pod in pods {
            pod.config_changed(kind, name);
        }
        // Those who wait for an object to appear.
        self.changes.send_replace(());
    }
}

/// Calls `seen` with every object of a resource that is there or changes, in a task of its own.
fn follow(
    store: &Store,
    resource: GroupResource,
    shutdown: CancellationToken,
    seen: impl Fn(&Object) + Send + 'static,
) -> Result<(), NodeError> {
    let begin = {
        let (store, resource) = (store.clone(), resource.clone());
        move || store.watch(&resource, None, &Selectors::default(), Start::Now)
    };
    let mut watch = begin().map_err(|cause| NodeError::Watch { resource: resource.clone(), cause })?;
    tokio::spawn(shutdown.run_until_cancelled_owned(async move {
        loop {
            match watch.next().await {
                Some(Event::Added(object) | Event::Modified(object) | Event::Deleted(object)) => seen(&object),
                Some(Event::InitialEventsEnd(_)) => {}
                None => match begin() {
                    Ok(again) => watch = again,
                    Err(error) => {
                        tracing::error!(%error, %resource, "cannot watch any more");
                        return;
                    }
                },
            }
        }
    }));
    Ok(())
}

fn watch_pods(store: &Store) -> Result<meshgate_store::Watch, NodeError> {
    let bound = Selectors { fields: format!("spec.nodeName={}", kinds::NODE), ..Default::default() };
    let resource = kinds::pods();
    store.watch(&resource, None, &bound, Start::InitialEvents).map_err(|cause| NodeError::Watch { resource, cause })
}

/// Serves the pods that a watch tells of, each in a task of its own, until cancelled.
async fn serve(shared: Arc<Shared>, mut watch: meshgate_store::Watch) {
    let mut tasks = JoinSet::new();
    let mut initial = Some(HashSet::new());
    loop {
        let event = tokio::select! {
            event = watch.next() => event,
            Some(done) = tasks.join_next() => {
                match done {
                    Ok(uid) => drop(shared.pods.lock().remove::<String>(&uid)),
                    Err(error) => tracing::error!(%error, "a pod's task failed"),
                }
                continue;
            }
        };
        match event {
            Some(Event::Added(object) | Event::Modified(object)) => {
                if let Some(initial) = &mut initial {
                    initial.insert(uid(&object));
                }
                observe(&shared, &object, &mut tasks);
            }
            Some(Event::Deleted(object)) => {
                if let Some(pod) = shared.pods.lock().get(&uid(&object)) {
                    pod.delete(Duration::ZERO);
                }
            }
            Some(Event::InitialEventsEnd(_)) => {
                // After a gap in the watch: what is not there any more has been deleted in the gap.
                let Some(present) = initial.take() else { continue };
                for (uid, pod) in shared.pods.lock().iter() {
                    if !present.contains(uid) {
                        pod.delete(Duration::ZERO);
                    }
                }
            }
            None => match watch_pods(&shared.store) {
                Ok(again) => {
                    watch = again;
                    initial = Some(HashSet::new());
                }
                Err(error) => {
                    tracing::error!(%error, "the node cannot see its pods any more");
                    return;
                }
            },
        }
    }
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

/// A pod as the watch tells of it.
fn observe(shared: &Arc<Shared>, object: &Object, tasks: &mut JoinSet<String>) {
    let pod: Pod = match serde_json::from_value(object.as_ref().clone()) {
        Ok(pod) => pod,
        Err(error) => {
            tracing::warn!(%error, name = %object["metadata"]["name"], "a pod cannot be read and is not run");
            return;
        }
    };
    let uid = uid(object);
    let known = shared.pods.lock().get(&uid).cloned();
    match known {
        Some(known) => known.update(pod),
        None => {
            let context = Arc::new(PodContext::new(shared.clone(), pod.clone()));
            shared.pods.lock().insert(uid.clone(), context.clone());
            if pod.metadata.deletion_timestamp.is_some() {
                context.update(pod);
            }
            tasks.spawn(async move {
                pod::run(context).await;
                uid
            });
        }
    }
}

/// Creates the Node object, or takes over the one that is there.
fn register(store: &Store) -> Result<(), Status> {
    let options = WriteOptions { manager: "kubelet".into(), ..Default::default() };
    let object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": kinds::NODE,
            "labels": {
                "kubernetes.io/hostname": kinds::NODE,
                "kubernetes.io/os": "linux", "kubernetes.io/arch": architecture(),
                "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": architecture(),
                "node-role.kubernetes.io/control-plane": "",
            },
        },
        "spec": {"podCIDR": "10.244.0.0/16", "podCIDRs": ["10.244.0.0/16"], "providerID": "meshgate://meshgate"},
    });
    match store.create(&kinds::nodes(), "", object, &options) {
        Err(error) if error.reason != "AlreadyExists" => return Err(error),
        _ => {}
    }
    let mut status = |node: &mut Value| {
        node["status"] = node_status();
        Ok(())
    };
    store.modify(&kinds::nodes(), "", kinds::NODE, Subresource::Status, &options, &mut status)?;
    Ok(())
}

/// The architecture in Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn node_status() -> Value {
    let now = format!("{:.0}", Timestamp::now());
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
               "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let resources = json!({
        "cpu": kinds::CAPACITY_CPU, "memory": kinds::CAPACITY_MEMORY, "ephemeral-storage": kinds::CAPACITY_STORAGE, "pods": "110",
    });
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    json!({
        "addresses": [
            {"type": "InternalIP", "address": kinds::NODE_IP},
            {"type": "Hostname", "address": kinds::NODE},
        ],
        "capacity": resources, "allocatable": resources,
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "architecture": architecture(), "operatingSystem": "linux",
            "kubeletVersion": "v1.37.0", "kubeProxyVersion": "",
            "containerRuntimeVersion": concat!("meshgate://", env!("CARGO_PKG_VERSION")),
            "kernelVersion": read("/proc/sys/kernel/osrelease"), "osImage": "the host's, as processes",
            "bootID": read("/proc/sys/kernel/random/boot_id"), "machineID": "", "systemUUID": "",
        },
    })
}
