//! The objects that a controller reads, and the watches that keep them current.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use meshgate_machinery::at;
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use tokio::sync::{Notify, watch};
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
pub(crate) const DEFINITIONS: Kind =
    Kind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions");
pub(crate) const ENDPOINT_SLICES: Kind = Kind::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");
pub(crate) const INGRESSES: Kind = Kind::new("networking.k8s.io", "v1", "Ingress", "ingresses");
pub(crate) const INGRESS_CLASSES: Kind = Kind::new("networking.k8s.io", "v1", "IngressClass", "ingressclasses");
pub(crate) const SECRETS: Kind = Kind::new("", "v1", "Secret", "secrets");
pub(crate) const SERVICES: Kind = Kind::new("", "v1", "Service", "services");

/// Everything a translation is made from: objects by kind, namespace and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    kinds: BTreeMap<Kind, Namespaces>,
    /// The slices again, by the Service that each says it is of: every backend of every route asks for them.
    slices: BTreeMap<String, BTreeMap<String, BTreeMap<String, Object>>>,
}

/// By namespace, `""` for cluster-scoped ones, and name.
type Namespaces = BTreeMap<String, BTreeMap<String, Object>>;

impl Objects {
    /// All objects of a kind, ordered by namespace and name.
    pub(crate) fn all(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.kinds.get(&kind).into_iter().flat_map(BTreeMap::values).flat_map(BTreeMap::values)
    }

    /// One object; `namespace` is `""` for a cluster-scoped one.
    pub(crate) fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Object> {
        self.kinds.get(&kind)?.get(namespace)?.get(name)
    }

    /// The EndpointSlices of a Service.
    pub(crate) fn slices(&self, namespace: &str, service: &str) -> impl Iterator<Item = &Object> + use<'_> {
        let found = self.slices.get(namespace).and_then(|services| services.get(service));
        found.into_iter().flat_map(BTreeMap::values)
    }

    /// Puts an object in the place of the one of its name, which it returns.
    pub(crate) fn insert(&mut self, kind: Kind, object: Object) -> Option<Object> {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let former = self.remove(kind, &namespace, &name);
        if let Some(service) = service_of(kind, &object) {
            let of_service = self.slices.entry(namespace.clone()).or_default().entry(service.to_owned()).or_default();
            of_service.insert(name.clone(), Arc::clone(&object));
        }
        self.kinds.entry(kind).or_default().entry(namespace).or_default().insert(name, object);
        former
    }

    pub(crate) fn remove(&mut self, kind: Kind, namespace: &str, name: &str) -> Option<Object> {
        let former = self.kinds.get_mut(&kind)?.get_mut(namespace)?.remove(name)?;
        if let Some(service) = service_of(kind, &former)
            && let Some(services) = self.slices.get_mut(namespace)
            && let Some(slices) = services.get_mut(service)
        {
            slices.remove(name);
        }
        Some(former)
    }

    /// Puts these in the place of all of the kind.
    fn replace(&mut self, kind: Kind, objects: Vec<DynamicObject>) {
        let former: Vec<Object> = self.all(kind).cloned().collect();
        for object in former {
            self.remove(kind, &object.namespace().unwrap_or_default(), &object.name_any());
        }
        for object in objects {
            self.insert(kind, Arc::new(object));
        }
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

/// The Service that a slice says it is of.
fn service_of(kind: Kind, object: &Object) -> Option<&str> {
    let labels = object.metadata.labels.as_ref().filter(|_| kind == ENDPOINT_SLICES)?;
    labels.get("kubernetes.io/service-name").map(String::as_str)
}

/// Whether an object says something else than before. Statuses are what controllers write, this one among them; only that of a
/// Service is read, for the address that it has.
pub(crate) fn tells_news(kind: Kind, former: &DynamicObject, object: &DynamicObject) -> bool {
    fn about(object: &DynamicObject) -> impl PartialEq {
        let metadata = &object.metadata;
        (&metadata.uid, &metadata.labels, &metadata.annotations, &metadata.deletion_timestamp)
    }
    fn fields(kind: Kind, object: &DynamicObject) -> impl Iterator<Item = (&String, &Value)> {
        let fields = object.data.as_object().into_iter().flatten();
        fields.filter(move |(name, _)| *name != "status" || kind == SERVICES)
    }
    about(former) != about(object) || !fields(kind, former).eq(fields(kind, object))
}

/// The text at a JSON pointer, `""` when there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items of the list at a JSON pointer, none when there is no list.
pub(crate) fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    at(value, pointer).and_then(Value::as_array).into_iter().flatten()
}

/// An annotation.
pub(crate) fn annotation<'a>(object: &'a DynamicObject, key: &str) -> Option<&'a str> {
    object.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Watches of some kinds. They end when this is dropped.
pub(crate) struct Watches {
    objects: Arc<Mutex<Objects>>,
    changed: Arc<Notify>,
    /// How many kinds have not been listed yet.
    unlisted: watch::Sender<usize>,
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
        let objects = Arc::default();
        let changed = Arc::new(Notify::new());
        let unlisted = watch::Sender::new(kinds.len());
        let mut tasks = JoinSet::new();
        for kind in kinds {
            let events = watcher(Api::all_with(client.clone(), &kind.resource()), watcher::Config::default());
            let mut follower = Follower {
                kind: *kind,
                objects: Arc::clone(&objects),
                changed: Arc::clone(&changed),
                unlisted: Some(unlisted.clone()),
                listing: Vec::new(),
            };
            tasks.spawn(events.backoff(Retry::default()).for_each(move |event| {
                follower.take(event);
                futures::future::ready(())
            }));
        }
        Self { objects, changed, unlisted, _tasks: tasks }
    }

    /// Waits until every kind has been listed.
    pub(crate) async fn listed(&self) {
        // The sender is here, so there is no error.
        let _ = self.unlisted.subscribe().wait_for(|left| *left == 0).await;
    }

    /// Waits for a change since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The objects as they are, which do not change until the guard is dropped.
    pub(crate) fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock()
    }
}

