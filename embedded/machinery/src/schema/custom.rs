//! Custom objects against the `openAPIV3Schema` of their CRD version.
//!
//! A write goes through [`decode`] (prune), [`apply_defaults`] and [`validate`], in this order. The schema is structural, as
//! `apiextensions.k8s.io/v1` demands. Rules in CEL (`x-kubernetes-validations`) are not evaluated.

mod defaults;
mod prune;
mod validate;

use serde_json::Value;

pub use defaults::apply_defaults;
pub use validate::validate;

use super::{Builtin, TypeError};

/// A value that breaks a rule of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The reason of the cause in a Status, e.g. `FieldValueInvalid`.
    pub reason: &'static str,
    /// E.g. `spec.routes[0].match`; empty for the object itself.
    pub field: String,
    /// E.g. `Invalid value: 0: spec.port in body should be greater than or equal to 1`.
    pub message: String,
}

/// Takes out fields that the schema does not have and returns their paths. Metadata is decoded as that of built-in
/// kinds. On an error the object may be partly changed.
pub fn decode(schema: &Value, kind: &str, version: &str, object: &mut Value) -> Result<Vec<String>, TypeError> {
    let error = |problem| TypeError { kind: kind.to_owned(), version: version.to_owned(), problem };
    if !object.is_object() {
        return Err(error("json: cannot unmarshal the body: expected an object".to_owned()));
    }
    let mut unknown = match object.get_mut("metadata") {
        Some(metadata) => Builtin::decode_metadata(metadata).map_err(error)?,
        None => Vec::new(),
    };
    unknown.extend(prune::prune(schema, object));
    Ok(unknown)
}

/// Whether fields without a schema are kept.
fn preserves_unknown(schema: &Value) -> bool {
    is_set(schema, "x-kubernetes-preserve-unknown-fields")
}

fn is_set(schema: &Value, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

/// The schema of a field: a property, or what all other fields share.
fn field_schema<'s>(schema: &'s Value, name: &str) -> Option<&'s Value> {
    let property = schema.get("properties").and_then(|properties| properties.get(name));
    property.or_else(|| schema.get("additionalProperties").filter(|other| other.is_object()))
}

#[cfg(test)]
mod tests;
