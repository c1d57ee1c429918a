//! A cluster that a command has made, whichever: what leads to it, and whether it is one yet.
//!
//! Commands that make clusters return before these can be used, and some say so only in a warning. What a run needs before it begins is
//! therefore asked for at the cluster itself: the nodes are ready, names resolve, and pods can be made (the ServiceAccount `default`
//! comes some time after the namespace).

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::Client;
use kube::api::{Api, ListParams};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use crate::remote::{By, Reach, RemoteError};
use crate::{IMAGE, told};

/// Between two looks at a cluster that comes up.
const PAUSE: Duration = Duration::from_millis(500);

/// How long one look may take.
const LOOK: Duration = Duration::from_secs(15);

/// Why a cluster that was made cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// Its kubeconfig leads nowhere.
    #[error(transparent)]
    Unreachable(#[from] RemoteError),
    /// It did not come up.
    #[error("the cluster \"{name}\" is not ready after {seconds} s; it lacks: {missing}")]
    NotReady {
        /// Which.
        name: String,
        /// How long was waited.
        seconds: u64,
        /// What there should be, with what there is instead.
        missing: String,
    },
}

/// A cluster that was made, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioned {
    /// Its name.
    pub name: String,
    /// A kubeconfig of its own, which holds credentials and nothing of other clusters.
    pub kubeconfig: PathBuf,
    /// The context in it.
    pub context: String,
}

impl Provisioned {
    /// The version of Kubernetes that its API server says it is, as `v1.37.1`.
    ///
    /// # Errors
    /// [`ProvisionError::Unreachable`].
    pub async fn version(&self) -> Result<String, ProvisionError> {
        Ok(self.reach()?.version().await?)
    }

    fn reach(&self) -> Result<Reach, RemoteError> {
        Reach::existing(Some(&self.kubeconfig), Some(&self.context), IMAGE, By::default())
    }

    /// Waits until the cluster is ready for a run.
    ///
    /// # Errors
    /// [`ProvisionError`].
    pub async fn ready(&self, within: Duration) -> Result<(), ProvisionError> {
        let client = self.reach()?.client().await?;
        let deadline = Instant::now() + within;
        loop {
            let missing = timeout(LOOK, missing(&client)).await;
            let missing =
                missing.unwrap_or_else(|_| vec![format!("an API server that answers within {} s", LOOK.as_secs())]);
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let seconds = within.as_secs();
                return Err(ProvisionError::NotReady { name: self.name.clone(), seconds, missing: missing.join("; ") });
            }
            sleep(PAUSE).await;
        }
    }
}

/// What a cluster lacks.
async fn missing(client: &Client) -> Vec<String> {
    let everything = ListParams::default();
    let nodes = match Api::<Node>::all(client.clone()).list(&everything).await {
        Ok(nodes) => nodes.items,
        Err(error) => return vec![format!("an API server that answers ({})", told(&error))],
    };
    let mut missing: Vec<String> = nodes.iter().filter_map(unready).collect();
    if nodes.is_empty() {
        missing.push("a node".to_owned());
    }
    let system: Api<Deployment> = Api::namespaced(client.clone(), "kube-system");
    match system.list(&ListParams::default().labels("k8s-app=kube-dns")).await {
        Ok(found) if found.items.iter().any(available) => {}
        Ok(found) => missing.push(format!("CoreDNS ({} Deployments, none with an available pod)", found.items.len())),
        Err(error) => missing.push(format!("CoreDNS ({})", told(&error))),
    }
    match Api::<ServiceAccount>::default_namespaced(client.clone()).get_opt("default").await {
        Ok(Some(_)) => {}
        Ok(None) => missing.push("the ServiceAccount default/default".to_owned()),
        Err(error) => missing.push(format!("the ServiceAccount default/default ({})", told(&error))),
    }
    missing
}

/// The node and why it is not ready, if it is not.
fn unready(node: &Node) -> Option<String> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    match conditions.iter().find(|condition| condition.type_ == "Ready") {
        Some(condition) if condition.status == "True" => None,
        Some(condition) => {
            Some(format!("node {name} ready ({})", condition.message.as_deref().unwrap_or("it does not say why")))
        }
        None => Some(format!("node {name} ready (it has not said so yet)")),
    }
}

fn available(deployment: &Deployment) -> bool {
    deployment.status.as_ref().is_some_and(|status| status.available_replicas.unwrap_or_default() > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(conditions: serde_json::Value) -> Node {
        let node = json!({"metadata": {"name": "n"}, "status": {"conditions": conditions}});
        serde_json::from_value(node).unwrap()
    }

    #[test]
    fn a_node_that_is_not_ready_says_why() {
        let of = |status: &str| {
            json!([
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": status, "message": "cni plugin not initialized"},
            ])
        };
        assert_eq!(unready(&node(of("True"))), None);
        assert_eq!(unready(&node(of("False"))).unwrap(), "node n ready (cni plugin not initialized)");
        assert_eq!(unready(&node(of("Unknown"))).unwrap(), "node n ready (cni plugin not initialized)");
        assert_eq!(unready(&node(json!([]))).unwrap(), "node n ready (it has not said so yet)");
    }

    #[test]
    fn a_deployment_is_available_by_its_pods_not_by_its_wish() {
        let of = |status: serde_json::Value| -> Deployment {
            serde_json::from_value(json!({"spec": {"replicas": 2, "selector": {}, "template": {}}, "status": status}))
                .unwrap()
        };
        assert!(available(&of(json!({"availableReplicas": 1}))));
        assert!(!available(&of(json!({"replicas": 2, "unavailableReplicas": 2}))));
        assert!(!available(&of(json!(null))));
    }
}