/// Keeps the objects of one kind current.
struct Follower {
    kind: Kind,
    objects: Arc<Mutex<Objects>>,
    changed: Arc<Notify>,
    /// Until the first list is whole.
    unlisted: Option<watch::Sender<usize>>,
    /// The list that is being received.
    listing: Vec<DynamicObject>,
}

impl Follower {
    fn take(&mut self, event: watcher::Result<watcher::Event<DynamicObject>>) {
        use watcher::Event;
        match event {
            Ok(Event::Init) => self.listing.clear(),
            Ok(Event::InitApply(object)) => self.listing.push(object),
            Ok(Event::InitDone) => {
                self.objects.lock().replace(self.kind, std::mem::take(&mut self.listing));
                if let Some(unlisted) = self.unlisted.take() {
                    unlisted.send_modify(|left| *left -= 1);
                }
                self.changed.notify_one();
            }
            Ok(Event::Apply(object)) => {
                let object = Arc::new(object);
                let former = self.objects.lock().insert(self.kind, Arc::clone(&object));
                if former.is_none_or(|former| tells_news(self.kind, &former, &object)) {
                    self.changed.notify_one();
                }
            }
            Ok(Event::Delete(object)) => {
                let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
                self.objects.lock().remove(self.kind, &namespace, &name);
                self.changed.notify_one();
            }
            Err(error) => tracing::warn!(plural = self.kind.plural, %error, "watching; trying again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(name: &str, service: &str) -> Object {
        let metadata = json!({"name": name, "namespace": "a", "labels": {"kubernetes.io/service-name": service}});
        Arc::new(serde_json::from_value(json!({"metadata": metadata})).unwrap())
    }

    #[test]
    fn slices_are_found_by_the_service_that_they_name_now() {
        let mut objects = Objects::default();
        let names = |objects: &Objects, service| -> Vec<String> {
            objects.slices("a", service).map(|slice| slice.name_any()).collect()
        };
        for (name, service) in [("x", "web"), ("y", "web"), ("z", "other")] {
            objects.insert(ENDPOINT_SLICES, slice(name, service));
        }
        assert_eq!((names(&objects, "web"), names(&objects, "none")), (vec!["x".into(), "y".into()], vec![]));
        objects.insert(ENDPOINT_SLICES, slice("x", "other"));
        objects.remove(ENDPOINT_SLICES, "a", "z");
        assert_eq!((names(&objects, "web"), names(&objects, "other")), (vec!["y".into()], vec!["x".into()]));
        objects.replace(ENDPOINT_SLICES, vec![(*slice("w", "web")).clone()]);
        assert_eq!((names(&objects, "web"), names(&objects, "other")), (vec!["w".into()], vec![]));
        assert_eq!(objects.all(ENDPOINT_SLICES).count(), 1);
    }

    #[test]
    fn a_status_is_news_only_where_it_is_read() {
        let object = |metadata: Value, rest: Value| -> DynamicObject {
            let mut object = json!({"metadata": metadata});
            object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            serde_json::from_value(object).unwrap()
        };
        let before =
            object(json!({"name": "x", "resourceVersion": "1"}), json!({"spec": {"a": 1}, "status": {"b": 1}}));
        for (kind, metadata, rest, news) in [
            (
                INGRESSES,
                json!({"name": "x", "resourceVersion": "2"}),
                json!({"spec": {"a": 1}, "status": {"b": 2}}),
                false,
            ),
            (INGRESSES, json!({"name": "x", "resourceVersion": "2"}), json!({"spec": {"a": 1}}), false),
            (
                SERVICES,
                json!({"name": "x", "resourceVersion": "2"}),
                json!({"spec": {"a": 1}, "status": {"b": 2}}),
                true,
            ),
            (INGRESSES, json!({"name": "x"}), json!({"spec": {"a": 2}, "status": {"b": 1}}), true),
            (INGRESSES, json!({"name": "x"}), json!({"status": {"b": 1}}), true),
            (INGRESSES, json!({"name": "x", "labels": {"l": "1"}}), json!({"spec": {"a": 1}}), true),
            (INGRESSES, json!({"name": "x", "annotations": {"l": "1"}}), json!({"spec": {"a": 1}}), true),
            (INGRESSES, json!({"name": "x", "uid": "new"}), json!({"spec": {"a": 1}}), true),
        ] {
            let after = object(metadata, rest);
            assert_eq!(tells_news(kind, &before, &after), news, "{kind:?} {after:?}");
        }
    }

    #[test]
    fn watching_is_tried_again_at_once_and_then_more_and_more_seldom() {
        let mut retry = Retry::default();
        let pauses: Vec<u128> = retry.by_ref().take(12).map(|pause| pause.as_millis()).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000, 5000, 5000]);
        retry.reset();
        assert_eq!(retry.next(), Some(Retry::FIRST));
    }
}
