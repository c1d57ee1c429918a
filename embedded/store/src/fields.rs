//! The seam to the machinery: schemas, ownership of fields, server-side apply.

use meshgate_machinery::managed_fields::{self, ApplyError, Writer};
use meshgate_machinery::schema::{self, Builtin, TypeError, custom};
use meshgate_machinery::shape::Shape;
use serde_json::{Value, json};

use crate::invalid::FieldErrors;
use crate::json::str_at;
use crate::{ResourceType, Status, Subresource, WriteOptions, meta};

/// How what is to be written was given, which decides the answer where it is not of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// As a body: 400.
    Whole,
    /// As a patch, of which this is what it left: 422, a rule's refusal of the patch.
    Patched,
    /// As an applied configuration, which is of its type; who owns what is settled. What was there before may not be: 400.
    Merged,
}

impl Given {
    fn refuse(self, kind: &str, version: &str, object: &Value, problem: String) -> Status {
        match self {
            Self::Whole | Self::Merged => {
                let error = TypeError { kind: kind.to_owned(), version: version.to_owned(), problem };
                Status::bad_request(error.to_string())
            }
            Self::Patched => Status::unfit_patch(object, &problem),
        }
    }
}

/// Checks types, takes out nulls that mean unset and fields that the kind does not have. What becomes of the latter is the options' to say.
pub(crate) fn decode(
    kind: &ResourceType,
    version: &str,
    object: &mut Value,
    options: &WriteOptions,
) -> Result<(), Status> {
    type_check(kind, version, object, options)
        .map_err(|problem| Given::Whole.refuse(&kind.kind, version, object, problem))
}

/// The same, with what is wrong as it is told in either answer.
fn type_check(kind: &ResourceType, version: &str, object: &mut Value, options: &WriteOptions) -> Result<(), String> {
    let unknown = take_unknown(kind, version, object).map_err(|error| error.problem)?;
    options.judge_fields(unknown.iter().map(|path| schema::unknown_field(path)).collect())
}

/// The same for an applied configuration, which may set nothing that its kind does not have, since nobody could own it,
/// nor who owns what.
pub(crate) fn decode_configuration(kind: &ResourceType, version: &str, object: &mut Value) -> Result<(), Status> {
    if crate::at(object, "/metadata/managedFields").is_some_and(|given| !given.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let unknown = take_unknown(kind, version, object).map_err(|error| Status::bad_request(error.to_string()))?;
    let mut problems = unknown.iter().map(|path| format!(".{path}: field not declared in schema"));
    match (problems.next(), problems.next()) {
        (None, _) => Ok(()),
        (Some(only), None) => Err(untyped(kind, version, object, &only)),
        (Some(first), Some(second)) => {
            let lines = ["errors:".to_owned(), first, second].into_iter().chain(problems);
            Err(untyped(kind, version, object, &lines.collect::<Vec<_>>().join("\n  ")))
        }
    }
}

/// Takes out nulls that mean unset and fields that the kind does not have; the paths of the latter.
fn take_unknown(kind: &ResourceType, version: &str, object: &mut Value) -> Result<Vec<String>, TypeError> {
    match Builtin::find(&kind.resource.group, version, &kind.kind) {
        Some(builtin) if kind.builtin => builtin.decode(object),
        _ => match schema_of(kind, version) {
            Some(schema) => custom::decode(schema, &kind.kind, version, object),
            None => Ok(Vec::new()),
        },
    }
}

/// A configuration that is not of its type. Kubernetes answers 500 for it, and gives no reason.
fn untyped(kind: &ResourceType, version: &str, object: &Value, problem: &str) -> Status {
    let (namespace, name) = (str_at(object, "/metadata/namespace"), str_at(object, "/metadata/name"));
    let (group, kind) = (&kind.resource.group, &kind.kind);
    let message =
        format!("failed to create typed patch object ({namespace}/{name}; {group}/{version}, Kind={kind}): {problem}");
    Status::new(500, "", message)
}

/// The same for what is to replace `current`: a part that is as it was has been through this before. Not so in custom objects,
/// whose schema may have changed since.
pub(crate) fn decode_changes(
    kind: &ResourceType,
    version: &str,
    current: &Value,
    object: &mut Value,
    options: &WriteOptions,
    given: Given,
) -> Result<(), Status> {
    let stored_form = kind.builtin && kind.versions.first().is_some_and(|stored| stored.name == version);
    let mut kept = Vec::new();
    if let (Some(old), Some(new), true) = (current.as_object(), object.as_object_mut(), stored_form) {
        for (key, value) in old.iter().filter(|(key, _)| *key != "apiVersion" && *key != "kind") {
            if new.get(key) == Some(value) {
                kept.extend(new.remove_entry(key));
            }
        }
    }
    let checked = type_check(kind, version, object, options);
    if let Some(new) = object.as_object_mut() {
        new.extend(kept);
    }
    checked.map_err(|problem| given.refuse(&kind.kind, version, object, problem))
}

/// Fills in the defaults of a custom object's schema.
pub(crate) fn apply_defaults(kind: &ResourceType, version: &str, object: &mut Value) {
    if let Some(schema) = schema_of(kind, version) {
        custom::apply_defaults(schema, object);
    }
}

/// Validates a custom object against its schema.
pub(crate) fn validate(kind: &ResourceType, version: &str, object: &Value, errors: &mut FieldErrors) {
    for error in schema_of(kind, version).map(|schema| custom::validate(schema, object)).unwrap_or_default() {
        errors.other(error.reason, error.field, error.message);
    }
}

/// The schema of a custom kind in one version.
fn schema_of<'a>(kind: &'a ResourceType, version: &str) -> Option<&'a Value> {
    kind.versions.iter().find(|served| served.name == version)?.schema.as_deref()
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
    version: &str,
    live: Option<&Value>,
    applied: &Value,
    subresource: Subresource,
    options: &WriteOptions,
) -> Result<Value, Status> {
    let time = meta::now();
    let writer = writer(kind, subresource, options, &time);
    managed_fields::apply(shape(kind), live, applied, writer, options.force)
        .map_err(|error| refused(kind, version, applied, &error))
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
        subresource: match subresource {
            Subresource::Main => None,
            Subresource::Status => Some("status"),
            Subresource::Scale => Some("scale"),
        },
        has_status: meta::has_status(kind),
        time,
    }
}

