//! The life of one pod: network, volumes, init containers, containers, end.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use meshgate_net::Netns;
use meshgate_store::{Status, Subresource, WriteOptions};
use parking_lot::Mutex;
use serde::Deserialize as _;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::container::supervise;
use crate::env::Sources;
use crate::events::Kind;
use crate::kinds;
use crate::network::PodNetwork;
use crate::node::Shared;
use crate::process::Group;
use crate::runtime::{self, StartError};
use crate::slot::{Role, Slot};
use crate::status::{View, pod_status};
use crate::volumes::{Volumes, references};

/// Grace of a pod that says nothing.
const GRACE: Duration = Duration::from_secs(30);
/// Pause before the next attempt to set up a network or a volume.
const RETRY: Duration = Duration::from_secs(1);

/// One pod on this node, shared by the tasks that serve it.
pub(crate) struct PodContext {
    /// What all pods share.
    pub shared: Arc<Shared>,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid; a pod of the same name may follow.
    pub uid: String,
    /// Its state on disk.
    pub dir: PathBuf,
    /// Its volumes.
    pub volumes: Volumes,
    /// Its containers, init containers first, in the order of the spec.
    pub slots: Vec<Arc<Slot>>,
    /// As last seen.
    object: Mutex<Arc<Pod>>,
    network: OnceLock<PodNetwork>,
    started_at: Timestamp,
    /// Something in the status has changed.
    changed: Arc<Notify>,
    /// Deletion has begun.
    deleted: CancellationToken,
    failed: Mutex<Option<(&'static str, String)>>,
    /// Ends init and main containers, and then sidecars.
    stop_main: CancellationToken,
    stop_sidecars: CancellationToken,
    /// By when everything has to be over.
    deadline: watch::Sender<Option<Instant>>,
}

impl PodContext {
    /// A pod that has been bound to this node.
    pub(crate) fn new(shared: Arc<Shared>, pod: Pod) -> Self {
        let changed = Arc::new(Notify::new());
        let metadata = pod.metadata.clone();
        let uid = metadata.uid.unwrap_or_default();
        let dir = shared.state_dir.join("pods").join(&uid);
        let mut slots = Vec::new();
        for spec in pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()) {
            let role = if spec.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init };
            slots.push(Arc::new(Slot::new(spec.clone(), role, changed.clone())));
        }
        for spec in pod.spec.iter().flat_map(|spec| &spec.containers) {
            slots.push(Arc::new(Slot::new(spec.clone(), Role::Main, changed.clone())));
        }
        let volumes = Volumes {
            dir: dir.join("volumes"),
            store: shared.store.clone(),
            tokens: shared.tokens.clone(),
            ca_pem: shared.ca_pem.clone(),
        };
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid,
            dir,
            volumes,
            slots,
            object: Mutex::new(Arc::new(pod)),
            network: OnceLock::new(),
            started_at: Timestamp::now(),
            changed,
            deleted: CancellationToken::new(),
            failed: Mutex::default(),
            stop_main: CancellationToken::new(),
            stop_sidecars: CancellationToken::new(),
            deadline: watch::Sender::new(None),
            shared,
        }
    }

    /// The pod as last seen.
    pub(crate) fn object(&self) -> Arc<Pod> {
        self.object.lock().clone()
    }

    /// Its address, once it has one.
    pub(crate) fn ip(&self) -> Option<Ipv4Addr> {
        self.network.get().map(|network| network.ip)
    }

    /// Its network, once it has one.
    pub(crate) fn network(&self) -> Option<&PodNetwork> {
        self.network.get()
    }

    /// Its network namespace, for spawning into.
    pub(crate) fn netns(&self) -> std::io::Result<Arc<Netns>> {
        let network = self.network.get().ok_or_else(|| std::io::Error::other("the pod has no network yet"))?;
        Ok(network.netns.clone())
    }

    /// Ends containers of a role when it is cancelled.
    pub(crate) fn stop_token(&self, role: Role) -> CancellationToken {
        if role == Role::Sidecar { self.stop_sidecars.clone() } else { self.stop_main.clone() }
    }

    /// `terminationGracePeriodSeconds`.
    pub(crate) fn grace(&self) -> Duration {
        let seconds = self.object().spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(GRACE, Duration::from_secs)
    }

    /// Waits until the time given for the pod's end is over; it may be shortened meanwhile.
    pub(crate) async fn deadline_passed(&self) {
        let mut deadline = self.deadline.subscribe();
        loop {
            let now = *deadline.borrow_and_update();
            let over = async {
                match now {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => return,
                result = deadline.changed() => if result.is_err() { return },
            }
        }
    }

    /// Records an event about this pod.
    pub(crate) fn event(&self, field_path: &str, kind: Kind, reason: &'static str, message: &str) {
        self.shared.events.record(&self.object(), field_path, kind, reason, message);
    }

    /// A new version of the object: labels may have changed, deletion may have begun.
    pub(crate) fn update(&self, pod: Pod) {
        let deletion = pod.metadata.deletion_timestamp.is_some();
        let grace = pod.metadata.deletion_grace_period_seconds;
        let changed = {
            let mut object = self.object.lock();
            let changed = object.metadata.labels != pod.metadata.labels
                || object.metadata.annotations != pod.metadata.annotations;
            *object = Arc::new(pod);
            changed
        };
        if changed {
            self.sync_volumes_again();
        }
        if deletion {
            let grace = grace.and_then(|seconds| u64::try_from(seconds).ok()).map_or(GRACE, Duration::from_secs);
            self.delete(grace);
        }
    }

    /// Ends the pod within `grace`, or sooner if that was said before.
    pub(crate) fn delete(&self, grace: Duration) {
        self.deleted.cancel();
        self.end_within(grace);
        self.changed.notify_one();
    }

    fn end_within(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.deadline.send_if_modified(|present| {
            let sooner = present.is_none_or(|present| deadline < present);
            if sooner {
                *present = Some(deadline);
            }
            sooner
        });
        self.stop_main.cancel();
    }

    fn is_deleted(&self) -> bool {
        self.deleted.is_cancelled()
    }

    /// A ConfigMap or Secret of the pod's namespace changed: files follow.
    pub(crate) fn config_changed(&self, kind: &'static str, name: &str) {
        if references(&self.object()).contains(&(kind, name.to_owned())) {
            self.sync_volumes_again();
        }
    }

    fn sync_volumes_again(&self) {
        // Before the pod has an address its volumes have not been made; they will be, from the newest objects.
        if self.network.get().is_some()
            && !self.stop_sidecars.is_cancelled()
            && let Err((volume, error)) = self.sync_volumes()
        {
            tracing::debug!(pod = self.name, volume, %error, "a volume keeps its old content");
        }
    }

    fn sync_volumes(&self) -> Result<(), (String, crate::volumes::VolumeError)> {
        let object = self.object();
        let ip = self.ip().map(|ip| ip.to_string()).unwrap_or_default();
        let sources = Sources { store: &self.shared.store, pod: &object, pod_ip: &ip, host_ip: kinds::NODE_IP };
        self.volumes.sync(&sources)
    }

    /// Runs a command inside a running container: exit code, and stdout and stderr as they came.
    pub(crate) async fn run_in(&self, slot: &Slot, argv: Vec<String>) -> Result<(i32, Vec<u8>), StartError> {
        let pid = slot.state.borrow().pid;
        let pid = pid.ok_or_else(|| StartError::Exec("the container does not run".into()))?;
        let mut command = runtime::join(self, slot, pid, argv, false)?;
        let (output, output_end) = std::io::pipe()?;
        command.stdin(std::process::Stdio::null());
        command.stdout(output_end.try_clone()?);
        command.stderr(output_end);
        let mut child = self.shared.spawner.spawn(command, self.netns()?).await?;
        // A command that takes too long is dropped with this future.
        let mut group = Group::of(&child);
        let mut output = tokio::net::unix::pipe::Receiver::from_owned_fd(output.into())?;
        let mut text = Vec::new();
        let (status, _) = tokio::join!(child.wait(), output.read_to_end(&mut text));
        if let Some(group) = &mut group {
            group.let_go();
        }
        Ok((status?.code().unwrap_or(137), text))
    }

    /// Writes the status if it differs from the stored one.
    pub(crate) fn publish(&self) {
        let ip = self.ip().map(|ip| ip.to_string());
        let failed = self.failed.lock().clone();
        let containers: Vec<_> =
            self.slots.iter().map(|slot| (&slot.spec, slot.role, slot.state.borrow().clone())).collect();
        let mut change = |object: &mut Value| {
            let pod = Pod::deserialize(&*object)
                .map_err(|error| Status::internal(format!("the stored pod cannot be read: {error}")))?;
            if pod.metadata.uid.as_deref() != Some(self.uid.as_str()) {
                return Err(Status::not_found(&kinds::pods(), &self.name));
            }
            let status = pod_status(&View {
                pod: &pod,
                ip: ip.clone(),
                started_at: self.started_at,
                stopping: self.is_deleted(),
                failed: failed.clone(),
                containers: containers.clone(),
            });
            object["status"] = serde_json::to_value(status)
                .map_err(|error| Status::internal(format!("the pod's status cannot be written: {error}")))?;
            Ok(())
        };
        let options = WriteOptions { manager: "kubelet".into(), ..Default::default() };
        let written = self.shared.store.modify(
            &kinds::pods(),
            &self.namespace,
            &self.name,
            Subresource::Status,
            &options,
            &mut change,
        );
        if let Err(error) = written
            && error.code != 404
        {
            tracing::warn!(%error, pod = self.name, namespace = self.namespace, "cannot write a pod's status");
        }
    }
}

