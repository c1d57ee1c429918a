//! Printers of pods and what makes them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::format::{NONE, age, containers, count, duration, int, items, labels, selector, since, text, text_or};
use super::printer::Column::{self, Number, Text, Wide};
use super::printer::{Builtin, Cells};

pub(super) fn printer(group: &str, plural: &str) -> Option<Builtin> {
    let (columns, cells): (&'static [Column], Cells) = match (group, plural) {
        ("", "pods") => (
            &[
                Text("Ready"),
                Text("Status"),
                Text("Restarts"),
                Text("Age"),
                Wide("IP"),
                Wide("Node"),
                Wide("Nominated Node"),
                Wide("Readiness Gates"),
            ],
            pod,
        ),
        ("apps", "deployments") => (
            &[
                Text("Ready"),
                Number("Up-to-date"),
                Number("Available"),
                Text("Age"),
                Wide("Containers"),
                Wide("Images"),
                Wide("Selector"),
            ],
            deployment,
        ),
        ("apps", "replicasets") | ("", "replicationcontrollers") => (
            &[
                Number("Desired"),
                Number("Current"),
                Number("Ready"),
                Text("Age"),
                Wide("Containers"),
                Wide("Images"),
                Wide("Selector"),
            ],
            replica_set,
        ),
        ("apps", "daemonsets") => (
            &[
                Number("Desired"),
                Number("Current"),
                Number("Ready"),
                Number("Up-to-date"),
                Number("Available"),
                Text("Node Selector"),
                Text("Age"),
                Wide("Containers"),
                Wide("Images"),
                Wide("Selector"),
            ],
            daemon_set,
        ),
        ("apps", "statefulsets") => (&[Text("Ready"), Text("Age"), Wide("Containers"), Wide("Images")], stateful_set),
        ("apps", "controllerrevisions") => (&[Text("Controller"), Number("Revision"), Text("Age")], revision),
        ("batch", "jobs") => (
            &[
                Text("Status"),
                Text("Completions"),
                Text("Duration"),
                Text("Age"),
                Wide("Containers"),
                Wide("Images"),
                Wide("Selector"),
            ],
            job,
        ),
        ("batch", "cronjobs") => (
            &[
                Text("Schedule"),
                Text("Timezone"),
                Text("Suspend"),
                Number("Active"),
                Text("Last Schedule"),
                Text("Age"),
                Wide("Containers"),
                Wide("Images"),
                Wide("Selector"),
            ],
            cron_job,
        ),
        _ => return None,
    };
    Some(Builtin { columns, cells })
}

const TEMPLATE: &str = "/spec/template/spec/containers";

fn pod(pod: &Value, now: Timestamp) -> Vec<Value> {
    let state = PodState::of(pod);
    let mut restarts = state.restarts.to_string();
    if state.restarts > 0 && !state.last_restart.is_empty() {
        restarts.push_str(&format!(" ({} ago)", since(state.last_restart, now)));
    }
    vec![
        json!(format!("{}/{}", state.ready, state.total)),
        json!(state.reason),
        json!(restarts),
        age(pod, now),
        json!(text_or(pod, "/status/podIP", NONE)),
        json!(text_or(pod, "/spec/nodeName", NONE)),
        json!(text_or(pod, "/status/nominatedNodeName", NONE)),
        json!(readiness_gates(pod)),
    ]
}

fn readiness_gates(pod: &Value) -> String {
    let gates = items(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let met = gates.iter().filter(|gate| condition(pod, text(gate, "/conditionType")) == "True").count();
    format!("{met}/{}", gates.len())
}

/// The status of a condition.
fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let conditions = items(object, "/status/conditions");
    conditions.iter().find(|condition| text(condition, "/type") == kind).map_or("", |found| text(found, "/status"))
}

/// What one line can say about a pod's containers.
struct PodState<'a> {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    /// When a container last ended; `""` for never.
    last_restart: &'a str,
}

