//! Garbage collection: dependents of a deleted owner go, or stay without it.
//!
//! A graph of owners and dependents by uid follows the watches of all resources. Whether an owner is really gone is asked
//! of the store, never of the graph.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use meshgate_store::{DeleteOptions, GroupResource, Object, Status, Store};
use serde_json::{Value, json};

use crate::objects::{self, bool_at, deleting, find, items, name, namespace, resources, str_at, uid};
use crate::pods;
use crate::runner::{Controller, Key, Next, Seen, Watched};

/// Holds an owner until its dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";

/// Holds an owner until its dependents are freed of it.
const ORPHAN: &str = "orphan";

/// The controller; its keys are any objects.
pub(crate) struct Garbage {
    store: Store,
    /// Dependents by the uid of an owner.
    dependents: HashMap<String, BTreeSet<Key>>,
    /// Owners' uids by dependent, to follow changes of its references.
    owners: HashMap<Key, BTreeSet<String>>,
    /// Objects by uid, to find an owner from its dependent.
    known: HashMap<String, Key>,
}

impl Garbage {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, dependents: HashMap::new(), owners: HashMap::new(), known: HashMap::new() }
    }

    fn key_of(seen: &Seen) -> Key {
        Key::new(seen.resource.clone(), namespace(&seen.object), name(&seen.object))
    }

    /// Brings the graph up to date with one event.
    fn note(&mut self, key: &Key, object: &Value, gone: bool) {
        let owners: BTreeSet<String> = match gone {
            true => BTreeSet::new(),
            false => references(object).map(|owner| str_at(owner, "/uid").to_owned()).collect(),
        };
        let before =
            if owners.is_empty() { self.owners.remove(key) } else { self.owners.insert(key.clone(), owners.clone()) };
        for lost in before.unwrap_or_default().difference(&owners) {
            if let Some(dependents) = self.dependents.get_mut(lost) {
                dependents.remove(key);
                if dependents.is_empty() {
                    self.dependents.remove(lost);
                }
            }
        }
        for owner in owners {
            self.dependents.entry(owner).or_default().insert(key.clone());
        }
        if gone {
            self.known.remove(uid(object));
        } else {
            self.known.insert(uid(object).to_owned(), key.clone());
        }
    }

    /// The present dependents of an owner that really refer to it.
    fn dependents(&self, owner: &str) -> Result<Vec<(Key, Object)>, Status> {
        let mut present = Vec::new();
        for key in self.dependents.get(owner).into_iter().flatten() {
            if let Some(object) = find(&self.store, &key.resource, &key.namespace, &key.name)?
                && references(&object).any(|reference| str_at(reference, "/uid") == owner)
            {
                present.push((key.clone(), object));
            }
        }
        Ok(present)
    }

    fn orphan_dependents(&self, key: &Key, owner: &Object) -> Result<(), Status> {
        for (dependent_key, dependent) in self.dependents(uid(owner))? {
            objects::change(&self.store, &dependent_key.resource, &dependent, |object| {
                pods::release(object, uid(owner))
            })?;
        }
        self.let_go(key, owner, ORPHAN)
    }

    /// Deletes the dependents; the owner follows when none is left that blocks it.
    fn delete_dependents(&self, key: &Key, owner: &Object) -> Result<(), Status> {
        let dependents = self.dependents(uid(owner))?;
        for (dependent_key, dependent) in dependents.iter().filter(|(_, dependent)| !deleting(dependent)) {
            self.collect(dependent_key, dependent)?;
        }
        let blocks = |(_, dependent): &(Key, Object)| {
            references(dependent)
                .any(|owner_ref| str_at(owner_ref, "/uid") == uid(owner) && bool_at(owner_ref, "/blockOwnerDeletion"))
        };
        if self.dependents(uid(owner))?.iter().any(blocks) {
            return Ok(());
        }
        self.let_go(key, owner, FOREGROUND)
    }

    fn let_go(&self, key: &Key, owner: &Object, finalizer: &str) -> Result<(), Status> {
        objects::change(&self.store, &key.resource, owner, |object| {
            if let Some(finalizers) = object.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) {
                finalizers.retain(|known| known != finalizer);
            }
        })
    }

    /// What is left of an object's owners decides whether it stays.
    fn judge(&self, key: &Key, object: &Object) -> Result<(), Status> {
        let mut gone: Vec<String> = Vec::new();
        let mut alive = false;
        for reference in references(object) {
            match self.owner(object, reference)? {
                Some(owner) if !(deleting(&owner) && has_finalizer(&owner, FOREGROUND)) => alive = true,
                _ => gone.push(str_at(reference, "/uid").to_owned()),
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        if !alive {
            return self.collect(key, object);
        }
        objects::change(&self.store, &key.resource, object, |object| {
            gone.iter().for_each(|owner| pods::release(object, owner));
        })
    }

    /// Deletes a dependent; what has dependents of its own waits for them if its owner does.
    fn collect(&self, key: &Key, object: &Object) -> Result<(), Status> {
        if deleting(object) {
            return Ok(());
        }
        let foreground = references(object).any(|reference| {
            let owner = self.owner(object, reference).ok().flatten();
            owner.is_some_and(|owner| has_finalizer(&owner, FOREGROUND))
        });
        let nested = foreground && self.dependents.contains_key(uid(object));
        let options = DeleteOptions {
            uid: Some(uid(object).to_owned()),
            propagation: Some(if nested { "Foreground" } else { "Background" }.to_owned()),
            ..DeleteOptions::default()
        };
        match self.store.delete(&key.resource, &key.namespace, &key.name, &options) {
            Err(error) if !error.is_not_found() && error.code != 409 => Err(error),
            _ => Ok(()),
        }
    }

    /// The owner that a reference means, if it is there: same kind, name and uid, in the namespace of the dependent or
    /// cluster-scoped.
    fn owner(&self, dependent: &Object, reference: &Value) -> Result<Option<Object>, Status> {
        let api_version = str_at(reference, "/apiVersion");
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let Some(kind) = self.store.kind(group, str_at(reference, "/kind")) else {
            return Ok(None);
        };
        let namespace = if kind.namespaced { namespace(dependent) } else { "" };
        let owner = find(&self.store, &kind.resource, namespace, str_at(reference, "/name"))?;
        Ok(owner.filter(|owner| uid(owner) == str_at(reference, "/uid")))
    }
}

#[async_trait]
impl Controller for Garbage {
    fn name(&self) -> &'static str {
        "garbage"
    }

    fn watched(&self) -> Watched {
        Watched::Everything
    }

    fn keys(&mut self, seen: &Seen) -> Vec<Key> {
        if is_event(&seen.resource) {
            return Vec::new();
        }
        let key = Self::key_of(seen);
        let owners: Vec<Key> =
            references(&seen.object).filter_map(|owner| self.known.get(str_at(owner, "/uid")).cloned()).collect();
        self.note(&key, &seen.object, seen.deleted);
        if seen.deleted {
            // Its dependents may go now, and owners that waited for it.
            let dependents = self.dependents.get(uid(&seen.object)).into_iter().flatten().cloned();
            return dependents.chain(owners).collect();
        }
        let concerned = references(&seen.object).next().is_some() || deleting(&seen.object);
        concerned.then_some(key).into_iter().collect()
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Next, Status> {
        let Some(object) = find(&self.store, &key.resource, &key.namespace, &key.name)? else { return Ok(Next::Done) };
        if deleting(&object) {
            if has_finalizer(&object, ORPHAN) {
                self.orphan_dependents(key, &object)?;
            } else if has_finalizer(&object, FOREGROUND) {
                self.delete_dependents(key, &object)?;
            }
            return Ok(Next::Done);
        }
        self.judge(key, &object)?;
        Ok(Next::Done)
    }
}

fn references(object: &Value) -> impl Iterator<Item = &Value> {
    items(object, "/metadata/ownerReferences").iter()
}

fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    items(object, "/metadata/finalizers").contains(&json!(finalizer))
}

/// Events are many and own nothing.
fn is_event(resource: &GroupResource) -> bool {
    *resource == resources::events() || resource.group == "events.k8s.io"
}
