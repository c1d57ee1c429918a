//! A Lease: of several replicas one writes.
//!
//! It is taken when there is something to write, and not kept up beyond that: a cluster where there never is has none.
//! Who ends gives it back, as with client-go's `ReleaseOnCancel`. Whether it is over is told by its holder's clock and
//! one's own, as with the Lease of Linkerd's policy controller (kubert).

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, Client, Error, api::PostParams};

/// How long a replica has it that does not renew it, in seconds: as long as Linkerd's destination controller does.
const DURATION: i32 = 30;

/// How long after it took it a replica counts on it. The rest is for writes that take their time, and for clocks that
/// differ.
const COUNTED_ON: Duration = Duration::from_secs(10);

/// When it is tried again if another replica has it, which may give it back or have written everything before its time
/// is over.
const RETRY: Duration = Duration::from_secs(2);

/// A Lease that this replica may have.
pub(crate) struct Lease {
    api: Api<Object>,
    name: &'static str,
    holder: String,
    /// Until when this replica counts on it.
    until: Option<Instant>,
}

impl Lease {
    /// The Lease of this name, for a replica that is called `holder`. Nobody has it by that alone.
    pub(crate) fn new(client: Client, namespace: &str, name: &'static str, holder: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), name, holder: holder.into(), until: None }
    }

    /// Whether this replica has it for long enough to write something.
    pub(crate) fn is_held(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// Takes it, or takes it once more; when to try again, if another replica has it.
    pub(crate) async fn take(&mut self) -> kube::Result<Option<Duration>> {
        // Of before it is asked for: how long that takes is not known.
        let (until, now) = (Instant::now() + COUNTED_ON, Timestamp::now());
        let before = self.api.get_opt(self.name).await?;
        let spec = before.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let spec = match claim(spec, &self.holder, now) {
            Ok(spec) => Some(spec),
            Err(left) => return Ok(Some(left.min(RETRY))),
        };
        let params = self.params();
        // With the version that was read, so that of two who try one succeeds.
        let written = match before {
            Some(Object { metadata, .. }) => self.api.replace(self.name, &params, &Object { metadata, spec }).await,
            None => {
                let metadata = ObjectMeta { name: Some(self.name.into()), ..ObjectMeta::default() };
                self.api.create(&params, &Object { metadata, spec }).await
            }
        };
        match written {
            Ok(_) => {
                self.until = Some(until);
                Ok(None)
            }
            Err(Error::Api(status)) if status.code == 409 => Ok(Some(RETRY)),
            Err(error) => Err(error),
        }
    }

    /// Gives it back, so that the next replica need not wait. It is this one's for as long as it says so, also when it
    /// is no longer counted on.
    pub(crate) async fn give_back(&mut self) -> kube::Result<()> {
        // A cluster where there is nothing to write is asked for nothing.
        if self.until.take().is_none() {
            return Ok(());
        }
        let Some(Object { metadata, spec }) = self.api.get_opt(self.name).await? else { return Ok(()) };
        let Some(spec) = released(spec.unwrap_or_default(), &self.holder, Timestamp::now()) else { return Ok(()) };
        match self.api.replace(self.name, &self.params(), &Object { metadata, spec: Some(spec) }).await {
            // Another one has taken it meanwhile.
            Err(Error::Api(status)) if status.code == 409 => Ok(()),
            written => written.map(drop),
        }
    }

    fn params(&self) -> PostParams {
        PostParams { field_manager: Some(self.holder.clone()), ..PostParams::default() }
    }
}

/// What the Lease says when `holder` has it, or how long another one still does.
fn claim(lease: LeaseSpec, holder: &str, now: Timestamp) -> Result<LeaseSpec, Duration> {
    let is_own = lease.holder_identity.as_deref() == Some(holder);
    let left = left(&lease, now);
    if !is_own && !left.is_zero() {
        return Err(left);
    }
    let changes = lease.lease_transitions.unwrap_or_default();
    Ok(LeaseSpec {
        holder_identity: Some(holder.into()),
        lease_duration_seconds: Some(DURATION),
        acquire_time: lease.acquire_time.filter(|_| is_own).or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if is_own { changes } else { changes.saturating_add(1) }),
        ..LeaseSpec::default()
    })
}

/// What the Lease says when `holder` has given it back; `None` if it has not got it.
fn released(lease: LeaseSpec, holder: &str, now: Timestamp) -> Option<LeaseSpec> {
    (lease.holder_identity.as_deref() == Some(holder)).then(|| LeaseSpec {
        // There is no Lease of no time.
        lease_duration_seconds: Some(1),
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        lease_transitions: lease.lease_transitions,
        ..LeaseSpec::default()
    })
}

