//! The revisioned object store and the rules of writing to it.

use std::sync::Arc;

use serde_json::Value;

use crate::{GroupResource, ResourceType, Status};

/// An object as the API serves it (with `apiVersion`, `kind`, `metadata`).
pub type Object = Arc<Value>;

/// Label and field selectors in Kubernetes' query syntax; empty selects everything.
#[derive(Clone, Debug, Default)]
pub struct Selectors {
    /// E.g. `app=web,tier!=db,env in (a,b),!legacy`.
    pub labels: String,
    /// E.g. `metadata.name=web,status.phase!=Running`; any path of the object.
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
    /// Server-side apply: take over fields of other managers.
    pub force: bool,
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
#[derive(Clone)]
pub struct Store {}

/// A running watch. Dropping it ends it.
pub struct Watch {}

impl Watch {
    /// The next event. `None` when the watch was closed because this reader fell too far behind (then list again).
    pub async fn next(&mut self) -> Option<Event> {
        todo!()
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
        todo!()
    }

    /// The current revision: seeded from the clock (unix milliseconds), one counter for all resources.
    pub fn revision(&self) -> u64 {
        todo!()
    }

    /// A resource type by group and plural.
    pub fn resource(&self, _resource: &GroupResource) -> Option<Arc<ResourceType>> {
        todo!()
    }

    /// A resource type by group and kind.
    pub fn kind(&self, _group: &str, _kind: &str) -> Option<Arc<ResourceType>> {
        todo!()
    }

    /// All resource types, built-in ones first, in a stable order.
    pub fn resources(&self) -> Vec<Arc<ResourceType>> {
        todo!()
    }

    /// One object; `namespace` is `""` for cluster-scoped ones.
    pub fn get(&self, _resource: &GroupResource, _namespace: &str, _name: &str) -> Result<Object, Status> {
        todo!()
    }

    /// All objects of a resource, in one namespace or in all.
    pub fn list(
        &self,
        _resource: &GroupResource,
        _namespace: Option<&str>,
        _selectors: &Selectors,
    ) -> Result<Listing, Status> {
        todo!()
    }

    /// Watches a resource, in one namespace or in all.
    pub fn watch(
        &self,
        _resource: &GroupResource,
        _namespace: Option<&str>,
        _selectors: &Selectors,
        _start: Start,
    ) -> Result<Watch, Status> {
        todo!()
    }

    /// Creates an object (metadata filled in, defaults applied, status dropped where it is a subresource).
    pub fn create(
        &self,
        _resource: &GroupResource,
        _namespace: &str,
        _object: Value,
        _options: &WriteOptions,
    ) -> Result<Object, Status> {
        todo!()
    }

    /// Replaces an object (PUT). A `metadata.resourceVersion` that is not the current one is a 409.
    pub fn update(
        &self,
        _resource: &GroupResource,
        _namespace: &str,
        _name: &str,
        _subresource: Subresource,
        _object: Value,
        _options: &WriteOptions,
    ) -> Result<Object, Status> {
        todo!()
    }

    /// Reads, changes and writes an object in one step (PATCH, and what the controllers use).
    /// A change that changes nothing keeps the revision and tells no watch.
    pub fn modify(
        &self,
        _resource: &GroupResource,
        _namespace: &str,
        _name: &str,
        _subresource: Subresource,
        _options: &WriteOptions,
        _change: &mut dyn FnMut(&mut Value) -> Result<(), Status>,
    ) -> Result<Object, Status> {
        todo!()
    }

    /// Server-side apply: creates when absent (`true`), merges by field ownership otherwise.
    pub fn apply(
        &self,
        _resource: &GroupResource,
        _namespace: &str,
        _name: &str,
        _subresource: Subresource,
        _object: Value,
        _options: &WriteOptions,
    ) -> Result<(Object, bool), Status> {
        todo!()
    }

    /// Deletes an object, or marks it deleted (`deletionTimestamp`) while finalizers, a pod's grace or a namespace's content
    /// hold it. Returns the object and whether it is gone.
    pub fn delete(
        &self,
        _resource: &GroupResource,
        _namespace: &str,
        _name: &str,
        _options: &DeleteOptions,
    ) -> Result<(Object, bool), Status> {
        todo!()
    }

    /// Removes an object for good whatever holds it: the node's last word on a pod, the namespace controller's on a namespace.
    pub fn remove(&self, _resource: &GroupResource, _namespace: &str, _name: &str) -> Result<Object, Status> {
        todo!()
    }
}
