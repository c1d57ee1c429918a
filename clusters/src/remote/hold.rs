//! The Lease by which of two runs one has a cluster.
//!
//! Its times are another machine's, whose clock may be wrong, so they are never held against this one's: whoever finds a Lease watches
//! whether it is renewed, as client-go's leader election does, and believes one that is not for as long as the Lease itself says.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{NAMESPACE, Reach, RemoteError};

/// The Lease's name.
const LEASE: &str = "run";

/// How long a Lease is believed that is not renewed: five renewals may fail before anybody else may come.
const BELIEVED: Duration = Duration::from_secs(30);

/// How often there is something to do.
#[derive(Clone, Copy)]
pub(super) struct Beat {
    /// An own Lease is renewed.
    renew: Duration,
    /// Somebody else's is looked at.
    look: Duration,
}

/// What a run keeps to.
pub(super) const BEAT: Beat = Beat { renew: Duration::from_secs(5), look: Duration::from_secs(1) };

/// A Lease that this run has and renews.
pub(super) struct Hold {
    renewing: JoinHandle<()>,
    /// Who has it instead, once somebody does.
    lost: Arc<OnceLock<String>>,
}

impl Hold {
    /// Takes the Lease, if nobody renews it. `cancel` is cancelled when somebody else has it later on.
    pub(super) async fn take(
        beat: Beat,
        reach: &Reach,
        client: &Client,
        holder: &str,
        cancel: &CancellationToken,
        progress: &dyn Fn(&str),
    ) -> Result<Self, RemoteError> {
        let api: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
        let failed = |error| reach.failed(the_lease(), error);
        let mut ours = Lease { spec: Some(held_by(holder, MicroTime(Timestamp::now()))), ..Lease::default() };
        ours.metadata.name = Some(LEASE.to_owned());
        let taken = match api.create(&PostParams::default(), &ours).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                progress("the cluster has the Lease of another run; watching whether that renews it");
                if let Some(in_use) = taken(beat, reach, client).await? {
                    return Err(in_use);
                }
                // With its version: of two runs that both find it stale, one is refused.
                match api.get_opt(LEASE).await.map_err(failed)? {
                    Some(found) => {
                        ours.metadata.resource_version = found.metadata.resource_version;
                        api.replace(LEASE, &PostParams::default(), &ours).await
                    }
                    None => api.create(&PostParams::default(), &ours).await,
                }
            }
            created => created,
        };
        let lease = match taken {
            Ok(lease) => lease,
            Err(kube::Error::Api(status)) if status.code == 409 => return Err(in_use(reach, None)),
            Err(error) => return Err(failed(error)),
        };
        let lost = Arc::new(OnceLock::new());
        let renewing = tokio::spawn({
            let (lost, cancel) = (Arc::clone(&lost), cancel.clone());
            async move {
                let holder = renew(&api, lease, beat.renew).await;
                tracing::error!(holder, "the cluster's Lease is another run's");
                let _ = lost.set(holder);
                cancel.cancel();
            }
        });
        Ok(Self { renewing, lost })
    }

    /// Whether it is somebody else's by now.
    pub(super) fn is_lost(&self, reach: &Reach) -> Result<(), RemoteError> {
        let lost = |holder: &String| RemoteError::Lost { context: reach.context.clone(), holder: holder.clone() };
        self.lost.get().map_or(Ok(()), |holder| Err(lost(holder)))
    }

    /// Renews it no longer.
    pub(super) fn end(&self) {
        self.renewing.abort();
    }

    /// Leaves the cluster to whoever comes next.
    pub(super) async fn give_back(self, reach: &Reach, client: &Client) -> Result<(), RemoteError> {
        self.end();
        let api: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
        match api.delete(LEASE, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            deleted => deleted.map(drop).map_err(|error| reach.failed("giving its Lease back", error)),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end();
    }
}