/// Serves a pod from its binding to its removal.
pub(crate) async fn run(pod: Arc<PodContext>) {
    let writer = tokio::spawn({
        let pod = pod.clone();
        async move {
            loop {
                pod.changed.notified().await;
                pod.publish();
            }
        }
    });
    tokio::select! {
        () = live(&pod) => {}
        // Set-up that hangs must not hold up a deletion; containers end by themselves at the deadline.
        () = async { pod.deadline_passed().await; sleep(Duration::from_secs(2)).await } => {
            tracing::warn!(pod = pod.name, namespace = pod.namespace, "a pod did not end in its grace time and is dropped");
        }
    }
    writer.abort();
    if !pod.is_deleted() {
        pod.publish();
    }
    pod.shared.network.remove(&pod.uid).await;
    pod.deleted.cancelled().await;
    let current = pod.shared.store.get(&kinds::pods(), &pod.namespace, &pod.name);
    if current.is_ok_and(|object| object["metadata"]["uid"] == pod.uid.as_str()) {
        // The node's last word; somebody else's may have come first.
        let _ = pod.shared.store.remove(&kinds::pods(), &pod.namespace, &pod.name);
    }
    if let Err(error) = fs::remove_dir_all(&pod.dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::debug!(%error, pod = pod.name, "cannot remove a pod's state");
    }
}

