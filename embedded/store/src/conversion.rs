//! Kinds that are served in two shapes but stored in one.
//!
//! `events.k8s.io` Events are core Events under other field names; the store keeps core ones and converts at its door.
//! HorizontalPodAutoscalers of `autoscaling/v1` become `v2` ones.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::store::{Event, Object, Selectors};
use crate::{GroupResource, ResourceType};

/// Field names of a core Event and of an `events.k8s.io` one.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// How a resource is seen through the path it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// As stored.
    Stored,
    /// Core Events as `events.k8s.io` ones.
    NewEvents,
}

impl View {
    /// The view of a resource, and the resource its objects are stored under.
    pub(crate) fn of(resource: &GroupResource) -> (Self, Cow<'_, GroupResource>) {
        if resource.group == "events.k8s.io" && resource.plural == "events" {
            return (Self::NewEvents, Cow::Owned(GroupResource::new("", "events")));
        }
        (Self::Stored, Cow::Borrowed(resource))
    }

    /// A stored object as its reader wants it.
    pub(crate) fn show(self, object: Object) -> Object {
        match self {
            Self::Stored => object,
            Self::NewEvents => Arc::new(rename(Value::clone(&object), "events.k8s.io/v1", |(core, new)| (core, new))),
        }
    }

    /// A change as its reader wants it.
    pub(crate) fn show_event(self, event: Event) -> Event {
        match event {
            Event::Added(object) => Event::Added(self.show(object)),
            Event::Modified(object) => Event::Modified(self.show(object)),
            Event::Deleted(object) => Event::Deleted(self.show(object)),
            end @ Event::InitialEventsEnd(_) => end,
        }
    }

    /// A written object as it is stored.
    pub(crate) fn take(self, object: Value) -> Value {
        match self {
            Self::Stored => object,
            Self::NewEvents => rename(object, "v1", |(core, new)| (new, core)),
        }
    }

    /// Selectors over the reader's field names as selectors over the stored ones.
    pub(crate) fn selectors(self, selectors: &Selectors) -> Cow<'_, Selectors> {
        match self {
            Self::Stored => Cow::Borrowed(selectors),
            Self::NewEvents => {
                let fields: Vec<String> = selectors.fields.split(',').map(stored_term).collect();
                Cow::Owned(Selectors { labels: selectors.labels.clone(), fields: fields.join(",") })
            }
        }
    }
}

/// One term of a field selector with its first path element renamed.
fn stored_term(term: &str) -> String {
    let term = term.trim();
    let end = term.find(['.', '=', '!']).unwrap_or(term.len());
    let (head, rest) = term.split_at(end);
    let head = EVENT_FIELDS.iter().find(|(_, new)| *new == head).map_or(head, |(core, _)| core);
    format!("{head}{rest}")
}

fn rename(
    mut object: Value,
    api_version: &str,
    direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
) -> Value {
    if let Some(map) = object.as_object_mut() {
        for pair in EVENT_FIELDS {
            let (from, to) = direction(pair);
            if let Some(value) = map.remove(from) {
                map.insert(to.to_owned(), value);
            }
        }
        if map.contains_key("apiVersion") {
            map.insert("apiVersion".to_owned(), json!(api_version));
        }
    }
    object
}

/// Turns an object written in an older version of a built-in kind into the stored one.
pub(crate) fn upgrade(kind: &ResourceType, version: &str, object: &mut Value) {
    if kind.resource.group != "autoscaling" || version != "v1" {
        return;
    }
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if let Some(percent) = spec.remove("targetCPUUtilizationPercentage") {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        spec.entry("metrics").or_insert_with(|| json!([metric]));
    }
}
