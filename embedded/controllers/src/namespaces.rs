//! Finishes the deletion of namespaces: their content goes first, then they do.

use async_trait::async_trait;
use meshgate_store::{GroupResource, Selectors, Status, Store};

use crate::objects::{self, deleting, find, name, namespace, resources};
use crate::runner::{Controller, Key, Next, Seen, Watched};

/// The controller; its keys are namespaces.
pub(crate) struct Namespaces {
    store: Store,
}

impl Namespaces {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Whether a namespace holds nothing, after deleting what it held.
    fn empty(&self, namespace: &str) -> Result<bool, Status> {
        let resources: Vec<GroupResource> =
            self.store.resources().iter().filter(|kind| kind.namespaced).map(|kind| kind.resource.clone()).collect();
        for resource in &resources {
            for object in self.content(resource, namespace)? {
                if !deleting(&object) {
                    objects::delete(&self.store, resource, &object)?;
                }
            }
        }
        for resource in &resources {
            if !self.content(resource, namespace)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The objects of a resource in a namespace; none when its CRD is gone by now.
    fn content(&self, resource: &GroupResource, namespace: &str) -> Result<Vec<meshgate_store::Object>, Status> {
        match self.store.list(resource, Some(namespace), &Selectors::default()) {
            Ok(list) => Ok(list.items),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespaces"
    }

    fn watched(&self) -> Watched {
        Watched::Everything
    }

    fn keys(&mut self, seen: &Seen) -> Vec<Key> {
        let namespace = match (seen.resource == resources::namespaces(), seen.deleted) {
            (true, _) if deleting(&seen.object) => name(&seen.object),
            // What is gone may have been the last thing that held its namespace.
            (false, true) => namespace(&seen.object),
            _ => return Vec::new(),
        };
        if namespace.is_empty() {
            return Vec::new();
        }
        vec![Key::new(resources::namespaces(), "", namespace)]
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Next, Status> {
        let Some(namespace) = find(&self.store, &key.resource, "", &key.name)? else { return Ok(Next::Done) };
        if !deleting(&namespace) || !self.empty(&key.name)? {
            return Ok(Next::Done);
        }
        if objects::items(&namespace, "/metadata/finalizers").is_empty() {
            self.store.remove(&key.resource, "", &key.name)?;
        } else {
            objects::change(&self.store, &key.resource, &namespace, |namespace| {
                namespace["spec"]["finalizers"] = serde_json::json!([]);
            })?;
        }
        Ok(Next::Done)
    }
}
