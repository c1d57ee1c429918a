//! Admission webhooks: whom a write is shown to before it is stored.
//!
//! [`Admission::write`] is the way of every write that somebody asked for: the API server's requests, and the pods that
//! controllers make. Without a webhook that wants to see it, a write is what it was, one call of the store. Else:
//!
//! 1. the write is tried (`dry_run`), which gives the object with its defaults, a draft;
//! 2. mutating webhooks see the draft one after the other, configurations by name, and each the patches of those before;
//! 3. validating webhooks see what became of it, all at once;
//! 4. [`meshgate_store::Store::settle`] stores it. When another writer was faster in the meantime, all begins anew.
//!
//! `hooks` says who wants to see what, `review` what is asked and answered, `call` how.
//!
//! Not as on Kubernetes: rules match the version that was asked for (`matchPolicy: Exact`, whatever the configuration says);
//! nobody is asked twice (`reinvocationPolicy: Never`); `CONNECT` and subresources other than `status` are not shown, nor
//! are `managedFields`; and what controllers and the node write besides new pods passes unseen.

mod call;
mod hooks;
mod review;

use futures::future::join_all;
use meshgate_store::{Draft, GroupResource, Object, Status, Store, Subresource, WriteOptions};
use serde_json::Value;

use crate::hooks::{Hook, Phase};
use crate::review::{Answer, Question};

/// How often a write is shown again because another writer was faster.
const ATTEMPTS: usize = 5;

/// What is done to an object, as rules name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is new.
    Create,
    /// It changes.
    Update,
    /// It is deleted.
    Delete,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// What somebody asks to be written.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks, as `userInfo` has it: `username`, `groups`.
    pub user: Value,
    /// Group and plural.
    pub resource: GroupResource,
    /// The kind of the object.
    pub kind: String,
    /// The version that was asked for, such as `v1`.
    pub version: String,
    /// `""` for what is cluster-scoped.
    pub namespace: String,
    /// `""` for a new object whose name is generated.
    pub name: String,
    /// The part that is written.
    pub subresource: Subresource,
}

/// A write that was admitted and done.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object as stored, or as it would be with `dry_run`.
    pub object: Object,
    /// What webhooks have to say to whoever asked.
    pub warnings: Vec<String>,
}

/// The webhooks of one cluster, which its configurations name. Cheap to clone.
#[derive(Clone)]
pub struct Admission {
    store: Store,
}

