//! Writing an object's replicas by its Scale, as far as it is about who owns them.
//!
//! A Scale is made of an object and not stored, so nothing keeps its `managedFields`: it is lent those of the object, a
//! write to it is noted there, and they go back (`meshgate_machinery::managed_fields`). This belongs into a change of
//! [`Subresource::Scale`]. Replicas are at a JSON pointer of the object, such as `/spec/replicas`.

use std::sync::LazyLock;

use meshgate_machinery::managed_fields::{lend_owners, return_owners};
use serde_json::Value;

use crate::{GroupResource, ResourceType, Status, Subresource, WriteOptions, fields};

/// The only version of a Scale.
const VERSION: &str = "v1";

/// What a Scale is, which no path serves by itself.
static KIND: LazyLock<ResourceType> = LazyLock::new(|| ResourceType {
    resource: GroupResource::new("autoscaling", "scales"),
    kind: "Scale".to_owned(),
    singular: "scale".to_owned(),
    short_names: Vec::new(),
    categories: Vec::new(),
    namespaced: true,
    versions: Vec::new(),
    builtin: true,
});

/// Decodes a Scale that is to be applied.
///
/// # Errors
/// 400 for wrong types and for `managedFields`; 500, as on Kubernetes, for fields that no Scale has.
pub fn decode(configuration: &mut Value) -> Result<(), Status> {
    fields::decode_configuration(&KIND, VERSION, configuration)
}

/// Notes in an object who owns its replicas once its Scale is `new` instead of `old`, by a write that is no apply. What
/// becomes of the `managedFields` of `new` is nobody's concern.
pub fn update(object: &mut Value, replicas: &str, mut old: Value, new: &mut Value, options: &WriteOptions) {
    let path = path(replicas);
    lend_owners(object, &path, &mut old);
    fields::track(&KIND, Some(&old), new, Subresource::Scale, options);
    return_owners(new, &path, object);
}

/// Applies a decoded configuration to an object's Scale, and notes in the object who owns its replicas then. The answer
/// is the new Scale.
///
/// # Errors
/// 409 with a cause for each other owner of what would change, unless forced.
pub fn apply(
    object: &mut Value,
    replicas: &str,
    mut old: Value,
    configuration: &Value,
    options: &WriteOptions,
) -> Result<Value, Status> {
    let path = path(replicas);
    lend_owners(object, &path, &mut old);
    let new = fields::merge(&KIND, VERSION, Some(&old), configuration, Subresource::Scale, options)?;
    return_owners(&new, &path, object);
    Ok(new)
}

fn path(pointer: &str) -> Vec<&str> {
    pointer.split('/').skip(1).collect()
}
