//! A pod's status, computed from what is known about its containers.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::kinds;
use crate::slot::{Ended, Phase, Role, SlotState};

/// What a status is computed from.
pub(crate) struct View<'a> {
    /// The pod as last seen, with its previous status.
    pub pod: &'a Pod,
    /// Its address, once it has a network.
    pub ip: Option<String>,
    /// When the node took it.
    pub started_at: Timestamp,
    /// It is being deleted: not ready, whatever the probes say.
    pub stopping: bool,
    /// Reason and message of a pod that failed as a whole, e.g. `DeadlineExceeded`.
    pub failed: Option<(&'static str, String)>,
    /// Its containers in the order of the spec, init containers first.
    pub containers: Vec<(&'a Container, Role, SlotState)>,
}

/// The whole status. Conditions keep their `lastTransitionTime` while their status stays, and conditions of others stay.
pub(crate) fn pod_status(view: &View<'_>) -> PodStatus {
    let before = view.pod.status.clone().unwrap_or_default();
    let statuses = |init: bool| -> Vec<ContainerStatus> {
        let chosen = view.containers.iter().filter(|(_, role, _)| (*role != Role::Main) == init);
        chosen.map(|(container, _, state)| container_status(container, state, view.stopping)).collect()
    };
    let init = statuses(true);
    let ips = |ip: &String| vec![PodIP { ip: ip.clone() }];
    PodStatus {
        phase: Some(phase(view).to_owned()),
        conditions: Some(conditions(view, before.conditions.unwrap_or_default())),
        container_statuses: Some(statuses(false)),
        init_container_statuses: (!init.is_empty()).then_some(init),
        host_ip: Some(kinds::NODE_IP.to_string()),
        host_ips: Some(vec![HostIP { ip: kinds::NODE_IP.to_string() }]),
        pod_ips: view.ip.as_ref().map(ips),
        pod_ip: view.ip.clone(),
        qos_class: Some(before.qos_class.unwrap_or_else(|| qos_class(view.pod).to_owned())),
        start_time: Some(Time(view.started_at)),
        observed_generation: view.pod.metadata.generation,
        reason: view.failed.as_ref().map(|(reason, _)| (*reason).to_owned()),
        message: view.failed.as_ref().map(|(_, message)| message.clone()),
        nominated_node_name: before.nominated_node_name,
        ..Default::default()
    }
}

/// The pod's phase, by the rules of `getPhase` in the kubelet.
pub(crate) fn phase(view: &View<'_>) -> &'static str {
    if view.failed.is_some() {
        return "Failed";
    }
    let of =
        |wanted: Role| view.containers.iter().filter(move |(_, role, _)| *role == wanted).map(|(_, _, state)| state);
    if of(Role::Init).any(|state| state.done && !state.succeeded()) {
        return "Failed";
    }
    if !initialized(view) {
        return "Pending";
    }
    let main: Vec<&SlotState> = of(Role::Main).collect();
    if main.iter().all(|state| state.done) && of(Role::Sidecar).all(|state| state.done) {
        return if main.iter().all(|state| state.succeeded()) { "Succeeded" } else { "Failed" };
    }
    let never_ran = |state: &&SlotState| matches!(state.phase, Phase::Waiting { .. }) && state.last.is_none();
    if main.iter().any(never_ran) { "Pending" } else { "Running" }
}

/// Whether every init container has done its part.
fn initialized(view: &View<'_>) -> bool {
    view.containers.iter().all(|(_, role, state)| match role {
        Role::Init => state.done && state.succeeded(),
        Role::Sidecar => state.started || state.done,
        Role::Main => true,
    })
}

fn conditions(view: &View<'_>, before: Vec<PodCondition>) -> Vec<PodCondition> {
    let phase = phase(view);
    let names = |wanted: &dyn Fn(Role, &SlotState) -> bool| -> Vec<&str> {
        let chosen = view.containers.iter().filter(|(_, role, state)| wanted(*role, state));
        chosen.map(|(container, _, _)| container.name.as_str()).collect()
    };
    let over = matches!(phase, "Succeeded" | "Failed");
    let unready = names(&|role, state| role != Role::Init && !(state.ready && state.running()));
    let uninitialized = names(&|role, state| match role {
        Role::Init => !state.succeeded(),
        Role::Sidecar => !state.started && !state.done,
        Role::Main => false,
    });
    let containers_ready = if phase == "Succeeded" {
        Err(("PodCompleted", None))
    } else if phase == "Failed" {
        Err(("PodFailed", None))
    } else if view.stopping || !unready.is_empty() {
        Err(("ContainersNotReady", Some(format!("containers with unready status: [{}]", unready.join(" ")))))
    } else {
        Ok(())
    };
    let gates = view.pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let closed = gates.into_iter().find(|gate| {
        !before.iter().any(|condition| condition.type_ == gate.condition_type && condition.status == "True")
    });
    let ready = match (&containers_ready, closed) {
        (Ok(()), Some(gate)) => Err((
            "ReadinessGatesNotReady",
            Some(format!("the status of pod readiness gate \"{}\" is not \"True\", but False", gate.condition_type)),
        )),
        (result, _) => result.clone(),
    };
    let initialized = match uninitialized.as_slice() {
        [] => Ok(()),
        names => {
            Err(("ContainersNotInitialized", Some(format!("containers with incomplete status: [{}]", names.join(" ")))))
        }
    };
    let network = if view.ip.is_some() && !over { Ok(()) } else { Err(("", None)) };
    let wanted = [
        ("PodReadyToStartContainers", network),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Ok(())),
    ];
    let mut result: Vec<PodCondition> = Vec::new();
    for (kind, outcome) in wanted {
        let status = if outcome.is_ok() { "True" } else { "False" };
        let (reason, message) = outcome.err().unwrap_or(("", None));
        let previous = before.iter().find(|condition| condition.type_ == kind);
        let same = previous.filter(|condition| condition.status == status);
        result.push(PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            message,
            last_transition_time: Some(
                same.and_then(|condition| condition.last_transition_time.clone()).unwrap_or(Time(Timestamp::now())),
            ),
            observed_generation: view.pod.metadata.generation,
            last_probe_time: None,
        });
    }
    let others = before.into_iter().filter(|condition| !wanted_type(&condition.type_));
    result.extend(others);
    result
}

