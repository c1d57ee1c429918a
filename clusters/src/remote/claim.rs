//! A run's hold on a cluster that is not its own.

use std::time::Duration;

use futures::future;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::hold::{self, BEAT, Hold};
use super::{ADMITS, NAMESPACE, OWNED, Reach, RemoteError, is_owned, placement, sweep, vantage};

/// How long the vantage points may take: their image may have to be pulled.
const COMES_UP: Duration = Duration::from_secs(180);

/// How long an image may fail to be pulled. A registry that is busy refuses at first, and the kubelet tries again.
const PULLS: Duration = Duration::from_secs(30);

/// How long a pod of a run before may take to go.
const GOES: Duration = Duration::from_secs(60);

/// What a run does to a cluster that not everybody may.
///
/// Which verb `port-forward` takes depends on the API server: a WebSocket begins with a GET, for which newer ones ask for `create` all the
/// same.
const NEEDED: [(&str, &str, &str, &str); 7] = [
    ("create", "", "namespaces", ""),
    ("delete", "", "namespaces", ""),
    ("get", "", "pods", "portforward"),
    ("create", "", "pods", "portforward"),
    ("create", "apiextensions.k8s.io", "customresourcedefinitions", ""),
    ("create", "rbac.authorization.k8s.io", "clusterroles", ""),
    ("escalate", "rbac.authorization.k8s.io", "clusterroles", ""),
];

/// A run's hold on a cluster. It has to be [released](Self::release); one that is lost is soon no longer believed, and its things are
/// swept away by the next run.
pub struct Claim {
    reach: Reach,
    client: Client,
    hold: Hold,
}

