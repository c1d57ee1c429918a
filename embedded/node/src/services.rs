//! kube-proxy's and the cluster DNS' part: Services and EndpointSlices in, network rules and names out.
//!
//! Level-triggered: a change, however small, leads to a new picture of everything from a list, after a short pause
//! that lets a burst become one. A list carries the store's revision, so it is known what the network has caught up with.

use std::sync::Arc;
use std::time::Duration;

use meshgate_store::{GroupResource, Selectors, Start, Store, Watch};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::kinds;
use crate::network::Network;
use crate::node::NodeError;

mod picture;

pub(crate) use picture::Picture;

/// How long a burst of changes is waited for.
const BURST: Duration = Duration::from_millis(25);
/// Pause before another attempt when the network refuses.
const RETRY: Duration = Duration::from_millis(200);

/// How far the network has caught up.
#[derive(Clone)]
pub(crate) struct Synced {
    revision: watch::Sender<u64>,
    /// Somebody waits for a revision that may have come without a change of a Service.
    asked: Arc<Notify>,
}

impl Synced {
    pub(crate) fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Waits until the network shows `revision`.
    pub(crate) async fn wait(&self, revision: u64) {
        let mut synced = self.revision.subscribe();
        self.asked.notify_one();
        // Fails only when the sender is gone, and `self` holds it.
        let _ = synced.wait_for(|synced| *synced >= revision).await;
    }
}

/// Begins to keep the network in step.
pub(crate) fn start(store: &Store, network: Network, shutdown: &CancellationToken) -> Result<Synced, NodeError> {
    let watches = Watches::begin(store)?;
    let synced = Synced { revision: watch::Sender::new(0), asked: Arc::default() };
    let task = keep(store.clone(), network, watches, synced.clone());
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(async move {
        if let Err(error) = task.await {
            tracing::error!(%error, "Services are not kept in step any more");
        }
    }));
    Ok(synced)
}

/// Watches of everything a picture is made from. What they tell does not matter, only that they do.
struct Watches {
    services: Watch,
    slices: Watch,
    pods: Watch,
}

impl Watches {
    fn begin(store: &Store) -> Result<Self, NodeError> {
        let start = Start::After(store.revision());
        let begin = |resource: GroupResource| {
            store
                .watch(&resource, None, &Selectors::default(), start)
                .map_err(|cause| NodeError::Watch { resource: resource.clone(), cause })
        };
        Ok(Self {
            services: begin(kinds::services())?,
            slices: begin(kinds::endpoint_slices())?,
            pods: begin(kinds::pods())?,
        })
    }

    /// Waits for a change. What a closed watch may have missed is in the next list.
    async fn changed(&mut self, store: &Store) -> Result<(), NodeError> {
        let event = tokio::select! {
            event = self.services.next() => event,
            event = self.slices.next() => event,
            event = self.pods.next() => event,
        };
        if event.is_none() {
            *self = Self::begin(store)?;
        }
        Ok(())
    }
}

async fn keep(store: Store, network: Network, mut watches: Watches, synced: Synced) -> Result<(), NodeError> {
    let mut applied: Option<Picture> = None;
    loop {
        let (picture, revision) = look(&store)?;
        if applied.as_ref() != Some(&picture) {
            if let Err(error) = network.apply(&picture).await {
                tracing::warn!(%error, "the network refuses the Services; trying again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            applied = Some(picture);
        }
        synced.revision.send_replace(revision);

        tokio::select! {
            result = watches.changed(&store) => result?,
            () = synced.asked.notified() => continue,
        }
        let burst = async {
            loop {
                watches.changed(&store).await?
            }
        };
        if let Ok(ended) = tokio::time::timeout(BURST, burst).await {
            return ended;
        }
    }
}

/// Everything there is, and the revision up to which it is complete.
fn look(store: &Store) -> Result<(Picture, u64), NodeError> {
    let list = |resource: GroupResource| {
        store
            .list(&resource, None, &Selectors::default())
            .map_err(|cause| NodeError::Watch { resource: resource.clone(), cause })
    };
    let services = list(kinds::services())?;
    let slices = list(kinds::endpoint_slices())?;
    let pods = list(kinds::pods())?;
    let picture = Picture::new(&services.items, &slices.items, &pods.items);
    Ok((picture, services.revision))
}