fn wanted_type(kind: &str) -> bool {
    matches!(kind, "PodReadyToStartContainers" | "Initialized" | "Ready" | "ContainersReady" | "PodScheduled")
}

fn container_status(container: &Container, state: &SlotState, stopping: bool) -> ContainerStatus {
    let terminated = |ended: &Ended| ContainerStateTerminated {
        container_id: (!ended.container_id.is_empty()).then(|| ended.container_id.clone()),
        exit_code: ended.exit_code,
        signal: ended.signal,
        reason: Some(ended.reason.to_owned()),
        message: ended.message.clone(),
        started_at: ended.started_at.map(Time),
        finished_at: Some(Time(ended.finished_at)),
    };
    let now = match &state.phase {
        Phase::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some((*reason).to_owned()), message: message.clone() }),
            ..Default::default()
        },
        Phase::Running { since } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
            ..Default::default()
        },
        Phase::Terminated(ended) => ContainerState { terminated: Some(terminated(ended)), ..Default::default() },
    };
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: state.image_id.clone(),
        container_id: (!state.container_id.is_empty()).then(|| state.container_id.clone()),
        state: Some(now),
        last_state: Some(ContainerState { terminated: state.last.as_ref().map(terminated), ..Default::default() }),
        ready: state.ready && !stopping,
        started: Some(state.started),
        restart_count: state.restarts,
        ..Default::default()
    }
}

