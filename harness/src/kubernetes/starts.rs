//! Containers that do not start, and whether that is for good: a container that is begun anew may come up yet, and so may one whose image
//! was not to be had a moment ago.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use crate::convergence::patient;

/// Between two looks at the pods.
pub(super) const LOOKS: Duration = Duration::from_secs(2);

/// How long a container is given to start after all.
const GIVEN: Duration = Duration::from_secs(30);

/// How often one that ends again and again is begun anew meanwhile. On a cluster with the usual pauses that takes a minute and more.
const RESTARTS: i32 = 3;

/// Where a container that ends again and again waits for the next time.
const CRASHES: &str = "CrashLoopBackOff";

/// Why a container waits that something is wrong with.
const WRONG: [&str; 8] = [
    CRASHES,
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

/// The containers that were seen not to start and have not become ready since, by pod and name.
#[derive(Default)]
pub(super) struct Starts(BTreeMap<(String, String), Start>);

struct Start {
    /// When it was first seen not to start,
    since: Instant,
    /// and how often it had been begun anew by then.
    restarts: i32,
    /// What it said last.
    said: String,
    hopeless: bool,
}

impl Starts {
    /// Looks at the pods of Deployments that are awaited, each `NAMESPACE/NAME`.
    pub fn look(&mut self, pods: &[Pod], awaited: &BTreeSet<&str>, now: Instant) {
        let mut seen = BTreeMap::new();
        for (deployment, set) in newest(pods) {
            if !awaited.contains(deployment.as_str()) {
                continue;
            }
            for pod in pods.iter().filter(|pod| replica_set(pod) == Some(set) && of(pod).as_ref() == Some(&deployment))
            {
                self.look_at(pod, now, &mut seen);
            }
        }
        self.0 = seen;
    }

    fn look_at(&mut self, pod: &Pod, now: Instant, seen: &mut BTreeMap<(String, String), Start>) {
        let Some(status) = pod.status.as_ref().filter(|_| pod.metadata.deletion_timestamp.is_none()) else { return };
        let inits = status.init_container_statuses.iter().flatten();
        for container in inits.chain(status.container_statuses.iter().flatten()).filter(|container| !container.ready) {
            let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
            let wrong = waiting.and_then(|waiting| Some((waiting.reason.as_deref()?, waiting.message.as_deref())));
            let wrong = wrong.filter(|(reason, _)| WRONG.contains(reason));
            let key = (name(pod), container.name.clone());
            let start = match (self.0.remove(&key), wrong) {
                (known, None) => known.map(|known| Start { hopeless: false, ..known }),
                (known, Some((reason, message))) => {
                    let (since, restarts) =
                        known.map_or((now, container.restart_count), |known| (known.since, known.restarts));
                    let again = container.restart_count - restarts;
                    let hopeless = now - since >= patient(GIVEN) && (reason != CRASHES || again >= RESTARTS);
                    let message = message.and_then(|message| message.lines().next()).unwrap_or_default();
                    let said = format!("pod {}: {}: {reason} {message}", key.0, key.1).trim_end().to_owned();
                    Some(Start { since, restarts, said, hopeless })
                }
            };
            seen.extend(start.map(|start| (key, start)));
        }
    }

    /// What one of them says, for people who wait.
    pub fn told(&self) -> Option<String> {
        let first = self.0.values().next()?;
        let more = self.0.len() - 1;
        Some(if more == 0 { first.said.clone() } else { format!("{} (and {more} more)", first.said) })
    }

    /// What one of them says of which nothing is to be hoped for any more.
    pub fn hopeless(&self) -> Option<&str> {
        self.0.values().find(|start| start.hopeless).map(|start| start.said.as_str())
    }
}

/// The newest ReplicaSet of each Deployment that has pods: those of an older one are on their way out.
fn newest(pods: &[Pod]) -> BTreeMap<String, &str> {
    let mut newest = BTreeMap::new();
    for pod in pods {
        let (Some(deployment), Some(set)) = (of(pod), replica_set(pod)) else { continue };
        let made = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let known = newest.entry(deployment).or_insert((made, set));
        if made > known.0 {
            *known = (made, set);
        }
    }
    newest.into_iter().map(|(deployment, (_, set))| (deployment, set)).collect()
}

fn replica_set(pod: &Pod) -> Option<&str> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.kind == "ReplicaSet").map(|owner| owner.name.as_str())
}

/// The Deployment of a pod, by the name of its ReplicaSet, which has that of the Deployment and the template's hash.
fn of(pod: &Pod) -> Option<String> {
    let (deployment, _) = replica_set(pod)?.rsplit_once('-')?;
    Some(format!("{}/{deployment}", pod.metadata.namespace.as_deref().unwrap_or_default()))
}

