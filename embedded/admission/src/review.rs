//! `AdmissionReview` (`admission.k8s.io/v1`): what a webhook is asked, and what it answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meshgate_store::{Draft, Object, Status, Subresource};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Operation, Request};

/// What a new object has only once it is stored. Mutating webhooks do not see it.
const LATER: [&str; 3] = ["uid", "creationTimestamp", "generation"];

/// One write, to be shown to webhooks.
pub(crate) struct Question<'a> {
    pub(crate) request: &'a Request,
    pub(crate) draft: Draft,
    pub(crate) dry_run: bool,
    deletion: bool,
    old: Value,
}

impl<'a> Question<'a> {
    /// About a draft.
    pub(crate) fn new(request: &'a Request, draft: Draft, dry_run: bool) -> Self {
        let old = draft.current.as_ref().map_or(Value::Null, |old| shown(request, old));
        Self { request, draft, dry_run, deletion: false, old }
    }

    /// About an object that is to go.
    pub(crate) fn of_deletion(request: &'a Request, current: Object, dry_run: bool) -> Self {
        let draft = Draft { current: Some(current.clone()), object: current, subresource: Subresource::Main };
        Self { deletion: true, ..Self::new(request, draft, dry_run) }
    }

    pub(crate) fn operation(&self) -> Operation {
        match &self.draft.current {
            _ if self.deletion => Operation::Delete,
            None => Operation::Create,
            Some(_) => Operation::Update,
        }
    }

    /// The object as it was; null for a new one.
    pub(crate) fn old(&self) -> &Value {
        &self.old
    }

    /// The draft as mutating webhooks see it.
    pub(crate) fn shown_draft(&self) -> Value {
        let mut object = shown(self.request, &self.draft.object);
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in self.hidden() {
                meta.remove(*field);
            }
        }
        object
    }

    /// Gives back to an object what [`Question::shown_draft`] left out.
    pub(crate) fn restore(&self, object: &mut Value) {
        for field in self.hidden().iter().chain(&["managedFields"]) {
            if let Some(value) = self.draft.object["metadata"].get(*field) {
                object["metadata"][*field] = value.clone();
            }
        }
    }

    fn hidden(&self) -> &'static [&'static str] {
        const WITH_NAME: [&str; 4] = [LATER[0], LATER[1], LATER[2], "name"];
        match self.operation() {
            Operation::Create if self.request.name.is_empty() => &WITH_NAME,
            Operation::Create => &LATER,
            Operation::Update | Operation::Delete => &[],
        }
    }

    /// The body that asks about an object, and the `uid` that the answer has to repeat.
    pub(crate) fn review(&self, object: &Value) -> (String, Vec<u8>) {
        let Request { user, resource, kind, version, namespace, name, subresource } = self.request;
        let uid = meshgate_store::new_uid();
        let kind = json!({"group": resource.group, "version": version, "kind": kind});
        let plural = json!({"group": resource.group, "version": version, "resource": resource.plural});
        let options = match self.operation() {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
        };
        let mut request = json!({
            "uid": uid, "kind": kind, "requestKind": kind, "resource": plural, "requestResource": plural,
            "operation": self.operation().name(), "userInfo": user, "object": object, "oldObject": self.old,
            "dryRun": self.dry_run, "options": {"apiVersion": "meta.k8s.io/v1", "kind": options},
        });
        for (field, text) in [("name", name), ("namespace", namespace)] {
            if !text.is_empty() {
                request[field] = json!(text);
            }
        }
        if *subresource == Subresource::Status {
            request["subResource"] = json!("status");
            request["requestSubResource"] = json!("status");
        }
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
        (uid, review.to_string().into_bytes())
    }
}

/// An object in the version that was asked for, without what only the store understands. Null stays null.
pub(crate) fn shown(request: &Request, object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        let (group, version) = (&request.resource.group, &request.version);
        let version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
        map.insert("apiVersion".into(), json!(version));
    }
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    object
}

/// What a webhook said.
#[derive(Debug)]
pub(crate) struct Answer {
    denial: Option<Denial>,
    pub(crate) patch: Option<Value>,
    pub(crate) warnings: Vec<String>,
}

/// The `status` of an answer that does not allow.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Denial {
    code: u16,
    reason: String,
    message: String,
    details: Value,
}

/// Why an answer is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    /// It is no `AdmissionReview` in JSON.
    #[error("expected an AdmissionReview in JSON: {0}")]
    NoReview(#[from] serde_json::Error),
    /// It is of another kind or version.
    #[error("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {0}")]
    OtherKind(String),
    /// It has no `response`.
    #[error("webhook response was absent")]
    NoResponse,
    /// It answers another question.
    #[error("expected response.uid={asked:?}, got {found:?}")]
    OtherQuestion {
        /// The question's.
        asked: String,
        /// The answer's.
        found: String,
    },
    /// It has a patch of a type that nobody knows.
    #[error("invalid response.patchType, expected JSONPatch, got {0:?}")]
    PatchType(String),
    /// The patch is not base64.
    #[error("expected response.patch in base64: {0}")]
    PatchEncoding(#[from] base64::DecodeError),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    uid: String,
    allowed: bool,
    status: Option<Denial>,
    patch: Option<String>,
    patch_type: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

impl Answer {
    /// The answer in a body.
    pub(crate) fn read(body: &[u8], uid: &str) -> Result<Self, AnswerError> {
        let review: Review = serde_json::from_slice(body)?;
        if (review.api_version.as_str(), review.kind.as_str()) != ("admission.k8s.io/v1", "AdmissionReview") {
            return Err(AnswerError::OtherKind(format!("{:?}, Kind={:?}", review.api_version, review.kind)));
        }
        let response = review.response.ok_or(AnswerError::NoResponse)?;
        if response.uid != uid {
            return Err(AnswerError::OtherQuestion { asked: uid.to_owned(), found: response.uid });
        }
        let patch = match response.patch.filter(|patch| !patch.is_empty()) {
            None => None,
            Some(patch) => match response.patch_type.as_deref() {
                Some("JSONPatch") => Some(serde_json::from_slice(&STANDARD.decode(patch)?)?),
                other => return Err(AnswerError::PatchType(other.unwrap_or_default().to_owned())),
            },
        };
        let denial = (!response.allowed).then(|| response.status.unwrap_or_default());
        Ok(Self { denial, patch, warnings: response.warnings })
    }

    /// The answer, unless it is no.
    pub(crate) fn allowed(self, webhook: &str) -> Result<Self, Status> {
        let Some(denial) = &self.denial else { return Ok(self) };
        let denied = format!("admission webhook {webhook:?} denied the request");
        let message = match (denial.message.as_str(), denial.reason.as_str()) {
            ("", "") => format!("{denied} without explanation"),
            ("", why) | (why, _) => format!("{denied}: {why}"),
        };
        // As `webhook/errors.ToStatusErr` of Kubernetes: a denial is an error whatever its code says.
        let mut status = Status::new(denial.code.max(400), &denial.reason, message);
        status.details = denial.details.clone();
        Err(status)
    }
}

/// 500 as Kubernetes words it.
pub(crate) fn internal(why: String) -> Status {
    let mut status = Status::internal(format!("Internal error occurred: {why}"));
    status.details = json!({"causes": [{"message": why}]});
    status
}
