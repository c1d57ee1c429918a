//! What a controller writes back: the status of objects, and events about those that it does not take as they are.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::objects::{Kind, Object};

/// How long a leader leads without renewing, as `client-go`'s users have it.
const LEASE: Duration = Duration::from_secs(15);

/// How often a controller with nothing to do comes by, to renew its lease.
pub(crate) const RENEWAL: Duration = Duration::from_secs(5);

/// A status to write: the object's own fields, merged into what is there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StatusUpdate {
    kind: Kind,
    namespace: String,
    name: String,
    status: Value,
}

impl StatusUpdate {
    /// The fields of `status` that an object's status should have; none when it has them.
    pub(crate) fn unless_there(kind: Kind, object: &Object, status: Value) -> Option<Self> {
        let current = &object.data["status"];
        let there = status.as_object().is_some_and(|fields| fields.iter().all(|(key, value)| &current[key] == value));
        (!there).then(|| Self {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            status,
        })
    }
}

/// A sentence about an object that is not taken as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Complaint {
    kind: Kind,
    namespace: String,
    name: String,
    uid: String,
    /// E.g. `Rejected`; `""` where the controller writes to its log only.
    reason: &'static str,
    message: String,
}

impl Complaint {
    pub(crate) fn new(kind: Kind, object: &DynamicObject, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            reason,
            message: message.into(),
        }
    }

    /// One that goes to the log and becomes no event.
    pub(crate) fn logged(kind: Kind, object: &DynamicObject, message: impl Into<String>) -> Self {
        Self::new(kind, object, "", message)
    }

    #[cfg(test)]
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

/// What there is to write after a translation.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) statuses: Vec<StatusUpdate>,
    pub(crate) complaints: BTreeSet<Complaint>,
}

/// Writes statuses and events: of several replicas only the one that holds the lease.
pub(crate) struct Reporter {
    client: Client,
    recorder: Recorder,
    /// `NAMESPACE/NAME` of the lease; without one this replica leads.
    lease: Option<(String, String)>,
    me: String,
    said: BTreeSet<Complaint>,
}

impl Reporter {
    pub(crate) fn new(controller: &str, client: Client, lease: Option<(String, String)>) -> Self {
        let me =
            std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| controller.to_owned());
        let reporter =
            kube::runtime::events::Reporter { controller: controller.to_owned(), instance: Some(me.clone()) };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, recorder, lease, me, said: BTreeSet::new() }
    }

    /// Writes the statuses, and says what was not said before. What fails is tried again with the next change.
    pub(crate) async fn report(&mut self, Report { statuses, complaints }: Report) {
        for complaint in complaints.difference(&self.said) {
            let Complaint { kind, namespace, name, reason, message, .. } = complaint;
            tracing::warn!(object = format!("{} {namespace}/{name}", kind.kind), reason, "{message}");
        }
        match self.leads().await {
            Ok(true) => {}
            Ok(false) => {
                self.said = complaints;
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the lease; trying again");
                return;
            }
        }
        for complaint in complaints.difference(&self.said).filter(|complaint| !complaint.reason.is_empty()) {
            if let Err(error) = self.complain(complaint).await {
                tracing::warn!(%error, "an event could not be written");
            }
        }
        self.said = complaints;
        for update in statuses {
            let api: Api<DynamicObject> = match update.namespace.as_str() {
                "" => Api::all_with(self.client.clone(), &update.kind.resource()),
                namespace => Api::namespaced_with(self.client.clone(), namespace, &update.kind.resource()),
            };
            let patch = Patch::Merge(json!({"status": update.status}));
            match api.patch_status(&update.name, &PatchParams::default(), &patch).await {
                Ok(_) => {}
                // It was deleted meanwhile.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => tracing::warn!(%error, name = update.name, "a status could not be written"),
            }
        }
    }

    async fn complain(&self, complaint: &Complaint) -> kube::Result<()> {
        let resource = complaint.kind.resource();
        let about = ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            namespace: Some(complaint.namespace.clone()),
            name: Some(complaint.name.clone()),
            uid: Some(complaint.uid.clone()),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: EventType::Warning,
            reason: complaint.reason.to_owned(),
            note: Some(complaint.message.chars().take(1000).collect()),
            action: "Sync".to_owned(),
            secondary: None,
        };
        self.recorder.publish(&event, &about).await
    }

    /// Whether this replica holds the lease, taking it when it is free.
    async fn leads(&self) -> kube::Result<bool> {
        let Some((namespace, name)) = &self.lease else { return Ok(true) };
        let api: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        let now = Timestamp::now();
        let mine = LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(i32::try_from(LEASE.as_secs()).unwrap_or(i32::MAX)),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        };
        let Some(lease) = api.get_opt(name).await? else {
            let lease =
                Lease { metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() }, spec: Some(mine) };
            return taken(api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let held = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty());
        let until = |renewed: &MicroTime| renewed.0 + SignedDuration::from_secs(LEASE.as_secs().cast_signed());
        if held.is_some_and(|holder| holder != self.me) && spec.renew_time.as_ref().map(until) > Some(now) {
            return Ok(false);
        }
        // With the revision that was read: another replica that was faster makes this a conflict.
        let lease = Lease { metadata: lease.meta().clone(), spec: Some(mine) };
        taken(api.replace(name, &PostParams::default(), &lease).await)
    }
}

fn taken(written: kube::Result<Lease>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
