//! What objects may look like: Kubernetes' own types, and the schemas of custom resources.
//!
//! A body is *decoded* first: fields that the type does not have are taken out (and reported, since
//! `fieldValidation` says what becomes of them), nulls that mean "unset" go, and values of a wrong type are an error.
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

/// What is said of a field that a type does not have; its path as the decoders return it.
pub fn unknown_field(path: &str) -> String {
    format!("unknown field {path:?}")
}

/// Extends a path by a field: `spec`, then `spec.replicas`.
fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}
