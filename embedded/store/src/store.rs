//! The revisioned object store and the rules of writing to it.

mod admission;
mod filter;
mod state;
mod table;
mod write;

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::filter::Filter;
use self::state::State;
use crate::conversion::View;
use crate::fields::Given;
use crate::{GroupResource, ResourceType, Status, Warnings};

/// An object as the API serves it (with `apiVersion`, `kind`, `metadata`), but for the text in its `managedFields`
/// ([`meshgate_machinery::managed_fields::Wire`]).
pub type Object = Arc<Value>;

/// Label and field selectors in Kubernetes' query syntax; empty selects everything.
#[derive(Clone, Debug, Default)]
pub struct Selectors {
    /// E.g. `app=web,tier!=db,env in (a,b),!legacy`.
    pub labels: String,
    /// E.g. `metadata.name=web,status.phase!=Running`; any path of the object, but see [`ResourceType::check_field_selector`].
    pub fields: String,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// `ADDED` for every present object, then changes (`resourceVersion` unset or 0).
    Now,
    /// The same with the bookmark `k8s.io/initial-events-end` after the present objects (`sendInitialEvents=true`).
    InitialEvents,
    /// Changes after this revision; 410 `Expired` when it is outside the kept window.
    After(u64),
}

/// A change of an object as a watch tells it. Selectors are applied: an object that begins or ceases to match
/// comes as `Added` or `Deleted`.
#[derive(Clone, Debug)]
pub enum Event {
    /// It is there, or matches, now.
    Added(Object),
    /// It changed.
    Modified(Object),
    /// It is gone, or matches no more; the last object, with the revision of the deletion.
    Deleted(Object),
    /// All initial events have been sent; the current revision.
    InitialEventsEnd(u64),
}

/// A consistent list.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The store's revision at the time of the list.
    pub revision: u64,
    /// Ordered by namespace and name.
    pub items: Vec<Object>,
}

/// Which part of an object a write concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Subresource {
    /// The object without its status (when status is a subresource).
    #[default]
    Main,
    /// Only `status`.
    Status,
    /// Only the replicas, by a Scale. The change itself notes who owns them ([`crate::scale`]).
    Scale,
}

/// Options of a write.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Name for `managedFields`; empty for none given.
    pub manager: String,
    /// Everything but the commit.
    pub dry_run: bool,
    /// `fieldValidation=Strict`: unknown and duplicate fields are refused with 400.
    pub strict: bool,
    /// `fieldValidation=Warn`: such fields are left out, and here is told which.
    pub warnings: Warnings,
    /// Server-side apply: take over fields of other managers.
    pub force: bool,
}

impl WriteOptions {
    /// Refuses fields that should not be there, such as `unknown field "spec.replicaz"`, or tells of them and goes on.
    ///
    /// # Errors
    /// What is to be said of all of them, with `strict`.
    pub fn judge_fields(&self, wrong: Vec<String>) -> Result<(), String> {
        if self.strict && !wrong.is_empty() {
            return Err(format!("strict decoding error: {}", wrong.join(", ")));
        }
        wrong.into_iter().for_each(|text| self.warnings.add(text));
        Ok(())
    }
}

/// What a write tried with `dry_run` would store, for [`Store::settle`].
#[derive(Clone, Debug)]
pub struct Draft {
    /// What was there when the write was tried; `None` for nothing.
    pub current: Option<Object>,
    /// What the write answered.
    pub object: Object,
    /// The part that was written.
    pub subresource: Subresource,
}

/// Options of a delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// `Background` (default), `Foreground` or `Orphan`.
    pub propagation: Option<String>,
    /// Seconds of grace; `Some(0)` deletes a pod at once.
    pub grace_seconds: Option<i64>,
    /// Precondition on `metadata.uid`.
    pub uid: Option<String>,
    /// Precondition on `metadata.resourceVersion`.
    pub revision: Option<String>,
    /// Everything but the commit.
    pub dry_run: bool,
}

