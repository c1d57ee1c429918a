//! Applying a configuration.

use serde_json::{Value, json};

use super::conflict::{ApplyError, Conflict};
use super::entries::{self, Entry, Operation};
use super::walk::{self, Comparison};
use super::{FieldSet, Writer, api_version, drop_unowned, take_over};
use crate::shape::Shape;

/// Owns what was there before the first apply to an object without `managedFields`.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The manager that may take over what client-side apply left, and keeps its annotation in step.
const KUBECTL: &str = "kubectl";

/// Where client-side apply keeps the last configuration.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Merges a configuration into the live object (`None` creates) and returns the result with its `managedFields`.
///
/// Applying what is already there returns the live object unchanged. With `force`, conflicting fields are taken from
/// their owners.
pub fn apply(
    shape: Shape<'_>,
    live: Option<&Value>,
    applied: &Value,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let applied = configuration(applied, writer);
    let nothing = json!({});
    let before = live.unwrap_or(&nothing);
    let entries = match live {
        Some(live) => entries_of(shape, live, writer),
        None => Vec::new(),
    };
    let mut me = Entry::new(writer, Operation::Apply, api_version(&applied));
    let config = walk::members(shape, &applied)?;

    let mut merged = walk::merge(shape, before, &applied);
    if let Some(last) = entries.iter().find(|entry| entry.same_writer(&me)) {
        let others = entries.iter().filter(|entry| !entry.same_writer(&me)).map(|entry| &entry.fields);
        walk::remove(shape, &mut merged, &left_out(shape, &last.fields, &config, others));
    }
    me.fields = config;
    drop_unowned(&mut me.fields, writer);

    let mut comparison = Comparison::of(shape, before, &merged);
    comparison.each(|set| drop_unowned(set, writer));
    if !force {
        let conflicts = conflicts(shape, before, &entries, &me, &comparison);
        if !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
    }
    let had_entries = live.is_some_and(|live| !entries::read(live).is_empty());
    let owned_alike = entries
        .iter()
        .any(|entry| entry.same_writer(&me) && entry.fields == me.fields && entry.api_version == me.api_version);
    if let Some(live) = live
        // The order of items counts, although nobody owns it.
        && merged == *live
        && had_entries
        && owned_alike
    {
        return Ok(live.clone());
    }
    let (fields, version) = (me.fields.clone(), me.api_version.clone());
    me.fields = FieldSet::default();
    let mut entries = take_over(entries, &me, &comparison, |mine| *mine = fields);
    if let Some(mine) = entries.iter_mut().find(|entry| entry.same_writer(&me)) {
        mine.api_version = version;
    }
    if writer.manager == KUBECTL && writer.subresource.is_none() {
        keep_annotation(before, &applied, &mut merged);
    }
    entries::write(&mut merged, entries);
    Ok(merged)
}

/// What of the body counts: nothing that is null, no `managedFields`, and only the part that the write can reach.
fn configuration(applied: &Value, writer: Writer<'_>) -> Value {
    let mut applied = walk::without_nulls(applied);
    let Some(object) = applied.as_object_mut() else { return json!({}) };
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if writer.subresource == Some("status") {
            metadata.retain(|name, _| name == "name" || name == "namespace");
        }
    }
    match writer.subresource {
        Some("status") => {
            object.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
        }
        _ if writer.has_status => {
            object.remove("status");
        }
        _ => {}
    }
    applied
}

fn entries_of(shape: Shape<'_>, live: &Value, writer: Writer<'_>) -> Vec<Entry> {
    let entries = entries::read(live);
    if !entries.is_empty() {
        return entries;
    }
    let earlier = Writer { manager: BEFORE_FIRST_APPLY, ..writer };
    let mut entry = Entry::new(earlier, Operation::Update, api_version(live));
    entry.fields = Comparison::of(shape, &json!({}), live).added;
    drop_unowned(&mut entry.fields, writer);
    super::always_there(shape).for_each(|path| entry.fields.disown(path));
    if writer.subresource == Some("status") {
        entry.fields.forget(&["metadata"]);
        entry.fields.forget(&["spec"]);
    }
    vec![entry]
}

/// What the manager applied the last time, leaves out now, and nobody else owns.
fn left_out<'s>(
    shape: Shape<'s>,
    last: &'s FieldSet,
    config: &'s FieldSet,
    others: impl Iterator<Item = &'s FieldSet>,
) -> FieldSet {
    let mut gone = last.with_ancestors(shape.root());
    gone.subtract(&config.with_ancestors(shape.root()));
    others.for_each(|others| gone.subtract(&others.with_ancestors(shape.root())));
    gone
}

fn conflicts(shape: Shape<'_>, live: &Value, entries: &[Entry], me: &Entry, comparison: &Comparison) -> Vec<Conflict> {
    let mut changed = comparison.modified.clone();
    changed.add(&comparison.added);
    if me.manager == KUBECTL {
        changed.subtract(&last_applied(shape, live));
    }
    let others = entries.iter().filter(|entry| !entry.same_writer(me));
    others
        .flat_map(|entry| {
            let fields = entry.fields.intersection(&changed).paths();
            fields.into_iter().map(|field| Conflict { owner: entry.owner(), field })
        })
        .collect()
}

/// The fields that the user last set through client-side apply and that still have those values: kubectl's to change.
fn last_applied(shape: Shape<'_>, live: &Value) -> FieldSet {
    let annotation = live.pointer("/metadata/annotations").and_then(|annotations| annotations.get(LAST_APPLIED));
    let configuration = annotation.and_then(Value::as_str).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let Some(configuration) = configuration else { return FieldSet::default() };
    let configuration = walk::without_nulls(&configuration);
    let Ok(mut fields) = walk::members(shape, &configuration) else { return FieldSet::default() };
    fields.subtract(&Comparison::of(shape, &configuration, live).modified);
    fields
}

/// Where client-side apply's annotation is, it must say what was applied last, so that the two can be mixed.
fn keep_annotation(live: &Value, applied: &Value, merged: &mut Value) {
    let annotations = |object: &Value| object.pointer("/metadata/annotations")?.get(LAST_APPLIED).cloned();
    if annotations(live).is_none() || annotations(merged).is_none() {
        return;
    }
    let mut configuration = applied.clone();
    if let Some(annotations) = configuration.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    // kubectl ends the annotation with a line break, as Go's encoder does.
    merged["metadata"]["annotations"][LAST_APPLIED] = Value::String(format!("{configuration}\n"));
}
