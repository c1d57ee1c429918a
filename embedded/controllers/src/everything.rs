//! Watching all resources, those that later CRDs bring included.

use std::collections::HashSet;

use meshgate_store::{GroupResource, Store};

use crate::objects::str_at;
use crate::runner::{self, Events, Seen};

/// The watches of one controller over all resources.
pub(crate) struct Everything {
    store: Store,
    /// The custom resources that are watched.
    custom: HashSet<GroupResource>,
}

impl Everything {
    /// Watches the built-in resources. Custom ones join by [`Everything::follow`]: this very watch tells of every CRD.
    pub(crate) fn new(store: Store) -> (Self, Events) {
        let built_in = store.resources().into_iter().filter(|kind| kind.builtin);
        let events =
            futures::stream::select_all(built_in.map(|kind| runner::watch(store.clone(), kind.resource.clone())));
        (Self { store, custom: HashSet::new() }, events)
    }

    /// Begins to watch the resource of a new CRD.
    pub(crate) fn follow(&mut self, seen: &Seen, events: &mut Events) {
        if seen.resource != GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions") {
            return;
        }
        let crd = &seen.object;
        let resource = GroupResource::new(str_at(crd, "/spec/group"), str_at(crd, "/spec/names/plural"));
        if seen.deleted {
            self.custom.remove(&resource);
        } else if self.custom.insert(resource.clone()) {
            events.push(runner::watch(self.store.clone(), resource));
        }
    }
}
