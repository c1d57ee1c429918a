//! Server-side apply: who owns which field (`metadata.managedFields`), and merging a configuration into an object.
//!
//! An applied configuration is merged into the live object; what its manager applied before, leaves out now and
//! nobody else owns is removed; a change of a field that another manager owns is a [`Conflict`] unless forced. Every
//! other write takes ownership of what it changed ([`track_update`]). Owners of replicas are [lent](lend_owners) to
//! Scales, in which they may change. The rules are those of
//! `sigs.k8s.io/structured-merge-diff` and `k8s.io/apimachinery/pkg/util/managedfields`.
//!
//! ```text
//! shape ──┐
//! values ─┴─> walk: members, comparison, merge, removal ──> field_set ──> entries (managedFields) ──> text: kept and served
//! ```

mod apply;
mod conflict;
mod entries;
mod field_set;
mod scale;
mod text;
mod walk;

use serde_json::Value;

pub use apply::apply;
pub use conflict::{ApplyError, Conflict};
pub use field_set::{FieldSet, PathElement};
pub use scale::{lend_owners, return_owners};
pub use text::{Wire, expanded};

use crate::shape::Shape;
use entries::{Entry, Operation};
use walk::Comparison;

/// Who writes, through which door.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The field manager. Without a name nobody becomes the owner of what an update changed.
    pub manager: &'a str,
    /// `status` or `scale`; `None` for the main resource.
    pub subresource: Option<&'a str>,
    /// Whether the kind has a status subresource, so that a write to the main resource does not reach `status`.
    pub has_status: bool,
    /// Now, in RFC 3339, e.g. `2026-11-22T10:00:00Z`.
    pub time: &'a str,
}

/// Notes in `new.metadata.managedFields` what a write that is no apply changed.
///
/// `old` is the stored object, `None` on creation. A write to the main resource may bring `managedFields` of its own,
/// as kubectl does to hand fields over; `[{}]` resets them.
pub fn track_update(shape: Shape<'_>, old: Option<&Value>, new: &mut Value, writer: Writer<'_>) {
    let entries = entries_before(old, new, writer);
    if old.is_some() && entries.is_empty() {
        // Who owns nothing of an object that is there is found out with the first apply.
        entries::write(new, entries);
        return;
    }
    let nothing = Value::Object(serde_json::Map::new());
    let before = old.unwrap_or(&nothing);
    let mut comparison = Comparison::of(shape, before, new);
    comparison.each(|set| {
        drop_unowned(set, writer);
        always_there(shape).for_each(|path| set.disown(path));
    });
    let me = Entry::new(writer, Operation::Update, api_version(new));
    let entries = take_over(entries, &me, &comparison, |mine| {
        mine.subtract(&comparison.removed);
        if !writer.manager.is_empty() {
            mine.add(&comparison.modified);
            mine.add(&comparison.added);
        }
    });
    entries::write(new, entries);
}

/// Maps and lists that objects of Go's types have even when nobody set them, and nobody owns as such.
fn always_there(shape: Shape<'_>) -> impl Iterator<Item = &'static [&'static str]> {
    let rows: &[&[&str]] = match shape {
        Shape::Builtin("Deployment") => &[&["spec", "strategy"]],
        Shape::Builtin("DaemonSet" | "StatefulSet") => &[&["spec", "updateStrategy"]],
        Shape::Builtin("Pod") => &[&["spec", "containers"]],
        Shape::Builtin("PersistentVolumeClaim") => &[&["spec", "resources"]],
        Shape::Builtin("Ingress" | "Service") => &[&["status", "loadBalancer"]],
        Shape::Builtin("HorizontalPodAutoscaler") => &[&["spec", "scaleTargetRef"]],
        Shape::Builtin("Event") => &[&["source"], &["deprecatedSource"]],
        Shape::Builtin("PodTemplate") => {
            &[&["template"], &["template", "metadata"], &["template", "spec"], &["template", "spec", "containers"]]
        }
        Shape::Builtin("CronJob") => &[
            &["spec", "jobTemplate"],
            &["spec", "jobTemplate", "metadata"],
            &["spec", "jobTemplate", "spec"],
            &["spec", "jobTemplate", "spec", "template"],
            &["spec", "jobTemplate", "spec", "template", "metadata"],
            &["spec", "jobTemplate", "spec", "template", "spec"],
            &["spec", "jobTemplate", "spec", "template", "spec", "containers"],
        ],
        Shape::Builtin("Node") => &[
            &["status", "daemonEndpoints"],
            &["status", "daemonEndpoints", "kubeletEndpoint"],
            &["status", "nodeInfo"],
        ],
        _ => &[],
    };
    let parts: &[&[&str]] = if matches!(shape, Shape::Builtin(_)) { &[&["spec"], &["status"]] } else { &[] };
    let template: &[&[&str]] = match shape {
        Shape::Builtin("Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" | "Job") => &[
            &["spec", "template"],
            &["spec", "template", "metadata"],
            &["spec", "template", "spec"],
            &["spec", "template", "spec", "containers"],
        ],
        _ => &[],
    };
    rows.iter().chain(parts).chain(template).copied()
}

fn api_version(object: &Value) -> &str {
    object.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
}

/// The entries that hold before the write.
fn entries_before(old: Option<&Value>, new: &Value, writer: Writer<'_>) -> Vec<Entry> {
    let live = || old.map(entries::read).unwrap_or_default();
    if writer.subresource.is_some() {
        return live();
    }
    if entries::is_reset(new) {
        return Vec::new();
    }
    let brought = entries::read(new);
    if brought.is_empty() { live() } else { brought }
}

/// Everybody loses what was changed or removed; `me` is changed as asked and gets a new time if that, or the object,
/// made a difference. Entries left with nothing go.
fn take_over(
    mut entries: Vec<Entry>,
    me: &Entry,
    comparison: &Comparison,
    change: impl FnOnce(&mut FieldSet),
) -> Vec<Entry> {
    let at = entries.iter().position(|entry| entry.same_writer(me));
    for (index, entry) in entries.iter_mut().enumerate() {
        if Some(index) != at {
            entry.fields.subtract(&comparison.modified);
            entry.fields.subtract(&comparison.added);
        }
        entry.fields.subtract(&comparison.removed);
    }
    match at {
        Some(at) => {
            let mine = &mut entries[at];
            let former = mine.fields.clone();
            change(&mut mine.fields);
            if !comparison.is_empty() || mine.fields != former {
                mine.time.clone_from(&me.time);
            }
        }
        None => {
            let mut mine = me.clone();
            change(&mut mine.fields);
            entries.push(mine);
        }
    }
    entries.retain(|entry| !entry.fields.is_empty());
    entries
}

/// What nobody owns: the identity of the object and what the server fills in, and the status in a write that cannot
/// reach it.
fn drop_unowned(set: &mut FieldSet, writer: Writer<'_>) {
    const METADATA: [&str; 9] = [
        "clusterName",
        "creationTimestamp",
        "generation",
        "managedFields",
        "name",
        "namespace",
        "resourceVersion",
        "selfLink",
        "uid",
    ];
    set.forget(&["apiVersion"]);
    set.forget(&["kind"]);
    for field in METADATA {
        set.forget(&["metadata", field]);
    }
    set.disown(&["metadata"]);
    if writer.has_status && writer.subresource != Some("status") {
        set.forget(&["status"]);
    }
}

#[cfg(test)]
mod tests;
