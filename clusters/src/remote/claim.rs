//! A run's hold on a cluster that is not its own.

use std::time::Duration;

use futures::future;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{NAMESPACE, OWNED, Reach, RemoteError, is_owned, sweep, vantage};

/// The Lease's name.
const LEASE: &str = "run";

/// How long a Lease is believed that is not renewed, and how often it is.
const BELIEVED: Duration = Duration::from_secs(60);
const RENEWED: Duration = Duration::from_secs(15);

/// How long the vantage points may take: their image may have to be pulled.
const COMES_UP: Duration = Duration::from_secs(180);

/// What a run does to a cluster that not everybody may.
const NEEDED: [(&str, &str, &str, &str); 7] = [
    ("create", "", "namespaces", ""),
    ("delete", "", "namespaces", ""),
    ("create", "", "pods", "portforward"),
    ("create", "", "pods", "exec"),
    ("create", "apiextensions.k8s.io", "customresourcedefinitions", ""),
    ("create", "rbac.authorization.k8s.io", "clusterroles", ""),
    ("escalate", "rbac.authorization.k8s.io", "clusterroles", ""),
];

/// A run's hold on a cluster. It has to be [released](Self::release); one that is lost is no longer believed after a minute, and its
/// things are swept away by the next run.
pub struct Claim {
    reach: Reach,
    client: Client,
    renewing: JoinHandle<()>,
}

