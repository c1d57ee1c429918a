//! What a list or a watch is about: a namespace and selectors.

use std::sync::Arc;

use meshgate_machinery::selector::{FieldSelector, LabelSelector};
use serde_json::{Value, json};

use super::table::Change;
use super::{Event, Object, Selectors};
use crate::json::{set_meta, str_at};
use crate::{GroupResource, Status, selectable};

/// A resource, a namespace (or all) and parsed selectors.
pub(super) struct Filter {
    resource: GroupResource,
    namespace: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Filter {
    /// Parses the selectors; 400 when they are malformed.
    pub(super) fn new(
        resource: &GroupResource,
        namespace: Option<&str>,
        selectors: &Selectors,
    ) -> Result<Self, Status> {
        let bad = |error: &dyn std::fmt::Display| Status::bad_request(error.to_string());
        Ok(Self {
            resource: resource.clone(),
            namespace: namespace.filter(|namespace| !namespace.is_empty()).map(str::to_owned),
            labels: LabelSelector::parse(&selectors.labels).map_err(|error| bad(&error))?,
            fields: FieldSelector::parse(&selectors.fields).map_err(|error| bad(&error))?,
        })
    }

    /// The one namespace it is about, if it is.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Whether an object is in the namespace and selected.
    pub(super) fn matches(&self, object: &Value) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| str_at(object, "/metadata/namespace") == namespace)
            && self.labels.matches(object)
            && self.fields.matches(|label| selectable::text(&self.resource, label, object))
    }

    /// A change as seen through this filter: an object that begins to match is added, one that ceases to is deleted.
    pub(super) fn event(&self, change: &Change) -> Option<Event> {
        let before = change.old.as_ref().filter(|object| self.matches(object));
        let after = change.new.as_ref().filter(|object| self.matches(object));
        match (before, after) {
            (None, Some(new)) => Some(Event::Added(Arc::clone(new))),
            (Some(_), Some(new)) => Some(Event::Modified(Arc::clone(new))),
            (Some(old), None) if change.new.is_some() => Some(Event::Deleted(at_revision(old, change.revision))),
            (Some(old), None) => Some(Event::Deleted(Arc::clone(old))),
            (None, None) => None,
        }
    }
}

/// The object as it was, under a later revision, so that a client can resume from the event.
fn at_revision(object: &Object, revision: u64) -> Object {
    let mut object = Value::clone(object);
    set_meta(&mut object, "resourceVersion", json!(revision.to_string()));
    Arc::new(object)
}
