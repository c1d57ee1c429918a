//! What streams wait for, and how they are woken.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Key, Kind};

/// What an answer depends on. Every question depends on exactly one topic, but that about endpoints, which depends on where it is
/// asked as well.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// A Service by name: itself, its endpoints, their pods and the Servers of those, its profiles, splits and routes.
    Service(Key),
    /// An address: the pod that has it, the pods that have ports of it, the Service whose cluster IP it is with all of the above, or the
    /// EgressNetworks around it with their routes.
    Address(IpAddr),
    /// A pod or an ExternalWorkload by name.
    Pod((Kind, Key)),
    /// A node by name: where its pods' proxies are when they ask.
    Node(Arc<str>),
    /// Every address, for those who tell of a change; nobody waits for it. What is outside of the cluster has no list.
    Addresses,
    /// The statuses of routes: routes, and the Services, EgressNetworks and Servers that they name; and those of EgressNetworks.
    Statuses,
    /// The EndpointSlices that are made of ExternalWorkloads: those, the Services that select endpoints, and what there is of
    /// such slices.
    Slices,
}

/// The topics somebody waits for.
#[derive(Debug, Default)]
pub(crate) struct Topics(Mutex<Subscriptions>);

#[derive(Debug, Default)]
struct Subscriptions {
    /// Each has the revision of its last change, or the one at which it was first waited for.
    by_topic: HashMap<Topic, watch::Sender<u64>>,
    /// How many changes have been told.
    revision: u64,
    /// The size at which topics nobody waits for any more are thrown out.
    sweep_at: usize,
}

impl Topics {
    /// A receiver that changes whenever the topic does, to the revision of the change.
    pub(crate) fn subscribe(&self, topic: Topic) -> watch::Receiver<u64> {
        let mut subscriptions = self.0.lock();
        if subscriptions.by_topic.len() >= subscriptions.sweep_at {
            subscriptions.by_topic.retain(|_, sender| !sender.is_closed());
            // Twice what is in use: the sweep costs a constant per subscription.
            subscriptions.sweep_at = 2 * subscriptions.by_topic.len() + 32;
        }
        let revision = subscriptions.revision;
        subscriptions.by_topic.entry(topic).or_insert_with(|| watch::Sender::new(revision)).subscribe()
    }

    /// Wakes everybody who waits for one of the topics.
    pub(crate) fn notify(&self, topics: impl IntoIterator<Item = Topic>) {
        let mut subscriptions = self.0.lock();
        subscriptions.revision += 1;
        for topic in topics {
            if topic == Topic::Addresses {
                let addresses = subscriptions.by_topic.iter().filter(|(topic, _)| matches!(topic, Topic::Address(_)));
                for (_, sender) in addresses {
                    sender.send_replace(subscriptions.revision);
                }
            } else if let Some(sender) = subscriptions.by_topic.get(&topic) {
                sender.send_replace(subscriptions.revision);
            }
        }
    }

    /// How many changes have been told. What is read of the objects afterwards has all of them.
    pub(crate) fn revision(&self) -> u64 {
        self.0.lock().revision
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().by_topic.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_nobody_waits_for_are_forgotten() {
        let topics = Topics::default();
        let kept = topics.subscribe(Topic::Pod((Kind::Pod, Key::new("ns", "kept"))));
        for number in 0..1000 {
            drop(topics.subscribe(Topic::Pod((Kind::Pod, Key::new("ns", &number.to_string())))));
        }
        assert!(topics.len() < 100, "{}", topics.len());
        topics.notify([Topic::Pod((Kind::Pod, Key::new("ns", "kept")))]);
        assert!(kept.has_changed().unwrap());
    }
}