/// How long whoever holds it still does; nothing if nobody does.
fn left(lease: &LeaseSpec, now: Timestamp) -> Duration {
    let is_held = lease.holder_identity.as_ref().is_some_and(|holder| !holder.is_empty());
    let Some(MicroTime(renewed)) = lease.renew_time.as_ref().filter(|_| is_held) else { return Duration::ZERO };
    let seconds = SignedDuration::from_secs(lease.lease_duration_seconds.unwrap_or_default().into());
    let left = renewed.checked_add(seconds).unwrap_or(Timestamp::MAX).duration_since(now);
    if left.is_positive() { left.unsigned_abs() } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{Method, Request, Response};
    use kube::client::Body;
    use parking_lot::Mutex;
    use tower::{BoxError, service_fn};

    use super::*;

    /// An API server that has one Lease and nothing else.
    fn api_server(lease: LeaseSpec) -> (Client, Arc<Mutex<Object>>) {
        let stored = Arc::new(Mutex::new(Object { spec: Some(lease), ..Object::default() }));
        let answers = Arc::clone(&stored);
        let service = service_fn(move |request: Request<Body>| {
            let stored = Arc::clone(&answers);
            async move {
                if request.method() == Method::PUT {
                    let written = request.into_body().collect_bytes().await?;
                    *stored.lock() = serde_json::from_slice(&written)?;
                }
                let answer = serde_json::to_vec(&*stored.lock())?;
                Ok::<_, BoxError>(Response::new(Body::from(answer)))
            }
        });
        (Client::new(service, "linkerd"), stored)
    }

    fn at(time: &str) -> Timestamp {
        format!("2026-06-01T10:{time}Z").parse().unwrap()
    }

    fn lease(holder: Option<&str>, renewed: &str, seconds: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(seconds),
            acquire_time: Some(MicroTime(at("00:00"))),
            renew_time: Some(MicroTime(at(renewed))),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn another_replica_has_it_until_its_time_is_over() {
        let now = at("05:00");
        for (what, lease, wanted) in [
            ("nobody's yet", LeaseSpec::default(), Ok(("05:00", 1))),
            ("given back", lease(Some(""), "04:59", 30), Ok(("05:00", 4))),
            ("another one's", lease(Some("other"), "04:50", 30), Err(20)),
            ("of a clock that is ahead", lease(Some("other"), "05:01", 30), Err(31)),
            ("another one's for a second", lease(Some("other"), "04:59", 1), Ok(("05:00", 4))),
            ("over", lease(Some("other"), "04:30", 30), Ok(("05:00", 4))),
            ("one's own", lease(Some("own"), "04:59", 30), Ok(("00:00", 3))),
            ("once one's own", lease(Some("own"), "01:00", 30), Ok(("00:00", 3))),
        ] {
            let found = claim(lease, "own", now);
            let wanted = wanted.map_err(Duration::from_secs).map(|(acquired, changes)| LeaseSpec {
                holder_identity: Some("own".into()),
                lease_duration_seconds: Some(30),
                acquire_time: Some(MicroTime(at(acquired))),
                renew_time: Some(MicroTime(now)),
                lease_transitions: Some(changes),
                ..LeaseSpec::default()
            });
            assert_eq!(found, wanted, "{what}");
        }
    }

    #[test]
    fn who_gives_it_back_has_it_no_longer_and_who_has_not_got_it_changes_nothing() {
        let now = at("05:00");
        let given_back = released(lease(Some("own"), "04:50", 30), "own", now).unwrap();
        assert_eq!(given_back.lease_transitions, Some(3));
        let taken = claim(given_back, "other", now).unwrap();
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("other"), Some(4)));
        assert_eq!(claim(lease(Some("own"), "04:50", 30), "other", now), Err(Duration::from_secs(20)), "the control");
        for lease in [LeaseSpec::default(), lease(Some("other"), "04:50", 30), taken] {
            assert_eq!(released(lease, "own", now), None);
        }
    }

    #[tokio::test]
    async fn the_next_one_has_it_soon_after_it_was_given_back() {
        let other = LeaseSpec { renew_time: Some(MicroTime(Timestamp::now())), ..lease(Some("other"), "00:00", 3600) };
        let (client, stored) = api_server(other.clone());
        let spec = || stored.lock().spec.clone().unwrap();
        let mut lease = Lease::new(client, "linkerd", "a-lease", "own");
        assert_eq!(lease.take().await.unwrap(), Some(RETRY));
        lease.give_back().await.unwrap();
        assert_eq!(spec(), other, "it was never this replica's to give");

        stored.lock().spec = released(other, "other", Timestamp::now());
        assert_eq!(lease.take().await.unwrap(), None);
        assert!(lease.is_held());
        assert_eq!(spec().holder_identity.as_deref(), Some("own"));
        lease.give_back().await.unwrap();
        assert!(!lease.is_held());
        assert_eq!(spec().holder_identity, None);
    }
}
