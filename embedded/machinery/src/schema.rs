//! What objects may look like: Kubernetes' own types, and the schemas of custom resources.
//!
//! A body is *decoded* first: fields that the type does not have are taken out (and reported, since
//! `fieldValidation=Strict` refuses them), nulls that mean "unset" go, and values of a wrong type are an error.
//! [`Builtin`] does this for built-in kinds, from the schemas that `k8s-openapi` has for its structs; [`custom::decode`]
//! for custom ones. Custom objects are then *defaulted* and *validated* against their schema ([`custom`]).
//!
//! Nothing is made before it is needed: the types of a kind with the first object of that kind, the OpenAPI schemas
//! ([`openapi`]) whenever somebody asks.

mod builtin;
pub mod custom;
pub mod openapi;

pub use builtin::Builtin;

/// A value of the wrong type: 400. Worded as Go's JSON decoder does, which is what Kubernetes answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} in version {version:?} cannot be handled as a {kind}: {problem}")]
pub struct TypeError {
    /// The kind of the object.
    pub kind: String,
    /// Its version without the group.
    pub version: String,
    /// E.g. `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
    pub problem: String,
}

/// The message of the 400 for unknown fields under `fieldValidation=Strict`; paths as the decoders return them.
pub fn strict_error(unknown: &[String]) -> String {
    let fields: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
    format!("strict decoding error: {}", fields.join(", "))
}

/// Extends a path by a field: `spec`, then `spec.replicas`.
fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}