impl Claim {
    /// Claims a cluster: takes the Lease and brings the vantage points up. What a run before left is swept away by whoever
    /// [opens](super::Remote::open) the cluster. `holder` is told to whom
    /// finds the cluster in use. Nothing is written before it is known that the credentials suffice. A claim that does not come about, or
    /// is cancelled, is released.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn take(
        reach: Reach,
        holder: &str,
        cancel: &CancellationToken,
        progress: &dyn Fn(&str),
    ) -> Result<Self, RemoteError> {
        let client = reach.client().await?;
        rights(&reach, &client).await?;
        own_namespace(&reach, &client).await?;
        lease(&reach, &client, holder).await?;
        let renewing = tokio::spawn(renew(Api::namespaced(client.clone(), NAMESPACE), holder.to_owned()));
        let claim = Self { reach, client, renewing };
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
        match taken(reach, &client).await {
            Ok(more) => found.extend(more),
            // Whose rights do not suffice is perhaps not told either.
            Err(_) if !found.is_empty() => {}
            Err(error) => return Err(error),
        }
        Ok(found)
    }

    /// Gives the cluster back as it was: everything that Meshgate made there is deleted, and gone.
    ///
    /// # Errors
    /// [`RemoteError::Api`], [`RemoteError::Stuck`].
    pub async fn release(self, progress: &dyn Fn(&str)) -> Result<(), RemoteError> {
        sweep::everything(&self.reach, &self.client, progress).await?;
        self.renewing.abort();
        sweep::namespace(&self.reach, &self.client, NAMESPACE).await
    }

    /// Leaves everything where it is, for somebody to look at, and the cluster to whoever claims it next and sweeps that away.
    ///
    /// # Errors
    /// [`RemoteError::Api`].
    pub async fn leave(self) -> Result<(), RemoteError> {
        self.renewing.abort();
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        match leases.delete(LEASE, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            deleted => deleted.map(drop).map_err(|error| self.reach.failed("giving its Lease back", error)),
        }
    }

    async fn vantage_points(&self, progress: &dyn Fn(&str)) -> Result<(), RemoteError> {
        progress("bringing up the pods that requests start from");
        let api: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let failed = |error| self.reach.failed("the pods that requests start from", error);
        // Those of a run before may have another image.
        future::try_join_all(vantage::NAMES.map(|name| gone(&api, name))).await.map_err(failed)?;
        let apply = PatchParams::apply("meshgate").force();
        // Of their own: the namespace's default one comes some time after the namespace, and no pod is taken before.
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), NAMESPACE);
        let account = vantage::account();
        accounts.patch(vantage::ACCOUNT, &apply, &Patch::Apply(&account)).await.map_err(failed)?;
        for name in vantage::NAMES {
            let pod = vantage::pod(name, &self.reach.image);
            api.patch(name, &apply, &Patch::Apply(&pod)).await.map_err(failed)?;
        }
        let began = Instant::now();
        loop {
            let pods = future::try_join_all(vantage::NAMES.map(|name| api.get(name))).await.map_err(failed)?;
            let waiting: Vec<&Pod> = pods.iter().filter(|pod| vantage::address(pod).is_none()).collect();
            if waiting.is_empty() {
                return Ok(());
            }
            if began.elapsed() > COMES_UP || waiting.iter().any(|pod| vantage::has_no_image(pod)) {
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
    let namespace: Value = json!({"metadata": {"name": NAMESPACE, "labels": {OWNED: "true"}}});
    loop {
        match api.get_opt(NAMESPACE).await.map_err(failed)? {
            // What is being deleted takes nothing new.
            Some(found) if found.metadata.deletion_timestamp.is_some() => {
                sweep::namespace(reach, client, NAMESPACE).await?;
            }
            Some(found) if is_owned(&found.metadata) => return Ok(()),
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
async fn taken(reach: &Reach, client: &Client) -> Result<Option<RemoteError>, RemoteError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let failed = |error| reach.failed(format!("the namespace {NAMESPACE}"), error);
    match namespaces.get_opt(NAMESPACE).await.map_err(failed)? {
        // What is being deleted is awaited.
        Some(found) if found.metadata.deletion_timestamp.is_some() => return Ok(None),
        Some(found) if !is_owned(&found.metadata) => return Ok(Some(foreign())),
        _ => {}
    }
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let lease = leases.get_opt(LEASE).await.map_err(|error| reach.failed(the_lease(), error))?;
    let spec = lease.and_then(|lease| lease.spec).filter(is_believed);
    Ok(spec.map(|spec| in_use(reach, spec.holder_identity)))
}

fn foreign() -> RemoteError {
    RemoteError::Foreign { what: format!("Namespace {NAMESPACE}") }
}

fn the_lease() -> String {
    format!("the Lease {NAMESPACE}/{LEASE}")
}

fn in_use(reach: &Reach, holder: Option<String>) -> RemoteError {
    RemoteError::InUse {
        context: reach.context.clone(),
        holder: holder.unwrap_or_else(|| "nameless".to_owned()),
        seconds: BELIEVED.as_secs(),
        lease: LEASE,
    }
}

/// Whether whoever holds it has been heard of lately.
fn is_believed(lease: &LeaseSpec) -> bool {
    let age = lease.renew_time.as_ref().map(|renewed| Timestamp::now().duration_since(renewed.0));
    age.is_some_and(|age| age.unsigned_abs() < BELIEVED)
}

/// Takes the Lease.
async fn lease(reach: &Reach, client: &Client, holder: &str) -> Result<(), RemoteError> {
    let api: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let failed = |error| reach.failed(the_lease(), error);
    let mut ours = Lease { spec: Some(held_by(holder)), ..Lease::default() };
    ours.metadata.name = Some(LEASE.to_owned());
    match api.create(&PostParams::default(), &ours).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(failed(error)),
    }
    let found = api.get(LEASE).await.map_err(failed)?;
    let spec = found.spec.unwrap_or_default();
    if is_believed(&spec) {
        return Err(in_use(reach, spec.holder_identity));
    }
    // With its version: of two runs that both find it stale, one is refused.
    ours.metadata.resource_version = found.metadata.resource_version;
    match api.replace(LEASE, &PostParams::default(), &ours).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Err(in_use(reach, None)),
        Err(error) => Err(failed(error)),
    }
}

fn held_by(holder: &str) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: i32::try_from(BELIEVED.as_secs()).ok(),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    }
}

/// Renews the Lease until aborted. A renewal that fails is tried again at the next one: four may fail before anybody else may come.
async fn renew(api: Api<Lease>, holder: String) {
    loop {
        tokio::time::sleep(RENEWED).await;
        let renewed = json!({"spec": held_by(&holder)});
        if let Err(error) = api.patch(LEASE, &PatchParams::default(), &Patch::Merge(&renewed)).await {
            tracing::warn!(%error, "the Lease on the cluster could not be renewed");
        }
    }
}