impl<'a> PodState<'a> {
    fn of(pod: &'a Value) -> Self {
        let phase = text(pod, "/status/phase");
        let sidecars = items(pod, "/spec/initContainers").iter().filter(|container| is_sidecar(container)).count();
        let mut state = Self {
            reason: text_or(pod, "/status/reason", phase).to_owned(),
            ready: 0,
            total: items(pod, "/spec/containers").len() + sidecars,
            restarts: 0,
            last_restart: "",
        };
        let initializing = state.see_init_containers(pod);
        if !initializing || condition(pod, "Initialized") == "True" {
            state.see_containers(pod);
        }
        let deleted = pod.pointer("/metadata/deletionTimestamp").is_some_and(Value::is_string);
        if deleted && !matches!(phase, "Succeeded" | "Failed") {
            state.reason = "Terminating".to_owned();
        }
        state
    }

    /// Goes through the init containers up to the first that is not done; whether there was one.
    fn see_init_containers(&mut self, pod: &'a Value) -> bool {
        let specs = items(pod, "/spec/initContainers");
        let (mut all, mut all_last) = (0, "");
        let (mut sidecars, mut sidecars_last) = (0, "");
        let mut initializing = None;
        for (index, status) in items(pod, "/status/initContainerStatuses").iter().enumerate() {
            let name = text(status, "/name");
            let sidecar = specs.iter().any(|spec| text(spec, "/name") == name && is_sidecar(spec));
            let restarts = int(status, "/restartCount");
            let ended = text(status, "/lastState/terminated/finishedAt");
            (all, all_last) = (all + restarts, all_last.max(ended));
            if sidecar {
                (sidecars, sidecars_last) = (sidecars + restarts, sidecars_last.max(ended));
            }
            let terminated = status.pointer("/state/terminated");
            if terminated.is_some_and(|terminated| int(terminated, "/exitCode") == 0) {
                continue;
            }
            if sidecar && status["started"] == true {
                self.ready += usize::from(status["ready"] == true);
                continue;
            }
            let waiting = text(status, "/state/waiting/reason");
            initializing = Some(match terminated {
                Some(terminated) => format!("Init:{}", end_of(terminated)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
                None => format!("Init:{index}/{}", specs.len()),
            });
            break;
        }
        match initializing {
            Some(reason) => {
                (self.reason, self.restarts, self.last_restart) = (reason, all, all_last);
                true
            }
            None => {
                (self.restarts, self.last_restart) = (sidecars, sidecars_last);
                false
            }
        }
    }

    fn see_containers(&mut self, pod: &'a Value) {
        let mut running = false;
        for status in items(pod, "/status/containerStatuses").iter().rev() {
            self.restarts += int(status, "/restartCount");
            self.last_restart = self.last_restart.max(text(status, "/lastState/terminated/finishedAt"));
            let waiting = text(status, "/state/waiting/reason");
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(terminated) = status.pointer("/state/terminated") {
                self.reason = end_of(terminated);
            } else if status["ready"] == true && status.pointer("/state/running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            self.reason = if condition(pod, "Ready") == "True" { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

/// Why a container ended.
fn end_of(terminated: &Value) -> String {
    let (reason, signal) = (text(terminated, "/reason"), int(terminated, "/signal"));
    match (reason, signal) {
        ("", 0) => format!("ExitCode:{}", int(terminated, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object, TEMPLATE);
    vec![
        json!(format!("{}/{}", int(object, "/status/readyReplicas"), int(object, "/spec/replicas"))),
        json!(int(object, "/status/updatedReplicas")),
        json!(int(object, "/status/availableReplicas")),
        age(object, now),
        names,
        images,
        json!(selector(object.pointer("/spec/selector"))),
    ]
}

fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object, TEMPLATE);
    vec![
        json!(int(object, "/spec/replicas")),
        json!(int(object, "/status/replicas")),
        json!(int(object, "/status/readyReplicas")),
        age(object, now),
        names,
        images,
        json!(selector(object.pointer("/spec/selector"))),
    ]
}

fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object, TEMPLATE);
    vec![
        json!(int(object, "/status/desiredNumberScheduled")),
        json!(int(object, "/status/currentNumberScheduled")),
        json!(int(object, "/status/numberReady")),
        json!(int(object, "/status/updatedNumberScheduled")),
        json!(int(object, "/status/numberAvailable")),
        json!(labels(object.pointer("/spec/template/spec/nodeSelector"))),
        age(object, now),
        names,
        images,
        json!(selector(object.pointer("/spec/selector"))),
    ]
}

fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object, TEMPLATE);
    let ready = format!("{}/{}", int(object, "/status/readyReplicas"), int(object, "/spec/replicas"));
    vec![json!(ready), age(object, now), names, images]
}

fn revision(object: &Value, now: Timestamp) -> Vec<Value> {
    let owners = items(object, "/metadata/ownerReferences");
    let controller = owners.iter().find(|owner| owner["controller"] == true);
    let controller = controller.map_or(NONE.to_owned(), |owner| {
        let api_version = text(owner, "/apiVersion");
        let group = api_version.split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
        format!("{}{group}/{}", text(owner, "/kind").to_lowercase(), text(owner, "/name"))
    });
    vec![json!(controller), json!(int(object, "/revision")), age(object, now)]
}

fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object, TEMPLATE);
    let succeeded = int(object, "/status/succeeded");
    let parallelism = int(object, "/spec/parallelism");
    let completions = match object.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(completions) => format!("{succeeded}/{completions}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let known = ["Complete", "Failed", "Suspended", "SuccessCriteriaMet", "FailureTarget"];
    let deleted = object.pointer("/metadata/deletionTimestamp").is_some_and(Value::is_string);
    let status = match known.into_iter().find(|kind| condition(object, kind) == "True") {
        Some(kind) => kind,
        None if deleted => "Terminating",
        None => "Running",
    };
    let (began, ended) = (text(object, "/status/startTime"), text(object, "/status/completionTime"));
    let took = match (began.parse::<Timestamp>(), ended.parse::<Timestamp>()) {
        (Ok(began), Ok(ended)) => duration(ended.duration_since(began).as_secs()),
        (Ok(_), Err(_)) => since(began, now),
        _ => String::new(),
    };
    vec![
        json!(status),
        json!(completions),
        json!(took),
        age(object, now),
        names,
        images,
        json!(selector(object.pointer("/spec/selector"))),
    ]
}

