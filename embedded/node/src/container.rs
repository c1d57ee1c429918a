//! The life of one container: start, watch over, end, start again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::events::Kind;
use crate::handlers::{Action, check};
use crate::images::Image;
use crate::pod::PodContext;
use crate::probes;
use crate::runtime::{self, Instance, StartError};
use crate::slot::{Ended, Phase, Role, Slot};

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// An instance that ran this long makes the next failure count as the first.
const STABLE: Duration = Duration::from_secs(600);
/// Pause between attempts while a ConfigMap or Secret is missing, unless one appears before.
const CONFIG_PAUSE: Duration = Duration::from_secs(1);

/// Growing pauses between attempts: the base, then doubling to five minutes.
#[derive(Clone, Copy, Debug)]
struct BackOff {
    base: Duration,
    next: Duration,
}

impl BackOff {
    fn new(base: Duration) -> Self {
        Self { base, next: base }
    }

    fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE.max(self.base));
        pause
    }

    fn reset(&mut self) {
        self.next = self.base;
    }
}

/// Runs a container until it is not to be started again, and says whether its last instance succeeded.
pub(crate) async fn supervise(pod: Arc<PodContext>, slot: Arc<Slot>) -> bool {
    let stop = pod.stop_token(slot.role);
    let run = run(&pod, &slot, &stop);
    let succeeded = run.await;
    slot.update(|state| {
        state.done = true;
        state.ready = false;
        state.pid = None;
    });
    succeeded
}

async fn run(pod: &Arc<PodContext>, slot: &Arc<Slot>, stop: &CancellationToken) -> bool {
    let Some(image) = image(pod, slot, stop).await else { return false };
    let mut pauses = BackOff::new(pod.shared.crash_back_off);
    // Ends since the last stable instance, and restarts in all.
    let mut ends = 0;
    let mut restarted = 0;
    loop {
        if stop.is_cancelled() {
            return false;
        }
        let ended = match runtime::start(pod, slot, &image).await {
            Ok(instance) => watch_over(pod, slot, instance, restarted, stop).await,
            Err(error @ (StartError::Env(_) | StartError::Volume(_) | StartError::NoCommand)) => {
                wait_for_configuration(pod, slot, &error, stop).await;
                continue;
            }
            Err(error) => never_ran(pod, slot, &error),
        };
        let succeeded = ended.exit_code == 0;
        let ran = ended.started_at.map_or(Duration::ZERO, |since| {
            Duration::try_from(ended.finished_at.duration_since(since)).unwrap_or_default()
        });
        slot.update(|state| {
            state.phase = Phase::Terminated(ended.clone());
            state.restarts = restarted;
            state.ready = false;
            state.started = false;
            state.pid = None;
        });
        if stop.is_cancelled() || !restarts(pod, slot, succeeded) {
            return succeeded;
        }
        if ran >= STABLE {
            pauses.reset();
            ends = 0;
        }
        ends += 1;
        // The first restart is immediate, as in Kubernetes.
        if ends > 1 && !back_off(pod, slot, &ended, &mut pauses, stop).await {
            slot.update(|state| state.phase = Phase::Terminated(ended));
            return succeeded;
        }
        slot.update(|state| {
            if let Phase::Terminated(ended) = &state.phase {
                state.last = Some(ended.clone());
            }
        });
        restarted += 1;
    }
}

/// Whether the container is to be started again after an end.
fn restarts(pod: &PodContext, slot: &Slot, succeeded: bool) -> bool {
    let policy = pod.object().spec.as_ref().and_then(|spec| spec.restart_policy.clone());
    match (slot.role, policy.as_deref().unwrap_or("Always")) {
        (Role::Sidecar, _) | (Role::Main, "Always") => true,
        (_, "Never") => false,
        // Init containers of an `Always` pod are restarted until they succeed.
        _ => !succeeded,
    }
}