impl Admission {
    /// The webhooks that the store has configurations of. Services are dialled from this process, so it has to be the node.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Does a write unless a webhook denies it. `attempt` does it, from `body` and with the options it is given, and may be
    /// called repeatedly.
    ///
    /// # Errors
    /// What `attempt` answers; a webhook's denial; 500 for a webhook that cannot be asked and must be (`failurePolicy: Fail`).
    pub async fn write(
        &self,
        request: &Request,
        options: &WriteOptions,
        body: Value,
        mut attempt: impl FnMut(Value, &WriteOptions) -> Result<Object, Status> + Send,
    ) -> Result<Written, Status> {
        let (mutating, validating) = (self.hooks(Phase::Mutating, request)?, self.hooks(Phase::Validating, request)?);
        if mutating.is_empty() && validating.is_empty() {
            return Ok(Written { object: attempt(body, options)?, warnings: Vec::new() });
        }
        let tried = WriteOptions { dry_run: true, ..options.clone() };
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let current = self.current(request);
            let object = attempt(body.clone(), &tried)?;
            let draft = Draft { current, object, subresource: request.subresource };
            if revision(draft.current.as_ref()) != revision(self.current(request).as_ref()) && left > 0 {
                continue;
            }
            let question = Question::new(request, draft, options.dry_run);
            let mut warnings = Vec::new();
            let admitted = self.mutate(&question, &mutating, &mut warnings).await?;
            let settled = match self.store.settle(&request.resource, &question.draft, admitted.clone(), &tried) {
                Ok(valid) => {
                    self.validate(&question, &valid, &validating, &mut warnings).await?;
                    self.store.settle(&request.resource, &question.draft, admitted, options)
                }
                invalid => invalid,
            };
            match settled {
                Ok(object) => return Ok(Written { object, warnings }),
                // The object changed while the webhooks were asked.
                Err(error) if left > 0 && error.code == 409 => {
                    tracing::debug!(%error, "another writer was faster, webhooks are asked again");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks whether an object may be deleted; the warnings.
    ///
    /// # Errors
    /// 404 when there is none; as [`Admission::write`].
    pub async fn delete(&self, request: &Request, dry_run: bool) -> Result<Vec<String>, Status> {
        let wants = |hook: &Hook| hook.wants(request, Operation::Delete);
        let mut mutating = self.hooks(Phase::Mutating, request)?;
        let mut validating = self.hooks(Phase::Validating, request)?;
        mutating.retain(wants);
        validating.retain(wants);
        let mut warnings = Vec::new();
        if mutating.is_empty() && validating.is_empty() {
            return Ok(warnings);
        }
        let current = self.store.get(&request.resource, &request.namespace, &request.name)?;
        let question = Question::of_deletion(request, current, dry_run);
        for hook in &mutating {
            // There is nothing that a patch could apply to.
            self.ask(&question, hook, &Value::Null, &mut warnings).await?;
        }
        self.validate(&question, &Value::Null, &validating, &mut warnings).await?;
        Ok(warnings)
    }

    /// The object as it is.
    fn current(&self, request: &Request) -> Option<Object> {
        if request.name.is_empty() {
            return None;
        }
        self.store.get(&request.resource, &request.namespace, &request.name).ok()
    }

    /// Who might want to see a request, by the resource alone.
    fn hooks(&self, phase: Phase, request: &Request) -> Result<Vec<Hook>, Status> {
        hooks::of(&self.store, phase, request)
    }

    /// The draft with every mutating webhook's patch.
    async fn mutate(
        &self,
        question: &Question<'_>,
        hooks: &[Hook],
        warnings: &mut Vec<String>,
    ) -> Result<Value, Status> {
        let mut object = question.shown_draft();
        for hook in hooks {
            if let Some(Some(patch)) = self.ask(question, hook, &object, warnings).await?.map(|answer| answer.patch) {
                meshgate_machinery::patch::json_patch(&mut object, &patch).map_err(|error| {
                    review::internal(format!("admission webhook {:?} answered with a patch: {error}", hook.name))
                })?;
            }
        }
        question.restore(&mut object);
        Ok(object)
    }

    /// Shows the final object to all validating webhooks. The first denial, in their order, counts.
    async fn validate(
        &self,
        question: &Question<'_>,
        object: &Value,
        hooks: &[Hook],
        warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        let object = &review::shown(question.request, object);
        let answers = join_all(hooks.iter().map(|hook| async move {
            let mut warnings = Vec::new();
            let answer = self.ask(question, hook, object, &mut warnings).await;
            (answer, warnings)
        }));
        for (answer, said) in answers.await {
            warnings.extend(said);
            answer?;
        }
        Ok(())
    }

    /// Asks one webhook about an object, if it wants to be asked.
    async fn ask(
        &self,
        question: &Question<'_>,
        hook: &Hook,
        object: &Value,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Answer>, Status> {
        let request = question.request;
        if !hook.wants(request, question.operation()) || !hook.selects(&self.store, question, object)? {
            return Ok(None);
        }
        if question.dry_run && !hook.may_see_dry_runs() {
            let message = format!(
                "admission webhook {:?} does not support dry run, because its side effects are not known to be none; \
                 expected sideEffects None or NoneOnDryRun",
                hook.name
            );
            return Err(Status::bad_request(message));
        }
        let (uid, body) = question.review(object);
        let answered = match call::post(&self.store, hook, body).await {
            Ok(bytes) => Answer::read(&bytes, &uid).map_err(|error| error.to_string()),
            Err(error) => Err(format!("failed to call webhook: {error}")),
        };
        match answered {
            Ok(answer) => {
                warnings.extend(answer.warnings.iter().cloned());
                answer.allowed(&hook.name).map(Some)
            }
            Err(error) if hook.is_optional() => {
                tracing::warn!(webhook = hook.name, error, "failed calling a webhook, failing open");
                Ok(None)
            }
            Err(error) => Err(review::internal(format!("failed calling webhook {:?}: {error}", hook.name))),
        }
    }
}

fn revision(object: Option<&Object>) -> Option<&str> {
    object?.pointer("/metadata/resourceVersion")?.as_str()
}
