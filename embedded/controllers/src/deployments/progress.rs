//! The status of a Deployment: counts, and the conditions Available and Progressing.

use meshgate_store::{Object, Status, Store};
use serde_json::{Value, json};

use super::history::Sets;
use super::rollout::Limits;
use crate::events::{EventType, Recorder};
use crate::objects::{self, bool_at, condition, int_at, name, resources, set_condition, str_at};
use crate::runner::Next;
use crate::time;

/// The reason of a rollout that has reached its end.
const DONE: &str = "NewReplicaSetAvailable";

/// The reason of one that takes too long.
const LATE: &str = "ProgressDeadlineExceeded";

/// Writes the status, and answers when to look again for the progress deadline.
pub(super) fn write(store: &Store, events: &Recorder, deployment: &Object, sets: &Sets) -> Result<Next, Status> {
    // The deployment may carry a new revision annotation by now; its generation is what was acted on.
    let old = &deployment["status"];
    let mut status = counts(deployment, sets);
    available(deployment, &mut status);
    let next = progressing(deployment, sets, old, &mut status);
    let late = |status: &Value| condition(status, "Progressing").is_some_and(|known| str_at(known, "/reason") == LATE);
    if late(&status) && !late(old) {
        let set = sets.new.as_ref().map(|set| name(set)).unwrap_or_default();
        events.record(
            deployment,
            EventType::Warning,
            LATE,
            &format!("ReplicaSet \"{set}\" has timed out progressing."),
        );
    }
    objects::set_status(store, &resources::deployments(), deployment, &status)?;
    Ok(next)
}

fn counts(deployment: &Object, sets: &Sets) -> Value {
    let sum = |field: &str| -> i64 { sets.all().map(|set| int_at(set, &format!("/status/{field}"))).sum() };
    let total = sum("replicas");
    let available = sum("availableReplicas");
    let updated = sets.new.as_ref().map_or(0, |set| int_at(set, "/status/replicas"));
    let wanted: i64 = sets.all().map(|set| int_at(set, "/spec/replicas")).sum();
    let mut status = json!({
        "observedGeneration": int_at(deployment, "/metadata/generation"),
        "conditions": deployment["status"].get("conditions").cloned().unwrap_or_else(|| json!([])),
    });
    let counts = [
        ("replicas", total),
        ("updatedReplicas", updated),
        ("readyReplicas", sum("readyReplicas")),
        ("availableReplicas", available),
        ("unavailableReplicas", (wanted.max(total) - available).max(0)),
    ];
    for (field, count) in counts.into_iter().filter(|(_, count)| *count != 0) {
        status[field] = json!(count);
    }
    status
}

fn available(deployment: &Object, status: &mut Value) {
    let least = int_at(deployment, "/spec/replicas") - Limits::of(deployment).unavailable();
    if int_at(status, "/availableReplicas") >= least {
        set_condition(
            status,
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
            true,
        );
    } else {
        let message = "Deployment does not have minimum availability.";
        set_condition(status, "Available", "False", "MinimumReplicasUnavailable", message, true);
    }
}

fn progressing(deployment: &Object, sets: &Sets, old: &Value, status: &mut Value) -> Next {
    let known = condition(old, "Progressing").cloned().unwrap_or_default();
    let reason = str_at(&known, "/reason").to_owned();
    let mut set =
        |state: &str, reason: &str, message: &str| set_condition(status, "Progressing", state, reason, message, true);
    if bool_at(deployment, "/spec/paused") {
        set("Unknown", "DeploymentPaused", "Deployment is paused");
        return Next::Done;
    }
    let Some(new) = &sets.new else { return Next::Done };
    let new = name(new);
    if complete(deployment, sets) {
        set("True", DONE, &format!("ReplicaSet \"{new}\" has successfully progressed."));
        return Next::Done;
    }
    let moved = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"]
        .iter()
        .any(|field| int_at(old, &format!("/{field}")) != int_at(&counts(deployment, sets), &format!("/{field}")));
    let restarted = reason == DONE && int_at(old, "/observedGeneration") != int_at(deployment, "/metadata/generation");
    let fresh = reason.is_empty() || reason == "DeploymentPaused" || restarted;
    if fresh || moved {
        let (reason, message) = if reason.is_empty() {
            ("NewReplicaSetCreated", format!("Created new replica set \"{new}\""))
        } else {
            ("ReplicaSetUpdated", format!("ReplicaSet \"{new}\" is progressing."))
        };
        // A move is progress even when the words stay the same: the deadline counts from here.
        objects::renew_condition(status, "Progressing");
        set_condition(status, "Progressing", "True", reason, &message, true);
    } else if reason == DONE {
        // Fewer pods are available than before without a rollout: not this condition's business.
        return Next::Done;
    }
    let Some(deadline) = deployment["spec"]["progressDeadlineSeconds"].as_i64() else { return Next::Done };
    let since =
        condition(status, "Progressing").map(|known| str_at(known, "/lastUpdateTime").to_owned()).unwrap_or_default();
    match time::left(&since, deadline) {
        Some(left) => Next::After(left),
        None => {
            let message = format!("ReplicaSet \"{new}\" has timed out progressing.");
            set_condition(status, "Progressing", "False", LATE, &message, true);
            Next::Done
        }
    }
}

/// Whether the rollout is at its end: all pods are of the new template, available, and no other is left.
fn complete(deployment: &Object, sets: &Sets) -> bool {
    let desired = int_at(deployment, "/spec/replicas");
    let Some(new) = &sets.new else { return false };
    let total: i64 = sets.all().map(|set| int_at(set, "/status/replicas")).sum();
    int_at(new, "/status/replicas") == desired
        && int_at(new, "/spec/replicas") == desired
        && int_at(new, "/status/availableReplicas") == desired
        && total == desired
}