/// Who has the cluster, if anybody does: watches a Lease that is there until it is renewed or has not been for as long as it is good.
pub(super) async fn taken(beat: Beat, reach: &Reach, client: &Client) -> Result<Option<RemoteError>, RemoteError> {
    let api: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let look = async || api.get_opt(LEASE).await.map_err(|error| reach.failed(the_lease(), error));
    let Some(first) = look().await?.and_then(|lease| lease.spec) else { return Ok(None) };
    let seconds = first.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let deadline = Instant::now() + seconds.map_or(BELIEVED, Duration::from_secs);
    loop {
        tokio::time::sleep(beat.look).await;
        let Some(now) = look().await?.and_then(|lease| lease.spec) else { return Ok(None) };
        if now.renew_time != first.renew_time || now.holder_identity != first.holder_identity {
            return Ok(Some(in_use(reach, now.holder_identity)));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
    }
}

fn the_lease() -> String {
    format!("the Lease {NAMESPACE}/{LEASE}")
}

fn in_use(reach: &Reach, holder: Option<String>) -> RemoteError {
    RemoteError::InUse {
        context: reach.context.clone(),
        holder: holder.unwrap_or_else(nameless),
        seconds: BELIEVED.as_secs(),
        lease: LEASE,
    }
}

fn nameless() -> String {
    "nameless".to_owned()
}

fn held_by(holder: &str, since: MicroTime) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: i32::try_from(BELIEVED.as_secs()).ok(),
        acquire_time: Some(since),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    }
}

/// Renews a Lease until somebody else has it, and says who. A renewal that fails is tried again at the next one.
async fn renew(api: &Api<Lease>, mut lease: Lease, every: Duration) -> String {
    // Two runs may have one name; not one and the same moment.
    let own = |spec: &LeaseSpec| (spec.holder_identity.clone(), spec.acquire_time.clone());
    let ours = lease.spec.as_ref().map(own);
    loop {
        tokio::time::sleep(every).await;
        if let Some(spec) = &mut lease.spec {
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        // With the version that is known: what somebody else wrote in between is not written over.
        let error = match api.replace(LEASE, &PostParams::default(), &lease).await {
            Ok(renewed) => {
                lease = renewed;
                continue;
            }
            Err(error) => error,
        };
        match api.get_opt(LEASE).await {
            Ok(Some(found)) if found.spec.as_ref().map(own) == ours => lease = found,
            Ok(Some(found)) => return found.spec.and_then(|spec| spec.holder_identity).unwrap_or_else(nameless),
            // A run that found it stale, and is through.
            Ok(None) => return "one that has ended since".to_owned(),
            Err(_) => {}
        }
        tracing::warn!(%error, "the Lease on the cluster could not be renewed");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use serde_json::{Value, json};

    use super::*;
    use crate::remote::fake;

    const QUICK: Beat = Beat { renew: Duration::from_millis(5), look: Duration::from_millis(5) };

    /// A Lease of somebody whose clock is years behind.
    fn theirs(renewed: u32, version: u32) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": LEASE, "namespace": NAMESPACE, "resourceVersion": version.to_string()},
            "spec": {
                "holderIdentity": "somebody", "leaseDurationSeconds": 1, "acquireTime": "2001-01-01T00:00:00.000000Z",
                "renewTime": format!("2001-01-01T00:00:{renewed:02}.000000Z"),
            },
        })
    }

    #[tokio::test]
    async fn who_renews_is_believed_whatever_the_time_is_there() {
        let looks = Arc::new(AtomicU32::new(0));
        let renewing = fake::client(move |_, _| (200, theirs(looks.fetch_add(1, Ordering::SeqCst) / 5, 1)));
        let found = taken(QUICK, &fake::reach(), &renewing).await.unwrap().expect("in use").to_string();
        assert!(found.contains("is in use by another run (somebody)"), "{found}");
        let began = Instant::now();
        let silent = fake::client(|_, _| (200, theirs(7, 1)));
        assert!(taken(QUICK, &fake::reach(), &silent).await.unwrap().is_none());
        assert!(began.elapsed() >= Duration::from_secs(1), "as long as the Lease says: {:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_hold_that_another_run_has_taken_over_ends_the_run_and_is_not_taken_back() {
        let writes = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&writes);
        let client = fake::client(move |method, _| match method {
            "POST" => {
                let mut own = theirs(0, 1);
                own["spec"]["holderIdentity"] = "us".into();
                (201, own)
            }
            // Somebody came while this machine slept.
            "PUT" => {
                seen.fetch_add(1, Ordering::SeqCst);
                (
                    409,
                    json!({"kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict", "message": "changed"}),
                )
            }
            _ => (200, theirs(9, 2)),
        });
        let cancel = CancellationToken::new();
        let hold = Hold::take(QUICK, &fake::reach(), &client, "us", &cancel, &|_| {}).await.unwrap();
        hold.is_lost(&fake::reach()).unwrap();
        cancel.cancelled().await;
        let lost = hold.is_lost(&fake::reach()).unwrap_err().to_string();
        assert!(lost.contains("taken over by another run (somebody)"), "{lost}");
        assert_eq!(writes.load(Ordering::SeqCst), 1, "and never again");
    }
}
