//! The loop that every controller runs in.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{BoxStream, SelectAll, StreamExt as _};
use meshgate_store::{Event, GroupResource, Object, Selectors, Start, Status, Store};
use tokio_util::sync::CancellationToken;

use crate::everything::Everything;
use crate::queue::Queue;

/// What a reconciler is asked about. The controllers of one kind name its objects; garbage collection uses the resource too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) resource: GroupResource,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    /// A key of a namespaced (or, with `""`, cluster-scoped) object.
    pub(crate) fn new(resource: GroupResource, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { resource, namespace: namespace.into(), name: name.into() }
    }
}

/// Whether a key is done for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Until an event brings it back.
    Done,
    /// Look again after this time, because something changes by time alone.
    After(Duration),
}

/// What a controller wants to hear of.
pub(crate) enum Watched {
    /// These resources.
    Some(Vec<GroupResource>),
    /// All resources, those of later CRDs included.
    Everything,
}

/// A change of an object, with the resource it belongs to.
pub(crate) struct Seen {
    pub(crate) resource: GroupResource,
    pub(crate) object: Object,
    pub(crate) deleted: bool,
}

impl Seen {
    /// An event as a controller sees it; bookmarks are nothing to it.
    pub(crate) fn new(resource: &GroupResource, event: Event) -> Option<Self> {
        let (object, deleted) = match event {
            Event::Added(object) | Event::Modified(object) => (object, false),
            Event::Deleted(object) => (object, true),
            Event::InitialEventsEnd(_) => return None,
        };
        Some(Self { resource: resource.clone(), object, deleted })
    }
}

/// One controller: which events concern which keys, and how a key is put right.
#[async_trait]
pub(crate) trait Controller: Send + 'static {
    /// For logs.
    fn name(&self) -> &'static str;

    /// What to watch.
    fn watched(&self) -> Watched;

    /// The keys an event concerns.
    fn keys(&mut self, seen: &Seen) -> Vec<Key>;

    /// Puts one key right: reads what is, writes what is missing. Called again after an error.
    async fn reconcile(&mut self, key: &Key) -> Result<Next, Status>;
}

/// Runs a controller until shutdown.
pub(crate) async fn run(store: Store, mut controller: Box<dyn Controller>, shutdown: CancellationToken) {
    let (mut everything, mut events) = match controller.watched() {
        Watched::Some(resources) => {
            let streams = resources.into_iter().map(|resource| watch(store.clone(), resource));
            (None, futures::stream::select_all(streams))
        }
        Watched::Everything => {
            let (everything, events) = Everything::new(store);
            (Some(everything), events)
        }
    };
    let mut queue = Queue::new();
    loop {
        tokio::select! {
            // Events first, so that a burst of them becomes one reconciliation per key.
            biased;
            () = shutdown.cancelled() => return,
            seen = events.next() => {
                let Some(seen) = seen else { return };
                if let Some(everything) = &mut everything {
                    everything.follow(&seen, &mut events);
                }
                controller.keys(&seen).into_iter().for_each(|key| queue.add(key));
            }
            Some(key) = due(&mut queue) => {
                reconcile(controller.as_mut(), &mut queue, key).await;
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn reconcile(controller: &mut dyn Controller, queue: &mut Queue<Key>, key: Key) {
    match controller.reconcile(&key).await {
        Ok(next) => {
            queue.forget(&key);
            if let Next::After(delay) = next {
                queue.add_after(key, delay);
            }
        }
        Err(error) => {
            let delay = queue.retry(key.clone());
            tracing::debug!(controller = controller.name(), ?key, %error, ?delay, "reconciling failed, trying again");
        }
    }
}

/// The next key, as soon as there is one. Waits for ever on an empty queue. Safe to drop.
async fn due(queue: &mut Queue<Key>) -> Option<Key> {
    loop {
        if let Some(key) = queue.pop() {
            return Some(key);
        }
        match queue.next_due() {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }
}

/// The changes of one resource without end: when the watch is closed because this reader fell behind, it begins anew
/// with all present objects. Ends when the resource type is gone.
pub(crate) fn watch(store: Store, resource: GroupResource) -> BoxStream<'static, Seen> {
    let events = futures::stream::unfold(None, move |mut watch| {
        let (store, resource) = (store.clone(), resource.clone());
        async move {
            loop {
                let mut current = match watch.take() {
                    Some(watch) => watch,
                    None => store.watch(&resource, None, &Selectors::default(), Start::Now).ok()?,
                };
                let Some(event) = current.next().await else { continue };
                if let Some(seen) = Seen::new(&resource, event) {
                    return Some((seen, Some(current)));
                }
                watch = Some(current);
            }
        }
    });
    events.boxed()
}

/// All streams of a controller.
pub(crate) type Events = SelectAll<BoxStream<'static, Seen>>;
