//! Writes the statuses of routes and of EgressNetworks, whenever they are not what they should be.

use std::time::Duration;

use k8s_openapi::jiff::{Timestamp, Unit};
use kube::{
    Api, Client, Error,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    Index,
    answers::status::{self, CONTROLLER, Due, Told},
    index::Topic,
    objects::{Condition, ParentStatus},
    watches,
};

/// How long after a status could not be written it is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// How often a status is written anew because somebody else wrote it at the same time.
const ATTEMPTS: usize = 5;

/// Writes statuses for ever: once every kind has been listed, and then after each change that one depends on.
///
/// There may be several writers, since they write the same; there is one with Linkerd's policy controller, and one replica here.
pub async fn write_statuses(client: Client, index: Index) {
    let mut changes = index.subscribe(Topic::Statuses);
    loop {
        // Marked before the look: a change after it is another one.
        changes.mark_unchanged();
        let due = index.answer(status::due).await;
        let mut failed = false;
        for one in &due {
            if let Err(error) = write(&client, one).await {
                failed = true;
                let Due { kind, key, .. } = one;
                tracing::warn!(?kind, %key, error = &error as &dyn std::error::Error, "a status could not be written; trying again");
            }
        }
        let again = async {
            match failed {
                true => tokio::time::sleep(RETRY).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = again => {}
        }
    }
}

/// In the first version in which the API server has the object; one that is gone needs no status.
async fn write(client: &Client, due: &Due) -> kube::Result<()> {
    let Due { kind, key, told } = due;
    let params = PatchParams { field_manager: Some(CONTROLLER.into()), ..PatchParams::default() };
    for version in watches::versions_of(*kind) {
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), &key.namespace, &version);
        for attempt in 1.. {
            let Some(object) = api.get_opt(&key.name).await? else { break };
            let Some(status) = status_with(&object.data["status"], told, Timestamp::now()) else { return Ok(()) };
            // Only of the object that was read: what others write meanwhile must not be lost.
            let metadata = json!({"resourceVersion": object.metadata.resource_version});
            let patch = Patch::Merge(json!({"metadata": metadata, "status": status}));
            match api.patch_status(&key.name, &params, &patch).await {
                Err(Error::Api(status)) if status.code == 409 && attempt < ATTEMPTS => {}
                Err(Error::Api(status)) if status.code == 404 => return Ok(()),
                written => return written.map(drop),
            }
        }
    }
    Ok(())
}

/// A status that says this, and what is somebody else's as it did; `None` if it does so already.
///
/// As the API has it, a condition's time is that of the last change of whether it holds.
fn status_with(status: &Value, told: &Told, now: Timestamp) -> Option<Value> {
    let now = json!(now.round(Unit::Second).unwrap_or(now));
    Some(match told {
        Told::Parents(parents) => json!({"parents": parents_with(&status["parents"], parents, &now)?}),
        Told::Accepted(accepted) => json!({"conditions": conditions_with(&status["conditions"], accepted, &now)?}),
    })
}

/// The parents of other controllers, and these.
fn parents_with(status: &Value, parents: &[ParentStatus], now: &Value) -> Option<Vec<Value>> {
    let (before, others): (Vec<_>, Vec<_>) =
        status.as_array().into_iter().flatten().partition(|parent| parent["controllerName"] == CONTROLLER);
    let read = |parent: &&Value| serde_json::from_value::<ParentStatus>((*parent).clone()).ok();
    if before.iter().map(read).eq(parents.iter().cloned().map(Some)) {
        return None;
    }
    let ours = parents.iter().map(|parent| {
        let mut told = json!(parent);
        let former = before.iter().find(|one| one["parentRef"] == told["parentRef"]);
        let former: Vec<_> = former.and_then(|one| one["conditions"].as_array()).into_iter().flatten().collect();
        told["conditions"] = parent.conditions.iter().map(|condition| since(condition, &former, now)).collect();
        told
    });
    Some(others.into_iter().cloned().chain(ours).collect())
}