fn cron_job(object: &Value, now: Timestamp) -> Vec<Value> {
    let template = "/spec/jobTemplate/spec/template/spec/containers";
    let [names, images] = containers(object, template);
    let last = match text(object, "/status/lastScheduleTime") {
        "" => NONE.to_owned(),
        time => since(time, now),
    };
    let suspended = object.pointer("/spec/suspend").and_then(Value::as_bool).unwrap_or(false);
    vec![
        json!(text(object, "/spec/schedule")),
        json!(text_or(object, "/spec/timeZone", NONE)),
        json!(if suspended { "True" } else { "False" }),
        json!(count(object, "/status/active")),
        json!(last),
        age(object, now),
        names,
        images,
        json!(selector(object.pointer("/spec/jobTemplate/spec/selector"))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(pod: Value) -> (String, usize, usize, i64) {
        let state = PodState::of(&pod);
        (state.reason, state.ready, state.total, state.restarts)
    }

    #[test]
    fn a_pod_in_one_line() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]});
        let running = json!({"ready": true, "restartCount": 1, "state": {"running": {}}});
        let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        assert_eq!(
            state(
                json!({"spec": spec, "status": {"phase": "Running", "initContainerStatuses": [done], "containerStatuses": [running, running]}})
            ),
            ("Running".to_owned(), 2, 2, 2)
        );
        let crash = json!({"ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        assert_eq!(
            state(
                json!({"spec": spec, "status": {"phase": "Running", "initContainerStatuses": [done], "containerStatuses": [crash, running]}})
            ),
            ("CrashLoopBackOff".to_owned(), 1, 2, 4)
        );
        let initializing = json!({"name": "i", "state": {"running": {}}});
        assert_eq!(
            state(json!({"spec": spec, "status": {"phase": "Pending", "initContainerStatuses": [initializing]}})).0,
            "Init:0/1"
        );
        let failed = json!({"name": "i", "state": {"terminated": {"exitCode": 3}}});
        assert_eq!(
            state(json!({"spec": spec, "status": {"phase": "Pending", "initContainerStatuses": [failed]}})).0,
            "Init:ExitCode:3"
        );
        assert_eq!(
            state(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": {"phase": "Running"}})).0,
            "Terminating"
        );
    }

    #[test]
    fn a_sidecar_counts_as_a_container() {
        let pod = json!({
            "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]},
            "status": {
                "phase": "Running",
                "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 2, "state": {"running": {}}}],
                "containerStatuses": [{"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}}],
            },
        });
        assert_eq!(state(pod), ("Running".to_owned(), 2, 2, 2));
    }
}
