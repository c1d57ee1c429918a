//! The objects that a controller reads, and the watches that keep them current.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::reflector::{self, store::Writer};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// An object: typed metadata, and the rest as JSON below `data`.
pub(crate) type Object = Arc<DynamicObject>;

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
}

impl Kind {
    pub(crate) const fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Self {
        Self { group, version, kind, plural }
    }

    pub(crate) fn resource(self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.group, self.version, self.kind), self.plural)
    }
}

pub(crate) const CONFIG_MAPS: Kind = Kind::new("", "v1", "ConfigMap", "configmaps");
pub(crate) const ENDPOINT_SLICES: Kind = Kind::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");
pub(crate) const INGRESSES: Kind = Kind::new("networking.k8s.io", "v1", "Ingress", "ingresses");
pub(crate) const INGRESS_CLASSES: Kind = Kind::new("networking.k8s.io", "v1", "IngressClass", "ingressclasses");
pub(crate) const SECRETS: Kind = Kind::new("", "v1", "Secret", "secrets");
pub(crate) const SERVICES: Kind = Kind::new("", "v1", "Service", "services");

/// Everything a translation is made from: objects by kind, namespace and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects(BTreeMap<Kind, BTreeMap<(String, String), Object>>);

impl Objects {
    /// All objects of a kind, ordered by namespace and name.
    pub(crate) fn all(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.0.get(&kind).into_iter().flat_map(BTreeMap::values)
    }

    /// One object; `namespace` is `""` for a cluster-scoped one.
    pub(crate) fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Object> {
        self.0.get(&kind)?.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub(crate) fn insert(&mut self, kind: Kind, object: Object) {
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        self.0.entry(kind).or_default().insert(key, object);
    }

    /// Objects as manifests write them, for tests of translations.
    #[cfg(test)]
    pub(crate) fn from_yaml(kinds: &[Kind], text: &str) -> Self {
        use serde::Deserialize as _;
        let mut objects = Self::default();
        for document in serde_yaml::Deserializer::from_str(text) {
            let value = Value::deserialize(document).unwrap();
            let kind = kinds.iter().find(|kind| value["kind"] == kind.kind).unwrap();
            objects.insert(*kind, Arc::new(serde_json::from_value(value).unwrap()));
        }
        objects
    }
}

/// The text at a JSON pointer, `""` when there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items of the list at a JSON pointer, none when there is no list.
pub(crate) fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// An annotation.
pub(crate) fn annotation<'a>(object: &'a DynamicObject, key: &str) -> Option<&'a str> {
    object.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Watches of some kinds. They end when this is dropped.
pub(crate) struct Watches {
    stores: Vec<(Kind, reflector::Store<DynamicObject>)>,
    changed: Arc<Notify>,
    _tasks: JoinSet<()>,
}

/// The time before the next attempt to watch, from [`Retry::FIRST`] doubling to [`Retry::LAST`].
///
/// The first one is short, since the proxy beside a container takes connections a moment after both have started.
#[derive(Default)]
struct Retry {
    failures: u32,
}

impl Retry {
    const FIRST: Duration = Duration::from_millis(20);
    const LAST: Duration = Duration::from_secs(5);
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = Self::FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(Self::LAST);
        self.failures += 1;
        Some(pause)
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

impl Watches {
    pub(crate) fn start(client: &Client, kinds: &[Kind]) -> Self {
        let changed = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        let mut stores = Vec::new();
        for kind in kinds {
            let writer = Writer::new(kind.resource());
            stores.push((*kind, writer.as_reader()));
            let events = watcher(Api::all_with(client.clone(), &kind.resource()), watcher::Config::default());
            let (changed, plural) = (Arc::clone(&changed), kind.plural);
            tasks.spawn(reflector::reflector(writer, events.backoff(Retry::default())).for_each(move |event| {
                match event {
                    Ok(_) => changed.notify_one(),
                    Err(error) => tracing::warn!(plural, %error, "watching; trying again"),
                }
                futures::future::ready(())
            }));
        }
        Self { stores, changed, _tasks: tasks }
    }

    /// Waits until every kind has been listed.
    pub(crate) async fn listed(&self) {
        for (_, store) in &self.stores {
            // Ends early only when its watch has ended, which lasts as long as `self`.
            let _ = store.wait_until_ready().await;
        }
    }

    /// Waits for a change since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(crate) fn snapshot(&self) -> Objects {
        let mut objects = Objects::default();
        for (kind, store) in &self.stores {
            store.state().into_iter().for_each(|object| objects.insert(*kind, object));
        }
        objects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watching_is_tried_again_at_once_and_then_more_and_more_seldom() {
        let mut retry = Retry::default();
        let pauses: Vec<u128> = retry.by_ref().take(12).map(|pause| pause.as_millis()).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000, 5000, 5000]);
        retry.reset();
        assert_eq!(retry.next(), Some(Retry::FIRST));
    }
}
