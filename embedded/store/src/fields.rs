//! The seam to the machinery: schemas, ownership of fields, server-side apply.

use meshgate_machinery::managed_fields::{self, ApplyError, Writer};
use meshgate_machinery::shape::Shape;
use serde_json::{Value, json};

use crate::{ResourceType, Status, Subresource, WriteOptions, meta};

/// Kinds in which null is a value of its own, because fields hold any JSON.
const NULL_MATTERS: [&str; 2] = ["CustomResourceDefinition", "ControllerRevision"];

/// Checks types and, when `strict`, unknown fields. Nulls in built-in kinds mean unset and are dropped.
pub(crate) fn decode(kind: &ResourceType, _version: &str, object: &mut Value, _strict: bool) -> Result<(), Status> {
    if kind.builtin && !NULL_MATTERS.contains(&kind.kind.as_str()) {
        drop_nulls(object);
    }
    Ok(())
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Prunes, defaults and validates a custom object against its schema.
pub(crate) fn complete(_kind: &ResourceType, _version: &str, _object: &mut Value) -> Result<(), Status> {
    Ok(())
}

/// Notes in `managedFields` what a write that is no apply changed.
pub(crate) fn track(
    kind: &ResourceType,
    old: Option<&Value>,
    new: &mut Value,
    subresource: Subresource,
    options: &WriteOptions,
) {
    let time = meta::now();
    managed_fields::track_update(shape(kind), old, new, writer(kind, subresource, options, &time));
}

/// Server-side apply: the live object (`None` creates) with a configuration merged into it, owners noted.
pub(crate) fn merge(
    kind: &ResourceType,
    live: Option<&Value>,
    applied: &Value,
    subresource: Subresource,
    options: &WriteOptions,
) -> Result<Value, Status> {
    let time = meta::now();
    let writer = writer(kind, subresource, options, &time);
    managed_fields::apply(shape(kind), live, applied, writer, options.force).map_err(|error| refused(&error))
}

/// How lists and maps of a kind merge. Custom objects are stored in their preferred version.
fn shape(kind: &ResourceType) -> Shape<'_> {
    if kind.builtin {
        return Shape::Builtin(&kind.kind);
    }
    match kind.versions.first().and_then(|version| version.schema.as_deref()) {
        Some(schema) => Shape::Custom(schema),
        None => Shape::Unknown,
    }
}

fn writer<'a>(kind: &ResourceType, subresource: Subresource, options: &'a WriteOptions, time: &'a str) -> Writer<'a> {
    Writer {
        manager: &options.manager,
        subresource: (subresource == Subresource::Status).then_some("status"),
        has_status: meta::has_status(kind),
        time,
    }
}

fn refused(error: &ApplyError) -> Status {
    let ApplyError::Conflicts(conflicts) = error else {
        return Status::bad_request(error.to_string());
    };
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|conflict| {
            json!({"reason": "FieldManagerConflict", "message": conflict.message(), "field": conflict.field})
        })
        .collect();
    let mut status = Status::new(409, "Conflict", error.to_string());
    status.details = json!({"causes": causes});
    status
}
