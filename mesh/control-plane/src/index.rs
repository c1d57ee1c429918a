//! The objects, and who is asking about them.

mod endpoints;
mod state;
mod topics;

use std::sync::Arc;

use futures::{Stream, stream};
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::watch;

use crate::{Cluster, Key, Kind, Object, ParseError, metrics::Metrics};

use endpoints::Questions;
pub(crate) use state::State;
pub(crate) use topics::Topic;
use topics::Topics;

/// The objects of the cluster and the streams that wait for their changes. Clones share one index.
#[derive(Debug, Clone)]
pub struct Index(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cluster: Cluster,
    state: RwLock<State>,
    topics: Topics,
    questions: Questions,
    synced: watch::Sender<bool>,
    metrics: Metrics,
}

impl Index {
    /// An empty index. Streams wait until [`Index::mark_synced`].
    pub fn new(cluster: Cluster) -> Self {
        Self(Arc::new(Inner {
            cluster,
            state: RwLock::default(),
            topics: Topics::default(),
            questions: Questions::default(),
            synced: watch::Sender::new(false),
            metrics: Metrics::default(),
        }))
    }

    /// Adds an object, as the API serves it, or replaces the one of its kind and name.
    pub fn apply(&self, object: &Value) -> Result<(), ParseError> {
        self.apply_object(Object::parse(object)?);
        Ok(())
    }

    /// Adds an object or replaces the one of its kind and name.
    pub fn apply_object(&self, object: Object) {
        let changed = self.0.state.write().apply(object);
        self.0.topics.notify(changed);
    }

    /// Removes an object.
    pub fn delete(&self, kind: Kind, key: &Key) {
        let changed = self.0.state.write().delete(kind, key);
        self.0.topics.notify(changed);
    }

    /// Makes `objects` all there are of a kind.
    pub fn replace(&self, kind: Kind, objects: Vec<Object>) {
        let changed = {
            let mut state = self.0.state.write();
            let gone: Vec<_> = {
                let listed: std::collections::HashSet<_> = objects.iter().map(Object::key).collect();
                state.keys(kind).into_iter().filter(|key| !listed.contains(key)).collect()
            };
            let mut changed: Vec<_> = gone.iter().flat_map(|key| state.delete(kind, key)).collect();
            for object in objects {
                changed.extend(state.apply(object));
            }
            changed
        };
        self.0.topics.notify(changed);
    }

    /// Says that every kind has been listed once: from now on an object that is not here does not exist.
    pub fn mark_synced(&self) {
        self.0.synced.send_replace(true);
    }

    /// Whether every kind has been listed once.
    pub fn is_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// How many objects there are of a kind.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.0.state.read().count(kind)
    }

    /// Waits until every kind has been listed.
    async fn synced(&self) {
        // The sender is part of the index, so that waiting cannot fail.
        let _ = self.0.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// What changes whenever a topic does.
    pub(crate) fn subscribe(&self, topic: Topic) -> watch::Receiver<u64> {
        self.0.topics.subscribe(topic)
    }

    fn look<T>(&self, compute: impl FnOnce(&State, &Cluster) -> T) -> T {
        compute(&self.0.state.read(), &self.0.cluster)
    }

    /// The answer once every kind has been listed.
    pub(crate) async fn answer<T>(&self, compute: impl FnOnce(&State, &Cluster) -> T) -> T {
        self.synced().await;
        self.look(compute)
    }

    /// The answer now and whenever it changes. Changes that come faster than the receiver reads are one change to it.
    pub(crate) fn follow<T, F>(&self, topic: Topic, compute: F) -> impl Stream<Item = T> + Send + use<T, F>
    where
        T: Clone + PartialEq + Send + 'static,
        F: Fn(&State, &Cluster) -> T + Send + 'static,
    {
        // Subscribed before the first look: a change between the two wakes the stream.
        let changes = self.0.topics.subscribe(topic);
        let start = (self.clone(), changes, compute, None::<T>);
        stream::unfold(start, |(index, mut changes, compute, last)| async move {
            loop {
                if last.is_some() {
                    changes.changed().await.ok()?;
                } else {
                    changes.mark_unchanged();
                }
                index.synced().await;
                let answer = index.look(&compute);
                if last.as_ref() != Some(&answer) {
                    return Some((answer.clone(), (index, changes, compute, Some(answer))));
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