/// Finds the image, with the kubelet's states and events while it is not to be had. `None` when stopped.
async fn image(pod: &Arc<PodContext>, slot: &Slot, stop: &CancellationToken) -> Option<Image> {
    let name = slot.spec.image.clone().unwrap_or_default();
    let mut pauses = BackOff::new(pod.shared.crash_back_off);
    loop {
        let images = pod.shared.images.clone();
        let wanted = name.clone();
        let found = tokio::task::spawn_blocking(move || images.resolve(&wanted));
        let found = tokio::select! {
            found = found => found.unwrap_or_else(|error| Err(format!("looking for the image failed: {error}"))),
            () = stop.cancelled() => return None,
        };
        let error = match found {
            Ok(image) => {
                slot.update(|state| state.image_id.clone_from(&image.id));
                let _ = slot.image.set(image.clone());
                pod.event(
                    &slot.field_path(),
                    Kind::Normal,
                    "Pulled",
                    &format!("Container image \"{name}\" already present on machine"),
                );
                return Some(image);
            }
            Err(error) => error,
        };
        let path = slot.field_path();
        pod.event(&path, Kind::Warning, "Failed", &format!("Failed to pull image \"{name}\": {error}"));
        pod.event(&path, Kind::Warning, "Failed", "Error: ErrImagePull");
        slot.update(|state| state.phase = Phase::Waiting { reason: "ErrImagePull", message: Some(error.clone()) });
        let pause = pauses.pause();
        let short = pause.min(Duration::from_secs(1));
        if !pause_for(short, stop).await {
            return None;
        }
        let message = format!("Back-off pulling image \"{name}\": {error}");
        pod.event(&path, Kind::Normal, "BackOff", &format!("Back-off pulling image \"{name}\""));
        slot.update(|state| state.phase = Phase::Waiting { reason: "ImagePullBackOff", message: Some(message) });
        if !pause_for(pause.saturating_sub(short).max(short), stop).await {
            return None;
        }
    }
}

/// Waits, unless stopped.
async fn pause_for(pause: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = sleep(pause) => true,
        () = stop.cancelled() => false,
    }
}

async fn wait_for_configuration(pod: &PodContext, slot: &Slot, error: &StartError, stop: &CancellationToken) {
    let message = error.to_string();
    pod.event(&slot.field_path(), Kind::Warning, "Failed", &format!("Error: {message}"));
    let mut changes = pod.shared.changes.subscribe();
    slot.update(|state| state.phase = Phase::Waiting { reason: error.reason(), message: Some(message) });
    tokio::select! {
        () = sleep(CONFIG_PAUSE) => {}
        _ = changes.changed() => {}
        () = stop.cancelled() => {}
    }
}

/// The end of an instance whose program could not be executed.
fn never_ran(pod: &PodContext, slot: &Slot, error: &StartError) -> Ended {
    let message = error.to_string();
    pod.event(&slot.field_path(), Kind::Warning, "Failed", &format!("Error: {message}"));
    Ended {
        exit_code: 128,
        signal: None,
        reason: "StartError",
        message: Some(message),
        started_at: None,
        finished_at: Timestamp::now(),
        container_id: String::new(),
    }
}

/// Waits before a restart, visibly. False when stopped meanwhile.
async fn back_off(
    pod: &PodContext,
    slot: &Slot,
    ended: &Ended,
    pauses: &mut BackOff,
    stop: &CancellationToken,
) -> bool {
    let pause = pauses.pause();
    let name = &slot.spec.name;
    let whose = format!("{}_{}({})", pod.name, pod.namespace, pod.uid);
    let seconds =
        if pause.as_secs() > 0 { format!("{}s", pause.as_secs()) } else { format!("{}ms", pause.as_millis()) };
    let message = format!("back-off {seconds} restarting failed container={name} pod={whose}");
    pod.event(
        &slot.field_path(),
        Kind::Warning,
        "BackOff",
        &format!("Back-off restarting failed container {name} in pod {whose}"),
    );
    slot.update(|state| {
        state.last = Some(ended.clone());
        state.phase = Phase::Waiting { reason: "CrashLoopBackOff", message: Some(message) };
    });
    pause_for(pause, stop).await
}