impl Claim {
    /// Claims a cluster: takes the Lease and brings the vantage points up. What a run before left is swept away by whoever
    /// [opens](super::Remote::open) the cluster. `holder` is told to whom
    /// finds the cluster in use. Nothing is written before it is known that the credentials suffice. A claim that does not come about, or
    /// is cancelled, is released. One that another run takes over, as when this machine slept, cancels `cancel`.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn take(
        reach: Reach,
        holder: &str,
        cancel: &CancellationToken,
        progress: &dyn Fn(&str),
    ) -> Result<Self, RemoteError> {
        let client = tokio::select! {
            client = reach.client() => client?,
            () = cancel.cancelled() => return Err(RemoteError::Cancelled { context: reach.context }),
        };
        rights(&reach, &client).await?;
        own_namespace(&reach, &client).await?;
        let hold = tokio::select! {
            hold = Hold::take(BEAT, &reach, &client, holder, cancel, progress) => hold?,
            () = cancel.cancelled() => return Err(RemoteError::Cancelled { context: reach.context }),
        };
        let claim = Self { reach, client, hold };
        let begun = tokio::select! {
            begun = claim.vantage_points(progress) => begun,
            () = cancel.cancelled() => Err(RemoteError::Cancelled { context: claim.reach.context.clone() }),
        };
        match begun {
            Ok(()) => Ok(claim),
            Err(error) => {
                // Whoever mends what was wrong should not find the cluster in use.
                if let Err(left) = claim.release(progress).await {
                    progress(&format!("left on the cluster: {left}"));
                }
                Err(error)
            }
        }
    }

    /// All that keeps a claim from being laid now, in the words of [`Self::take`]. Asked, and nothing written.
    ///
    /// # Errors
    /// [`RemoteError::Api`] where the API server does not say.
    pub async fn obstacles(reach: &Reach) -> Result<Vec<RemoteError>, RemoteError> {
        let client = reach.client().await?;
        let mut found = Vec::new();
        match rights(reach, &client).await {
            Err(missing @ RemoteError::Rights { .. }) => found.push(missing),
            asked => asked?,
        }
        match in_the_way(reach, &client).await {
            Ok(more) => found.extend(more),
            // Whose rights do not suffice is perhaps not told either.
            Err(_) if !found.is_empty() => {}
            Err(error) => return Err(error),
        }
        Ok(found)
    }

    /// Gives the cluster back as it was: everything that Meshgate made there is deleted, and gone. What another run has taken over is that
    /// run's.
    ///
    /// # Errors
    /// [`RemoteError::Api`], [`RemoteError::Stuck`], [`RemoteError::Lost`].
    pub async fn release(self, progress: &dyn Fn(&str)) -> Result<(), RemoteError> {
        self.hold.is_lost(&self.reach)?;
        sweep::everything(&self.reach, &self.client, progress).await?;
        self.hold.end();
        sweep::namespace(&self.reach, &self.client, NAMESPACE).await
    }

    /// Leaves everything where it is, for somebody to look at, and the cluster to whoever claims it next and sweeps that away.
    ///
    /// # Errors
    /// [`RemoteError::Api`], [`RemoteError::Lost`].
    pub async fn leave(self) -> Result<(), RemoteError> {
        self.hold.is_lost(&self.reach)?;
        self.hold.give_back(&self.reach, &self.client).await
    }

    async fn vantage_points(&self, progress: &dyn Fn(&str)) -> Result<(), RemoteError> {
        progress("bringing up the pods that requests start from");
        let api: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let failed = |error| self.reach.failed("the pods that requests start from", error);
        // Those of a run before may have another image.
        let before = vantage::NAMES.map(|name| gone(&api, name));
        match tokio::time::timeout(GOES, future::try_join_all(before)).await {
            Ok(gone) => drop(gone.map_err(failed)?),
            Err(_) => {
                let what = format!(
                    "the pods of a run before in namespace {NAMESPACE}; see what keeps them (finalizers, a node that is down)"
                );
                return Err(RemoteError::Stuck { seconds: GOES.as_secs(), what });
            }
        }
        let apply = PatchParams::apply("meshgate").force();
        // Of their own: the namespace's default one comes some time after the namespace, and no pod is taken before.
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), NAMESPACE);
        let account = vantage::account();
        accounts.patch(vantage::ACCOUNT, &apply, &Patch::Apply(&account)).await.map_err(failed)?;
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await;
        let placement = placement(&nodes.map_err(|error| self.reach.failed("its nodes", error))?.items);
        for name in vantage::NAMES {
            let pod = vantage::pod(name, &self.reach.image, &placement);
            api.patch(name, &apply, &Patch::Apply(&pod)).await.map_err(failed)?;
        }
        let began = Instant::now();
        let mut without_image: Option<Instant> = None;
        loop {
            let pods = future::try_join_all(vantage::NAMES.map(|name| api.get(name))).await.map_err(failed)?;
            if let Some(address) = pods.iter().find_map(vantage::other_address) {
                return Err(RemoteError::NoIpv4 { context: self.reach.context.clone(), address });
            }
            let waiting: Vec<&Pod> = pods.iter().filter(|pod| vantage::address(pod).is_none()).collect();
            if waiting.is_empty() {
                return Ok(());
            }
            without_image = match waiting.iter().any(|pod| vantage::has_no_image(pod)) {
                true => Some(without_image.unwrap_or_else(Instant::now)),
                false => None,
            };
            if began.elapsed() > COMES_UP || without_image.is_some_and(|since| since.elapsed() > PULLS) {
                return Err(RemoteError::Vantage {
                    seconds: began.elapsed().as_secs(),
                    troubles: waiting.into_iter().map(vantage::trouble).collect::<Vec<_>>().join("; "),
                    image: self.reach.image.clone(),
                });
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Deletes a pod and waits until it is gone.
async fn gone(api: &Api<Pod>, name: &str) -> Result<(), kube::Error> {
    loop {
        match api.delete(name, &DeleteParams::default()).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Asks of everything at once, so that one message tells all that is missing.
async fn rights(reach: &Reach, client: &Client) -> Result<(), RemoteError> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut missing = Vec::new();
    for (verb, group, resource, subresource) in NEEDED {
        let review = json!({
            "metadata": {},
            "spec": {"resourceAttributes": {"verb": verb, "group": group, "resource": resource, "subresource": subresource}},
        });
        let what = format!("{verb} {resource}{}{subresource}", if subresource.is_empty() { "" } else { "/" });
        let review = serde_json::from_value(review).map_err(kube::Error::SerdeError);
        let answer = match review {
            Ok(review) => api.create(&PostParams::default(), &review).await,
            Err(error) => Err(error),
        };
        let answer = answer.map_err(|error| reach.failed(format!("asking whether one may {what}"), error))?;
        if !answer.status.is_some_and(|status| status.allowed) {
            missing.push(what);
        }
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(RemoteError::Rights { context: reach.context.clone(), missing: missing.join(", ") }),
    }
}

/// Meshgate's own namespace: made, or found as one that Meshgate made.
async fn own_namespace(reach: &Reach, client: &Client) -> Result<(), RemoteError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let failed = |error| reach.failed(format!("the namespace {NAMESPACE}"), error);
    // Pods that ask for a mesh's proxy are tried in it, too.
    let labels = json!({OWNED: "true", ADMITS: "privileged"});
    let namespace: Value = json!({"metadata": {"name": NAMESPACE, "labels": labels}});
    loop {
        match api.get_opt(NAMESPACE).await.map_err(failed)? {
            // What is being deleted takes nothing new.
            Some(found) if found.metadata.deletion_timestamp.is_some() => {
                sweep::namespace(reach, client, NAMESPACE).await?;
            }
            // One that was left may have fewer labels.
            Some(found) if is_owned(&found.metadata) => {
                let labelled = Patch::Merge(json!({"metadata": {"labels": labels}}));
                return api.patch(NAMESPACE, &PatchParams::default(), &labelled).await.map(drop).map_err(failed);
            }
            Some(_) => return Err(foreign()),
            None => {
                let made = serde_json::from_value(namespace.clone()).map_err(kube::Error::SerdeError);
                let made = api.create(&PostParams::default(), &made.map_err(failed)?).await;
                match made {
                    // Another run was quicker; the Lease will tell.
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    made => return made.map(drop).map_err(failed),
                }
            }
        }
    }
}

/// Who keeps others from Meshgate's own namespace, if anybody does.
async fn in_the_way(reach: &Reach, client: &Client) -> Result<Option<RemoteError>, RemoteError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let failed = |error| reach.failed(format!("the namespace {NAMESPACE}"), error);
    match namespaces.get_opt(NAMESPACE).await.map_err(failed)? {
        // What is being deleted is awaited.
        Some(found) if found.metadata.deletion_timestamp.is_some() => return Ok(None),
        Some(found) if !is_owned(&found.metadata) => return Ok(Some(foreign())),
        _ => {}
    }
    hold::taken(BEAT, reach, client).await
}

fn foreign() -> RemoteError {
    RemoteError::Foreign { what: format!("Namespace {NAMESPACE}") }
}
