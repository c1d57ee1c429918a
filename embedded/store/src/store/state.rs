//! Everything behind the store's lock: the types, the tables, the revision.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use jiff::Timestamp;
use serde_json::Value;

use super::filter::Filter;
use super::table::{Change, Table};
use super::{Listing, Object, Start, Watch};
use crate::json::{items, set_meta, str_at};
use crate::{GroupResource, ResourceType, Status, builtin, crds};

/// The state of one cluster.
pub(super) struct State {
    revision: u64,
    types: IndexMap<GroupResource, Arc<ResourceType>>,
    tables: HashMap<GroupResource, Table>,
}

impl State {
    /// The built-in types, no objects.
    pub(super) fn new() -> Self {
        let revision = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(1);
        let types: IndexMap<_, _> = builtin::types().map(|kind| (kind.resource.clone(), Arc::new(kind))).collect();
        let tables = types.keys().map(|resource| (resource.clone(), Table::new(revision))).collect();
        Self { revision, types, tables }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// A resource type, or the 404 of an unknown path.
    pub(super) fn resource(&self, resource: &GroupResource) -> Result<Arc<ResourceType>, Status> {
        self.types.get(resource).map(Arc::clone).ok_or_else(no_such_resource)
    }

    pub(super) fn types(&self) -> impl Iterator<Item = &Arc<ResourceType>> {
        self.types.values()
    }

    fn table(&self, resource: &GroupResource) -> Result<&Table, Status> {
        self.tables.get(resource).ok_or_else(no_such_resource)
    }

    /// An object, if it is there.
    pub(super) fn find(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<&Object> {
        self.tables.get(resource)?.get(namespace, name)
    }

    /// An object, or a 404.
    pub(super) fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Result<Object, Status> {
        let found = self.table(resource)?.get(namespace, name);
        found.map(Arc::clone).ok_or_else(|| Status::not_found(resource, name))
    }

    /// All objects of a resource, none when the resource is unknown.
    pub(super) fn objects<'a>(&'a self, resource: &GroupResource) -> impl Iterator<Item = &'a Object> + use<'a> {
        self.tables.get(resource).into_iter().flat_map(|table| table.iter(None))
    }

    pub(super) fn list(&self, resource: &GroupResource, filter: &Filter) -> Result<Listing, Status> {
        let objects = self.table(resource)?.iter(filter.namespace());
        let items = objects.filter(|object| filter.matches(object)).map(Arc::clone).collect();
        Ok(Listing { revision: self.revision, items })
    }

    pub(super) fn watch(&mut self, resource: &GroupResource, filter: Filter, start: Start) -> Result<Watch, Status> {
        let revision = self.revision;
        self.tables.get_mut(resource).ok_or_else(no_such_resource)?.watch(filter, start, revision)
    }

    /// Stores an object under the next revision and tells the watches.
    pub(super) fn commit(&mut self, resource: &GroupResource, old: Option<&Object>, mut object: Value) -> Object {
        self.revision += 1;
        set_meta(&mut object, "resourceVersion", self.revision.to_string());
        let object: Object = Arc::new(object);
        let change = Change { revision: self.revision, old: old.map(Arc::clone), new: Some(Arc::clone(&object)) };
        self.publish(resource, &object, change);
        if *resource == crds::resource() {
            self.register(&object);
        }
        object
    }

    /// Removes an object under the next revision. With a CRD go its objects and its type; with the last object goes a CRD that
    /// waits for that.
    pub(super) fn commit_removal(&mut self, resource: &GroupResource, current: &Object) -> Object {
        if *resource == crds::resource() {
            self.unregister(current);
        }
        self.revision += 1;
        let mut last = Value::clone(current);
        set_meta(&mut last, "resourceVersion", self.revision.to_string());
        let last: Object = Arc::new(last);
        let change = Change { revision: self.revision, old: Some(Arc::clone(&last)), new: None };
        self.publish(resource, &last, change);
        self.finish_definition(resource);
        last
    }

    /// The definition of a custom kind.
    pub(super) fn definition(&self, kind: &ResourceType) -> Option<&Object> {
        // A CRD has the name of what it defines.
        let name = kind.resource.to_string();
        if kind.builtin { None } else { self.find(&crds::resource(), "", &name) }
    }

    fn finish_definition(&mut self, resource: &GroupResource) {
        if self.objects(resource).next().is_some() {
            return;
        }
        let definition = self.types.get(resource).and_then(|kind| self.definition(kind));
        let Some(current) = definition.filter(|crd| crds::is_terminating(crd)).map(Arc::clone) else { return };
        let mut crd = Value::clone(&current);
        crds::terminated(&mut crd);
        if items(&crd, "/metadata/finalizers").is_empty() {
            self.commit_removal(&crds::resource(), &current);
        } else {
            self.commit(&crds::resource(), Some(&current), crd);
        }
    }

    fn publish(&mut self, resource: &GroupResource, object: &Value, change: Change) {
        if let Some(table) = self.tables.get_mut(resource) {
            table.publish(str_at(object, "/metadata/namespace"), str_at(object, "/metadata/name"), change);
        }
    }

    fn register(&mut self, crd: &Value) {
        let kind = crds::resource_type(crd);
        let revision = self.revision;
        self.tables.entry(kind.resource.clone()).or_insert_with(|| Table::new(revision));
        self.types.insert(kind.resource.clone(), Arc::new(kind));
    }

    fn unregister(&mut self, crd: &Value) {
        let resource = crds::resource_type(crd).resource;
        // Before the objects, of which the last would else take the CRD with it once more.
        self.types.shift_remove(&resource);
        let objects: Vec<Object> = self.objects(&resource).map(Arc::clone).collect();
        for object in &objects {
            self.commit_removal(&resource, object);
        }
        self.tables.remove(&resource);
    }
}

fn no_such_resource() -> Status {
    Status::new(404, "NotFound", "the server could not find the requested resource")
}
