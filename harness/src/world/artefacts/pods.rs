//! The pods of a cluster, a line each.

use k8s_openapi::api::core::v1::{Pod, PodCondition};

use crate::kubernetes::troubles;

/// Of each pod its name, its phase, how many of its containers are ready, how often they were begun anew, and what is wrong with them. Those with
/// which something is wrong come first.
pub(super) fn table(pods: &[Pod]) -> String {
    let mut lines: Vec<(bool, String)> = pods.iter().map(line).collect();
    lines.sort();
    lines.into_iter().map(|(_, line)| line + "\n").collect()
}

/// Whether all is well with a pod, and its line.
fn line(pod: &Pod) -> (bool, String) {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or("Unknown");
    let containers = || status.container_statuses.iter().flatten();
    let restarts: i32 =
        status.init_container_statuses.iter().flatten().chain(containers()).map(|it| it.restart_count).sum();
    let ready = containers().filter(|container| container.ready).count();
    let wanted = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    let mut wrong = troubles(&status);
    let unscheduled = |it: &&PodCondition| it.type_ == "PodScheduled" && it.status == "False";
    wrong.extend(status.conditions.iter().flatten().filter(unscheduled).filter_map(|it| it.message.clone()));
    let well = phase == "Succeeded" || phase == "Running" && ready == wanted;
    let well = well && restarts == 0 && wrong.is_empty();
    let wrong = if wrong.is_empty() { String::new() } else { format!("  {}", wrong.join("; ")) };
    (well, format!("{namespace}/{name}  {phase}  {ready}/{wanted} ready  {restarts} restarts{wrong}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, phase: &str, ready: bool, restarts: i32, more: Value) -> Pod {
        let mut status = json!({"phase": phase, "containerStatuses": [{
            "name": "web", "image": "i", "imageID": "", "ready": ready, "restartCount": restarts,
        }]});
        for (field, value) in more.as_object().unwrap() {
            status["containerStatuses"][0][field] = value.clone();
        }
        let pod = json!({
            "metadata": {"name": name, "namespace": "n"}, "spec": {"containers": [{"name": "web"}]}, "status": status,
        });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn pods_are_listed_with_those_in_trouble_first() {
        let waiting = json!({"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "again"}}});
        let ended = json!({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let mut nowhere = pod("nowhere", "Pending", false, 0, json!({}));
        nowhere.status = serde_json::from_value(json!({
            "phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "no node"}],
        }))
        .unwrap();
        let pods = [
            pod("a", "Running", true, 0, json!({})),
            pod("job", "Succeeded", false, 0, ended),
            pod("restarted", "Running", true, 2, json!({})),
            pod("web", "Running", false, 3, waiting),
            nowhere,
        ];
        let expected = "\
            n/nowhere  Pending  0/1 ready  0 restarts  no node\n\
            n/restarted  Running  1/1 ready  2 restarts\n\
            n/web  Running  0/1 ready  3 restarts  web: CrashLoopBackOff again\n\
            n/a  Running  1/1 ready  0 restarts\n\
            n/job  Succeeded  0/1 ready  0 restarts\n";
        assert_eq!(table(&pods), expected);
    }
}