/// The objects of one cluster. Cheap to clone; all clones are the same store.
///
/// One lock guards everything. Writes hold it for the rules and the commit, never while foreign code runs
/// ([`Store::modify`] retries instead), so a closure may use the store freely.
#[derive(Clone)]
pub struct Store {
    state: Arc<RwLock<State>>,
}

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    first: VecDeque<Event>,
    live: mpsc::Receiver<Event>,
    view: View,
}

impl Watch {
    fn new(first: VecDeque<Event>, live: mpsc::Receiver<Event>) -> Self {
        Self { first, live, view: View::Stored }
    }

    /// The next event. `None` when the watch was closed because this reader fell too far behind (then list again),
    /// or because the resource type is gone. Safe to drop and call again.
    pub async fn next(&mut self) -> Option<Event> {
        let event = match self.first.pop_front() {
            Some(event) => Some(event),
            None => self.live.recv().await,
        };
        event.map(|event| self.view.show_event(event))
    }

    /// The next event if it is already there.
    pub fn try_next(&mut self) -> Option<Event> {
        let event = self.first.pop_front().or_else(|| self.live.try_recv().ok());
        event.map(|event| self.view.show_event(event))
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store with the built-in resource types and the namespaces `default`, `kube-system`, `kube-public`, `kube-node-lease`.
    pub fn new() -> Self {
        let store = Self { state: Arc::new(RwLock::new(State::new())) };
        let namespaces = GroupResource::new("", "namespaces");
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let object = json!({"metadata": {"name": name}});
            if let Err(error) = store.create(&namespaces, "", object, &WriteOptions::default()) {
                tracing::error!(%error, name, "the first namespaces could not be created");
            }
        }
        store
    }

    /// The current revision: seeded from the clock (unix milliseconds), one counter for all resources.
    pub fn revision(&self) -> u64 {
        self.state.read().revision()
    }

    /// A resource type by group and plural.
    pub fn resource(&self, resource: &GroupResource) -> Option<Arc<ResourceType>> {
        self.state.read().resource(resource).ok()
    }

    /// A resource type by group and kind.
    pub fn kind(&self, group: &str, kind: &str) -> Option<Arc<ResourceType>> {
        let state = self.state.read();
        state.types().find(|known| known.resource.group == group && known.kind == kind).map(Arc::clone)
    }

    /// All resource types, built-in ones first, in a stable order.
    pub fn resources(&self) -> Vec<Arc<ResourceType>> {
        self.state.read().types().map(Arc::clone).collect()
    }

    /// One object; `namespace` is `""` for cluster-scoped ones.
    pub fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Result<Object, Status> {
        let (view, resource) = View::of(resource);
        Ok(view.show(self.state.read().get(&resource, namespace, name)?))
    }

    /// All objects of a resource, in one namespace or in all.
    pub fn list(
        &self,
        resource: &GroupResource,
        namespace: Option<&str>,
        selectors: &Selectors,
    ) -> Result<Listing, Status> {
        let (view, resource) = View::of(resource);
        let filter = Filter::new(&resource, namespace, &view.selectors(selectors))?;
        let mut list = self.state.read().list(&resource, &filter)?;
        if view != View::Stored {
            list.items = list.items.into_iter().map(|object| view.show(object)).collect();
        }
        Ok(list)
    }

    /// Watches a resource, in one namespace or in all.
    pub fn watch(
        &self,
        resource: &GroupResource,
        namespace: Option<&str>,
        selectors: &Selectors,
        start: Start,
    ) -> Result<Watch, Status> {
        let (view, resource) = View::of(resource);
        let filter = Filter::new(&resource, namespace, &view.selectors(selectors))?;
        let watch = self.state.write().watch(&resource, filter, start)?;
        Ok(Watch { view, ..watch })
    }

