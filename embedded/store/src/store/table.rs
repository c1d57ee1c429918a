//! The objects of one resource, the recent changes, and the watches told of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::filter::Filter;
use super::{Event, Object, Start};
use crate::{Status, Watch};

/// Changes kept per resource for watches that begin in the past: what a reader may miss between its list and its watch.
/// Kubernetes keeps a hundred at least (`client-go` lists again after the 410 that tells it was too slow).
const WINDOW: usize = 256;

/// Events a watch may lag behind before it is closed. Objects are shared, so an entry costs a few words.
const BACKLOG: usize = 16 * 1024;

/// What happened to one object at one revision.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: u64,
    /// Before the change. Of a deletion: the last object, with the deletion's revision.
    pub(super) old: Option<Object>,
    /// After the change; none after a deletion.
    pub(super) new: Option<Object>,
}

struct Watcher {
    filter: Filter,
    events: mpsc::Sender<Event>,
}

/// One resource.
pub(super) struct Table {
    /// By namespace (`""` when cluster-scoped), then by name.
    objects: BTreeMap<String, BTreeMap<String, Object>>,
    changes: VecDeque<Change>,
    /// The oldest revision a watch may begin after: every later change is in `changes`.
    oldest: u64,
    watchers: Vec<Watcher>,
}

impl Table {
    /// An empty table whose history begins at a revision.
    pub(super) fn new(revision: u64) -> Self {
        Self { objects: BTreeMap::new(), changes: VecDeque::new(), oldest: revision, watchers: Vec::new() }
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Object> {
        self.objects.get(namespace)?.get(name)
    }

    /// The objects of one namespace or of all, ordered by namespace and name.
    pub(super) fn iter(&self, namespace: Option<&str>) -> impl Iterator<Item = &Object> {
        let one = namespace.and_then(|namespace| self.objects.get(namespace));
        let all = namespace.is_none().then(|| self.objects.values());
        one.into_iter().chain(all.into_iter().flatten()).flat_map(BTreeMap::values)
    }

    /// Stores a change and tells the watches whose filter it passes. A watch that is full is dropped, which closes it
    /// for its reader once the reader has taken what was sent before.
    pub(super) fn publish(&mut self, namespace: &str, name: &str, change: Change) {
        match &change.new {
            Some(object) => {
                self.objects.entry(namespace.to_owned()).or_default().insert(name.to_owned(), Arc::clone(object));
            }
            None => {
                if let Some(names) = self.objects.get_mut(namespace) {
                    names.remove(name);
                    if names.is_empty() {
                        self.objects.remove(namespace);
                    }
                }
            }
        }
        self.watchers.retain(|watcher| match watcher.filter.event(&change) {
            Some(event) => watcher.events.try_send(event).is_ok(),
            None => !watcher.events.is_closed(),
        });
        if self.changes.len() == WINDOW
            && let Some(forgotten) = self.changes.pop_front()
        {
            self.oldest = forgotten.revision;
        }
        self.changes.push_back(change);
    }

    /// Begins a watch. The caller holds the store's lock, so nothing falls between the first events and the live ones.
    pub(super) fn watch(&mut self, filter: Filter, start: Start, revision: u64) -> Result<Watch, Status> {
        let first: VecDeque<Event> = match start {
            Start::Now => self.present(&filter).collect(),
            Start::InitialEvents => self.present(&filter).chain([Event::InitialEventsEnd(revision)]).collect(),
            Start::After(after) if after < self.oldest || after > revision => {
                return Err(Status::expired(after, self.oldest));
            }
            Start::After(after) => {
                let begin = self.changes.partition_point(|change| change.revision <= after);
                self.changes.range(begin..).filter_map(|change| filter.event(change)).collect()
            }
        };
        self.watchers.retain(|watcher| !watcher.events.is_closed());
        let (events, live) = mpsc::channel(BACKLOG);
        self.watchers.push(Watcher { filter, events });
        Ok(Watch::new(first, live))
    }

    fn present(&self, filter: &Filter) -> impl Iterator<Item = Event> {
        let objects = self.iter(filter.namespace());
        objects.filter(|object| filter.matches(object)).map(|object| Event::Added(Arc::clone(object)))
    }
}