/// `Guaranteed` when every container limits cpu and memory to what it requests, `BestEffort` when none says anything.
pub(crate) fn qos_class(pod: &Pod) -> &'static str {
    let containers: Vec<&Container> =
        pod.spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten())).collect();
    let mut any = false;
    let mut guaranteed = true;
    for container in containers {
        let resources = container.resources.clone().unwrap_or_default();
        let (limits, requests) = (resources.limits.unwrap_or_default(), resources.requests.unwrap_or_default());
        for name in ["cpu", "memory"] {
            let (limit, request) = (limits.get(name), requests.get(name));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ended(exit_code: i32) -> Ended {
        Ended {
            exit_code,
            signal: None,
            reason: if exit_code == 0 { "Completed" } else { "Error" },
            message: None,
            started_at: None,
            finished_at: Timestamp::now(),
            container_id: String::new(),
        }
    }

    fn running(ready: bool) -> SlotState {
        SlotState { phase: Phase::Running { since: Timestamp::now() }, ready, started: true, ..Default::default() }
    }

    fn over(exit_code: i32, done: bool) -> SlotState {
        SlotState { phase: Phase::Terminated(ended(exit_code)), done, ..Default::default() }
    }

    fn view<'a>(pod: &'a Pod, container: &'a Container, containers: Vec<(Role, SlotState)>) -> View<'a> {
        View {
            pod,
            ip: Some("10.244.0.2".into()),
            started_at: Timestamp::now(),
            stopping: false,
            failed: None,
            containers: containers.into_iter().map(|(role, state)| (container, role, state)).collect(),
        }
    }

    fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
        status.conditions.as_ref().unwrap().iter().find(|condition| condition.type_ == kind).unwrap()
    }

    #[test]
    fn phases() {
        let (pod, container) = (Pod::default(), Container::default());
        let phase_of = |containers| phase(&view(&pod, &container, containers));
        let waiting = SlotState::default;
        assert_eq!(phase_of(vec![(Role::Main, waiting())]), "Pending");
        assert_eq!(phase_of(vec![(Role::Init, running(false)), (Role::Main, waiting())]), "Pending");
        assert_eq!(phase_of(vec![(Role::Init, over(1, true)), (Role::Main, waiting())]), "Failed");
        assert_eq!(phase_of(vec![(Role::Init, over(0, true)), (Role::Main, running(true))]), "Running");
        let restarting = SlotState { last: Some(ended(1)), ..waiting() };
        assert_eq!(phase_of(vec![(Role::Main, restarting)]), "Running");
        assert_eq!(phase_of(vec![(Role::Main, over(0, true)), (Role::Main, running(true))]), "Running");
        assert_eq!(phase_of(vec![(Role::Main, over(0, true)), (Role::Main, over(0, true))]), "Succeeded");
        assert_eq!(phase_of(vec![(Role::Main, over(0, true)), (Role::Main, over(1, true))]), "Failed");
        assert_eq!(phase_of(vec![(Role::Sidecar, running(true)), (Role::Main, over(0, true))]), "Running");
        assert_eq!(phase_of(vec![(Role::Sidecar, over(137, true)), (Role::Main, over(0, true))]), "Succeeded");
    }

    #[test]
    fn a_pod_is_ready_when_all_its_containers_are_and_not_while_it_stops() {
        let (pod, container) = (Pod::default(), Container::default());
        let mut view = view(&pod, &container, vec![(Role::Main, running(true)), (Role::Main, running(true))]);
        assert_eq!(condition(&pod_status(&view), "Ready").status, "True");
        view.stopping = true;
        assert_eq!(condition(&pod_status(&view), "Ready").status, "False");
        view.stopping = false;
        view.containers[1].2.ready = false;
        assert_eq!(condition(&pod_status(&view), "Ready").reason.as_deref(), Some("ContainersNotReady"));
    }

    #[test]
    fn a_readiness_gate_holds_back_readiness_and_foreign_conditions_stay() {
        let pod: Pod = serde_json::from_value(json!({
            "spec": {"containers": [], "readinessGates": [{"conditionType": "example.com/gate"}]},
            "status": {"conditions": [{"type": "example.com/gate", "status": "False"}]},
        }))
        .unwrap();
        let container = Container::default();
        let status = pod_status(&view(&pod, &container, vec![(Role::Main, running(true))]));
        assert_eq!(condition(&status, "ContainersReady").status, "True");
        assert_eq!(condition(&status, "Ready").status, "False");
        assert_eq!(condition(&status, "example.com/gate").status, "False");
    }

    #[test]
    fn a_condition_keeps_its_time_while_it_stays() {
        let pod: Pod = serde_json::from_value(json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
        ]}}))
        .unwrap();
        let container = Container::default();
        let mut view = view(&pod, &container, vec![(Role::Main, running(true))]);
        let old = Time("2020-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(condition(&pod_status(&view), "Ready").last_transition_time, Some(old.clone()));
        view.stopping = true;
        assert_ne!(condition(&pod_status(&view), "Ready").last_transition_time, Some(old));
    }

    #[test]
    fn quality_of_service() {
        let pod = |resources: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})).unwrap()
        };
        assert_eq!(qos_class(&pod(json!({}))), "BestEffort");
        assert_eq!(qos_class(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        assert_eq!(qos_class(&pod(json!({"limits": {"cpu": "1", "memory": "1Gi"}}))), "Guaranteed");
    }
}