/// The conditions of other types, and this.
fn conditions_with(status: &Value, condition: &Condition, now: &Value) -> Option<Vec<Value>> {
    let (before, others): (Vec<_>, Vec<_>) =
        status.as_array().into_iter().flatten().partition(|one| one["type"] == condition.type_);
    if let [one] = before[..]
        && serde_json::from_value::<Condition>(one.clone()).is_ok_and(|one| one == *condition)
    {
        return None;
    }
    let told = since(condition, &before, now);
    Some(others.into_iter().cloned().chain([told]).collect())
}

/// The condition, with its time: that of one of the former that says the same of whether it holds, else now.
fn since(condition: &Condition, former: &[&Value], now: &Value) -> Value {
    let mut told = json!(condition);
    let same = former.iter().find(|one| one["type"] == told["type"] && one["status"] == told["status"]);
    let since = same.map(|one| one["lastTransitionTime"].clone()).filter(Value::is_string);
    told["lastTransitionTime"] = since.unwrap_or_else(|| now.clone());
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::ParentRef;

    fn told(resolved: &[bool]) -> Told {
        Told::Parents(resolved.iter().copied().map(parent).collect())
    }

    fn parent(resolved: bool) -> ParentStatus {
        let condition = |type_: &str, status: bool| Condition {
            type_: type_.into(),
            status: if status { "True" } else { "False" }.into(),
            reason: "Because".into(),
            message: String::new(),
            observed_generation: Some(1),
        };
        ParentStatus {
            parent_ref: ParentRef { kind: Some("Service".into()), name: "web".into(), ..ParentRef::default() },
            controller_name: CONTROLLER.into(),
            conditions: vec![condition("Accepted", true), condition("ResolvedRefs", resolved)],
        }
    }

    #[test]
    fn others_are_kept_and_times_are_those_of_the_last_change() {
        let [monday, tuesday]: [Timestamp; 2] =
            ["2026-06-01T10:00:00.25Z", "2026-06-02T10:00:00Z"].map(|time| time.parse().unwrap());
        let other = json!({"controllerName": "example.com/gateways", "parentRef": {"name": "g"}, "conditions": []});
        let first = status_with(&json!({"parents": [other]}), &told(&[false]), monday).unwrap();
        assert_eq!(first["parents"][0], other);
        assert_eq!(first["parents"][1]["parentRef"], json!({"kind": "Service", "name": "web"}));
        assert_eq!(status_with(&first, &told(&[false]), tuesday), None);

        let second = status_with(&first, &told(&[true]), tuesday).unwrap();
        let times: Vec<_> = second["parents"][1]["conditions"].as_array().unwrap().iter().collect();
        assert_eq!(times[0]["lastTransitionTime"], "2026-06-01T10:00:00Z");
        assert_eq!(
            (&times[1]["lastTransitionTime"], &times[1]["status"]),
            (&json!("2026-06-02T10:00:00Z"), &json!("True"))
        );
        assert_eq!(status_with(&second, &told(&[]), tuesday), Some(json!({"parents": [other]})));
        assert_eq!(status_with(&Value::Null, &told(&[]), tuesday), None);
    }

    #[test]
    fn a_networks_other_conditions_are_kept() {
        let [monday, tuesday]: [Timestamp; 2] =
            ["2026-06-01T10:00:00Z", "2026-06-02T10:00:00Z"].map(|time| time.parse().unwrap());
        let accepted = |holds: bool| {
            let condition = parent(holds).conditions.pop().unwrap();
            Told::Accepted(Condition { type_: "Accepted".into(), observed_generation: None, ..condition })
        };
        let other = json!({"type": "Other", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let first = status_with(&json!({"conditions": [other]}), &accepted(false), monday).unwrap();
        let ours = |status: &str, since: &str| json!({"type": "Accepted", "status": status, "reason": "Because", "message": "", "lastTransitionTime": since});
        assert_eq!(first, json!({"conditions": [other, ours("False", "2026-06-01T10:00:00Z")]}));
        assert_eq!(status_with(&first, &accepted(false), tuesday), None);
        let second = status_with(&first, &accepted(true), tuesday).unwrap();
        assert_eq!(second, json!({"conditions": [other, ours("True", "2026-06-02T10:00:00Z")]}));
    }
}