/// Everything from the network to the last container's end.
async fn live(pod: &Arc<PodContext>) {
    if !set_up(pod).await {
        return;
    }
    let mut sidecars = JoinSet::new();
    if initialize(pod, &mut sidecars).await {
        let mut main = JoinSet::new();
        for slot in pod.slots.iter().filter(|slot| slot.role == Role::Main) {
            main.spawn(supervise(pod.clone(), slot.clone()));
        }
        let all = async { while main.join_next().await.is_some() {} };
        tokio::pin!(all);
        tokio::select! {
            () = &mut all => {}
            seconds = past_active_deadline(pod) => {
                let message = "Pod was active on the node longer than the specified deadline".to_owned();
                tracing::debug!(pod = pod.name, seconds, "active deadline");
                *pod.failed.lock() = Some(("DeadlineExceeded", message));
                pod.stop_main.cancel();
                all.await;
            }
        }
    }
    pod.stop_sidecars.cancel();
    while sidecars.join_next().await.is_some() {}
}

/// Network and volumes. False when the pod was deleted meanwhile.
async fn set_up(pod: &Arc<PodContext>) -> bool {
    let object = pod.object();
    let spec = object.spec.clone().unwrap_or_default();
    let host_network = spec.host_network == Some(true);
    loop {
        match pod.shared.network.add(&pod.uid, host_network).await {
            Ok(network) => {
                let _ = pod.network.set(network);
                break;
            }
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {error}");
                pod.event("", Kind::Warning, "FailedCreatePodSandBox", &message);
            }
        }
        if !retry(pod, None).await {
            return false;
        }
    }
    pod.changed.notify_one();
    loop {
        let mut changes = pod.shared.changes.subscribe();
        let Err((volume, error)) = pod.sync_volumes() else { break };
        let message = format!("MountVolume.SetUp failed for volume \"{volume}\" : {error}");
        pod.event("", Kind::Warning, "FailedMount", &message);
        for slot in &pod.slots {
            slot.update(|state| {
                state.phase = crate::slot::Phase::Waiting { reason: "ContainerCreating", message: None };
            });
        }
        if !retry(pod, Some(&mut changes)).await {
            return false;
        }
    }
    if !pod.slots.iter().any(|slot| slot.role != Role::Main) {
        for slot in &pod.slots {
            slot.update(|state| {
                state.phase = crate::slot::Phase::Waiting { reason: "ContainerCreating", message: None };
            });
        }
    }
    true
}

/// Pauses before another attempt, shorter when an object changes. False when the pod was deleted.
async fn retry(pod: &PodContext, changes: Option<&mut watch::Receiver<()>>) -> bool {
    let changed = async {
        match changes {
            Some(changes) => drop(changes.changed().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = sleep(RETRY) => true,
        () = changed => true,
        () = pod.stop_main.cancelled() => false,
    }
}

/// Init containers one after the other; sidecars stay in `sidecars`. False when one failed or the pod is to end.
async fn initialize(pod: &Arc<PodContext>, sidecars: &mut JoinSet<bool>) -> bool {
    for slot in pod.slots.iter().filter(|slot| slot.role != Role::Main) {
        if pod.stop_main.is_cancelled() {
            return false;
        }
        if slot.role == Role::Init {
            if !supervise(pod.clone(), slot.clone()).await {
                return false;
            }
            continue;
        }
        let mut state = slot.state.subscribe();
        sidecars.spawn(supervise(pod.clone(), slot.clone()));
        tokio::select! {
            _ = state.wait_for(|state| state.started || state.done) => {}
            () = pod.stop_main.cancelled() => return false,
        }
    }
    !pod.stop_main.is_cancelled()
}

/// Waits for `activeDeadlineSeconds`, for ever without it.
async fn past_active_deadline(pod: &PodContext) -> i64 {
    let seconds = pod.object().spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
    match seconds.and_then(|seconds| u64::try_from(seconds).ok().map(|length| (seconds, length))) {
        Some((seconds, length)) => {
            let age = Timestamp::now().duration_since(pod.started_at);
            let age = Duration::try_from(age).unwrap_or_default();
            sleep(Duration::from_secs(length).saturating_sub(age)).await;
            seconds
        }
        None => std::future::pending().await,
    }
}
