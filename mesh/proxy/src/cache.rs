//! What was found out about a target, for as long as somebody uses it and a while longer.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::time;

/// Values by key. One that nobody else holds is dropped when it has not been asked for during the idle time.
pub(crate) struct Cache<K, V> {
    entries: Mutex<HashMap<K, Entry<V>>>,
}

struct Entry<V> {
    value: Arc<V>,
    used: Instant,
}

impl<K, V> Cache<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Send + Sync + 'static,
{
    /// An empty cache. Needs a tokio runtime, where it cleans up after itself.
    pub(crate) fn new(idle: Duration) -> Arc<Self> {
        let cache = Arc::new(Self { entries: Mutex::default() });
        tokio::spawn(sweep(Arc::downgrade(&cache), idle));
        cache
    }

    /// The value of `key`, made if there is none.
    pub(crate) fn get_or_make(&self, key: &K, make: impl FnOnce() -> V) -> Arc<V> {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(key) {
            entry.used = Instant::now();
            return Arc::clone(&entry.value);
        }
        let value = Arc::new(make());
        entries.insert(key.clone(), Entry { value: Arc::clone(&value), used: Instant::now() });
        value
    }

    fn sweep(&self, idle: Duration) {
        let mut entries = self.entries.lock();
        entries.retain(|_, entry| Arc::strong_count(&entry.value) > 1 || entry.used.elapsed() < idle);
    }
}

async fn sweep<K, V>(cache: Weak<Cache<K, V>>, idle: Duration)
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Send + Sync + 'static,
{
    loop {
        time::sleep(idle.clamp(Duration::from_millis(100), Duration::from_secs(5))).await;
        let Some(cache) = cache.upgrade() else { return };
        cache.sweep(idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_stays() {
        let cache = Cache::new(Duration::from_secs(60));
        let held = cache.get_or_make(&"a", || 1);
        cache.get_or_make(&"b", || 2);
        cache.sweep(Duration::from_secs(60));
        assert_eq!(*cache.get_or_make(&"b", || 3), 2);
        cache.sweep(Duration::ZERO);
        assert_eq!((*cache.get_or_make(&"a", || 4), *cache.get_or_make(&"b", || 5), *held), (1, 5, 1));
    }
}