    /// Creates an object (metadata filled in, defaults applied, status dropped where it is a subresource).
    pub fn create(
        &self,
        resource: &GroupResource,
        namespace: &str,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Object, Status> {
        let (view, resource) = View::of(resource);
        let created = write::create(&mut self.state.write(), &resource, namespace, view.take(object), options)?;
        Ok(view.show(created))
    }

    /// Replaces an object (PUT). A `metadata.resourceVersion` that is not the current one is a 409.
    pub fn update(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
        subresource: Subresource,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Object, Status> {
        let (view, resource) = View::of(resource);
        let mut state = self.state.write();
        let current = state.get(&resource, namespace, name)?;
        write::check_unconditional(&*state.resource(&resource)?, &object, name)?;
        let stored =
            write::replace(&mut state, &resource, &current, subresource, view.take(object), options, Given::Whole)?;
        Ok(view.show(stored))
    }

    /// Reads, changes and writes an object in one step (PATCH, and what the controllers use).
    /// A change that changes nothing keeps the revision and tells no watch. The change runs without the lock and again
    /// when another writer was faster, so it must be repeatable. It may set `metadata.resourceVersion` to ask for a 409.
    pub fn modify(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
        subresource: Subresource,
        options: &WriteOptions,
        change: &mut dyn FnMut(&mut Value) -> Result<(), Status>,
    ) -> Result<Object, Status> {
        let (view, resource) = View::of(resource);
        loop {
            let (current, kind) = {
                let state = self.state.read();
                (state.get(&resource, namespace, name)?, state.resource(&resource)?)
            };
            let shown = view.show(Arc::clone(&current));
            let mut object = Value::clone(&shown);
            change(&mut object)?;
            // Half of what controllers write is there already, and has passed every rule before. A custom object may not have passed
            // those of its schema of today.
            if kind.builtin && object == *shown {
                return Ok(shown);
            }
            write::check_change(&kind, &current, &object)?;
            let mut state = self.state.write();
            if Arc::ptr_eq(&state.get(&resource, namespace, name)?, &current) {
                let object = view.take(object);
                let stored =
                    write::replace(&mut state, &resource, &current, subresource, object, options, Given::Patched)?;
                return Ok(view.show(stored));
            }
        }
    }

    /// Server-side apply: creates when absent (`true`), merges by field ownership otherwise.
    pub fn apply(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
        subresource: Subresource,
        object: Value,
        options: &WriteOptions,
    ) -> Result<(Object, bool), Status> {
        let (view, resource) = View::of(resource);
        let object = view.take(object);
        let mut state = self.state.write();
        let (stored, new) = write::apply(&mut state, &resource, namespace, name, subresource, object, options)?;
        Ok((view.show(stored), new))
    }

    /// Finishes a write that was tried with `dry_run`, with what admission made of its result. Defaults are filled in and rules
    /// checked again; a 409 when the object has changed since the draft.
    pub fn settle(
        &self,
        resource: &GroupResource,
        draft: &Draft,
        admitted: Value,
        options: &WriteOptions,
    ) -> Result<Object, Status> {
        let (view, resource) = View::of(resource);
        let stored = |object: &Object| Object::new(view.take(Value::clone(object)));
        let draft = Draft {
            current: draft.current.as_ref().map(stored),
            object: stored(&draft.object),
            subresource: draft.subresource,
        };
        let settled = write::settle(&mut self.state.write(), &resource, &draft, view.take(admitted), options)?;
        Ok(view.show(settled))
    }

    /// Deletes an object, or marks it deleted (`deletionTimestamp`) while finalizers, a pod's grace, a namespace's content or a
    /// CRD's objects hold it. Returns the object and whether it is gone.
    pub fn delete(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(Object, bool), Status> {
        let (view, resource) = View::of(resource);
        let (object, gone) = write::delete(&mut self.state.write(), &resource, namespace, name, options)?;
        Ok((view.show(object), gone))
    }

    /// Removes an object for good whatever holds it: the node's last word on a pod, the namespace controller's on a namespace.
    pub fn remove(&self, resource: &GroupResource, namespace: &str, name: &str) -> Result<Object, Status> {
        let (view, resource) = View::of(resource);
        let mut state = self.state.write();
        let current = state.get(&resource, namespace, name)?;
        Ok(view.show(state.commit_removal(&resource, &current)))
    }
}

#[cfg(test)]
mod tests;