fn name(pod: &Pod) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&pod.metadata.namespace), part(&pod.metadata.name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A pod of the Deployment `n/web` with one container.
    fn pod(hash: &str, ready: bool, restarts: i32, state: Value) -> Pod {
        let pod = json!({
            "metadata": {
                "name": format!("web-{hash}-x"), "namespace": "n", "creationTimestamp": format!("2026-01-01T00:00:0{hash}Z"),
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("web-{hash}"), "uid": ""}],
            },
            "status": {"containerStatuses": [{
                "name": "main", "image": "i", "imageID": "", "ready": ready, "restartCount": restarts, "state": state,
            }]},
        });
        serde_json::from_value(pod).unwrap()
    }

    fn waiting(reason: &str) -> Value {
        json!({"waiting": {"reason": reason, "message": "why\nand more"}})
    }

    /// The seconds after which each of these looks found it hopeless.
    fn hopeless(looks: &[(u64, Pod)]) -> Vec<u64> {
        let (mut starts, began) = (Starts::default(), Instant::now());
        let mut found = Vec::new();
        for (seconds, pod) in looks {
            let now = began + Duration::from_secs(*seconds);
            starts.look(std::slice::from_ref(pod), &BTreeSet::from(["n/web"]), now);
            found.extend(starts.hopeless().map(|_| *seconds));
        }
        found
    }

    #[test]
    fn what_keeps_a_container_from_starting_is_told_at_once() {
        let mut starts = Starts::default();
        let mut told = |pods: &[Pod], awaited: &str| {
            starts.look(pods, &BTreeSet::from([awaited]), Instant::now());
            starts.told()
        };
        let said = "pod n/web-1-x: main: ImagePullBackOff why";
        assert_eq!(told(&[pod("1", false, 0, waiting("ImagePullBackOff"))], "n/web").as_deref(), Some(said));
        assert_eq!(told(&[pod("1", false, 0, waiting("ImagePullBackOff"))], "n/other"), None);
        assert_eq!(told(&[pod("1", false, 0, waiting("ContainerCreating"))], "n/web"), None);
        let crashes = Some("pod n/web-1-x: main: CrashLoopBackOff why");
        assert_eq!(told(&[pod("1", false, 1, waiting(CRASHES))], "n/web").as_deref(), crashes);
        let running = json!({"running": {}});
        assert_eq!(told(&[pod("1", false, 2, running.clone())], "n/web").as_deref(), crashes, "it is not ready yet");
        assert_eq!(told(&[pod("1", true, 2, running)], "n/web"), None);
    }

    #[test]
    fn an_image_that_cannot_be_had_for_a_while_is_given_up() {
        let without = |reason| pod("1", false, 0, waiting(reason));
        let looks = [(0, without("ErrImagePull")), (29, without("ImagePullBackOff")), (30, without("ErrImagePull"))];
        assert_eq!(hopeless(&looks), [30]);
        let had = pod("1", true, 0, json!({"running": {}}));
        assert_eq!(hopeless(&[(0, without("ErrImagePull")), (5, had), (31, without("ErrImagePull"))]), [0; 0]);
    }

    #[test]
    fn what_ends_again_and_again_is_given_up_and_what_comes_up_in_between_is_not() {
        let crashes = |restarts| pod("1", false, restarts, waiting(CRASHES));
        assert_eq!(hopeless(&[(0, crashes(1)), (35, crashes(3)), (60, crashes(4))]), [60]);
        assert_eq!(hopeless(&[(0, crashes(1)), (8, crashes(9)), (29, crashes(10))]), [0; 0], "it may come up yet");
        let runs = |ready, restarts| pod("1", ready, restarts, json!({"running": {}}));
        assert_eq!(hopeless(&[(0, crashes(1)), (60, runs(false, 5))]), [0; 0], "it runs");
        assert_eq!(hopeless(&[(0, crashes(1)), (10, runs(true, 2)), (60, crashes(7))]), [0; 0], "it was ready");
        // Restarts of before say nothing of now.
        assert_eq!(hopeless(&[(0, crashes(20)), (40, crashes(21))]), [0; 0]);
    }

    #[test]
    fn pods_that_are_on_their_way_out_are_not_looked_at() {
        let mut leaving = pod("1", false, 0, waiting("ErrImagePull"));
        leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
        assert_eq!(hopeless(&[(0, leaving.clone()), (60, leaving)]), [0; 0]);
        let (mut starts, began) = (Starts::default(), Instant::now());
        let pods = [pod("1", false, 0, waiting("ErrImagePull")), pod("2", false, 0, json!({"running": {}}))];
        for seconds in [0, 60] {
            starts.look(&pods, &BTreeSet::from(["n/web"]), began + Duration::from_secs(seconds));
            assert_eq!(starts.told(), None, "the newer template's may come up");
        }
    }
}
