//! What streams wait for, and how they are woken.

use std::{collections::HashMap, net::IpAddr};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::Key;

/// What an answer depends on. Every question depends on exactly one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// A Service by name: itself, its endpoints and their pods, its profiles, splits and routes.
    Service(Key),
    /// An address: the pod that has it, or the Service whose cluster IP it is with all of the above.
    Address(IpAddr),
    /// A pod by name.
    Pod(Key),
}

/// The topics somebody waits for.
#[derive(Debug, Default)]
pub(crate) struct Topics(Mutex<Subscriptions>);

#[derive(Debug, Default)]
struct Subscriptions {
    by_topic: HashMap<Topic, watch::Sender<()>>,
    /// The size at which topics nobody waits for any more are thrown out.
    sweep_at: usize,
}

impl Topics {
    /// A receiver that changes whenever the topic does.
    pub(crate) fn subscribe(&self, topic: Topic) -> watch::Receiver<()> {
        let mut subscriptions = self.0.lock();
        if subscriptions.by_topic.len() >= subscriptions.sweep_at {
            subscriptions.by_topic.retain(|_, sender| !sender.is_closed());
            // Twice what is in use: the sweep costs a constant per subscription.
            subscriptions.sweep_at = 2 * subscriptions.by_topic.len() + 32;
        }
        subscriptions.by_topic.entry(topic).or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    /// Wakes everybody who waits for one of the topics.
    pub(crate) fn notify(&self, topics: impl IntoIterator<Item = Topic>) {
        let subscriptions = self.0.lock();
        for topic in topics {
            if let Some(sender) = subscriptions.by_topic.get(&topic) {
                sender.send_replace(());
            }
        }
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
        let kept = topics.subscribe(Topic::Pod(Key::new("ns", "kept")));
        for number in 0..1000 {
            drop(topics.subscribe(Topic::Pod(Key::new("ns", &number.to_string()))));
        }
        assert!(topics.len() < 100, "{}", topics.len());
        topics.notify([Topic::Pod(Key::new("ns", "kept"))]);
        assert!(kept.has_changed().unwrap());
    }
}
