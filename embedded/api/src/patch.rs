//! The dialects of PATCH.

use meshgate_machinery::patch::{self, PatchError};
use meshgate_machinery::schema::unknown_field;
use meshgate_store::{Status, WriteOptions};
use serde_json::{Value, json};

use crate::options::Problems;
use crate::{body, reply};

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// The dialect of a patch, from its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Lists merged by key, with directives; built-in kinds only.
    Strategic,
    /// Server-side apply: the body is an object.
    Apply,
}

impl PatchKind {
    /// 415 for any other content type, and for a strategic merge patch where it has no meaning.
    pub(crate) fn of(content_type: &str, builtin: bool) -> Result<Self, Status> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            JSON => Ok(Self::Json),
            MERGE => Ok(Self::Merge),
            STRATEGIC if builtin => Ok(Self::Strategic),
            APPLY => Ok(Self::Apply),
            _ if builtin => Err(reply::unsupported_media_type(&[JSON, MERGE, STRATEGIC, APPLY])),
            _ => Err(reply::unsupported_media_type(&[JSON, MERGE, APPLY])),
        }
    }

    /// 422 for options that do not go with the dialect: an apply says by whom it is, and only an apply can be forced.
    pub(crate) fn check_options(self, has_manager: bool, force: bool) -> Result<(), Status> {
        let mut problems = Problems::of("PatchOptions");
        match self {
            Self::Apply if !has_manager => problems.required("fieldManager", "is required for apply patch"),
            Self::Json | Self::Merge | Self::Strategic if force => {
                problems.forbidden("force", "may not be specified for non-apply patch");
            }
            _ => {}
        }
        problems.into_result()
    }

    /// The patch in a body, for objects of a kind.
    pub(crate) fn parse(self, bytes: &[u8], options: &WriteOptions, kind: &str) -> Result<Patch, Status> {
        let document = body::json(bytes, options)?;
        if self == Self::Json {
            body::judge(options, unknown_in_operations(&document))?;
        }
        Ok(Patch { dialect: self, document, kind: kind.to_owned() })
    }
}

/// What the operations of a JSON patch say that no operation has.
fn unknown_in_operations(document: &Value) -> Vec<String> {
    const FIELDS: [&str; 4] = ["op", "path", "from", "value"];
    let operations = document.as_array().into_iter().flatten().enumerate();
    let fields = operations.flat_map(|(index, operation)| {
        let keys = operation.as_object().into_iter().flat_map(|operation| operation.keys());
        let unknown = keys.filter(|key| !FIELDS.contains(&key.as_str()));
        unknown.map(move |key| format!("json patch {}", unknown_field(&format!("[{index}].{key}"))))
    });
    fields.collect()
}

/// A patch for objects of one kind.
pub(crate) struct Patch {
    dialect: PatchKind,
    document: Value,
    kind: String,
}

impl Patch {
    /// Changes an object; 400 when the patch is none, 422 when it does not fit the object or leaves none.
    pub(crate) fn apply(&self, object: &mut Value) -> Result<(), Status> {
        let applied = match self.dialect {
            PatchKind::Json => patch::json_patch(object, &self.document),
            PatchKind::Merge | PatchKind::Apply => patch::merge_patch(object, &self.document),
            PatchKind::Strategic => patch::strategic_merge_patch(&self.kind, object, &self.document),
        };
        applied.map_err(|error| match error {
            PatchError::Operation(_) => {
                tracing::debug!(%error, "a patch does not fit");
                let message = "the server rejected our request due to an error in our request";
                let mut status = Status::new(422, "Invalid", message);
                status.details = json!({});
                status
            }
            PatchError::NotAJsonPatch(_)
            | PatchError::NotAnObject(_)
            | PatchError::Directive { .. }
            | PatchError::MergeKey { .. } => Status::bad_request(error.to_string()),
        })?;
        if object.get("kind").is_some() {
            return Ok(());
        }
        Err(Status::unfit_patch(object, &format!("Object 'Kind' is missing in '{object}'")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(patch: Value) -> Result<Value, Status> {
        let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}});
        let patch = Patch { dialect: PatchKind::Json, document: patch, kind: "ConfigMap".to_owned() };
        patch.apply(&mut object).map(|()| object)
    }

    #[test]
    fn a_patch_that_does_not_fit_is_refused_without_a_reason() {
        let refused = patched(json!([{"op": "test", "path": "/data/a", "value": "c"}])).unwrap_err();
        let message = "the server rejected our request due to an error in our request";
        assert_eq!((refused.code, refused.message.as_str(), &refused.details), (422, message, &json!({})));
        assert_eq!(patched(json!([{"op": "remove", "path": "/data/a"}])).unwrap()["data"], json!({}));
    }

    #[test]
    fn a_patch_leaves_an_object() {
        let refused = patched(json!([{"op": "replace", "path": "", "value": {}}])).unwrap_err();
        let message = " \"\" is invalid: patch: Invalid value: \"{}\": Object 'Kind' is missing in '{}'";
        assert_eq!((refused.code, refused.message.as_str()), (422, message));
    }
}