fn refused(kind: &ResourceType, version: &str, applied: &Value, error: &ApplyError) -> Status {
    let ApplyError::Conflicts(conflicts) = error else {
        return untyped(kind, version, applied, &error.to_string());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Warnings, builtin};

    #[test]
    fn a_configuration_sets_what_its_kind_has() {
        let kind = builtin::types().find(|kind| kind.kind == "Deployment").unwrap();
        let decoded =
            |mut object: Value| decode_configuration(&kind, "v1", &mut object).map_err(|error| error.to_value());
        let whole = json!({"metadata": {"name": "web", "namespace": "demo"}, "spec": {"replicas": 1, "paused": null}});
        assert_eq!(decoded(whole.clone()), Ok(()));
        let mut wrong = whole;
        wrong["spec"]["replcas"] = json!(1);
        let head = "failed to create typed patch object (demo/web; apps/v1, Kind=Deployment)";
        let error = decoded(wrong.clone()).unwrap_err();
        assert_eq!(error["message"], format!("{head}: .spec.replcas: field not declared in schema"));
        assert_eq!((&error["code"], error.get("reason")), (&json!(500), None));
        wrong["bogus"] = json!(1);
        let message = decoded(wrong).unwrap_err()["message"].as_str().unwrap().to_owned();
        let lines: std::collections::BTreeSet<&str> = message.split("\n  ").collect();
        let (one, other) = (".bogus: field not declared in schema", ".spec.replcas: field not declared in schema");
        assert_eq!(lines, [one, other, &format!("{head}: errors:")].into(), "{message}");
    }

    /// What takes the place of a stored object comes out of the shorter way as out of the longer one.
    #[test]
    fn what_changed_is_decoded_as_the_whole_would_be() {
        let kind = builtin::types().find(|kind| kind.kind == "Deployment").unwrap();
        let current = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "web"}]}}},
            "status": {"replicas": 1},
        });
        let changes: [fn(&mut Value); 8] = [
            |_| {},
            |object| object["spec"]["replicas"] = json!("two"),
            |object| object["spec"]["unknown"] = json!(1),
            |object| object["unknown"] = json!(1),
            |object| object["metadata"]["labels"]["gone"] = Value::Null,
            |object| object["metadata"]["labels"] = json!(["x"]),
            |object| object["status"] = json!({"replicas": 2, "unknown": 1}),
            |object| drop(object.as_object_mut().and_then(|object| object.remove("spec"))),
        ];
        for (index, change) in changes.iter().enumerate() {
            for strict in [false, true] {
                let by = || WriteOptions { strict, warnings: Warnings::heard(), ..WriteOptions::default() };
                let (of_all, of_changes) = (by(), by());
                let mut whole = current.clone();
                change(&mut whole);
                let mut changed = whole.clone();
                let expected = decode(&kind, "v1", &mut whole, &of_all).map_err(|error| error.message);
                let found = decode_changes(&kind, "v1", &current, &mut changed, &of_changes, Given::Whole)
                    .map_err(|error| error.message);
                assert_eq!(found, expected, "change {index}");
                assert_eq!(of_changes.warnings.told(), of_all.warnings.told(), "change {index}");
                let told = !strict && [2, 3, 6].contains(&index);
                assert_eq!(of_all.warnings.told().len(), usize::from(told), "change {index}");
                if found.is_ok() {
                    assert_eq!(changed, whole, "change {index}");
                }
            }
        }
    }
}
