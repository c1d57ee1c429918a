//! The dialects of PATCH.

use meshgate_store::Status;
use serde_json::Value;

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

    /// The patch in a body, for objects of a group and kind.
    pub(crate) fn parse(self, bytes: &[u8], strict: bool, group: &str, kind: &str) -> Result<Patch, Status> {
        let document = body::json(bytes, strict)?;
        Ok(Patch { dialect: self, document, group: group.to_owned(), kind: kind.to_owned() })
    }
}

/// A patch for objects of one kind.
pub(crate) struct Patch {
    dialect: PatchKind,
    document: Value,
    group: String,
    kind: String,
}

impl Patch {
    /// A merge patch.
    pub(crate) fn merge(document: Value) -> Self {
        Self { dialect: PatchKind::Merge, document, group: String::new(), kind: String::new() }
    }

    /// Changes an object; 422 when the patch does not fit it.
    pub(crate) fn apply(&self, object: &mut Value) -> Result<(), Status> {
        match self.dialect {
            PatchKind::Merge | PatchKind::Apply => merge(object, &self.document),
            _ => {
                return Err(Status::internal(format!("{} {}", self.group, self.kind)));
            }
        }
        Ok(())
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = serde_json::json!({});
    }
    if let Some(map) = target.as_object_mut() {
        for (key, value) in patch {
            if value.is_null() {
                map.remove(key);
            } else {
                merge(map.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}
