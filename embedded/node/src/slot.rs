//! One container of a pod: what is known about it, and its logs.

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

use crate::images::Image;
use crate::logs::LogBuffer;

/// Which part a container has in its pod's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to completion before the next one.
    Init,
    /// An init container with `restartPolicy: Always`: stays beside the others.
    Sidecar,
    /// An ordinary container.
    Main,
}

/// A container instance that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Exit code; 128 plus the signal when one ended it.
    pub exit_code: i32,
    /// The signal.
    pub signal: Option<i32>,
    /// `Completed`, `Error` or `StartError`.
    pub reason: &'static str,
    /// Termination message.
    pub message: Option<String>,
    /// When it began; `None` when it never did.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// `containerID`.
    pub container_id: String,
}

/// The `state` of a container status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not running, but it may.
    Waiting { reason: &'static str, message: Option<String> },
    /// Running.
    Running { since: Timestamp },
    /// Over.
    Terminated(Ended),
}

/// What is known about a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotState {
    /// Now.
    pub phase: Phase,
    /// How the instance before ended.
    pub last: Option<Ended>,
    /// Times it was started again.
    pub restarts: i32,
    /// The readiness probe's word, or running where there is none.
    pub ready: bool,
    /// The startup probe's word, or running where there is none.
    pub started: bool,
    /// `imageID`.
    pub image_id: String,
    /// `containerID`.
    pub container_id: String,
    /// Its process while it runs, as seen by the node.
    pub pid: Option<i32>,
    /// It will not be started again.
    pub done: bool,
}

impl Default for SlotState {
    fn default() -> Self {
        Self {
            phase: Phase::Waiting { reason: "PodInitializing", message: None },
            last: None,
            restarts: 0,
            ready: false,
            started: false,
            image_id: String::new(),
            container_id: String::new(),
            pid: None,
            done: false,
        }
    }
}

impl SlotState {
    /// Whether it is over and succeeded.
    pub(crate) fn succeeded(&self) -> bool {
        matches!(&self.phase, Phase::Terminated(ended) if ended.exit_code == 0)
    }

    /// Whether it runs.
    pub(crate) fn running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }
}

/// The logs of the present and the previous instance.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    /// Of the present instance, or of the last one when none runs.
    pub current: Option<Arc<LogBuffer>>,
    /// Of the one before.
    pub previous: Option<Arc<LogBuffer>>,
}

/// One container of a pod.
pub(crate) struct Slot {
    /// As the pod's spec has it.
    pub spec: Container,
    /// Its part.
    pub role: Role,
    /// Its image, once found.
    pub image: OnceLock<Image>,
    /// What is known; anybody may wait on it.
    pub state: watch::Sender<SlotState>,
    /// Logs.
    pub logs: Mutex<Logs>,
    /// Whoever wants the running instance ended (a failed probe) says why here.
    pub kill: mpsc::Sender<String>,
    /// The other end, for the one task that runs the container.
    pub kills: tokio::sync::Mutex<mpsc::Receiver<String>>,
    /// Told after each change: the pod's status has to be written.
    changed: Arc<Notify>,
}

impl Slot {
    /// A container that has not started.
    pub(crate) fn new(spec: Container, role: Role, changed: Arc<Notify>) -> Self {
        let (kill, kills) = mpsc::channel(1);
        Self {
            spec,
            role,
            image: OnceLock::new(),
            state: watch::Sender::new(SlotState::default()),
            logs: Mutex::default(),
            kill,
            kills: tokio::sync::Mutex::new(kills),
            changed,
        }
    }

    /// Changes what is known.
    pub(crate) fn update(&self, change: impl FnOnce(&mut SlotState)) {
        let changed = self.state.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            *state != before
        });
        if changed {
            self.changed.notify_one();
        }
    }

    /// Begins the log of a new instance.
    pub(crate) fn new_log(&self) -> Arc<LogBuffer> {
        let log = Arc::new(LogBuffer::default());
        let mut logs = self.logs.lock();
        logs.previous = logs.current.replace(log.clone());
        log
    }

    /// `spec.containers{name}` or `spec.initContainers{name}`, for events.
    pub(crate) fn field_path(&self) -> String {
        let list = if self.role == Role::Main { "containers" } else { "initContainers" };
        format!("spec.{list}{{{}}}", self.spec.name)
    }
}
