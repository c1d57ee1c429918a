//! A work queue: each key at most once, failed keys again after a growing delay.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// The first delay after a failure; doubled by each further one.
const FIRST_DELAY: Duration = Duration::from_millis(5);

/// The longest delay.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// The queue of one controller. It belongs to the controller's task, so it needs no lock.
#[derive(Debug)]
pub(crate) struct Queue<K> {
    ready: VecDeque<K>,
    queued: HashSet<K>,
    /// Keys for later, by time and a counter that keeps equal times apart.
    later: BTreeMap<(Instant, u64), K>,
    count: u64,
    failures: HashMap<K, u32>,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// An empty queue.
    pub(crate) fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            later: BTreeMap::new(),
            count: 0,
            failures: HashMap::new(),
        }
    }

    /// Adds a key unless it is already waiting.
    pub(crate) fn add(&mut self, key: K) {
        if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// Adds a key after a delay. An earlier delay of the same key stays: reconciling once more is harmless.
    pub(crate) fn add_after(&mut self, key: K, delay: Duration) {
        self.count += 1;
        self.later.insert((Instant::now() + delay, self.count), key);
    }

    /// Adds a failed key after its back-off, and answers the delay.
    pub(crate) fn retry(&mut self, key: K) -> Duration {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let delay = FIRST_DELAY.saturating_mul(1 << (*failures).min(16)).min(MAX_DELAY);
        *failures += 1;
        self.add_after(key, delay);
        delay
    }

    /// Forgets the failures of a key.
    pub(crate) fn forget(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// The next key: ready ones in order, after those whose delay is over were added.
    pub(crate) fn pop(&mut self) -> Option<K> {
        let now = Instant::now();
        while let Some(entry) = self.later.first_entry()
            && entry.key().0 <= now
        {
            let key = entry.remove();
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        Some(key)
    }

    /// When the next delayed key is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.later.first_key_value().map(|((due, _), _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_waits_once_and_can_be_added_again_when_taken() {
        let mut queue = Queue::new();
        queue.add("a");
        queue.add("b");
        queue.add("a");
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some("a"), Some("b"), None]);
        queue.add("a");
        assert_eq!(queue.pop(), Some("a"));
    }

    #[tokio::test]
    async fn failures_double_the_delay_until_forgotten() {
        let mut queue = Queue::new();
        assert_eq!(queue.retry("a"), FIRST_DELAY);
        assert_eq!(queue.retry("a"), FIRST_DELAY * 2);
        while let Some(due) = queue.next_due() {
            tokio::time::sleep_until(due).await;
            assert_eq!([queue.pop(), queue.pop()], [Some("a"), None]);
        }
        for _ in 0..40 {
            queue.retry("a");
        }
        assert_eq!(queue.retry("a"), MAX_DELAY);
        queue.forget(&"a");
        assert_eq!(queue.retry("a"), FIRST_DELAY);
    }
}