/// From the start of an instance to its end, however that comes.
async fn watch_over(
    pod: &Arc<PodContext>,
    slot: &Arc<Slot>,
    mut instance: Instance,
    restarted: i32,
    stop: &CancellationToken,
) -> Ended {
    let path = slot.field_path();
    let name = &slot.spec.name;
    let (since, id, pid) = (instance.since, instance.id.clone(), instance.pid());
    let mut kills = slot.kills.lock().await;
    // A wish to end the instance before this one.
    while kills.try_recv().is_ok() {}
    let probed = slot.spec.startup_probe.is_some();
    let hook = slot.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
    // Before the status: who sees a pod ready may look for what led there.
    pod.event(&path, Kind::Normal, "Created", &format!("Created container: {name}"));
    pod.event(&path, Kind::Normal, "Started", &format!("Started container {name}"));
    slot.update(|state| {
        state.phase = Phase::Running { since };
        state.restarts = restarted;
        state.container_id.clone_from(&id);
        state.pid = pid;
        if !probed && hook.is_none() {
            state.started = true;
            state.ready = slot.spec.readiness_probe.is_none();
        }
    });

    let watched = async {
        if let Some(action) = hook.and_then(Action::of_hook)
            && let Err(error) = check(pod, slot, &action, Duration::from_secs(3600)).await
        {
            pod.event(&path, Kind::Warning, "FailedPostStartHook", &format!("PostStartHook failed: {error}"));
            let _ = slot.kill.send(format!("PostStartHook of container {name} failed")).await;
        }
        let _probes = probes::start(pod, slot);
        std::future::pending::<Infallible>().await
    };
    let (code, signal) = {
        tokio::pin!(watched);
        tokio::select! {
            end = instance.wait() => end,
            Some(reason) = kills.recv() => {
                tracing::debug!(pod = pod.name, container = name, reason, "ending a container");
                let grace = liveness_grace(&slot.spec).unwrap_or_else(|| pod.grace());
                end(pod, slot, &mut instance, Instant::now() + grace).await
            }
            () = stop.cancelled() => {
                pod.event(&path, Kind::Normal, "Killing", &format!("Stopping container {name}"));
                end(pod, slot, &mut instance, Instant::now() + pod.grace()).await
            }
            never = &mut watched => match never {},
        }
    };
    let message = instance.finish(&slot.spec, code != 0).await;
    Ended {
        exit_code: code,
        signal,
        reason: if code == 0 { "Completed" } else { "Error" },
        message,
        started_at: Some(since),
        finished_at: Timestamp::now(),
        container_id: id,
    }
}

/// `terminationGracePeriodSeconds` of the liveness or startup probe.
fn liveness_grace(container: &Container) -> Option<Duration> {
    let probes = [&container.liveness_probe, &container.startup_probe];
    let seconds = probes.into_iter().flatten().find_map(|probe| probe.termination_grace_period_seconds)?;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

/// preStop, SIGTERM, and SIGKILL at the deadline or when the pod's own comes before.
async fn end(pod: &Arc<PodContext>, slot: &Slot, instance: &mut Instance, latest: Instant) -> (i32, Option<i32>) {
    let hook = slot.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    let ended = {
        let orderly = async {
            if let Some(action) = hook.and_then(Action::of_hook) {
                let left = latest.saturating_duration_since(Instant::now());
                tokio::select! {
                    result = check(pod, slot, &action, left) => if let Err(error) = result {
                        pod.event(&slot.field_path(), Kind::Warning, "FailedPreStopHook", &format!("PreStopHook failed: {error}"));
                    },
                    end = instance.wait() => return end,
                }
            }
            instance.terminate();
            instance.wait().await
        };
        tokio::select! {
            ended = orderly => Some(ended),
            () = sleep_until(latest) => None,
            () = pod.deadline_passed() => None,
        }
    };
    match ended {
        Some(ended) => ended,
        None => {
            instance.kill();
            instance.wait().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_five_minutes() {
        let mut pauses = BackOff::new(Duration::from_secs(10));
        let seconds: Vec<u64> = (0..7).map(|_| pauses.pause().as_secs()).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300]);
        pauses.reset();
        assert_eq!(pauses.pause().as_secs(), 10);
    }
}
